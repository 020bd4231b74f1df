//! Process trees: how they are attached in the host's own network, and how that is undone.

use std::{collections::BTreeMap, net::IpAddr};

use selvedge_dataplane::{Place, Workload};
use selvedge_fabric::id::{EndpointId, ServiceRef};

use super::{
    AttachError, Attachments,
    group::Group,
    store::Attachment,
    wiring::{self, WireError, Wiring},
};
use crate::net::{Found, Link};

impl Attachments {
    /// Makes the control group and guards it, before its addresses are there.
    pub(super) async fn lay_tree(
        &self,
        wiring: &Wiring,
        attachment: &mut Attachment,
        workload: (ServiceRef, Workload),
    ) -> Result<(), AttachError> {
        if let Some(group) = &mut attachment.group {
            group.make().await?;
            self.packets.gate_group(&group.directory, workload).await?;
        }
        attachment.index = wiring.lay_to_host().await?.index;
        self.gateway.serve(&wiring.gateways).map_err(AttachError::Gateway)
    }

    /// Ends process trees that nothing on disk knows of: they would go on with addresses that are nobody's.
    pub(super) async fn end_leftovers(&self) {
        let known = self
            .table
            .lock()
            .await
            .values()
            .filter_map(|a| Some(a.group.as_ref()?.directory.clone()))
            .collect();
        for group in self.owner.leftovers(&known) {
            tracing::warn!(group = %group.directory.display(), "a process tree of an earlier life is ended");
            if let Err(error) = group.remove().await {
                tracing::warn!(%error, "it goes on, and reaches nobody");
            }
        }
        // What is gone leaves its addresses to others.
        self.packets.reassert(&self.events).await;
    }

    /// Puts back which of its addresses somebody took from this host, and says which.
    pub(super) async fn restore_tree(
        &self,
        wiring: &Wiring,
        loopback: &Link,
        found: &Found,
    ) -> Result<Option<String>, WireError> {
        let missing = wiring.missing_on_host(loopback, found);
        if missing.is_empty() {
            return Ok(None);
        }
        wiring.lay_to_host().await?;
        Ok(Some(missing.join(", ")))
    }

    /// The addresses go first: without them, nothing that is still in the group reaches anybody. Then the
    /// processes end, and the gate goes last.
    pub(super) async fn undo_tree(&self, attachment: &Attachment, group: &Group) {
        let tell = |what: &str, error: &dyn std::fmt::Display| {
            tracing::warn!(%error, endpoint = %attachment.endpoint, "cannot {what}");
        };
        if let Err(error) = wiring::take_from_host(&attachment.addresses).await {
            tell("take its addresses from this host", &error);
        }
        match group.remove().await {
            Ok(()) => {}
            // Its gate stays as well: better no packet of it than one that nobody judged.
            Err(error) => return tell("end its processes", &error),
        }
        if let Err(error) = self.packets.ungate(Place::Group(group.id)).await {
            tell("take its gate away", &error);
        }
    }

    /// A process tree has its addresses on this host, which would bear them itself when it asks there, and
    /// be refused: so what asks for health asks from the gateway.
    pub(super) fn probe_sources(&self, table: &BTreeMap<EndpointId, Attachment>) -> BTreeMap<IpAddr, IpAddr> {
        let gateways = self.gateways();
        let groups = table.values().filter(|attachment| attachment.group.is_some());
        let addresses = groups.flat_map(|attachment| &attachment.addresses);
        let sources = addresses.filter_map(|address| {
            let gateway = gateways.iter().find(|gateway| gateway.is_ipv4() == address.is_ipv4())?;
            Some((*address, *gateway))
        });
        sources.collect()
    }
}
