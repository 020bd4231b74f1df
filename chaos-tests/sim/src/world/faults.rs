//! What goes wrong, and how it ends.

use std::sync::Arc;

use rand::{RngExt, seq::IteratorRandom};
use selvedge_fabric::{policy::PolicyState, record::Health};

use super::{Weather, World};
use crate::intent::{Change, OTHER_PORT, PORT};

/// How a node dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Death {
    /// Its process ends; the host refuses what comes for it.
    Process,
    /// Its host is gone: silence.
    Host,
}

/// Longest pause of a process, milliseconds: as long as a virtual machine that is moved, or longer.
const MAX_PAUSE_MS: u64 = 12_000;
/// Furthest that a wall clock jumps, milliseconds.
const MAX_JUMP_MS: i64 = 3_600_000;

impl World {
    /// One thing goes wrong, changes or ends, as the seed has it.
    pub(crate) fn disturb(&mut self) {
        self.troubled_ms = self.now_ms;
        match self.rng.random_range(0..100) {
            0..15 => self.kill_somebody(),
            15..35 => self.restart_somebody(),
            35..43 => self.pause_somebody(),
            43..47 => self.slow_somebody(),
            47..52 => self.jump_a_clock(),
            52..60 => self.partition(),
            60..63 => self.cut_one_way(),
            63..65 => self.cut_pairs(),
            65..72 => self.heal_network(),
            72..78 => self.change_weather(),
            78..80 => self.change_health(),
            80..82 => self.recover_quorum(),
            82..86 => self.replace_somebody(),
            _ => self.write_something(),
        }
    }

    fn somebody(&mut self, running: bool) -> Option<usize> {
        let slots = self.slots.iter().enumerate();
        let fits = slots.filter(|(_, slot)| !slot.removed && slot.node.is_some() == running);
        fits.map(|(n, _)| n).choose(&mut self.rng)
    }

    fn kill_somebody(&mut self) {
        let members = self.slots.iter().filter(|slot| !slot.removed).count();
        if self.living().count() * 2 <= members {
            return;
        }
        if let Some(n) = self.somebody(true) {
            let death = if self.rng.random_bool(0.6) { Death::Process } else { Death::Host };
            self.kill(n, death);
        }
    }

    pub(crate) fn kill(&mut self, n: usize, death: Death) {
        let name = self.slots[n].birth.name.clone();
        self.tell(&format_args!("{name} dies: {death:?}"));
        let slot = &mut self.slots[n];
        if let Some(node) = slot.node.take() {
            slot.disk = node.into_disk();
        }
        slot.life += 1;
        slot.host_up = death == Death::Process;
        (slot.slow, slot.paused_until_ms) = (false, 0);
        slot.dead_since_ms = Some(self.now_ms);
    }

    fn restart_somebody(&mut self) {
        if let Some(n) = self.somebody(false) {
            let forgets = self.rng.random_bool(0.25);
            self.restart(n, forgets);
        }
    }

    /// Starts a node again; one that forgets has lost its facts, and kept its key, its log and its policy: a
    /// replica that loses its log under its old name breaks what Raft promises, and is admitted anew instead.
    pub(crate) fn restart(&mut self, n: usize, forgets: bool) {
        let name = self.slots[n].birth.name.clone();
        self.tell(&format_args!("{name} starts{}", if forgets { " without its facts" } else { "" }));
        if forgets {
            let disk = &mut self.slots[n].disk;
            disk.records.clear();
            disk.incarnation = 0;
        }
        self.start(n);
    }

    fn pause_somebody(&mut self) {
        if let Some(n) = self.somebody(true) {
            let for_ms = self.rng.random_range(200..=MAX_PAUSE_MS);
            self.slots[n].paused_until_ms = self.now_ms + for_ms;
            let name = self.slots[n].birth.name.clone();
            self.tell(&format_args!("{name} is stopped for {for_ms} ms"));
        }
    }

    fn slow_somebody(&mut self) {
        if let Some(n) = self.somebody(true) {
            let slot = &mut self.slots[n];
            slot.slow = !slot.slow;
            let (name, slow) = (slot.birth.name.clone(), slot.slow);
            self.tell(&format_args!("{name} is {}", if slow { "slow" } else { "as fast as before" }));
        }
    }

    fn jump_a_clock(&mut self) {
        if let Some(n) = self.somebody(true) {
            let skew_ms = self.rng.random_range(-MAX_JUMP_MS..=MAX_JUMP_MS);
            self.set_clock(n, skew_ms);
        }
    }

    fn set_clock(&mut self, n: usize, skew_ms: i64) {
        let slot = &mut self.slots[n];
        slot.skew_ms = skew_ms;
        if let Some(node) = &mut slot.node {
            node.set_skew(skew_ms);
        }
        let name = slot.birth.name.clone();
        self.tell(&format_args!("the clock of {name} is {skew_ms} ms off"));
    }

    /// Cuts the nodes in two, by cloud or at random.
    fn partition(&mut self) {
        let by_cloud = self.rng.random_bool(0.5);
        let chosen = self.rng.random_range(0..self.scenario.clouds);
        let side: Vec<bool> = (0..self.slots.len())
            .map(|n| match by_cloud {
                true => self.slots[n].birth.cloud == chosen,
                false => self.rng.random_bool(0.4),
            })
            .collect();
        for (a, b) in pairs(side.len()).filter(|(a, b)| side[*a] != side[*b]) {
            self.network.cut(a, b);
        }
        let apart: Vec<_> =
            (0..side.len()).filter(|n| side[*n]).map(|n| self.slots[n].birth.name.clone()).collect();
        self.tell(&format_args!("the network is cut around {apart:?}"));
    }

    fn cut_one_way(&mut self) {
        let Some(n) = self.somebody(true) else { return };
        let deaf = self.rng.random_bool(0.5);
        for other in (0..self.slots.len()).filter(|other| *other != n) {
            if self.rng.random_bool(0.7) {
                let (from, to) = if deaf { (other, n) } else { (n, other) };
                self.network.cut(from, to);
            }
        }
        let name = self.slots[n].birth.name.clone();
        self.tell(&format_args!("{name} {}", if deaf { "hears few" } else { "is heard by few" }));
    }

    /// Cuts some of the nodes from some others: there is no link any more, and there are ways around.
    fn cut_pairs(&mut self) {
        let apart = self.rng.random_range(0.1..0.6);
        for (a, b) in pairs(self.slots.len()).filter(|(a, b)| a < b) {
            if self.rng.random_bool(apart) {
                self.network.cut(a, b);
                self.network.cut(b, a);
            }
        }
        self.tell(&format_args!("many pairs of nodes are cut apart"));
    }

    fn heal_network(&mut self) {
        self.network.heal();
        self.tell(&format_args!("the network is whole"));
    }

    fn change_weather(&mut self) {
        let stormy = self.rng.random_bool(0.6);
        let weather = Weather {
            loss_permille: if stormy { self.rng.random_range(0..350) } else { 0 },
            repeat_permille: if stormy { self.rng.random_range(0..150) } else { 0 },
            jitter_ms: if stormy { self.rng.random_range(0..250) } else { 2 },
        };
        self.network.weather = weather;
        self.tell(&format_args!("{weather:?}"));
    }

    fn change_health(&mut self) {
        if let Some(n) = self.somebody(true)
            && let Some(node) = &mut self.slots[n].node
        {
            let health = if self.rng.random_bool(0.5) { Health::Passing } else { Health::Failing };
            node.set_health(health);
        }
    }

    /// A node's disk is lost: it is taken out, and another joins in its place under a key of its own.
    fn replace_somebody(&mut self) {
        let mut remaining = self.slots.iter().filter(|slot| !slot.removed).count();
        let Some(n) = self.somebody(true) else { return };
        let gone = self.slots[n].birth.clone();
        if remaining > 3 && self.agree(&Change::Remove(gone.name.clone())) {
            self.slots[n].removed = true;
            remaining -= 1;
        }
        if remaining < self.scenario.nodes {
            self.add_somebody();
        }
    }

    /// A node that was never there before joins.
    fn add_somebody(&mut self) {
        let birth = self.scenario.birth(self.slots.len());
        let name = birth.name.clone();
        let slot = self.add_slot(birth);
        if self.agree(&Change::Admit(name)) {
            self.slots[slot].disk.policy = self.policy().clone();
            self.choose_neighbours_of(slot);
            self.start(slot);
        } else {
            self.slots[slot].removed = true;
        }
    }

    pub(crate) fn write_something(&mut self) {
        let number = self.rng.random_range(0..self.scenario.services);
        let clouds = self.scenario.clouds;
        let change = match self.rng.random_range(0..4) {
            0 => Change::Contract {
                number,
                port: if self.rng.random_bool(0.5) { PORT } else { OTHER_PORT },
                avoid: self.rng.random_bool(0.5).then(|| self.rng.random_range(0..clouds)),
            },
            1 | 2 => Change::Roles { service: number, plays: self.rng.random_bool(0.6) },
            _ => Change::Guardrail {
                contract: number,
                of: self.scenario.services,
                denies: self.rng.random_bool(0.5),
            },
        };
        self.agree(&change);
    }

    /// Clients write to whoever believes to lead.
    pub(crate) fn write_to_leaders(&mut self) {
        let leaders: Vec<usize> = self
            .living()
            .filter(|(n, node)| node.replica.leads() && !self.is_paused(*n))
            .map(|(n, _)| n)
            .collect();
        for n in leaders {
            self.written += 1;
            let number = self.written;
            if let Some(node) = &mut self.slots[n].node {
                node.propose(number);
            }
            self.drain(n);
        }
    }

    /// An operator who finds no majority makes a new epoch, on whichever reachable node has most.
    fn recover_quorum(&mut self) {
        let Some(at) = self.somebody(true) else { return };
        let near: Vec<usize> = self
            .living()
            .filter(|(n, _)| *n == at || (self.network.connects(at, *n) && !self.is_paused(*n)))
            .map(|(n, _)| n)
            .collect();
        let logs = near.iter().filter_map(|n| Some((*n, &self.slots[*n].node.as_ref()?.replica)));
        let newest = logs.max_by_key(|(n, replica)| {
            (replica.stored.epoch, replica.stored.log.last().map(|e| e.term), replica.stored.log.len(), *n)
        });
        let Some((chosen, replica)) = newest else { return };
        let ids: std::collections::BTreeSet<u64> = near.iter().map(|n| self.slots[*n].birth.id().0).collect();
        let voters = replica.members().voters;
        if voters.is_empty() || selvedge_consensus::rules::is_majority(&voters, &ids) {
            return;
        }
        self.epoch += 1;
        let (name, epoch) = (self.slots[chosen].birth.name.clone(), self.epoch);
        self.tell(&format_args!("an operator recovers the quorum on {name}: epoch {epoch}"));
        if let Some(node) = &mut self.slots[chosen].node {
            node.recover(epoch);
        }
        self.drain(chosen);
    }

    /// Everything that went wrong ends: the network is whole, clocks are right, nobody is slow. Of those
    /// that are dead some come back.
    pub(crate) fn heal(&mut self) {
        self.tell(&format_args!("everything heals"));
        self.network.heal();
        self.network.weather = Weather { jitter_ms: 2, ..Weather::default() };
        for n in 0..self.slots.len() {
            self.slots[n].slow = false;
            self.slots[n].paused_until_ms = self.slots[n].paused_until_ms.min(self.now_ms);
            if self.slots[n].skew_ms != 0 {
                self.set_clock(n, 0);
            }
            let dead = self.slots[n].node.is_none() && !self.slots[n].removed;
            let needed = self.living().count() < 3;
            if dead && (needed || self.rng.random_bool(0.7)) {
                self.restart(n, false);
            }
        }
        // Whoever was taken out is stopped by its operator.
        for n in 0..self.slots.len() {
            if self.slots[n].removed && self.slots[n].node.is_some() {
                self.kill(n, Death::Process);
            }
        }
        self.troubled_ms = self.now_ms;
    }

    /// The policies that were agreed, for who needs to look one up.
    pub(crate) fn agreed_at(&self, revision: u64) -> Option<&Arc<PolicyState>> {
        self.agreed.iter().find(|policy| policy.revision == revision)
    }
}

fn pairs(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count).flat_map(move |a| (0..count).map(move |b| (a, b)))
}
