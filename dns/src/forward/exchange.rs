//! One question to one upstream.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use hickory_proto::{
    ProtoError,
    op::{Edns, Header, Message, MessageType, OpCode},
    serialize::binary::{BinDecodable, BinDecoder},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use crate::wire::MAX_UDP_PAYLOAD_BYTES;

/// How long an upstream has to answer over UDP.
const UDP_TIMEOUT: Duration = Duration::from_millis(1000);
/// How long it has over TCP, connecting included.
const TCP_TIMEOUT: Duration = Duration::from_millis(2000);
/// Largest packet taken over UDP, in bytes: some upstreams send more than they are told to.
const MAX_REPLY_BYTES: usize = 4096;
/// Most packets looked at that are no answer to the question: forgers send many.
const MAX_STRAYS: usize = 32;

/// Why an upstream gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    #[error("no answer in time")]
    Timeout(#[from] tokio::time::error::Elapsed),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("cannot encode the query: {0}")]
    Encode(#[from] ProtoError),
    #[error("only packets that do not answer the question came")]
    Strays,
}

/// Asks `upstream` what `query` asks, over UDP, and over TCP when that answer is cut.
pub(crate) async fn ask(upstream: SocketAddr, query: &Message) -> Result<Message, ExchangeError> {
    let question = question_to_upstream(query);
    let bytes = question.to_vec()?;
    match timeout(UDP_TIMEOUT, udp(upstream, &question, &bytes)).await?? {
        Some(reply) => Ok(reply),
        None => timeout(TCP_TIMEOUT, tcp(upstream, &question, &bytes)).await?,
    }
}

/// The same question under an id of our own. The asker's EDNS options stay here: they may tell who asks.
fn question_to_upstream(query: &Message) -> Message {
    let mut question = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = true;
    question.metadata.checking_disabled = query.metadata.checking_disabled;
    question.queries.clone_from(&query.queries);
    let mut edns = Edns::new();
    edns.set_max_payload(MAX_UDP_PAYLOAD_BYTES);
    edns.set_dnssec_ok(query.edns.as_ref().is_some_and(|asked| asked.flags().dnssec_ok));
    question.edns = Some(edns);
    question
}

/// The reply over UDP; `None` when it was cut.
async fn udp(
    upstream: SocketAddr,
    question: &Message,
    bytes: &[u8],
) -> Result<Option<Message>, ExchangeError> {
    let any: IpAddr = match upstream {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(upstream).await?;
    socket.send(bytes).await?;
    let mut packet = [0; MAX_REPLY_BYTES];
    for _ in 0..MAX_STRAYS {
        let len = socket.recv(&mut packet).await?;
        let packet = &packet[..len];
        if is_cut(question, packet) {
            return Ok(None);
        }
        if let Some(reply) = accept(question, packet) {
            return Ok(Some(reply));
        }
    }
    Err(ExchangeError::Strays)
}

async fn tcp(upstream: SocketAddr, question: &Message, bytes: &[u8]) -> Result<Message, ExchangeError> {
    let mut stream = TcpStream::connect(upstream).await?;
    let len = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&len.to_be_bytes()[..], bytes].concat()).await?;
    let len = stream.read_u16().await?;
    let mut packet = vec![0; usize::from(len)];
    stream.read_exact(&mut packet).await?;
    accept(question, &packet).ok_or(ExchangeError::Strays)
}

/// Whether `packet` is a cut reply. Only its header is read: some servers cut in the midst of a record.
/// A forger could so make us ask over TCP, where it can do less.
fn is_cut(question: &Message, packet: &[u8]) -> bool {
    Header::read(&mut BinDecoder::new(packet)).is_ok_and(|Header { metadata, .. }| {
        metadata.id == question.metadata.id
            && metadata.message_type == MessageType::Response
            && metadata.truncation
    })
}

/// The reply in `packet`, when it is one to `question`.
fn accept(question: &Message, packet: &[u8]) -> Option<Message> {
    let reply = Message::from_vec(packet).ok()?;
    let answers = reply.metadata.id == question.metadata.id
        && reply.metadata.message_type == MessageType::Response
        && reply.metadata.op_code == OpCode::Query
        && reply.queries == question.queries;
    answers.then_some(reply)
}
