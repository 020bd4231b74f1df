//! Links and routes of the overlay, as this node has them.

use selvedge_fabric::{
    id::{NodeName, ServiceRef},
    plan::Plan,
    query::{Explanation, Outcome},
};
use selvedge_overlay::{Overlay, Refusal};

use super::Node;
use crate::api::types;

impl Node {
    pub(super) fn list_links(&self) -> Vec<types::Link> {
        let mut links = self.overlay.get().map(Overlay::links).unwrap_or_default();
        links.sort_by(|a, b| a.peer.cmp(&b.peer));
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
        let mut routes = self.overlay.get().map(Overlay::routes).unwrap_or_default();
        routes.sort_by(|a, b| a.node.cmp(&b.node));
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

    /// The nodes over which packets of an allowed flow go from here to the nearest endpoint, by what this
    /// node knows. `None` where the overlay is off, or the flow does not begin here or ends nowhere.
    pub(super) fn hops_over_overlay(&self, found: &Explanation) -> Option<Vec<types::Hop>> {
        let (overlay, plan) = (self.overlay.get()?, self.plan());
        let me = &self.identity.node;
        let begins_here = plan.identities.values().any(|b| b.service == found.from && b.node == *me);
        if found.verdict == Outcome::Deny || !begins_here {
            return None;
        }
        let to = nearest(&plan, found, &found.to)?;
        Some(match overlay.trace(found.contract.as_ref(), &to) {
            Ok(path) => {
                let last = path.len().saturating_sub(1);
                let places = path.iter().enumerate().map(|(at, node)| match at {
                    0 => (node, "source"),
                    at if at == last => (node, "destination"),
                    _ => (node, "transit"),
                });
                places.map(|(node, place)| self.hop(node, place, Ok(found))).collect()
            }
            Err(why) => vec![self.hop(me, "source", Ok(found)), self.hop(me, "transit", Err(why))],
        })
    }

    fn hop(&self, node: &NodeName, place: &str, verdict: Result<&Explanation, Refusal>) -> types::Hop {
        let zone = self.policy().nodes.get(node).map(|admission| admission.zone.to_string());
        let (verdict, reason) = match verdict {
            Ok(found) => ("allow", found.reason.clone()),
            Err(why) => ("deny", why.name().to_owned()),
        };
        types::Hop {
            node: node.to_string(),
            zone,
            place: place.to_owned(),
            verdict: verdict.to_owned(),
            reason,
        }
    }
}

/// The node of the endpoint that the DNS would name first, or of any.
fn nearest(plan: &Plan, found: &Explanation, service: &ServiceRef) -> Option<NodeName> {
    let targets = found.contract.as_ref().and_then(|contract| plan.zone.contracts.get(contract));
    let named = targets.into_iter().flatten().find(|target| target.service == *service);
    let any = || plan.identities.values().find(|bound| bound.service == *service).map(|b| b.node.clone());
    named.map(|target| target.node.clone()).or_else(any)
}
