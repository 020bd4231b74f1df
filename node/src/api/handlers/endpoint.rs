//! Endpoints.

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::StatusCode,
};

use super::{By, Ctx, Problem, Reply};
use crate::api::{
    caller::Caller,
    error::ApiError,
    types::{AttachReply, AttachRequest, Attachment, CheckKind, Endpoint, RegisterRequest, Registered},
};

/// All endpoints that this node knows.
#[utoipa::path(get, path = "/v1/endpoints", tag = "endpoints",
    responses((status = 200, description = "Endpoints", body = Vec<Endpoint>), Problem))]
pub(in crate::api) async fn list(State(app): Ctx) -> Reply<Vec<Endpoint>> {
    app.backend.endpoints().await.map(Json)
}

/// Registers an endpoint on this node; the service token in the body is what grants it.
#[utoipa::path(post, path = "/v1/endpoints", tag = "endpoints", request_body = RegisterRequest,
    responses((status = 200, description = "Registered", body = Registered), Problem))]
pub(in crate::api) async fn register(
    State(app): Ctx,
    Extension(caller): By,
    Json(request): Json<RegisterRequest>,
) -> Reply<Registered> {
    caller.require_writer("register endpoints")?;
    let runs_command = request.checks.iter().any(|c| matches!(c.kind, CheckKind::Command { .. }));
    // A command runs with the daemon's rights: whoever may ask for one already owns the host.
    if runs_command && !matches!(caller, Caller::Local { .. }) {
        return Err(ApiError::forbidden("command checks are accepted on the local socket only")
            .remedy("use a tcp or http check, or register on the node itself"));
    }
    app.backend.register(&caller, request).await.map(Json)
}

/// Deregisters an endpoint of this node.
#[utoipa::path(delete, path = "/v1/endpoints/{id}", tag = "endpoints", params(("id" = String, Path)),
    responses((status = 204, description = "Done"), Problem))]
pub(in crate::api) async fn deregister(
    State(app): Ctx,
    Extension(caller): By,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    caller.require_writer("deregister endpoints")?;
    app.backend.deregister(&caller, &id).await.map(|()| StatusCode::NO_CONTENT)
}

/// What is attached to this node.
#[utoipa::path(get, path = "/v1/attachments", tag = "endpoints",
    responses((status = 200, description = "Attachments", body = Vec<Attachment>), Problem))]
pub(in crate::api) async fn attachments(State(app): Ctx) -> Reply<Vec<Attachment>> {
    app.backend.attachments().await.map(Json)
}

/// Attaches a workload to this node: from then on every packet of it is decided by its service.
#[utoipa::path(post, path = "/v1/attachments", tag = "endpoints", request_body = AttachRequest,
    responses((status = 200, description = "Attached", body = AttachReply), Problem))]
pub(in crate::api) async fn attach(
    State(app): Ctx,
    Extension(caller): By,
    Json(request): Json<AttachRequest>,
) -> Reply<AttachReply> {
    require_local(&caller, "attach workloads")?;
    app.backend.attach(&caller, request).await.map(Json)
}

/// Detaches a workload and deregisters its endpoint.
#[utoipa::path(delete, path = "/v1/attachments/{endpoint}", tag = "endpoints",
    params(("endpoint" = String, Path)), responses((status = 204, description = "Done"), Problem))]
pub(in crate::api) async fn detach(
    State(app): Ctx,
    Extension(caller): By,
    Path(endpoint): Path<String>,
) -> Result<StatusCode, ApiError> {
    require_local(&caller, "detach workloads")?;
    app.backend.detach(&caller, &endpoint).await.map(|()| StatusCode::NO_CONTENT)
}

/// Namespaces, processes and interfaces are named as this host knows them, and changing them takes what
/// only its owner has.
fn require_local(caller: &Caller, what: &str) -> Result<(), ApiError> {
    if matches!(caller, Caller::Local { .. }) {
        return Ok(());
    }
    let detail = format!("{} may not {what}: it is done on the node itself", caller.actor());
    Err(ApiError::forbidden(detail).remedy("use the node's local socket"))
}
