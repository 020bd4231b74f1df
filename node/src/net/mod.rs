//! The kernel's network from the inside of the daemon: namespaces, interfaces, addresses, routes.
//!
//! Thin shells around rtnetlink(7) and setns(2). What is to be set up is decided elsewhere, as data;
//! here it is only done, and undone, with errors that name the thing it was tried on.

mod found;
mod namespace;
mod netlink;
pub mod sysctl;

pub use found::Found;
pub use namespace::{Namespace, NamespaceError};
pub use netlink::{Link, NetError, Netlink, Subnet};
