//! Looking after what is attached: what vanished is detached, what somebody took away is put back.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use selvedge_fabric::{
    event::{EventSink as _, Severity},
    id::EndpointId,
};
use tokio_util::sync::CancellationToken;

use super::{AttachError, Attachments, Place, Target, group::Group, store::Attachment};
use crate::net::{Found, Link, NetError, Netlink};

/// How often to look whether what is attached is still there, and whole.
const TEND_INTERVAL: Duration = Duration::from_secs(1);

/// The host's network at one moment.
struct Host {
    netlink: Netlink,
    links: Vec<Link>,
    found: Found,
}

impl Host {
    async fn look() -> Result<Self, NetError> {
        let netlink = Netlink::open()?;
        let (links, found) = (netlink.links().await?, netlink.found().await?);
        Ok(Self { netlink, links, found })
    }

    /// The interface of an attachment, if it is still the one that was attached.
    fn link(&self, attachment: &Attachment) -> Option<&Link> {
        self.links.iter().find(|l| l.index == attachment.index && l.name == attachment.interface)
    }
}

impl Attachments {
    /// Looks after what is attached, until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut tick = tokio::time::interval(TEND_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let forever = async {
            loop {
                tick.tick().await;
                self.tend().await;
            }
        };
        stop.run_until_cancelled(forever).await;
    }

    /// Guards everything that was attached before. What is pinned guards it already; without the pins,
    /// nothing would know of it.
    pub(super) async fn guard(&self) {
        let gateways = self.gateways();
        let table = self.table.lock().await;
        let Ok(links) = self.links(table.is_empty()).await else { return };
        for attachment in table.values() {
            let same = |l: &&Link| l.index == attachment.index && l.name == attachment.interface;
            let Some(link) = links.iter().find(same) else { continue };
            let workload = self.packets.workload(&attachment.service, &attachment.addresses, &gateways);
            let guarded = match (workload, &attachment.group) {
                (Err(error), _) => Err(error),
                (Ok(workload), None) => self.packets.gate(link, workload).await,
                (Ok(workload), Some(group)) if group.is_there() => {
                    self.packets.gate_group(&group.directory, workload).await
                }
                (Ok(_), Some(_)) => continue,
            };
            if let Err(error) = guarded {
                self.events.emit(
                    Severity::Security,
                    "enforcement-unsure",
                    attachment.endpoint.as_str(),
                    format!("{} could not be guarded anew: {error}", attachment.interface),
                );
            }
        }
        if let Err(error) = self.packets.forget_predecessors().await {
            tracing::warn!(%error, "what an earlier version left in the kernel stays there");
        }
    }

    async fn links(&self, none: bool) -> Result<Vec<Link>, NetError> {
        if none {
            return Ok(Vec::new());
        }
        let links = match Netlink::open() {
            Ok(netlink) => netlink.links().await,
            Err(error) => Err(error),
        };
        links.inspect_err(|error| tracing::warn!(%error, "cannot look after attachments"))
    }

    /// Takes away what is not there any more, and what is there and has no endpoint any more; puts gates
    /// and wires back that somebody took away.
    pub(super) async fn tend(&self) {
        let mut table = self.table.lock().await;
        if table.is_empty() {
            return;
        }
        let host = Host::look().await;
        let Ok(host) = host.inspect_err(|error| tracing::warn!(%error, "cannot look after attachments"))
        else {
            return;
        };
        // First of all what keeps packets out, then what brings them.
        self.packets.reassert(&self.events).await;
        let facts = self.endpoints.facts().borrow().clone();
        let registered: BTreeSet<_> = facts.iter().map(|fact| &fact.id).collect();
        for attachment in table.values().cloned().collect::<Vec<_>>() {
            let group = table.get_mut(&attachment.endpoint).and_then(|kept| kept.group.as_mut());
            let left = group.and_then(Group::tend);
            let wanted = registered.contains(&attachment.endpoint) && attachment.is_whole();
            match (host.link(&attachment), left) {
                (Some(link), None) if wanted => self.rewire(&host, link, &attachment).await,
                _ if !wanted => self.lose(&mut table, &attachment, "its endpoint is gone").await,
                (_, left) => {
                    self.lose(&mut table, &attachment, left.unwrap_or("its interface is gone")).await;
                }
            }
        }
        self.publish(&table);
    }

    /// Takes away what nobody detached, and tells why.
    async fn lose(&self, table: &mut BTreeMap<EndpointId, Attachment>, attachment: &Attachment, why: &str) {
        let endpoint = &attachment.endpoint;
        self.events.emit(
            Severity::Info,
            "detached",
            endpoint.as_str(),
            format!("{endpoint} was detached: {why}"),
        );
        if let Err(error) = self.endpoints.deregister(endpoint) {
            tracing::warn!(%error, %endpoint, "cannot be deregistered");
        }
        self.undo(attachment).await;
        self.forget(table, endpoint);
    }

    /// Puts back what is missing of the host's side of a wire, and tells.
    async fn rewire(&self, host: &Host, link: &Link, attachment: &Attachment) {
        match self.restore(host, link, attachment).await {
            Ok(None) => {}
            Ok(Some(what)) => self.events.emit(
                Severity::Warning,
                "wiring-restored",
                attachment.endpoint.as_str(),
                format!("somebody changed {}: {what} put back", attachment.interface),
            ),
            Err(error) => {
                tracing::warn!(%error, endpoint = %attachment.endpoint, "its wire cannot be put right");
            }
        }
    }

    /// What was missing and is there again, in words.
    async fn restore(
        &self,
        host: &Host,
        link: &Link,
        attachment: &Attachment,
    ) -> Result<Option<String>, AttachError> {
        let wiring = self.wiring(attachment)?;
        if attachment.group.is_some() {
            return Ok(self.restore_tree(&wiring, link, &host.found).await?);
        }
        let peer = !matches!(attachment.place, Place::Interface(_));
        let missing = wiring.missing(&host.netlink, link, &host.found, peer).await?;
        if missing.is_empty() {
            return Ok(None);
        }
        let missing = missing.join(", ");
        let inside = match Target::find(&attachment.place) {
            Ok(Target::Namespace { inside, .. }) => Some(inside),
            // The process by which it was found has ended; the rest can be put back all the same.
            Ok(Target::Interface(_) | Target::Group) | Err(_) => None,
        };
        wiring.restore(&host.netlink, link, inside.as_ref()).await?;
        let (now, found) = (host.netlink.link(&link.name).await?, host.netlink.found().await?);
        let still = wiring.missing(&host.netlink, &now, &found, peer && inside.is_some()).await?;
        if still.is_empty() {
            return Ok(Some(missing));
        }
        Err(super::wiring::WireError::Contested(still.join(", ")).into())
    }
}
