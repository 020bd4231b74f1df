//! A client of HTTP APIs that knows whether its request may have been heard.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;

/// Largest answer that is read.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// Who is asked.
#[derive(Debug, Clone, Copy)]
pub enum Server<'a> {
    /// Who listens on a socket in the file system: the API of a node.
    Socket(&'a Path),
    /// Who listens on a TCP port of this network, in clear.
    Tcp(SocketAddr),
}

/// A request without its answer.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Such as `GET`.
    pub method: &'a str,
    /// With the query.
    pub path: &'a str,
    /// Whole lines, each with its end.
    pub headers: &'a str,
    /// JSON or YAML.
    pub body: &'a str,
}

/// What came of a request.
#[derive(Debug)]
pub enum Answer {
    /// An answer: status and body, `Null` where that is no JSON.
    Said(u16, Value),
    /// Nobody listens: nothing was sent.
    NotSent,
    /// It was sent, at least in part, and no whole answer came in time.
    Lost,
}

impl Answer {
    /// The body of an answer of success.
    #[must_use]
    pub fn success(self) -> Option<Value> {
        match self {
            Self::Said(200..=299, body) => Some(body),
            _ => None,
        }
    }
}

/// Asks, and waits for an answer for so long.
#[must_use]
pub fn ask(server: Server<'_>, request: Request<'_>, patience: Duration) -> Answer {
    let Ok(mut stream) = Stream::connect(server, patience) else { return Answer::NotSent };
    let Request { method, path, headers, body } = request;
    let length = body.len();
    let text = format!(
        "{method} {path} HTTP/1.1\r\nHost: local\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n{headers}\r\n{body}"
    );
    let deadline = Instant::now() + patience;
    if stream.limit(patience).is_err() || stream.both().write_all(text.as_bytes()).is_err() {
        return Answer::Lost;
    }
    read_answer(&mut stream, deadline).unwrap_or(Answer::Lost)
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

trait Both: Read + Write {}
impl<T: Read + Write> Both for T {}

impl Stream {
    fn connect(server: Server<'_>, patience: Duration) -> io::Result<Self> {
        Ok(match server {
            Server::Socket(path) => Self::Unix(UnixStream::connect(path)?),
            Server::Tcp(address) => Self::Tcp(TcpStream::connect_timeout(&address, patience)?),
        })
    }

    fn both(&mut self) -> &mut dyn Both {
        match self {
            Self::Unix(stream) => stream,
            Self::Tcp(stream) => stream,
        }
    }

    fn limit(&self, time: Duration) -> io::Result<()> {
        match self {
            Self::Unix(stream) => {
                stream.set_read_timeout(Some(time)).and(stream.set_write_timeout(Some(time)))
            }
            Self::Tcp(stream) => {
                stream.set_read_timeout(Some(time)).and(stream.set_write_timeout(Some(time)))
            }
        }
    }
}

fn read_answer(stream: &mut Stream, deadline: Instant) -> Option<Answer> {
    let (mut answer, mut part) = (Vec::new(), [0; 8_192]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || answer.len() > MAX_ANSWER_BYTES {
            return None;
        }
        stream.limit(left).ok()?;
        match stream.both().read(&mut part) {
            Ok(0) => return parse(&answer),
            Ok(bytes) => answer.extend_from_slice(&part[..bytes]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

/// None unless the answer is whole.
fn parse(answer: &[u8]) -> Option<Answer> {
    let text = std::str::from_utf8(answer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let named = |line: &str| line.to_ascii_lowercase().strip_prefix("content-length:").map(str::to_owned);
    let length: usize = head.lines().find_map(named)?.trim().parse().ok()?;
    (body.len() == length).then(|| Answer::Said(status, serde_json::from_str(body).unwrap_or(Value::Null)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_answer_is_one() {
        let whole = b"HTTP/1.1 409 Conflict\r\ncontent-length: 2\r\n\r\n{}";
        assert!(matches!(parse(whole), Some(Answer::Said(409, Value::Object(_)))));
        assert!(parse(&whole[..whole.len() - 1]).is_none(), "cut off");
        assert!(parse(b"HTTP/1.1 200 OK\r\n\r\n").is_none(), "of no length");
        assert!(parse(b"").is_none());
    }

    #[test]
    fn where_nobody_listens_nothing_is_sent() {
        let request = Request { method: "GET", path: "/", headers: "", body: "" };
        let nowhere = Server::Socket(Path::new("/nonexistent/api.sock"));
        assert!(matches!(ask(nowhere, request, Duration::from_secs(1)), Answer::NotSent));
    }
}
