//! The admitting side: join and renewal requests, answered by any processor.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use selvedge_consensus::{Proposal, ProposeError, Replica};
use selvedge_fabric::{
    UnixMs,
    command::{Admit, Command, JoinToken, Role},
    event::{EventSink, Severity},
    key::{CommandId, Hash},
    policy::PolicyState,
    view::View,
};
use selvedge_transport::{Handler, PeerIdentity, Transport};
use tokio::sync::watch;

use super::{JOIN_VERSION, JoinReply, JoinRequest, RenewReply, RenewRequest, TRY_ANOTHER};
use crate::{clock, events::Events, gate::PolicyGate, identity::Contact, issuer::IssuerSource, pki};

/// Time for an admission to be committed.
const ADMIT_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest join request; a genuine one has under 2 KiB.
const MAX_REQUEST_BYTES: usize = 16 * 1024;
/// Contacts named in an answer: enough to find everybody else through gossip.
const MAX_CONTACTS: usize = 16;
/// Refused joins told as events within [`REFUSALS_WINDOW`]: anybody can ask to join, and must not be able
/// to wash other events out of the ring, or fill the disk with the log.
const MAX_REFUSALS: u32 = 20;
/// See [`MAX_REFUSALS`].
const REFUSALS_WINDOW: Duration = Duration::from_secs(60);

/// Answers join and renewal requests.
pub struct Enroller {
    /// Where admissions are agreed.
    pub replica: Replica,
    /// Who is where.
    pub view: watch::Receiver<Arc<View>>,
    /// The issuing key, when this processor has it.
    pub issuer: Arc<IssuerSource>,
    /// Where refusals are seen.
    pub events: Events,
    /// Lifetime of issued certificates.
    pub lifetime: Duration,
    /// Who may renew.
    pub gate: Arc<PolicyGate>,
    /// This processor, as a new node reaches it.
    pub me: Contact,
    /// Where the addresses of new nodes are noted, until their own records arrive.
    pub transport: Transport,
}

/// Answers the join protocol.
pub struct JoinHandler {
    enroller: Arc<Enroller>,
    refusals: Mutex<Refusals>,
}

/// How many refused joins were told lately.
#[derive(Debug, Default)]
struct Refusals {
    since: Option<Instant>,
    told: u32,
    untold: u32,
}

impl Refusals {
    /// `None`: not to be told. Otherwise how many before this one were not.
    fn admit(&mut self, now: Instant) -> Option<u32> {
        if self.since.is_none_or(|since| now.duration_since(since) >= REFUSALS_WINDOW) {
            *self = Self { since: Some(now), told: 0, untold: self.untold };
        }
        if self.told >= MAX_REFUSALS {
            self.untold = self.untold.saturating_add(1);
            return None;
        }
        self.told += 1;
        Some(std::mem::take(&mut self.untold))
    }
}

impl JoinHandler {
    /// A handler that admits through `enroller`.
    #[must_use]
    pub fn new(enroller: Arc<Enroller>) -> Self {
        Self { enroller, refusals: Mutex::default() }
    }

    fn tell(&self, remote: SocketAddr, reason: &str) {
        let admitted = self.refusals.lock().unwrap_or_else(PoisonError::into_inner).admit(Instant::now());
        let Some(untold) = admitted else { return };
        let more = if untold > 0 { format!(" ({untold} before were not shown)") } else { String::new() };
        let message = format!("{reason}{more}");
        self.enroller.events.emit(Severity::Security, "join-refused", &remote.to_string(), message);
    }
}

/// Answers the renewal protocol.
pub struct RenewHandler(pub Arc<Enroller>);

#[async_trait]
impl Handler for JoinHandler {
    async fn request(
        &self,
        _: Option<PeerIdentity>,
        remote: SocketAddr,
        body: Bytes,
    ) -> Result<Bytes, String> {
        let outcome = self.enroller.join(&body).await;
        if let Err(reason) = &outcome
            && !reason.starts_with(TRY_ANOTHER)
        {
            self.tell(remote, reason);
        }
        outcome
    }
}

#[async_trait]
impl Handler for RenewHandler {
    async fn request(&self, peer: Option<PeerIdentity>, _: SocketAddr, body: Bytes) -> Result<Bytes, String> {
        let peer = peer.ok_or("renewal needs a certificate")?;
        self.0.renew(&peer, &body)
    }
}

impl Enroller {
    async fn join(&self, body: &[u8]) -> Result<Bytes, String> {
        if body.len() > MAX_REQUEST_BYTES {
            return Err(format!("a join request may have at most {MAX_REQUEST_BYTES} bytes"));
        }
        let request: JoinRequest =
            serde_json::from_slice(body).map_err(|e| format!("malformed join request: {e}"))?;
        if request.version != JOIN_VERSION {
            return Err(format!("join protocol {} is not known here, only {JOIN_VERSION}", request.version));
        }
        // Whoever does not even know the fabric's id costs the quorum nothing.
        check_fabric(&self.replica.policy().borrow(), &request)?;
        let policy = self.policy_with(&request).await?;
        check_request(&policy, &request, clock::unix_ms())?;
        let key = pki::csr_key(&request.csr).map_err(|e| format!("signing request: {e}"))?;
        let issuer = self.issuer.get().map_err(|e| format!("{TRY_ANOTHER} {e}"))?;
        let sealed_issuer = match request.role {
            Role::Processor => Some(issuer.seal_to(&request.sealing_key).map_err(|e| e.to_string())?),
            Role::Workload => None,
        };
        let admit = Admit {
            node: request.name.clone(),
            key,
            sealing_key: request.sealing_key,
            role: request.role,
            zone: request.zone.clone(),
            token: Some(request.token),
            sealed_issuer,
        };
        let known = policy.nodes.get(&request.name).is_some_and(|node| node.key == key);
        self.admit(admit).await?;
        if !request.addresses.is_empty() {
            self.transport.book().set(&request.name, request.addresses.clone());
            if request.role == Role::Processor {
                self.replica.introduce(&request.name, &request.addresses).await;
            }
        }
        let certificate = issuer
            .issue(&request.name, request.role, &key, self.lifetime)
            .map_err(|e| format!("{TRY_ANOTHER} {e}"))?;
        self.tell_admitted(&request, known);
        let params = policy.params.clone().ok_or_else(|| format!("{TRY_ANOTHER} no policy here yet"))?;
        let voters =
            self.replica.voters().ok_or_else(|| format!("{TRY_ANOTHER} no voters known here yet"))?;
        let reply =
            JoinReply { params, epoch: voters.epoch, voters, certificate, contacts: self.contacts(&policy) };
        serde_json::to_vec(&reply).map(Bytes::from).map_err(|e| e.to_string())
    }

    /// A node whose answer was lost asks again. So does who recorded its request; that grants nothing, since
    /// the certificate is for the key that asked first, and no use of the token is counted.
    fn tell_admitted(&self, request: &JoinRequest, again: bool) {
        let what = format!("{} in zone {} with token {}", request.role, request.zone, request.token);
        let (severity, code, message) = if again {
            let message = format!("{what}: it was admitted already, with this key, and asked again");
            (Severity::Warning, "join-repeated", message)
        } else {
            (Severity::Info, "node-admitted", what)
        };
        self.events.emit(severity, code, request.name.as_str(), message);
    }

    /// A policy that knows the token, if any does: one made a moment ago on another node may not have
    /// reached this replica yet.
    async fn policy_with(&self, request: &JoinRequest) -> Result<Arc<PolicyState>, String> {
        let policy = self.replica.policy().borrow().clone();
        if policy.join_tokens.contains_key(&request.token) {
            return Ok(policy);
        }
        self.replica
            .barrier(ADMIT_TIMEOUT)
            .await
            .map_err(|e| format!("{TRY_ANOTHER} this processor cannot check the token now: {e}"))?;
        Ok(self.replica.policy().borrow().clone())
    }

    async fn admit(&self, admit: Admit) -> Result<(), String> {
        let proposal = Proposal {
            id: CommandId(rand::random()),
            actor: format!("node:{}", admit.node),
            command: Command::Admit(admit),
        };
        match self.replica.propose(proposal, ADMIT_TIMEOUT).await {
            Ok(_) => Ok(()),
            Err(ProposeError::Refused(refusal)) => Err(refusal.to_string()),
            Err(other) => Err(format!("{TRY_ANOTHER} {other}")),
        }
    }

    fn renew(&self, peer: &PeerIdentity, body: &[u8]) -> Result<Bytes, String> {
        let role = self.gate.role(peer)?;
        let request: RenewRequest =
            serde_json::from_slice(body).map_err(|e| format!("malformed renewal request: {e}"))?;
        let key = pki::csr_key(&request.csr).map_err(|e| format!("signing request: {e}"))?;
        if key != peer.key {
            return Err("a renewal must keep the key; join again for a new one".to_owned());
        }
        let issuer = self.issuer.get().map_err(|e| format!("{TRY_ANOTHER} {e}"))?;
        let certificate = issuer.issue(&peer.node, role, &key, self.lifetime).map_err(|e| e.to_string())?;
        serde_json::to_vec(&RenewReply { certificate }).map(Bytes::from).map_err(|e| e.to_string())
    }

    /// Processors that a new node can talk to: this one, then living ones.
    fn contacts(&self, policy: &PolicyState) -> Vec<Contact> {
        let view = self.view.borrow();
        let others =
            policy.nodes.iter().filter(|(name, a)| a.role == Role::Processor && **name != self.me.name);
        let mut known: Vec<_> = others
            .filter_map(|(name, admission)| {
                let seen = view.nodes.get(name).filter(|n| !n.addresses.is_empty())?;
                let contact = Contact {
                    name: name.clone(),
                    key: admission.key,
                    role: admission.role,
                    fabric: seen.addresses.clone(),
                    gossip: seen.gossip.clone(),
                };
                Some((seen.state, contact))
            })
            .collect();
        known.sort_by(|(a, x), (b, y)| (a, &x.name).cmp(&(b, &y.name)));
        let mut contacts = vec![self.me.clone()];
        contacts.extend(known.into_iter().map(|(_, contact)| contact).take(MAX_CONTACTS - 1));
        contacts
    }
}

/// All that can be said of a request without the quorum.
#[cfg(test)]
pub(super) fn check(policy: &PolicyState, request: &JoinRequest, now_ms: UnixMs) -> Result<(), String> {
    check_fabric(policy, request)?;
    check_request(policy, request, now_ms)
}

fn check_fabric(policy: &PolicyState, request: &JoinRequest) -> Result<(), String> {
    let params = policy.params.as_ref().ok_or_else(|| format!("{TRY_ANOTHER} no policy here yet"))?;
    if params.id == request.fabric {
        return Ok(());
    }
    // Its id stays unsaid: whoever knows it has seen a token.
    Err(format!("this is fabric {}, the token is of another", params.name))
}

/// Checks what can be checked before anything is agreed. The count of uses is exact only in the state
/// machine, which checks again.
fn check_request(policy: &PolicyState, request: &JoinRequest, now_ms: UnixMs) -> Result<(), String> {
    let token = policy.join_tokens.get(&request.token);
    let token = token.ok_or_else(|| format!("token {} is unknown or revoked", request.token))?;
    if token.secret_hash != Hash::of(&request.secret) {
        return Err(format!("wrong secret for token {}", request.token));
    }
    check_token(token, request, now_ms)
}

fn check_token(token: &JoinToken, request: &JoinRequest, now_ms: UnixMs) -> Result<(), String> {
    if token.not_after_ms <= now_ms {
        return Err(format!("token {} has expired: make a new one with `selvedge token join`", token.id));
    }
    if token.role != request.role {
        return Err(format!("token {} admits a {}, not a {}", token.id, token.role, request.role));
    }
    if token.zone != request.zone {
        return Err(format!("token {} admits to zone {}, not {}", token.id, token.zone, request.zone));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refused_joins_is_told_in_part_and_counted() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        let told = (0..1_000).filter(|_| refusals.admit(start).is_some()).count();
        assert_eq!(told, MAX_REFUSALS as usize);
        assert_eq!(refusals.admit(start + REFUSALS_WINDOW), Some(1_000 - MAX_REFUSALS));
        assert_eq!(refusals.admit(start + REFUSALS_WINDOW), Some(0));
    }
}
