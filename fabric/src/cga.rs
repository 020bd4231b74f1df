//! Cryptographically generated addresses (RFC 3972).

use serde::{Deserialize, Serialize};

/// The parameters of a CGA besides subnet prefix and public key (RFC 3972, section 3).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CgaParams {
    /// The modifier: random, or found so that Hash2 has the zeros that Sec demands.
    pub modifier: [u8; 16],
    /// 0, 1 or 2: how often the address was taken already.
    pub collision_count: u8,
}
