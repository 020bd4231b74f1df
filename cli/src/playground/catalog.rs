//! What the graphs of a playground ask for: which services must run where, and which names must answer.
//! Read from the same objects that are applied.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use selvedge_fabric::{
    id::{ContractRef, Name, ServiceRef},
    manifest,
    object::{ContractSpec, Object, Protocol, Spec},
};

use super::state::Use;

/// The reference applications, as they are shipped.
const REFERENCE: [(&str, &str); 2] = [
    ("voting-app.yaml", include_str!("../../../configs/graphs/voting-app.yaml")),
    ("getaway-app.yaml", include_str!("../../../configs/graphs/getaway-app.yaml")),
];

/// A file of manifests.
#[derive(Debug, Clone)]
pub(crate) struct Graph {
    /// Its file name, for messages.
    pub(crate) name: String,
    pub(crate) text: String,
}

/// A service of the graphs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceNeed {
    pub(crate) service: ServiceRef,
    /// The TCP ports at which contracts expect it. A pure client has none.
    pub(crate) ports: BTreeSet<u16>,
}

/// A contract whose name must answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ContractNeed {
    pub(crate) contract: ContractRef,
    /// Who serves it.
    pub(crate) servers: BTreeSet<ServiceRef>,
    /// At which TCP ports.
    pub(crate) ports: BTreeSet<u16>,
    /// Who plays another of its roles.
    pub(crate) clients: BTreeSet<ServiceRef>,
}

impl ContractNeed {
    fn of(contract: ContractRef) -> Self {
        Self { contract, servers: BTreeSet::new(), ports: BTreeSet::new(), clients: BTreeSet::new() }
    }
}

/// Everything the graphs ask for, in the order of names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Catalog {
    pub(crate) services: Vec<ServiceNeed>,
    pub(crate) contracts: Vec<ContractNeed>,
}

/// Reads the given graphs, or the reference applications when there are none.
pub(crate) fn load(files: &[PathBuf]) -> anyhow::Result<Vec<Graph>> {
    if files.is_empty() {
        let graph = |(name, text): (&str, &str)| Graph { name: name.to_owned(), text: text.to_owned() };
        return Ok(REFERENCE.map(graph).into());
    }
    files.iter().map(|file| read(file)).collect()
}

fn read(file: &Path) -> anyhow::Result<Graph> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read graph {}", file.display()))?;
    Ok(Graph { name: file.display().to_string(), text })
}

impl Catalog {
    /// What `graphs` ask for.
    pub(crate) fn of_graphs(graphs: &[Graph]) -> anyhow::Result<Self> {
        let mut objects = Vec::new();
        for graph in graphs {
            match manifest::parse(&graph.text, Some(&graph.name)) {
                Ok(parsed) => objects.extend(parsed),
                Err(problems) => {
                    let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
                    bail!("{}", lines.join("\n"));
                }
            }
        }
        Self::of_objects(&objects)
    }

    fn of_objects(objects: &[Object]) -> anyhow::Result<Self> {
        let mut contracts: BTreeMap<ContractRef, (&ContractSpec, ContractNeed)> = BTreeMap::new();
        for object in objects {
            if let Spec::Contract(spec) = &object.spec {
                let contract = reference(object)?;
                contracts.insert(contract.clone(), (spec, ContractNeed::of(contract)));
            }
        }
        let mut services = BTreeMap::new();
        for object in objects {
            let Spec::Service(spec) = &object.spec else { continue };
            let service: ServiceRef = reference(object)?;
            let mut ports = BTreeSet::new();
            for binding in &spec.roles {
                // A contract that is not in these graphs is for the apply to judge.
                let Some((contract, need)) = contracts.get_mut(&binding.contract) else { continue };
                let served = tcp_ports(contract, &binding.role);
                let players = if served.is_empty() { &mut need.clients } else { &mut need.servers };
                players.insert(service.clone());
                need.ports.extend(&served);
                ports.extend(served);
            }
            services.insert(service.clone(), ServiceNeed { service, ports });
        }
        let contracts = contracts.into_values().map(|(_, need)| need);
        Ok(Self {
            services: services.into_values().collect(),
            contracts: contracts.filter(|need| !need.servers.is_empty()).collect(),
        })
    }

    /// Who uses which contract.
    pub(crate) fn uses(&self) -> Vec<Use> {
        let names = |players: &BTreeSet<ServiceRef>| players.iter().map(ToString::to_string).collect();
        let of = |need: &ContractNeed| Use {
            contract: format!("{}.{}", need.contract.name, need.contract.domain),
            clients: names(&need.clients),
            servers: names(&need.servers),
            ports: need.ports.iter().copied().collect(),
        };
        self.contracts.iter().map(of).collect()
    }

    /// The DNS names of the contracts, without the suffix.
    pub(crate) fn dns_names(&self) -> Vec<String> {
        self.contracts.iter().map(|c| format!("{}.{}", c.contract.name, c.contract.domain)).collect()
    }
}

fn reference(object: &Object) -> anyhow::Result<ContractRef> {
    let domain = object.key.domain.clone().with_context(|| format!("{} has no domain", object.key))?;
    Ok(ContractRef::new(Name::new(&object.key.name)?, domain))
}

/// The TCP ports at which `role` accepts flows; of a range, the first. The tiny servers speak HTTP, so
/// that other protocols have no endpoint here.
fn tcp_ports(contract: &ContractSpec, role: &Name) -> BTreeSet<u16> {
    let ports = contract.roles.get(role).map(|r| r.ports.as_slice()).unwrap_or_default();
    ports.iter().filter(|p| p.protocol == Protocol::Tcp).map(|p| p.low).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference_catalog() -> Catalog {
        Catalog::of_graphs(&load(&[]).expect("embedded")).expect("the reference graphs are valid")
    }

    #[test]
    fn the_reference_applications_have_ten_contracts_and_eleven_services() {
        let catalog = reference_catalog();
        assert_eq!(catalog.contracts.len(), 10);
        assert_eq!(catalog.services.len(), 11);
        assert!(catalog.dns_names().contains(&"voting-backend.voting-app".to_owned()));
        let clients: Vec<_> =
            catalog.services.iter().filter(|s| s.ports.is_empty()).map(|s| s.service.to_string()).collect();
        assert_eq!(clients, ["http-proxy@getaway-app", "http-proxy@voting-app", "worker@voting-app"]);
    }

    #[test]
    fn a_service_serves_the_ports_of_all_its_contracts() {
        let catalog = reference_catalog();
        let database = catalog.services.iter().find(|s| s.service.to_string() == "voting-db@voting-app");
        assert_eq!(database.expect("voting-db").ports, BTreeSet::from([5432, 6379]));
        let worker = catalog.contracts.iter().find(|c| c.contract.to_string() == "voting-worker@voting-app");
        let worker = worker.expect("voting-worker");
        let servers: Vec<_> = worker.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["voting-db@voting-app"]);
        let clients: Vec<_> = worker.clients.iter().map(ToString::to_string).collect();
        assert_eq!((clients, &worker.ports), (vec!["worker@voting-app".to_owned()], &[6379].into()));
    }

    #[test]
    fn a_missing_graph_is_named() {
        let error = load(&[PathBuf::from("/nonexistent/graph.yaml")]).expect_err("missing");
        assert!(error.to_string().contains("/nonexistent/graph.yaml"), "{error:#}");
    }
}
