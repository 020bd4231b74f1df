//! The overlay's TUN, looked after: made again when somebody deletes it, and put right when somebody
//! takes its addresses or routes away. Links to other nodes stay up meanwhile.

use std::{net::IpAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use selvedge_fabric::{
    address::Ipv4Pool,
    event::{EventSink as _, Severity},
    plan::{Addresses, Plan},
    policy::FabricParams,
};
use selvedge_overlay::{Device, DeviceOptions, Replaceable};
use tokio::sync::watch;

use crate::{
    config::OverlayConfig,
    events::Events,
    net::{Link, Netlink, Subnet, sysctl},
    packets::Packets,
};

/// Length of the fabric's IPv6 prefix.
const ULA_PREFIX_LEN: u8 = 48;
/// How often to look whether the device is as it was made.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What the TUN of a node is to be.
pub(super) struct Wanted {
    options: DeviceOptions,
    /// This node's address and the range that is routed here with it, for each family.
    ranges: Vec<(IpAddr, Subnet)>,
}

impl Wanted {
    /// By the fabric's addresses and this node's. The ranges are those of the whole fabric, so the kernel
    /// routes all of it to the TUN.
    ///
    /// # Errors
    /// When the fabric's parameters name no addresses.
    pub(super) fn new(
        config: &OverlayConfig,
        params: &FabricParams,
        addresses: &Addresses,
    ) -> anyhow::Result<Self> {
        let (network, pool_len) = Ipv4Pool::of(params)?.range();
        let mut prefix = [0; 16];
        prefix[..params.ula_prefix.len()].copy_from_slice(&params.ula_prefix);
        let (ipv4, ipv6) = (addresses.ipv4, addresses.ipv6);
        let pool = Subnet { address: network.into(), len: pool_len };
        let ula = Subnet { address: prefix.into(), len: ULA_PREFIX_LEN };
        let ranges = [ipv4.map(|a| (a.into(), pool)), ipv6.map(|a| (a.into(), ula))];
        let options = DeviceOptions {
            name: config.tun.clone(),
            mtu: config.mtu,
            ipv4: ipv4.map(|address| (address, pool_len)),
            ipv6: ipv6.map(|address| (address, ULA_PREFIX_LEN)),
        };
        Ok(Self { options, ranges: ranges.into_iter().flatten().collect() })
    }

    /// Makes the device.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn open(&self) -> anyhow::Result<Device> {
        let name = &self.options.name;
        let device =
            Device::open(&self.options).with_context(|| format!("the TUN device {name} cannot be made"))?;
        // What arrives for workloads of this node is passed on to them.
        sysctl::forward_from(name)?;
        Ok(device)
    }
}

/// A TUN that is looked after.
pub(super) struct Tended {
    pub(super) wanted: Wanted,
    pub(super) tun: Arc<Replaceable>,
    pub(super) plan: watch::Receiver<Arc<Plan>>,
    pub(super) packets: Packets,
    pub(super) events: Events,
}

impl Tended {
    /// The number of the device, if it is there.
    pub(super) async fn index_of(name: &str) -> Option<u32> {
        let link = Netlink::open().ok()?.link(name).await;
        Some(link.ok()?.index)
    }

    /// Looks after it for good. `index`: its number, if it is known.
    pub(super) async fn run(self, mut index: Option<u32>) {
        let name = self.wanted.options.name.clone();
        let mut tick = tokio::time::interval(LOOK_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            match self.look(&mut index).await {
                Ok(None) => {}
                Ok(Some(what)) => {
                    self.events.emit(Severity::Warning, "tun-restored", &name, format!("{name}: {what}"));
                }
                Err(error) => tracing::warn!(tun = %name, "cannot be put right: {error:#}"),
            }
        }
    }

    /// Puts right what is not as it should be, and says what it was. `index`: the number of the device,
    /// once it is known.
    async fn look(&self, index: &mut Option<u32>) -> anyhow::Result<Option<String>> {
        let host = Netlink::open()?;
        let name = &self.wanted.options.name;
        let link = host.links().await?.into_iter().find(|link| link.name == *name);
        if let Some(link) = link
            && *index.get_or_insert(link.index) == link.index
        {
            self.packets.carried_by(link.index).await;
            return self.put_right(&host, &link).await;
        }
        self.tun.replace(Arc::new(self.wanted.open()?));
        let made = host.link(name).await?.index;
        self.packets.carried_by(made).await;
        *index = Some(made);
        Ok(Some("somebody deleted it: it was made again".to_owned()))
    }

    async fn put_right(&self, host: &Netlink, link: &Link) -> anyhow::Result<Option<String>> {
        let found = host.found().await?;
        let mut missing = Vec::new();
        if sysctl::forward_from(&link.name)? {
            missing.push("its forwarding settings".to_owned());
        }
        if link.mtu != u32::from(self.wanted.options.mtu) {
            missing.push(format!("its MTU of {}", self.wanted.options.mtu));
        }
        for (address, range) in &self.wanted.ranges {
            if !found.has_address(link, *address) {
                missing.push(format!("its address {address}"));
            }
            if let Some(other) = self.other(address.is_ipv4())
                && host.leads_to(other).await != Some(link.index)
            {
                missing.push(format!("the route to {range}"));
            }
        }
        if missing.is_empty() {
            return Ok(None);
        }
        host.set_link(link, self.wanted.options.mtu.into(), true).await?;
        for (address, range) in &self.wanted.ranges {
            host.add_address(link, Subnet { address: *address, len: range.len }).await?;
            host.add_route(*range, link, None, Some(*address)).await?;
        }
        Ok(Some(format!("somebody took away {}: put back", missing.join(", "))))
    }

    /// An address of another node, to which the way is by the TUN.
    fn other(&self, ipv4: bool) -> Option<IpAddr> {
        let routing = Arc::clone(&self.plan.borrow().routing);
        let others = routing.nodes.iter().filter(|(id, _)| Some(**id) != routing.me);
        let addresses = others.map(|(_, node)| &node.addresses);
        let mut of_family =
            addresses.filter_map(|a| if ipv4 { a.ipv4.map(IpAddr::from) } else { a.ipv6.map(IpAddr::from) });
        of_family.next()
    }
}
