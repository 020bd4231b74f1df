//! Which external is behind an address outside the fabric.

use std::{collections::BTreeMap, net::IpAddr};

use selvedge_abi::Identity;

use crate::{
    id::{Name, ServiceRef},
    object::Spec,
    policy::PolicyState,
};

/// The networks of externals that play roles. Where two externals list the same network, the one whose
/// name comes first has it; of different networks the smaller counts. Host names stand for no network.
pub(super) fn networks(policy: &PolicyState) -> BTreeMap<(IpAddr, u8), Identity> {
    let mut networks = BTreeMap::new();
    for (key, spec) in &policy.objects {
        let (Spec::External(external), Some(domain)) = (spec, &key.domain) else { continue };
        let Ok(name) = Name::new(&key.name) else { continue };
        let Some(identity) = policy.identities.get(&ServiceRef::new(name, domain.clone())) else { continue };
        for network in external.addresses.iter().filter_map(|text| network(text)) {
            networks.entry(network).or_insert(Identity(*identity));
        }
    }
    networks
}

/// An address or CIDR; validation has seen to it that it has no bits beyond its prefix.
fn network(text: &str) -> Option<(IpAddr, u8)> {
    if let Some((address, length)) = text.split_once('/') {
        return Some((address.parse().ok()?, length.parse().ok()?));
    }
    let address: IpAddr = text.parse().ok()?;
    Some((address, if address.is_ipv4() { 32 } else { 128 }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        object::{ExternalSpec, Kind},
        testing::{Build as _, fabric, object},
    };

    #[test]
    fn addresses_and_networks_are_those_of_externals_with_a_number() {
        let external = |addresses: &[&str]| {
            Spec::External(ExternalSpec {
                description: String::new(),
                addresses: addresses.iter().map(|text| (*text).to_owned()).collect(),
                roles: Vec::new(),
            })
        };
        let mut policy = fabric()
            .put(
                Kind::External,
                "bank@pay",
                external(&["192.0.2.1", "198.51.100.0/24", "bank.example", "::/0"]),
            )
            .put(Kind::External, "copy@pay", external(&["192.0.2.1"]))
            .put(Kind::External, "idle@pay", external(&["203.0.113.1"]));
        policy.identities.insert(object("bank@pay"), 7);
        policy.identities.insert(object("copy@pay"), 8);
        let found: Vec<_> =
            networks(&policy).into_iter().map(|((a, len), id)| (format!("{a}/{len}"), id.0)).collect();
        let expected = [("192.0.2.1/32", 7), ("198.51.100.0/24", 7), ("::/0", 7)];
        assert_eq!(found, expected.map(|(text, id)| (text.to_owned(), id)));
    }
}
