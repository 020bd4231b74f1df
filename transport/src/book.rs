//! Where nodes are reached. Filled from seeds, policy and gossip by whoever knows; a wrong address
//! costs a failed dial and nothing else, because every connection proves which node it leads to. That
//! matters where clouds use the same private addresses: another node may be there. So it is remembered by
//! which address a node was reached.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{PoisonError, RwLock},
};

use selvedge_fabric::id::NodeName;

use crate::limits::MAX_ADDRESSES;

/// Addresses by node name.
#[derive(Debug, Default)]
pub struct AddressBook(RwLock<BTreeMap<NodeName, Entry>>);

#[derive(Debug)]
struct Entry {
    addresses: Vec<SocketAddr>,
    /// Which of them led to the node last.
    proven: Option<SocketAddr>,
}

impl AddressBook {
    /// Replaces the addresses of a node, best first; at most 8 are kept. None forgets the node.
    pub fn set(&self, node: &NodeName, mut addresses: Vec<SocketAddr>) {
        addresses.truncate(MAX_ADDRESSES);
        let mut book = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if addresses.is_empty() {
            book.remove(node);
        } else {
            let proven = book.get(node).and_then(|entry| entry.proven);
            let proven = proven.filter(|proven| addresses.contains(proven));
            book.insert(node.clone(), Entry { addresses, proven });
        }
    }

    /// Notes that a connection at this address was with the node.
    pub(crate) fn prove(&self, node: &NodeName, address: SocketAddr) {
        let mut book = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = book.get_mut(node).filter(|entry| entry.addresses.contains(&address)) {
            entry.proven = Some(address);
        }
    }

    /// The addresses of a node; empty when none is known.
    #[must_use]
    pub fn get(&self, node: &NodeName) -> Vec<SocketAddr> {
        self.look(node, |entry| entry.addresses.clone()).unwrap_or_default()
    }

    /// The addresses of a node in the order in which to try them: the one that led there last goes first.
    pub(crate) fn to_try(&self, node: &NodeName) -> Vec<SocketAddr> {
        let mut addresses = self.get(node);
        let proven = self.look(node, |entry| entry.proven).flatten();
        addresses.sort_by_key(|address| Some(*address) != proven);
        addresses
    }

    /// Where the node is for certain: the address that led to it last, or the only one there is. At any
    /// other, what answers or refuses may be somebody else.
    #[must_use]
    pub fn certain(&self, node: &NodeName) -> Option<SocketAddr> {
        let only = |entry: &Entry| if let [only] = entry.addresses[..] { Some(only) } else { None };
        self.look(node, |entry| entry.proven.or_else(|| only(entry))).flatten()
    }

    fn look<T>(&self, node: &NodeName, see: impl FnOnce(&Entry) -> T) -> Option<T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(node).map(see)
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

    #[test]
    fn the_address_that_led_there_is_tried_first_and_is_certain() {
        let (book, node) = (AddressBook::default(), NodeName::new("p1").expect("a name"));
        let [inside, public, other] = [11, 12, 13].map(|host| SocketAddr::from(([10, 0, 0, host], 7401)));
        book.set(&node, vec![inside]);
        assert_eq!(book.certain(&node), Some(inside), "the only one");
        book.set(&node, vec![inside, public]);
        assert_eq!(book.certain(&node), None, "either may be somebody else's");
        book.prove(&node, public);
        book.prove(&node, other);
        assert_eq!(book.certain(&node), Some(public));
        assert_eq!((book.get(&node), book.to_try(&node)), (vec![inside, public], vec![public, inside]));
        book.set(&node, vec![public, inside, other]);
        assert_eq!(book.certain(&node), Some(public));
        book.set(&node, vec![inside, other]);
        assert_eq!(book.certain(&node), None, "it is not there any more");
    }
}
