//! The zone as a hash index: what one look-up needs, and nothing that grows with the zone.
//!
//! Two tables, keyed by name and by address, hold finished record sets. Both are only ever looked up,
//! never iterated, so a name that does not exist costs one miss however many names do. (Search domains
//! make such names the commonest of all.)
//!
//! Names that exist without records, the empty non-terminals, are entries without sets: they are
//! NODATA, not NXDOMAIN, because NXDOMAIN would deny everything below them as well (RFC 8020). In the
//! reverse trees every name above a whole address is taken to exist, for every asker. That spares an
//! entry for each of the 20 nibbles above an IPv6 address, and tells nobody which addresses are in use.

use std::{borrow::Cow, collections::HashMap, net::IpAddr};

use hickory_proto::rr::{Name, RData, Record, RecordType};
use selvedge_fabric::{id::ServiceRef, plan::Zone};

use crate::{
    asker::Asker,
    build,
    key::Key,
    reverse::{Range, Reverse},
    wire::TTL_S,
};

/// The number of a contract within one index.
pub(crate) type ContractNumber = u32;

/// A zone, indexed for answering. Built once per plan.
#[derive(Debug)]
pub struct ZoneIndex {
    /// `None` when the zone has no usable suffix: then no forward name is ours.
    pub(crate) apex: Option<Name>,
    /// By [`Key`] below the apex.
    pub(crate) names: HashMap<Box<[u8]>, Entry>,
    pub(crate) pointers: HashMap<IpAddr, Entry>,
    pub(crate) ranges: Vec<Range>,
    /// SOA and NS: the same at the apex of the forward zone and of each reverse zone.
    pub(crate) apex_sets: Box<[RrSet]>,
    pub(crate) soa: Option<RData>,
    pub(crate) reach: HashMap<ServiceRef, Box<[ContractNumber]>>,
    pub(crate) askers: HashMap<IpAddr, Asker>,
}

/// A name that exists: for whom, and with what.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) scope: Scope,
    /// Empty for an empty non-terminal.
    pub(crate) sets: Box<[RrSet]>,
}

/// For whom a name exists.
#[derive(Debug, Clone)]
pub(crate) enum Scope {
    Everyone,
    /// For services that reach at least one of these contracts. Sorted.
    Reaching(Box<[ContractNumber]>),
}

/// The records of one type at one name, in the order in which they are answered.
#[derive(Debug)]
pub(crate) struct RrSet {
    pub(crate) rtype: RecordType,
    pub(crate) data: Box<[RData]>,
    /// Addresses of the targets named in `data`, for the additional section.
    pub(crate) glue: Box<[Record]>,
}

/// Where a name of ours was looked for.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    /// The apex of its zone: the owner of the SOA record in negative answers.
    pub(crate) apex: Cow<'a, Name>,
    /// What is there; `None` when the name does not exist for this asker.
    pub(crate) sets: Option<&'a [RrSet]>,
}

impl ZoneIndex {
    /// Indexes a zone. Names that would exceed the limits of the DNS are left out.
    #[must_use]
    pub fn build(zone: &Zone) -> Self {
        build::index(zone)
    }

    /// Whether `name` is answered from here: it lies under the suffix, or is a reverse name of the
    /// fabric's ranges. Such a name must never be forwarded.
    #[must_use]
    pub fn owns(&self, name: &Name) -> bool {
        self.is_below_apex(name) || self.range_of(name).is_some()
    }

    /// Who asks from `source`, when an endpoint of this node has that address.
    #[must_use]
    pub fn asker(&self, source: IpAddr) -> Option<&Asker> {
        self.askers.get(&source)
    }

    /// Looks a name up; `None` when it is not ours.
    pub(crate) fn find(&self, name: &Name, asker: &Asker) -> Option<Place<'_>> {
        if self.is_below_apex(name) {
            let apex = self.apex.as_ref()?;
            let key = Key::below(name, apex.iter().len())?;
            let entry = self.names.get(key.as_bytes());
            return Some(Place { apex: Cow::Borrowed(apex), sets: self.visible(entry, asker) });
        }
        let (range, reverse) = self.range_of(name)?;
        let sets = if reverse.is_address() {
            self.visible(self.pointers.get(&reverse.ip), asker)
        } else if reverse.stray {
            None
        } else if reverse.bits == range.cut {
            Some(&*self.apex_sets)
        } else {
            Some([].as_slice())
        };
        Some(Place { apex: Cow::Owned(range.apex(name)), sets })
    }

    /// The SOA record of the zone at `apex`.
    pub(crate) fn soa(&self, apex: Name) -> Option<Record> {
        Some(Record::from_rdata(apex, TTL_S, self.soa.clone()?))
    }

    fn is_below_apex(&self, name: &Name) -> bool {
        self.apex.as_ref().is_some_and(|apex| apex.zone_of(name))
    }

    fn range_of(&self, name: &Name) -> Option<(&Range, Reverse)> {
        let reverse = Reverse::parse(name)?;
        Some((self.ranges.iter().find(|range| range.holds(&reverse))?, reverse))
    }

    fn visible<'a>(&self, entry: Option<&'a Entry>, asker: &Asker) -> Option<&'a [RrSet]> {
        entry.filter(|entry| self.sees(asker, &entry.scope)).map(|entry| &*entry.sets)
    }

    fn sees(&self, asker: &Asker, scope: &Scope) -> bool {
        match (asker, scope) {
            (_, Scope::Everyone) | (Asker::All, _) => true,
            (Asker::Nothing, _) => false,
            (Asker::Service(service), Scope::Reaching(contracts)) => {
                self.reach.get(service).is_some_and(|reach| intersects(reach, contracts))
            }
        }
    }
}

/// Whether two sorted slices share an element; the cost grows with the shorter one.
fn intersects(a: &[ContractNumber], b: &[ContractNumber]) -> bool {
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    short.iter().any(|n| long.binary_search(n).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorted_slices_intersect_when_they_share_an_element() {
        for (a, b, expected) in [
            (&[1, 5, 9][..], &[2, 9][..], true),
            (&[1, 5, 9], &[2, 4, 6, 8], false),
            (&[], &[1], false),
            (&[3], &[3], true),
        ] {
            assert_eq!(intersects(a, b), expected, "{a:?} {b:?}");
            assert_eq!(intersects(b, a), expected, "{b:?} {a:?}");
        }
    }
}
