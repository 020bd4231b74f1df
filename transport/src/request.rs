//! Requests: twice where a connection is lost, and honest about what may have been handled.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use selvedge_fabric::id::NodeName;

use crate::{
    Alpn, RequestError,
    exchange::{ExchangeError, ask},
    limits::MAX_REQUEST_BYTES,
    link::{CloseCode, Link, close},
    reach,
    transport::Shared,
};

impl Shared {
    /// A request, and once more if its connection was lost: the cached one may have been dead long
    /// before it was used, because its peer was killed and started again.
    pub(crate) async fn request_twice(
        self: &Arc<Self>,
        node: &NodeName,
        alpn: Alpn,
        body: &Bytes,
    ) -> Result<Bytes, RequestError> {
        let link = self.connection(node, alpn).await?;
        let lost = match self.request_on(&link, body).await {
            Err(RequestError::Lost { to, why }) => (to, why),
            answer => return answer,
        };
        let again = match self.connection(node, alpn).await {
            Ok(link) => self.request_on(&link, body).await,
            Err(error) => Err(error),
        };
        // The first copy may have been handled, whatever became of the second: nobody must be told that
        // nothing was sent.
        again.map_err(|error| RequestError::Lost { to: lost.0, why: format!("{}; then: {error}", lost.1) })
    }

    async fn request_on(&self, link: &Arc<Link>, body: &Bytes) -> Result<Bytes, RequestError> {
        link.touch();
        let answer = tokio::select! {
            answer = ask(&link.connection, body) => answer,
            () = reach::until_gone(link, &self.isolation) => {
                close(&link.connection, CloseCode::Gone, "the port is closed");
                Err(ExchangeError::Lost("nobody listens on its port any more".to_owned()))
            }
        };
        link.touch();
        let (to, alpn) = (link.peer.node.to_string(), link.alpn);
        let answer = answer.map_err(|error| error.into_request_error(to, alpn));
        match &answer {
            Ok(_) | Err(RequestError::Refused(_)) => {
                link.note_answer();
                self.pool().succeeded(&link.peer.node, alpn);
            }
            Err(error) if !link.is_alive() => {
                let refusal = matches!(error, RequestError::NotAdmitted { .. }).then(|| error.clone());
                self.pool().remove(link, refusal, Instant::now());
            }
            Err(_) => {}
        }
        match answer {
            // Revoked in the middle of it: that came too late for what was handled before.
            Err(RequestError::NotAdmitted { to, why, .. }) if link.was_admitted() => {
                Err(RequestError::Lost { to, why })
            }
            answer => answer,
        }
    }
}

impl ExchangeError {
    pub(crate) fn into_request_error(self, to: String, alpn: Alpn) -> RequestError {
        match self {
            Self::Refused(text) => RequestError::Refused(text),
            Self::NotAdmitted(why) => RequestError::NotAdmitted { to, alpn, why },
            Self::Lost(why) => RequestError::Lost { to, why },
            Self::TooLarge(bytes) => RequestError::TooLarge { bytes, limit: MAX_REQUEST_BYTES },
        }
    }
}
