//! Isolation for drills on a real fabric: what a node keeps from its peers, who said so, and until when.
//!
//! A drill holds a node by a *lease*: short, renewed as long as the drill runs, and over by itself when nobody
//! renews it. So whatever becomes of the program that runs the drill, or of the way to it, the node heals; and
//! because leases are only ever in memory, a node that starts anew is whole. Pure: `now_ms` is a monotonic time
//! of the caller's.

use std::{collections::BTreeMap, fmt, ops::RangeInclusive, str::FromStr};

use crate::id::{Name, NodeName};

/// How long a lease may last, milliseconds: long enough for a renewal that is late, and never so long that an
/// exercise outlives everybody's patience.
pub const LEASE_MS: RangeInclusive<u64> = 1_000..=600_000;
/// How long a lease lasts that does not say, milliseconds.
pub const DEFAULT_LEASE_MS: u64 = 5_000;
/// Most cuts of one lease.
pub const MAX_CUTS: usize = 256;
/// Longest name of a holder, bytes.
pub const MAX_HOLDER_BYTES: usize = 64;

/// From whom a node is cut off.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whom {
    /// `all`: everybody.
    All,
    /// `cloud/NAME`: every node of this cloud.
    Cloud(Name),
    /// `node/NAME`: this node.
    Node(NodeName),
}

impl FromStr for Whom {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = |rest: &str| Name::new(rest).map_err(|error| format!("{text:?}: {error}"));
        match text.split_once('/') {
            None if text == "all" => Ok(Self::All),
            Some(("cloud", rest)) => name(rest).map(Self::Cloud),
            Some(("node", rest)) => name(rest).map(Self::Node),
            _ => Err(format!("{text:?} names nobody; write all, cloud/NAME or node/NAME")),
        }
    }
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Cloud(name) => write!(f, "cloud/{name}"),
            Self::Node(name) => write!(f, "node/{name}"),
        }
    }
}

/// Which directions between this node and a peer are cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cut {
    /// Nothing goes to the peer.
    pub to: bool,
    /// Nothing comes from the peer.
    pub from: bool,
}

impl Cut {
    /// Both directions.
    pub const BOTH: Self = Self { to: true, from: true };

    /// Whether any direction is cut.
    #[must_use]
    pub const fn is_any(self) -> bool {
        self.to || self.from
    }

    /// What either of the two cuts.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self { to: self.to || other.to, from: self.from || other.from }
    }
}

/// Cuts by peer, clouds written out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cuts {
    /// From everybody, known or not.
    pub everybody: Cut,
    /// From these.
    pub nodes: BTreeMap<NodeName, Cut>,
}

impl Cuts {
    /// What is cut between this node and a peer.
    #[must_use]
    pub fn of(&self, node: &NodeName) -> Cut {
        self.everybody.or(self.nodes.get(node).copied().unwrap_or_default())
    }

    /// Whether nothing is cut.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.everybody.is_any() && !self.nodes.values().any(|cut| cut.is_any())
    }
}

/// What a drill asks of a node: to hold it for a while, with these cuts and no others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The drill, for people.
    pub drill: Name,
    /// A random word that only this run of it knows: who renews must be who began.
    pub holder: String,
    /// How long; [`LEASE_MS`].
    pub lease_ms: u64,
    /// Nothing, too: then the node is only held, so that no other drill takes it.
    pub cuts: BTreeMap<Whom, Cut>,
}

/// A node in the hands of a drill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The drill.
    pub drill: Name,
    /// Who holds it.
    pub holder: String,
    /// On whose behalf: the caller's name.
    pub by: String,
    /// Since when.
    pub since_ms: u64,
    /// When it ends, unless it is renewed.
    pub until_ms: u64,
    /// What is cut.
    pub cuts: BTreeMap<Whom, Cut>,
}

impl Lease {
    /// The cuts with every cloud written out, `nodes` being all that are admitted, with their clouds. The node
    /// itself, `me`, is never cut off from itself.
    #[must_use]
    pub fn written_out<'a>(
        &self,
        me: &NodeName,
        nodes: impl Iterator<Item = (&'a NodeName, &'a Name)>,
    ) -> Cuts {
        let cut = |whom: Whom| self.cuts.get(&whom).copied().unwrap_or_default();
        let mut cuts = Cuts { everybody: cut(Whom::All), nodes: BTreeMap::new() };
        for (node, cloud) in nodes.filter(|(node, _)| *node != me) {
            let both = cut(Whom::Node(node.clone())).or(cut(Whom::Cloud(cloud.clone())));
            if both.is_any() {
                cuts.nodes.insert(node.clone(), both);
            }
        }
        cuts
    }
}

/// What a claim changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// The node was free before.
    Began,
    /// Other cuts than before.
    Changed,
    /// Nothing but the end.
    Renewed,
}

/// Why a claim is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// Another drill has the node.
    #[error("drill {drill} of {by} has this node, for {for_ms} ms more unless it is renewed")]
    Held {
        /// Which.
        drill: Name,
        /// Whose.
        by: String,
        /// How long.
        for_ms: u64,
    },
    /// Somebody ended this drill on this node.
    #[error("drill {0} was ended on this node by an operator, and does not begin again")]
    Stopped(Name),
    /// Too short or too long.
    #[error("a lease lasts {} to {} ms, not {lease_ms}", LEASE_MS.start(), LEASE_MS.end())]
    Length {
        /// What was asked for.
        lease_ms: u64,
    },
    /// Too many cuts.
    #[error("{0} cuts are too many: the limit is {MAX_CUTS}")]
    TooMany(usize),
    /// No word, or too long a one.
    #[error("holder: 1 to {MAX_HOLDER_BYTES} letters, digits or '-'")]
    Holder,
}

/// Who has this node: at most one drill at a time.
#[derive(Debug, Default)]
pub struct Desk {
    lease: Option<Lease>,
    /// The holder that an operator sent away; it may still be running and trying to renew.
    stopped: Option<String>,
}

impl Desk {
    /// The lease that is in force at `now_ms`.
    #[must_use]
    pub fn decide(&self, now_ms: u64) -> Option<&Lease> {
        self.lease.as_ref().filter(|lease| now_ms < lease.until_ms)
    }

    /// Takes, changes or renews a lease for the caller `by`. A refused claim changes nothing.
    ///
    /// # Errors
    /// See [`ClaimError`].
    pub fn claim(&mut self, claim: Claim, by: &str, now_ms: u64) -> Result<Taken, ClaimError> {
        claim.check()?;
        if self.stopped.as_ref() == Some(&claim.holder) {
            return Err(ClaimError::Stopped(claim.drill));
        }
        let before = self.decide(now_ms);
        if let Some(other) = before.filter(|lease| lease.holder != claim.holder) {
            let (drill, by) = (other.drill.clone(), other.by.clone());
            return Err(ClaimError::Held { drill, by, for_ms: other.until_ms - now_ms });
        }
        let taken = match before {
            None => Taken::Began,
            Some(lease) if lease.cuts != claim.cuts => Taken::Changed,
            Some(_) => Taken::Renewed,
        };
        let since_ms = before.map_or(now_ms, |lease| lease.since_ms);
        let until_ms = now_ms.saturating_add(claim.lease_ms);
        let Claim { drill, holder, cuts, .. } = claim;
        self.lease = Some(Lease { drill, holder, by: by.to_owned(), since_ms, until_ms, cuts });
        Ok(taken)
    }

    /// Ends the lease of this holder, before its time. None when it has none.
    pub fn release(&mut self, holder: &str, now_ms: u64) -> Option<Lease> {
        self.decide(now_ms).filter(|lease| lease.holder == holder)?;
        self.lease.take()
    }

    /// Ends whatever lease there is, for good: its holder does not get the node again.
    pub fn stop(&mut self, now_ms: u64) -> Option<Lease> {
        self.decide(now_ms)?;
        let lease = self.lease.take()?;
        self.stopped = Some(lease.holder.clone());
        Some(lease)
    }

    /// Forgets a lease that has run out, and returns it once.
    pub fn expire(&mut self, now_ms: u64) -> Option<Lease> {
        match self.decide(now_ms) {
            Some(_) => None,
            None => self.lease.take(),
        }
    }
}

impl Claim {
    fn check(&self) -> Result<(), ClaimError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let length = self.holder.len();
        if length == 0 || length > MAX_HOLDER_BYTES || !self.holder.bytes().all(is_plain) {
            return Err(ClaimError::Holder);
        }
        if !LEASE_MS.contains(&self.lease_ms) {
            return Err(ClaimError::Length { lease_ms: self.lease_ms });
        }
        if self.cuts.len() > MAX_CUTS {
            return Err(ClaimError::TooMany(self.cuts.len()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).expect("a name")
    }

    fn claim(holder: &str, lease_ms: u64, whom: &[&str]) -> Claim {
        let cuts = whom.iter().map(|whom| (whom.parse().expect("somebody"), Cut::BOTH)).collect();
        Claim { drill: name("partition"), holder: holder.to_owned(), lease_ms, cuts }
    }

    #[test]
    fn a_lease_ends_by_itself_and_is_told_once() {
        let mut desk = Desk::default();
        assert_eq!(desk.claim(claim("a", 5_000, &["all"]), "vera", 100), Ok(Taken::Began));
        assert!(desk.decide(5_099).is_some() && desk.expire(5_099).is_none());
        assert!(desk.decide(5_100).is_none());
        assert_eq!(desk.expire(5_100).map(|lease| lease.by), Some("vera".to_owned()));
        assert_eq!(desk.expire(5_101), None);
    }

    #[test]
    fn the_holder_renews_and_changes_and_nobody_else() {
        let mut desk = Desk::default();
        desk.claim(claim("a", 5_000, &[]), "vera", 0).expect("free");
        assert_eq!(desk.claim(claim("a", 5_000, &[]), "vera", 4_000), Ok(Taken::Renewed));
        assert_eq!(desk.claim(claim("a", 5_000, &["cloud/azr"]), "vera", 4_000), Ok(Taken::Changed));
        let held = ClaimError::Held { drill: name("partition"), by: "vera".to_owned(), for_ms: 1_000 };
        assert_eq!(desk.claim(claim("b", 5_000, &[]), "will", 8_000), Err(held));
        assert_eq!(desk.release("b", 8_000), None);
        assert_eq!(
            desk.decide(8_000).map(|lease| lease.cuts.len()),
            Some(1),
            "a refused claim changes nothing"
        );
        assert_eq!(desk.claim(claim("b", 5_000, &[]), "will", 9_000), Ok(Taken::Began), "it has run out");
        assert!(desk.release("b", 9_001).is_some() && desk.decide(9_001).is_none());
    }

    #[test]
    fn who_was_sent_away_does_not_come_back() {
        let mut desk = Desk::default();
        desk.claim(claim("a", 5_000, &["all"]), "vera", 0).expect("free");
        assert!(desk.stop(1).is_some() && desk.decide(1).is_none() && desk.stop(1).is_none());
        let again = desk.claim(claim("a", 5_000, &["all"]), "vera", 2);
        assert_eq!(again, Err(ClaimError::Stopped(name("partition"))));
        assert_eq!(desk.claim(claim("b", 5_000, &["all"]), "vera", 2), Ok(Taken::Began));
    }

    #[test]
    fn nonsense_is_refused() {
        let mut desk = Desk::default();
        let many: Vec<_> = (0..=MAX_CUTS).map(|n| format!("node/n{n}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        for bad in [
            claim("", 5_000, &[]),
            claim("a b", 5_000, &[]),
            claim(&"a".repeat(MAX_HOLDER_BYTES + 1), 5_000, &[]),
            claim("a", 999, &[]),
            claim("a", 600_001, &[]),
            claim("a", 5_000, &many),
        ] {
            assert!(desk.claim(bad, "vera", 0).is_err());
        }
        for bad in ["", "others", "cloud", "cloud/", "node/A", "zone/a"] {
            assert!(bad.parse::<Whom>().is_err(), "{bad}");
        }
        for good in ["all", "cloud/aws", "node/aws-p1"] {
            assert_eq!(good.parse::<Whom>().expect(good).to_string(), good);
        }
    }

    #[test]
    fn clouds_are_written_out_and_a_node_keeps_itself() {
        let mut desk = Desk::default();
        let mut asked = claim("a", 5_000, &["cloud/azr"]);
        asked.cuts.insert("node/b2".parse().expect("somebody"), Cut { to: true, from: false });
        asked.cuts.insert("node/a1".parse().expect("somebody"), Cut { to: true, from: false });
        desk.claim(asked, "vera", 0).expect("free");
        let nodes =
            [("me", "azr"), ("a1", "azr"), ("b1", "aws"), ("b2", "aws")].map(|(n, c)| (name(n), name(c)));
        let lease = desk.decide(0).expect("in force");
        let cuts = lease.written_out(&name("me"), nodes.iter().map(|(node, cloud)| (node, cloud)));
        assert_eq!(cuts.of(&name("a1")), Cut::BOTH);
        assert_eq!(cuts.of(&name("b2")), Cut { to: true, from: false });
        assert!(!cuts.of(&name("b1")).is_any() && !cuts.of(&name("me")).is_any() && !cuts.is_empty());
        let alone = Cuts { everybody: Cut::BOTH, ..Cuts::default() };
        assert_eq!(alone.of(&name("stranger")), Cut::BOTH);
    }

    #[derive(Debug, Clone)]
    enum Act {
        Claim { holder: u8, lease_ms: u64 },
        Release(u8),
        Stop,
        Expire,
        Wait(u64),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            (0..3_u8, 900..20_000_u64).prop_map(|(holder, lease_ms)| Act::Claim { holder, lease_ms }),
            (0..3_u8).prop_map(Act::Release),
            Just(Act::Stop),
            Just(Act::Expire),
            (0..6_000_u64).prop_map(Act::Wait),
        ]
    }

    proptest! {
        /// Whatever is asked in whatever order: a node is isolated at most for as long as the last accepted
        /// claim said, and by one holder at a time.
        #[test]
        fn no_lease_outlives_its_last_renewal(acts in proptest::collection::vec(act(), 1..60)) {
            let (mut desk, mut now_ms) = (Desk::default(), 0);
            let mut last: Option<(String, u64)> = None;
            for act in acts {
                match act {
                    Act::Claim { holder, lease_ms } => {
                        let holder = format!("h{holder}");
                        if desk.claim(claim(&holder, lease_ms, &["all"]), "vera", now_ms).is_ok() {
                            let free = last.as_ref().is_none_or(|(had, until)| *had == holder || now_ms >= *until);
                            prop_assert!(free, "taken from its holder");
                            last = Some((holder, now_ms + lease_ms));
                        }
                    }
                    Act::Release(holder) => {
                        if desk.release(&format!("h{holder}"), now_ms).is_some() {
                            last = None;
                        }
                    }
                    Act::Stop => {
                        if desk.stop(now_ms).is_some() {
                            last = None;
                        }
                    }
                    Act::Expire => drop(desk.expire(now_ms)),
                    Act::Wait(ms) => now_ms += ms,
                }
                let expected = last.as_ref().filter(|(_, until)| now_ms < *until).map(|(holder, _)| holder.clone());
                prop_assert_eq!(desk.decide(now_ms).map(|lease| lease.holder.clone()), expected);
            }
        }
    }
}
