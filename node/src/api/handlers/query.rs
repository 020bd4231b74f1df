//! Questions on names and on the model.

use axum::{
    Json,
    extract::{Query, State},
};
use selvedge_fabric::{
    id::{IdError, ServiceRef},
    object::PortRange,
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{Ctx, Problem, Reply};
use crate::api::{
    error::ApiError,
    types::{AssertReply, ExplainReply, ReachItem, ResolveReply},
};

/// What is resolved.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct ResolveQuery {
    /// The name; the suffix may be left out.
    name: String,
    /// The record type, `A` when absent.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// As which service, `name@domain`; everybody's names when absent.
    #[serde(rename = "as")]
    asker: Option<String>,
}

/// What the DNS of this node answers.
#[utoipa::path(get, path = "/v1/resolve", tag = "query", params(ResolveQuery),
    responses((status = 200, description = "The answer", body = ResolveReply), Problem))]
pub(in crate::api) async fn resolve(
    State(app): Ctx,
    Query(query): Query<ResolveQuery>,
) -> Reply<ResolveReply> {
    let asker = query.asker.as_deref().map(|text| service("as", text)).transpose()?;
    let kind = query.kind.unwrap_or_else(|| "A".to_owned()).to_ascii_uppercase();
    app.backend.resolve(&query.name, &kind, asker.as_ref()).await.map(Json)
}

/// Which flow is explained.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct ExplainQuery {
    /// Who opens it, `name@domain`.
    from: String,
    /// Who accepts it, `name@domain`.
    to: String,
    /// The port, for instance `tcp/5432`.
    port: String,
}

/// The verdict for a flow, and why.
#[utoipa::path(get, path = "/v1/explain", tag = "query", params(ExplainQuery),
    responses((status = 200, description = "The verdict", body = ExplainReply), Problem))]
pub(in crate::api) async fn explain(
    State(app): Ctx,
    Query(query): Query<ExplainQuery>,
) -> Reply<ExplainReply> {
    let (from, to) = (service("from", &query.from)?, service("to", &query.to)?);
    let port: PortRange = query.port.parse().map_err(ApiError::bad_request)?;
    app.backend.explain(&from, &to, port).await.map(Json)
}

/// Which pairs are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct ReachQuery {
    /// Those that this service opens.
    from: Option<String>,
    /// Those that this service accepts.
    to: Option<String>,
}

/// Who can reach what.
#[utoipa::path(get, path = "/v1/reach", tag = "query", params(ReachQuery),
    responses((status = 200, description = "Pairs", body = Vec<ReachItem>), Problem))]
pub(in crate::api) async fn reach(State(app): Ctx, Query(query): Query<ReachQuery>) -> Reply<Vec<ReachItem>> {
    let from = query.from.as_deref().map(|text| service("from", text)).transpose()?;
    let to = query.to.as_deref().map(|text| service("to", text)).transpose()?;
    app.backend.reach(from.as_ref(), to.as_ref()).await.map(Json)
}

/// Proves or disproves assertions.
#[utoipa::path(post, path = "/v1/assert", tag = "query",
    request_body(content = String, content_type = "application/yaml"),
    responses((status = 200, description = "The outcome", body = AssertReply), Problem))]
pub(in crate::api) async fn check_assertions(State(app): Ctx, document: String) -> Reply<AssertReply> {
    app.backend.check_assertions(&document).await.map(Json)
}

fn service(parameter: &str, text: &str) -> Result<ServiceRef, ApiError> {
    text.parse().map_err(|e: IdError| ApiError::bad_request(format!("{parameter}: {e}")))
}
