//! The common shape of token texts: prefix, version, fields, checksum.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Serialize, de::DeserializeOwned};

use super::{MAX_TOKEN_CHARS, TokenError, TokenKind};
use crate::key::Hash;

/// Version of the format; the first byte within the base64url.
const VERSION: u8 = 1;
/// Bytes of the checksum. It catches slips; against forgery the secret stands.
const CHECKSUM_BYTES: usize = 4;

pub(super) fn encode<T: Serialize>(kind: TokenKind, token: &T) -> Result<String, TokenError> {
    let too_long = |why: String| TokenError::TooLong { kind, why };
    let mut bytes = vec![VERSION];
    bytes.extend(postcard::to_allocvec(token).map_err(|e| too_long(e.to_string()))?);
    bytes.extend(checksum(kind, &bytes));
    let text = format!("{}{}", kind.prefix(), URL_SAFE_NO_PAD.encode(bytes));
    if text.len() > MAX_TOKEN_CHARS {
        return Err(too_long(format!("{} characters; the most is {MAX_TOKEN_CHARS}", text.len())));
    }
    Ok(text)
}

pub(super) fn decode<T: DeserializeOwned>(kind: TokenKind, text: &str) -> Result<T, TokenError> {
    let damaged = |why| TokenError::Damaged { kind, why };
    let text = text.trim();
    let Some(body) = text.strip_prefix(kind.prefix()) else {
        let found = TokenKind::ALL.into_iter().find(|found| text.starts_with(found.prefix()));
        return Err(match found {
            Some(found) => TokenError::WrongKind { expected: kind, found },
            None => TokenError::NoToken { expected: kind },
        });
    };
    if text.len() > MAX_TOKEN_CHARS {
        return Err(damaged("it is too long"));
    }
    if body.contains(char::is_whitespace) {
        return Err(damaged("it has a line break or space in it"));
    }
    let bytes = URL_SAFE_NO_PAD.decode(body).map_err(|e| {
        use base64::DecodeError;
        damaged(match e {
            DecodeError::InvalidByte(..) => "it has a character that no token has",
            DecodeError::InvalidLength(_)
            | DecodeError::InvalidLastSymbol(..)
            | DecodeError::InvalidPadding => "characters are missing at its end",
        })
    })?;
    let split = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or_else(|| damaged("it is too short"))?;
    let (content, sum) = bytes.split_at(split);
    if checksum(kind, content) != sum {
        return Err(damaged("its checksum is wrong: characters are missing or mistyped"));
    }
    match content.split_first() {
        Some((&VERSION, fields)) => {
            let (token, rest) =
                postcard::take_from_bytes(fields).map_err(|_| damaged("its fields are malformed"))?;
            if rest.is_empty() { Ok(token) } else { Err(damaged("it has more than its fields")) }
        }
        Some((&found, _)) => Err(TokenError::Version { kind, found }),
        None => Err(damaged("it is too short")),
    }
}

/// Over the kind too, so that a changed prefix is noticed.
fn checksum(kind: TokenKind, content: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = Hash::of(&[kind.prefix().as_bytes(), content].concat());
    std::array::from_fn(|i| hash.0[i])
}
