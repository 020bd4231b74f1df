//! The fabric and its nodes.

use axum::{
    Extension, Json,
    extract::{Path, State},
};
use selvedge_fabric::id::Name;

use super::{By, Ctx, Problem, Reply};
use crate::api::{
    error::ApiError,
    types::{
        ApplyReply, Link, LostChange, Me, Member, NodeStateRequest, QuorumReport, RecoveryDraft,
        RecoveryReply, RecoveryRequest, RecoveryStatement, RevocationDraft, RevocationReply,
        RevocationStatement, Route, Status, TransferRequest,
    },
};

/// This node, and the caller as it sees them.
#[utoipa::path(get, path = "/v1/self", tag = "fabric",
    responses((status = 200, description = "This node", body = Me), Problem))]
pub(in crate::api) async fn me(State(app): Ctx, Extension(caller): By) -> Reply<Me> {
    app.backend.me(&caller).await.map(Json)
}

/// Health of fabric and node.
#[utoipa::path(get, path = "/v1/status", tag = "fabric",
    responses((status = 200, description = "Health", body = Status), Problem))]
pub(in crate::api) async fn status(State(app): Ctx) -> Reply<Status> {
    app.backend.status().await.map(Json)
}

/// Members as this node sees them.
#[utoipa::path(get, path = "/v1/members", tag = "fabric",
    responses((status = 200, description = "Members", body = Vec<Member>), Problem))]
pub(in crate::api) async fn members(State(app): Ctx) -> Reply<Vec<Member>> {
    app.backend.members().await.map(Json)
}

/// Links of this node's overlay.
#[utoipa::path(get, path = "/v1/links", tag = "fabric",
    responses((status = 200, description = "Links; none where the overlay is off", body = Vec<Link>), Problem))]
pub(in crate::api) async fn links(State(app): Ctx) -> Reply<Vec<Link>> {
    app.backend.links().await.map(Json)
}

/// The ways from this node to all others, where no contract constrains them.
#[utoipa::path(get, path = "/v1/routes", tag = "fabric",
    responses((status = 200, description = "Routes; none where the overlay is off", body = Vec<Route>), Problem))]
pub(in crate::api) async fn routes(State(app): Ctx) -> Reply<Vec<Route>> {
    app.backend.routes().await.map(Json)
}

/// Leader, voters, and what the placement survives.
#[utoipa::path(get, path = "/v1/quorum", tag = "fabric",
    responses((status = 200, description = "Quorum", body = QuorumReport), Problem))]
pub(in crate::api) async fn quorum(State(app): Ctx) -> Reply<QuorumReport> {
    app.backend.quorum_status().await.map(Json)
}

/// Drains a node, ends a drain, or revokes it.
#[utoipa::path(put, path = "/v1/nodes/{name}/state", tag = "fabric",
    params(("name" = String, Path)), request_body = NodeStateRequest,
    responses((status = 200, description = "Done", body = ApplyReply), Problem))]
pub(in crate::api) async fn set_state(
    State(app): Ctx,
    Extension(caller): By,
    Path(name): Path<String>,
    Json(request): Json<NodeStateRequest>,
) -> Reply<ApplyReply> {
    caller.require_admin("change nodes")?;
    app.backend.set_node_state(&caller, &node(&name)?, request.state).await.map(Json)
}

/// What there is to sign for the emergency revocation of a node.
#[utoipa::path(get, path = "/v1/nodes/{name}/revocation", tag = "fabric",
    params(("name" = String, Path)),
    responses((status = 200, description = "What to sign", body = RevocationDraft), Problem))]
pub(in crate::api) async fn revocation_draft(
    State(app): Ctx,
    Path(name): Path<String>,
) -> Reply<RevocationDraft> {
    app.backend.revocation_draft(&node(&name)?).await.map(Json)
}

/// Revokes a node at once, on the word of the recovery key: for a fabric without a quorum. The leader makes
/// policy of it as soon as there is one.
#[utoipa::path(post, path = "/v1/revocations", tag = "fabric", request_body = RevocationStatement,
    responses((status = 200, description = "The key is refused from now on", body = RevocationReply), Problem))]
pub(in crate::api) async fn revoke(
    State(app): Ctx,
    Extension(caller): By,
    Json(statement): Json<RevocationStatement>,
) -> Reply<RevocationReply> {
    caller.require_admin("revoke nodes")?;
    app.backend.revoke_by_recovery_key(&caller, statement).await.map(Json)
}

/// What there is to sign for a recovery from the loss of a majority. Changes nothing.
#[utoipa::path(post, path = "/v1/quorum/recovery/draft", tag = "fabric", request_body = RecoveryRequest,
    responses((status = 200, description = "What to sign", body = RecoveryDraft), Problem))]
pub(in crate::api) async fn recovery_draft(
    State(app): Ctx,
    Extension(caller): By,
    Json(request): Json<RecoveryRequest>,
) -> Reply<RecoveryDraft> {
    caller.require_admin("recover the fabric")?;
    let survivors: Result<Vec<_>, _> = request.survivors.iter().map(|name| node(name)).collect();
    app.backend.recovery_draft(survivors?).await.map(Json)
}

/// Goes on without a majority, under a new fence epoch, on the word of the recovery key.
#[utoipa::path(post, path = "/v1/quorum/recovery", tag = "fabric", request_body = RecoveryStatement,
    responses((status = 200, description = "A leader is elected under the new epoch", body = RecoveryReply), Problem))]
pub(in crate::api) async fn recover(
    State(app): Ctx,
    Extension(caller): By,
    Json(statement): Json<RecoveryStatement>,
) -> Reply<RecoveryReply> {
    caller.require_admin("recover the fabric")?;
    app.backend.recover(&caller, statement).await.map(Json)
}

/// Has a voter of one's choice lead.
#[utoipa::path(post, path = "/v1/quorum/transfer", tag = "fabric", request_body = TransferRequest,
    responses((status = 200, description = "It leads", body = QuorumReport), Problem))]
pub(in crate::api) async fn transfer(
    State(app): Ctx,
    Extension(caller): By,
    Json(request): Json<TransferRequest>,
) -> Reply<QuorumReport> {
    caller.require_admin("change the leader")?;
    app.backend.transfer_leadership(&caller, &node(&request.node)?).await.map(Json)
}

/// What recoveries left behind, on all processors that answer.
#[utoipa::path(get, path = "/v1/quorum/lost", tag = "fabric",
    responses((status = 200, description = "Changes that were not taken over", body = Vec<LostChange>), Problem))]
pub(in crate::api) async fn lost(State(app): Ctx) -> Reply<Vec<LostChange>> {
    app.backend.lost_changes().await.map(Json)
}

/// Takes a node out for good.
#[utoipa::path(delete, path = "/v1/nodes/{name}", tag = "fabric", params(("name" = String, Path)),
    responses((status = 200, description = "Done", body = ApplyReply), Problem))]
pub(in crate::api) async fn remove(
    State(app): Ctx,
    Extension(caller): By,
    Path(name): Path<String>,
) -> Reply<ApplyReply> {
    caller.require_admin("remove nodes")?;
    app.backend.remove_node(&caller, &node(&name)?).await.map(Json)
}

fn node(text: &str) -> Result<Name, ApiError> {
    Name::new(text).map_err(|e| ApiError::bad_request(format!("node: {e}")))
}
