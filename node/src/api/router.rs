//! Which path does what.

use std::sync::Arc;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::StatusCode,
    middleware::{from_fn, from_fn_with_state},
    routing::{delete, get, post, put},
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{
    backend::Backend,
    guard,
    handlers::{drill, endpoint, fabric, intent, operate, query, token, watch, workload},
    limits::{MAX_BODY_BYTES, MAX_REQUESTS, MAX_WATCHES},
};

/// What every handler may use.
#[derive(Clone)]
pub(super) struct App {
    /// The daemon.
    pub(super) backend: Arc<dyn Backend>,
    /// Places for requests.
    pub(super) slots: Arc<Semaphore>,
    /// Places for watch streams.
    pub(super) watches: Arc<Semaphore>,
    /// Ends watch streams.
    pub(super) stop: CancellationToken,
}

impl App {
    fn new(backend: Arc<dyn Backend>, stop: CancellationToken) -> Self {
        let slots = Arc::new(Semaphore::new(MAX_REQUESTS));
        let watches = Arc::new(Semaphore::new(MAX_WATCHES));
        Self { backend, slots, watches, stop }
    }
}

/// The API for people and programs: local socket and TLS.
pub(super) fn api(backend: Arc<dyn Backend>, stop: CancellationToken) -> Router {
    let app = App::new(backend, stop);
    let authenticated = Router::new()
        .merge(intent_routes())
        .merge(fabric_routes())
        .route("/v1/endpoints", get(endpoint::list).post(endpoint::register))
        .route("/v1/endpoints/{id}", delete(endpoint::deregister))
        .route("/v1/attachments", get(endpoint::attachments).post(endpoint::attach))
        .route("/v1/attachments/{endpoint}", delete(endpoint::detach))
        .route("/v1/resolve", get(query::resolve))
        .route("/v1/explain", get(query::explain))
        .route("/v1/reach", get(query::reach))
        .route("/v1/assert", post(query::check_assertions))
        .route("/v1/events", get(watch::events))
        .route("/v1/flows", get(watch::flows))
        .route("/v1/watch", get(watch::watch))
        .route("/metrics", get(operate::metrics));
    finish(guarded(authenticated, &app).merge(open_routes()), app)
}

/// The API for workloads on this node: read-only, each sees its own.
pub(super) fn workload(backend: Arc<dyn Backend>, stop: CancellationToken) -> Router {
    let app = App::new(backend, stop);
    let authenticated = Router::new()
        .route("/v1/discover/{name}", get(workload::discover))
        .route("/v1/service/stat", get(workload::stat))
        .route("/v1/self", get(workload::whoami));
    finish(guarded(authenticated, &app).merge(open_routes()), app)
}

fn intent_routes() -> Router<App> {
    Router::new()
        .route("/v1/apply", post(intent::apply))
        .route("/v1/diff", post(intent::diff))
        .route("/v1/delete", post(intent::delete))
        .route("/v1/objects", get(intent::list))
        .route("/v1/objects/{kind}/{*name}", get(intent::get_object))
        .route("/v1/describe/{kind}/{*name}", get(intent::describe))
        .route("/v1/export", get(intent::export))
        .route("/v1/history", get(intent::history))
        .route("/v1/rollback", post(intent::rollback))
        .route("/v1/wait", get(intent::wait))
}

fn fabric_routes() -> Router<App> {
    Router::new()
        .route("/v1/self", get(fabric::me))
        .route("/v1/status", get(fabric::status))
        .route("/v1/members", get(fabric::members))
        .route("/v1/links", get(fabric::links))
        .route("/v1/routes", get(fabric::routes))
        .route("/v1/quorum", get(fabric::quorum))
        .route("/v1/isolation", get(drill::report).put(drill::claim).delete(drill::end))
        .route("/v1/quorum/lost", get(fabric::lost))
        .route("/v1/quorum/transfer", post(fabric::transfer))
        .route("/v1/quorum/recovery", post(fabric::recover))
        .route("/v1/quorum/recovery/draft", post(fabric::recovery_draft))
        .route("/v1/nodes/{name}/state", put(fabric::set_state))
        .route("/v1/nodes/{name}/revocation", get(fabric::revocation_draft))
        .route("/v1/revocations", post(fabric::revoke))
        .route("/v1/nodes/{name}", delete(fabric::remove))
        .route("/v1/tokens", get(token::list).post(token::create))
        .route("/v1/tokens/{id}", delete(token::revoke))
}

/// Paths for supervisors and tools, which have no token.
fn open_routes() -> Router<App> {
    Router::new()
        .route("/healthz", get(operate::healthz))
        .route("/readyz", get(operate::readyz))
        .route("/v1/openapi.json", get(operate::openapi))
}

fn guarded(routes: Router<App>, app: &App) -> Router<App> {
    routes
        .route_layer(from_fn_with_state(app.clone(), guard::freshen))
        .route_layer(from_fn_with_state(app.clone(), guard::authenticate))
}

/// Layers apply from the last to the first: a request is observed, then limited.
fn finish(routes: Router<App>, app: App) -> Router {
    routes
        .fallback(async || (StatusCode::NOT_FOUND, "no such path; /v1/openapi.json lists them"))
        .method_not_allowed_fallback(async || (StatusCode::METHOD_NOT_ALLOWED, "this path has other methods"))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn_with_state(app.clone(), guard::limit))
        .layer(from_fn(guard::unhurried))
        .layer(from_fn_with_state(app.clone(), guard::observe))
        .with_state(app)
}
