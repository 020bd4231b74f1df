//! Reverse names: from `in-addr.arpa` and `ip6.arpa` to addresses, and the cuts of our reverse zones.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::Name;

/// A name under `in-addr.arpa` (RFC 1035, section 3.5) or `ip6.arpa` (RFC 3596, section 2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reverse {
    /// The address whose leading `bits` the name spells; the rest is zero.
    pub(crate) ip: IpAddr,
    /// How many bits the name spells.
    pub(crate) bits: u8,
    /// There are labels below that spell no address: such a name never exists.
    pub(crate) stray: bool,
}

/// The two families of reverse names.
#[derive(Clone, Copy)]
struct Family {
    bits_per_label: u8,
    bits: u8,
    digit: fn(&[u8]) -> Option<u8>,
}

const V4: Family = Family { bits_per_label: 8, bits: 32, digit: octet };
const V6: Family = Family { bits_per_label: 4, bits: 128, digit: nibble };

impl Reverse {
    /// Reads a reverse name; `None` when it is not one.
    pub(crate) fn parse(name: &Name) -> Option<Self> {
        let mut labels = name.iter().rev();
        if !labels.next()?.eq_ignore_ascii_case(b"arpa") {
            return None;
        }
        let tree = labels.next()?;
        let family = if tree.eq_ignore_ascii_case(b"in-addr") {
            V4
        } else if tree.eq_ignore_ascii_case(b"ip6") {
            V6
        } else {
            return None;
        };
        let (mut value, mut bits, mut stray) = (0u128, 0u8, false);
        for label in labels {
            match (family.digit)(label) {
                Some(digit) if bits < family.bits => {
                    bits += family.bits_per_label;
                    value |= u128::from(digit) << (family.bits - bits);
                }
                _ => {
                    stray = true;
                    break;
                }
            }
        }
        let ip = match u32::try_from(value) {
            Ok(value) if family.bits == V4.bits => Ipv4Addr::from(value).into(),
            _ => Ipv6Addr::from(value).into(),
        };
        Some(Self { ip, bits, stray })
    }

    /// Whether the name spells a whole address.
    pub(crate) const fn is_address(&self) -> bool {
        !self.stray && self.bits == if self.ip.is_ipv4() { V4.bits } else { V6.bits }
    }
}

/// A range of addresses whose reverse names we answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    ip: IpAddr,
    prefix: u8,
    /// Length of the prefixes at which its reverse zones start: `prefix` rounded up to whole labels, as
    /// RFC 7793 does for 100.64.0.0/10 with its 64 zones.
    pub(crate) cut: u8,
}

impl Range {
    pub(crate) fn new(ip: IpAddr, prefix: u8) -> Self {
        let family = if ip.is_ipv4() { V4 } else { V6 };
        let prefix = prefix.min(family.bits);
        Self { ip: mask(ip, prefix), prefix, cut: prefix.next_multiple_of(family.bits_per_label) }
    }

    /// Whether the name lies in one of the range's reverse zones.
    pub(crate) fn holds(&self, name: &Reverse) -> bool {
        self.ip.is_ipv4() == name.ip.is_ipv4()
            && name.bits >= self.cut
            && mask(name.ip, self.prefix) == self.ip
    }

    /// The apex of the reverse zone in which `name`, that the range holds, lies.
    pub(crate) fn apex(&self, name: &Name) -> Name {
        let per_label = if self.ip.is_ipv4() { V4 } else { V6 }.bits_per_label;
        name.trim_to(usize::from(self.cut / per_label) + 2)
    }
}

fn mask(ip: IpAddr, prefix: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let keep = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            Ipv4Addr::from(u32::from(ip) & keep).into()
        }
        IpAddr::V6(ip) => {
            let keep = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            Ipv6Addr::from(u128::from(ip) & keep).into()
        }
    }
}

/// A decimal octet without leading zeros: `07` and `7` must not both exist.
fn octet(label: &[u8]) -> Option<u8> {
    let canonical = label.iter().all(u8::is_ascii_digit) && (label.len() == 1 || label[0] != b'0');
    std::str::from_utf8(label).ok().filter(|_| canonical)?.parse().ok()
}

fn nibble(label: &[u8]) -> Option<u8> {
    let &[digit] = label else { return None };
    char::from(digit).to_digit(16).and_then(|n| u8::try_from(n).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<(String, u8, bool)> {
        let name = Name::from_ascii(text).unwrap();
        Reverse::parse(&name).map(|r| (r.ip.to_string(), r.bits, r.stray))
    }

    #[test]
    fn names_spell_addresses_and_prefixes() {
        let cases = [
            ("7.0.64.100.in-addr.arpa.", Some(("100.64.0.7", 32, false))),
            ("64.100.IN-ADDR.arpa.", Some(("100.64.0.0", 16, false))),
            ("256.64.100.in-addr.arpa.", Some(("100.64.0.0", 16, true))),
            ("07.0.64.100.in-addr.arpa.", Some(("100.64.0.0", 24, true))),
            ("x.7.0.64.100.in-addr.arpa.", Some(("100.64.0.7", 32, true))),
            ("D.f.ip6.arpa.", Some(("fd00::", 8, false))),
            ("ab.d.f.ip6.arpa.", Some(("fd00::", 8, true))),
            ("in-addr.arpa.", Some(("0.0.0.0", 0, false))),
            ("home.arpa.", None),
            ("arpa.", None),
            ("in-addr.arpa.example.", None),
        ];
        for (name, expected) in cases {
            let expected = expected.map(|(ip, bits, stray)| (ip.to_owned(), bits, stray));
            assert_eq!(parse(name), expected, "{name}");
        }
    }

    #[test]
    fn a_whole_address_comes_back_from_its_reverse_name() {
        for ip in ["127.64.3.9", "fd12:3456:789a:1::42", "::1", "0.0.0.0", "255.255.255.255"] {
            let ip: IpAddr = ip.parse().unwrap();
            let reverse = Reverse::parse(&Name::from(ip)).unwrap();
            assert!(reverse.is_address(), "{ip}");
            assert_eq!(reverse.ip, ip);
        }
    }

    #[test]
    fn a_range_holds_what_lies_below_its_cuts() {
        let pool = Range::new("100.64.0.0".parse().unwrap(), 10);
        let holds = |text: &str| {
            let name = Name::from_ascii(text).unwrap();
            let reverse = Reverse::parse(&name).unwrap();
            pool.holds(&reverse).then(|| pool.apex(&name).to_ascii())
        };
        assert_eq!(holds("1.2.127.100.in-addr.arpa."), Some("127.100.in-addr.arpa.".to_owned()));
        assert_eq!(holds("64.100.in-addr.arpa."), Some("64.100.in-addr.arpa.".to_owned()));
        assert_eq!(holds("128.100.in-addr.arpa."), None);
        assert_eq!(holds("100.in-addr.arpa."), None);
    }
}
