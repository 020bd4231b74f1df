//! The tables of one revision, as the maps hold them.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
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
        // An address of the fabric that no endpoint has is nobody's, even when an external claims all
        // addresses there are.
        image.networks =
            plan.zone.ranges.iter().map(|(address, bits)| (network(*address, *bits), 0)).collect();
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
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            let network = Address::ipv6((bits & mask).to_be_bytes());
            self.networks.get(&(network, length)).copied()
        })
    }
}
