//! Links and routes of the overlay, as this node has them.

use super::Node;
use crate::api::types;

impl Node {
    pub(super) fn list_links(&self) -> Vec<types::Link> {
        let links = self.overlay.get().map(selvedge_overlay::Overlay::links).unwrap_or_default();
        links
            .into_iter()
            .map(|link| types::Link {
                peer: link.peer.to_string(),
                state: link.state.name().to_owned(),
                rtt_ms: link.rtt_ms,
                loss: link.loss,
                tx_bytes: link.tx_bytes,
                rx_bytes: link.rx_bytes,
                max_datagram_bytes: link.max_datagram,
            })
            .collect()
    }

    pub(super) fn list_routes(&self) -> Vec<types::Route> {
        let routes = self.overlay.get().map(selvedge_overlay::Overlay::routes).unwrap_or_default();
        let addresses = &self.plan().zone.nodes;
        routes
            .into_iter()
            .map(|route| {
                let of_node = addresses.get(&route.node);
                let ipv4 = of_node.and_then(|a| a.ipv4).map(|a| a.to_string());
                let ipv6 = of_node.and_then(|a| a.ipv6).map(|a| a.to_string());
                types::Route {
                    node: route.node.to_string(),
                    next_hop: route.path.get(1).map(ToString::to_string),
                    path: route.path.iter().map(ToString::to_string).collect(),
                    addresses: ipv4.into_iter().chain(ipv6).collect(),
                }
            })
            .collect()
    }
}
