//! Asks one DNS server one question, over UDP or TCP (RFC 1035).

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use hickory_proto::{
    op::{Edns, Message, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

/// How long a server may take for one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// The largest UDP answer that is asked for; what fits an Ethernet frame (RFC 6891, section 6.2.5).
const UDP_PAYLOAD_BYTES: u16 = 1232;

/// What carries the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    Udp,
    Tcp,
}

/// What an SRV record names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// Asks `server` for the records of one type. A truncated answer over UDP is asked for again over TCP,
/// as resolvers do.
///
/// # Errors
/// When no answer arrives in time, or it is not one to the question.
pub(crate) async fn ask(
    server: SocketAddr,
    name: &str,
    kind: RecordType,
    wire: Wire,
) -> anyhow::Result<Message> {
    let asked = async {
        let query = question(name, kind)?;
        let answer = match wire {
            Wire::Udp => over_udp(server, &query).await?,
            Wire::Tcp => over_tcp(server, &query).await?,
        };
        if answer.metadata.truncation && wire == Wire::Udp {
            over_tcp(server, &query).await
        } else {
            Ok(answer)
        }
    };
    let answer =
        timeout(ANSWER_LIMIT, asked).await.unwrap_or_else(|_| bail!("no answer within {ANSWER_LIMIT:?}"));
    answer.with_context(|| format!("DNS server {server}, asked for {name} {kind} over {wire:?}"))
}

fn question(name: &str, kind: RecordType) -> anyhow::Result<Message> {
    let mut name = Name::from_ascii(name).with_context(|| format!("{name:?} is not a domain name"))?;
    name.set_fqdn(true);
    let mut message = Message::query();
    message.add_query(Query::query(name, kind));
    message.metadata.recursion_desired = true;
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_PAYLOAD_BYTES);
    message.set_edns(edns);
    Ok(message)
}

async fn over_udp(server: SocketAddr, query: &Message) -> anyhow::Result<Message> {
    // Connected, so that a closed port is an error at once and nobody else's packet is read.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.connect(server).await?;
    socket.send(&query.to_vec()?).await?;
    let mut buffer = [0; UDP_PAYLOAD_BYTES as usize];
    let length = socket.recv(&mut buffer).await?;
    matching(query, &buffer[..length])
}

async fn over_tcp(server: SocketAddr, query: &Message) -> anyhow::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let bytes = query.to_vec()?;
    // Length and message in one write (RFC 7766, section 8).
    let mut framed = u16::try_from(bytes.len())?.to_be_bytes().to_vec();
    framed.extend_from_slice(&bytes);
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await?;
    matching(query, &answer)
}

fn matching(query: &Message, bytes: &[u8]) -> anyhow::Result<Message> {
    let answer = Message::from_vec(bytes).context("malformed answer")?;
    ensure!(answer.metadata.id == query.metadata.id, "the answer is to another question");
    Ok(answer)
}

/// The IPv4 addresses of an answer.
pub(crate) fn addresses(answer: &Message) -> Vec<Ipv4Addr> {
    let address = |data: &RData| if let RData::A(a) = data { Some(a.0) } else { None };
    answer.answers.iter().filter_map(|r| address(&r.data)).collect()
}

/// The addresses of an answer, of both families.
pub(crate) fn addresses_of(answer: &Message) -> Vec<IpAddr> {
    let address = |data: &RData| match data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        RData::AAAA(a) => Some(IpAddr::V6(a.0)),
        _ => None,
    };
    answer.answers.iter().filter_map(|r| address(&r.data)).collect()
}

/// The SRV targets of an answer.
pub(crate) fn targets(answer: &Message) -> Vec<Target> {
    let target = |data: &RData| {
        let RData::SRV(srv) = data else { return None };
        Some(Target { host: srv.target.to_ascii().trim_end_matches('.').to_owned(), port: srv.port })
    };
    answer.answers.iter().filter_map(|r| target(&r.data)).collect()
}

/// Why an answer is not a positive one, if so.
pub(crate) fn ensure_positive(answer: &Message) -> anyhow::Result<()> {
    let code = answer.metadata.response_code;
    ensure!(code == ResponseCode::NoError, "{code}");
    ensure!(!answer.answers.is_empty(), "the name exists, but has no such record");
    Ok(())
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::OpCode,
        rr::{Record, rdata},
    };
    use tokio::net::TcpListener;

    use super::*;

    /// The answer of a server that knows one address and one target.
    fn answer_to(bytes: &[u8]) -> Message {
        let query = Message::from_vec(bytes).expect("a query");
        let mut answer = Message::response(query.metadata.id, OpCode::Query);
        let asked = query.queries[0].clone();
        let data = match asked.query_type() {
            RecordType::A => RData::A(rdata::A::new(127, 64, 0, 1)),
            _ => RData::SRV(rdata::SRV::new(0, 1, 21_500, Name::from_ascii("e1.ep.test.").expect("a name"))),
        };
        answer.add_answer(Record::from_rdata(asked.name().clone(), 1, data));
        answer.add_query(asked);
        answer
    }

    #[tokio::test]
    async fn asks_over_udp() {
        let server = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
        let address = server.local_addr().expect("an address");
        let serve = async {
            let mut buffer = [0; 512];
            let (length, from) = server.recv_from(&mut buffer).await.expect("a query");
            let answer = answer_to(&buffer[..length]).to_vec().expect("encoded");
            server.send_to(&answer, from).await.expect("sent");
        };
        let (answer, ()) = tokio::join!(ask(address, "a.b.test", RecordType::A, Wire::Udp), serve);
        let answer = answer.expect("an answer");
        ensure_positive(&answer).expect("positive");
        assert_eq!(addresses(&answer), [Ipv4Addr::new(127, 64, 0, 1)]);
        assert!(targets(&answer).is_empty());
    }

    #[tokio::test]
    async fn a_truncated_answer_is_fetched_over_tcp() {
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = tcp.local_addr().expect("an address");
        let udp = UdpSocket::bind(address).await.expect("bound");
        let serve = async {
            let mut buffer = [0; 512];
            let (length, from) = udp.recv_from(&mut buffer).await.expect("a query");
            let truncated = answer_to(&buffer[..length]).truncate().to_vec().expect("encoded");
            udp.send_to(&truncated, from).await.expect("sent");
            let (mut stream, _) = tcp.accept().await.expect("a connection");
            let length = stream.read_u16().await.expect("a length");
            let mut query = vec![0; length.into()];
            stream.read_exact(&mut query).await.expect("a query");
            let answer = answer_to(&query).to_vec().expect("encoded");
            stream.write_u16(answer.len().try_into().expect("short")).await.expect("sent");
            stream.write_all(&answer).await.expect("sent");
        };
        let (answer, ()) = tokio::join!(ask(address, "a.b.test", RecordType::SRV, Wire::Udp), serve);
        let found = targets(&answer.expect("an answer"));
        assert_eq!(found, [Target { host: "e1.ep.test".into(), port: 21_500 }]);
    }

    #[tokio::test]
    async fn a_closed_port_is_an_error_that_names_server_and_question() {
        let free = UdpSocket::bind("127.0.0.1:0").await.expect("bound").local_addr().expect("an address");
        let error = ask(free, "a.b.test", RecordType::A, Wire::Tcp).await.expect_err("nobody listens");
        let text = format!("{error:#}");
        assert!(text.contains(&free.to_string()) && text.contains("a.b.test A over Tcp"), "{text}");
    }
}
