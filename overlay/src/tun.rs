//! Where packets of this host enter and leave the overlay.

use std::{io, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Mutex, mpsc, watch};

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

/// A TUN that can be exchanged for another while the overlay runs: links stay up meanwhile.
pub struct Replaceable(watch::Sender<Arc<dyn Tun>>);

impl Replaceable {
    /// One that begins with `tun`.
    #[must_use]
    pub fn new(tun: Arc<dyn Tun>) -> Self {
        Self(watch::Sender::new(tun))
    }

    /// Goes on with another. The former is let go of; packets in it are lost.
    pub fn replace(&self, tun: Arc<dyn Tun>) {
        self.0.send_replace(tun);
    }
}

#[async_trait]
impl Tun for Replaceable {
    async fn receive(&self, into: &mut Vec<Bytes>) -> io::Result<()> {
        let mut replaced = self.0.subscribe();
        let tun = Arc::clone(&replaced.borrow_and_update());
        tokio::select! {
            received = tun.receive(into) => received,
            // Nothing was received; the next call asks the new one.
            _ = replaced.changed() => Ok(()),
        }
    }

    async fn send(&self, packets: &mut Vec<Bytes>) -> usize {
        let tun = Arc::clone(&self.0.borrow());
        tun.send(packets).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_replaced_tun_is_let_go_of_and_the_new_one_is_used() {
        let (first, mut first_peer) = ChannelTun::pair();
        let (second, mut second_peer) = ChannelTun::pair();
        let tun = Arc::new(Replaceable::new(Arc::new(first)));
        let mut packets = vec![Bytes::from_static(b"1")];
        assert_eq!(tun.send(&mut packets).await, 0);
        assert_eq!(first_peer.receive.recv().await.unwrap(), "1");

        // Who waits for the first one is woken.
        let waiting = {
            let tun = Arc::clone(&tun);
            tokio::spawn(async move { tun.receive(&mut Vec::new()).await })
        };
        tokio::task::yield_now().await;
        tun.replace(Arc::new(second));
        waiting.await.unwrap().unwrap();
        assert!(first_peer.receive.recv().await.is_none(), "the first is still held");

        packets.push(Bytes::from_static(b"2"));
        assert_eq!(tun.send(&mut packets).await, 0);
        assert_eq!(second_peer.receive.recv().await.unwrap(), "2");
        second_peer.send.send(Bytes::from_static(b"3")).await.unwrap();
        tun.receive(&mut packets).await.unwrap();
        assert_eq!(packets, ["3"]);
    }
}
