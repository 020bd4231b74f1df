//! Datagrams on their way from the transport's tasks to the router's.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use selvedge_fabric::key::{NodeId, PublicKey};
use selvedge_transport::{Handler, PeerIdentity};
use tokio::sync::mpsc;

/// Datagrams that wait for the router: 40 ms at 200,000 a second.
const MAX_WAITING: usize = 8_192;
/// Keys whose ids are remembered; a fabric has at most 5,000 nodes.
const MAX_IDS: usize = 8_192;

/// Takes datagrams of links.
pub(super) struct Inbox {
    queue: mpsc::Sender<(NodeId, Bytes)>,
    refused: AtomicU64,
    /// Ids are hashes of keys, and packets are many.
    ids: RwLock<BTreeMap<PublicKey, NodeId>>,
}

impl Inbox {
    pub(super) fn new() -> (Arc<Self>, mpsc::Receiver<(NodeId, Bytes)>) {
        let (queue, datagrams) = mpsc::channel(MAX_WAITING);
        (Arc::new(Self { queue, refused: AtomicU64::new(0), ids: RwLock::default() }), datagrams)
    }

    /// How many were dropped since the last call, because too many wait.
    pub(super) fn take_refused(&self) -> u64 {
        self.refused.swap(0, Ordering::Relaxed)
    }

    fn id_of(&self, key: &PublicKey) -> NodeId {
        if let Some(id) = self.ids.read().unwrap_or_else(PoisonError::into_inner).get(key) {
            return *id;
        }
        let id = key.node_id();
        let mut ids = self.ids.write().unwrap_or_else(PoisonError::into_inner);
        if ids.len() >= MAX_IDS {
            ids.clear();
        }
        ids.insert(*key, id);
        id
    }
}

#[async_trait]
impl Handler for Inbox {
    async fn request(&self, _: Option<PeerIdentity>, _: SocketAddr, _: Bytes) -> Result<Bytes, String> {
        Err("links carry datagrams only".to_owned())
    }

    fn datagram(&self, peer: &PeerIdentity, body: Bytes) {
        if self.queue.try_send((self.id_of(&peer.key), body)).is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
    }
}
