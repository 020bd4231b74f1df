//! The overlay's place in the daemon: it starts when there is a policy to plan by and a TUN can be made,
//! and its measurements become facts.

use std::sync::{Arc, OnceLock};

use selvedge_fabric::{
    address::Ipv4Pool,
    event::{EventSink, Severity},
    key::Signer,
    plan::{Addresses, Plan, Routing},
    planner::Local,
    policy::{FabricParams, PolicyState},
    record::{Body, LinkFact},
};
use selvedge_membership::Membership;
use selvedge_overlay::{Options, Overlay, Replaceable};
use selvedge_transport::Transport;
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::{
    parts::{Bound, Parts},
    tun::{Tended, Wanted},
};
use crate::{
    config::{Enabled, OverlayConfig},
    events::Events,
    follow::PolicySource,
    packets::Packets,
    pki::SealingKey,
};

/// The overlay's place in the circuit: what it follows, and where it is found once it runs.
pub(super) struct Circuit {
    /// The plan, for the TUN.
    pub(super) plan: watch::Receiver<Arc<Plan>>,
    /// Its routing half, for the router.
    pub(super) routing: watch::Receiver<Arc<Routing>>,
    /// The overlay.
    pub(super) overlay: OverlayCell,
    /// What must know by which interface packets of other nodes arrive.
    pub(super) packets: Packets,
}

/// The overlay, once it runs; never, where it is off.
pub(crate) type OverlayCell = Arc<OnceLock<Overlay>>;

impl Parts {
    /// Starts the overlay as soon as it can be, unless it is off.
    pub(super) fn start_overlay(
        &self,
        bound: &Bound,
        source: &PolicySource,
        membership: &Membership,
        sealing: &SealingKey,
        circuit: Circuit,
        local: watch::Sender<Local>,
    ) {
        if self.config.overlay.enabled == Enabled::Off {
            return;
        }
        let starting = Starting {
            config: self.config.overlay.clone(),
            me: self.key.public_key().node_id(),
            transport: bound.transport.clone(),
            membership: membership.clone(),
            sealing_secret: sealing.secret(),
            policy: source.policy(),
            plan: circuit.plan,
            routing: circuit.routing,
            local,
            events: self.events.clone(),
            sink: self.sink(),
            cell: circuit.overlay,
            packets: circuit.packets,
        };
        // It ends at once where no TUN can be made.
        let running = self.stop.clone().run_until_cancelled_owned(starting.run());
        self.watchdog.keep_to_end("overlay tended", running);
    }
}

/// An overlay that waits for its policy.
struct Starting {
    config: OverlayConfig,
    me: selvedge_fabric::key::NodeId,
    transport: Transport,
    membership: Membership,
    sealing_secret: Zeroizing<[u8; 32]>,
    policy: watch::Receiver<Arc<PolicyState>>,
    plan: watch::Receiver<Arc<Plan>>,
    routing: watch::Receiver<Arc<Routing>>,
    local: watch::Sender<Local>,
    events: Events,
    sink: Arc<dyn EventSink>,
    cell: OverlayCell,
    packets: Packets,
}

impl Starting {
    async fn run(mut self) {
        let Some((params, addresses)) = self.admitted().await else { return };
        if Ipv4Pool::of(&params).is_ok_and(|pool| pool.range().0.is_loopback()) {
            // Such a fabric was made to live on one host, without root.
            return tracing::info!(pool = params.ipv4_pool, "no packets between nodes: loopback addresses");
        }
        let made = Wanted::new(&self.config, &params, &addresses).and_then(|w| Ok((w.open()?, w)));
        let (device, wanted) = match made {
            Ok(made) => made,
            Err(error) => {
                let text = format!(
                    "packets of this node stay on it: {error:#}. Run it as root, or set overlay.enabled = \"off\""
                );
                return self.events.emit(
                    Severity::Warning,
                    "overlay-off",
                    self.transport.me().as_str(),
                    text,
                );
            }
        };
        let index = Tended::index_of(&self.config.tun).await;
        self.packets.carried_by(index.unwrap_or_default()).await;
        let tun = Arc::new(Replaceable::new(Arc::new(device)));
        let overlay = Overlay::start(Options {
            transport: self.transport.clone(),
            me: self.me,
            sealing_secret: self.sealing_secret.clone(),
            routing: self.routing,
            tun: Arc::<Replaceable>::clone(&tun),
            direct: self.config.direct,
            events: self.sink,
        });
        let facts = overlay.facts();
        // Set once, here. What was put in force before was not waited for.
        self.cell.get_or_init(|| overlay).take_over();
        self.local.send_modify(|local| local.tun = true);
        tracing::info!(tun = %self.config.tun, mtu = self.config.mtu, "overlay started");
        let announced = announce(facts, self.membership);
        let (plan, events, packets) = (self.plan.clone(), self.events, self.packets);
        let tended = Tended { wanted, tun, plan, packets, events };
        tokio::join!(announced, tended.run(index));
    }

    /// The fabric's parameters and this node's addresses, when it is admitted.
    async fn admitted(&mut self) -> Option<(FabricParams, Addresses)> {
        loop {
            let params = self.policy.borrow_and_update().params.clone();
            let routing = Arc::clone(&self.plan.borrow_and_update().routing);
            let me = routing.me.and_then(|me| routing.nodes.get(&me));
            if let (Some(params), Some(me)) = (params, me) {
                return Some((params, me.addresses.clone()));
            }
            self.plan.changed().await.ok()?;
        }
    }
}

/// Announces links whenever they changed.
async fn announce(mut facts: watch::Receiver<Arc<Vec<LinkFact>>>, membership: Membership) {
    loop {
        let links = facts.borrow_and_update().to_vec();
        membership.announce(Body::Links(links));
        if facts.changed().await.is_err() {
            return;
        }
    }
}
