//! Other names, by way of a little upstream of our own.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use selvedge_dns::proto::{
    op::{Message, MessageType, ResponseCode},
    rr::{
        RData, Record, RecordType,
        rdata::{A, SOA, TXT},
    },
};
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
};

use crate::{
    client::{Site, read_frame, start, write_frame},
    fixture::{answers, name, query, with_edns, zone},
};

const BIG_RECORDS: usize = 40;

/// Answers a few names under `example.`; `silent` is never answered, `forged` first by a forger; `big` and
/// `torn` are cut over UDP.
struct Upstream {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Upstream {
    async fn start() -> Self {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = udp.local_addr().unwrap();
        let tcp = TcpListener::bind(address).await.unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        let count = asked.clone();
        tasks.spawn(async move {
            let mut packet = [0; 4096];
            loop {
                let (len, source) = udp.recv_from(&mut packet).await.unwrap();
                count.fetch_add(1, Relaxed);
                let query = Message::from_vec(&packet[..len]).unwrap();
                for reply in udp_replies(&query) {
                    let mut bytes = reply.to_vec().unwrap();
                    if first_label(&query) == "torn" {
                        bytes.truncate(bytes.len() - 7);
                    }
                    udp.send_to(&bytes, source).await.unwrap();
                }
            }
        });
        tasks.spawn(async move {
            loop {
                let (mut stream, _): (TcpStream, _) = tcp.accept().await.unwrap();
                let query = Message::from_vec(&read_frame(&mut stream).await.unwrap()).unwrap();
                write_frame(&mut stream, &reply(&query).to_vec().unwrap()).await;
            }
        });
        Self { address, asked, _tasks: tasks }
    }

    async fn site(&self) -> Site {
        start(|o| o.upstreams = vec![self.address], zone()).await
    }

    fn asked(&self) -> usize {
        self.asked.load(Relaxed)
    }
}

fn udp_replies(query: &Message) -> Vec<Message> {
    match first_label(query).as_str() {
        "silent" => vec![],
        "big" => vec![reply(query).truncate()],
        "torn" => {
            let mut torn = reply(query);
            torn.metadata.truncation = true;
            vec![torn]
        }
        "forged" => {
            let mut wrong_id = reply(query);
            wrong_id.metadata.id ^= 1;
            wrong_id.answers = vec![a(query, 66)];
            let mut wrong_question = reply(query);
            wrong_question.queries[0].name = name("other.example");
            wrong_question.answers = vec![a(query, 66)];
            vec![wrong_id, wrong_question, reply(query)]
        }
        _ => vec![reply(query)],
    }
}

fn first_label(query: &Message) -> String {
    String::from_utf8(query.queries[0].name.iter().next().unwrap().to_ascii_lowercase()).unwrap()
}

fn a(query: &Message, last: u8) -> Record {
    Record::from_rdata(query.queries[0].name.clone(), 5000, RData::A(A::new(192, 0, 2, last)))
}

fn reply(query: &Message) -> Message {
    let mut reply = Message::new(query.metadata.id, MessageType::Response, query.metadata.op_code);
    reply.queries.clone_from(&query.queries);
    reply.metadata.authentic_data = true;
    let soa = SOA::new(name("ns.example"), name("root.example"), 1, 1, 1, 1, 60);
    match first_label(query).as_str() {
        "absent" => {
            reply.metadata.response_code = ResponseCode::NXDomain;
            reply.authorities = vec![Record::from_rdata(name("example"), 60, RData::SOA(soa))];
        }
        "broken" => reply.metadata.response_code = ResponseCode::ServFail,
        "big" => {
            let text = || RData::TXT(TXT::new(vec!["x".repeat(100)]));
            let record = || Record::from_rdata(query.queries[0].name.clone(), 60, text());
            reply.answers = (0..BIG_RECORDS).map(|_| record()).collect();
        }
        _ => reply.answers = vec![a(query, 1)],
    }
    reply
}

#[tokio::test]
async fn other_names_are_forwarded_and_remembered() {
    let upstream = Upstream::start().await;
    let site = upstream.site().await;
    for round in 0..3 {
        let reply = site.ask("wWw.example.", RecordType::A).await;
        assert_eq!(answers(&reply), ["A 192.0.2.1"], "{round}");
        assert!(reply.metadata.recursion_available && !reply.metadata.authoritative);
        assert!(!reply.metadata.authentic_data, "we validate nothing");
        assert_eq!(reply.queries[0].name.to_ascii(), "wWw.example.");
    }
    let absent = site.ask("absent.example.", RecordType::A).await;
    assert_eq!(absent.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(absent, site.ask("absent.example.", RecordType::A).await);
    assert_eq!(upstream.asked(), 2, "each name once");
    assert_eq!(site.dns.metrics().forwarding["cache-hit"], 3);
    site.dns.shutdown().await;
}

#[tokio::test]
async fn names_of_ours_are_never_forwarded() {
    let upstream = Upstream::start().await;
    let site = upstream.site().await;
    for (of, rtype) in [
        ("nope.shop", RecordType::A),
        ("web.shop", RecordType::MX),
        ("9.9.64.100.in-addr.arpa.", RecordType::PTR),
        ("64.100.in-addr.arpa.", RecordType::TXT),
    ] {
        let reply = site.ask(of, rtype).await;
        assert!(reply.metadata.authoritative && reply.metadata.recursion_available, "{of}");
    }
    let mut iterative = query("www.example.", RecordType::A);
    iterative.metadata.recursion_desired = false;
    assert_eq!(site.udp(&iterative).await.metadata.response_code, ResponseCode::Refused);
    assert_eq!(upstream.asked(), 0);
    site.dns.shutdown().await;
}

#[tokio::test]
async fn a_cut_answer_is_fetched_over_tcp_and_cut_again_for_the_asker() {
    let upstream = Upstream::start().await;
    let site = upstream.site().await;
    let query = with_edns(query("big.example.", RecordType::TXT), 1232);
    let cut = site.udp(&query).await;
    assert!(cut.metadata.truncation && !cut.answers.is_empty());
    assert_eq!(site.tcp(&query).await.answers.len(), BIG_RECORDS);
    // Cut in the midst of a record, so that it cannot be decoded.
    assert_eq!(answers(&site.ask("torn.example.", RecordType::A).await), ["A 192.0.2.1"]);
    site.dns.shutdown().await;
}

#[tokio::test]
async fn forged_replies_are_passed_over() {
    let upstream = Upstream::start().await;
    let site = upstream.site().await;
    assert_eq!(answers(&site.ask("forged.example.", RecordType::A).await), ["A 192.0.2.1"]);
    site.dns.shutdown().await;
}

#[tokio::test]
async fn the_next_upstream_is_asked_when_one_fails() {
    let good = Upstream::start().await;
    // Nothing listens there: the kernel refuses at once.
    let gone = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let site = start(|o| o.upstreams = vec![gone, good.address], zone()).await;
    assert_eq!(answers(&site.ask("www.example.", RecordType::A).await), ["A 192.0.2.1"]);
    let broken = site.ask("broken.example.", RecordType::A).await;
    assert_eq!(broken.metadata.response_code, ResponseCode::ServFail);
    site.dns.shutdown().await;
}

#[tokio::test]
async fn silent_upstreams_end_in_servfail_and_one_event() {
    let upstream = Upstream::start().await;
    let site = upstream.site().await;
    for _ in 0..2 {
        let reply = site.udp(&with_edns(query("silent.example.", RecordType::A), 1232)).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    }
    assert_eq!(answers(&site.ask("web-1.ep", RecordType::A).await).len(), 1, "our own names do not care");
    site.ask("www.example.", RecordType::A).await;
    assert_eq!(*site.events.0.lock().unwrap(), ["dns-upstream-silent", "dns-upstream-back"]);
    assert_eq!(site.dns.metrics().forwarding["failed"], 2);
    site.dns.shutdown().await;
}

#[tokio::test]
async fn no_more_queries_wait_than_may() {
    let upstream = Upstream::start().await;
    let site = upstream.site().await;
    let asking = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    asking.connect(site.address()).await.unwrap();
    let silent = query("silent.example.", RecordType::A).to_vec().unwrap();
    let mut packet = [0; 4096];
    let mut full = None;
    for _ in 0..1000 {
        asking.send(&silent).await.unwrap();
        if let Ok(Ok(len)) = tokio::time::timeout(Duration::from_millis(2), asking.recv(&mut packet)).await {
            full = Some(Message::from_vec(&packet[..len]).unwrap());
            break;
        }
    }
    assert_eq!(full.unwrap().metadata.response_code, ResponseCode::ServFail);
    site.dns.shutdown().await;
}

#[tokio::test]
async fn without_upstreams_other_names_are_refused() {
    let site = start(|_| {}, zone()).await;
    let reply = site.ask("www.example.", RecordType::A).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::Refused);
    assert!(!reply.metadata.recursion_available);
    site.dns.shutdown().await;
}
