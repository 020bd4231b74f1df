//! Bytes from outside: nothing panics, nothing grows beyond its bound.

use selvedge_dns::{
    Asker, ZoneIndex, answer, encode,
    proto::{op::Message, rr::RecordType},
    udp_limit,
};
use selvedge_fuzz::fuzz;

use crate::fixture::{crowd, query, service, with_edns};

/// What the server does with a packet, but for the socket.
fn serve(index: &ZoneIndex, packet: &[u8]) {
    let Ok(query) = Message::from_vec(packet) else { return };
    for asker in [Asker::All, Asker::Nothing, Asker::Service(service("front@shop"))] {
        let reply = answer(index, &query, &asker);
        for limit in [udp_limit(&query), u16::MAX] {
            match encode(&reply, limit) {
                Ok(bytes) => {
                    assert!(bytes.len() <= usize::from(limit));
                    let again = Message::from_vec(&bytes).expect("what we send can be read");
                    assert_eq!(again.metadata.id, query.metadata.id);
                }
                // Only a heap of questions, which the server does not even decode, is too large.
                Err(error) => assert!(query.queries.len() > 1, "{error}: {query:?}"),
            }
        }
    }
}

/// Some real queries, as bytes.
fn seeds() -> Vec<Vec<u8>> {
    let names =
        ["", "web.shop", "_web._tcp.shop", "many.shop", "web-1.ep", "1.1.64.100.in-addr.arpa.", "x.example."];
    let types = [RecordType::A, RecordType::SRV, RecordType::ANY, RecordType::PTR, RecordType::SOA];
    let plain = names.iter().flat_map(|name| types.map(|rtype| query(name, rtype)));
    plain.flat_map(|q| [q.clone(), with_edns(q, 1232)]).map(|q| q.to_vec().unwrap()).collect()
}

#[test]
fn hostile_packets_do_no_harm() {
    let index = ZoneIndex::build(&crowd(60));
    fuzz("dns packets", &seeds(), |packet| serve(&index, packet));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_under_a_rain_of_mutants_goes_on_answering() {
    let site = crate::client::start(|_| {}, crowd(60)).await;
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    fuzz("dns server", &seeds(), |packet| {
        let _ = socket.send_to(packet, site.address());
    });
    // The rain may still fill the socket's buffer; who asks again is answered.
    let good = query("web.shop", RecordType::A).to_vec().unwrap();
    for _ in 0..100 {
        if let Some(reply) = site.raw(&good).await {
            assert_eq!(reply.answers.len(), 2);
            return site.dns.shutdown().await;
        }
    }
    panic!("the server answers no more");
}
