//! The configuration files of a playground's nodes.

use std::{fmt::Write as _, net::SocketAddr, path::Path};

use super::layout::NodePlan;

/// How a node finds the fabric.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Entry {
    /// It founded it.
    Founder,
    /// It joins through this seed, with the token in its own directory.
    Joins(SocketAddr),
}

/// The text of a node's configuration, followed by `extra` as it is.
pub(crate) fn node_toml(node: &NodePlan, entry: Entry, extra: &str) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{key} = {value}");
    };
    line("name", quoted(node.name()));
    line("data-dir", path(&node.data_dir()));
    line("role", quoted(node.slot.role.as_str()));
    line("zone", quoted(&node.slot.zone.to_string()));
    if let Entry::Joins(seed) = entry {
        line("seeds", format!("[{}]", quoted(&seed.to_string())));
        line("join-token-file", path(&node.join_token_file()));
    }
    text.push_str("\n[listen]\n");
    let mut line = |key: &str, value: String| {
        let _ = writeln!(text, "{key} = {value}");
    };
    let listen = node.listen;
    line("fabric", quoted(&listen.fabric.to_string()));
    line("gossip", quoted(&listen.gossip.to_string()));
    line("api", quoted(&listen.api.to_string()));
    line("dns", format!("[{}]", quoted(&listen.dns.to_string())));
    line("workload-api", quoted(&listen.workload_api.to_string()));
    line("socket", path(&node.socket));
    if node.public.is_some() {
        text.push_str("\n[advertise]\n");
        for (key, listening) in [("fabric", listen.fabric), ("gossip", listen.gossip)] {
            let _ = writeln!(text, "{key} = [{}]", quoted(&node.advertised(listening).to_string()));
        }
    }
    text.push_str("\n[dns]\nhost-view = \"all\"\nupstreams = []\n\n[timers]\nprofile = \"local\"\n");
    if !extra.is_empty() {
        text.push('\n');
        text.push_str(extra);
    }
    text
}

fn path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// A TOML basic string; its escapes are those of JSON.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::playground::{
        layout::{Network, Shape, lay_out},
        ports::PortBlock,
    };

    #[test]
    fn a_joining_node_names_its_seed_and_token() {
        let shape = Shape { clouds: vec!["aws/us-1".parse().expect("a zone")], processors: 1, workloads: 0 };
        let ports = PortBlock::claim(1, 0).expect("a block");
        let root = Path::new("/tmp/a \"b\"");
        let slot = shape.slots().expect("slots").remove(0);
        let plan = lay_out(vec![(slot.clone(), Network::Host)], root, None, &ports).remove(0);
        let seed = SocketAddr::from(([127, 0, 0, 1], 7401));
        let text = node_toml(&plan, Entry::Joins(seed), "[certificates]\nlifetime = \"20s\"\n");
        assert!(text.contains("zone = \"aws/us-1\"\n"), "{text}");
        assert!(text.contains("seeds = [\"127.0.0.1:7401\"]\n"), "{text}");
        assert!(text.contains(r#"join-token-file = "/tmp/a \"b\"/aws-us-1-p1/join.token""#), "{text}");
        assert!(text.ends_with("[certificates]\nlifetime = \"20s\"\n"), "{text}");
        let founder = node_toml(&plan, Entry::Founder, "");
        assert!(!founder.contains("seeds") && !founder.contains("token"), "{founder}");
        assert!(!founder.contains("advertise"), "{founder}");

        let network = Network::Own(Some([198, 18, 0, 1].into()));
        let plan = lay_out(vec![(slot, network)], root, None, &ports).remove(0);
        let text = node_toml(&plan, Entry::Founder, "");
        assert!(text.contains("[listen]\nfabric = \"0.0.0.0:7401\"\n"), "{text}");
        assert!(text.contains("[advertise]\nfabric = [\"198.18.0.1:7401\"]\n"), "{text}");
    }
}
