//! Which way a frame goes: the nodes and links as this node knows them, and the best path that a contract
//! permits.
//!
//! Every hop finds its own way from what it knows. That needs no agreement, reroutes as soon as a link
//! of one's own is dead, and can make a frame go in circles while facts travel; the hop limit ends that.

mod graph;
mod search;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

pub(crate) use graph::{Graph, link_is_permitted};
#[cfg(test)]
pub(crate) use search::Path;
pub(crate) use search::{Constraint, best_path, covers};

/// Links a frame may cross when the contract does not say. A fabric of meshed processors needs three.
pub(crate) const DEFAULT_HOP_LIMIT: u8 = 16;
