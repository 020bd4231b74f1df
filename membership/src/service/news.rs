//! What the service makes of the news of the core: counters, events, and what follows from a new record.

use super::*;

impl Service {
    pub(super) fn handle_event(&mut self, event: Event, now: Now) {
        match event {
            Event::Taken(key) => self.handle_taken(key, now),
            Event::Revocation(from, signed) => self.handle_revocation(from, *signed, now),
            Event::Raised(_) => self.raised("others held newer facts of this node", now),
            Event::Quarantined(node) => {
                let subject = self.name_of(node);
                let message = "two live machines use its key: the facts of both are set aside until one is \
                               stopped; remove the node and join both anew under keys of their own"
                    .into();
                self.reports.tell(Severity::Security, "key-held-twice", &subject, message);
                self.dirty = true;
            }
            Event::Dropped { from, node, why } => self.handle_dropped(from, node, &why, now),
        }
    }

    /// Verified here, where forgeries cannot take the room of what is genuine.
    fn handle_revocation(&mut self, from: NodeId, signed: SignedRevocation, now: Now) {
        match signed.verify(&self.policy) {
            // The node judges it; when it is too busy to, the next round of anti-entropy brings it again.
            Ok(()) | Err(RevocationError::NoPolicy) => drop(self.parts.options.revoked.try_send(signed)),
            Err(
                why @ (RevocationError::Fabric(_) | RevocationError::Signature(_) | RevocationError::Full),
            ) => {
                self.parts.shared.counters.dropped_bad.add(1);
                let sender = self.name_of(from);
                let message = format!("{sender} hands on a revocation that does not count: {why}");
                self.reports.tell_once(
                    now.mono_ms,
                    Severity::Security,
                    "revocation-refused",
                    &sender,
                    message,
                );
            }
        }
    }

    fn handle_taken(&mut self, key: Key, now: Now) {
        self.dirty = true;
        self.parts.shared.counters.records_taken.add(1);
        let Some(entry) = self.gossip.store().get(&key) else { return };
        let (incarnation, stored) =
            (entry.rank.version.incarnation, ((*entry.record).clone(), entry.heard_ms));
        self.unwritten.insert(key, Some(stored));
        if key.node != self.me && key.topic == Topic::Presence {
            self.feed_book(key.node);
            self.offer_peer(key.node);
            self.outlook.handle_start(key.node, incarnation, now);
        }
    }

    fn handle_dropped(&mut self, from: Option<NodeId>, node: NodeId, why: &Dropped, now: Now) {
        let counters = &self.parts.shared.counters;
        let severity = match why {
            Dropped::NotAdmitted | Dropped::Removed => {
                counters.dropped_not_admitted.add(1);
                return; // The sender's policy may be older, or newer, than this node's.
            }
            Dropped::Mine | Dropped::Record(_) => {
                counters.dropped_bad.add(1);
                Severity::Security
            }
            Dropped::Epoch(_) | Dropped::Incarnation(_) => {
                counters.dropped_version.add(1);
                Severity::Security
            }
            Dropped::Flood => {
                counters.dropped_flood.add(1);
                Severity::Warning
            }
            Dropped::Full => {
                counters.dropped_full.add(1);
                Severity::Warning
            }
        };
        let sender = from.map_or_else(|| "this node".to_owned(), |id| self.name_of(id));
        let message = format!("a record of {}, sent by {sender}, was dropped: {why}", self.name_of(node));
        self.reports.tell_once(now.mono_ms, severity, "record-refused", &sender, message);
    }

    /// Tells what became of the verdicts since `before`.
    pub(super) fn tell_changes(&self, before: &Judgement) {
        let judgement = &self.outlook.judgement;
        for (id, state) in &judgement.states {
            if before.states.get(id) != Some(state) {
                let message = format!("is {state} as this node sees it");
                self.reports.tell(Severity::Info, "node-state", &self.name_of(*id), message);
            }
        }
        let (now_down, were_down) = (&judgement.clouds_down, &before.clouds_down);
        for cloud in now_down.keys().filter(|cloud| !were_down.contains_key(*cloud)) {
            let message = "nearly all of its processors are gone; the fabric goes on without it".into();
            self.reports.tell(Severity::Warning, "cloud-down", cloud.as_str(), message);
        }
        for cloud in were_down.keys().filter(|cloud| !now_down.contains_key(*cloud)) {
            self.reports.tell(Severity::Info, "cloud-up", cloud.as_str(), "its processors are back".into());
        }
        let me = self.parts.options.me.as_str();
        match (before.isolated, judgement.isolated) {
            (false, true) => {
                let message = "sees no other node: it declares nobody down and goes on with what it knows; \
                               check its network"
                    .into();
                self.reports.tell(Severity::Warning, "isolated", me, message);
            }
            (true, false) => {
                self.reports.tell(Severity::Info, "isolation-over", me, "sees other nodes again".into());
            }
            (true, true) | (false, false) => {}
        }
    }
}
