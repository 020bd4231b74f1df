//! Events, and streams of what changes.

use std::{convert::Infallible, time::Duration};

use axum::{
    Json,
    extract::{Query, State},
    http::HeaderMap,
    response::{
        IntoResponse,
        sse::{KeepAlive, Sse},
    },
};
use futures::StreamExt;
use selvedge_fabric::id::ServiceRef;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{Ctx, Problem, Raw, Reply};
use crate::{
    api::{
        error::{ApiError, Code},
        limits::{MAX_FLOW_WAIT, MAX_PAGE, WATCH_KEEP_ALIVE},
        stream::{Cursor, Topics, Watcher},
        types::{EventItem, FlowPage},
    },
    flows::Wanted,
};

/// Which events are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct EventsQuery {
    /// Those after this sequence.
    #[serde(default)]
    since: u64,
    /// At most so many.
    limit: Option<usize>,
}

/// Events of this node, oldest first.
#[utoipa::path(get, path = "/v1/events", tag = "watch", params(EventsQuery),
    responses((status = 200, description = "Events", body = Vec<EventItem>), Problem))]
pub(in crate::api) async fn events(
    State(app): Ctx,
    Query(query): Query<EventsQuery>,
) -> Reply<Vec<EventItem>> {
    let limit = query.limit.unwrap_or(MAX_PAGE).min(MAX_PAGE);
    app.backend.events(query.since, limit).await.map(Json)
}

/// Which flows are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct FlowsQuery {
    /// Those after this number.
    #[serde(default)]
    since: u64,
    /// At most so many, the newest.
    limit: Option<usize>,
    /// Wait so long for one to come, milliseconds.
    #[serde(default)]
    wait_ms: u64,
    /// From this service, `name@domain`.
    from: Option<String>,
    /// To this service, `name@domain`.
    to: Option<String>,
    /// `allow` or `deny`.
    verdict: Option<String>,
}

/// What happened to flows on this node, oldest first.
#[utoipa::path(get, path = "/v1/flows", tag = "watch", params(FlowsQuery),
    responses((status = 200, description = "Flows", body = FlowPage), Problem))]
pub(in crate::api) async fn flows(State(app): Ctx, Query(query): Query<FlowsQuery>) -> Reply<FlowPage> {
    let limit = query.limit.unwrap_or(MAX_PAGE).min(MAX_PAGE);
    let service = |text: Option<String>, field: &str| {
        let parsed = text.map(|text| text.parse::<ServiceRef>()).transpose();
        parsed.map_err(|e| ApiError::bad_request(format!("{field}: {e}")))
    };
    if let Some(other) = query.verdict.as_ref().filter(|v| !matches!(v.as_str(), "allow" | "deny")) {
        return Err(ApiError::bad_request(format!("verdict: {other:?} is neither allow nor deny")));
    }
    let wanted =
        Wanted { from: service(query.from, "from")?, to: service(query.to, "to")?, verdict: query.verdict };
    let log = app.backend.flows();
    let mut newest = log.newest();
    let patience = Duration::from_millis(query.wait_ms).min(MAX_FLOW_WAIT);
    let comes = async {
        loop {
            newest.mark_unchanged();
            let page = log.after(query.since, limit, &wanted);
            if !page.flows.is_empty() || newest.changed().await.is_err() {
                return page;
            }
        }
    };
    let waited = app.stop.run_until_cancelled(tokio::time::timeout(patience, comes)).await;
    let page = waited.and_then(Result::ok);
    Ok(Json(page.unwrap_or_else(|| log.after(query.since, limit, &wanted))))
}

/// What is watched.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct WatchQuery {
    /// Any of `policy`, `members`, `events`, separated by commas; all when absent.
    topics: Option<String>,
    /// Start after this revision; from now on when absent.
    since: Option<u64>,
}

/// Server-sent events: `policy` (a history item), `members` (the whole list), `event`, and `reset` when
/// the history no longer holds what was missed. Send the last id as `Last-Event-ID` to resume.
#[utoipa::path(get, path = "/v1/watch", tag = "watch", params(WatchQuery),
    responses((status = 200, description = "A stream", body = String, content_type = "text/event-stream"), Problem))]
pub(in crate::api) async fn watch(
    State(app): Ctx,
    Query(query): Query<WatchQuery>,
    headers: HeaderMap,
) -> Raw {
    let topics = match &query.topics {
        Some(text) => text.parse::<Topics>()?,
        None => Topics::ALL,
    };
    let mut cursor = Cursor::now(app.backend.as_ref());
    if let Some(since) = query.since {
        cursor.revision = since;
    }
    if let Some(id) = headers.get("last-event-id") {
        cursor = id.to_str().unwrap_or_default().parse()?;
    }
    let slot = app.watches.clone().try_acquire_owned().map_err(|_| {
        ApiError::new(Code::Busy, "too many watch streams on this node").remedy("watch at another node")
    })?;
    let watcher = Watcher::new(app.backend.clone(), topics, cursor);
    let stream = watcher.into_stream().take_until(app.stop.clone().cancelled_owned()).map(move |event| {
        let _held_while_the_stream_lives = &slot;
        Ok::<_, Infallible>(event)
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(WATCH_KEEP_ALIVE)).into_response())
}
