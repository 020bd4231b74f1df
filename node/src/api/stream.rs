//! Watch streams.
//!
//! A stream is a cursor into three sequences (revisions, generations of the membership, events) and the
//! backend's signals that one of them has moved. Nothing is queued per stream but one batch: a slow
//! reader reads later, and then in larger steps. The id of each message is the whole cursor, so a client
//! that comes back misses nothing, at whichever node it comes back: revisions are the same everywhere,
//! and the rest is sent anew.

use std::{collections::VecDeque, fmt, str::FromStr, sync::Arc};

use axum::response::sse::Event;
use futures::{Stream, stream};
use selvedge_fabric::Revision;
use serde::Serialize;
use tokio::{sync::watch, time::sleep};

use super::{
    backend::Backend,
    error::ApiError,
    limits::{WATCH_BATCH, WATCH_PAUSE},
};

/// Which sequences a stream follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Topics {
    policy: bool,
    members: bool,
    events: bool,
}

impl Topics {
    pub(super) const ALL: Self = Self { policy: true, members: true, events: true };
}

impl FromStr for Topics {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        let mut topics = Self { policy: false, members: false, events: false };
        for word in text.split(',') {
            match word.trim() {
                "policy" => topics.policy = true,
                "members" => topics.members = true,
                "events" => topics.events = true,
                other => {
                    let detail = format!("unknown topic {other:?}; topics are policy, members and events");
                    return Err(ApiError::bad_request(detail));
                }
            }
        }
        Ok(topics)
    }
}

/// How far a stream has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) revision: Revision,
    members: u64,
    events: u64,
}

impl Cursor {
    /// At the newest revision and event, before the present membership: a reader begins with that.
    pub(super) fn now(backend: &dyn Backend) -> Self {
        let revision = *backend.watch_revision().borrow();
        let events = *backend.watch_events().borrow();
        Self { revision, members: NO_GENERATION, events }
    }
}

/// Differs from every generation, so that the present one is sent.
const NO_GENERATION: u64 = u64::MAX;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.revision, self.members, self.events)
    }
}

impl FromStr for Cursor {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        let bad = || ApiError::bad_request(format!("Last-Event-ID {text:?} is none of this API"));
        let parts: Vec<u64> = text.split('.').map(str::parse).collect::<Result<_, _>>().map_err(|_| bad())?;
        match parts.as_slice() {
            &[revision, members, events] => Ok(Self { revision, members, events }),
            _ => Err(bad()),
        }
    }
}

/// Tells the client to read the whole intent again.
#[derive(Serialize)]
struct Reset {
    revision: Revision,
}

/// The state of one stream.
pub(super) struct Watcher {
    backend: Arc<dyn Backend>,
    topics: Topics,
    cursor: Cursor,
    ready: VecDeque<Event>,
    revision: watch::Receiver<Revision>,
    members: watch::Receiver<u64>,
    events: watch::Receiver<u64>,
}

impl Watcher {
    pub(super) fn new(backend: Arc<dyn Backend>, topics: Topics, cursor: Cursor) -> Self {
        let (revision, members) = (backend.watch_revision(), backend.watch_members());
        let events = backend.watch_events();
        Self { backend, topics, cursor, ready: VecDeque::new(), revision, members, events }
    }

    /// The messages. Ends when the daemon does.
    pub(super) fn into_stream(self) -> impl Stream<Item = Event> + Send {
        stream::unfold(self, async |mut watcher| Some((watcher.next().await?, watcher)))
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.fill().await.is_err() {
                return None;
            }
            if self.ready.is_empty() {
                self.changed().await?;
                sleep(WATCH_PAUSE).await;
            }
        }
    }

    /// Waits for a signal of a topic that is followed.
    async fn changed(&mut self) -> Option<()> {
        let Topics { policy, members, events } = self.topics;
        let outcome = tokio::select! {
            changed = self.revision.changed(), if policy => changed,
            changed = self.members.changed(), if members => changed,
            changed = self.events.changed(), if events => changed,
            else => return None,
        };
        outcome.ok()
    }

    async fn fill(&mut self) -> Result<(), ApiError> {
        if self.topics.policy {
            self.fill_policy().await?;
        }
        if self.topics.members {
            self.fill_members().await?;
        }
        if self.topics.events {
            self.fill_events().await?;
        }
        Ok(())
    }

    async fn fill_policy(&mut self) -> Result<(), ApiError> {
        let newest = *self.revision.borrow_and_update();
        if newest <= self.cursor.revision {
            return Ok(());
        }
        let missed = newest - self.cursor.revision;
        let items = self.backend.history(self.cursor.revision, WATCH_BATCH).await?;
        let whole = items.last().is_some_and(|oldest| oldest.revision == self.cursor.revision + 1);
        if !whole {
            tracing::debug!(missed, "a watch stream fell behind the history");
            self.cursor.revision = newest;
            self.push("reset", &Reset { revision: newest });
            return Ok(());
        }
        for item in items.iter().rev() {
            self.cursor.revision = item.revision;
            self.push("policy", item);
        }
        Ok(())
    }

    async fn fill_members(&mut self) -> Result<(), ApiError> {
        let generation = *self.members.borrow_and_update();
        if generation != self.cursor.members {
            let members = self.backend.members().await?;
            self.cursor.members = generation;
            self.push("members", &members);
        }
        Ok(())
    }

    async fn fill_events(&mut self) -> Result<(), ApiError> {
        let newest = *self.events.borrow_and_update();
        if newest < self.cursor.events {
            // The daemon was started again, or this is another node: its events are all new.
            self.cursor.events = 0;
        }
        if newest > self.cursor.events {
            for item in self.backend.events(self.cursor.events, WATCH_BATCH).await? {
                self.cursor.events = item.sequence;
                self.push("event", &item);
            }
        }
        Ok(())
    }

    fn push(&mut self, name: &str, data: &impl Serialize) {
        match Event::default().event(name).id(self.cursor.to_string()).json_data(data) {
            Ok(event) => self.ready.push_back(event),
            Err(error) => tracing::error!(%error, name, "cannot encode a watch message"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_its_text_form() {
        let cursor = Cursor { revision: 12, members: 3, events: 4 };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for bad in ["", "1", "1.2", "1.2.x", "1.2.3.4", "-1.2.3"] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad}");
        }
    }

    #[test]
    fn unknown_topics_are_refused() {
        assert_eq!("policy, members,events".parse(), Ok(Topics::ALL));
        assert!("policy,weather".parse::<Topics>().is_err());
    }
}
