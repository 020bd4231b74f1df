//! `run`: a process tree with the identity of a service.

use std::{
    ffi::{CString, OsStr, OsString},
    fs::{self, File, OpenOptions},
    io::{self, IsTerminal as _, Write as _},
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _, process::ExitStatusExt as _},
    path::Path,
    process::{ExitCode, ExitStatus},
};

use clap::Args;
use futures::future::select_all;
use rustix::{
    mount::{MountPropagationFlags, mount_bind, mount_change},
    process::{Pid, Signal, geteuid, kill_process},
    thread::{UnshareFlags, unshare_unsafe},
};
use selvedge_node::api::{
    exit,
    types::{AttachPlace, AttachReply, AttachRequest},
};
use tempfile::NamedTempFile;
use tokio::{
    process::{Child, Command},
    signal::unix::{Signal as Incoming, SignalKind, signal},
};

use super::endpoint::RegisterArgs;
use crate::{
    args::Global,
    client::{Ask, escape},
    failure::{Failure, Outcome},
};

/// Where programs look for who resolves names.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// What shells return when a command is not there, and when it is and cannot be started.
const NOT_FOUND: u8 = 127;
const NOT_STARTED: u8 = 126;
/// Added to the number of the signal that ended the command, as shells do it.
const SIGNALLED: u8 = 128;

/// Run a command, and every process that it starts, under the identity of a service.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  selvedge run --service web@shop --token-file web.token --port tcp/80 -- ./web --listen 0.0.0.0:80
  selvedge run --service db@shop --token-file db.token --port tcp/5432 --check tcp -- \\
      setpriv --reuid postgres --regid postgres --init-groups postgres -D /var/lib/postgresql
  selvedge run --service job@shop --token-file job.token -- sh -c 'curl http://front.shop.fabric.internal/'
Every socket of the process tree has the endpoint's addresses, and only what a contract allows passes, also
between process trees of this host. The tree asks the DNS of its node: it has an /etc/resolv.conf of its own;
programs that ask a resolver of this host by a socket (nss-resolve, nscd) see what the host sees.
When the command ends, its endpoint does, and whatever the command left running is killed; when the endpoint
is detached, the command is killed. Signals are passed on. Needs root, and the node's local socket; setpriv(1)
gives the command another user.
If this program itself is killed, the command goes on, and the node takes its endpoint away when it ends.
Exit code: that of the command; 128 and the signal's number when a signal ended it; 127 when there is no such
command, 126 when it cannot be started. When nothing was started, that of every other selvedge command.")]
pub(crate) struct RunArgs {
    #[command(flatten)]
    register: RegisterArgs,
    /// Let it resolve names as the host does
    #[arg(long)]
    keep_resolver: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub(crate) async fn run(global: &Global, args: RunArgs) -> Outcome {
    if !geteuid().is_root() {
        return Err(Failure::new("a process enters a control group as root only")
            .remedy("sudo selvedge run … -- setpriv --reuid USER --regid GROUP --init-groups CMD"));
    }
    // From here on, signals are for the command.
    let mut signals = Signals::new().map_err(|e| Failure::new(format!("cannot take signals: {e}")))?;
    let endpoint = args.register.request()?;
    let request = AttachRequest { endpoint, place: AttachPlace::Group, keep_resolver: args.keep_resolver };
    // The token file is that of the service.
    let api = Global { token_file: None, ..global.clone() }.client()?;
    let attached: AttachReply = api.ask(Ask::post("/v1/attachments").json(&request)?).await?;
    attached.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));

    let ended = match start(&attached, &args.command, args.keep_resolver) {
        Ok(mut child) => signals.pass_to(&mut child).await,
        Err(failure) => Err(failure),
    };
    let path = format!("/v1/attachments/{}", escape(&attached.attachment.endpoint));
    match api.send(&Ask::delete(path)).await {
        // The node may have seen first that it ended.
        Err(failure) if failure.code != exit::REFUSED => {
            eprintln!(
                "warning: {failure}; the node takes the endpoint away when it sees that nobody is in it"
            );
        }
        _ => {}
    }
    Ok(exit_code(ended?))
}

/// Starts the command within the control group.
fn start(attached: &AttachReply, command: &[OsString], keep_resolver: bool) -> Outcome<Child> {
    let group = attached.attachment.group.as_deref().unwrap_or_default();
    let procs = Path::new(group).join("cgroup.procs");
    let entry = OpenOptions::new().write(true).open(&procs);
    let entry = entry.map_err(|e| Failure::new(format!("cannot enter {}: {e}", procs.display())))?;
    let names = if keep_resolver { None } else { resolv_conf(&attached.gateways) };
    let over = names.as_ref().and_then(|file| CString::new(file.path().as_os_str().as_bytes()).ok());
    let (program, arguments) = command.split_first().ok_or_else(|| Failure::usage("there is no command"))?;
    let mut command = Command::new(program);
    command.args(arguments);
    enter_first(&mut command, entry, over);
    // When this returns, the file is mounted there, and needs no name any more.
    command.spawn().map_err(|error| not_started(program, &error))
}

fn not_started(program: &OsStr, error: &io::Error) -> Failure {
    let (code, remedy) = match error.kind() {
        io::ErrorKind::NotFound => (NOT_FOUND, "give its path, or see that it is in PATH"),
        io::ErrorKind::PermissionDenied => (
            NOT_STARTED,
            "it must be executable, and root must be able to make mount namespaces here (CAP_SYS_ADMIN); \
             without, use --keep-resolver",
        ),
        _ => (NOT_STARTED, "see that it can be run by itself, as root"),
    };
    let what = format!("cannot start {}: {error}", program.to_string_lossy());
    let mut failure = Failure::new(what).remedy(remedy);
    failure.code = code;
    failure
}

/// Lets the child enter the group, and see its own resolv.conf, before it becomes the command.
#[allow(unsafe_code, reason = "Command offers no safe way to do something between fork and exec")]
fn enter_first(command: &mut Command, entry: File, over: Option<CString>) {
    const TARGET: &std::ffi::CStr = c"/etc/resolv.conf";
    let enter = move || -> io::Result<()> {
        (&entry).write_all(b"0")?;
        let Some(over) = &over else { return Ok(()) };
        // SAFETY: the call is unsound only with UnshareFlags::FILES, which is not among the flags.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
        // What the host mounts later is seen; what is mounted here is not seen by the host.
        mount_change(c"/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
        mount_bind(over.as_c_str(), TARGET)?;
        Ok(())
    };
    // SAFETY: the closure makes system calls only, with what was allocated before, and takes no lock.
    unsafe { command.pre_exec(enter) };
}

/// A resolv.conf that names the gateways, with search lists and options as the host's.
fn resolv_conf(gateways: &[String]) -> Option<NamedTempFile> {
    let make = || {
        let text = names_by(gateways, &fs::read_to_string(RESOLV_CONF)?);
        let mut file = tempfile::Builder::new()
            .prefix("selvedge-resolv-")
            .permissions(fs::Permissions::from_mode(0o644))
            .tempfile()?;
        file.write_all(text.as_bytes())?;
        // The mode above is subject to the umask, and the command may run as another user.
        file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
        Ok::<_, io::Error>(file)
    };
    let warn = |e: &io::Error| eprintln!("warning: names are resolved as the host does: {RESOLV_CONF}: {e}");
    make().inspect_err(warn).ok()
}

fn names_by(gateways: &[String], host: &str) -> String {
    let is_server = |line: &&str| line.split_whitespace().next() == Some("nameserver");
    let servers = gateways.iter().map(|gateway| format!("nameserver {gateway}\n"));
    let others = host.lines().filter(|line| !is_server(line)).map(|line| format!("{line}\n"));
    servers.chain(others).collect()
}

fn exit_code(status: ExitStatus) -> ExitCode {
    let signal = || status.signal().and_then(|number| u8::try_from(number).ok()).unwrap_or_default();
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    ExitCode::from(code.unwrap_or_else(|| SIGNALLED.saturating_add(signal())))
}

/// Signals that are passed on to the command.
struct Signals(Vec<(Incoming, Signal)>);

impl Signals {
    fn new() -> io::Result<Self> {
        let passed = [
            (SignalKind::terminate(), Signal::TERM),
            (SignalKind::hangup(), Signal::HUP),
            (SignalKind::user_defined1(), Signal::USR1),
            (SignalKind::user_defined2(), Signal::USR2),
            (SignalKind::interrupt(), Signal::INT),
            (SignalKind::quit(), Signal::QUIT),
        ];
        passed
            .into_iter()
            .map(|(kind, number)| Ok((signal(kind)?, number)))
            .collect::<io::Result<_>>()
            .map(Self)
    }

    async fn next(&mut self) -> Signal {
        let incoming = self.0.iter_mut().map(|(incoming, number)| {
            Box::pin(async {
                // None never comes: the runtime lives.
                let _ = incoming.recv().await;
                *number
            })
        });
        select_all(incoming).await.0
    }

    /// Passes signals on until the command ends.
    async fn pass_to(&mut self, child: &mut Child) -> Outcome<ExitStatus> {
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        // These a terminal sends to all its processes, the command among them.
        let by_terminal = |number| io::stdin().is_terminal() && matches!(number, Signal::INT | Signal::QUIT);
        loop {
            tokio::select! {
                ended = child.wait() => {
                    return ended.map_err(|e| Failure::new(format!("the command cannot be waited for: {e}")));
                }
                number = self.next() => {
                    if let Some(pid) = pid.filter(|_| !by_terminal(number)) {
                        let _ = kill_process(pid, number);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_asked_of_the_gateway_alone() {
        let host = "search corp.example\nnameserver 192.0.2.1\noptions ndots:2";
        let gateways = ["100.64.1.1".to_owned(), "fd00::1".to_owned()];
        let expected = "nameserver 100.64.1.1\nnameserver fd00::1\nsearch corp.example\noptions ndots:2\n";
        assert_eq!(names_by(&gateways, host), expected);
    }

    #[test]
    fn the_exit_code_is_that_of_the_command() {
        assert_eq!(exit_code(ExitStatus::from_raw(7 << 8)), ExitCode::from(7));
        assert_eq!(exit_code(ExitStatus::from_raw(9)), ExitCode::from(137));
    }
}
