//! Nodes: the first one, admission, states, removal.

use super::{Admission, FabricParams, PolicyState, Removed, apply::Done};
use crate::{
    UnixMs,
    address::Ipv4Pool,
    command::{AdmissionState, Admit, ChangeAction, Limits, Refusal, Role, SealedSecret},
    id::{Name, NodeName},
};

/// Longest DNS suffix, in bytes: leaves room for two labels before it (RFC 1035, section 2.3.4).
const MAX_SUFFIX_BYTES: usize = 120;

fn refuse<T>(message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Node(message.into()))
}

impl PolicyState {
    pub(super) fn init(
        &mut self,
        params: &FabricParams,
        first: &Admit,
        now_ms: UnixMs,
    ) -> Result<Done, Refusal> {
        check_params(params).map_err(Refusal::Lifecycle)?;
        if first.role != Role::Processor {
            return refuse(format!("the first node of a fabric must be a processor, {} is none", first.node));
        }
        let pool = Ipv4Pool::of(params).map_err(|e| Refusal::Lifecycle(e.to_string()))?;
        let block = self.free_block(&pool)?;
        self.params = Some(params.clone());
        self.insert_node(first, block, now_ms);
        let what = format!("Fabric {}", params.name);
        Ok(Done::one(ChangeAction::Created, what, format!("fabric made, first node {}", first.node)))
    }

    pub(super) fn admit(&mut self, admit: &Admit, now_ms: UnixMs) -> Result<Done, Refusal> {
        if self.is_rejoin(admit)? {
            // The reply to an earlier join was lost. Nothing is granted, so no use of the token counts.
            return Ok(self.store_seal(admit));
        }
        let token = admit.token.ok_or_else(|| Refusal::Token(format!("{} has no join token", admit.node)))?;
        self.check_join_token(token, admit, now_ms)?;
        if self.nodes.len() >= Limits::NODES {
            return Err(Refusal::Limit(format!(
                "the fabric has {} nodes, the most it may have",
                Limits::NODES
            )));
        }
        let Some(params) = &self.params else {
            return Err(Refusal::Lifecycle("the fabric is not initialised yet".to_owned()));
        };
        let pool = Ipv4Pool::of(params).map_err(|e| Refusal::Lifecycle(e.to_string()))?;
        let block = self.free_block(&pool)?;
        self.use_join_token(token);
        self.insert_node(admit, block, now_ms);
        let summary = format!("{} {} admitted in {}", admit.role, admit.node, admit.zone);
        Ok(Done::one(ChangeAction::Created, node(&admit.node), summary))
    }

    /// Whether this node was admitted already, exactly so. A name or key that is taken otherwise is
    /// refused.
    fn is_rejoin(&self, admit: &Admit) -> Result<bool, Refusal> {
        let id = admit.key.node_id();
        if let Some(removed) = self.removed.get(&id) {
            return refuse(format!(
                "the key of {} was removed from the fabric (as {}, at revision {}) and is never admitted again; \
                 empty its data directory and join with a new key",
                admit.node, removed.name, removed.revision
            ));
        }
        let Some((name, known)) = self.node_or_key(admit) else { return Ok(false) };
        if *name != admit.node {
            return refuse(format!(
                "the key of {} is admitted already, as {name}: one key, one node; \
                 empty the data directory of the copy and join with a new key",
                admit.node
            ));
        }
        if known.key != admit.key {
            return refuse(format!(
                "there is a node {name} already, with another key; choose another name, or take the old \
                 one out (selvedge node remove {name})"
            ));
        }
        if known.state == AdmissionState::Revoked {
            return refuse(format!(
                "{name} is revoked; remove it (selvedge node remove {name}) and join with a new key"
            ));
        }
        if (known.sealing_key, known.role, &known.zone) != (admit.sealing_key, admit.role, &admit.zone) {
            return refuse(format!(
                "{name} is admitted as {} in {}, not as {} in {}; a node that moves is removed and joins anew",
                known.role, known.zone, admit.role, admit.zone
            ));
        }
        Ok(true)
    }

    fn node_or_key(&self, admit: &Admit) -> Option<(&NodeName, &Admission)> {
        let id = admit.key.node_id();
        let by_key = self.nodes.iter().find(|(_, known)| known.key.node_id() == id);
        by_key.or_else(|| self.nodes.get_key_value(&admit.node))
    }

    fn insert_node(&mut self, admit: &Admit, block: u32, now_ms: UnixMs) {
        let admission = Admission {
            key: admit.key,
            sealing_key: admit.sealing_key,
            role: admit.role,
            zone: admit.zone.clone(),
            state: AdmissionState::Active,
            block,
            token: admit.token,
            admitted_ms: now_ms,
        };
        self.nodes.insert(admit.node.clone(), admission);
        self.store_seal(admit);
    }

    /// Keeps the sealed issuing key that came with an admission. No change of intent: the plaintext is
    /// the same, the ciphertext differs each time by the nature of HPKE.
    fn store_seal(&mut self, admit: &Admit) -> Done {
        if let Some(sealed) = admit.sealed_issuer.as_ref().filter(|_| admit.role == Role::Processor) {
            self.sealed_issuer.insert(admit.node.clone(), sealed.clone());
        }
        Done::default()
    }

    pub(super) fn seal_issuer(&mut self, name: &NodeName, sealed: &SealedSecret) -> Result<Done, Refusal> {
        let known = self.known_node(name)?;
        if known.role != Role::Processor {
            return refuse(format!("{name} is no processor: only processors hold the issuing key"));
        }
        if known.state == AdmissionState::Revoked {
            return refuse(format!("{name} is revoked and gets no issuing key"));
        }
        if self.sealed_issuer.get(name) == Some(sealed) {
            return Ok(Done::default());
        }
        self.sealed_issuer.insert(name.clone(), sealed.clone());
        let summary = format!("issuing key sealed to {name}");
        Ok(Done::one(ChangeAction::Updated, node(name), summary))
    }

    pub(super) fn set_node_state(&mut self, name: &NodeName, state: AdmissionState) -> Result<Done, Refusal> {
        let known = self.known_node(name)?;
        if known.state == state {
            return Ok(Done::default());
        }
        if known.state == AdmissionState::Revoked {
            return refuse(format!(
                "{name} is revoked, and a revocation is final; remove it (selvedge node remove {name}) and \
                 join with a new key"
            ));
        }
        if state == AdmissionState::Revoked {
            self.keep_a_processor(name, "revoked")?;
            self.sealed_issuer.remove(name);
        }
        if let Some(admission) = self.nodes.get_mut(name) {
            admission.state = state;
        }
        let verb = match state {
            AdmissionState::Active => "in service",
            AdmissionState::Draining => "draining",
            AdmissionState::Revoked => "revoked",
        };
        Ok(Done::one(ChangeAction::Updated, node(name), format!("{name} {verb}")))
    }

    pub(super) fn remove_node(&mut self, name: &NodeName) -> Result<Done, Refusal> {
        self.known_node(name)?;
        self.keep_a_processor(name, "removed")?;
        self.sealed_issuer.remove(name);
        if let Some(gone) = self.nodes.remove(name) {
            // The removal is what the next revision says.
            let revision = self.revision.saturating_add(1);
            let removed = Removed { name: name.clone(), revision, block: Some(gone.block) };
            self.removed.insert(gone.key.node_id(), removed);
            self.forget_old_removals();
        }
        Ok(Done::one(ChangeAction::Deleted, node(name), format!("{name} removed")))
    }

    pub(super) fn release_blocks(&mut self, blocks: &[u32]) -> Done {
        let mut changes = Vec::new();
        for removed in self.removed.values_mut() {
            if let Some(block) = removed.block.take_if(|block| blocks.contains(block)) {
                let what = format!("Block {block} of {}", removed.name);
                changes.append(&mut Done::one(ChangeAction::Deleted, what, String::new()).changes);
            }
        }
        let summary = format!("{} address blocks released", changes.len());
        Done { changes, summary }
    }

    fn known_node(&self, name: &NodeName) -> Result<&Admission, Refusal> {
        self.nodes.get(name).ok_or_else(|| {
            let near = crate::suggest::closest(name.as_str(), self.nodes.keys());
            let remedy = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            Refusal::NotFound(format!("there is no node {name}{remedy}"))
        })
    }

    /// Refuses what would leave the fabric without any processor: nobody could undo it.
    fn keep_a_processor(&self, name: &NodeName, verb: &str) -> Result<(), Refusal> {
        let serving = |a: &Admission| a.role == Role::Processor && a.state != AdmissionState::Revoked;
        if self.nodes.iter().any(|(other, admission)| other != name && serving(admission)) {
            return Ok(());
        }
        refuse(format!(
            "{name} is the last processor of the fabric and cannot be {verb}; add another one first"
        ))
    }

    fn forget_old_removals(&mut self) {
        while self.removed.len() > Limits::REMOVED {
            let free = self.removed.iter().filter(|(_, removed)| removed.block.is_none());
            let oldest = free.min_by_key(|(id, removed)| (removed.revision, **id)).map(|(id, _)| *id);
            let Some(id) = oldest else { break };
            self.removed.remove(&id);
        }
    }
}

fn node(name: &NodeName) -> String {
    format!("Node {name}")
}

/// What cannot be mended later is checked before the fabric exists.
fn check_params(params: &FabricParams) -> Result<(), String> {
    if params.ula_prefix[0] != 0xfd {
        return Err("the IPv6 prefix is no locally assigned ULA prefix (fd00::/8, RFC 4193)".to_owned());
    }
    let suffix = &params.suffix;
    if suffix.len() > MAX_SUFFIX_BYTES || suffix.split('.').any(|label| Name::new(label).is_err()) {
        return Err(format!(
            "the DNS suffix {suffix:?} must be lower-case labels joined by dots, at most {MAX_SUFFIX_BYTES} \
             characters, without a dot at its end; for instance fabric.internal"
        ));
    }
    if params.root_cert.is_empty() || params.issuing_cert.is_empty() {
        return Err("the certificates of the fabric are missing".to_owned());
    }
    Ok(())
}
