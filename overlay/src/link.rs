//! One link: whether it lives, how long it takes, how much it loses.
//!
//! Both ends probe. A link is up while probes are answered, so it is known to work both ways; that it is
//! dead is known half a second after the first lost answer, long before QUIC gives up.

use std::collections::VecDeque;

use selvedge_fabric::plan::LinkQuality;

use crate::{Micros, wire::Halves};

/// Pause between two probes of a link, while there are few links.
pub(crate) const PROBE_INTERVAL_US: Micros = 100_000;
/// Probes without an answer after which a link is dead. With fewer, 10 % of loss would make it flap; at
/// that loss five in a row are lost once in seven minutes.
const MAX_MISSED: usize = 5;
/// Answers in a row after which a link that was dead is up again.
const ANSWERS_TO_RETURN: u32 = 3;
/// Probes over which loss is told.
const LOSS_WINDOW: usize = 128;
/// Probes that may still be answered; round trips beyond 6 s are loss.
const MAX_OUTSTANDING: usize = 64;

/// The state of one link.
#[derive(Debug)]
pub(crate) struct Link {
    /// Bytes of the largest datagram; `None` while there is no connection.
    pub(crate) max_datagram: Option<usize>,
    pub(crate) halves: Halves,
    pub(crate) tx_bytes: u64,
    pub(crate) rx_bytes: u64,
    up: bool,
    /// Since when it has been up or down.
    pub(crate) since: Micros,
    next_probe: Micros,
    number: u32,
    /// Probes without an answer yet, oldest first.
    outstanding: VecDeque<(u32, Micros)>,
    /// Whether each of the newest probes was answered, oldest first.
    results: VecDeque<bool>,
    answers: u32,
    was_up: bool,
    smoothed_us: Option<u32>,
    next_half: u32,
}

impl Link {
    pub(crate) fn new(now: Micros) -> Self {
        Self {
            max_datagram: None,
            halves: Halves::default(),
            tx_bytes: 0,
            rx_bytes: 0,
            up: false,
            since: now,
            next_probe: now,
            number: 0,
            outstanding: VecDeque::new(),
            results: VecDeque::new(),
            answers: 0,
            was_up: false,
            smoothed_us: None,
            next_half: 0,
        }
    }

    pub(crate) const fn is_up(&self) -> bool {
        self.up
    }

    /// What was measured, if anything was.
    pub(crate) fn quality(&self) -> LinkQuality {
        let lost = self.results.iter().filter(|answered| !**answered).count();
        let permille = (lost * 1_000).checked_div(self.results.len()).unwrap_or(0);
        LinkQuality { rtt_us: self.smoothed_us.unwrap_or(0), loss_permille: permille as u16 }
    }

    /// A number for the halves of a frame.
    pub(crate) const fn next_half(&mut self) -> u32 {
        self.next_half = self.next_half.wrapping_add(1);
        self.next_half
    }

    /// Takes whether there is a connection; returns whether the link went down by that.
    pub(crate) fn set_connection(&mut self, max_datagram: Option<usize>, now: Micros) -> bool {
        let lost = self.max_datagram.is_some() && max_datagram.is_none();
        self.max_datagram = max_datagram;
        lost && self.go_down(now)
    }

    /// The probe that is due, if one is.
    pub(crate) fn probe(&mut self, interval: Micros, now: Micros) -> Option<u32> {
        if self.max_datagram.is_none() || now < self.next_probe {
            return None;
        }
        self.next_probe = now + interval;
        self.number = self.number.wrapping_add(1);
        self.outstanding.push_back((self.number, now));
        if self.outstanding.len() > MAX_OUTSTANDING {
            self.outstanding.pop_front();
            self.result(false);
        }
        Some(self.number)
    }

    /// Counts probes that should have been answered by now; returns whether the link went down by that.
    pub(crate) fn overdue(&mut self, interval: Micros, now: Micros) -> bool {
        // An answer that takes twice the usual round trip is late, not lost.
        let patience = interval.max(2 * Micros::from(self.smoothed_us.unwrap_or(0)));
        let late = self.outstanding.iter().filter(|(_, at)| now >= at + patience).count();
        self.up && late >= MAX_MISSED && self.go_down(now)
    }

    /// Takes an answer; returns whether the link came up by it.
    pub(crate) fn answered(&mut self, number: u32, now: Micros) -> bool {
        let Some(place) = self.outstanding.iter().position(|(n, _)| *n == number) else { return false };
        // Probes before it that were not answered are lost: a link keeps their order, or nearly.
        for _ in 0..place {
            self.outstanding.pop_front();
            self.result(false);
        }
        let Some((_, sent)) = self.outstanding.pop_front() else { return false };
        self.result(true);
        let took = u32::try_from(now.saturating_sub(sent)).unwrap_or(u32::MAX);
        // As TCP does (RFC 6298, section 2).
        self.smoothed_us = Some(self.smoothed_us.map_or(took, |before| before - before / 8 + took / 8));
        self.answers = self.answers.saturating_add(1);
        if self.up || (self.was_up && self.answers < ANSWERS_TO_RETURN) {
            return false;
        }
        (self.up, self.was_up, self.since) = (true, true, now);
        true
    }

    fn result(&mut self, answered: bool) {
        self.results.push_back(answered);
        if self.results.len() > LOSS_WINDOW {
            self.results.pop_front();
        }
        if !answered {
            self.answers = 0;
        }
    }

    fn go_down(&mut self, now: Micros) -> bool {
        for _ in 0..self.outstanding.len() {
            self.result(false);
        }
        self.outstanding.clear();
        (self.answers, self.smoothed_us) = (0, None);
        self.halves = Halves::default();
        let was_up = std::mem::replace(&mut self.up, false);
        if was_up {
            self.since = now;
        }
        was_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Micros = PROBE_INTERVAL_US;

    /// Probes `rounds` times, answering after 5 ms those for which `answers` says so; returns when the
    /// link went down.
    fn run(link: &mut Link, rounds: std::ops::Range<u64>, answers: impl Fn(u64) -> bool) -> Option<Micros> {
        let mut down = None;
        for round in rounds {
            let now = round * STEP;
            if link.overdue(STEP, now) {
                down = down.or(Some(now));
            }
            let number = link.probe(STEP, now).expect("due");
            if answers(round) {
                link.answered(number, now + 5_000);
            }
        }
        down
    }

    #[test]
    fn a_link_is_up_with_its_first_answer_and_down_within_a_second_of_silence() {
        let mut link = Link::new(0);
        assert_eq!(link.probe(STEP, 0), None, "there is no connection");
        link.set_connection(Some(1_200), 0);
        assert_eq!(run(&mut link, 0..10, |_| true), None);
        assert!(link.is_up());
        assert_eq!(link.quality(), LinkQuality { rtt_us: 5_000, loss_permille: 0 });
        let down = run(&mut link, 10..30, |_| false).expect("down");
        assert!(!link.is_up() && down - 10 * STEP <= 600_000, "{down}");
        run(&mut link, 30..32, |_| true);
        assert!(!link.is_up(), "one answer may be luck");
        run(&mut link, 32..33, |_| true);
        assert!(link.is_up());
    }

    #[test]
    fn a_lossy_link_stays_up_and_tells_its_loss() {
        let mut link = Link::new(0);
        link.set_connection(Some(1_200), 0);
        assert_eq!(run(&mut link, 0..200, |round| round % 4 != 3), None);
        assert!(link.is_up());
        assert!((200..300).contains(&link.quality().loss_permille), "{:?}", link.quality());
    }

    #[test]
    fn a_link_without_connection_is_down_at_once() {
        let mut link = Link::new(0);
        link.set_connection(Some(1_200), 0);
        run(&mut link, 0..1, |_| true);
        assert!(link.set_connection(None, STEP) && !link.is_up());
        assert!(!link.set_connection(None, STEP));
    }

    #[test]
    fn a_long_round_trip_is_no_loss() {
        let mut link = Link::new(0);
        link.set_connection(Some(1_200), 0);
        let mut answers = VecDeque::new();
        for round in 0..200_u64 {
            let now = round * STEP;
            while answers.front().is_some_and(|(_, at)| *at <= now) {
                let (number, at) = answers.pop_front().expect("there is one");
                link.answered(number, at);
            }
            assert!(!link.overdue(STEP, now));
            answers.push_back((link.probe(STEP, now).expect("due"), now + 600_000));
        }
        assert!(link.is_up());
        assert_eq!(link.quality(), LinkQuality { rtt_us: 600_000, loss_permille: 0 });
    }
}
