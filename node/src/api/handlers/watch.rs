//! Events, and streams of what changes.

use std::convert::Infallible;

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
use serde::Deserialize;
use utoipa::IntoParams;

use super::{Ctx, Problem, Raw, Reply};
use crate::api::{
    error::{ApiError, Code},
    limits::{MAX_PAGE, WATCH_KEEP_ALIVE},
    stream::{Cursor, Topics, Watcher},
    types::EventItem,
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
