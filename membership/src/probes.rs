//! Datagrams of failure detection over the node's QUIC transport.

use std::{net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use selvedge_fabric::key::NodeId;
use selvedge_transport::{Handler, PeerIdentity};
use tokio::sync::mpsc;

use crate::membership::Shared;

/// Datagrams that wait for the service; what exceeds it is dropped, as the network might.
const QUEUE: usize = 1_024;

const SWIM: u8 = 0;
const PING: u8 = 1;
const PONG: u8 = 2;

/// What a datagram says. That it came at all is a sign of life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Probe {
    /// A packet of the detector.
    Swim(Bytes),
    /// Say that you live.
    Ping,
    /// I live.
    Pong,
}

impl Probe {
    pub(crate) fn encode(&self) -> Bytes {
        match self {
            Self::Ping => Bytes::from_static(&[PING]),
            Self::Pong => Bytes::from_static(&[PONG]),
            Self::Swim(packet) => {
                let mut bytes = BytesMut::with_capacity(packet.len() + 1);
                bytes.put_u8(SWIM);
                bytes.put_slice(packet);
                bytes.freeze()
            }
        }
    }

    pub(crate) fn decode(mut bytes: Bytes) -> Option<Self> {
        let kind = *bytes.first()?;
        match (kind, bytes.len()) {
            (SWIM, _) => Some(Self::Swim(bytes.split_off(1))),
            (PING, 1) => Some(Self::Ping),
            (PONG, 1) => Some(Self::Pong),
            _ => None,
        }
    }
}

/// Takes the datagrams of authenticated peers into the service's queue.
pub(crate) struct ProbeHandler {
    queue: mpsc::Sender<(NodeId, Probe)>,
    shared: Arc<Shared>,
}

impl ProbeHandler {
    pub(crate) fn new(shared: Arc<Shared>) -> (Self, mpsc::Receiver<(NodeId, Probe)>) {
        let (queue, receiver) = mpsc::channel(QUEUE);
        (Self { queue, shared }, receiver)
    }
}

#[async_trait]
impl Handler for ProbeHandler {
    async fn request(
        &self,
        _peer: Option<PeerIdentity>,
        _remote: SocketAddr,
        _body: Bytes,
    ) -> Result<Bytes, String> {
        Err("probes are datagrams".into())
    }

    fn datagram(&self, peer: &PeerIdentity, body: Bytes) {
        let queued =
            Probe::decode(body).is_some_and(|probe| self.queue.try_send((peer.key.node_id(), probe)).is_ok());
        if !queued {
            self.shared.counters.dropped_probes.add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_survive_the_wire_and_garbage_is_none() {
        for probe in [Probe::Ping, Probe::Pong, Probe::Swim(Bytes::from_static(b"x"))] {
            assert_eq!(Probe::decode(probe.encode()), Some(probe));
        }
        for garbage in [&b""[..], &[1, 1], &[2, 0], &[3], &[255, 1, 2]] {
            assert_eq!(Probe::decode(Bytes::copy_from_slice(garbage)), None);
        }
    }
}
