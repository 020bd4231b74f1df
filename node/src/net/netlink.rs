//! Interfaces, addresses, neighbours and routes by way of rtnetlink(7).

use std::{
    fmt, io,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd},
};

use futures::TryStreamExt as _;
use rtnetlink::{
    Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder, new_connection,
    packet_route::{
        address::AddressAttribute,
        link::{LinkAttribute, LinkMessage},
        route::RouteScope,
    },
};
use tokio::task::JoinSet;

use super::{Namespace, NamespaceError};

/// An address range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subnet {
    /// Its first address.
    pub address: IpAddr,
    /// Its prefix length.
    pub len: u8,
}

impl Subnet {
    /// The range of one address.
    #[must_use]
    pub const fn host(address: IpAddr) -> Self {
        Self { address, len: if address.is_ipv4() { 32 } else { 128 } }
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number in its namespace; never given to another while the namespace lives.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its link-layer address; empty where there is none, as for a TUN.
    pub mac: Vec<u8>,
    /// Largest packet, bytes.
    pub mtu: u32,
}

/// Why the network could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// No netlink socket.
    #[error("no netlink socket: {0}")]
    Socket(#[from] io::Error),
    /// The namespace cannot be entered.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The kernel refused.
    #[error("cannot {what}: {source}")]
    Kernel {
        /// What was tried, and on what.
        what: String,
        /// What it said.
        source: rtnetlink::Error,
    },
    /// There is no such interface.
    #[error("there is no interface {0}")]
    NoInterface(String),
}

impl NetError {
    /// Whether the kernel says that the thing is not there.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        let absent = [libc::ENODEV, libc::ESRCH, libc::ENOENT, libc::EADDRNOTAVAIL].map(|code| -code);
        match self {
            Self::NoInterface(_) => true,
            Self::Kernel { source: rtnetlink::Error::NetlinkError(message), .. } => {
                absent.contains(&message.raw_code())
            }
            _ => false,
        }
    }
}

/// A netlink socket in one namespace.
#[derive(Debug)]
pub struct Netlink {
    pub(super) handle: Handle,
    /// Moves the messages, and ends with this value.
    _driver: JoinSet<()>,
}

impl Netlink {
    /// A socket in the daemon's own namespace. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When there is none to be had.
    pub fn open() -> Result<Self, NetError> {
        let (connection, handle, _) = new_connection()?;
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        Ok(Self { handle, _driver: driver })
    }

    /// A socket in another namespace. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the namespace cannot be entered or there is no socket to be had.
    pub fn open_in(namespace: &Namespace) -> Result<Self, NetError> {
        let runtime = tokio::runtime::Handle::current();
        namespace.run(|| {
            let _entered = runtime.enter();
            Self::open()
        })?
    }

    /// The interface of this name.
    ///
    /// # Errors
    /// When there is none.
    pub async fn link(&self, name: &str) -> Result<Link, NetError> {
        let mut found = self.handle.link().get().match_name(name.to_owned()).execute();
        match found.try_next().await {
            Ok(Some(message)) => Ok(link_of(&message)),
            Ok(None) => Err(NetError::NoInterface(name.to_owned())),
            Err(source) => {
                let error = NetError::Kernel { what: format!("look for interface {name}"), source };
                Err(if error.is_absent() { NetError::NoInterface(name.to_owned()) } else { error })
            }
        }
    }

    /// Every interface.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub async fn links(&self) -> Result<Vec<Link>, NetError> {
        let all: Result<Vec<LinkMessage>, _> = self.handle.link().get().execute().try_collect().await;
        let all = all.map_err(|source| kernel("list the interfaces", source))?;
        Ok(all.iter().map(link_of).collect())
    }

    /// Makes a veth(4) pair: two interfaces, what goes into the one comes out of the other.
    ///
    /// # Errors
    /// When the kernel refuses, for instance because a name is taken.
    pub async fn add_veth(&self, name: &str, peer: &str, mtu: u32) -> Result<(), NetError> {
        let message = LinkVeth::new(name, peer).mtu(mtu).build();
        let made = self.handle.link().add(message).execute().await;
        made.map_err(|source| kernel(format!("make the interfaces {name} and {peer}"), source))
    }

    /// Moves an interface to another namespace, where it gets a new name.
    ///
    /// # Errors
    /// When the kernel refuses, for instance because the name is taken there.
    pub async fn move_link(&self, link: &Link, to: &Namespace, name: &str) -> Result<(), NetError> {
        let message = LinkUnspec::new_with_index(link.index)
            .setns_by_fd(to.as_fd().as_raw_fd())
            .name(name.to_owned())
            .build();
        let what = || format!("move interface {} to {} as {name}", link.name, to.path().display());
        let moved = self.handle.link().set(message).execute().await;
        moved.map_err(|source| kernel(what(), source))
    }

    /// Changes an interface's MTU, and makes it work, or not.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn set_link(&self, link: &Link, mtu: u32, up: bool) -> Result<(), NetError> {
        let message = LinkMessageBuilder::<LinkUnspec>::new().index(link.index).mtu(mtu);
        let message = if up { message.up() } else { message.down() };
        let done = self.handle.link().change(message.build()).execute().await;
        done.map_err(|source| kernel(format!("set up interface {}", link.name), source))
    }

    /// Writes a text beside an interface that `ip link` shows to people.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn describe(&self, link: &Link, text: &str) -> Result<(), NetError> {
        let message = LinkMessageBuilder::<LinkUnspec>::new().index(link.index);
        let message = message.append_extra_attribute(LinkAttribute::IfAlias(text.to_owned())).build();
        let done = self.handle.link().change(message).execute().await;
        done.map_err(|source| kernel(format!("describe interface {}", link.name), source))
    }

    /// Takes an interface away, and with it its peer, addresses and routes. `false` when it is gone.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn delete_link(&self, name: &str) -> Result<bool, NetError> {
        let link = match self.link(name).await {
            Ok(link) => link,
            Err(error) if error.is_absent() => return Ok(false),
            Err(error) => return Err(error),
        };
        let gone = self.handle.link().del(link.index).execute().await;
        match gone.map_err(|source| kernel(format!("delete interface {name}"), source)) {
            Err(error) if error.is_absent() => Ok(false),
            done => done.map(|()| true),
        }
    }

    /// Gives an interface an address, without a route to its range and without asking whether somebody
    /// else has it: overlay addresses are proven, not claimed.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn add_address(&self, link: &Link, address: Subnet) -> Result<(), NetError> {
        use rtnetlink::packet_route::address::{AddressFlags, AddressHeaderFlags};
        let mut request = self.handle.address().add(link.index, address.address, address.len).replace();
        let flags = AddressFlags::Noprefixroute | AddressFlags::Nodad;
        request.message_mut().attributes.push(AddressAttribute::Flags(flags));
        request.message_mut().header.flags = AddressHeaderFlags::Nodad;
        let what = || format!("give {address} to interface {}", link.name);
        request.execute().await.map_err(|source| kernel(what(), source))
    }

    /// Takes an address from an interface. Fine when it is not there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn delete_address(&self, link: &Link, address: Subnet) -> Result<(), NetError> {
        // The message is that of adding it: the request to delete takes what the one to add would send.
        let message =
            self.handle.address().add(link.index, address.address, address.len).message_mut().clone();
        let gone = self.handle.address().del(message).execute().await;
        match gone.map_err(|source| kernel(format!("take {address} from interface {}", link.name), source)) {
            Err(error) if !error.is_absent() => Err(error),
            _ => Ok(()),
        }
    }

    /// Says which link-layer address an address on an interface has, so that nobody needs to ask.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn add_neighbour(&self, link: &Link, address: IpAddr, mac: &[u8]) -> Result<(), NetError> {
        let request = self.handle.neighbours().add(link.index, address).link_local_address(mac).replace();
        let what = || format!("name the neighbour {address} on interface {}", link.name);
        request.execute().await.map_err(|source| kernel(what(), source))
    }

    /// Routes a range to an interface, by way of a gateway or directly, with the address that packets
    /// of this host then bear.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn add_route(
        &self,
        to: Subnet,
        link: &Link,
        gateway: Option<IpAddr>,
        source: Option<IpAddr>,
    ) -> Result<(), NetError> {
        let route = RouteMessageBuilder::<IpAddr>::new().output_interface(link.index);
        let what = || format!("route {to} to interface {}", link.name);
        let malformed = |_| NetError::Kernel { what: what(), source: rtnetlink::Error::RequestFailed };
        let mut route = route.destination_prefix(to.address, to.len).map_err(malformed)?;
        route = match gateway {
            Some(gateway) => route.gateway(gateway).map_err(malformed)?.onlink(),
            None => route.scope(RouteScope::Link),
        };
        if let Some(source) = source {
            route = route.pref_source(source).map_err(malformed)?;
        }
        let added = self.handle.route().add(route.build()).replace().execute().await;
        added.map_err(|source| kernel(what(), source))
    }

    /// Takes a route away.
    ///
    /// # Errors
    /// When the kernel refuses, for instance because it is gone.
    pub async fn delete_route(&self, to: Subnet) -> Result<(), NetError> {
        let what = || format!("delete the route {to}");
        let route = RouteMessageBuilder::<IpAddr>::new().destination_prefix(to.address, to.len);
        let malformed = |_| NetError::Kernel { what: what(), source: rtnetlink::Error::RequestFailed };
        let gone = self.handle.route().del(route.map_err(malformed)?.build()).execute().await;
        gone.map_err(|source| kernel(what(), source))
    }
}

pub(super) fn kernel(what: impl Into<String>, source: rtnetlink::Error) -> NetError {
    NetError::Kernel { what: what.into(), source }
}

fn link_of(message: &LinkMessage) -> Link {
    let mut link = Link { index: message.header.index, name: String::new(), mac: Vec::new(), mtu: 0 };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(mac) => link.mac.clone_from(mac),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            _ => {}
        }
    }
    link
}
