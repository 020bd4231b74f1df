//! Where nodes are reached. Filled from seeds, policy and gossip by whoever knows; a wrong address
//! costs a failed dial and nothing else, because every connection proves which node it leads to.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{PoisonError, RwLock},
};

use selvedge_fabric::id::NodeName;

use crate::limits::MAX_ADDRESSES;

/// Addresses by node name.
#[derive(Debug, Default)]
pub struct AddressBook(RwLock<BTreeMap<NodeName, Vec<SocketAddr>>>);

impl AddressBook {
    /// Replaces the addresses of a node, best first; at most 8 are kept. None forgets the node.
    pub fn set(&self, node: &NodeName, mut addresses: Vec<SocketAddr>) {
        addresses.truncate(MAX_ADDRESSES);
        let mut book = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if addresses.is_empty() {
            book.remove(node);
        } else {
            book.insert(node.clone(), addresses);
        }
    }

    /// The addresses of a node; empty when none is known.
    #[must_use]
    pub fn get(&self, node: &NodeName) -> Vec<SocketAddr> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(node).cloned().unwrap_or_default()
    }

    /// All nodes with an address.
    #[must_use]
    pub fn names(&self) -> Vec<NodeName> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_replaced_bounded_and_forgotten() {
        let (book, node) = (AddressBook::default(), NodeName::new("p1").expect("a name"));
        let many = (1..20).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
        book.set(&node, many);
        assert_eq!((book.get(&node).len(), book.names()), (MAX_ADDRESSES, vec![node.clone()]));
        book.set(&node, Vec::new());
        assert_eq!((book.get(&node), book.names()), (Vec::new(), Vec::new()));
    }
}
