//! `selvedge playground exec`: a program in the network of an endpoint, under its service.

use std::{
    ffi::OsString,
    fs::File,
    os::{fd::AsFd as _, unix::process::CommandExt as _},
    path::Path,
    process::{Command, ExitCode},
    thread,
};

use anyhow::{Context as _, bail};
use rustix::{
    mount::{MountPropagationFlags, mount_bind, mount_change},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe},
};

use super::state::{EndpointInfo, NetworkInfo, State};

/// Where programs find who resolves names.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Becomes `program` in the network of the endpoint `who`; returns only when that fails.
pub(crate) fn exec(state: &State, who: &str, program: &[OsString]) -> anyhow::Result<ExitCode> {
    let endpoint = find(state, who)?;
    let Some(network) = &endpoint.network else {
        let why = state.without.as_deref().unwrap_or("it is an old one");
        bail!("the playground in {} has no real packets: {why}", state.dir.display());
    };
    let (name, arguments) = program.split_first().context("no program is named")?;
    let mut command = Command::new(name);
    command.args(arguments);
    // Namespaces belong to threads. The process goes on as the program on the thread that says so, and the
    // others end.
    let become_it = || -> anyhow::Error {
        match enter(network) {
            Ok(()) => command.exec().into(),
            Err(error) => error,
        }
    };
    let failed = thread::scope(|scope| scope.spawn(become_it).join());
    let failed = failed.unwrap_or_else(|_| anyhow::anyhow!("a thread panicked"));
    Err(failed).with_context(|| format!("cannot run {} as {}", Path::new(name).display(), endpoint.id))
}

fn find<'a>(state: &'a State, who: &str) -> anyhow::Result<&'a EndpointInfo> {
    let is_it = |endpoint: &&EndpointInfo| endpoint.id == who || endpoint.service == who;
    if let Some(endpoint) = state.endpoints.iter().find(is_it) {
        return Ok(endpoint);
    }
    let mut services: Vec<_> = state.endpoints.iter().map(|endpoint| endpoint.service.as_str()).collect();
    services.sort_unstable();
    services.dedup();
    bail!("no endpoint or service {who} is in this playground; there are {}", services.join(", "))
}

/// Moves this thread into the network, and lays the resolv.conf of the endpoint over that of the host, for
/// this thread alone.
#[allow(unsafe_code, reason = "unshare of file descriptors would be unsound; rustix has one call for all")]
fn enter(network: &NetworkInfo) -> anyhow::Result<()> {
    let netns = File::open(&network.netns);
    let netns = netns.with_context(|| format!("cannot open {}", network.netns.display()))?;
    // SAFETY: the call is unsound only with UnshareFlags::FILES, which is not among the flags.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.context("cannot make a mount namespace: be root")?;
    let inward = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", inward).context("cannot keep mounts from spreading")?;
    if Path::new(RESOLV_CONF).exists() {
        mount_bind(&network.resolv_conf, RESOLV_CONF)
            .with_context(|| format!("cannot lay {} over {RESOLV_CONF}", network.resolv_conf.display()))?;
    }
    move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))
        .context("cannot enter the network of the endpoint")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(network: Option<NetworkInfo>) -> State {
        let endpoint = EndpointInfo {
            id: "web-1".into(),
            service: "web@shop".into(),
            node: "aws-p1".into(),
            addresses: Vec::new(),
            ports: Vec::new(),
            network,
        };
        State {
            ready: true,
            suffix: "fabric.internal".into(),
            nodes: Vec::new(),
            endpoints: vec![endpoint],
            without: Some("this user is not root".into()),
            contracts: Vec::new(),
            uses: Vec::new(),
            control: "".into(),
            dir: "/tmp/d".into(),
            pid: 1,
        }
    }

    #[test]
    fn an_unknown_endpoint_is_told_which_there_are() {
        let error = exec(&state(None), "nobody", &["true".into()]).expect_err("unknown");
        assert!(error.to_string().contains("there are web@shop"), "{error:#}");
    }

    #[test]
    fn without_real_packets_it_says_why() {
        let error = exec(&state(None), "web@shop", &["true".into()]).expect_err("no network");
        assert!(error.to_string().ends_with("this user is not root"), "{error:#}");
    }

    #[test]
    fn a_network_that_is_gone_is_named() {
        let network = NetworkInfo { netns: "/nonexistent/ns".into(), resolv_conf: "/nonexistent/r".into() };
        let error = exec(&state(Some(network)), "web-1", &["true".into()]).expect_err("gone");
        assert!(format!("{error:#}").contains("/nonexistent/ns"), "{error:#}");
    }
}
