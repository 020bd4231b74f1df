//! What the API asks of a running node, answered from the snapshots that the subsystems publish.
//!
//! Reads never wait: they look at policy, view and plan as this node has them. Writes go through the
//! replica. One file for each group of operations.

mod attach;
mod drill;
mod endpoints;
mod intent;
mod links;
mod members;
mod names;
mod recovery;
mod references;
mod revoke;
mod status;
mod tokens;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use selvedge_consensus::{Proposal, ProposeError, QuorumStatus};
use selvedge_fabric::{
    Revision,
    command::{Applied, Apply, Command, Refusal, Role},
    id::{ContractRef, Name, NodeName, ServiceRef},
    key::{CommandId, TokenId},
    object::{Kind, ObjectKey, PortRange},
    plan::Plan,
    policy::PolicyState,
    view::View,
};
use selvedge_membership::Membership;
use selvedge_overlay::Overlay;
use tokio::sync::watch;

use crate::{
    api::{self, Backend, Caller, rights, types},
    attach::Attachments,
    endpoints::Endpoints,
    events::Events,
    flows::Flows,
    follow::PolicySource,
    identity::Identity,
    isolation::Isolation,
    packets::Packets,
    renew::CertificateClock,
    revocations::EmergencyRevocations,
    watchdog::Watchdog,
};

/// Time for a write to be committed before its outcome is unknown.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Most processors named in a refusal.
const MAX_NAMED: usize = 4;

/// What every operation returns.
type Result<T> = std::result::Result<T, api::ApiError>;

/// A running node, as the API sees it.
pub struct Node {
    /// Who it is.
    pub identity: Identity,
    /// Where the policy comes from.
    pub source: PolicySource,
    /// Keys that the recovery key revoked.
    pub revocations: Arc<EmergencyRevocations>,
    /// The facts.
    pub membership: Membership,
    /// The plan.
    pub plan: watch::Receiver<Arc<Plan>>,
    /// Endpoints of this node.
    pub endpoints: Endpoints,
    /// What is attached to this node.
    pub attachments: Arc<Attachments>,
    /// What decides packets.
    pub packets: Packets,
    /// What happened to flows.
    pub flows: Flows,
    /// Events of this node.
    pub events: Events,
    /// What drills do to it.
    pub isolation: Arc<Isolation>,
    /// When it started.
    pub started: Instant,
    /// What it listens on, by purpose.
    pub listening: BTreeMap<String, Vec<SocketAddr>>,
    /// When its certificate ends.
    pub certificate: CertificateClock,
    /// Seeds to put into join tokens when none are given.
    pub advertised: Vec<SocketAddr>,
    /// Revision and member generation for the watch streams.
    pub watches: Watches,
    /// The overlay, where and once it runs.
    pub overlay: Arc<OnceLock<Overlay>>,
    /// Who watches over the daemon's tasks.
    pub watchdog: Watchdog,
    /// Counters of the subsystems, as Prometheus text.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

/// Numbers that move when something changed.
pub struct Watches {
    /// The revision of the plan.
    pub revision: watch::Receiver<Revision>,
    /// The generation of the view.
    pub members: watch::Receiver<u64>,
}

impl Node {
    fn policy(&self) -> Arc<PolicyState> {
        self.source.policy().borrow().clone()
    }

    /// The policy with the emergency revocations: who serves, not what was agreed.
    fn enforced_policy(&self) -> Arc<PolicyState> {
        let policy = self.policy();
        self.revocations.known().borrow().enforced(&policy).map_or(policy, Arc::new)
    }

    fn view(&self) -> Arc<View> {
        self.membership.view().borrow().clone()
    }

    fn plan(&self) -> Arc<Plan> {
        self.plan.borrow().clone()
    }

    fn quorum(&self) -> Arc<QuorumStatus> {
        self.source.status().borrow().clone()
    }

    async fn propose(&self, caller: &Caller, command: Command) -> Result<Applied> {
        let proposal = Proposal { id: CommandId(rand::random()), actor: caller.actor(), command };
        let Some(replica) = self.source.replica() else { return Err(self.no_writes_here()) };
        replica.propose(proposal, WRITE_TIMEOUT).await.map_err(|e| write_error(&e))
    }
}

impl Node {
    /// A workload node must not act for its callers: it would need rights over the fabric that a
    /// compromised host could use.
    fn no_writes_here(&self) -> api::ApiError {
        let (policy, view) = (self.policy(), self.view());
        let processors = policy.nodes.iter().filter(|(_, admission)| admission.role == Role::Processor);
        let apis = processors.filter_map(|(name, _)| view.nodes.get(name)?.api.first());
        let apis: Vec<_> = apis.take(MAX_NAMED).map(|api| format!("https://{api}")).collect();
        let refusal =
            "this is a workload node: it registers its own endpoints, but intent is changed on a processor";
        api::ApiError::new(api::Code::Refused, refusal).remedy(format!(
            "use --api {} with --token-file, or the local socket of a processor",
            if apis.is_empty() { "of a processor".to_owned() } else { apis.join(",") }
        ))
    }
}

/// What a client is told when a write did not succeed.
fn write_error(error: &ProposeError) -> api::ApiError {
    match error {
        ProposeError::Refused(refusal) => refusal_error(refusal),
        ProposeError::NoQuorum { missing, remedy } => {
            api::ApiError::no_quorum(missing.iter().map(ToString::to_string).collect(), remedy.clone())
        }
        ProposeError::OutcomeUnknown => api::ApiError::outcome_unknown(error.to_string()),
        other => api::ApiError::new(api::Code::Unavailable, other.to_string()),
    }
}

fn refusal_error(refusal: &Refusal) -> api::ApiError {
    let code = match refusal {
        Refusal::Invalid(problems) => return api::ApiError::invalid(problems.clone()),
        Refusal::Conflict { .. } => api::Code::Conflict,
        Refusal::NotFound(_) => api::Code::NotFound,
        Refusal::Limit(_) => api::Code::Limit,
        Refusal::Lifecycle(_) | Refusal::Token(_) | Refusal::Node(_) => api::Code::Refused,
    };
    api::ApiError::new(code, refusal.to_string())
}

#[async_trait]
impl Backend for Node {
    async fn authenticate(&self, bearer: &str) -> Result<Caller> {
        self.find_api_token(bearer)
    }

    fn endpoint_at(&self, source: IpAddr) -> Option<Caller> {
        self.find_attached(source)
    }

    async fn apply(&self, caller: &Caller, apply: Apply) -> Result<types::ApplyReply> {
        self.apply_objects(caller, apply).await
    }

    async fn dry_run(&self, caller: &Caller, apply: Apply) -> Result<types::ApplyReply> {
        self.preview_objects(caller, &apply)
    }

    async fn rollback(
        &self,
        caller: &Caller,
        to: Revision,
        base: Option<Revision>,
    ) -> Result<types::ApplyReply> {
        caller.require_admin("roll back")?;
        let applied = self.propose(caller, Command::Rollback { to, base }).await?;
        Ok((&applied).into())
    }

    async fn wait_enforced(
        &self,
        revision: Revision,
        live_only: bool,
        timeout: Duration,
    ) -> Result<types::WaitReply> {
        Ok(self.wait_until_enforced(revision, live_only, timeout).await)
    }

    async fn barrier(&self, timeout: Duration) -> Result<Revision> {
        self.source.barrier(timeout).await.map_err(|e| write_error(&e))
    }

    async fn list(&self, kind: Option<Kind>, domain: Option<&Name>) -> Result<Vec<types::Manifest>> {
        Ok(self.list_objects(kind, domain))
    }

    async fn get(&self, key: &ObjectKey) -> Result<types::Manifest> {
        self.get_object(key)
    }

    async fn describe(&self, key: &ObjectKey) -> Result<types::Description> {
        self.describe_object(key)
    }

    async fn export(&self) -> Result<String> {
        Ok(self.export_objects())
    }

    async fn history(&self, since: Revision, limit: usize) -> Result<Vec<types::HistoryItem>> {
        Ok(self.history_since(since, limit))
    }

    async fn members(&self) -> Result<Vec<types::Member>> {
        Ok(self.list_members())
    }

    async fn links(&self) -> Result<Vec<types::Link>> {
        Ok(self.list_links())
    }

    async fn routes(&self) -> Result<Vec<types::Route>> {
        Ok(self.list_routes())
    }

    async fn status(&self) -> Result<types::Status> {
        Ok(self.report_status())
    }

    async fn quorum_status(&self) -> Result<types::QuorumReport> {
        Ok(self.report_quorum())
    }

    async fn me(&self, caller: &Caller) -> Result<types::Me> {
        Ok(self.report_me(caller))
    }

    async fn create_token(
        &self,
        caller: &Caller,
        request: types::TokenRequest,
    ) -> Result<types::TokenCreated> {
        self.make_token(caller, request).await
    }

    async fn tokens(&self, caller: &Caller) -> Result<Vec<types::TokenItem>> {
        caller.require_writer("list tokens")?;
        Ok(self.list_tokens(caller))
    }

    async fn revoke_token(&self, caller: &Caller, id: &TokenId) -> Result<types::ApplyReply> {
        rights::require_revoke(caller, &self.policy(), id)?;
        let applied = self.propose(caller, Command::RevokeToken { id: *id }).await?;
        Ok((&applied).into())
    }

    async fn set_node_state(
        &self,
        caller: &Caller,
        node: &NodeName,
        state: types::NodeState,
    ) -> Result<types::ApplyReply> {
        self.change_node_state(caller, node, state).await
    }

    async fn revocation_draft(&self, node: &NodeName) -> Result<types::RevocationDraft> {
        self.draft_revocation(node)
    }

    async fn revoke_by_recovery_key(
        &self,
        caller: &Caller,
        statement: types::RevocationStatement,
    ) -> Result<types::RevocationReply> {
        self.take_revocation(caller, &statement)
    }

    async fn recovery_draft(&self, survivors: Vec<NodeName>) -> Result<types::RecoveryDraft> {
        self.draft_recovery(survivors).await
    }

    async fn recover(
        &self,
        caller: &Caller,
        statement: types::RecoveryStatement,
    ) -> Result<types::RecoveryReply> {
        self.carry_out_recovery(caller, &statement).await
    }

    async fn transfer_leadership(&self, caller: &Caller, to: &NodeName) -> Result<types::QuorumReport> {
        caller.require_admin("change the leader")?;
        self.transfer_to(to).await
    }

    async fn lost_changes(&self) -> Result<Vec<types::LostChange>> {
        self.list_lost().await
    }

    async fn remove_node(&self, caller: &Caller, node: &NodeName) -> Result<types::ApplyReply> {
        caller.require_admin("remove nodes")?;
        let applied = self.propose(caller, Command::RemoveNode { node: node.clone() }).await?;
        Ok((&applied).into())
    }

    async fn isolation(&self) -> Result<types::IsolationReport> {
        Ok(self.report_isolation())
    }

    async fn isolate(
        &self,
        caller: &Caller,
        request: types::IsolationRequest,
    ) -> Result<types::IsolationReport> {
        self.isolate_for_drill(caller, &request)
    }

    async fn end_isolation(&self, caller: &Caller, holder: Option<&str>) -> Result<types::IsolationReport> {
        self.end_drill(caller, holder)
    }

    async fn register(&self, caller: &Caller, request: types::RegisterRequest) -> Result<types::Registered> {
        self.register_endpoint(caller, request).await
    }

    async fn deregister(&self, caller: &Caller, id: &str) -> Result<()> {
        self.deregister_endpoint(caller, id).await
    }

    fn flows(&self) -> Flows {
        self.flows.clone()
    }

    async fn attach(&self, caller: &Caller, request: types::AttachRequest) -> Result<types::AttachReply> {
        self.attach_workload(caller, request).await
    }

    async fn detach(&self, caller: &Caller, endpoint: &str) -> Result<()> {
        self.detach_workload(caller, endpoint).await
    }

    async fn attachments(&self) -> Result<Vec<types::Attachment>> {
        Ok(self.list_attachments().await)
    }

    async fn endpoints(&self) -> Result<Vec<types::Endpoint>> {
        Ok(self.list_endpoints())
    }

    async fn resolve(
        &self,
        name: &str,
        record_type: &str,
        asker: Option<&ServiceRef>,
    ) -> Result<types::ResolveReply> {
        self.resolve_name(name, record_type, asker)
    }

    async fn explain(
        &self,
        from: &ServiceRef,
        to: &ServiceRef,
        port: PortRange,
    ) -> Result<types::ExplainReply> {
        self.explain_flow(from, to, port)
    }

    async fn reach(
        &self,
        from: Option<&ServiceRef>,
        to: Option<&ServiceRef>,
    ) -> Result<Vec<types::ReachItem>> {
        self.list_reach(from, to)
    }

    async fn check_assertions(&self, document: &str) -> Result<types::AssertReply> {
        self.assert_document(document)
    }

    async fn events(&self, since: u64, limit: usize) -> Result<Vec<types::EventItem>> {
        Ok(self.events.since(since, limit))
    }

    fn watch_revision(&self) -> watch::Receiver<Revision> {
        self.watches.revision.clone()
    }

    fn watch_members(&self) -> watch::Receiver<u64> {
        self.watches.members.clone()
    }

    fn watch_events(&self) -> watch::Receiver<u64> {
        self.events.newest()
    }

    async fn discover(&self, caller: &Caller, contract: &ContractRef) -> Result<types::DiscoverReply> {
        self.discover_contract(caller, contract)
    }

    async fn service_stat(&self, caller: &Caller) -> Result<types::ServiceStat> {
        self.caller_counters(caller).await
    }

    async fn whoami(&self, caller: &Caller) -> Result<types::SelfReply> {
        self.describe_caller(caller)
    }

    fn metrics(&self) -> String {
        (self.metrics)()
    }

    fn healthy(&self) -> std::result::Result<(), String> {
        self.check_health()
    }

    fn readiness(&self) -> types::Readiness {
        self.check_readiness()
    }
}
