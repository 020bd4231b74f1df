//! What is there of what was set up, as the kernel tells it: to notice what somebody took away.

use std::{collections::BTreeSet, net::IpAddr};

use futures::TryStreamExt as _;
use rtnetlink::{
    RouteMessageBuilder,
    packet_route::{
        address::{AddressAttribute, AddressMessage},
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
        route::RouteAttribute,
    },
};

use super::{Link, NetError, Netlink, Subnet, netlink::kernel};

/// Addresses and neighbours of every interface at one moment. Routes are not among them, a host may have
/// a million: ask for one with [`Netlink::leads_to`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    addresses: BTreeSet<(u32, IpAddr)>,
    neighbours: BTreeSet<(u32, IpAddr)>,
}

impl Found {
    /// Whether an interface has an address.
    #[must_use]
    pub fn has_address(&self, link: &Link, address: IpAddr) -> bool {
        self.addresses.contains(&(link.index, address))
    }

    /// Whether an interface has a neighbour whose link-layer address was said, not asked for.
    #[must_use]
    pub fn has_neighbour(&self, link: &Link, address: IpAddr) -> bool {
        self.neighbours.contains(&(link.index, address))
    }
}

impl Netlink {
    /// Looks at all interfaces.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub async fn found(&self) -> Result<Found, NetError> {
        let addresses: Result<Vec<_>, _> = self.handle.address().get().execute().try_collect().await;
        let addresses = addresses.map_err(|source| kernel("list the addresses", source))?;
        let neighbours: Result<Vec<_>, _> = self.handle.neighbours().get().execute().try_collect().await;
        let neighbours = neighbours.map_err(|source| kernel("list the neighbours", source))?;
        Ok(Found {
            addresses: addresses.iter().filter_map(address_of).collect(),
            neighbours: neighbours.iter().filter_map(neighbour_of).collect(),
        })
    }

    /// The number of the interface by which this host sends packets to an address; `None` when it sends
    /// them nowhere.
    pub async fn leads_to(&self, address: IpAddr) -> Option<u32> {
        let host = Subnet::host(address);
        let route = RouteMessageBuilder::<IpAddr>::new().destination_prefix(host.address, host.len).ok()?;
        let mut answer = std::pin::pin!(self.handle.route().get(route.build()).execute());
        let route = answer.try_next().await.ok()??;
        route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        })
    }
}

fn address_of(message: &AddressMessage) -> Option<(u32, IpAddr)> {
    let own = |attribute: &AddressAttribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    };
    let any = |attribute: &AddressAttribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    };
    // IPv6 has only the second; for IPv4 that is the far end's, where there is one.
    let address = message.attributes.iter().find_map(own).or(message.attributes.iter().find_map(any))?;
    Some((message.header.index, address))
}

fn neighbour_of(message: &NeighbourMessage) -> Option<(u32, IpAddr)> {
    if message.header.state != NeighbourState::Permanent {
        return None;
    }
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(a)) => {
            Some((message.header.ifindex, (*a).into()))
        }
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(a)) => {
            Some((message.header.ifindex, (*a).into()))
        }
        _ => None,
    })
}
