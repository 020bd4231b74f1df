//! The fabric under drill, whoever runs it: a playground, or a real one.

use std::{net::SocketAddr, path::PathBuf};

use crate::{
    client::Client,
    failure::Outcome,
    playground::state::{EndpointInfo, NodeInfo, State, Use},
};

/// How a node's API is reached, for this program and for others that it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Door {
    /// On this machine.
    Socket(PathBuf),
    /// Over TLS.
    Network {
        /// As `--api` takes them.
        addresses: Vec<String>,
        token_file: PathBuf,
        ca_file: PathBuf,
    },
}

impl Door {
    /// A client for the node behind it.
    pub(crate) fn client(&self) -> Outcome<Client> {
        match self {
            Self::Socket(socket) => Ok(Client::local(socket)),
            Self::Network { addresses, token_file, ca_file } => {
                Client::remote(addresses, token_file, ca_file)
            }
        }
    }

    /// The options of `selvedge` for the node behind it.
    pub(crate) fn options(&self) -> Vec<String> {
        let text = |path: &PathBuf| path.to_string_lossy().into_owned();
        match self {
            Self::Socket(socket) => vec!["--socket".to_owned(), text(socket)],
            Self::Network { addresses, token_file, ca_file } => vec![
                "--api".to_owned(),
                addresses.join(","),
                "--token-file".to_owned(),
                text(token_file),
                "--ca-file".to_owned(),
                text(ca_file),
            ],
        }
    }
}

/// A node under drill.
#[derive(Debug, Clone)]
pub(super) struct Site {
    pub(super) name: String,
    pub(super) zone: String,
    pub(super) role: String,
    pub(super) door: Door,
    pub(super) client: Client,
    /// Its DNS, where that can be asked from here.
    pub(super) dns: Option<SocketAddr>,
}

impl Site {
    fn of_playground(node: &NodeInfo) -> Self {
        Self {
            name: node.name.clone(),
            zone: node.zone.clone(),
            role: node.role.clone(),
            door: Door::Socket(node.socket.clone()),
            client: Client::local(&node.socket),
            dns: Some(node.dns),
        }
    }

    /// Whether it takes part in agreement: only such nodes accept writes.
    pub(super) fn is_processor(&self) -> bool {
        self.role == "processor"
    }

    /// The cloud it lies in: the first part of its zone.
    pub(super) fn cloud(&self) -> &str {
        self.zone.split('/').next().unwrap_or_default()
    }
}

/// All of it.
#[derive(Debug, Clone)]
pub(super) struct Ground {
    pub(super) nodes: Vec<Site>,
    pub(super) endpoints: Vec<EndpointInfo>,
    pub(super) uses: Vec<Use>,
    pub(super) suffix: String,
    /// Whether clients in networks of their own can be asked to send packets.
    pub(super) has_packets: bool,
    /// What it is, for people.
    pub(super) shown: String,
    /// Where the processes are, on a playground.
    pub(super) playground: Option<State>,
}

impl Ground {
    /// A running playground.
    pub(super) fn of_playground(state: State) -> Self {
        let shown = match &state.without {
            None => "a playground with real packets".to_owned(),
            Some(why) => format!("a playground without real packets ({why})"),
        };
        Self {
            nodes: state.nodes.iter().map(Site::of_playground).collect(),
            endpoints: state.endpoints.clone(),
            uses: state.uses.clone(),
            suffix: state.suffix.clone(),
            has_packets: state.without.is_none(),
            shown,
            playground: Some(state),
        }
    }

    /// The clouds in the order of their numbers: `first`, then the others by name.
    ///
    /// # Errors
    /// When there is no such cloud.
    pub(super) fn clouds(&self, first: &[String]) -> anyhow::Result<Vec<String>> {
        let mut all: Vec<_> = self.nodes.iter().map(|node| node.cloud().to_owned()).collect();
        all.sort();
        all.dedup();
        if let Some(unknown) = first.iter().find(|cloud| !all.contains(cloud)) {
            anyhow::bail!("no cloud {unknown:?}; there are {}", all.join(", "));
        }
        let mut clouds = first.to_vec();
        clouds.extend(all.into_iter().filter(|cloud| !first.contains(cloud)));
        Ok(clouds)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A node that nobody reaches.
    pub(in crate::drill) fn site(name: &str, zone: &str) -> Site {
        Site {
            name: name.into(),
            zone: zone.into(),
            role: "processor".into(),
            door: Door::Socket("/s".into()),
            client: Client::local("/s".as_ref()),
            dns: None,
        }
    }

    #[test]
    fn programs_find_the_same_door() {
        let door = Door::Network {
            addresses: vec!["https://a@h:1".into(), "https://a@i:1".into()],
            token_file: "t".into(),
            ca_file: "c".into(),
        };
        assert_eq!(door.options().join(" "), "--api https://a@h:1,https://a@i:1 --token-file t --ca-file c");
        assert_eq!(Door::Socket("/s".into()).options(), ["--socket", "/s"]);
    }
}
