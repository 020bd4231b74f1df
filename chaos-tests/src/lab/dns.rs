//! A DNS client of few lines: one question, one answer (RFC 1035).

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};

/// How long a server may take for one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// What an answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The response code.
    pub code: ResponseCode,
    /// Data of the answer records, as text.
    pub records: Vec<String>,
    /// It was cut to fit (TC).
    pub truncated: bool,
}

/// Asks `server` over UDP for the addresses of `name`.
///
/// # Errors
/// When no answer arrives.
pub fn addresses(server: SocketAddr, name: &str) -> anyhow::Result<Vec<String>> {
    Ok(ask(server, name, RecordType::A, false)?.records)
}

/// The same, with less patience: for who asks again.
///
/// # Errors
/// When no answer arrives in time.
pub fn addresses_within(server: SocketAddr, name: &str, patience: Duration) -> anyhow::Result<Vec<String>> {
    Ok(exchange(name, RecordType::A, |query| over_udp(server, query, patience))?.records)
}

/// Asks `server` one question, over TCP or UDP.
///
/// # Errors
/// When no answer arrives, or it is malformed.
pub fn ask(server: SocketAddr, name: &str, kind: RecordType, tcp: bool) -> anyhow::Result<Answer> {
    let carry = |query: &[u8]| {
        if tcp { over_tcp(server, query) } else { over_udp(server, query, ANSWER_LIMIT) }
    };
    exchange(name, kind, carry).with_context(|| format!("asked {server}"))
}

fn exchange(
    name: &str,
    kind: RecordType,
    carry: impl FnOnce(&[u8]) -> anyhow::Result<Vec<u8>>,
) -> anyhow::Result<Answer> {
    let mut message = Message::query();
    let mut qname = Name::from_ascii(name)?;
    qname.set_fqdn(true);
    message.add_query(Query::query(qname, kind));
    let query = message.to_vec()?;
    let reply = carry(&query).with_context(|| format!("no answer for {name} {kind}"))?;
    let reply = Message::from_vec(&reply).with_context(|| format!("malformed answer for {name}"))?;
    ensure!(reply.metadata.id == message.metadata.id, "the answer to another question");
    Ok(Answer {
        code: reply.metadata.response_code,
        records: reply.answers.iter().map(|r| text(&r.data)).collect(),
        truncated: reply.metadata.truncation,
    })
}

fn text(data: &RData) -> String {
    data.to_string()
}

fn over_udp(server: SocketAddr, query: &[u8], patience: Duration) -> anyhow::Result<Vec<u8>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(patience))?;
    socket.send(query)?;
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer)?;
    Ok(buffer[..length].to_vec())
}

fn over_tcp(server: SocketAddr, query: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server, ANSWER_LIMIT)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    let framed = [&u16::try_from(query.len())?.to_be_bytes(), query].concat();
    stream.write_all(&framed)?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut reply = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut reply)?;
    Ok(reply)
}
