//! What workloads find at their gateway: the DNS and the workload API, on the node's own overlay addresses.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use selvedge_dns::Dns;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;

use crate::{api::ApiServer, watchdog::Watchdog};

/// Most gateway addresses: a node has one of each family.
const MAX_GATEWAYS: usize = 8;

/// Serves workloads at their gateway addresses, from the first attachment on.
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

struct Inner {
    dns: Arc<Dns>,
    dns_port: u16,
    api_port: u16,
    state: Mutex<BTreeSet<IpAddr>>,
    /// Bound, and on the way to those who serve the API. The gateway does not hold the API itself, which
    /// holds the attachments, which hold the gateway: nobody would ever let go.
    listeners: mpsc::Sender<TcpListener>,
    waiting: Mutex<Option<mpsc::Receiver<TcpListener>>>,
}

impl Gateway {
    /// Serves at these ports, when asked to.
    #[must_use]
    pub fn new(dns: Arc<Dns>, dns_port: u16, api_port: u16) -> Self {
        let (listeners, waiting) = mpsc::channel(MAX_GATEWAYS);
        let (state, waiting) = (Mutex::default(), Mutex::new(Some(waiting)));
        Self { inner: Arc::new(Inner { dns, dns_port, api_port, state, listeners, waiting }) }
    }

    /// Serves the workload API from here on until `stop`. Connections of before have waited in the kernel.
    pub fn open(&self, api: &ApiServer, watchdog: &Watchdog, stop: &CancellationToken) {
        let waiting = self.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut waiting) = waiting else { return };
        let (api, watched) = (api.clone(), watchdog.clone());
        let serving = async move {
            while let Some(listener) = waiting.recv().await {
                let server = api.clone();
                watched.keep("workload api", async move { server.serve_workload(listener).await });
            }
        };
        watchdog.keep("workload gateways", stop.clone().run_until_cancelled_owned(serving));
    }

    /// Serves at these addresses, which this host must have. Those that are served already stay so.
    ///
    /// # Errors
    /// Which could not be bound, and why.
    pub fn serve(&self, addresses: &[IpAddr]) -> Result<(), String> {
        let mut served = self.inner.lock();
        for &address in addresses {
            if served.contains(&address) {
                continue;
            }
            let listener = self.inner.bind(address)?;
            let full = |_| format!("at most {MAX_GATEWAYS} gateway addresses");
            self.inner.listeners.try_send(listener).map_err(full)?;
            served.insert(address);
        }
        Ok(())
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<IpAddr>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bind(&self, address: IpAddr) -> Result<TcpListener, String> {
        let api = SocketAddr::new(address, self.api_port);
        let failed = |e| format!("cannot bind {api} for the workload API: {e}");
        let listener = std::net::TcpListener::bind(api).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let listener = TcpListener::from_std(listener).map_err(failed)?;
        self.dns.listen(SocketAddr::new(address, self.dns_port)).map_err(|e| e.to_string())?;
        Ok(listener)
    }
}
