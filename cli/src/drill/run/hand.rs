//! Who breaks and mends.

use std::future::pending;

use crate::{
    drill::{fabric::leases::Leases, record::Condition},
    playground::control::{Control, Request},
};

/// A playground, or the nodes of a real fabric themselves.
#[derive(Debug)]
pub(in crate::drill) enum Hand {
    Playground(Control),
    Fabric(Leases),
}

impl Hand {
    /// Has these things done, as nearly at once as can be.
    pub(super) async fn obey(&mut self, requests: &[Request]) -> anyhow::Result<()> {
        match self {
            Self::Playground(control) => {
                for request in requests {
                    control.ask(request).await?;
                }
                Ok(())
            }
            Self::Fabric(leases) => leases.obey(requests).await,
        }
    }

    /// What becomes of a node that is killed.
    pub(super) const fn lost(&self) -> Condition {
        match self {
            Self::Playground(_) => Condition::Dead,
            Self::Fabric(_) => Condition::CutOff,
        }
    }

    /// The words for killing a node, and for starting it again.
    pub(super) const fn verbs(&self) -> (&'static str, &'static str) {
        match self {
            Self::Playground(_) => ("kill", "start"),
            Self::Fabric(_) => ("cut off from everybody:", "let back:"),
        }
    }

    /// Returns when the drill cannot go on because it no longer has what it breaks, with what happened.
    pub(super) fn trouble(&self) -> impl Future<Output = String> + use<> {
        let trouble = match self {
            // Every request is answered, or the connection is gone.
            Self::Playground(_) => None,
            Self::Fabric(leases) => Some(leases.trouble()),
        };
        async move {
            match trouble {
                Some(trouble) => trouble.await,
                None => pending().await,
            }
        }
    }

    /// Lets go of everything. Returns the nodes that could not be told, and mend themselves.
    pub(super) async fn close(self) -> Vec<String> {
        match self {
            // The playground notices.
            Self::Playground(_) => Vec::new(),
            Self::Fabric(leases) => leases.close().await,
        }
    }
}
