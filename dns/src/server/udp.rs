//! UDP: one worker a socket, no task a query.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::net::UdpSocket;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    MAX_QUERY_BYTES,
    respond::{Outcome, Responder, Transport},
};
use crate::metrics::Dropped;

/// Most packets taken at one wake-up, so that other tasks of the thread get their turn.
const MAX_BURST: usize = 64;
/// Pause after an unexpected socket error, so that a lasting one does not take a core.
const ERROR_PAUSE: Duration = Duration::from_millis(20);

/// Serves one socket.
pub(crate) struct Worker {
    pub(crate) socket: Arc<UdpSocket>,
    pub(crate) local: SocketAddr,
    pub(crate) responder: Arc<Responder>,
    /// Owns the tasks of forwarded queries; the forwarder bounds their number.
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

impl Worker {
    pub(crate) async fn run(self) {
        let mut packet = vec![0; MAX_QUERY_BYTES];
        while let Some(ready) = self.stop.run_until_cancelled(self.socket.readable()).await {
            if ready.and_then(|()| self.drain(&mut packet)).is_err() {
                self.responder.metrics.dropped(Dropped::Receive);
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }

    fn drain(&self, packet: &mut [u8]) -> io::Result<()> {
        for _ in 0..MAX_BURST {
            match self.socket.try_recv_from(packet) {
                Ok((len, source)) => self.take(&packet[..len], source),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn take(&self, packet: &[u8], source: SocketAddr) {
        if let Some(reason) = unanswerable(source, self.local) {
            self.responder.metrics.dropped(reason);
            return;
        }
        match self.responder.respond(packet, source, Transport::Udp) {
            Outcome::Drop => {}
            Outcome::Reply(reply) => send(&self.socket, &reply, source, &self.responder),
            Outcome::Later(later) => {
                let (socket, responder, stop) =
                    (self.socket.clone(), self.responder.clone(), self.stop.clone());
                self.tasks.spawn(async move {
                    if let Some(Some(reply)) = stop.run_until_cancelled(responder.finish(later)).await {
                        send(&socket, &reply, source, &responder);
                    }
                });
            }
        }
    }
}

/// Why nothing from `source` may be answered: nobody listens on port 0, and a packet that claims to come
/// from ourselves would be answered to ourselves.
fn unanswerable(source: SocketAddr, local: SocketAddr) -> Option<Dropped> {
    if source.port() == 0 {
        Some(Dropped::SourcePort)
    } else if source == local {
        Some(Dropped::Loop)
    } else {
        None
    }
}

/// Sends without waiting: who asked will ask again, and the next query must not wait for this reply.
fn send(socket: &UdpSocket, reply: &[u8], source: SocketAddr, responder: &Responder) {
    if socket.try_send_to(reply, source).is_err() {
        responder.metrics.dropped(Dropped::SendFailed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forged_sources_are_not_answered() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let local = at("127.0.0.1:53");
        assert_eq!(unanswerable(at("127.0.0.1:0"), local), Some(Dropped::SourcePort));
        assert_eq!(unanswerable(local, local), Some(Dropped::Loop));
        assert_eq!(unanswerable(at("127.0.0.1:5353"), local), None);
        assert_eq!(unanswerable(at("127.0.0.2:53"), local), None);
    }
}
