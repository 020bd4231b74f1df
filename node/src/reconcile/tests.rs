//! A policy that cannot be carried out whole.

use std::io;

use selvedge_dataplane::DataplaneError;
use selvedge_fabric::{
    command::{Command, Envelope},
    id::{Name, ServiceRef},
    key::{CommandId, FabricId, PublicKey},
    manifest,
    policy::FabricParams,
};

use super::*;

const SHOP: &str = "
apiVersion: selvedge/v1
kind: Domain
metadata: {name: shop}
---
apiVersion: selvedge/v1
kind: Contract
metadata: {name: api, domain: shop}
spec: {template: client-server, roles: {server: {ports: [tcp/80]}}}
---
apiVersion: selvedge/v1
kind: Service
metadata: {name: web, domain: shop}
spec: {roles: [client:api]}
---
apiVersion: selvedge/v1
kind: Service
metadata: {name: back, domain: shop}
spec: {roles: [server:api]}
";

/// One object that is to do harm, and a withdrawal.
const POISON: &str = "
apiVersion: selvedge/v1
kind: Contract
metadata: {name: poison, domain: shop}
spec: {template: peer, roles: {peer: {ports: [tcp/81]}}}
---
apiVersion: selvedge/v1
kind: Service
metadata: {name: imp, domain: shop}
spec: {roles: [peer:poison]}
---
apiVersion: selvedge/v1
kind: Guardrail
metadata: {name: closed}
spec: {action: deny, from: '*', to: back@shop, ports: [tcp/80]}
";

/// A policy that grows, and the planner that follows it.
struct Fixture {
    state: PolicyState,
    policy: watch::Sender<Arc<PolicyState>>,
    view: watch::Sender<Arc<View>>,
    planner: Planner,
    _others: (watch::Sender<Arc<Revocations>>, watch::Sender<Arc<QuorumStatus>>, watch::Sender<Local>),
}

impl Fixture {
    fn new() -> Self {
        let (policy, policies) = watch::channel(Arc::default());
        let (view, views) = watch::channel(Arc::default());
        let (revocations, revoked) = watch::channel(Arc::default());
        let (quorum, quorums) = watch::channel(Arc::default());
        let (local, locals) = watch::channel(Local::default());
        let planner = Planner::new(policies, revoked, views, quorums, locals);
        let mut fixture = Self {
            state: PolicyState::default(),
            policy,
            view,
            planner,
            _others: (revocations, quorum, local),
        };
        let params = FabricParams {
            name: Name::new("test").expect("a name"),
            id: FabricId([1; 16]),
            suffix: "fabric.internal".to_owned(),
            ula_prefix: [0xfd, 1, 2, 3, 4, 5],
            ipv4_pool: "127.64.0.0/10".to_owned(),
            ipv4_block_len: 24,
            root_cert: Vec::new(),
            issuing_cert: Vec::new(),
            recovery_key: PublicKey([0; 32]),
            created_ms: 0,
        };
        fixture.state.params = Some(params);
        fixture
    }

    fn apply(&mut self, yaml: &str) {
        let objects = manifest::parse(yaml, None).expect("it is valid");
        let apply = selvedge_fabric::command::Apply {
            base: None,
            set: objects,
            delete: Vec::new(),
            message: String::new(),
        };
        let id = CommandId([u8::try_from(self.state.revision).expect("few"); 16]);
        let command = Command::Apply(apply);
        self.state.apply(&Envelope { id, at_ms: 1, actor: "test".to_owned(), command }).expect("accepted");
        self.policy.send_replace(Arc::new(self.state.clone()));
    }

    /// Plans, and the kernel takes it.
    fn plan(&mut self) -> Plan {
        let plan = self.planner.plan();
        assert!(!self.planner.learn(&plan, &Ok(())));
        plan
    }
}

fn allows(plan: &Plan, from: &str, to: &str, port: &str) -> bool {
    let service = |name: &str| -> ServiceRef { format!("{name}@shop").parse().expect("a service") };
    let identity = |name: &str| plan.verdicts.identity(&service(name)).unwrap_or_default();
    plan.verdicts.allows_some(identity(from), identity(to), port.parse().expect("a port"))
}

fn sells(plan: &Plan) -> bool {
    allows(plan, "web", "back", "tcp/80")
}

fn is_poisoned(policy: &PolicyState, _: &View) -> bool {
    policy.objects.keys().any(|key| key.name == "poison")
}

/// What must hold of a plan that holds the poison back.
fn assert_held_back(plan: &Plan) {
    assert!(!plan.whole);
    assert!(!allows(plan, "imp", "imp", "tcp/81"), "what is left out is denied");
    assert!(!sells(plan), "what the revision withdraws is withdrawn");
    let alarm = &plan.alarms[0];
    assert_eq!(alarm.code, "held-back");
    assert!(alarm.message.contains("Contract poison@shop"), "{}", alarm.message);
}

#[test]
fn an_object_that_makes_planning_panic_is_left_out_and_withdrawals_are_not() {
    let mut fixture = Fixture::new();
    fixture.apply(SHOP);
    assert!(sells(&fixture.plan()));
    fixture.planner.panics_by = is_poisoned;
    fixture.apply(POISON);
    let plan = fixture.plan();
    assert_held_back(&plan);
    assert!(plan.alarms[0].message.contains("on purpose"), "{}", plan.alarms[0].message);
    assert_held_back(&fixture.plan());

    // Mended, and all is well.
    fixture.planner.panics_by = |_, _| false;
    fixture.apply("{apiVersion: selvedge/v1, kind: Domain, metadata: {name: other}}");
    let plan = fixture.plan();
    assert!(plan.whole && allows(&plan, "imp", "imp", "tcp/81") && !sells(&plan));
}

#[test]
fn a_node_that_starts_with_such_an_object_leaves_out_the_newest_first() {
    let mut fixture = Fixture::new();
    fixture.apply(SHOP);
    fixture.apply(POISON);
    fixture.planner.panics_by = is_poisoned;
    assert_held_back(&fixture.plan());
    let (rest, _) = fixture.state.held_back(&fixture.state.set_since(1));
    assert!(rest.objects.keys().any(|key| key.name == "api"), "what was there before it goes on");
}

#[test]
fn what_the_kernel_does_not_take_is_left_out_at_once() {
    let mut fixture = Fixture::new();
    fixture.apply(SHOP);
    fixture.plan();
    fixture.apply(POISON);
    let refused = || {
        let (action, source) = ("make a map".to_owned(), io::Error::from_raw_os_error(12));
        Err(PacketError::Kernel(DataplaneError::System { action, source }))
    };
    let plan = fixture.planner.plan();
    assert!(plan.whole && fixture.planner.learn(&plan, &refused()), "it plans again at once");
    let plan = fixture.planner.plan();
    assert_held_back(&plan);
    assert!(!fixture.planner.learn(&plan, &refused()), "it is not the policy: what is in force stays");
}

#[test]
fn facts_that_make_planning_panic_are_not_planned_by() {
    let mut fixture = Fixture::new();
    fixture.apply(SHOP);
    let before = fixture.plan();
    fixture.planner.panics_by = |_, view| view.generation == 13;
    fixture.view.send_replace(Arc::new(View { generation: 13, ..View::default() }));
    let plan = fixture.plan();
    assert_eq!((plan.generation, plan.alarms[0].code), (before.generation, "facts-held-back"));
    assert!(plan.whole && sells(&plan));
    fixture.view.send_replace(Arc::new(View { generation: 14, ..View::default() }));
    assert_eq!(fixture.plan().generation, 14);
}
