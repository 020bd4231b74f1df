//! Tokens as text: what people paste.
//!
//! A token is `selvedge-<kind>-<base64url>`: the prefix lets secret scanners find one that was committed
//! by accident, and lets us say that a join token was pasted where a service token belongs. The base64url
//! holds a version byte, the postcard encoding of the fields, and the first four bytes of the SHA-256 of
//! both, so that a truncated or mistyped paste is named as such and not as a wrong secret.
//!
//! The text is the only place where a secret is written out, and only by `expose()`: `Debug` and
//! `Display` of these types never show it.

mod join;
mod secret;
#[cfg(test)]
mod tests;
mod text;

use serde::{Deserialize, Serialize};

pub use join::{JoinTokenText, MAX_SEEDS, Seed};
pub use secret::Secret;

use crate::{
    UnixMs,
    id::ServiceRef,
    key::{FabricId, Hash, TokenId},
};

/// Longest text of a token, in characters: join tokens carry a few seeds, see [`MAX_SEEDS`].
pub const MAX_TOKEN_CHARS: usize = 1_024;

/// The kinds of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// Admits a node.
    Join,
    /// Proves an endpoint's service.
    Service,
    /// Speaks to the API.
    Api,
}

impl TokenKind {
    /// Every kind.
    const ALL: [Self; 3] = [Self::Join, Self::Service, Self::Api];

    /// What its text starts with.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Join => "selvedge-join-",
            Self::Service => "selvedge-service-",
            Self::Api => "selvedge-api-",
        }
    }

    fn with_article(self) -> String {
        let article = if self == Self::Api { "an" } else { "a" };
        format!("{article} {self}")
    }
}

impl std::fmt::Display for TokenKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Join => "join token",
            Self::Service => "service token",
            Self::Api => "API token",
        })
    }
}

/// Why a text is not the token that was expected. Never holds the text: it may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not start like any token.
    #[error("this is no token: {} starts with {}", expected.with_article(), expected.prefix())]
    NoToken {
        /// What was expected.
        expected: TokenKind,
    },
    /// It is a token for something else.
    #[error("this is {}, but {} is needed here", found.with_article(), expected.with_article())]
    WrongKind {
        /// What was expected.
        expected: TokenKind,
        /// What it is.
        found: TokenKind,
    },
    /// Characters are missing or wrong.
    #[error("the {kind} is damaged ({why}): copy it again, whole")]
    Damaged {
        /// What it is meant to be.
        kind: TokenKind,
        /// What is wrong.
        why: &'static str,
    },
    /// A newer version made it.
    #[error("the {kind} was made by a newer version (format {found}): use that version here too")]
    Version {
        /// What it is.
        kind: TokenKind,
        /// Its format.
        found: u8,
    },
    /// Its time is over.
    #[error("the {kind} expired at {}: make a new one (selvedge token {})", crate::manifest::format_instant(*not_after_ms), command(*kind))]
    Expired {
        /// What it is.
        kind: TokenKind,
        /// When it ended.
        not_after_ms: UnixMs,
    },
    /// It holds more than a token may.
    #[error("the {kind} cannot be made: {why}")]
    TooLong {
        /// What was to be made.
        kind: TokenKind,
        /// What there is too much of.
        why: String,
    },
}

const fn command(kind: TokenKind) -> &'static str {
    match kind {
        TokenKind::Join => "join",
        TokenKind::Service => "service",
        TokenKind::Api => "admin",
    }
}

fn check_not_after(kind: TokenKind, not_after_ms: UnixMs, now_ms: UnixMs) -> Result<(), TokenError> {
    if not_after_ms > now_ms { Ok(()) } else { Err(TokenError::Expired { kind, not_after_ms }) }
}

/// A service token as its holder has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceTokenText {
    /// The fabric it belongs to.
    pub fabric: FabricId,
    /// The service that it proves.
    pub service: ServiceRef,
    /// Its id.
    pub id: TokenId,
    /// The Ed25519 seed (RFC 8032) whose public half is intent.
    pub seed: Secret,
    /// When it ends.
    pub not_after_ms: UnixMs,
}

impl ServiceTokenText {
    /// Reads the text of a service token.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        text::decode(TokenKind::Service, text)
    }

    /// The text, secret included.
    ///
    /// # Errors
    /// Never for a token whose service has valid names.
    pub fn expose(&self) -> Result<String, TokenError> {
        text::encode(TokenKind::Service, self)
    }

    /// Checks that the token has not ended.
    ///
    /// # Errors
    /// [`TokenError::Expired`].
    pub fn check(&self, now_ms: UnixMs) -> Result<(), TokenError> {
        check_not_after(TokenKind::Service, self.not_after_ms, now_ms)
    }

    /// The key pair that proves endpoints.
    #[must_use]
    pub fn signing_key(&self) -> ed25519_dalek::SigningKey {
        ed25519_dalek::SigningKey::from_bytes(self.seed.expose())
    }
}

/// An API token as its holder has it, and as the `Authorization` header carries it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiTokenText {
    /// Its id.
    pub id: TokenId,
    /// The secret, of which intent holds the hash.
    pub secret: Secret,
}

impl ApiTokenText {
    /// Reads the text of an API token.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        text::decode(TokenKind::Api, text)
    }

    /// The text, secret included.
    ///
    /// # Errors
    /// Never: an API token has a fixed length.
    pub fn expose(&self) -> Result<String, TokenError> {
        text::encode(TokenKind::Api, self)
    }

    /// The hash of the secret, as intent holds it.
    #[must_use]
    pub fn secret_hash(&self) -> Hash {
        self.secret.hash()
    }
}
