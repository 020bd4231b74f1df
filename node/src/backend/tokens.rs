//! Tokens: made here, their public halves agreed by the fabric, their secrets shown once.

use std::time::Duration;

use selvedge_fabric::{
    UnixMs,
    command::{ApiToken, Command, JoinToken, Rights, Role, ServiceToken, TokenScope},
    id::{NodeName, ServiceRef, ZoneName},
    key::{Hash, Signer, TokenId},
    token::{ApiTokenText, JoinTokenText, Secret, Seed, ServiceTokenText, TokenError},
    view::Liveness,
};

use super::{Node, Result};
use crate::{
    api::{ApiError, Caller, Code, rights, types},
    clock,
};

/// Lifetime of a join token, when none is given: long enough to start a batch of machines.
const JOIN_TTL: Duration = Duration::from_secs(24 * 3600);
/// Lifetime of service and API tokens, when none is given.
const LONG_TTL: Duration = Duration::from_secs(365 * 24 * 3600);
/// Seeds named in a join token, so that it stays short enough to paste.
const MAX_SEEDS: usize = 3;

impl Node {
    pub(super) fn find_api_token(&self, bearer: &str) -> Result<Caller> {
        let unknown = || ApiError::new(Code::Unauthenticated, "the API token is unknown, revoked or expired");
        let token = ApiTokenText::parse(bearer).map_err(|e| {
            ApiError::new(Code::Unauthenticated, format!("the bearer token is no API token: {e}"))
        })?;
        let policy = self.policy();
        let known = policy.api_tokens.get(&token.id).ok_or_else(unknown)?;
        if !token.secret.matches(&known.secret_hash) || known.not_after_ms <= clock::unix_ms() {
            return Err(unknown());
        }
        Ok(Caller::Token { id: token.id, name: known.name.clone(), rights: known.rights })
    }

    pub(super) async fn make_token(
        &self,
        caller: &Caller,
        request: types::TokenRequest,
    ) -> Result<types::TokenCreated> {
        match request {
            types::TokenRequest::Join { role, zone, uses, ttl_ms, seeds } => {
                caller.require_admin("make join tokens")?;
                let role = parse_role(&role)?;
                let zone = zone.parse::<ZoneName>().map_err(|e| ApiError::bad_request(e.to_string()))?;
                self.make_join_token(caller, role, zone, uses.unwrap_or(1), ttl_ms, seeds).await
            }
            types::TokenRequest::Service { service, nodes, zones, ttl_ms } => {
                let service =
                    service.parse::<ServiceRef>().map_err(|e| ApiError::bad_request(e.to_string()))?;
                rights::require_domain(caller, &self.policy(), &service.domain)?;
                let scope = parse_scope(&nodes, &zones)?;
                self.make_service_token(caller, service, scope, ttl_ms).await
            }
            types::TokenRequest::Api { name, rights, ttl_ms } => {
                caller.require_admin("make API tokens")?;
                self.make_api_token(caller, name, rights, ttl_ms).await
            }
        }
    }

    async fn make_join_token(
        &self,
        caller: &Caller,
        role: Role,
        zone: ZoneName,
        uses: u32,
        ttl_ms: Option<u64>,
        seeds: Vec<String>,
    ) -> Result<types::TokenCreated> {
        let policy = self.policy();
        let params = policy.params.as_ref().ok_or_else(not_ready)?;
        let seeds = if seeds.is_empty() { self.default_seeds() } else { seeds };
        let seeds = seeds.iter().map(|s| s.parse::<Seed>()).collect::<std::result::Result<_, _>>();
        let text = JoinTokenText {
            fabric: params.id,
            fabric_name: params.name.clone(),
            ca_pin: Hash::of(&params.root_cert),
            seeds: seeds.map_err(ApiError::bad_request)?,
            role,
            zone: zone.clone(),
            not_after_ms: end(ttl_ms, JOIN_TTL),
            id: TokenId(rand::random()),
            secret: Secret::new(rand::random()),
        };
        // Before it is agreed: a token that cannot be shown must not exist.
        let shown = text.expose().map_err(unshown)?;
        let token = JoinToken {
            id: text.id,
            secret_hash: text.secret.hash(),
            role,
            zone,
            not_after_ms: text.not_after_ms,
            uses_left: uses,
        };
        let applied = self.propose(caller, Command::CreateJoinToken(token)).await?;
        Ok(created(text.id, shown, "join", text.not_after_ms, applied.revision))
    }

    async fn make_service_token(
        &self,
        caller: &Caller,
        service: ServiceRef,
        scope: TokenScope,
        ttl_ms: Option<u64>,
    ) -> Result<types::TokenCreated> {
        let text = ServiceTokenText {
            fabric: self.identity.fabric_id,
            service: service.clone(),
            id: TokenId(rand::random()),
            seed: Secret::new(rand::random()),
            not_after_ms: end(ttl_ms, LONG_TTL),
        };
        let (id, not_after_ms) = (text.id, text.not_after_ms);
        let shown = text.expose().map_err(unshown)?;
        let token = ServiceToken { id, service, key: text.signing_key().public_key(), scope, not_after_ms };
        let applied = self.propose(caller, Command::CreateServiceToken(token)).await?;
        Ok(created(id, shown, "service", not_after_ms, applied.revision))
    }

    async fn make_api_token(
        &self,
        caller: &Caller,
        name: String,
        rights: Rights,
        ttl_ms: Option<u64>,
    ) -> Result<types::TokenCreated> {
        let text = ApiTokenText { id: TokenId(rand::random()), secret: Secret::new(rand::random()) };
        let (id, not_after_ms) = (text.id, end(ttl_ms, LONG_TTL));
        let shown = text.expose().map_err(unshown)?;
        let token = ApiToken { id, name, secret_hash: text.secret_hash(), rights, not_after_ms };
        let applied = self.propose(caller, Command::CreateApiToken(token)).await?;
        Ok(created(id, shown, "api", not_after_ms, applied.revision))
    }

    /// This node first, then living processors of other clouds, so that the token works when one cloud
    /// is gone.
    fn default_seeds(&self) -> Vec<String> {
        let (policy, view) = (self.policy(), self.view());
        let mut seeds: Vec<_> = self.advertised.iter().take(1).map(ToString::to_string).collect();
        let mut clouds = vec![self.identity.zone.cloud().clone()];
        for (name, admission) in &policy.nodes {
            let seen = view.nodes.get(name).filter(|n| n.state == Liveness::Alive);
            let address = seen.and_then(|n| n.addresses.first());
            let Some(address) = address.filter(|_| admission.role == Role::Processor) else { continue };
            if seeds.len() < MAX_SEEDS && !clouds.contains(admission.zone.cloud()) {
                clouds.push(admission.zone.cloud().clone());
                seeds.push(address.to_string());
            }
        }
        seeds
    }

    /// All tokens for admins, those of its services for the admin of a domain.
    pub(super) fn list_tokens(&self, caller: &Caller) -> Vec<types::TokenItem> {
        let policy = self.policy();
        let now = clock::unix_ms();
        let item = |id: &TokenId, kind: &str, subject: String, not_after_ms: UnixMs| types::TokenItem {
            id: id.to_string(),
            kind: kind.to_owned(),
            subject,
            expires: types::rfc3339(not_after_ms),
            expired: not_after_ms <= now,
            uses_left: None,
            scope: Vec::new(),
        };
        let joins = policy.join_tokens.values().map(|t| types::TokenItem {
            uses_left: Some(t.uses_left),
            ..item(&t.id, "join", format!("{} in {}", t.role, t.zone), t.not_after_ms)
        });
        let listed = |t: &&ServiceToken| rights::may_list(caller, &policy, &t.service);
        let services = policy.service_tokens.values().filter(listed).map(|t| types::TokenItem {
            scope: scope_text(&t.scope),
            ..item(&t.id, "service", t.service.to_string(), t.not_after_ms)
        });
        let apis = policy.api_tokens.values().map(|t| types::TokenItem {
            scope: vec![format!("{:?}", t.rights).to_ascii_lowercase()],
            ..item(&t.id, "api", t.name.clone(), t.not_after_ms)
        });
        if caller.is_admin() { joins.chain(services).chain(apis).collect() } else { services.collect() }
    }
}

fn created(
    id: TokenId,
    token: String,
    kind: &str,
    not_after_ms: UnixMs,
    revision: u64,
) -> types::TokenCreated {
    types::TokenCreated {
        id: id.to_string(),
        token,
        kind: kind.to_owned(),
        expires: types::rfc3339(not_after_ms),
        revision,
    }
}

fn unshown(error: TokenError) -> ApiError {
    ApiError::bad_request(error.to_string())
}

fn not_ready() -> ApiError {
    ApiError::new(Code::Unavailable, "this node has no policy yet")
        .remedy("wait until `selvedge status` says ready")
}

fn end(ttl_ms: Option<u64>, default: Duration) -> UnixMs {
    clock::unix_ms().saturating_add(ttl_ms.unwrap_or(default.as_millis() as u64))
}

fn parse_role(text: &str) -> Result<Role> {
    match text {
        "processor" => Ok(Role::Processor),
        "workload" => Ok(Role::Workload),
        other => Err(ApiError::bad_request(format!("{other:?} is no role: write processor or workload"))),
    }
}

fn parse_scope(nodes: &[String], zones: &[String]) -> Result<TokenScope> {
    let bad = |e: selvedge_fabric::id::IdError| ApiError::bad_request(e.to_string());
    let nodes = nodes.iter().map(|n| n.parse::<NodeName>()).collect::<std::result::Result<_, _>>();
    let zones = zones.iter().map(|z| z.parse::<ZoneName>()).collect::<std::result::Result<_, _>>();
    Ok(TokenScope { nodes: nodes.map_err(bad)?, zones: zones.map_err(bad)? })
}

fn scope_text(scope: &TokenScope) -> Vec<String> {
    let nodes = scope.nodes.iter().map(|n| format!("node {n}"));
    nodes.chain(scope.zones.iter().map(|z| format!("zone {z}"))).collect()
}
