//! A server on loopback, and plain sockets that ask it.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use selvedge_dns::{
    Dns, DnsError, HostView, Options,
    proto::{op::Message, rr::RecordType},
};
use selvedge_fabric::{
    event::{EventSink, Severity},
    plan::{Plan, Zone},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    sync::watch,
    time::timeout,
};

use crate::fixture::{plan, query};

/// Long enough for a busy machine; a test that needs it all has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// How long to listen for a reply that must not come.
pub(crate) const SILENCE: Duration = Duration::from_millis(200);

/// Keeps the codes of events.
#[derive(Default)]
pub(crate) struct Codes(pub(crate) Mutex<Vec<&'static str>>);

impl EventSink for Codes {
    fn emit(&self, _: Severity, code: &'static str, _: &str, _: String) {
        self.0.lock().unwrap().push(code);
    }
}

/// A running server and what feeds it.
pub(crate) struct Site {
    pub(crate) dns: Dns,
    /// `None` once the planner is gone.
    pub(crate) plans: Option<watch::Sender<Arc<Plan>>>,
    pub(crate) events: Arc<Codes>,
}

pub(crate) async fn try_start(change: impl FnOnce(&mut Options), zone: Zone) -> Result<Site, DnsError> {
    let (plans, receiver) = watch::channel(plan(zone));
    let events = Arc::new(Codes::default());
    let mut options = Options {
        listen: vec![loopback(0)],
        host_view: HostView::All,
        upstreams: Vec::new(),
        workers: 2,
        plan: receiver,
        events: events.clone(),
    };
    change(&mut options);
    Ok(Site { dns: Dns::start(options).await?, plans: Some(plans), events })
}

pub(crate) async fn start(change: impl FnOnce(&mut Options), zone: Zone) -> Site {
    try_start(change, zone).await.unwrap_or_else(|error| panic!("the server must start: {error}"))
}

pub(crate) fn loopback(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

impl Site {
    pub(crate) fn address(&self) -> SocketAddr {
        self.dns.local_addrs()[0]
    }

    pub(crate) async fn ask(&self, of: &str, rtype: RecordType) -> Message {
        self.udp(&query(of, rtype)).await
    }

    pub(crate) async fn ask_from(&self, source: IpAddr, of: &str, rtype: RecordType) -> Message {
        let bytes = query(of, rtype).to_vec().unwrap();
        decode(udp_bytes(source, self.address(), &bytes).await)
    }

    pub(crate) async fn udp(&self, query: &Message) -> Message {
        decode(udp_bytes(loopback(0).ip(), self.address(), &query.to_vec().unwrap()).await)
    }

    /// The reply to raw bytes over UDP; `None` when none came.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> Option<Message> {
        let socket = UdpSocket::bind(loopback(0)).await.unwrap();
        socket.send_to(bytes, self.address()).await.unwrap();
        let mut packet = vec![0; 65535];
        let len = timeout(SILENCE, socket.recv(&mut packet)).await.ok()?.unwrap();
        Some(Message::from_vec(&packet[..len]).unwrap())
    }

    pub(crate) async fn tcp(&self, query: &Message) -> Message {
        let mut stream = TcpStream::connect(self.address()).await.unwrap();
        write_frame(&mut stream, &query.to_vec().unwrap()).await;
        decode(read_frame(&mut stream).await.unwrap())
    }
}

async fn udp_bytes(source: IpAddr, server: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind((source, 0)).await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(bytes).await.unwrap();
    let mut packet = vec![0; 65535];
    let len = timeout(PATIENCE, socket.recv(&mut packet)).await.unwrap().unwrap();
    packet.truncate(len);
    packet
}

pub(crate) fn decode(bytes: Vec<u8>) -> Message {
    Message::from_vec(&bytes).unwrap()
}

pub(crate) async fn write_frame(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
}

/// The next message of the stream; `None` when the server has closed it.
pub(crate) async fn read_frame(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let read = async {
        let len = stream.read_u16().await.ok()?;
        let mut bytes = vec![0; usize::from(len)];
        stream.read_exact(&mut bytes).await.ok()?;
        Some(bytes)
    };
    timeout(PATIENCE, read).await.unwrap()
}
