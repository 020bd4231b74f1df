//! Isolation of this node for a drill.

use axum::{
    Extension, Json,
    extract::{Query, State},
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{By, Ctx, Problem, Reply};
use crate::api::types::{IsolationReport, IsolationRequest};

/// Which lease is ended.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct EndQuery {
    /// The holder whose lease is released. Without one, whatever lease there is ends, and its holder does not
    /// get this node again.
    holder: Option<String>,
}

/// What drills do to this node, and may do.
#[utoipa::path(get, path = "/v1/isolation", tag = "drills",
    responses((status = 200, description = "The lease, if there is one", body = IsolationReport), Problem))]
pub(in crate::api) async fn report(State(app): Ctx) -> Reply<IsolationReport> {
    app.backend.isolation().await.map(Json)
}

/// Takes this node for a drill, renews that, or changes what is cut: packets of the peers named are dropped until
/// the lease ends, which it does by itself.
#[utoipa::path(put, path = "/v1/isolation", tag = "drills", request_body = IsolationRequest,
    responses((status = 200, description = "The lease", body = IsolationReport), Problem))]
pub(in crate::api) async fn claim(
    State(app): Ctx,
    Extension(caller): By,
    Json(request): Json<IsolationRequest>,
) -> Reply<IsolationReport> {
    caller.require_admin("isolate nodes for a drill")?;
    app.backend.isolate(&caller, request).await.map(Json)
}

/// Ends a lease before its time.
#[utoipa::path(delete, path = "/v1/isolation", tag = "drills", params(EndQuery),
    responses((status = 200, description = "There is none any more", body = IsolationReport), Problem))]
pub(in crate::api) async fn end(
    State(app): Ctx,
    Extension(caller): By,
    Query(query): Query<EndQuery>,
) -> Reply<IsolationReport> {
    caller.require_admin("end drills")?;
    app.backend.end_isolation(&caller, query.holder.as_deref()).await.map(Json)
}
