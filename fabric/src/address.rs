//! Which overlay addresses belong to whom. Pure arithmetic over the fabric's parameters and a node's
//! admission, so that every receiver computes the same answer by itself.
//!
//! **IPv4.** The fabric's pool is cut into blocks of equal size, one for each admitted node. Network and
//! broadcast address of a block are not used; its first host address is the node's own, the others
//! are for its endpoints.
//!
//! **IPv6.** The fabric has a ULA prefix of 48 bits (RFC 4193); a zone is a /64 of it; interface
//! identifiers are CGAs over the node's key. The 16 bits of a zone's subnet are a hash of its name, not
//! a number that somebody hands out: an address then depends on nothing but name and key, can be
//! verified from the first byte on, and never changes because a zone was added elsewhere. Two zones may
//! hash to one subnet (1 in 14 fabrics with 100 zones). That is harmless: they then share a /64, where
//! the 59 hashed bits of the interface identifier still keep every address apart, ownership is
//! proven by key and not by subnet, and routes are kept for each address, never aggregated by zone.

use std::net::{Ipv4Addr, Ipv6Addr};

use sha2::{Digest, Sha256};

use crate::{
    cga::{self, CgaParams, SubnetPrefix},
    id::ZoneName,
    key::PublicKey,
    policy::{Admission, FabricParams},
};

/// Shortest prefix of a pool.
pub const MIN_POOL_LEN: u8 = 1;
/// Longest prefix of a block: a node's own address and one endpoint.
pub const MAX_BLOCK_LEN: u8 = 30;

/// Why a pool cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not `address/length`.
    #[error("IPv4 pool {0:?} must have the form address/length, for instance 100.64.0.0/10")]
    Form(String),
    /// The address has bits beyond the length.
    #[error("IPv4 pool {text:?} has host bits set; write {network}/{len}")]
    HostBits {
        /// As written.
        text: String,
        /// What it should be.
        network: Ipv4Addr,
        /// The length.
        len: u8,
    },
    /// A length out of range.
    #[error(
        "IPv4 pool of /{pool_len} with blocks of /{block_len}: lengths must satisfy \
         {MIN_POOL_LEN} <= pool <= block <= {MAX_BLOCK_LEN}"
    )]
    Length {
        /// Of the pool.
        pool_len: u8,
        /// Of a block.
        block_len: u8,
    },
}

/// The IPv4 addresses of a fabric, cut into blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4Pool {
    network: u32,
    pool_len: u8,
    block_len: u8,
}

impl Ipv4Pool {
    /// Parses a pool such as `100.64.0.0/10` with the length of its blocks.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str, block_len: u8) -> Result<Self, AddressError> {
        let form = || AddressError::Form(text.to_owned());
        let (address, len) = text.split_once('/').ok_or_else(form)?;
        let address: Ipv4Addr = address.parse().map_err(|_| form())?;
        let pool_len: u8 = len.parse().map_err(|_| form())?;
        if pool_len < MIN_POOL_LEN || pool_len > block_len || block_len > MAX_BLOCK_LEN {
            return Err(AddressError::Length { pool_len, block_len });
        }
        let network = u32::from(address) & mask(pool_len);
        if network != u32::from(address) {
            let network = network.into();
            return Err(AddressError::HostBits { text: text.to_owned(), network, len: pool_len });
        }
        Ok(Self { network, pool_len, block_len })
    }

    /// The pool of a fabric.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of(params: &FabricParams) -> Result<Self, AddressError> {
        Self::parse(&params.ipv4_pool, params.ipv4_block_len)
    }

    /// The first address and the prefix length of the whole pool.
    #[must_use]
    pub fn range(&self) -> (Ipv4Addr, u8) {
        (self.network.into(), self.pool_len)
    }

    /// How many blocks it has.
    #[must_use]
    pub const fn blocks(&self) -> u32 {
        1 << (self.block_len - self.pool_len)
    }

    /// A block by number, or `None` when the pool has fewer.
    #[must_use]
    pub fn block(&self, number: u32) -> Option<Ipv4Block> {
        let network = self.network | (number.checked_shl(32 - u32::from(self.block_len))?);
        (number < self.blocks()).then_some(Ipv4Block { network, len: self.block_len })
    }
}

/// The IPv4 addresses of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4Block {
    network: u32,
    len: u8,
}

impl Ipv4Block {
    /// The node's own address.
    #[must_use]
    pub fn node_address(&self) -> Ipv4Addr {
        (self.network + 1).into()
    }

    /// The addresses that endpoints may have, in order.
    pub fn endpoint_addresses(&self) -> impl Iterator<Item = Ipv4Addr> + use<> {
        (self.network + 2..self.broadcast()).map(Ipv4Addr::from)
    }

    /// Whether an endpoint of this block's node may have `address`.
    #[must_use]
    pub fn is_for_endpoint(&self, address: Ipv4Addr) -> bool {
        (self.network + 2..self.broadcast()).contains(&address.into())
    }

    const fn broadcast(&self) -> u32 {
        self.network | !mask(self.len)
    }
}

impl std::fmt::Display for Ipv4Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.network), self.len)
    }
}

/// `len` is 1 to 32.
const fn mask(len: u8) -> u32 {
    u32::MAX << (32 - len as u32)
}

/// The block of an admitted node; `None` when the pool has no such block.
#[must_use]
pub fn block_of(params: &FabricParams, admission: &Admission) -> Option<Ipv4Block> {
    Ipv4Pool::of(params).ok()?.block(admission.block)
}

/// The /64 of a zone.
#[must_use]
pub fn zone_prefix(params: &FabricParams, zone: &ZoneName) -> SubnetPrefix {
    let subnet = Sha256::new()
        .chain_update(b"selvedge-zone-subnet-v1")
        .chain_update(zone.to_string().as_bytes())
        .finalize();
    let mut prefix = [0; 8];
    prefix[..6].copy_from_slice(&params.ula_prefix);
    prefix[6..].copy_from_slice(&subnet[..2]);
    prefix
}

/// A node's own IPv6 address: a CGA with Sec 0 whose modifier is derived from the key, so that
/// everybody who knows the admission knows the address and none has to be announced.
#[must_use]
pub fn node_ipv6(params: &FabricParams, zone: &ZoneName, key: &PublicKey) -> Ipv6Addr {
    let spki = key.spki_der();
    let digest = Sha256::new().chain_update(b"selvedge-node-address-v1").chain_update(&spki).finalize();
    let cga = CgaParams { modifier: std::array::from_fn(|i| digest[i]), collision_count: 0 };
    cga::assemble(zone_prefix(params, zone), &spki, 0, &cga)
}

/// The IPv6 address of an endpoint of a node: a CGA with Sec 0 over the node's key, with the modifier that
/// the endpoint announces, so that every receiver can verify it.
#[must_use]
pub fn endpoint_ipv6(
    params: &FabricParams,
    zone: &ZoneName,
    key: &PublicKey,
    announced: &CgaParams,
) -> Ipv6Addr {
    cga::assemble(zone_prefix(params, zone), &key.spki_der(), 0, announced)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_checked() {
        for (text, block_len) in
            [("", 24), ("10.0.0.0", 24), ("10.0.0.0/x", 24), ("300.0.0.0/8", 24), ("10.0.0.0/33", 24)]
        {
            assert!(Ipv4Pool::parse(text, block_len).is_err(), "{text}");
        }
        for (pool_len, block_len) in [(16, 15), (24, 31), (0, 0), (255, 255)] {
            assert!(Ipv4Pool::parse(&format!("0.0.0.0/{pool_len}"), block_len).is_err());
        }
        let error = Ipv4Pool::parse("100.64.1.0/10", 24).expect_err("host bits");
        assert!(error.to_string().ends_with("write 100.64.0.0/10"), "{error}");
    }

    #[test]
    fn blocks_do_not_overlap_and_end_with_the_pool() {
        let pool = Ipv4Pool::parse("127.64.0.0/10", 24).expect("a pool");
        assert_eq!(pool.blocks(), 1 << 14);
        let texts: Vec<_> = [0, 1, 256, (1 << 14) - 1]
            .map(|n| pool.block(n).expect("within the pool").to_string())
            .into_iter()
            .collect();
        assert_eq!(texts, ["127.64.0.0/24", "127.64.1.0/24", "127.65.0.0/24", "127.127.255.0/24"]);
        assert_eq!(pool.block(1 << 14), None);
        assert_eq!(pool.block(u32::MAX), None);
    }

    #[test]
    fn a_block_keeps_its_edges_and_the_nodes_address_from_endpoints() {
        let block = Ipv4Pool::parse("10.0.0.0/8", 29).expect("a pool").block(1).expect("a block");
        assert_eq!(block.node_address(), Ipv4Addr::new(10, 0, 0, 9));
        let usable: Vec<_> = block.endpoint_addresses().map(|a| a.octets()[3]).collect();
        assert_eq!(usable, [10, 11, 12, 13, 14]);
        for last in 0..=255 {
            let address = Ipv4Addr::new(10, 0, 0, last);
            assert_eq!(block.is_for_endpoint(address), usable.contains(&last), "{address}");
        }
    }

    #[test]
    fn the_smallest_pool_is_one_block_for_one_endpoint() {
        let pool = Ipv4Pool::parse("192.168.0.4/30", 30).expect("a pool");
        let block = pool.block(0).expect("one block");
        assert_eq!(block.endpoint_addresses().collect::<Vec<_>>(), [Ipv4Addr::new(192, 168, 0, 6)]);
        assert_eq!(pool.block(1), None);
    }
}
