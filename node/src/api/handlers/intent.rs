//! Objects of intent.

use std::time::Duration;

use axum::{
    Extension, Json,
    body::Bytes,
    extract::{Path, Query, State},
    http::{HeaderMap, header},
    response::IntoResponse,
};
use selvedge_fabric::{Revision, command::Apply, id::Name, manifest::Located, object::ObjectKey};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{By, Ctx, Problem, Raw, Reply};
use crate::api::{
    error::ApiError,
    key,
    limits::{MAX_PAGE, MAX_WAIT},
    manifests,
    types::{ApplyReply, DeleteRequest, Description, HistoryItem, Manifest, RollbackRequest, WaitReply},
};

/// How an apply is done.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct ApplyQuery {
    /// Refuse unless this is the present revision.
    if_revision: Option<Revision>,
    /// Tell what would change, write nothing.
    #[serde(default)]
    dry_run: bool,
    /// A word on why, for the history.
    #[serde(default)]
    message: String,
    /// Name of the file, for positions in problems.
    file: Option<String>,
}

impl ApplyQuery {
    fn command(&self, located: &Located) -> Apply {
        let (base, message) = (self.if_revision, self.message.clone());
        Apply { base, set: located.objects.clone(), delete: Vec::new(), message }
    }
}

/// Creates and replaces objects, all or nothing. The body is manifests, YAML or JSON; several files go
/// as `application/vnd.selvedge.manifests+json`, `{"files": [{"name", "text"}]}`.
#[utoipa::path(post, path = "/v1/apply", tag = "intent", params(ApplyQuery),
    request_body(content = String, content_type = "application/yaml"),
    responses((status = 200, description = "Applied", body = ApplyReply), Problem))]
pub(in crate::api) async fn apply(
    State(app): Ctx,
    Extension(caller): By,
    Query(query): Query<ApplyQuery>,
    headers: HeaderMap,
    body: Bytes,
) -> Reply<ApplyReply> {
    let located = manifests::read(&headers, &body, query.file.as_deref())?;
    let apply = query.command(&located);
    let outcome = if query.dry_run {
        app.backend.dry_run(&caller, apply).await
    } else {
        caller.require_writer("apply manifests")?;
        app.backend.apply(&caller, apply).await
    };
    outcome.map(Json).map_err(|error| manifests::locate(&located, error))
}

/// Tells what an apply would change, with before and after.
#[utoipa::path(post, path = "/v1/diff", tag = "intent", params(ApplyQuery),
    request_body(content = String, content_type = "application/yaml"),
    responses((status = 200, description = "What would change", body = ApplyReply), Problem))]
pub(in crate::api) async fn diff(
    State(app): Ctx,
    Extension(caller): By,
    Query(query): Query<ApplyQuery>,
    headers: HeaderMap,
    body: Bytes,
) -> Reply<ApplyReply> {
    let located = manifests::read(&headers, &body, query.file.as_deref())?;
    let outcome = app.backend.dry_run(&caller, query.command(&located)).await;
    outcome.map(Json).map_err(|error| manifests::locate(&located, error))
}

/// Deletes objects, all or nothing.
#[utoipa::path(post, path = "/v1/delete", tag = "intent", request_body = DeleteRequest,
    responses((status = 200, description = "Deleted", body = ApplyReply), Problem))]
pub(in crate::api) async fn delete(
    State(app): Ctx,
    Extension(caller): By,
    Json(request): Json<DeleteRequest>,
) -> Reply<ApplyReply> {
    let delete = request.objects.iter().map(|o| object_key(&o.kind, &o.name)).collect::<Result<_, _>>()?;
    let apply = Apply { base: request.if_revision, set: Vec::new(), delete, message: request.message };
    if request.dry_run {
        return app.backend.dry_run(&caller, apply).await.map(Json);
    }
    caller.require_writer("delete objects")?;
    app.backend.apply(&caller, apply).await.map(Json)
}

/// Which objects are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct ListQuery {
    /// Of this kind.
    kind: Option<String>,
    /// In this domain.
    domain: Option<String>,
}

/// Lists objects.
#[utoipa::path(get, path = "/v1/objects", tag = "intent", params(ListQuery),
    responses((status = 200, description = "The objects, in order", body = Vec<Manifest>), Problem))]
pub(in crate::api) async fn list(State(app): Ctx, Query(query): Query<ListQuery>) -> Reply<Vec<Manifest>> {
    let kind = query.kind.as_deref().map(key::parse_kind).transpose()?;
    let bad = |e: selvedge_fabric::id::IdError| ApiError::bad_request(format!("domain: {e}"));
    let domain = query.domain.as_deref().map(Name::new).transpose().map_err(bad)?;
    app.backend.list(kind, domain.as_ref()).await.map(Json)
}

/// One object. The name is `name` or `name@domain`.
#[utoipa::path(get, path = "/v1/objects/{kind}/{name}", tag = "intent",
    params(("kind" = String, Path), ("name" = String, Path)),
    responses((status = 200, description = "The object", body = Manifest), Problem))]
pub(in crate::api) async fn get_object(
    State(app): Ctx,
    Path((kind, name)): Path<(String, String)>,
) -> Reply<Manifest> {
    app.backend.get(&object_key(&kind, &name)?).await.map(Json)
}

/// One object with what surrounds it.
#[utoipa::path(get, path = "/v1/describe/{kind}/{name}", tag = "intent",
    params(("kind" = String, Path), ("name" = String, Path)),
    responses((status = 200, description = "The object and its surroundings", body = Description), Problem))]
pub(in crate::api) async fn describe(
    State(app): Ctx,
    Path((kind, name)): Path<(String, String)>,
) -> Reply<Description> {
    app.backend.describe(&object_key(&kind, &name)?).await.map(Json)
}

/// All objects as YAML that can be applied again.
#[utoipa::path(get, path = "/v1/export", tag = "intent",
    responses((status = 200, description = "Manifests", body = String, content_type = "application/yaml"), Problem))]
pub(in crate::api) async fn export(State(app): Ctx) -> Raw {
    let yaml = app.backend.export().await?;
    Ok(([(header::CONTENT_TYPE, "application/yaml")], yaml).into_response())
}

/// Which revisions are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct HistoryQuery {
    /// Those after this one.
    #[serde(default)]
    since: Revision,
    /// At most so many.
    limit: Option<usize>,
}

/// What changed when, newest first.
#[utoipa::path(get, path = "/v1/history", tag = "intent", params(HistoryQuery),
    responses((status = 200, description = "Revisions", body = Vec<HistoryItem>), Problem))]
pub(in crate::api) async fn history(
    State(app): Ctx,
    Query(query): Query<HistoryQuery>,
) -> Reply<Vec<HistoryItem>> {
    let limit = query.limit.unwrap_or(MAX_PAGE).min(MAX_PAGE);
    app.backend.history(query.since, limit).await.map(Json)
}

/// Makes the objects what they were at a revision.
#[utoipa::path(post, path = "/v1/rollback", tag = "intent", request_body = RollbackRequest,
    responses((status = 200, description = "Rolled back", body = ApplyReply), Problem))]
pub(in crate::api) async fn rollback(
    State(app): Ctx,
    Extension(caller): By,
    Json(request): Json<RollbackRequest>,
) -> Reply<ApplyReply> {
    caller.require_admin("roll back")?;
    app.backend.rollback(&caller, request.to, request.if_revision).await.map(Json)
}

/// What is waited for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct WaitQuery {
    /// The revision.
    revision: Revision,
    /// Leave out nodes that are down.
    #[serde(default)]
    live: bool,
    /// How long, at most an hour.
    timeout_ms: u64,
}

/// Waits until every node enforces a revision, and names those that do not.
#[utoipa::path(get, path = "/v1/wait", tag = "intent", params(WaitQuery),
    responses((status = 200, description = "Whether it is enforced", body = WaitReply), Problem))]
pub(in crate::api) async fn wait(State(app): Ctx, Query(query): Query<WaitQuery>) -> Reply<WaitReply> {
    let timeout = Duration::from_millis(query.timeout_ms).min(MAX_WAIT);
    app.backend.wait_enforced(query.revision, query.live, timeout).await.map(Json)
}

fn object_key(kind: &str, name: &str) -> Result<ObjectKey, ApiError> {
    key::parse(key::parse_kind(kind)?, name)
}
