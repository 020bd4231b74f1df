//! Watch streams: nothing is missed, and a client resumes where it was.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, body::Incoming};
use tokio::time::timeout;

use super::{Served, client::Client};

/// Generous: a stream that says nothing for so long is broken.
const DEADLINE: Duration = Duration::from_secs(20);

struct Stream {
    body: Incoming,
    text: String,
    _client: Client,
}

impl Stream {
    async fn open(served: &Served, path: &str, last_id: Option<&str>) -> Self {
        let mut client = served.client().await;
        let mut request = Request::get(path).header("host", "localhost");
        if let Some(id) = last_id {
            request = request.header("last-event-id", id);
        }
        let response = client.send(request.body(Full::<Bytes>::default()).unwrap()).await;
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body(), text: String::new(), _client: client }
    }

    /// The next message as (event, id, data); `None` at the end of the stream.
    async fn next(&mut self) -> Option<(String, String, String)> {
        loop {
            if let Some((message, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let line = message.lines().find_map(|l| l.strip_prefix(name));
                    line.unwrap_or_default().trim().to_owned()
                };
                let found = (field("event:"), field("id:"), field("data:"));
                self.text = rest.to_owned();
                return Some(found);
            }
            let frame = timeout(DEADLINE, self.body.frame()).await.expect("a message in time")?;
            let data = frame.ok()?.into_data().unwrap();
            self.text.push_str(std::str::from_utf8(&data).unwrap());
        }
    }
}

#[tokio::test]
async fn revisions_arrive_in_order_and_resume_by_id() {
    let served = Served::start().await;
    let mut stream = Stream::open(&served, "/v1/watch?topics=policy", None).await;
    served.fake.commit();
    served.fake.commit();
    let mut last = String::new();
    for revision in 1..=2 {
        let (event, id, data) = stream.next().await.unwrap();
        assert_eq!(event, "policy");
        assert!(data.contains(&format!("\"revision\":{revision}")), "{data}");
        last = id;
    }
    drop(stream);
    served.fake.commit();
    let mut stream = Stream::open(&served, "/v1/watch?topics=policy", Some(&last)).await;
    let (_, _, data) = stream.next().await.unwrap();
    assert!(data.contains("\"revision\":3"), "{data}");
}

#[tokio::test]
async fn a_client_that_fell_behind_the_history_is_told_to_start_anew() {
    let served = Served::start().await;
    for _ in 0..3 {
        served.fake.commit();
    }
    served.fake.history.lock().unwrap().remove(0);
    let mut stream = Stream::open(&served, "/v1/watch?topics=policy&since=0", None).await;
    let (event, _, data) = stream.next().await.unwrap();
    assert_eq!((event.as_str(), data.as_str()), ("reset", "{\"revision\":3}"));
    served.fake.commit();
    assert_eq!(stream.next().await.unwrap().0, "policy");
}

#[tokio::test]
async fn members_come_whole_and_events_one_by_one() {
    let served = Served::start().await;
    let mut stream = Stream::open(&served, "/v1/watch?topics=members,events", None).await;
    let (event, _, data) = stream.next().await.unwrap();
    assert_eq!(event, "members");
    assert!(data.contains("aws-1"), "{data}");
    served.fake.events.send_replace(2);
    for sequence in 1..=2 {
        let (event, _, data) = stream.next().await.unwrap();
        assert_eq!(event, "event");
        assert!(data.contains(&format!("\"sequence\":{sequence}")), "{data}");
    }
    served.fake.members.send_replace(9);
    assert_eq!(stream.next().await.unwrap().0, "members");
}

#[tokio::test]
async fn events_of_a_restarted_daemon_are_all_new() {
    let served = Served::start().await;
    served.fake.events.send_replace(1);
    let mut stream = Stream::open(&served, "/v1/watch?topics=events", Some("0.0.500")).await;
    let (_, id, _) = stream.next().await.unwrap();
    assert_eq!(id, "0.0.1");
}

#[tokio::test]
async fn a_stop_ends_streams_and_the_server() {
    let mut served = Served::start().await;
    let mut stream = Stream::open(&served, "/v1/watch?topics=policy", None).await;
    served.stop.cancel();
    assert!(stream.next().await.is_none());
    drop(stream);
    timeout(DEADLINE, served.tasks.join_next()).await.expect("the server ends").unwrap().unwrap();
    assert!(!served.socket.exists(), "the socket file is gone");
}
