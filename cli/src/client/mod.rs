//! HTTP to a node. One request, one connection: commands are short.
//!
//! Several addresses may be given; the client goes on to the next when a node cannot be reached, is
//! starting, busy, or without a quorum. It never sends a write again that a node may have taken: then
//! the outcome is unknown, and only the user can judge.

mod connect;
mod target;
mod tls;

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use hyper::{
    HeaderMap, Method,
    header::{self, HeaderValue},
};
use selvedge_node::api::{Code, ProblemDetails, READ};
use serde::{Serialize, de::DeserializeOwned};

pub(crate) use connect::Answer;
use connect::Lost;
pub(crate) use target::Target;

use crate::failure::{Failure, Outcome};

/// Longest a node may take to accept a connection, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest a node may take to answer; it limits itself to 30 s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(35);
/// Largest answer: an export of 100,000 objects.
const MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;
/// Longest token file.
const MAX_TOKEN_BYTES: usize = 4096;

/// A request in the making.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    method: Method,
    path: String,
    body: Bytes,
    content_type: Option<&'static str>,
    linearizable: bool,
    patience: Duration,
}

impl Ask {
    fn new(method: Method, path: impl Into<String>) -> Self {
        let (body, content_type, linearizable) = (Bytes::new(), None, false);
        Self { method, path: path.into(), body, content_type, linearizable, patience: ANSWER_TIMEOUT }
    }

    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    pub(crate) fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path)
    }

    pub(crate) fn post(path: impl Into<String>) -> Self {
        Self::new(Method::POST, path)
    }

    pub(crate) fn put(path: impl Into<String>) -> Self {
        Self::new(Method::PUT, path)
    }

    /// Adds a query parameter.
    pub(crate) fn query(mut self, name: &str, value: impl ToString) -> Self {
        let separator = if self.path.contains('?') { '&' } else { '?' };
        self.path.push(separator);
        self.path.push_str(&format!("{name}={}", escape(&value.to_string())));
        self
    }

    /// Adds a query parameter when there is a value.
    pub(crate) fn maybe(self, name: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    /// Adds a JSON body.
    pub(crate) fn json<T: Serialize>(self, body: &T) -> Outcome<Self> {
        self.json_as("application/json", body)
    }

    /// Adds a JSON body of another media type.
    pub(crate) fn json_as<T: Serialize>(mut self, kind: &'static str, body: &T) -> Outcome<Self> {
        let text = serde_json::to_vec(body).map_err(|e| Failure::new(format!("cannot write JSON: {e}")))?;
        self.content_type = Some(kind);
        self.body = text.into();
        Ok(self)
    }

    /// Adds a text body.
    pub(crate) fn text(mut self, kind: &'static str, text: String) -> Self {
        self.content_type = Some(kind);
        self.body = text.into();
        self
    }

    /// Asks for an answer that is at least as new as every acknowledged write.
    pub(crate) fn linearizable(mut self, yes: bool) -> Self {
        self.linearizable = yes;
        self
    }

    /// Allows the node to take this much longer.
    pub(crate) fn patience(mut self, more: Duration) -> Self {
        self.patience = ANSWER_TIMEOUT + more;
        self
    }

    fn headers(&self, token: Option<&str>) -> Outcome<HeaderMap> {
        let mut headers = HeaderMap::new();
        let value = |text: &str| {
            text.parse().map_err(|_| Failure::usage("the token holds characters that no token has"))
        };
        headers.insert(header::HOST, value("selvedge")?);
        if let Some(kind) = self.content_type {
            headers.insert(header::CONTENT_TYPE, value(kind)?);
        }
        if let Some(token) = token {
            let mut bearer: HeaderValue = value(&format!("Bearer {token}"))?;
            bearer.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, bearer);
        }
        if self.linearizable {
            headers.insert(READ, value("linearizable")?);
        }
        Ok(headers)
    }
}

/// Escapes a query value or a path segment (RFC 3986: everything but the unreserved).
pub(crate) fn escape(text: &str) -> String {
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"-._~".contains(&c);
    text.bytes().map(|c| if plain(c) { char::from(c).to_string() } else { format!("%{c:02X}") }).collect()
}

/// Talks to the first node that answers.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    targets: Vec<Target>,
    token: Option<String>,
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl Client {
    /// A client for a local socket.
    pub(crate) fn local(socket: &Path) -> Self {
        Self { targets: vec![Target::Unix(socket.to_owned())], token: None, tls: None }
    }

    /// A client for nodes on the network, pinned to the fabric's root certificate.
    pub(crate) fn remote(addresses: &[String], token_file: &Path, ca_file: &Path) -> Outcome<Self> {
        let targets = addresses.iter().map(|a| a.parse()).collect::<Outcome<Vec<Target>>>()?;
        let token = read_token(token_file)?;
        Ok(Self { targets, token: Some(token), tls: Some(Arc::new(tls::pinned(ca_file)?)) })
    }

    /// Asks, and reads a JSON answer.
    pub(crate) async fn ask<T: DeserializeOwned>(&self, ask: Ask) -> Outcome<T> {
        let answer = self.send(&ask).await?;
        serde_json::from_slice(&answer.body).map_err(|e| {
            Failure::new(format!("the node's answer to {} is not understood: {e}", ask.path))
                .at(answer.from)
                .remedy("use the same version of selvedge on both sides")
        })
    }

    /// Asks, and gives the answer as it is. Refusals are failures.
    pub(crate) async fn send(&self, ask: &Ask) -> Outcome<Answer> {
        let headers = ask.headers(self.token.as_deref())?;
        let mut last = None;
        for target in &self.targets {
            let sent = connect::exchange(target, self.tls.clone(), ask, headers.clone()).await;
            let failure = match sent {
                Ok(answer) if answer.status.is_success() => return Ok(answer),
                Ok(answer) => match elsewhere(&answer, ask) {
                    Ok(failure) => failure,
                    Err(failure) => return Err(failure),
                },
                Err(Lost::Before(failure)) => failure,
                Err(Lost::After(why)) if ask.method.is_safe() => {
                    Failure::unreachable(format!("no answer: {why}")).at(target.to_string())
                }
                Err(Lost::After(why)) => {
                    let what = format!("the request was sent, and no answer came: {why}");
                    return Err(Failure::outcome_unknown(what).at(target.to_string()));
                }
            };
            // What a living node said matters more than that another cannot be reached.
            last = Some(match last {
                Some(Failure { code, .. }) if failure.code < code => last.unwrap_or(failure),
                _ => failure,
            });
        }
        Err(last.unwrap_or_else(|| Failure::usage("no API address given")))
    }
}

/// Whether another node may do better: `Ok` with the failure to report when none does.
fn elsewhere(answer: &Answer, ask: &Ask) -> Result<Failure, Failure> {
    let Ok(details) = serde_json::from_slice::<ProblemDetails>(&answer.body) else {
        let what = format!("the node answered {} without saying why", answer.status);
        return Err(Failure::new(what).at(&answer.from));
    };
    let failure = Failure::refused(&details, &answer.from);
    match details.code {
        Code::Busy | Code::Unavailable | Code::NoQuorum => Ok(failure),
        Code::Timeout if ask.method.is_safe() => Ok(failure),
        _ => Err(failure),
    }
}

fn read_token(path: &Path) -> Outcome<String> {
    let cannot = |why: String| Failure::usage(format!("token file {}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| cannot(e.to_string()))?;
    let token = text.trim();
    if token.is_empty() || token.len() > MAX_TOKEN_BYTES || token.contains(char::is_whitespace) {
        return Err(cannot("does not hold one token".into()));
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_escaped() {
        let ask = Ask::get("/v1/reach").query("from", "a@b").maybe("to", None::<&str>).query("x", "1/2 &");
        assert_eq!(ask.path, "/v1/reach?from=a%40b&x=1%2F2%20%26");
    }

    /// A node that gives this answer to each request, until the test ends.
    fn node(dir: &Path, name: &str, answer: &'static str) -> Target {
        use std::io::{Read as _, Write as _};
        let path = dir.join(name);
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        Target::Unix(path)
    }

    const WELL: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]";
    const NO_QUORUM: &str = "HTTP/1.1 503 X\r\ncontent-length: 73\r\n\r\n\
        {\"type\":\"t\",\"title\":\"t\",\"status\":503,\"detail\":\"none\",\"code\":\"no-quorum\" }";

    #[tokio::test]
    async fn the_client_goes_on_to_a_node_that_can_and_not_after_a_lost_write() {
        let dir = tempfile::tempdir().expect("a directory");
        let gone = Target::Unix(dir.path().join("gone"));
        let (mute, cut) = (node(dir.path(), "mute", ""), node(dir.path(), "cut", NO_QUORUM));
        let well = node(dir.path(), "well", WELL);
        let code = async |targets: &[&Target], ask: Ask| {
            let targets = targets.iter().map(|t| (*t).clone()).collect();
            let client = Client { targets, token: None, tls: None };
            client.send(&ask).await.map_or_else(|failure| failure.code, |_| 0)
        };
        let (read, write) = (|| Ask::get("/v1/members"), || Ask::post("/v1/rollback"));
        assert_eq!(code(&[&gone, &well], read()).await, 0);
        assert_eq!(code(&[&gone, &well], write()).await, 0);
        assert_eq!(code(&[&cut, &well], write()).await, 0);
        assert_eq!(code(&[&mute, &well], read()).await, 0);
        assert_eq!(code(&[&mute, &well], write()).await, 6, "the write may have been taken");
        assert_eq!(code(&[&gone], read()).await, 3);
        assert_eq!(code(&[&cut, &gone], write()).await, 4, "what a living node said counts");
        assert_eq!(code(&[&gone, &cut], write()).await, 4);
    }
}
