//! The decision.

use crate::{
    Identity,
    tables::{Class, EdgeKey, MAX_RANGES, Range, Tables},
    verdict::{Reason, Verdict},
};

/// Whether `source` may open a flow to `destination` on an IP protocol (its number) and port. The port
/// of protocols that have none is ignored.
///
/// Guardrails first, then contracts, and otherwise no. Within each table the ranges of an edge are
/// disjoint, so at most one holds the port.
#[inline(always)]
pub fn decide<T: Tables>(
    source: Identity,
    destination: Identity,
    protocol: u8,
    port: u16,
    tables: &T,
) -> Verdict {
    let Some(from) = tables.groups(source) else { return Verdict::refused(Reason::UnknownSource) };
    let Some(to) = tables.groups(destination) else {
        return Verdict::refused(Reason::UnknownDestination);
    };
    let class = Class::of(protocol);
    let port = if class.has_ports() { port } else { 0 };
    if from.source != 0 && to.destination != 0 {
        let key = EdgeKey::new(from.source, to.destination, class);
        if let Some(verdict) = tables.guardrail(&key).and_then(|ranges| scan(ranges, port)) {
            return verdict;
        }
    }
    let key = EdgeKey::new(source.0, destination.0, class);
    match tables.contract(&key).and_then(|ranges| scan(ranges, port)) {
        Some(verdict) => verdict,
        None => Verdict::refused(Reason::NoContract),
    }
}

/// The verdict of the range that holds `port`. A plain bounded loop: the kernel's verifier wants to see
/// its end.
#[inline(always)]
fn scan(ranges: &[Range], port: u16) -> Option<Verdict> {
    for range in ranges.iter().take(MAX_RANGES) {
        if range.is_end() {
            return None;
        }
        if range.low <= port && port <= range.high {
            return Some(range.verdict());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Groups, Mode};

    const A: Identity = Identity(1);
    const B: Identity = Identity(2);
    const STRANGER: Identity = Identity(9);

    /// One guardrail edge between group 1 and group 1, one contract edge from A to B, both TCP.
    struct Fixed {
        guardrail: [Range; 2],
        contract: [Range; 4],
    }

    impl Fixed {
        fn new() -> Self {
            Self {
                guardrail: [
                    Range::new(22, 22, Reason::GuardrailDeny, Mode::Enforce, 1),
                    Range::new(53, 53, Reason::GuardrailAllow, Mode::Enforce, 2),
                ],
                contract: [
                    Range::new(20, 30, Reason::Contract, Mode::Enforce, 3),
                    Range::new(40, 50, Reason::Audited, Mode::Audit, 4),
                    Range::default(),
                    Range::new(60, 70, Reason::Contract, Mode::Enforce, 5),
                ],
            }
        }
    }

    impl Tables for Fixed {
        fn groups(&self, identity: Identity) -> Option<Groups> {
            match identity {
                A => Some(Groups { source: 1, destination: 0 }),
                B => Some(Groups { source: 0, destination: 1 }),
                _ => None,
            }
        }

        fn guardrail(&self, key: &EdgeKey) -> Option<&[Range]> {
            (*key == EdgeKey::new(1, 1, Class::Tcp)).then_some(&self.guardrail)
        }

        fn contract(&self, key: &EdgeKey) -> Option<&[Range]> {
            (*key == EdgeKey::new(1, 2, Class::Tcp)).then_some(&self.contract)
        }
    }

    fn reason(source: Identity, destination: Identity, protocol: u8, port: u16) -> Reason {
        let verdict = decide(source, destination, protocol, port, &Fixed::new());
        assert_eq!(verdict.allow, verdict.reason.allows());
        verdict.reason
    }

    #[test]
    fn guardrails_come_first() {
        assert_eq!(reason(A, B, 6, 22), Reason::GuardrailDeny);
        assert_eq!(reason(A, B, 6, 53), Reason::GuardrailAllow);
        assert_eq!(reason(A, B, 6, 21), Reason::Contract);
    }

    #[test]
    fn nothing_is_allowed_that_nobody_allows() {
        for (protocol, port) in [(6, 19), (6, 31), (17, 21), (1, 0), (58, 0), (132, 21)] {
            assert_eq!(reason(A, B, protocol, port), Reason::NoContract);
        }
        assert_eq!(reason(B, A, 6, 21), Reason::NoContract);
        assert_eq!(reason(A, STRANGER, 6, 21), Reason::UnknownDestination);
        assert_eq!(reason(STRANGER, B, 6, 21), Reason::UnknownSource);
    }

    #[test]
    fn a_range_of_zeros_ends_the_array() {
        assert_eq!(reason(A, B, 6, 65), Reason::NoContract);
        assert_eq!(reason(A, B, 6, 0), Reason::NoContract);
    }

    #[test]
    fn the_verdict_carries_mode_and_rule() {
        let verdict = decide(A, B, 6, 45, &Fixed::new());
        assert_eq!((verdict.allow, verdict.mode, verdict.rule), (true, Mode::Audit, 4));
    }

    #[test]
    fn codes_and_names_are_stable() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_code(reason as u8), reason);
        }
        let known: [(u8, &str); 25] = [
            (1, "contract"),
            (2, "guardrail-allow"),
            (3, "audited"),
            (4, "learned"),
            (32, "guardrail-deny"),
            (33, "no-contract"),
            (34, "unknown-source"),
            (35, "unknown-destination"),
            (36, "unknown-code"),
            (64, "flow"),
            (65, "gateway"),
            (66, "icmp-error"),
            (67, "own"),
            (96, "not-attached"),
            (97, "spoofed"),
            (98, "misdelivered"),
            (99, "truncated"),
            (100, "malformed"),
            (101, "fragment"),
            (102, "extension-headers"),
            (103, "not-ip"),
            (104, "untracked-error"),
            (105, "link-control"),
            (106, "gateway-port"),
            (107, "no-tables"),
        ];
        assert_eq!(Reason::ALL.map(|r| (r as u8, r.name())), known);
        assert_eq!(Reason::from_code(200), Reason::UnknownCode);
    }
}
