//! The joining side.

use std::{net::SocketAddr, time::Duration};

use selvedge_fabric::{
    UnixMs,
    command::Role,
    id::{NodeName, ZoneName},
    key::PublicKey,
    token::{JoinTokenText, TokenError},
};

use super::{JOIN_VERSION, JoinReply, JoinRequest};

/// Time for one seed to answer. Admission needs a commit, so it is longer than an election.
const SEED_TIMEOUT: Duration = Duration::from_secs(8);
/// Rounds through all seeds before joining fails.
const ROUNDS: u32 = 15;
/// Pause between two rounds.
const PAUSE: Duration = Duration::from_secs(2);

/// Why a node cannot join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The token has ended; no seed was asked.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The token is for something else.
    #[error(
        "the join token is for {token}, but the configuration says {config}: make a matching token, or change the configuration"
    )]
    Mismatch {
        /// What the token admits to.
        token: String,
        /// What was configured.
        config: String,
    },
    /// A seed name that resolves to nothing.
    #[error("no seed address can be used: {0}")]
    NoSeeds(String),
    /// A seed refused; asking others would give the same answer.
    #[error("refused by {seed}: {reason}")]
    Refused {
        /// Who refused.
        seed: SocketAddr,
        /// Why.
        reason: String,
    },
    /// No seed admitted this node, and none refused it for good.
    #[error(
        "no seed admitted this node ({0}): check that one of them runs, that UDP to it is open, and that it is of the token's fabric"
    )]
    Unreachable(String),
    /// An answer that makes no sense.
    #[error("{seed} answered nonsense: {why}")]
    Nonsense {
        /// Who.
        seed: SocketAddr,
        /// What is wrong.
        why: String,
    },
}

/// What a node brings to join.
pub struct Joining<'a> {
    /// The token.
    pub token: &'a JoinTokenText,
    /// Seeds to try; those of the token, when empty.
    pub seeds: &'a [String],
    /// The name it wants.
    pub name: NodeName,
    /// PKCS #10 request for its key.
    pub csr: Vec<u8>,
    /// Where secrets for it are sealed to.
    pub sealing_key: PublicKey,
    /// Where its fabric port is reached.
    pub addresses: Vec<SocketAddr>,
}

/// Checks that the token admits to `role` and `zone`, where they are configured, and has not ended.
///
/// # Errors
/// When it does not.
pub fn check_token(
    token: &JoinTokenText,
    role: Option<Role>,
    zone: Option<&ZoneName>,
    now_ms: UnixMs,
) -> Result<(), JoinError> {
    token.check(now_ms)?;
    let mismatch = |token: String, config: String| Err(JoinError::Mismatch { token, config });
    match (role, zone) {
        (Some(role), _) if role != token.role => mismatch(format!("a {}", token.role), format!("a {role}")),
        (_, Some(zone)) if *zone != token.zone => {
            mismatch(format!("zone {}", token.zone), format!("zone {zone}"))
        }
        _ => Ok(()),
    }
}

/// Joins through the first seed that answers, trying them in turn for about half a minute.
///
/// # Errors
/// When a seed refuses, or none answers.
pub async fn join(joining: &Joining<'_>) -> Result<JoinReply, JoinError> {
    let request = request(joining);
    let mut problems = Vec::new();
    for round in 0..ROUNDS {
        if round > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        problems.clear();
        for seed in resolve(joining, &mut problems).await {
            match ask(seed, joining.token, &request).await {
                Ok(reply) => return Ok(reply),
                Err(Attempt::Final(error)) => return Err(error),
                Err(Attempt::Next(why)) => problems.push(format!("{seed}: {why}")),
            }
        }
        tracing::warn!(round, problems = problems.join("; "), "no seed admitted this node yet");
    }
    Err(JoinError::Unreachable(problems.join("; ")))
}

fn request(joining: &Joining<'_>) -> JoinRequest {
    let token = joining.token;
    JoinRequest {
        version: JOIN_VERSION,
        fabric: token.fabric,
        token: token.id,
        secret: token.secret.expose().to_vec(),
        name: joining.name.clone(),
        role: token.role,
        zone: token.zone.clone(),
        csr: joining.csr.clone(),
        sealing_key: joining.sealing_key,
        addresses: joining.addresses.clone(),
    }
}

/// Why one seed did not admit us.
enum Attempt {
    /// No other seed would.
    Final(JoinError),
    /// Another seed may.
    Next(String),
}

async fn ask(seed: SocketAddr, token: &JoinTokenText, request: &JoinRequest) -> Result<JoinReply, Attempt> {
    let body = serde_json::to_vec(request).map_err(|e| Attempt::Next(e.to_string()))?;
    let reply = selvedge_transport::join_request(seed, &token.ca_pin, body.into(), SEED_TIMEOUT).await;
    let bytes = match reply {
        Ok(bytes) => bytes,
        Err(selvedge_transport::RequestError::Refused(reason)) => return Err(refused(seed, reason)),
        Err(other) => return Err(Attempt::Next(other.to_string())),
    };
    let nonsense = |why: String| Attempt::Final(JoinError::Nonsense { seed, why });
    serde_json::from_slice(&bytes).map_err(|e| nonsense(e.to_string()))
}

/// Refusals that start with [`super::TRY_ANOTHER`] concern the seed, the others concern us.
fn refused(seed: SocketAddr, reason: String) -> Attempt {
    match reason.strip_prefix(super::TRY_ANOTHER) {
        Some(why) => Attempt::Next(why.trim().to_owned()),
        None => Attempt::Final(JoinError::Refused { seed, reason }),
    }
}

/// The seeds' addresses; names are looked up anew in each round.
async fn resolve(joining: &Joining<'_>, problems: &mut Vec<String>) -> Vec<SocketAddr> {
    let from_token = || joining.token.seeds.iter().map(ToString::to_string).collect();
    let names: Vec<String> = if joining.seeds.is_empty() { from_token() } else { joining.seeds.to_vec() };
    let mut addresses = Vec::new();
    for name in &names {
        match tokio::net::lookup_host(name.as_str()).await {
            Ok(found) => addresses.extend(found),
            Err(error) => problems.push(format!("{name}: {error}")),
        }
    }
    addresses
}
