//! Health checks of endpoints: what they ask, and how their results become health.

use std::{net::IpAddr, time::Duration};

use http_body_util::{BodyExt, Empty, Limited};
use selvedge_fabric::record::Health;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpSocket, TcpStream};

use crate::api::types;

/// Time between two checks of an endpoint, when none is given.
const INTERVAL: Duration = Duration::from_secs(2);
/// Time after which a check without an answer has failed, when none is given.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Shortest interval and time-out.
const MIN_PERIOD: Duration = Duration::from_millis(100);
/// Longest interval and time-out.
const MAX_PERIOD: Duration = Duration::from_secs(3600);
/// Failures in a row that make a passing endpoint failing: one lost packet must not move traffic.
pub const FAILURES_TO_FAIL: u32 = 2;
/// Most arguments of a command check.
const MAX_ARGUMENTS: usize = 64;
/// Most bytes of an HTTP answer that are read.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// A health check of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What is asked.
    pub probe: Probe,
    /// Time between two checks, milliseconds.
    pub interval_ms: u64,
    /// Time after which a check without an answer has failed, milliseconds.
    pub timeout_ms: u64,
}

/// What a health check asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Probe {
    /// The port accepts a connection.
    Tcp {
        /// Port at the endpoint's address.
        port: u16,
    },
    /// `GET path` is answered with a status of 200 to 399.
    Http {
        /// Port at the endpoint's address.
        port: u16,
        /// Path and query.
        path: String,
    },
    /// The command exits with 0. Only callers on the local socket may register one.
    Command {
        /// Program and arguments; no shell is involved.
        argv: Vec<String>,
    },
}

impl Check {
    /// Takes a check as the API has it. A TCP or HTTP check without a port asks `default_port`.
    ///
    /// # Errors
    /// What is wrong with it, and what to write instead.
    pub fn from_api(check: &types::Check, default_port: Option<u16>) -> Result<Self, String> {
        let port = |port: Option<u16>| {
            let port = port.or(default_port).filter(|&p| p != 0);
            port.ok_or("the check names no port and the endpoint has none: write the port".to_owned())
        };
        let probe = match &check.kind {
            types::CheckKind::Tcp { port: p } => Probe::Tcp { port: port(*p)? },
            types::CheckKind::Http { port: p, path } => {
                if !path.starts_with('/') || path.contains(|c: char| c.is_ascii_control() || c == ' ') {
                    return Err(format!(
                        "the path {path:?} of an HTTP check must start with / and hold no blanks"
                    ));
                }
                Probe::Http { port: port(*p)?, path: path.clone() }
            }
            types::CheckKind::Command { command } => {
                if command.is_empty() || command.len() > MAX_ARGUMENTS {
                    return Err(format!(
                        "a command check takes a program and at most {MAX_ARGUMENTS} arguments"
                    ));
                }
                Probe::Command { argv: command.clone() }
            }
        };
        let bounded = |value: Option<u64>, default: Duration| {
            let value = value.unwrap_or(default.as_millis() as u64);
            value.clamp(MIN_PERIOD.as_millis() as u64, MAX_PERIOD.as_millis() as u64)
        };
        Ok(Self {
            probe,
            interval_ms: bounded(check.interval_ms, INTERVAL),
            timeout_ms: bounded(check.timeout_ms, TIMEOUT),
        })
    }
}

/// Turns results of checks into health, with hysteresis.
#[derive(Debug, Clone, Copy)]
pub struct Judge {
    health: Health,
    failures: u32,
}

impl Default for Judge {
    fn default() -> Self {
        Self { health: Health::Unknown, failures: 0 }
    }
}

impl Judge {
    /// The health by what was seen so far.
    #[must_use]
    pub const fn health(&self) -> Health {
        self.health
    }

    /// Takes a result and gives the health after it. One success is enough to pass; an endpoint that
    /// never passed fails at once.
    pub fn observe(&mut self, passed: bool) -> Health {
        if passed {
            self.failures = 0;
            self.health = Health::Passing;
        } else {
            self.failures = self.failures.saturating_add(1);
            if self.health != Health::Passing || self.failures >= FAILURES_TO_FAIL {
                self.health = Health::Failing;
            }
        }
        self.health
    }
}

impl Check {
    /// Runs the check once against `address`, from `source` if it must be a certain one.
    pub async fn run(&self, address: IpAddr, source: Option<IpAddr>) -> bool {
        let timeout = Duration::from_millis(self.timeout_ms);
        match tokio::time::timeout(timeout, self.probe.attempt(address, source)).await {
            Ok(Ok(passed)) => passed,
            Ok(Err(error)) => {
                tracing::debug!(probe = ?self.probe, %error, "health check failed");
                false
            }
            Err(_) => false,
        }
    }
}

impl Probe {
    async fn attempt(&self, address: IpAddr, source: Option<IpAddr>) -> std::io::Result<bool> {
        match self {
            Self::Tcp { port } => {
                connect(address, *port, source).await?;
                Ok(true)
            }
            Self::Http { port, path } => http_get(address, *port, path, source).await,
            Self::Command { argv } => {
                let status = tokio::process::Command::new(&argv[0])
                    .args(&argv[1..])
                    .stdin(std::process::Stdio::null())
                    .stdout(std::process::Stdio::null())
                    .stderr(std::process::Stdio::null())
                    .kill_on_drop(true)
                    .status()
                    .await?;
                Ok(status.success())
            }
        }
    }
}

async fn connect(address: IpAddr, port: u16, source: Option<IpAddr>) -> std::io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = source {
        socket.bind((source, 0).into())?;
    }
    socket.connect((address, port).into()).await
}

async fn http_get(address: IpAddr, port: u16, path: &str, source: Option<IpAddr>) -> std::io::Result<bool> {
    let stream = connect(address, port, source).await?;
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(io).await.map_err(std::io::Error::other)?;
    let request = hyper::Request::get(path)
        .header("host", format!("{address}:{port}"))
        .header("user-agent", "selvedge-check")
        .body(Empty::<bytes::Bytes>::new())
        .map_err(std::io::Error::other)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(std::io::Error::other)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        body.map_err(std::io::Error::other)?;
        Ok(status.is_success() || status.is_redirection())
    };
    // The connection is driven here and ends with the exchange: no task outlives the check.
    tokio::pin!(connection);
    tokio::select! {
        result = exchange => result,
        ended = &mut connection => {
            ended.map_err(std::io::Error::other)?;
            Err(std::io::Error::other("the connection closed before the answer"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_of_the_api_are_completed_and_bounded() {
        let tcp = types::Check {
            kind: types::CheckKind::Tcp { port: None },
            interval_ms: Some(1),
            timeout_ms: None,
        };
        let check = Check::from_api(&tcp, Some(80)).expect("a check");
        assert_eq!((check.probe, check.interval_ms), (Probe::Tcp { port: 80 }, 100));
        assert!(Check::from_api(&tcp, None).is_err());
        let http = types::CheckKind::Http { port: Some(80), path: "no slash".into() };
        assert!(
            Check::from_api(&types::Check { kind: http, interval_ms: None, timeout_ms: None }, None).is_err()
        );
    }

    #[test]
    fn one_failure_of_a_passing_endpoint_is_forgiven() {
        let mut judge = Judge::default();
        assert_eq!(judge.observe(false), Health::Failing);
        assert_eq!(judge.observe(true), Health::Passing);
        assert_eq!(judge.observe(false), Health::Passing);
        assert_eq!(judge.observe(false), Health::Failing);
    }
}
