//! Where packets of this host enter and leave the overlay.

use std::io;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Mutex, mpsc};

/// A source and sink of IP packets.
#[async_trait]
pub trait Tun: Send + Sync + 'static {
    /// Waits for packets and appends them. Must lose nothing when it is dropped before it is done.
    ///
    /// # Errors
    /// When the device gives none; the caller tries again after a pause.
    async fn receive(&self, into: &mut Vec<Bytes>) -> io::Result<()>;

    /// Hands packets to the host, in order, and empties the list. Returns how many it did not take.
    async fn send(&self, packets: &mut Vec<Bytes>) -> usize;
}

/// Packets that a channel TUN holds in each direction.
const CHANNEL_PACKETS: usize = 1_024;

/// A TUN without a device: its other end is [`TunPeer`]. For tests, and where there is no root.
#[derive(Debug)]
pub struct ChannelTun {
    from_host: Mutex<mpsc::Receiver<Bytes>>,
    to_host: mpsc::Sender<Bytes>,
}

/// The host's side of a [`ChannelTun`].
#[derive(Debug)]
pub struct TunPeer {
    /// Packets of the host into the overlay.
    pub send: mpsc::Sender<Bytes>,
    /// Packets out of the overlay.
    pub receive: mpsc::Receiver<Bytes>,
}

impl ChannelTun {
    /// A TUN and its other end.
    #[must_use]
    pub fn pair() -> (Self, TunPeer) {
        let (send, from_host) = mpsc::channel(CHANNEL_PACKETS);
        let (to_host, receive) = mpsc::channel(CHANNEL_PACKETS);
        (Self { from_host: Mutex::new(from_host), to_host }, TunPeer { send, receive })
    }
}

#[async_trait]
impl Tun for ChannelTun {
    async fn receive(&self, into: &mut Vec<Bytes>) -> io::Result<()> {
        match self.from_host.lock().await.recv_many(into, CHANNEL_PACKETS).await {
            0 => Err(io::ErrorKind::BrokenPipe.into()),
            _ => Ok(()),
        }
    }

    async fn send(&self, packets: &mut Vec<Bytes>) -> usize {
        packets.drain(..).filter(|packet| self.to_host.try_send(packet.clone()).is_err()).count()
    }
}
