//! What can go wrong, in words for the person who has to mend it.

use std::{net::SocketAddr, time::Duration};

use selvedge_fabric::id::{Name, NodeName};

use crate::Alpn;

/// Why credentials cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// No certificate at all.
    #[error("the certificate chain is empty")]
    Empty,
    /// The leaf does not lead to the root.
    #[error("the node's own certificate does not fit its CA: {0}")]
    Chain(String),
    /// The certificate is of another fabric.
    #[error("the node's certificate is of fabric {found}, not {expected}")]
    Fabric {
        /// The fabric of this node.
        expected: Name,
        /// The fabric in the certificate.
        found: Name,
    },
    /// The certificate is of another node.
    #[error("the certificate is that of node {found}, not {expected}")]
    Node {
        /// The name of this node.
        expected: NodeName,
        /// The name in the certificate.
        found: NodeName,
    },
    /// New credentials under another root than the pinned one.
    #[error("the new certificate is under another root than the pinned one")]
    Root,
    /// The key is unreadable or not the certificate's.
    #[error("the node key does not fit its certificate: {0}")]
    Key(String),
}

/// Why the transport could not start.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The port could not be bound.
    #[error("cannot bind UDP {address}: {source}; is another node using the port?")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The node's own credentials are unusable.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The TLS library refused the settings.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
}

/// Why a request brought no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The address book has no address of the node, and it has no connection to us.
    #[error("no address of node {0} is known")]
    Unknown(NodeName),
    /// No connection could be made.
    #[error("cannot connect to {to} for {alpn}: {why}")]
    Connect {
        /// The node, or the address of a seed.
        to: String,
        /// For what.
        alpn: Alpn,
        /// What happened at each address.
        why: String,
    },
    /// The peer was reached but will not have us, or we will not have it.
    #[error("{to} and this node do not accept each other for {alpn}: {why}")]
    NotAdmitted {
        /// The node, or the address of a seed.
        to: String,
        /// For what.
        alpn: Alpn,
        /// The reason of the side that refused.
        why: String,
    },
    /// The handler of the peer refused; its text.
    #[error("{0}")]
    Refused(String),
    /// The connection ended before the answer came; the request may or may not have been handled.
    #[error("the connection to {to} was lost: {why}")]
    Lost {
        /// The node, or the address of a seed.
        to: String,
        /// How it ended.
        why: String,
    },
    /// No answer in time; the request may or may not have been handled.
    #[error("{to} did not answer within {after:?}")]
    Timeout {
        /// The node, or the address of a seed.
        to: String,
        /// The time that was given.
        after: Duration,
    },
    /// The request or the answer is larger than may be sent.
    #[error("a message of {bytes} bytes is too large: the limit is {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The transport was closed.
    #[error("this node is shutting down")]
    Closed,
}
