//! A replica on the node's own transport.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use selvedge_fabric::{
    event::EventSink,
    id::NodeName,
    key::{FabricId, PublicKey, Signer},
};
use selvedge_transport::{Alpn, Handler, PeerIdentity, RequestError, Transport};
use tokio::sync::watch;

use crate::{
    core::Peers,
    replica::{OpenError, Replica, Settings, Shared},
    rpc::{Rpc, RpcError},
    serve,
    timers::Timers,
};

/// What a replica of a node needs.
pub struct Options {
    /// Where it keeps its data; nobody else writes there.
    pub dir: PathBuf,
    /// The name of this node.
    pub me: NodeName,
    /// The node key; its public half makes the id under which this replica votes.
    pub signer: Arc<dyn Signer>,
    /// The fabric and its recovery key, as far as they are known without a policy.
    pub anchor: Option<(FabricId, PublicKey)>,
    /// Carries the requests, under [`Alpn::Raft`].
    pub transport: Transport,
    /// What failure detection says; placement of voters follows it. May stay empty: then Raft judges by
    /// what it hears itself.
    pub liveness: watch::Receiver<Arc<Peers>>,
    /// Times and limits.
    pub timers: Timers,
    /// Where events go.
    pub events: Arc<dyn EventSink>,
}

impl Replica {
    /// Opens the replica on disk, registers it with the transport and starts it.
    ///
    /// Needs nobody else: the policy that this replica last knew to be committed is published when it
    /// returns.
    ///
    /// # Errors
    /// When the directory is damaged, foreign, in use or not writable.
    pub async fn open(options: Options) -> Result<Self, OpenError> {
        let Options { dir, me, signer, anchor, transport, liveness, timers, events } = options;
        let (key, seed) = (signer.public_key(), rand::random());
        let settings = Settings { dir, me, key, anchor, liveness, timers, events, seed };
        let carrier = Arc::new(Carrier(transport.clone()));
        let replica = Self::open_over(settings, carrier).await?;
        replica.attest(signer);
        transport.handle(Alpn::Raft, Arc::new(Door(Arc::downgrade(&replica.shared))));
        Ok(replica)
    }
}

/// Requests to others.
struct Carrier(Transport);

#[async_trait]
impl Rpc for Carrier {
    async fn request(&self, to: &NodeName, body: Bytes, timeout: Duration) -> Result<Bytes, RpcError> {
        self.0.request(to, Alpn::Raft, body, timeout).await.map_err(|error| {
            let text = error.to_string();
            match error {
                RequestError::Unknown(_)
                | RequestError::Connect { .. }
                | RequestError::NotAdmitted { .. } => RpcError::NotSent(text),
                RequestError::Refused(_) => RpcError::Refused(text),
                // This node may be closing while a request of it is under way.
                RequestError::Closed
                | RequestError::Lost { .. }
                | RequestError::Timeout { .. }
                | RequestError::TooLarge { .. } => RpcError::NoAnswer(text),
            }
        })
    }

    fn addresses(&self, node: &NodeName) -> Vec<SocketAddr> {
        let known = self.0.book().get(node);
        let own = node == self.0.me() && known.is_empty() && !self.0.local_addr().ip().is_unspecified();
        if own { vec![self.0.local_addr()] } else { known }
    }

    fn suggest(&self, node: &NodeName, addresses: &[SocketAddr]) {
        if self.0.book().get(node).is_empty() {
            self.0.book().set(node, addresses.to_vec());
        }
    }

    fn acquaintances(&self) -> Vec<NodeName> {
        self.0.book().names()
    }
}

/// Requests of others. The transport outlives the replica, so it must not keep it alive.
struct Door(Weak<Shared>);

#[async_trait]
impl Handler for Door {
    async fn request(
        &self,
        peer: Option<PeerIdentity>,
        _remote: SocketAddr,
        body: Bytes,
    ) -> Result<Bytes, String> {
        let peer = peer.ok_or("a replica must show a certificate")?;
        let shared = self.0.upgrade().ok_or("the replica of this node has stopped")?;
        let answer = serve::serve(&shared, peer.key.node_id().0, &peer.node, &body).await;
        answer.map(Bytes::from).map_err(|e| e.to_string())
    }
}
