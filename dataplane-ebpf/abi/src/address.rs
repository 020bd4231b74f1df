//! Addresses as the tables hold them.

/// An IPv4 or IPv6 address in network byte order; an IPv4 one as IPv4-mapped IPv6 (RFC 4291 section
/// 2.5.5.2), so that one table serves both families. Four words, because BPF compares words quickly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(C)]
pub struct Address(pub [u32; 4]);

/// Bits in front of an IPv4 address in an [`Address`].
pub const IPV4_PREFIX_BITS: u8 = 96;

/// The word `::ffff:0:0/96` has before the IPv4 address.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

impl Address {
    /// No address: `::`, which never is anybody's.
    pub const NONE: Self = Self([0; 4]);

    /// An IPv4 address from its bytes.
    #[must_use]
    #[inline(always)]
    pub const fn ipv4(bytes: [u8; 4]) -> Self {
        Self([0, 0, MAPPED, u32::from_ne_bytes(bytes)])
    }

    /// An IPv6 address from its bytes.
    #[must_use]
    #[inline(always)]
    pub const fn ipv6(b: [u8; 16]) -> Self {
        Self([
            u32::from_ne_bytes([b[0], b[1], b[2], b[3]]),
            u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
            u32::from_ne_bytes([b[8], b[9], b[10], b[11]]),
            u32::from_ne_bytes([b[12], b[13], b[14], b[15]]),
        ])
    }

    /// Its sixteen bytes in network order.
    #[must_use]
    pub const fn bytes(&self) -> [u8; 16] {
        let [a, b, c, d] = [
            self.0[0].to_ne_bytes(),
            self.0[1].to_ne_bytes(),
            self.0[2].to_ne_bytes(),
            self.0[3].to_ne_bytes(),
        ];
        [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3]]
    }

    /// Whether it is none.
    #[must_use]
    #[inline(always)]
    pub const fn is_none(&self) -> bool {
        self.0[0] | self.0[1] | self.0[2] | self.0[3] == 0
    }

    /// Whether it stands for an IPv4 address.
    #[must_use]
    #[inline(always)]
    pub const fn is_ipv4(&self) -> bool {
        self.0[0] | self.0[1] == 0 && self.0[2] == MAPPED
    }

    /// Equality without a call to `memcmp`, which BPF does not have.
    #[must_use]
    #[inline(always)]
    pub const fn same(&self, other: &Self) -> bool {
        (self.0[0] ^ other.0[0])
            | (self.0[1] ^ other.0[1])
            | (self.0[2] ^ other.0[2])
            | (self.0[3] ^ other.0[3])
            == 0
    }

    /// Whether it is link-local IPv6, `fe80::/10`.
    #[must_use]
    #[inline(always)]
    pub const fn is_link_local(&self) -> bool {
        let b = self.0[0].to_ne_bytes();
        b[0] == 0xfe && b[1] & 0xc0 == 0x80
    }

    /// Whether it is IPv6 multicast of link-local scope, `ff02::/16`.
    #[must_use]
    #[inline(always)]
    pub const fn is_link_multicast(&self) -> bool {
        let b = self.0[0].to_ne_bytes();
        b[0] == 0xff && b[1] == 0x02
    }
}

#[cfg(not(target_arch = "bpf"))]
impl From<core::net::IpAddr> for Address {
    fn from(address: core::net::IpAddr) -> Self {
        match address {
            core::net::IpAddr::V4(v4) => Self::ipv4(v4.octets()),
            core::net::IpAddr::V6(v6) => Self::ipv6(v6.octets()),
        }
    }
}

#[cfg(not(target_arch = "bpf"))]
impl From<Address> for core::net::IpAddr {
    fn from(address: Address) -> Self {
        core::net::Ipv6Addr::from(address.bytes()).to_canonical()
    }
}

#[cfg(test)]
mod tests {
    use core::net::{IpAddr, Ipv6Addr};

    use super::*;

    #[test]
    fn addresses_survive_the_round_trip() {
        for text in ["10.1.2.3", "fd00::1", "fe80::1", "ff02::1:ff00:1"] {
            let address: IpAddr = text.parse().expect("an address");
            assert_eq!(IpAddr::from(Address::from(address)), address);
            assert_eq!(Address::from(address).is_ipv4(), address.is_ipv4());
        }
        assert!(Address::from(IpAddr::from(Ipv6Addr::UNSPECIFIED)).is_none());
    }

    #[test]
    fn link_local_kinds_are_told_apart() {
        let of = |text: &str| Address::from(text.parse::<IpAddr>().expect("an address"));
        assert!(of("fe80::1").is_link_local() && of("febf::1").is_link_local());
        assert!(!of("fec0::1").is_link_local() && !of("254.128.0.1").is_link_local());
        assert!(of("ff02::1").is_link_multicast() && !of("ff05::1").is_link_multicast());
    }
}
