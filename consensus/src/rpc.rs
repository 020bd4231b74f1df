//! What carries requests between replicas: [`selvedge_transport`] in a node, a virtual network in tests.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use selvedge_fabric::id::NodeName;

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// It was never sent: the peer has certainly not seen it.
    #[error("{0}")]
    NotSent(String),
    /// It may have been seen and acted on, and no answer came.
    #[error("{0}")]
    NoAnswer(String),
    /// The peer refused to handle it.
    #[error("{0}")]
    Refused(String),
}

/// Sends requests to other replicas.
#[async_trait]
pub trait Rpc: Send + Sync + 'static {
    /// Sends `body` to `to` and returns the answer, within `timeout`.
    ///
    /// # Errors
    /// [`RpcError`], which tells whether the peer may have seen it.
    async fn request(&self, to: &NodeName, body: Bytes, timeout: Duration) -> Result<Bytes, RpcError>;

    /// Where `node` was last known to be; the log carries it for cold starts.
    fn addresses(&self, node: &NodeName) -> Vec<std::net::SocketAddr>;

    /// Tells where `node` was when the log last said so; what the carrier knows already wins.
    fn suggest(&self, node: &NodeName, addresses: &[std::net::SocketAddr]);

    /// Nodes that can be asked, although the log does not name them yet.
    fn acquaintances(&self) -> Vec<NodeName>;
}
