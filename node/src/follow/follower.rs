//! The verified policy of a workload node, in memory and on disk.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use selvedge_consensus::{ProposeError, QuorumStatus, Replicant};
use selvedge_fabric::{
    Epoch, Revision,
    id::NodeName,
    key::PublicKey,
    policy::PolicyState,
    statement::{Bundle, BundleError, Trusted, Verified, verify},
};
use selvedge_transport::{Alpn, Transport};
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::Instant};

use super::{Answer, Ask, QuorumWord, decode, encode};
use crate::{
    files::{self, FileError},
    identity::Identity,
};

/// Version of the file, its first byte.
const FILE_VERSION: u8 = 1;
/// What a processor said of the quorum is worth this long.
pub(super) const WORD_HOLDS: Duration = Duration::from_secs(10);

/// Why a node cannot follow, or does not take what it was given.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The identity is of a version that did not learn the voters when it joined.
    #[error("{0} does not say which voters to trust: move the data directory away and join again")]
    NoVoters(PathBuf),
    /// The bundle proves nothing.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// It cannot be kept on disk.
    #[error(transparent)]
    File(#[from] FileError),
}

/// The newest bundle as it is kept on disk.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// Trusted when it was taken, which is what the bundle is verified by again.
    trusted: Trusted,
    /// Without a chain: it starts at the trusted voters.
    bundle: Bundle,
}

impl Kept {
    fn encode(&self) -> Result<Vec<u8>, BundleError> {
        postcard::to_extend(self, vec![FILE_VERSION]).map_err(|e| BundleError::Malformed(e.to_string()))
    }
}

/// Follows the policy. The tasks that do are in [`super::poll`].
pub struct Follower {
    me: NodeName,
    path: PathBuf,
    /// As the node learned it when it joined; otherwise its policy says it.
    recovery_key: Option<PublicKey>,
    trusted: Mutex<Trusted>,
    policy: watch::Sender<Arc<PolicyState>>,
    status: watch::Sender<Arc<QuorumStatus>>,
    heard: Mutex<Option<(Instant, NodeName)>>,
    transport: OnceLock<Transport>,
}

impl Follower {
    /// Opens what is on disk. The second value says why the copy there is not used, if it is not: the
    /// node then starts as if it had just joined.
    ///
    /// # Errors
    /// When the identity does not say whom to trust, or the disk cannot be read.
    pub fn open(identity: &Identity, path: PathBuf) -> Result<(Self, Option<String>), FollowError> {
        let voters = identity.voters.clone().ok_or_else(|| FollowError::NoVoters(path.clone()))?;
        let mut trusted = Trusted { fabric: identity.fabric_id, epoch: identity.epoch, voters };
        let (mut policy, mut problem) = (PolicyState::default(), None);
        if let Some(bytes) = files::read_optional(&path)? {
            match read(&bytes, &trusted) {
                Ok((kept, verified)) => (trusted, policy) = (kept, verified.policy),
                Err(why) => problem = Some(format!("{}: {why}; the policy is fetched again", path.display())),
            }
        }
        let status = QuorumStatus { fence_epoch: trusted.epoch, ..QuorumStatus::default() };
        let follower = Self {
            me: identity.node.clone(),
            path,
            recovery_key: identity.recovery_key,
            trusted: Mutex::new(trusted),
            policy: watch::Sender::new(Arc::new(policy)),
            status: watch::Sender::new(Arc::new(status)),
            heard: Mutex::default(),
            transport: OnceLock::new(),
        };
        Ok((follower, problem))
    }

    /// The newest verified policy.
    #[must_use]
    pub fn policy(&self) -> watch::Receiver<Arc<PolicyState>> {
        self.policy.subscribe()
    }

    /// How writes fare, by the word of the processor that this node follows.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Arc<QuorumStatus>> {
        self.status.subscribe()
    }

    pub(super) const fn me(&self) -> &NodeName {
        &self.me
    }

    fn trusted(&self) -> MutexGuard<'_, Trusted> {
        self.trusted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn revision(&self) -> Revision {
        self.policy.borrow().revision
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.trusted().epoch
    }

    pub(super) fn voter_sequence(&self) -> u64 {
        self.trusted().voters.sequence
    }

    pub(super) fn use_transport(&self, transport: Transport) {
        // Set once, by the task that polls.
        let _ = self.transport.set(transport);
    }

    /// Verifies a bundle, keeps it on disk, and then publishes its policy.
    ///
    /// # Errors
    /// [`FollowError::Bundle`] when it is refused, and nothing of it is used. [`FollowError::File`] when
    /// it is in force but not kept: a full disk must not hold up a revocation.
    pub async fn take(&self, bytes: Vec<u8>) -> Result<Revision, FollowError> {
        let trusted = self.trusted().clone();
        let (have, path) = (self.revision(), self.path.clone());
        let of_policy = self.policy.borrow().params.as_ref().map(|params| params.recovery_key);
        let key = of_policy.or(self.recovery_key);
        let taking = tokio::task::spawn_blocking(move || take(&bytes, trusted, key, have, &path));
        // A task that was cut short means that the process ends.
        let Ok(taken) = taking.await else { return Ok(have) };
        let Taken { trusted, policy, stored } = taken?;
        let revision = policy.revision;
        *self.trusted() = trusted;
        self.policy.send_if_modified(|now| {
            let newer = policy != **now;
            *now = Arc::new(policy);
            newer
        });
        stored?;
        Ok(revision)
    }

    /// Takes over what a processor says of the quorum.
    pub(super) fn heard(&self, from: &NodeName, word: &QuorumWord) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), from.clone()));
        self.publish(word);
    }

    /// Whether a processor answered lately. When none did, whether writes fare is not known.
    pub(super) fn note_silence(&self) {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if heard.is_none_or(|(at, _)| at.elapsed() > WORD_HOLDS) {
            self.publish(&QuorumWord::default());
        }
    }

    fn publish(&self, word: &QuorumWord) {
        let policy = self.policy.borrow().clone();
        let trusted = self.trusted().clone();
        let voters = policy.nodes.iter().filter(|(_, a)| trusted.voters.voters.contains(&a.key));
        let voters = voters.map(|(name, admission)| Replicant {
            name: name.clone(),
            zone: Some(admission.zone.clone()),
            live: word.quorum && !word.missing.contains(name),
        });
        let status = QuorumStatus {
            leader: word.leader.clone(),
            term: word.term,
            voters: voters.collect(),
            survives: word.survives.clone(),
            fence_epoch: trusted.epoch,
            quorum: word.quorum,
            ..QuorumStatus::default()
        };
        self.status.send_if_modified(|now| {
            let news = **now != status;
            *now = Arc::new(status);
            news
        });
    }

    /// Asks the processor that is followed how new a linearizable read must be, and waits for that.
    pub(super) async fn barrier(&self, timeout: Duration) -> Result<Revision, ProposeError> {
        let alone = || ProposeError::NoQuorum {
            missing: Vec::new(),
            remedy: "this workload node reaches no processor that has a quorum: ask a processor itself"
                .to_owned(),
        };
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (Some((_, processor)), Some(transport)) = (heard, self.transport.get()) else {
            return Err(alone());
        };
        let deadline = Instant::now() + timeout;
        let within_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let ask = encode(&Ask::Barrier { within_ms });
        let answer = transport.request(&processor, Alpn::Fabric, ask.into(), timeout).await;
        let answer = answer.map_err(|_| alone())?;
        let Ok(Answer::Barrier(revision)) = decode(&answer) else { return Err(alone()) };
        let mut policy = self.policy.subscribe();
        let waited = tokio::time::timeout_at(deadline, policy.wait_for(|p| p.revision >= revision)).await;
        match waited {
            Ok(Ok(policy)) => Ok(policy.revision),
            _ => Err(alone()),
        }
    }
}

/// A policy that was proved, and whether it is on disk.
struct Taken {
    trusted: Trusted,
    policy: PolicyState,
    stored: Result<(), FileError>,
}

/// Verifies and stores. Blocks on the disk and on signatures.
fn take(
    bytes: &[u8],
    mut trusted: Trusted,
    recovery_key: Option<PublicKey>,
    have: Revision,
    path: &Path,
) -> Result<Taken, FollowError> {
    let mut bundle = Bundle::decode(bytes)?;
    let Verified { policy, voters } = verify(&bundle, &trusted, recovery_key.as_ref(), have)?;
    trusted.epoch = voters.epoch;
    trusted.voters = voters;
    bundle.chain.clear();
    bundle.recovery = None;
    let kept = Kept { trusted, bundle };
    let file = kept.encode()?;
    let stored = files::write_private(path, &file);
    Ok(Taken { trusted: kept.trusted, policy, stored })
}

/// Reads the copy on disk: of this fabric, not older than the identity, and as good as on the day it
/// was taken.
pub(super) fn read(bytes: &[u8], joined: &Trusted) -> Result<(Trusted, Verified), String> {
    let Some((&FILE_VERSION, body)) = bytes.split_first() else {
        return Err("not a policy copy that this version knows".to_owned());
    };
    let kept: Kept = postcard::from_bytes(body).map_err(|e| format!("damaged: {e}"))?;
    let Kept { trusted, bundle } = kept;
    if trusted.fabric != joined.fabric || trusted.epoch < joined.epoch {
        return Err("of another fabric or an older epoch".to_owned());
    }
    if trusted.epoch == joined.epoch && trusted.voters.sequence < joined.voters.sequence {
        return Err("older than when this node joined".to_owned());
    }
    let verified = verify(&bundle, &trusted, None, 0).map_err(|e| e.to_string())?;
    Ok((trusted, verified))
}

/// The file that a node which trusts `trusted` keeps of `bundle`.
#[cfg(test)]
pub(super) fn keep(trusted: &Trusted, bundle: &Bundle) -> Vec<u8> {
    Kept { trusted: trusted.clone(), bundle: bundle.clone() }.encode().expect("encodes")
}
