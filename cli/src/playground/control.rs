//! How a drill has a playground break things: a socket in its directory, for its own user alone.
//!
//! A connection is a lease. What was broken over it is mended when it ends, also when the program at its
//! other end was killed: nothing stays broken because somebody died. One connection is served at a time.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    time::timeout,
};

use super::{
    fabric::{Fabric, Launch},
    state::State,
};

/// Name of the socket.
pub(crate) const SOCKET: &str = "control.sock";
/// Longest line, bytes.
const MAX_LINE_BYTES: u64 = 64 * 1024;
/// How long a playground may take for one request; a node that does not stop is killed before.
const ANSWER_LIMIT: Duration = Duration::from_secs(45);
/// How long a drill waits for another one to end.
const TURN_LIMIT: Duration = Duration::from_secs(5);
/// Pause after a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a drill asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Request {
    /// Nothing: whether it is there.
    Hello,
    /// Ends a node with its workloads.
    Kill { node: String },
    /// Starts a dead node, and its workloads.
    Start { node: String, launch: Launch },
    /// Ends the daemon in good order and starts it again; its workloads stay.
    Restart { node: String, launch: Launch },
    /// Stops a node in its tracks.
    Pause { node: String },
    /// Lets it go on.
    Resume { node: String },
    /// Cuts one direction between clouds.
    Cut { from: String, to: String },
    /// Changes what one direction between clouds does to packets.
    Slow { from: String, to: String, delay_ms: u64, jitter_ms: u64, loss: f64 },
    /// Mends every direction.
    MendNetwork,
    /// What is broken now stays so when the connection ends.
    Leave,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub(crate) enum Reply {
    Done,
    Failed { why: String },
}

/// Listens in `dir`.
pub(crate) fn listen(dir: &Path) -> anyhow::Result<(UnixListener, PathBuf)> {
    let socket = dir.join(SOCKET);
    let bound = UnixListener::bind(&socket);
    let listener = bound.with_context(|| format!("cannot listen at {}", socket.display()))?;
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600))?;
    Ok((listener, socket))
}

/// Serves drills for ever.
pub(crate) async fn serve(listener: &UnixListener, fabric: &mut Fabric, state: &mut State) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a drill cannot connect");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let own = stream.peer_cred().is_ok_and(|peer| peer.uid() == geteuid().as_raw());
        if !own {
            tracing::warn!("a drill of another user was turned away");
            continue;
        }
        let leave = session(stream, fabric, state).await;
        if !leave {
            fabric.heal().await;
        }
        publish(fabric, state);
    }
}

/// Serves one drill until it is gone. Returns whether what is broken is to stay so.
async fn session(stream: UnixStream, fabric: &mut Fabric, state: &mut State) -> bool {
    let (read, mut write) = stream.into_split();
    let (mut read, mut leave) = (BufReader::new(read), false);
    loop {
        let mut line = Vec::new();
        match (&mut read).take(MAX_LINE_BYTES).read_until(b'\n', &mut line).await {
            Ok(_) if line.last() == Some(&b'\n') => {}
            // The drill has ended, or was killed.
            Ok(0) => return leave,
            Ok(_) => {
                tracing::warn!("a drill was cut short in the middle of a request");
                return leave;
            }
            Err(error) => {
                tracing::warn!(%error, "a drill is no longer heard");
                return leave;
            }
        }
        let done = match serde_json::from_slice(&line) {
            Ok(Request::Leave) => {
                leave = true;
                Ok(())
            }
            Ok(request) => obey(request, fabric).await,
            Err(error) => Err(error.into()),
        };
        publish(fabric, state);
        let reply = match done {
            Ok(()) => Reply::Done,
            Err(error) => Reply::Failed { why: format!("{error:#}") },
        };
        let mut text = serde_json::to_vec(&reply).unwrap_or_default();
        text.push(b'\n');
        if write.write_all(&text).await.is_err() {
            return leave;
        }
    }
}

async fn obey(request: Request, fabric: &mut Fabric) -> anyhow::Result<()> {
    match request {
        Request::Hello | Request::Leave => Ok(()),
        Request::Kill { node } => fabric.kill(&node).await,
        Request::Start { node, launch } => fabric.revive(&node, &launch).await,
        Request::Restart { node, launch } => fabric.restart(&node, &launch).await,
        Request::Pause { node } => fabric.pause(&node),
        Request::Resume { node } => fabric.resume(&node),
        Request::Cut { from, to } => fabric.networks()?.cut(&from, &to),
        Request::Slow { from, to, delay_ms, jitter_ms, loss } => {
            let ms = Duration::from_millis;
            fabric.networks()?.slow(&from, &to, ms(delay_ms), ms(jitter_ms), loss)
        }
        Request::MendNetwork => fabric.networks()?.mend(),
    }
}

/// Processes have changed; whoever looks for them finds the new ones.
fn publish(fabric: &Fabric, state: &mut State) {
    state.nodes = fabric.infos();
    if let Err(error) = state.save() {
        tracing::warn!(%error, "cannot tell which processes there are");
    }
}

/// The drill's end of the connection.
#[derive(Debug)]
pub(crate) struct Control {
    read: BufReader<tokio::net::unix::OwnedReadHalf>,
    write: tokio::net::unix::OwnedWriteHalf,
    /// Requests whose reply has not been read: more than one when somebody did not wait for it.
    unanswered: usize,
}

impl Control {
    /// Connects to a playground.
    ///
    /// # Errors
    /// When it is not there, or another drill has it.
    pub(crate) async fn connect(state: &State) -> anyhow::Result<Self> {
        ensure!(
            !state.control.as_os_str().is_empty(),
            "the playground in {} is of an older selvedge; stop it and start it again",
            state.dir.display()
        );
        let stream = UnixStream::connect(&state.control).await;
        let stream = stream
            .with_context(|| format!("cannot connect to the playground at {}", state.control.display()))?;
        let (read, write) = stream.into_split();
        let mut control = Self { read: BufReader::new(read), write, unanswered: 0 };
        let hello = timeout(TURN_LIMIT, control.ask(&Request::Hello)).await;
        hello.context("the playground does not answer: another drill is running on it")??;
        Ok(control)
    }

    /// Has something done.
    pub(crate) async fn ask(&mut self, request: &Request) -> anyhow::Result<()> {
        let mut text = serde_json::to_vec(request)?;
        text.push(b'\n');
        let mut line = Vec::new();
        let exchange = async {
            self.unanswered += 1;
            self.write.write_all(&text).await?;
            while self.unanswered > 0 {
                line.clear();
                (&mut self.read).take(MAX_LINE_BYTES).read_until(b'\n', &mut line).await?;
                self.unanswered -= 1;
            }
            std::io::Result::Ok(())
        };
        let answered = timeout(ANSWER_LIMIT, exchange).await;
        answered.context("the playground does not answer")?.context("the playground is gone")?;
        match serde_json::from_slice(&line).context("the playground is gone")? {
            Reply::Done => Ok(()),
            Reply::Failed { why } => bail!(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_as_they_are_written() {
        let launch = Launch { binary: Some("/b".into()), clock: Some("+10m".into()) };
        for request in [
            Request::Hello,
            Request::Restart { node: "aws-p1".into(), launch },
            Request::Slow { from: "a".into(), to: "b".into(), delay_ms: 5, jitter_ms: 1, loss: 0.5 },
        ] {
            let text = serde_json::to_string(&request).expect("JSON");
            assert_eq!(serde_json::from_str::<Request>(&text).expect("read"), request, "{text}");
        }
        assert!(serde_json::from_str::<Request>(r#"{"do":"explode"}"#).is_err());
    }
}
