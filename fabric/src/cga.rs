//! Cryptographically generated addresses (RFC 3972).
//!
//! The interface identifier of an IPv6 address is a hash over a public key, so whoever sees an address
//! announced can check, without asking anybody, that the announcer's key owns it. Any DER
//! `SubjectPublicKeyInfo` will do: nodes have Ed25519 keys, the RSA keys of the RFC work as well.
//!
//! # On SHA-1
//! RFC 3972 fixes SHA-1. Its broken property is collision resistance; a CGA rests on second-preimage
//! resistance, which stands: to take a given address, an attacker needs *another* key whose hash has
//! the same 59 bits. That costs about 2^(59+16·Sec) hashes, a bound set by the truncation of the hash
//! to an interface identifier and not by the hash function. Two colliding keys of one owner gain that
//! owner nothing. And an address alone grants nothing here: the key must be admitted by the policy too.
//!
//! # Where we are stricter than the RFC
//! A verifier by the RFC ignores the `u` and `g` bits. No generator sets them, so an address that has
//! one was altered on its way; [`verify`] refuses it. Extension fields are not used.

use std::net::Ipv6Addr;

use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

/// Highest security parameter that the three bits of an address can hold.
pub const MAX_SEC: u8 = 7;
/// Highest collision count (RFC 3972, section 4, step 6).
pub const MAX_COLLISION_COUNT: u8 = 2;

/// Bits of the first octet of the interface identifier that hold Sec.
const SEC_BITS: u8 = 0b1110_0000;
/// The `u` and `g` bits of the first octet.
const UG_BITS: u8 = 0b0000_0011;

/// The first 64 bits of an address.
pub type SubnetPrefix = [u8; 8];
/// The parameter that is searched for until Hash2 has its zeros.
pub type Modifier = [u8; 16];

/// The parameters of a CGA besides subnet prefix and public key (RFC 3972, section 3).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CgaParams {
    /// The modifier: random, or found so that Hash2 has the zeros that Sec demands.
    pub modifier: Modifier,
    /// 0, 1 or 2: how often the address was taken already.
    pub collision_count: u8,
}

/// Why an address is not the CGA it is said to be, or none can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CgaError {
    /// The address lies in another subnet.
    #[error("{0} does not lie in the subnet it is verified against")]
    Subnet(Ipv6Addr),
    /// More collisions than the RFC allows.
    #[error("collision count {0} exceeds {MAX_COLLISION_COUNT}")]
    CollisionCount(u8),
    /// More than the address can hold.
    #[error("security parameter {0} exceeds {MAX_SEC}")]
    Sec(u8),
    /// The interface identifier is not the hash of these parameters and this key.
    #[error("{0} is not the hash of this key and these parameters")]
    Hash1(Ipv6Addr),
    /// The modifier lacks the zeros that the address claims.
    #[error("{address} claims Sec {sec}, and its modifier does not have it")]
    Hash2 {
        /// The address.
        address: Ipv6Addr,
        /// Its security parameter.
        sec: u8,
    },
}

/// How a search for an address ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generated {
    /// An address, with what receivers need to verify it.
    Found {
        /// The address.
        address: Ipv6Addr,
        /// Its parameters.
        params: CgaParams,
        /// Modifiers that were tried.
        attempts: u64,
    },
    /// The attempts ran out; another call goes on from here.
    Unfinished {
        /// The modifier to start the next call with.
        next: Modifier,
    },
}

/// Generates an address (RFC 3972, section 4) with collision count 0.
///
/// `start` should be random; the search counts up from it and tries at most `max_attempts` modifiers,
/// so the caller chooses how long one call may take and can go on where it ended. With Sec 0 the first
/// one does, with Sec 1 about 2^16 tries are needed, with each further step 2^16 times as many.
///
/// # Errors
/// When `sec` exceeds [`MAX_SEC`].
pub fn generate(
    prefix: SubnetPrefix,
    spki_der: &[u8],
    sec: u8,
    start: Modifier,
    max_attempts: u64,
) -> Result<Generated, CgaError> {
    if sec > MAX_SEC {
        return Err(CgaError::Sec(sec));
    }
    let mut modifier = u128::from_be_bytes(start);
    for attempts in 1..=max_attempts {
        if leading_zeros(&hash2(&modifier.to_be_bytes(), spki_der)) >= 16 * u32::from(sec) {
            let params = CgaParams { modifier: modifier.to_be_bytes(), collision_count: 0 };
            let address = address(prefix, spki_der, sec, &params)?;
            return Ok(Generated::Found { address, params, attempts });
        }
        modifier = modifier.wrapping_add(1);
    }
    Ok(Generated::Unfinished { next: modifier.to_be_bytes() })
}

/// The address that a key and parameters make, without a look at Hash2. After a collision: the same
/// modifier with the next collision count.
///
/// # Errors
/// When `sec` or the collision count is out of range.
pub fn address(
    prefix: SubnetPrefix,
    spki_der: &[u8],
    sec: u8,
    params: &CgaParams,
) -> Result<Ipv6Addr, CgaError> {
    if sec > MAX_SEC {
        return Err(CgaError::Sec(sec));
    }
    if params.collision_count > MAX_COLLISION_COUNT {
        return Err(CgaError::CollisionCount(params.collision_count));
    }
    Ok(assemble(prefix, spki_der, sec, params))
}

/// [`address`] for parameters that are in range by construction.
pub(crate) fn assemble(prefix: SubnetPrefix, spki_der: &[u8], sec: u8, params: &CgaParams) -> Ipv6Addr {
    let mut interface = hash1(prefix, spki_der, params);
    interface[0] = (interface[0] & !(SEC_BITS | UG_BITS)) | (sec << 5);
    let mut octets = [0; 16];
    octets[..8].copy_from_slice(&prefix);
    octets[8..].copy_from_slice(&interface);
    octets.into()
}

/// Verifies that `address` was made in `prefix` from this key and these parameters (RFC 3972,
/// section 5), and returns its Sec. A caller that demands a strength compares that: an address found
/// with Sec 1 also exists with Sec 0, as an address of its own.
///
/// # Errors
/// What does not fit.
pub fn verify(
    address: Ipv6Addr,
    prefix: SubnetPrefix,
    spki_der: &[u8],
    params: &CgaParams,
) -> Result<u8, CgaError> {
    let octets = address.octets();
    if octets[..8] != prefix {
        return Err(CgaError::Subnet(address));
    }
    let sec = octets[8] >> 5;
    if self::address(prefix, spki_der, sec, params)? != address {
        return Err(CgaError::Hash1(address));
    }
    if leading_zeros(&hash2(&params.modifier, spki_der)) < 16 * u32::from(sec) {
        return Err(CgaError::Hash2 { address, sec });
    }
    Ok(sec)
}

/// The leftmost 64 bits over modifier, prefix, collision count and key.
fn hash1(prefix: SubnetPrefix, spki_der: &[u8], params: &CgaParams) -> [u8; 8] {
    let digest = Sha1::new()
        .chain_update(params.modifier)
        .chain_update(prefix)
        .chain_update([params.collision_count])
        .chain_update(spki_der)
        .finalize();
    std::array::from_fn(|i| digest[i])
}

/// The leftmost 112 bits over modifier, nine zero octets in place of prefix and count, and key.
fn hash2(modifier: &Modifier, spki_der: &[u8]) -> [u8; 14] {
    let digest = Sha1::new().chain_update(modifier).chain_update([0; 9]).chain_update(spki_der).finalize();
    std::array::from_fn(|i| digest[i])
}

fn leading_zeros(bytes: &[u8; 14]) -> u32 {
    let mut wide = [0; 16];
    wide[..14].copy_from_slice(bytes);
    u128::from_be_bytes(wide).leading_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::PublicKey;

    const LINK_LOCAL: SubnetPrefix = [0xfe, 0x80, 0, 0, 0, 0, 0, 0];

    /// The RSA key of RFC 3972, appendix B.
    const RFC_KEY: &str = "305c300d06092a864886f70d0101010500034b003048024100c2c2f137305454f10bd9ce\
                           a36844b530e9211a4b262b16467cb7dfba1f595c0194f275be5a4d386f2c3c2382508773\
                           c7867f9b3b9e63a09c7bc48f7a54ebefaf0203010001";

    fn unhex(text: &str) -> Vec<u8> {
        let digit = |c: u8| (c as char).to_digit(16).expect("hex") as u8;
        text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
    }

    fn rfc_start() -> Modifier {
        unhex("89a8a8b2e858d8b8f2633f44d2d4ce9a").try_into().expect("16 octets")
    }

    #[test]
    fn the_example_of_the_rfc() {
        let key = unhex(RFC_KEY);
        let found = generate(LINK_LOCAL, &key, 1, rfc_start(), 10).expect("Sec is in range");
        let modifier = unhex("89a8a8b2e858d8b8f2633f44d2d4ce9b").try_into().expect("16 octets");
        let params = CgaParams { modifier, collision_count: 0 };
        let address: Ipv6Addr = "fe80::3c4a:5bf6:ffb4:ca6c".parse().expect("an address");
        assert_eq!(found, Generated::Found { address, params, attempts: 2 });
        assert_eq!(verify(address, LINK_LOCAL, &key, &params), Ok(1));
    }

    #[test]
    fn a_search_resumes_where_it_ended() {
        let key = unhex(RFC_KEY);
        let Ok(Generated::Unfinished { next }) = generate(LINK_LOCAL, &key, 1, rfc_start(), 1) else {
            panic!("the first modifier of the example does not do")
        };
        let resumed = generate(LINK_LOCAL, &key, 1, next, 1);
        assert!(matches!(resumed, Ok(Generated::Found { attempts: 1, .. })), "{resumed:?}");
        let wrapped = generate(LINK_LOCAL, &key, 7, [0xff; 16], 1);
        assert_eq!(wrapped, Ok(Generated::Unfinished { next: [0; 16] }));
        assert_eq!(generate(LINK_LOCAL, &key, 8, [0; 16], 1), Err(CgaError::Sec(8)));
    }

    #[test]
    fn every_bit_counts() {
        for (key, sec) in [(unhex(RFC_KEY), 1), (PublicKey([7; 32]).spki_der(), 0)] {
            let Ok(Generated::Found { address, params, .. }) =
                generate(LINK_LOCAL, &key, sec, rfc_start(), 1 << 21)
            else {
                panic!("2^21 tries find a Sec of {sec}")
            };
            let bits = u128::from(address);
            for bit in 0..128 {
                let other = Ipv6Addr::from(bits ^ (1 << bit));
                // Sec 1 to 0: another address of the same owner.
                let lower_sec = sec == 1 && bit == 61;
                assert_eq!(verify(other, LINK_LOCAL, &key, &params).is_ok(), lower_sec, "bit {bit}");
            }
            for bit in 0..128 {
                let modifier = (u128::from_be_bytes(params.modifier) ^ (1 << bit)).to_be_bytes();
                assert!(verify(address, LINK_LOCAL, &key, &CgaParams { modifier, ..params }).is_err());
            }
            for bit in 0..key.len() * 8 {
                let mut other = key.clone();
                other[bit / 8] ^= 1 << (bit % 8);
                assert!(verify(address, LINK_LOCAL, &other, &params).is_err());
            }
        }
    }

    #[test]
    fn a_collision_gives_another_address_that_verifies() {
        let key = PublicKey([7; 32]).spki_der();
        let mut seen = std::collections::BTreeSet::new();
        for collision_count in 0..=MAX_COLLISION_COUNT {
            let params = CgaParams { modifier: [9; 16], collision_count };
            let made = address(LINK_LOCAL, &key, 0, &params).expect("in range");
            assert_eq!(verify(made, LINK_LOCAL, &key, &params), Ok(0));
            assert!(seen.insert(made));
        }
        let params = CgaParams { modifier: [9; 16], collision_count: 3 };
        assert_eq!(address(LINK_LOCAL, &key, 0, &params), Err(CgaError::CollisionCount(3)));
    }

    #[test]
    fn a_claim_of_more_work_than_was_done_fails() {
        let key = PublicKey([7; 32]).spki_der();
        let params = CgaParams { modifier: [9; 16], collision_count: 0 };
        let boast = address(LINK_LOCAL, &key, 2, &params).expect("in range");
        assert_eq!(verify(boast, LINK_LOCAL, &key, &params), Err(CgaError::Hash2 { address: boast, sec: 2 }));
    }
}
