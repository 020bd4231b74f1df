//! What every request passes, outermost first: id and log line, problem details, load and time limits,
//! authentication.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use axum::{
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{
    backend::Backend,
    caller::Caller,
    error::{ApiError, Code},
    limits::{BARRIER_TIMEOUT, MAX_DETAIL_BYTES, MAX_REQUEST_ID_BYTES, REQUEST_TIMEOUT},
    router::App,
    serve::Origin,
};

/// The header that carries the request id, both ways.
pub const REQUEST_ID: &str = "x-request-id";
/// The header with the revision of the policy on the answering node.
pub const REVISION: &str = "selvedge-revision";
/// A request header; `linearizable` makes a read at least as new as every acknowledged write.
pub const READ: &str = "selvedge-read";

const PROBLEM_JSON: &str = "application/problem+json";

/// Marks a request that says itself how long it waits.
#[derive(Clone, Copy)]
pub(super) struct Unhurried;

/// Gives the request an id, logs the outcome, and makes problem details of every error, also of those
/// that the framework makes (bad JSON, unknown path, body too large).
pub(super) async fn observe(State(app): State<App>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(request.headers());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = as_problem(next.run(request).await, &id).await;
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, value);
    }
    headers.insert(REVISION, HeaderValue::from(*app.backend.watch_revision().borrow()));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let (status, ms) = (response.status().as_u16(), started.elapsed().as_millis());
    if method.is_safe() {
        tracing::debug!(id, %method, path, status, ms, "api request");
    } else {
        tracing::info!(id, %method, path, status, ms, "api request");
    }
    response
}

/// Refuses when too much is going on, and ends what takes too long.
pub(super) async fn limit(State(app): State<App>, request: Request, next: Next) -> Response {
    let Ok(_slot) = app.slots.clone().try_acquire_owned() else {
        let error = ApiError::new(Code::Busy, "too many requests at once on this node");
        return error.remedy("try again in a moment, or ask another node").into_response();
    };
    if request.extensions().get::<Unhurried>().is_some() {
        return next.run(request).await;
    }
    let writes = !request.method().is_safe();
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) if writes => {
            let seconds = REQUEST_TIMEOUT.as_secs();
            ApiError::outcome_unknown(format!("no outcome within {seconds} s")).into_response()
        }
        Err(_) => ApiError::new(Code::Timeout, "the node took too long to answer").into_response(),
    }
}

/// Exempts paths that wait by design from the time limit.
pub(super) async fn unhurried(mut request: Request, next: Next) -> Response {
    if matches!(request.uri().path(), "/v1/wait" | "/v1/watch") {
        request.extensions_mut().insert(Unhurried);
    }
    next.run(request).await
}

/// Finds out who asks, by where the request came in.
pub(super) async fn authenticate(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let origin = request.extensions().get::<Origin>().copied();
    match caller_of(app.backend.as_ref(), origin, request.headers().clone()).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

/// Makes a read linearizable when it asks for that.
pub(super) async fn freshen(State(app): State<App>, request: Request, next: Next) -> Response {
    let asked = request.headers().get(READ).is_some_and(|v| v.as_bytes() == b"linearizable");
    if asked
        && request.method() == Method::GET
        && let Err(error) = app.backend.barrier(BARRIER_TIMEOUT).await
    {
        return error.into_response();
    }
    next.run(request).await
}

async fn caller_of(
    backend: &dyn Backend,
    origin: Option<Origin>,
    headers: HeaderMap,
) -> Result<Caller, ApiError> {
    match origin {
        Some(Origin::Unix { uid }) => Ok(Caller::Local { uid }),
        Some(Origin::Tls { .. }) => backend.authenticate(bearer(&headers)?).await,
        Some(Origin::Workload { source }) => {
            let ip = source.ip();
            let unknown = format!("no endpoint on this node has address {ip}");
            backend.endpoint_at(ip).ok_or_else(|| {
                ApiError::new(Code::Unauthenticated, unknown)
                    .remedy("connect from the endpoint's own address, or register the endpoint")
            })
        }
        None => Err(ApiError::internal("the request has no origin")),
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, ApiError> {
    let value = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim()),
        _ => Err(ApiError::new(Code::Unauthenticated, "no API token in the request")
            .remedy("give --token-file with a token made by `selvedge token admin`")),
    }
}

fn request_id(headers: &HeaderMap) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let given = headers.get(REQUEST_ID).and_then(|v| v.to_str().ok());
    let harmless = |id: &&str| {
        let plain = id.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c));
        !id.is_empty() && id.len() <= MAX_REQUEST_ID_BYTES && plain
    };
    match given.filter(harmless) {
        Some(id) => id.to_owned(),
        None => format!("{:08x}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)),
    }
}

async fn as_problem(response: Response, id: &str) -> Response {
    if let Some(error) = response.extensions().get::<Arc<ApiError>>().cloned() {
        return rewrite(response, &error, id);
    }
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) || is_json(&response) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let text = to_bytes(body, MAX_DETAIL_BYTES).await.unwrap_or_default();
    let error = ApiError::new(code_of(status), String::from_utf8_lossy(&text).into_owned());
    rewrite(Response::from_parts(parts, Body::empty()), &error, id)
}

fn is_json(response: &Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    kind == PROBLEM_JSON.as_bytes() || kind.starts_with(b"application/json")
}

/// The same headers (`Allow`, `WWW-Authenticate`) with problem details as body.
fn rewrite(response: Response, error: &ApiError, id: &str) -> Response {
    let (mut parts, _) = response.into_parts();
    parts.status = error.code.status();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    let body = serde_json::to_vec(&error.details(Some(id.to_owned()))).unwrap_or_default();
    Response::from_parts(parts, Body::from(body))
}

const fn code_of(status: StatusCode) -> Code {
    match status.as_u16() {
        401 => Code::Unauthenticated,
        403 => Code::Forbidden,
        404 => Code::NotFound,
        405 => Code::MethodNotAllowed,
        413 => Code::TooLarge,
        415 => Code::UnsupportedMediaType,
        400..=499 => Code::BadRequest,
        503 => Code::Unavailable,
        _ => Code::Internal,
    }
}
