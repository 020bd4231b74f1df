//! The join token: everything that a machine needs to become a node.

use std::{fmt, net::SocketAddr, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{Secret, TokenError, TokenKind, check_not_after, text};
use crate::{
    UnixMs,
    command::Role,
    id::{Name, ZoneName},
    key::{FabricId, Hash, TokenId},
};

/// Most seeds in a join token: enough for one in each of a few clouds, and the text stays easy to paste.
pub const MAX_SEEDS: usize = 8;
/// Longest host name of a seed, in bytes (RFC 1035).
const MAX_HOST_BYTES: usize = 253;

/// Where a joining node asks: an address or a host name, with the port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Seed {
    /// An address.
    Address(SocketAddr),
    /// A host name, to be resolved by the joining machine.
    Host {
        /// The name.
        name: String,
        /// The port.
        port: u16,
    },
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Host { name, port } => write!(f, "{name}:{port}"),
        }
    }
}

impl FromStr for Seed {
    type Err = String;

    /// Takes `192.0.2.1:7401`, `[2001:db8::1]:7401` or `host.example:7401`.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let bad = || format!("{text:?} is no seed; write host.example:7401 or 192.0.2.1:7401");
        let (name, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let fits = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_');
        // A last label of digits only is an address that went wrong, such as 10.0.0.300.
        let number = name.rsplit('.').next().is_none_or(|last| last.bytes().all(|c| c.is_ascii_digit()));
        if name.len() > MAX_HOST_BYTES || number || !name.bytes().all(fits) {
            return Err(bad());
        }
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(bad)?;
        Ok(Self::Host { name: name.to_ascii_lowercase(), port })
    }
}

/// A join token as its holder has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinTokenText {
    /// The fabric.
    pub fabric: FabricId,
    /// Its name, the trust domain of its SPIFFE ids.
    pub fabric_name: Name,
    /// SHA-256 of the root certificate, DER: a seed whose chain does not end in it is not the fabric.
    pub ca_pin: Hash,
    /// Where to ask, at most [`MAX_SEEDS`].
    pub seeds: Vec<Seed>,
    /// The role it admits to.
    pub role: Role,
    /// The zone it admits to.
    pub zone: ZoneName,
    /// When it ends.
    pub not_after_ms: UnixMs,
    /// Its id.
    pub id: TokenId,
    /// The secret, of which intent holds the hash.
    pub secret: Secret,
}

impl JoinTokenText {
    /// Reads the text of a join token.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let token: Self = text::decode(TokenKind::Join, text)?;
        let damaged = |why| TokenError::Damaged { kind: TokenKind::Join, why };
        if token.seeds.is_empty() || token.seeds.len() > MAX_SEEDS {
            return Err(damaged("it has no seeds, or too many"));
        }
        // A seed's text goes into logs and to the resolver.
        let well_formed = |seed: &Seed| seed.to_string().parse().as_ref() == Ok(seed);
        if !token.seeds.iter().all(well_formed) {
            return Err(damaged("a seed in it is malformed"));
        }
        Ok(token)
    }

    /// The text, secret included.
    ///
    /// # Errors
    /// When it has no seeds, or too many, or would be too long.
    pub fn expose(&self) -> Result<String, TokenError> {
        if self.seeds.is_empty() || self.seeds.len() > MAX_SEEDS {
            let why = format!("it has {} seeds; it needs 1 to {MAX_SEEDS}", self.seeds.len());
            return Err(TokenError::TooLong { kind: TokenKind::Join, why });
        }
        text::encode(TokenKind::Join, self)
    }

    /// Checks that the token has not ended.
    ///
    /// # Errors
    /// [`TokenError::Expired`].
    pub fn check(&self, now_ms: UnixMs) -> Result<(), TokenError> {
        check_not_after(TokenKind::Join, self.not_after_ms, now_ms)
    }
}
