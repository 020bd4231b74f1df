//! From the zone of a plan to the index.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
};

use hickory_proto::rr::{
    Name, RData, Record, RecordType,
    rdata::{A, AAAA, NS, PTR, SOA, SRV},
};
use selvedge_fabric::{
    id::{ContractRef, EndpointId, NodeName},
    object::Protocol,
    plan::{Addresses, Target, Zone},
    record::Health,
};

use crate::{
    asker::Asker,
    index::{ContractNumber, Entry, RrSet, Scope, ZoneIndex},
    key::Key,
    reverse::Range,
    text,
    wire::TTL_S,
};

/// Label above the nodes.
const NODE: &str = "node";
/// Label above the endpoints.
const EP: &str = "ep";
/// How long a secondary would wait between refreshes and retries, and keep the zone, in seconds. There
/// are no secondaries; the values follow the TTL.
const SOA_TIMER_S: i32 = 1;

/// Builds the index of a zone.
pub(crate) fn index(zone: &Zone) -> ZoneIndex {
    let apex = if zone.suffix.is_empty() { None } else { absolute(&zone.suffix) };
    let mut builder = Builder::new(zone, apex);
    builder.well_known();
    builder.contracts();
    builder.endpoints();
    builder.nodes();
    builder.finish()
}

/// `text` as a fully qualified name.
fn absolute(text: &str) -> Option<Name> {
    let mut name = Name::from_ascii(text).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// What an endpoint or node is seen by, and said of it.
#[derive(Default)]
struct Seen<'a> {
    contracts: BTreeSet<ContractNumber>,
    target: Option<&'a Target>,
}

struct Builder<'a> {
    zone: &'a Zone,
    apex: Option<Name>,
    numbers: BTreeMap<&'a ContractRef, ContractNumber>,
    endpoints: BTreeMap<&'a EndpointId, Seen<'a>>,
    nodes: BTreeMap<&'a NodeName, Seen<'a>>,
    names: HashMap<Box<[u8]>, Entry>,
    pointers: HashMap<IpAddr, Entry>,
}

impl<'a> Builder<'a> {
    fn new(zone: &'a Zone, apex: Option<Name>) -> Self {
        let mut builder = Self {
            zone,
            apex,
            numbers: (0..).zip(zone.contracts.keys()).map(|(number, contract)| (contract, number)).collect(),
            endpoints: BTreeMap::new(),
            nodes: BTreeMap::new(),
            names: HashMap::new(),
            pointers: HashMap::new(),
        };
        for (number, target) in
            (0..).zip(zone.contracts.values()).flat_map(|(n, ts)| ts.iter().map(move |t| (n, t)))
        {
            let endpoint = builder.endpoints.entry(&target.endpoint).or_default();
            endpoint.contracts.insert(number);
            endpoint.target = Some(target);
            builder.nodes.entry(&target.node).or_default().contracts.insert(number);
        }
        builder
    }

    /// The apex, and the empty non-terminals that exist in every fabric.
    fn well_known(&mut self) {
        let sets = self.apex_sets();
        self.put(&[], Scope::Everyone, sets);
        self.put(&[NODE], Scope::Everyone, Vec::new());
        self.put(&[EP], Scope::Everyone, Vec::new());
    }

    fn apex_sets(&self) -> Vec<RrSet> {
        let Some(server) = self.server() else { return Vec::new() };
        let addresses = self.zone.me.as_ref().and_then(|me| self.zone.nodes.get(me));
        let glue = addresses.map(|a| address_records(&server, a)).unwrap_or_default();
        let ns = RrSet { rtype: RecordType::NS, data: [RData::NS(NS(server))].into(), glue: glue.into() };
        self.soa().into_iter().map(|soa| RrSet::new(RecordType::SOA, vec![soa])).chain([ns]).collect()
    }

    fn soa(&self) -> Option<RData> {
        let contact = self.name(&["hostmaster"])?;
        let (serial, timer) = (self.zone.serial, SOA_TIMER_S);
        Some(RData::SOA(SOA::new(self.server()?, contact, serial, timer, timer, timer, TTL_S)))
    }

    /// The name of this name server: this node, or the apex while it has no name.
    fn server(&self) -> Option<Name> {
        match &self.zone.me {
            Some(me) => self.name(&[me.as_str(), NODE]),
            None => self.apex.clone(),
        }
    }

    fn contracts(&mut self) {
        let mut domains: BTreeMap<&str, BTreeSet<ContractNumber>> = BTreeMap::new();
        for (contract, targets) in &self.zone.contracts {
            let Some(&number) = self.numbers.get(contract) else { continue };
            domains.entry(contract.domain.as_str()).or_default().insert(number);
            self.contract(contract, number, targets);
        }
        for (domain, contracts) in domains {
            let scope = Scope::of(&contracts);
            for path in [&[domain][..], &["_tcp", domain], &["_udp", domain]] {
                self.put(path, scope.clone(), Vec::new());
            }
        }
    }

    fn contract(&mut self, contract: &ContractRef, number: ContractNumber, targets: &[Target]) {
        let (name, domain) = (contract.name.as_str(), contract.domain.as_str());
        let scope = Scope::Reaching([number].into());
        let serving = serving(targets);

        let mut sets = address_sets(serving.iter().map(|target| &target.addresses));
        sets.push(self.srv(&serving, |_| true));
        sets.push(RrSet::new(RecordType::TXT, targets.iter().map(text::of_contract).collect()));
        self.put(&[name, domain], scope.clone(), sets);

        // Both exist whatever the endpoints serve: a name must not come and go with them.
        let service = format!("_{name}");
        for (label, protocol) in [("_tcp", Protocol::Tcp), ("_udp", Protocol::Udp)] {
            let srv = self.srv(&serving, |p| p == protocol);
            self.put(&[&service, label, domain], scope.clone(), vec![srv]);
        }
    }

    /// The SRV records of the ports that `wanted` accepts. ICMP has no ports to name.
    fn srv(&self, targets: &[&Target], wanted: impl Fn(Protocol) -> bool) -> RrSet {
        let mut seen = HashSet::new();
        let (mut data, mut glue) = (Vec::new(), Vec::new());
        for target in targets {
            let Some(name) = self.name(&[target.endpoint.as_str(), EP]) else { continue };
            let ports =
                target.ports.iter().filter(|(p, _)| matches!(p, Protocol::Tcp | Protocol::Udp) && wanted(*p));
            let before = data.len();
            for &(_, port) in ports {
                if seen.insert((&target.endpoint, port)) {
                    data.push(RData::SRV(SRV::new(target.priority, target.weight, port, name.clone())));
                }
            }
            if data.len() > before {
                glue.extend(address_records(&name, &target.addresses));
            }
        }
        RrSet { rtype: RecordType::SRV, data: data.into(), glue: glue.into() }
    }

    fn endpoints(&mut self) {
        let seen = std::mem::take(&mut self.endpoints);
        for (id, addresses) in &self.zone.endpoints {
            let of = seen.get(id);
            let scope = Scope::of(of.map_or(&BTreeSet::new(), |s| &s.contracts));
            let mut sets = address_sets([addresses].into_iter());
            sets.extend(
                of.and_then(|s| s.target).map(|t| RrSet::new(RecordType::TXT, vec![text::of_endpoint(t)])),
            );
            self.put(&[id.as_str(), EP], scope.clone(), sets);
            self.point(addresses, &[id.as_str(), EP], &scope);
        }
    }

    /// Nodes exist for those who reach something on them; this one for everybody, as it is the name
    /// server that the NS record names.
    fn nodes(&mut self) {
        let seen = std::mem::take(&mut self.nodes);
        let nowhere = Addresses::default();
        let me = self.zone.me.iter().map(|me| (me, &nowhere));
        for (node, addresses) in me.chain(&self.zone.nodes) {
            let scope = match seen.get(node) {
                _ if self.zone.me.as_ref() == Some(node) => Scope::Everyone,
                Some(seen) => Scope::of(&seen.contracts),
                None => Scope::of(&BTreeSet::new()),
            };
            self.put(&[node.as_str(), NODE], scope.clone(), address_sets([addresses].into_iter()));
            self.point(addresses, &[node.as_str(), NODE], &scope);
        }
    }

    /// PTR records. An address belongs to one endpoint or node; should two claim it, the first stays.
    fn point(&mut self, addresses: &Addresses, path: &[&str], scope: &Scope) {
        let Some(target) = self.name(path) else { return };
        let ips = addresses.ipv4.map(IpAddr::from).into_iter().chain(addresses.ipv6.map(IpAddr::from));
        for ip in ips {
            let ptr = RrSet::new(RecordType::PTR, vec![RData::PTR(PTR(target.clone()))]);
            self.pointers.entry(ip).or_insert_with(|| Entry::new(scope.clone(), vec![ptr]));
        }
    }

    /// The name with these labels below the apex; `None` when it would exceed the limits of the DNS.
    fn name(&self, path: &[&str]) -> Option<Name> {
        let labels = path.iter().map(|label| label.as_bytes()).chain(self.apex.as_ref()?.iter());
        Name::from_labels(labels).ok()
    }

    fn put(&mut self, path: &[&str], scope: Scope, sets: Vec<RrSet>) {
        let key = self.apex.as_ref().and_then(|apex| Key::of_labels(path, apex));
        if let Some(key) = key {
            self.names.insert(key.as_bytes().into(), Entry::new(scope, sets));
        }
    }

    fn finish(self) -> ZoneIndex {
        let reach = self.zone.reach.iter().map(|(service, contracts)| {
            let numbers: BTreeSet<_> =
                contracts.iter().filter_map(|c| self.numbers.get(c).copied()).collect();
            (service.clone(), numbers.into_iter().collect())
        });
        let askers = self.zone.askers.iter().map(|(ip, service)| (*ip, Asker::Service(service.clone())));
        ZoneIndex {
            apex_sets: self.apex_sets().into(),
            soa: self.soa(),
            reach: reach.collect(),
            askers: askers.collect(),
            ranges: self.zone.ranges.iter().map(|&(ip, prefix)| Range::new(ip, prefix)).collect(),
            apex: self.apex,
            names: self.names,
            pointers: self.pointers,
        }
    }
}

/// The targets to answer: failing ones only when no other is left, for then the checks may be what is
/// wrong.
fn serving(targets: &[Target]) -> Vec<&Target> {
    let sound: Vec<_> = targets.iter().filter(|target| target.health != Health::Failing).collect();
    if sound.is_empty() { targets.iter().collect() } else { sound }
}

/// A and AAAA sets, in the order given, without repetitions.
fn address_sets<'t>(addresses: impl Iterator<Item = &'t Addresses>) -> Vec<RrSet> {
    let (mut a, mut aaaa, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
    for one in addresses {
        a.extend(one.ipv4.filter(|ip| seen.insert(IpAddr::from(*ip))).map(|ip| RData::A(A(ip))));
        aaaa.extend(one.ipv6.filter(|ip| seen.insert(IpAddr::from(*ip))).map(|ip| RData::AAAA(AAAA(ip))));
    }
    vec![RrSet::new(RecordType::A, a), RrSet::new(RecordType::AAAA, aaaa)]
}

fn address_records(name: &Name, addresses: &Addresses) -> Vec<Record> {
    let a = addresses.ipv4.map(|ip| RData::A(A(ip)));
    let aaaa = addresses.ipv6.map(|ip| RData::AAAA(AAAA(ip)));
    a.into_iter().chain(aaaa).map(|data| Record::from_rdata(name.clone(), TTL_S, data)).collect()
}

impl RrSet {
    fn new(rtype: RecordType, data: Vec<RData>) -> Self {
        Self { rtype, data: data.into(), glue: [].into() }
    }
}

impl Entry {
    /// Sets without records are left out: an entry with none is an empty non-terminal.
    fn new(scope: Scope, sets: Vec<RrSet>) -> Self {
        Self { scope, sets: sets.into_iter().filter(|set| !set.data.is_empty()).collect() }
    }
}

impl Scope {
    fn of(contracts: &BTreeSet<ContractNumber>) -> Self {
        Self::Reaching(contracts.iter().copied().collect())
    }
}
