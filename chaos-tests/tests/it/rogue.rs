//! A node that was taken over: somebody has its keys, and speaks to honest nodes as it does, but says what
//! they like.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context as _, ensure};
use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use ed25519_dalek::{SigningKey, pkcs8::DecodePrivateKey as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use selvedge_chaos_tests::lab::islands::Islands;
use selvedge_fabric::{
    event::{EventSink, Severity},
    id::{Name, NodeName},
};
use selvedge_transport::{Alpn, Credentials, Gate, Handler, Options, PeerIdentity, Transport};
use tokio::{runtime::Runtime, sync::watch};

/// The port of the fabric on every island.
const FABRIC_PORT: u16 = 7401;

/// What lies in the data directory of a node.
pub(crate) struct Stolen {
    fabric: Name,
    /// Whose.
    pub(crate) node: NodeName,
    /// Its key.
    pub(crate) key: SigningKey,
    credentials: Arc<Credentials>,
}

impl Stolen {
    /// Reads certificates and key.
    pub(crate) fn from(data: &Path) -> anyhow::Result<Self> {
        let identity: serde_json::Value =
            serde_json::from_slice(&std::fs::read(data.join("identity.json"))?)?;
        let text = |field: &str| identity[field].as_str().with_context(|| format!("no {field}"));
        let certificate =
            |field: &str| Ok::<_, anyhow::Error>(CertificateDer::from(STANDARD.decode(text(field)?)?));
        let pem = std::fs::read_to_string(data.join("node.key"))?;
        let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let der = STANDARD.decode(body)?;
        let issuing = certificate("issuing_cert")?;
        let credentials = Credentials {
            chain: vec![certificate("node_cert")?, issuing.clone()],
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der.clone())),
            root: certificate("root_cert")?,
            issuing,
        };
        let key = SigningKey::from_pkcs8_der(&der).map_err(|e| anyhow::anyhow!("no key: {e}"))?;
        let (fabric, node) = (text("fabric")?.parse()?, text("node")?.parse()?);
        Ok(Self { fabric, node, key, credentials: Arc::new(credentials) })
    }
}

/// Speaks with everybody, and tells nobody.
struct Careless;

impl Gate for Careless {
    fn admit(&self, _: &PeerIdentity, _: Alpn) -> Result<(), String> {
        Ok(())
    }
}

impl EventSink for Careless {
    fn emit(&self, _: Severity, _: &'static str, _: &str, _: String) {}
}

/// A stolen identity at work, where its node was. It ends with the value.
pub(crate) struct Rogue {
    /// Its end of the fabric.
    pub(crate) transport: Transport,
    /// What it runs on.
    pub(crate) runtime: Runtime,
    _credentials: watch::Sender<Arc<Credentials>>,
}

impl Rogue {
    /// Takes the place of a node that does not run any more, and knows where its neighbours are.
    pub(crate) fn start(islands: &Islands, stolen: &Stolen, neighbours: &[&str]) -> anyhow::Result<Self> {
        let island = stolen.node.as_str();
        let (sender, credentials) = watch::channel(Arc::clone(&stolen.credentials));
        let (runtime, transport) = islands.within(island, || {
            // Its threads are made here, and so are in this network too.
            let threads =
                tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
            let guard = threads.enter();
            let transport = Transport::bind(Options {
                listen: ([0, 0, 0, 0], FABRIC_PORT).into(),
                fabric: stolen.fabric.clone(),
                me: Some(stolen.node.clone()),
                credentials,
                gate: Arc::new(Careless),
                events: Arc::new(Careless),
            })?;
            drop(guard);
            Ok((threads, transport))
        })?;
        ensure!(!neighbours.is_empty(), "a rogue with nobody to speak to");
        for neighbour in neighbours {
            let address = SocketAddr::from((islands.address(neighbour, island)?, FABRIC_PORT));
            transport.book().set(&neighbour.parse()?, vec![address]);
        }
        Ok(Self { transport, runtime, _credentials: sender })
    }

    /// Answers one kind of request so.
    pub(crate) fn handle(&self, alpn: Alpn, handler: Arc<dyn Handler>) {
        self.transport.handle(alpn, handler);
    }
}

impl Drop for Rogue {
    fn drop(&mut self) {
        self.runtime.block_on(self.transport.close());
    }
}

/// What a datagram of a link is, by its first byte.
pub(crate) const FRAME: u8 = 1;
const PROBE: u8 = 3;
const ECHO: u8 = 4;
/// The first byte of a sealed frame, and that of one in clear: version and kind.
pub(crate) const SEALED: u8 = 0x12;
pub(crate) const PLAIN: u8 = 0x11;

/// The links of a rogue. It answers probes as honest nodes do, so that its neighbours think well of it, and
/// keeps all that comes.
pub(crate) struct Wire {
    transport: Transport,
    /// Between whom it hands everything on.
    between: Option<[NodeName; 2]>,
    taken: Mutex<Vec<(NodeName, Bytes)>>,
    /// Whether it alters the next sealed frame that it hands on.
    pub(crate) alters: AtomicBool,
}

impl Wire {
    /// Answers on the links of a rogue from here on.
    pub(crate) fn lay(rogue: &Rogue, between: Option<[&str; 2]>) -> anyhow::Result<Arc<Self>> {
        let between = match between {
            Some([one, other]) => Some([one.parse()?, other.parse()?]),
            None => None,
        };
        let (transport, taken) = (rogue.transport.clone(), Mutex::default());
        let wire = Arc::new(Self { transport, between, taken, alters: AtomicBool::new(false) });
        rogue.transport.handle(Alpn::Link, wire.clone());
        Ok(wire)
    }

    /// All that came, but probes: who handed it over, and what.
    pub(crate) fn taken(&self) -> MutexGuard<'_, Vec<(NodeName, Bytes)>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest sealed frame from a node, with what is in front of a frame.
    pub(crate) fn sealed_from(&self, node: &str) -> Option<Bytes> {
        let taken = self.taken();
        let sealed = |(from, bytes): &&(NodeName, Bytes)| from.as_str() == node && is_sealed(bytes);
        taken.iter().rev().find(sealed).map(|(_, bytes)| bytes.clone())
    }

    /// Sends a datagram to a neighbour.
    pub(crate) fn send(&self, to: &NodeName, bytes: Bytes) -> anyhow::Result<()> {
        let channel = self.transport.channel(to, Alpn::Link);
        Ok(channel.with_context(|| format!("no link to {to}"))?.send_now(bytes)?)
    }
}

fn is_sealed(bytes: &[u8]) -> bool {
    bytes.starts_with(&[FRAME, SEALED])
}

#[async_trait]
impl Handler for Wire {
    async fn request(&self, _: Option<PeerIdentity>, _: SocketAddr, _: Bytes) -> Result<Bytes, String> {
        Err("links carry datagrams only".to_owned())
    }

    fn datagram(&self, peer: &PeerIdentity, body: Bytes) {
        match body.first() {
            Some(&PROBE) => {
                let echo = [&[ECHO], &body[1..]].concat();
                // Who is gone again needs no answer.
                let _ = self.send(&peer.node, echo.into());
                return;
            }
            Some(&ECHO) => return,
            _ => self.taken().push((peer.node.clone(), body.clone())),
        }
        let other = self.between.iter().flatten().find(|node| **node != peer.node);
        let Some(other) = other else { return };
        let mut onward = body.to_vec();
        if is_sealed(&body)
            && self.alters.swap(false, Ordering::Relaxed)
            && let Some(last) = onward.last_mut()
        {
            *last ^= 1;
        }
        let _ = self.send(other, onward.into());
    }
}
