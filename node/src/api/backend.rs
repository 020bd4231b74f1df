//! What the daemon implements for the API.
//!
//! Callers are authenticated before a method is called, and the router has refused whoever lacks the
//! right for the *operation*. Rights on *objects* (which domain) depend on the policy: implementations
//! judge them with [`super::rights`].

use std::{net::IpAddr, time::Duration};

use async_trait::async_trait;
use selvedge_fabric::{
    Revision,
    command::Apply,
    id::{ContractRef, Name, NodeName, ServiceRef},
    key::TokenId,
    object::{Kind, ObjectKey, PortRange},
};
use tokio::sync::watch;

use super::{
    caller::Caller,
    error::ApiError,
    types::{
        ApplyReply, AssertReply, AttachReply, AttachRequest, Attachment, Description, DiscoverReply,
        Endpoint, EventItem, ExplainReply, HistoryItem, IsolationReport, IsolationRequest, Link, LostChange,
        Manifest, Me, Member, NodeState, QuorumReport, ReachItem, Readiness, RecoveryDraft, RecoveryReply,
        RecoveryStatement, RegisterRequest, Registered, ResolveReply, RevocationDraft, RevocationReply,
        RevocationStatement, Route, SelfReply, ServiceStat, Status, TokenCreated, TokenItem, TokenRequest,
        WaitReply,
    },
};
use crate::flows::Flows;

/// What every operation returns.
pub type Result<T> = std::result::Result<T, ApiError>;

/// Everything that the API can ask of a node. Methods without a [`Caller`] are open to whoever may read.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Finds the holder of a bearer token.
    async fn authenticate(&self, bearer: &str) -> Result<Caller>;
    /// Finds the endpoint on this node that has this source address; `None` when nobody has it.
    fn endpoint_at(&self, source: IpAddr) -> Option<Caller>;

    /// Sets and deletes objects, all or nothing.
    async fn apply(&self, caller: &Caller, apply: Apply) -> Result<ApplyReply>;
    /// What [`Backend::apply`] would do, with before and after, on the policy as it is here.
    async fn dry_run(&self, caller: &Caller, apply: Apply) -> Result<ApplyReply>;
    /// Makes the objects what they were at a revision.
    async fn rollback(&self, caller: &Caller, to: Revision, base: Option<Revision>) -> Result<ApplyReply>;
    /// Waits until every admitted node (or every one not down, when `live_only`) enforces at least
    /// `revision`; returns after `timeout` at the latest, with the stragglers.
    async fn wait_enforced(
        &self,
        revision: Revision,
        live_only: bool,
        timeout: Duration,
    ) -> Result<WaitReply>;
    /// Returns when reads are at least as new as every write acknowledged before the call.
    async fn barrier(&self, timeout: Duration) -> Result<Revision>;

    /// Objects, in order; of one kind, one domain, when asked.
    async fn list(&self, kind: Option<Kind>, domain: Option<&Name>) -> Result<Vec<Manifest>>;
    /// One object.
    async fn get(&self, key: &ObjectKey) -> Result<Manifest>;
    /// One object with what surrounds it.
    async fn describe(&self, key: &ObjectKey) -> Result<Description>;
    /// All objects as YAML that can be applied again.
    async fn export(&self) -> Result<String>;
    /// Revisions after `since`, newest first, at most `limit`.
    async fn history(&self, since: Revision, limit: usize) -> Result<Vec<HistoryItem>>;

    /// Members as this node sees them, by name.
    async fn members(&self) -> Result<Vec<Member>>;
    /// Links of this node's overlay, by peer; none where it is off.
    async fn links(&self) -> Result<Vec<Link>>;
    /// The ways from this node to all others, where no contract constrains them; none where the overlay
    /// is off.
    async fn routes(&self) -> Result<Vec<Route>>;
    /// Health of fabric and node.
    async fn status(&self) -> Result<Status>;
    /// Leader, voters, what the placement survives.
    async fn quorum_status(&self) -> Result<QuorumReport>;
    /// This node, and the caller as seen by it.
    async fn me(&self, caller: &Caller) -> Result<Me>;

    /// Makes a token. Service tokens may be made by the domain's admins, all others by admins only.
    async fn create_token(&self, caller: &Caller, request: TokenRequest) -> Result<TokenCreated>;
    /// Lists tokens, without their secrets.
    async fn tokens(&self, caller: &Caller) -> Result<Vec<TokenItem>>;
    /// Ends a token.
    async fn revoke_token(&self, caller: &Caller, id: &TokenId) -> Result<ApplyReply>;

    /// Drains a node, ends a drain, or revokes it.
    async fn set_node_state(&self, caller: &Caller, node: &NodeName, state: NodeState) -> Result<ApplyReply>;
    /// What there is to sign for the emergency revocation of a node.
    async fn revocation_draft(&self, node: &NodeName) -> Result<RevocationDraft>;
    /// Revokes a node without a quorum. The recovery key's signature in the statement is what grants it.
    async fn revoke_by_recovery_key(
        &self,
        caller: &Caller,
        statement: RevocationStatement,
    ) -> Result<RevocationReply>;
    /// What there is to sign for a recovery from the loss of a majority, with these processors as voters; the
    /// node chooses them when there are none.
    async fn recovery_draft(&self, survivors: Vec<NodeName>) -> Result<RecoveryDraft>;
    /// Goes on under a new fence epoch. The recovery key's signature in the statement is what grants it.
    async fn recover(&self, caller: &Caller, statement: RecoveryStatement) -> Result<RecoveryReply>;
    /// Has a voter lead.
    async fn transfer_leadership(&self, caller: &Caller, to: &NodeName) -> Result<QuorumReport>;
    /// What recoveries left behind, on all processors that answer.
    async fn lost_changes(&self) -> Result<Vec<LostChange>>;
    /// Takes a node out for good.
    async fn remove_node(&self, caller: &Caller, node: &NodeName) -> Result<ApplyReply>;

    /// What drills do to this node, and may do.
    async fn isolation(&self) -> Result<IsolationReport>;
    /// Takes this node for a drill, renews that, or changes what is cut.
    async fn isolate(&self, caller: &Caller, request: IsolationRequest) -> Result<IsolationReport>;
    /// Releases the lease of a holder, or ends whatever lease there is.
    async fn end_isolation(&self, caller: &Caller, holder: Option<&str>) -> Result<IsolationReport>;

    /// Registers an endpoint on this node. The token in the request is what grants it.
    async fn register(&self, caller: &Caller, request: RegisterRequest) -> Result<Registered>;
    /// Deregisters an endpoint of this node.
    async fn deregister(&self, caller: &Caller, id: &str) -> Result<()>;
    /// Attaches a workload to this node. The token in the request is what grants it.
    async fn attach(&self, caller: &Caller, request: AttachRequest) -> Result<AttachReply>;
    /// Detaches a workload of this node and deregisters its endpoint.
    async fn detach(&self, caller: &Caller, endpoint: &str) -> Result<()>;
    /// What is attached to this node.
    async fn attachments(&self) -> Result<Vec<Attachment>>;
    /// All endpoints that this node knows.
    async fn endpoints(&self) -> Result<Vec<Endpoint>>;

    /// What the DNS of this node answers, to everybody's names or as one service sees them. A name
    /// without a trailing dot that does not end in the suffix is completed with it.
    async fn resolve(
        &self,
        name: &str,
        record_type: &str,
        asker: Option<&ServiceRef>,
    ) -> Result<ResolveReply>;
    /// The verdict for a flow, and why.
    async fn explain(&self, from: &ServiceRef, to: &ServiceRef, port: PortRange) -> Result<ExplainReply>;
    /// Who can reach what.
    async fn reach(&self, from: Option<&ServiceRef>, to: Option<&ServiceRef>) -> Result<Vec<ReachItem>>;
    /// Proves or disproves the assertions of a document (YAML or JSON).
    async fn check_assertions(&self, document: &str) -> Result<AssertReply>;

    /// Events of this node with a sequence above `since`, oldest first, at most `limit`.
    async fn events(&self, since: u64, limit: usize) -> Result<Vec<EventItem>>;
    /// The flow log of this node.
    fn flows(&self) -> Flows;
    /// The present revision; changes wake the watch streams.
    fn watch_revision(&self) -> watch::Receiver<Revision>;
    /// A generation that changes whenever [`Backend::members`] may answer otherwise.
    fn watch_members(&self) -> watch::Receiver<u64>;
    /// Sequence of the newest event, 0 when there is none.
    fn watch_events(&self) -> watch::Receiver<u64>;

    /// Who serves a contract; refused as not found when the caller may not reach it.
    async fn discover(&self, caller: &Caller, contract: &ContractRef) -> Result<DiscoverReply>;
    /// Counters of the caller's service.
    async fn service_stat(&self, caller: &Caller) -> Result<ServiceStat>;
    /// The caller as the fabric knows it.
    async fn whoami(&self, caller: &Caller) -> Result<SelfReply>;

    /// Metrics as Prometheus text that is also valid OpenMetrics but for the final `# EOF`.
    fn metrics(&self) -> String;
    /// Whether the daemon's tasks live. A failure is a reason to restart it.
    fn healthy(&self) -> std::result::Result<(), String>;
    /// Whether the node serves.
    fn readiness(&self) -> Readiness;
}
