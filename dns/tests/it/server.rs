//! The server over real sockets.

use std::net::IpAddr;

use selvedge_dns::{
    DnsError, HostView,
    proto::{
        op::{MessageType, ResponseCode},
        rr::RecordType,
    },
};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    client::{decode, loopback, read_frame, start, try_start, write_frame},
    fixture::{answers, crowd, plan, query, service, with_edns, zone},
};

#[tokio::test]
async fn both_transports_give_the_same_answer() {
    let site = start(|_| {}, zone()).await;
    let query = query("web.shop", RecordType::SRV);
    let over_udp = site.udp(&query).await;
    assert_eq!(answers(&over_udp).len(), 3);
    assert_eq!(over_udp, site.tcp(&query).await);
    assert!(!over_udp.metadata.recursion_available, "nothing is forwarded");
    let metrics = site.dns.metrics();
    assert_eq!((metrics.queries["srv"], metrics.replies["noerror"]), (2, 2));
    site.dns.shutdown().await;
}

#[tokio::test]
async fn a_cut_answer_is_whole_over_tcp() {
    let site = start(|_| {}, crowd(60)).await;
    let query = with_edns(query("many.shop", RecordType::SRV), 1232);
    let cut = site.udp(&query).await;
    assert!(cut.metadata.truncation && !cut.answers.is_empty());
    let whole = site.tcp(&query).await;
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 60);
    assert_eq!(site.dns.metrics().truncated, 1);
    site.dns.shutdown().await;
}

#[tokio::test]
async fn the_source_address_decides_the_view() {
    let attached: IpAddr = [127, 64, 0, 9].into();
    let mut zone = zone();
    zone.askers.insert(attached, service("front@shop"));
    let host = |view: HostView| move |o: &mut selvedge_dns::Options| o.host_view = view;

    let site = start(host(HostView::None), zone.clone()).await;
    let nxdomain = ResponseCode::NXDomain;
    assert_eq!(site.ask_from(attached, "web.shop", RecordType::A).await.answers.len(), 2);
    assert_eq!(site.ask_from(attached, "mail.post", RecordType::A).await.metadata.response_code, nxdomain);
    assert_eq!(site.ask("web.shop", RecordType::A).await.metadata.response_code, nxdomain);
    site.dns.shutdown().await;

    let site = start(host(HostView::All), zone.clone()).await;
    assert_eq!(site.ask("mail.post", RecordType::A).await.answers.len(), 1);
    assert_eq!(site.ask_from(attached, "mail.post", RecordType::A).await.metadata.response_code, nxdomain);
    site.dns.shutdown().await;

    let site = start(host(HostView::Service(service("front@shop"))), zone).await;
    assert_eq!(site.ask("web.shop", RecordType::A).await.answers.len(), 2);
    assert_eq!(site.ask("mail.post", RecordType::A).await.metadata.response_code, nxdomain);
    site.dns.shutdown().await;
}

#[tokio::test]
async fn a_new_plan_is_answered_soon_and_a_lost_planner_changes_nothing() {
    let mut site = start(|_| {}, zone()).await;
    assert_eq!(site.ask("many.shop", RecordType::A).await.metadata.response_code, ResponseCode::NXDomain);
    site.plans.as_ref().unwrap().send_replace(plan(crowd(3)));
    let mut rounds = 0;
    while site.ask("many.shop", RecordType::A).await.answers.len() != 3 {
        rounds += 1;
        assert!(rounds < 1000, "the new plan must be answered");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    site.plans = None;
    tokio::task::yield_now().await;
    assert_eq!(site.ask("many.shop", RecordType::A).await.answers.len(), 3);
    site.dns.shutdown().await;
}

#[tokio::test]
async fn malformed_packets_get_formerr_or_nothing() {
    let site = start(|_| {}, zone()).await;
    let good = query("web.shop", RecordType::A).to_vec().unwrap();
    let mut response = good.clone();
    response[2] |= 0x80;
    let mut crowded = good.clone();
    crowded[4..6].copy_from_slice(&[0xff, 0xff]);
    let mut notify = good[..12].to_vec();
    notify[2] |= 4 << 3;
    let none: [(&str, &[u8]); 3] =
        [("nothing", b""), ("half a header", &good[..11]), ("a response", &response)];
    for (what, packet) in none {
        assert!(site.raw(packet).await.is_none(), "{what}");
    }
    let cases: [(&str, &[u8], ResponseCode); 4] = [
        ("a bare header", &good[..12], ResponseCode::FormErr),
        ("half a question", &good[..20], ResponseCode::FormErr),
        ("65535 questions", &crowded, ResponseCode::FormErr),
        ("half a NOTIFY", &notify, ResponseCode::NotImp),
    ];
    for (what, packet, rcode) in cases {
        let reply = site.raw(packet).await.unwrap_or_else(|| panic!("{what}: a reply"));
        assert_eq!((reply.metadata.id, reply.metadata.response_code), (4711, rcode), "{what}");
        assert_eq!(reply.metadata.message_type, MessageType::Response, "{what}");
    }
    let drops = site.dns.metrics().drops;
    assert_eq!((drops["short"], drops["response"]), (2, 1));
    site.dns.shutdown().await;
}

#[tokio::test]
async fn tcp_takes_pipelined_queries_in_any_pieces() {
    let site = start(|_| {}, zone()).await;
    let mut stream = TcpStream::connect(site.address()).await.unwrap();
    let mut bytes = Vec::new();
    for id in 1..=20u16 {
        let mut query = query("web.shop", RecordType::A);
        query.metadata.id = id;
        let query = query.to_vec().unwrap();
        bytes.extend(u16::try_from(query.len()).unwrap().to_be_bytes());
        bytes.extend(query);
    }
    for piece in bytes.chunks(37) {
        stream.write_all(piece).await.unwrap();
        stream.flush().await.unwrap();
        tokio::task::yield_now().await;
    }
    // The client may close its side before it reads the answers.
    stream.shutdown().await.unwrap();
    for id in 1..=20 {
        let reply = decode(read_frame(&mut stream).await.unwrap());
        assert_eq!((reply.metadata.id, reply.answers.len()), (id, 2));
    }
    assert!(read_frame(&mut stream).await.is_none(), "then the server closes too");
    site.dns.shutdown().await;
}

#[tokio::test]
async fn tcp_frames_of_impossible_length_end_the_connection() {
    let site = start(|_| {}, zone()).await;
    for len in [0u16, 11, 4097, 65535] {
        let mut stream = TcpStream::connect(site.address()).await.unwrap();
        stream.write_u16(len).await.unwrap();
        assert!(read_frame(&mut stream).await.is_none(), "{len}");
    }
    assert_eq!(site.dns.metrics().drops["tcp-frame"], 4);
    site.dns.shutdown().await;
}

#[tokio::test]
async fn one_source_cannot_take_every_tcp_connection() {
    let site = start(|_| {}, zone()).await;
    let query = query("web.shop", RecordType::A).to_vec().unwrap();
    let mut held = Vec::new();
    let refused = loop {
        let mut stream = TcpStream::connect(site.address()).await.unwrap();
        write_frame(&mut stream, &query).await;
        match read_frame(&mut stream).await {
            Some(_) => held.push(stream),
            None => break true,
        }
        if held.len() > 200 {
            break false;
        }
    };
    assert!(refused && held.len() == 32, "{} connections", held.len());
    let other = tokio::net::TcpSocket::new_v4().unwrap();
    other.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = other.connect(site.address()).await.unwrap();
    write_frame(&mut other, &query).await;
    assert!(read_frame(&mut other).await.is_some(), "another source is served");
    site.dns.shutdown().await;
}

#[tokio::test]
async fn useless_addresses_are_refused_with_the_reason() {
    for (listen, why) in [
        (vec![], "1 to 64"),
        (vec!["0.0.0.0:0".parse().unwrap()], "every interface"),
        (vec!["[::]:0".parse().unwrap()], "every interface"),
        (vec!["[::ffff:0.0.0.0]:0".parse().unwrap()], "every interface"),
        (vec!["192.0.2.1:0".parse().unwrap()], "cannot bind 192.0.2.1:0"),
    ] {
        let refused = try_start(|o| o.listen = listen, zone()).await.err().map(|e| e.to_string());
        assert!(refused.as_ref().is_some_and(|text| text.contains(why)), "{why}: {refused:?}");
    }
    let upstream = try_start(|o| o.upstreams = vec![loopback(0)], zone()).await.err();
    assert!(matches!(upstream, Some(DnsError::Upstream(_))));
}

#[tokio::test]
async fn a_second_server_does_not_take_half_of_the_queries() {
    let site = start(|_| {}, zone()).await;
    let taken = site.address();
    let refused = try_start(|o| o.listen = vec![taken], zone()).await.err();
    assert!(matches!(refused, Some(DnsError::Bind { transport: "tcp", .. })), "{refused:?}");
    site.dns.shutdown().await;
    let again = start(|o| o.listen = vec![taken], zone()).await;
    assert_eq!(again.address(), taken, "after a shutdown the port is free");
    again.dns.shutdown().await;
}
