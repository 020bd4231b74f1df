//! What each path does: read the request, check the right to the operation, ask the backend.

#![allow(unused_qualifications, reason = "utoipa's expansion names the extractors by their full path")]

pub(super) mod drill;
pub(super) mod endpoint;
pub(super) mod fabric;
pub(super) mod intent;
pub(super) mod operate;
pub(super) mod query;
pub(super) mod token;
pub(super) mod watch;
pub(super) mod workload;

use axum::{Extension, Json, extract::State, response::Response};
use utoipa::IntoResponses;

use super::{
    caller::Caller,
    error::{ApiError, ProblemDetails},
    router::App,
};

/// What a handler that answers JSON returns.
type Reply<T> = Result<Json<T>, ApiError>;
/// What a handler that makes the whole response returns.
type Raw = Result<Response, ApiError>;
/// Who asks; put there by authentication.
type By = Extension<Caller>;
/// What handlers may use.
type Ctx = State<App>;

/// Every error is problem details.
#[derive(IntoResponses)]
#[response(status = "default", description = "Refused", content_type = "application/problem+json")]
struct Problem(#[expect(dead_code, reason = "read by the OpenAPI generator alone")] ProblemDetails);
