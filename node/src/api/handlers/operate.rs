//! What supervisors, monitoring and tools ask for.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{Ctx, Problem, Raw};
use crate::api::{
    error::{ApiError, Code},
    openapi,
    types::Readiness,
};

const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether the daemon lives; a failure is a reason to restart it.
#[utoipa::path(get, path = "/healthz", tag = "operate", security(()),
    responses((status = 200, description = "It lives", body = String), Problem))]
pub(in crate::api) async fn healthz(State(app): Ctx) -> Result<&'static str, ApiError> {
    app.backend.healthy().map(|()| "ok\n").map_err(|why| ApiError::new(Code::Unavailable, why))
}

/// Whether the node serves.
#[utoipa::path(get, path = "/readyz", tag = "operate", security(()), responses(
    (status = 200, description = "It serves", body = Readiness),
    (status = 503, description = "Not yet", body = Readiness)))]
pub(in crate::api) async fn readyz(State(app): Ctx) -> Response {
    let readiness = app.backend.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

/// Metrics: Prometheus text, or OpenMetrics when asked for.
#[utoipa::path(get, path = "/metrics", tag = "operate",
    responses((status = 200, description = "Metrics", body = String), Problem))]
pub(in crate::api) async fn metrics(State(app): Ctx, headers: HeaderMap) -> Raw {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let mut text = app.backend.metrics();
    let kind = if accept.contains("application/openmetrics-text") {
        text.push_str("# EOF\n");
        OPENMETRICS
    } else {
        PROMETHEUS
    };
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// This description.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "operate", security(()),
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value), Problem))]
pub(in crate::api) async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], openapi::document()).into_response()
}
