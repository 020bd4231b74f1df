//! What the service does outside of itself: views, commands, packets, disk.

use super::*;

impl Service {
    /// Builds a view, and publishes it when it says something new.
    pub(super) fn publish_view(&mut self, now: Now) {
        self.dirty = false;
        self.done.view_ms = now.mono_ms;
        let inputs = Inputs {
            policy: &self.policy,
            store: self.gossip.store(),
            judgement: &self.outlook.judgement,
            holders: self.gossip.holders(),
            rtt_us: &self.rtt_us,
        };
        let view = self.views.build(&inputs, now);
        for disbelieved in self.views.take_disbelieved() {
            self.parts.shared.counters.disbelieved_endpoints.add(1);
            let message = format!(
                "its endpoint {} is not believed and not served: {}",
                disbelieved.endpoint, disbelieved.why
            );
            let subject = disbelieved.node.as_str();
            self.reports.tell_once(now.mono_ms, Severity::Security, "endpoint-refused", subject, message);
        }
        if let Some(view) = view {
            self.parts.shared.counters.views.add(1);
            self.parts.view.send_replace(Arc::new(view));
        }
        let counters = &self.parts.shared.counters;
        counters.records.set(self.gossip.store().len() as u64);
        counters.gossip_peers.set(self.gossip.peers().count() as u64);
        counters.dropped_rumors.set(self.gossip.dropped_rumors());
    }

    /// Tells the carrier. When it is too busy the command is dropped: anti-entropy comes again.
    pub(super) fn command(&self, command: Command) {
        if self.parts.carrier.commands.try_send(command).is_err() {
            self.parts.shared.counters.dropped_commands.add(1);
        }
    }

    pub(super) fn send_probe(&self, to: NodeId, probe: &Probe) {
        if let Some(node) = self.outlook.roster.get(&to) {
            self.parts.options.transport.send_datagram(&node.name, Alpn::Probe, probe.encode());
        }
    }

    /// Lets the transport know where a node says that it is reached.
    pub(super) fn feed_book(&mut self, id: NodeId) {
        let Some(node) = self.outlook.roster.get(&id).filter(|_| id != self.me) else { return };
        let Some(Body::Presence(presence)) = self.gossip.store().body(id, Topic::Presence) else { return };
        let book = self.parts.options.transport.book();
        if !presence.addresses.is_empty() && book.get(&node.name) != presence.addresses {
            book.set(&node.name, presence.addresses.clone());
            let now_ms = self.parts.clock.now().mono_ms;
            self.outlook.watch.handle_moved(id, now_ms);
        }
    }

    /// Tells the carrier who is admitted, and where they may be dialled: what they say themselves, then
    /// what this node was told.
    pub(super) fn offer_peers(&self) {
        let admitted = self.gossip.store().members();
        let mut peers = Peers {
            admitted: admitted.iter().map(|(id, member)| (*id, member.key)).collect(),
            candidates: BTreeMap::new(),
            cut_off: self.cut_off(),
        };
        for (&id, node) in self.outlook.roster.iter().filter(|(id, _)| **id != self.me) {
            peers.candidates.insert(id, self.candidate(id, node));
        }
        self.parts.peers.send_if_modified(|before| {
            let changed = *before != peers;
            *before = peers;
            changed
        });
    }

    /// Tells the carrier when a node is dialled elsewhere than before. Most news of nodes change nothing
    /// about that, and the whole list is long.
    pub(super) fn offer_peer(&self, id: NodeId) {
        let Some(candidate) = self.outlook.roster.get(&id).map(|node| self.candidate(id, node)) else {
            return;
        };
        if self.parts.peers.borrow().candidates.get(&id) != Some(&candidate) {
            self.parts.peers.send_modify(|peers| drop(peers.candidates.insert(id, candidate)));
        }
    }

    /// Tells the carrier when a drill begins to keep this node from others, or no longer does.
    pub(super) fn offer_cuts(&self) {
        let cut_off = self.cut_off();
        self.parts.peers.send_if_modified(|peers| {
            let changed = peers.cut_off != cut_off;
            peers.cut_off = cut_off;
            changed
        });
    }

    fn cut_off(&self) -> BTreeSet<NodeId> {
        let transport = &self.parts.options.transport;
        let cut = self.outlook.roster.iter().filter(|(_, node)| transport.cut(&node.name).is_any());
        cut.map(|(id, _)| *id).collect()
    }

    fn candidate(&self, id: NodeId, node: &Node) -> Candidate {
        let mut gossip = match self.gossip.store().body(id, Topic::Presence) {
            Some(Body::Presence(presence)) => presence.gossip.clone(),
            _ => Vec::new(),
        };
        for seed in self.seeds.get(&node.name).into_iter().flatten() {
            if !gossip.contains(seed) {
                gossip.push(*seed);
            }
        }
        Candidate { gossip, cloud: node.cloud.clone() }
    }

    /// Goes on under a higher incarnation everywhere.
    pub(super) fn raised(&mut self, why: &str, now: Now) {
        let incarnation = self.gossip.own().incarnation();
        self.outlook.raise(incarnation, now);
        self.write_incarnation();
        let message = format!("{why}; it goes on as incarnation {incarnation}");
        let me = self.parts.options.me.as_str();
        self.reports.tell_once(now.mono_ms, Severity::Info, "incarnation-raised", me, message);
    }

    /// Remembers the incarnation, so that the next start is above it. Rare, and a few bytes.
    pub(super) fn write_incarnation(&mut self) {
        let incarnation = self.gossip.own().incarnation();
        if let Err(error) = self.parts.disk.write_incarnation(incarnation) {
            self.tell_disk(&error);
        }
    }

    /// Writes what changed, when it is time and the last write is done.
    pub(super) fn write(&mut self, now: Now) {
        if self.writing.as_ref().is_some_and(|writing| !writing.is_finished()) {
            return;
        }
        if self.unwritten.is_empty() || now.mono_ms < self.done.write_ms + WRITE_INTERVAL_MS {
            return;
        }
        self.done.write_ms = now.mono_ms;
        let (disk, batch) = (self.parts.disk.clone(), std::mem::take(&mut self.unwritten));
        let events = self.parts.options.events.clone();
        let me = self.parts.options.me.clone();
        self.writing = Some(tokio::task::spawn_blocking(move || {
            let written = disk.write(&batch);
            if let Err(error) = &written {
                events.emit(Severity::Warning, "facts-not-written", me.as_str(), error.to_string());
            }
            written
        }));
    }

    /// Writes the last facts before the task ends.
    pub(super) async fn finish(mut self) {
        if let Some(writing) = self.writing.take() {
            // Its outcome has been told by itself.
            let _told = writing.await;
        }
        let (disk, batch) = (self.parts.disk.clone(), std::mem::take(&mut self.unwritten));
        match tokio::task::spawn_blocking(move || disk.write(&batch)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.tell_disk(&error),
            Err(error) => tracing::warn!(%error, "the last facts were not written"),
        }
    }

    fn tell_disk(&mut self, error: &DiskError) {
        let now_ms = self.parts.clock.now().mono_ms;
        let me = self.parts.options.me.as_str();
        self.reports.tell_once(now_ms, Severity::Warning, "facts-not-written", me, error.to_string());
    }

    pub(super) fn name_of(&self, id: NodeId) -> String {
        self.outlook.roster.get(&id).map_or_else(|| format!("key {id}"), |node| node.name.to_string())
    }
}

/// Takes what the disk knew into a new store; returns it with this node's highest incarnation.
pub(super) fn restore(
    options: &Options,
    policy: &PolicyState,
    loaded: Loaded,
    key: &PublicKey,
) -> (RecordStore, u64) {
    let mut store = RecordStore::new(options.fabric, *options.epoch.borrow());
    store.set_policy(policy);
    let mut refused = 0_u64;
    for (record, heard_ms) in loaded.records {
        if store.merge(record, heard_ms, false).is_err() {
            refused += 1;
        }
    }
    if refused > 0 {
        tracing::info!(refused, "facts on disk that are not good any more");
    }
    let incarnation = loaded.incarnation.max(store.incarnation(key.node_id()));
    (store, incarnation)
}
