//! The tables of one revision, as the maps hold them.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr},
};

use selvedge_abi::{
    Address, EdgeKey, Groups, Identity, MAX_RANGES, Range, Tables, address::IPV4_PREFIX_BITS,
    judge::Identities, layout::RangeList,
};
use selvedge_fabric::plan::Plan;

use crate::ImageError;

/// Most entries of one table. 64 bytes or so of kernel memory each, twice.
pub const MAX_TABLE_ENTRIES: usize = 1 << 21;
/// Most different lists of port ranges. Edges that say the same share one, so a policy has about as many
/// as it has contract roles. 776 bytes of kernel memory each, twice.
pub const MAX_LISTS: usize = 1 << 16;

/// A network with its prefix length, counted as for [`Address`].
type Network = (Address, u8);

/// What the tables of the data plane hold at one revision of policy and one view of the endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableImage {
    /// The revision of policy; events carry it.
    pub revision: u64,
    endpoints: BTreeMap<Address, u32>,
    networks: BTreeMap<Network, u32>,
    groups: BTreeMap<u32, Groups>,
    guardrails: BTreeMap<EdgeKey, u32>,
    contracts: BTreeMap<EdgeKey, u32>,
    lists: Vec<RangeList>,
}

impl TableImage {
    /// The tables of a plan.
    ///
    /// # Errors
    /// When a table would exceed [`MAX_TABLE_ENTRIES`] or [`MAX_LISTS`].
    pub fn new(plan: &Plan) -> Result<Self, ImageError> {
        let mut image = Self { revision: plan.revision, ..Self::default() };
        image.endpoints = plan.identities.iter().map(|(a, b)| (Address::from(*a), b.identity.0)).collect();
        image.networks = networks(&plan.networks, &plan.zone.ranges);
        image.groups = plan.verdicts.members.iter().map(|(id, member)| (id.0, member.groups)).collect();
        let mut lists = Lists::default();
        image.guardrails = lists.edges(&plan.verdicts.guardrails);
        image.contracts = lists.edges(&plan.verdicts.contracts);
        image.lists = lists.lists;
        image.check()?;
        Ok(image)
    }

    fn check(&self) -> Result<(), ImageError> {
        let sizes = [
            ("endpoint addresses", self.endpoints.len(), "run fewer endpoints in one fabric"),
            ("networks of externals", self.networks.len(), "list larger networks"),
            ("services", self.groups.len(), "split the fabric"),
            ("edges between guardrail groups", self.guardrails.len(), "write broader guardrails"),
            ("edges between services", self.contracts.len(), "split contracts with very many members"),
        ];
        for (what, found, remedy) in sizes {
            if found > MAX_TABLE_ENTRIES {
                return Err(ImageError::TooMany { what, found, limit: MAX_TABLE_ENTRIES, remedy });
            }
        }
        if self.lists.len() > MAX_LISTS {
            return Err(ImageError::TooMany {
                what: "different lists of port ranges",
                found: self.lists.len(),
                limit: MAX_LISTS,
                remedy: "use the same ports in more contracts",
            });
        }
        Ok(())
    }

    /// Whether both hold the same, whatever their revisions.
    #[must_use]
    pub fn same_tables(&self, other: &Self) -> bool {
        self.endpoints == other.endpoints
            && self.networks == other.networks
            && self.groups == other.groups
            && self.guardrails == other.guardrails
            && self.contracts == other.contracts
            && self.lists == other.lists
    }

    /// Addresses of endpoints and the numbers of their services.
    #[must_use]
    pub const fn endpoints(&self) -> &BTreeMap<Address, u32> {
        &self.endpoints
    }

    /// Networks and the numbers of the externals behind them; 0 for nobody. The longest prefix counts.
    #[must_use]
    pub const fn networks(&self) -> &BTreeMap<Network, u32> {
        &self.networks
    }

    /// How the guardrails see each service.
    #[must_use]
    pub const fn groups(&self) -> &BTreeMap<u32, Groups> {
        &self.groups
    }

    /// Edges between groups, and the place of their list in [`TableImage::lists`].
    #[must_use]
    pub const fn guardrails(&self) -> &BTreeMap<EdgeKey, u32> {
        &self.guardrails
    }

    /// Edges between services, likewise.
    #[must_use]
    pub const fn contracts(&self) -> &BTreeMap<EdgeKey, u32> {
        &self.contracts
    }

    /// Port ranges.
    #[must_use]
    pub fn lists(&self) -> &[RangeList] {
        &self.lists
    }

    fn list(&self, place: u32) -> Option<&[Range]> {
        self.lists.get(usize::try_from(place).ok()?).map(|list| &list[..])
    }
}

/// The networks of externals. An address of the fabric that no endpoint has is nobody's, whatever an
/// external claims: else whoever was allowed to the whole Internet could reach what has just vanished.
fn networks(externals: &BTreeMap<(IpAddr, u8), Identity>, fabric: &[(IpAddr, u8)]) -> BTreeMap<Network, u32> {
    let fabric: Vec<Network> = fabric.iter().map(|(address, bits)| network(*address, *bits)).collect();
    let externals = externals.iter().map(|((address, bits), id)| (network(*address, *bits), id.0));
    let outside = externals.filter(|(network, _)| !fabric.iter().any(|range| contains(range, network)));
    // `::/0` speaks of IPv6 alone, though IPv4 addresses lie within it here.
    let ipv4 = network(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
    std::iter::once((ipv4, 0)).chain(outside).chain(fabric.iter().map(|range| (*range, 0))).collect()
}

/// Whether the whole of `inner` lies in `range`.
fn contains(range: &Network, inner: &Network) -> bool {
    let bits = |address: &Address| u128::from_be_bytes(address.bytes());
    inner.1 >= range.1 && (bits(&range.0) ^ bits(&inner.0)) & mask(range.1) == 0
}

/// The bits that count.
fn mask(length: u8) -> u128 {
    u128::MAX.checked_shl(128u32.saturating_sub(u32::from(length))).unwrap_or(0)
}

fn network(address: IpAddr, bits: u8) -> Network {
    let front = if address.is_ipv4() { IPV4_PREFIX_BITS } else { 0 };
    (Address::from(address), front.saturating_add(bits))
}

/// Lists of ranges, each once.
#[derive(Default)]
struct Lists {
    lists: Vec<RangeList>,
    places: HashMap<Vec<Range>, u32>,
}

impl Lists {
    fn edges(&mut self, edges: &BTreeMap<EdgeKey, Vec<Range>>) -> BTreeMap<EdgeKey, u32> {
        edges.iter().map(|(key, ranges)| (*key, self.place(ranges))).collect()
    }

    fn place(&mut self, ranges: &[Range]) -> u32 {
        // The compiler bounds them; whatever lies beyond would be refused.
        let ranges = &ranges[..ranges.len().min(MAX_RANGES)];
        if let Some(place) = self.places.get(ranges) {
            return *place;
        }
        let mut list = [Range::default(); MAX_RANGES];
        list[..ranges.len()].copy_from_slice(ranges);
        let place = u32::try_from(self.lists.len()).unwrap_or(u32::MAX);
        self.lists.push(list);
        self.places.insert(ranges.to_vec(), place);
        place
    }
}

impl Tables for TableImage {
    fn groups(&self, identity: Identity) -> Option<Groups> {
        self.groups.get(&identity.0).copied()
    }

    fn guardrail(&self, key: &EdgeKey) -> Option<&[Range]> {
        self.list(*self.guardrails.get(key)?)
    }

    fn contract(&self, key: &EdgeKey) -> Option<&[Range]> {
        self.list(*self.contracts.get(key)?)
    }
}

impl Identities for TableImage {
    fn identity(&self, address: &Address) -> Option<Identity> {
        let found = match self.endpoints.get(address) {
            Some(identity) => *identity,
            None => self.longest_match(address)?,
        };
        (found != 0).then_some(Identity(found))
    }
}

impl TableImage {
    fn longest_match(&self, address: &Address) -> Option<u32> {
        let bits = u128::from_be_bytes(address.bytes());
        (0..=128u8).rev().find_map(|length| {
            let network = Address::ipv6((bits & mask(length)).to_be_bytes());
            self.networks.get(&(network, length)).copied()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn externals_have_what_is_outside_the_fabric_and_of_their_family() {
        let range = |text: &str| {
            let (address, bits) = text.split_once('/').expect("a network");
            (address.parse::<IpAddr>().expect("an address"), bits.parse::<u8>().expect("a length"))
        };
        let plan =
            [("::/0", 1), ("192.0.2.0/24", 2), ("192.0.2.7/32", 3), ("10.1.2.0/24", 4), ("fd00::/16", 5)];
        let plan: BTreeMap<_, _> = plan.map(|(text, id)| (range(text), Identity(id))).into();
        let fabric = [range("10.1.0.0/16"), range("fd00:1::/48")];
        let image = TableImage { networks: networks(&plan, &fabric), ..TableImage::default() };
        let who = |text: &str| {
            let address: IpAddr = text.parse().expect("an address");
            image.identity(&Address::from(address)).map(|identity| identity.0)
        };
        assert_eq!((who("2001:db8::1"), who("192.0.2.1"), who("192.0.2.7")), (Some(1), Some(2), Some(3)));
        assert_eq!((who("198.51.100.1"), who("10.1.2.3"), who("fd00:1::5")), (None, None, None));
        assert_eq!((who("fd00:2::5"), who("10.2.0.1")), (Some(5), None));
    }
}
