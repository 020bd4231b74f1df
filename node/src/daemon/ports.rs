//! The UDP ports of a node, held while it joins.
//!
//! From the moment of its admission others send to it, and a closed port would have its host answer that nobody
//! is there. Held and not read, they keep what comes; and a port that is taken is told before a token is spent.

use std::net::{SocketAddr, UdpSocket};

use anyhow::Context as _;

use crate::config::Listen;

/// Ports that nobody else can take. Each is given back just before the one binds it who will listen there.
pub(super) struct Held {
    pub(super) fabric: UdpSocket,
    pub(super) gossip: UdpSocket,
}

impl Held {
    /// Takes the ports of a configuration.
    ///
    /// # Errors
    /// When one is taken, or may not be used.
    pub(super) fn take(listen: &Listen) -> anyhow::Result<Self> {
        let take = |field: &str, address: SocketAddr| {
            UdpSocket::bind(address).with_context(|| {
                format!("{field}: cannot bind UDP {address}; is another node using the port (ss -ulpn)?")
            })
        };
        Ok(Self {
            fabric: take("listen.fabric", listen.fabric)?,
            gossip: take("listen.gossip", listen.gossip)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_named() {
        let holder = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let taken = holder.local_addr().expect("an address");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listen = Listen { fabric: any, gossip: taken, ..Listen::default() };
        let error = format!("{:#}", Held::take(&listen).err().expect("taken"));
        assert!(error.starts_with(&format!("listen.gossip: cannot bind UDP {taken}")), "{error}");
    }
}
