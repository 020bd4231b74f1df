//! Congestion control by what a connection carries.
//!
//! Requests are streams and take Cubic. Links carry packets of connections that have a congestion control
//! of their own: a second one underneath delays what the first one measures, and the two make each
//! other slow (RFC 9221, section 5.3 leaves it to the application). So links have no window; what bounds
//! them is the datagram buffer, and what is too much is dropped there or on the path, which is what the
//! inner connections expect.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};
use quinn_proto::RttEstimator;

/// A window that is never full. Above `u32::MAX` quinn does not pace either.
const NO_WINDOW: u64 = u64::MAX / 4;

/// What a connection carries: requests, until it is told that it is a link.
#[derive(Debug, Clone, Default)]
pub(crate) struct Load(Arc<AtomicBool>);

impl Load {
    /// A connection that is a link from the beginning.
    pub(crate) fn link() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    /// It is a link.
    pub(crate) fn set_link(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl ControllerFactory for Load {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let inner = Arc::new(CubicConfig::default()).build(now, current_mtu);
        Box::new(ByLoad { load: Self::clone(&self), inner })
    }
}

/// Cubic, whose window does not count on links.
struct ByLoad {
    load: Load,
    inner: Box<dyn Controller>,
}

impl Controller for ByLoad {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest: Option<u64>) {
        self.inner.on_end_acks(now, in_flight, app_limited, largest);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent: bool, lost_bytes: u64) {
        self.inner.on_congestion_event(now, sent, is_persistent, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        if self.load.0.load(Ordering::Relaxed) { NO_WINDOW } else { self.inner.window() }
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self { load: self.load.clone(), inner: self.inner.clone_box() })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_links_have_no_window() {
        let load = Load::default();
        let controller = Arc::new(load.clone()).build(Instant::now(), 1_200);
        assert!(controller.window() < 1 << 20);
        load.set_link();
        assert_eq!(controller.clone_box().window(), NO_WINDOW);
        assert_eq!(Arc::new(Load::link()).build(Instant::now(), 1_200).window(), NO_WINDOW);
    }
}
