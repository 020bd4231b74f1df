//! A backend that answers from a few values and remembers what it was asked.

use std::{net::IpAddr, sync::Mutex, time::Duration};

use async_trait::async_trait;
use selvedge_fabric::{
    Revision,
    command::{Apply, Refusal, Rights},
    id::{ContractRef, Name, NodeName, ServiceRef},
    key::TokenId,
    object::{Kind, ObjectKey, PortRange},
};
use selvedge_node::api::{
    ApiError, Backend, Caller, Code,
    backend::Result,
    types::{
        ApplyReply, AssertReply, AttachReply, AttachRequest, Attachment, Change, Description, DiscoverReply,
        Endpoint, EventItem, ExplainReply, HistoryItem, IsolationReport, IsolationRequest, Link, LostChange,
        Manifest, Me, Member, Metadata, NodeState, QuorumReport, ReachItem, Readiness, RecoveryDraft,
        RecoveryReply, RecoveryStatement, RegisterRequest, Registered, ResolveReply, RevocationDraft,
        RevocationReply, RevocationStatement, Route, SelfReply, ServiceStat, Status, TokenCreated, TokenItem,
        TokenRequest, WaitReply,
    },
};
use tokio::sync::watch;

pub(super) struct Fake {
    /// What was asked, one line each.
    pub(super) asked: Mutex<Vec<String>>,
    /// What the next apply answers instead of success.
    pub(super) refuse: Mutex<Option<ApiError>>,
    pub(super) history: Mutex<Vec<HistoryItem>>,
    pub(super) revision: watch::Sender<Revision>,
    pub(super) members: watch::Sender<u64>,
    pub(super) events: watch::Sender<u64>,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            asked: Mutex::default(),
            refuse: Mutex::default(),
            history: Mutex::default(),
            revision: watch::Sender::new(0),
            members: watch::Sender::new(1),
            events: watch::Sender::new(0),
        }
    }
}

impl Fake {
    fn note(&self, line: String) {
        self.asked.lock().unwrap().push(line);
    }

    /// Forgets what was asked, which else would fill the memory of a long run.
    pub(super) fn forget(&self) {
        self.asked.lock().unwrap().clear();
    }

    pub(super) fn last(&self) -> String {
        self.asked.lock().unwrap().last().cloned().unwrap_or_default()
    }

    /// Makes a revision, as an apply at another node would.
    pub(super) fn commit(&self) -> Revision {
        let revision = *self.revision.borrow() + 1;
        self.history.lock().unwrap().push(HistoryItem {
            revision,
            time: "2026-01-01T00:00:00Z".into(),
            actor: "local:0".into(),
            summary: "a change".into(),
            changes: Vec::new(),
        });
        self.revision.send_replace(revision);
        revision
    }

    fn applied(&self) -> ApplyReply {
        ApplyReply { revision: self.commit(), changes: Vec::new(), dry_run: false }
    }
}

pub(super) fn manifest(kind: &str, name: &str) -> Manifest {
    Manifest {
        api_version: "selvedge/v1".into(),
        kind: kind.into(),
        metadata: Metadata { name: name.into(), domain: None },
        spec: serde_json::json!({}),
    }
}

#[async_trait]
impl Backend for Fake {
    async fn authenticate(&self, bearer: &str) -> Result<Caller> {
        let rights = match bearer {
            "all" => Rights::Admin,
            "some" => Rights::Domain,
            "look" => Rights::Read,
            _ => return Err(ApiError::new(Code::Unauthenticated, "unknown API token")),
        };
        Ok(Caller::Token { id: TokenId([0; 9]), name: bearer.to_owned(), rights })
    }

    fn endpoint_at(&self, source: IpAddr) -> Option<Caller> {
        let service: ServiceRef = "voting-svc@voting-app".parse().unwrap();
        let endpoint = Name::new("voting-svc-1").unwrap();
        (source.to_string() == "127.64.0.9").then_some(Caller::Endpoint { endpoint, service })
    }

    async fn apply(&self, caller: &Caller, apply: Apply) -> Result<ApplyReply> {
        if let Some(error) = self.refuse.lock().unwrap().take() {
            return Err(error);
        }
        let keys = apply.set.iter().map(|o| &o.key).chain(&apply.delete);
        let keys: Vec<_> = keys.map(ToString::to_string).collect();
        self.note(format!("apply {} base={:?} by {}", keys.join(","), apply.base, caller.actor()));
        Ok(self.applied())
    }

    async fn dry_run(&self, _caller: &Caller, apply: Apply) -> Result<ApplyReply> {
        self.note("dry_run".into());
        let change = |action: &str, key: &ObjectKey| Change {
            action: action.into(),
            kind: key.kind.to_string(),
            name: key.name.clone(),
            domain: key.domain.as_ref().map(ToString::to_string),
            before: None,
            after: None,
        };
        let created = apply.set.iter().map(|o| change("created", &o.key));
        let changes = created.chain(apply.delete.iter().map(|k| change("deleted", k))).collect();
        Ok(ApplyReply { revision: *self.revision.borrow(), changes, dry_run: true })
    }

    async fn rollback(&self, _caller: &Caller, to: Revision, _base: Option<Revision>) -> Result<ApplyReply> {
        if to > *self.revision.borrow() {
            return Err(Refusal::NotFound(format!("no revision {to}")).into());
        }
        self.note(format!("rollback {to}"));
        Ok(self.applied())
    }

    async fn wait_enforced(
        &self,
        revision: Revision,
        live_only: bool,
        timeout: Duration,
    ) -> Result<WaitReply> {
        self.note(format!("wait {revision} {live_only} {timeout:?}"));
        Ok(WaitReply { enforced: true, revision, stragglers: Vec::new() })
    }

    async fn barrier(&self, _timeout: Duration) -> Result<Revision> {
        self.note("barrier".into());
        Ok(*self.revision.borrow())
    }

    async fn list(&self, kind: Option<Kind>, domain: Option<&Name>) -> Result<Vec<Manifest>> {
        self.note(format!("list {kind:?} {domain:?}"));
        Ok(vec![manifest("Domain", "voting-app")])
    }

    async fn get(&self, key: &ObjectKey) -> Result<Manifest> {
        match key.name.as_str() {
            "nope" => Err(ApiError::not_found(format!("no {key}"))),
            name => Ok(manifest(&key.kind.to_string(), name)),
        }
    }

    async fn describe(&self, key: &ObjectKey) -> Result<Description> {
        Ok(Description {
            object: self.get(key).await?,
            last_change: None,
            refers_to: Vec::new(),
            referred_by: Vec::new(),
            endpoints: Vec::new(),
            revision: *self.revision.borrow(),
        })
    }

    async fn export(&self) -> Result<String> {
        Ok("apiVersion: selvedge/v1\n".into())
    }

    async fn history(&self, since: Revision, limit: usize) -> Result<Vec<HistoryItem>> {
        let history = self.history.lock().unwrap();
        Ok(history.iter().rev().filter(|h| h.revision > since).take(limit).cloned().collect())
    }

    async fn members(&self) -> Result<Vec<Member>> {
        Ok(vec![Member { name: "aws-1".into(), state: "alive".into(), ..Member::default() }])
    }

    async fn links(&self) -> Result<Vec<Link>> {
        Ok(vec![Link { peer: "gcp-1".into(), state: "up".into(), ..Link::default() }])
    }

    async fn routes(&self) -> Result<Vec<Route>> {
        Ok(vec![Route { node: "gcp-1".into(), ..Route::default() }])
    }

    async fn status(&self) -> Result<Status> {
        Ok(Status { ready: true, ..Status::default() })
    }

    async fn quorum_status(&self) -> Result<QuorumReport> {
        Ok(QuorumReport { quorum: true, ..QuorumReport::default() })
    }

    async fn me(&self, caller: &Caller) -> Result<Me> {
        let text = |t: &str| t.to_owned();
        Ok(Me {
            fabric: text("test"),
            node: text("aws-1"),
            zone: text("aws"),
            role: text("processor"),
            suffix: text("fabric.internal"),
            version: text("0"),
            caller: caller.actor(),
        })
    }

    async fn create_token(&self, _caller: &Caller, request: TokenRequest) -> Result<TokenCreated> {
        self.note(format!("{request:?}"));
        Ok(TokenCreated {
            id: "id".into(),
            token: "secret".into(),
            kind: "join".into(),
            expires: "2026-01-01T00:00:00Z".into(),
            revision: 1,
        })
    }

    async fn tokens(&self, _caller: &Caller) -> Result<Vec<TokenItem>> {
        Ok(Vec::new())
    }

    async fn revoke_token(&self, _caller: &Caller, id: &TokenId) -> Result<ApplyReply> {
        self.note(format!("revoke {id}"));
        Ok(self.applied())
    }

    async fn set_node_state(
        &self,
        _caller: &Caller,
        node: &NodeName,
        state: NodeState,
    ) -> Result<ApplyReply> {
        self.note(format!("{node} {state:?}"));
        Ok(self.applied())
    }

    async fn revocation_draft(&self, node: &NodeName) -> Result<RevocationDraft> {
        self.note(format!("draft {node}"));
        Err(ApiError::not_found(format!("there is no node {node}")))
    }

    async fn revoke_by_recovery_key(
        &self,
        _caller: &Caller,
        statement: RevocationStatement,
    ) -> Result<RevocationReply> {
        self.note(format!("revocation of {}", statement.node));
        Ok(RevocationReply { node: statement.node, agreed: false, quorum: false })
    }

    async fn recovery_draft(&self, survivors: Vec<NodeName>) -> Result<RecoveryDraft> {
        self.note(format!("draft of a recovery with {} voters", survivors.len()));
        Ok(RecoveryDraft::default())
    }

    async fn recover(&self, _caller: &Caller, statement: RecoveryStatement) -> Result<RecoveryReply> {
        self.note(format!("recovery under {}", statement.fence_epoch));
        Ok(RecoveryReply::default())
    }

    async fn transfer_leadership(&self, _caller: &Caller, to: &NodeName) -> Result<QuorumReport> {
        self.note(format!("transfer to {to}"));
        Ok(QuorumReport::default())
    }

    async fn lost_changes(&self) -> Result<Vec<LostChange>> {
        Ok(Vec::new())
    }

    async fn remove_node(&self, _caller: &Caller, node: &NodeName) -> Result<ApplyReply> {
        self.note(format!("remove {node}"));
        Ok(self.applied())
    }

    async fn isolation(&self) -> Result<IsolationReport> {
        Ok(IsolationReport { node: "p1".into(), allowed: true, lease: None })
    }

    async fn isolate(&self, caller: &Caller, request: IsolationRequest) -> Result<IsolationReport> {
        self.note(format!("isolate for {} by {}", request.drill, caller.actor()));
        self.isolation().await
    }

    async fn end_isolation(&self, caller: &Caller, holder: Option<&str>) -> Result<IsolationReport> {
        self.note(format!("end drill of {holder:?} by {}", caller.actor()));
        self.isolation().await
    }

    async fn register(&self, _caller: &Caller, request: RegisterRequest) -> Result<Registered> {
        self.note(format!("register {}", request.service));
        let endpoint = Endpoint { id: "e1".into(), service: request.service, ..Endpoint::default() };
        Ok(Registered { endpoint, warnings: Vec::new() })
    }

    async fn deregister(&self, _caller: &Caller, id: &str) -> Result<()> {
        self.note(format!("deregister {id}"));
        Ok(())
    }

    fn flows(&self) -> selvedge_node::flows::Flows {
        selvedge_node::flows::Flows::default()
    }
    async fn attach(&self, caller: &Caller, _request: AttachRequest) -> Result<AttachReply> {
        Err(ApiError::not_found(format!("{} has nothing to attach", caller.actor())))
    }
    async fn detach(&self, _caller: &Caller, endpoint: &str) -> Result<()> {
        Err(ApiError::not_found(endpoint))
    }
    async fn attachments(&self) -> Result<Vec<Attachment>> {
        Ok(Vec::new())
    }
    async fn endpoints(&self) -> Result<Vec<Endpoint>> {
        Ok(Vec::new())
    }

    async fn resolve(
        &self,
        name: &str,
        record_type: &str,
        asker: Option<&ServiceRef>,
    ) -> Result<ResolveReply> {
        self.note(format!("resolve {name} {record_type} {asker:?}"));
        Ok(ResolveReply {
            name: name.into(),
            kind: record_type.into(),
            rcode: "NXDOMAIN".into(),
            answers: Vec::new(),
            additional: Vec::new(),
            revision: 0,
        })
    }

    async fn explain(&self, from: &ServiceRef, to: &ServiceRef, port: PortRange) -> Result<ExplainReply> {
        self.note(format!("explain {from} {to} {port}"));
        Ok(ExplainReply {
            verdict: "deny".into(),
            contract: None,
            rule: None,
            reason: "no-contract".into(),
            revision: 0,
            hops: Vec::new(),
            detail: String::new(),
        })
    }

    async fn reach(&self, _from: Option<&ServiceRef>, _to: Option<&ServiceRef>) -> Result<Vec<ReachItem>> {
        Ok(Vec::new())
    }

    async fn check_assertions(&self, document: &str) -> Result<AssertReply> {
        self.note(format!("assert {} bytes", document.len()));
        Ok(AssertReply { passed: true, revision: 0, results: Vec::new() })
    }

    async fn events(&self, since: u64, limit: usize) -> Result<Vec<EventItem>> {
        let item = |sequence| EventItem {
            sequence,
            time: "2026-01-01T00:00:00Z".into(),
            severity: "security".into(),
            code: "peer-refused".into(),
            subject: "10.0.0.1".into(),
            message: "wrong key".into(),
        };
        Ok((since + 1..=*self.events.borrow()).take(limit).map(item).collect())
    }

    fn watch_revision(&self) -> watch::Receiver<Revision> {
        self.revision.subscribe()
    }

    fn watch_members(&self) -> watch::Receiver<u64> {
        self.members.subscribe()
    }

    fn watch_events(&self) -> watch::Receiver<u64> {
        self.events.subscribe()
    }

    async fn discover(&self, caller: &Caller, contract: &ContractRef) -> Result<DiscoverReply> {
        self.note(format!("discover {contract} by {}", caller.actor()));
        Err(ApiError::not_found(format!("no contract {contract} that you may reach")))
    }

    async fn service_stat(&self, caller: &Caller) -> Result<ServiceStat> {
        Ok(ServiceStat { name: caller.actor(), ..ServiceStat::default() })
    }

    async fn whoami(&self, _caller: &Caller) -> Result<SelfReply> {
        Ok(SelfReply {
            endpoint: Endpoint::default(),
            node: "aws-1".into(),
            suffix: "fabric.internal".into(),
            reaches: Vec::new(),
            serves: Vec::new(),
            revision: 0,
        })
    }

    fn metrics(&self) -> String {
        "# TYPE selvedge_up gauge\nselvedge_up 1\n".into()
    }

    fn healthy(&self) -> std::result::Result<(), String> {
        Ok(())
    }

    fn readiness(&self) -> Readiness {
        Readiness { ready: false, waiting_for: vec!["a plan".into()] }
    }
}
