//! What the service sees of its peers with its own eyes.

use super::*;

impl Service {
    /// Looks at the peers with this node's own eyes.
    pub(super) fn look(&mut self, now: Now) {
        for peer in self.poker.poll_refused(now.mono_ms) {
            self.outlook.watch.handle_refused(peer, now.mono_ms);
        }
        self.hear_unreachable(now.mono_ms);
        for nudge in self.outlook.watch.poll_nudges(now.mono_ms) {
            match nudge {
                // Processors answer only each other.
                Nudge::Ping(peer) if self.outlook.detector.is_some() => self.send_probe(peer, &Probe::Ping),
                Nudge::Ping(_) => {}
                Nudge::Poke(peer) => {
                    let Some(node) = self.outlook.roster.get(&peer) else { continue };
                    if self.parts.options.transport.cut(&node.name).is_any() {
                        continue;
                    }
                    // Elsewhere, another node's port may be what is closed.
                    let address = self.parts.options.transport.book().certain(&node.name);
                    if address.is_some_and(|address| self.poker.poke(peer, address, now.mono_ms)) {
                        self.outlook.watch.handle_refused(peer, now.mono_ms);
                    }
                }
            }
        }
    }

    /// Hears what hosts said to packets of links.
    fn hear_unreachable(&mut self, now_ms: u64) {
        let transport = &self.parts.options.transport;
        let said: BTreeMap<_, _> = transport.unreachable().into_iter().collect();
        if said == self.unreachable {
            return;
        }
        for (&peer, node) in &self.outlook.roster {
            // The one that is poked too; at another there may be somebody else.
            if let Some(address) = transport.book().certain(&node.name) {
                let before = self.unreachable.get(&address).copied().unwrap_or(0);
                let more = said.get(&address).copied().unwrap_or(0).saturating_sub(before);
                (0..more.min(REFUSALS.into())).for_each(|_| self.outlook.watch.handle_refused(peer, now_ms));
            }
        }
        self.unreachable = said;
    }
}
