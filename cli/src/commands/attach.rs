//! `attach`, `detach` and `attachments`.

use std::path::PathBuf;

use clap::Args;
use selvedge_node::api::types::{AttachPlace, AttachReply, AttachRequest, Attachment};

use super::{DONE, endpoint::RegisterArgs};
use crate::{
    args::Global,
    client::{Ask, escape},
    failure::Outcome,
    output::{Look, table::Table},
};

/// Give a network namespace or an interface an endpoint.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  selvedge attach --service web@shop --token-file web.token --port tcp/80 --netns /run/netns/web
  selvedge attach --service db@shop --token-file db.token --port tcp/5432 --pid 4711 --check tcp
  selvedge attach --service vm@shop --token-file vm.token --interface tap0
From then on every packet of it is decided by its service: what no contract allows is dropped, on this node.
The service token is in --token-file; the node is asked on its local socket.")]
pub(crate) struct AttachArgs {
    #[command(flatten)]
    what: PlaceArgs,
    #[command(flatten)]
    register: RegisterArgs,
    /// Leave its resolv.conf alone
    #[arg(long)]
    keep_resolver: bool,
}

/// What to attach.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct PlaceArgs {
    /// The network namespace with this file, as `ip netns add NAME` makes it
    #[arg(long, value_name = "PATH")]
    netns: Option<PathBuf>,
    /// The network namespace of this process, for instance of a container
    #[arg(long, value_name = "P")]
    pid: Option<u32>,
    /// What is behind this interface: a tap, or the near end of a veth
    #[arg(long, value_name = "I")]
    interface: Option<String>,
}

/// Detach a workload, and deregister its endpoint.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  selvedge detach web-x7k2p9")]
pub(crate) struct DetachArgs {
    /// Its endpoint
    endpoint: String,
}

/// What is attached to the node that is asked.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  selvedge attachments -o wide")]
pub(crate) struct AttachmentsArgs {}

pub(crate) async fn attach(global: &Global, args: AttachArgs) -> Outcome {
    let PlaceArgs { netns, pid, interface } = args.what;
    // The daemon has another working directory.
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path).display().to_string();
    let place = match (netns, pid, interface) {
        (Some(path), ..) => AttachPlace::Netns(absolute(path)),
        (_, Some(pid), _) => AttachPlace::Pid(pid),
        (.., interface) => AttachPlace::Interface(interface.unwrap_or_default()),
    };
    let request =
        AttachRequest { endpoint: args.register.request()?, place, keep_resolver: args.keep_resolver };
    // The token file is that of the service.
    let api = Global { token_file: None, ..global.clone() };
    let attached: AttachReply = api.client()?.ask(Ask::post("/v1/attachments").json(&request)?).await?;
    attached.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    global.printer().show(&attached, |look| table(std::slice::from_ref(&attached.attachment), look))?;
    DONE
}

pub(crate) async fn detach(global: &Global, args: DetachArgs) -> Outcome {
    let path = format!("/v1/attachments/{}", escape(&args.endpoint));
    global.client()?.send(&Ask::delete(path)).await?;
    DONE
}

pub(crate) async fn list(global: &Global, _args: AttachmentsArgs) -> Outcome {
    let all: Vec<Attachment> = global.client()?.ask(Ask::get("/v1/attachments")).await?;
    global.printer().show(&all, |look| table(&all, look))?;
    DONE
}

fn table(attachments: &[Attachment], look: Look) -> String {
    let mut rows = Table::new(look, &["ENDPOINT", "SERVICE", "PLACE", "INTERFACE", "ADDRESSES"]);
    for attachment in attachments {
        rows.row([
            attachment.endpoint.as_str().into(),
            attachment.service.as_str().into(),
            place(&attachment.place).into(),
            attachment.interface.as_str().into(),
            attachment.addresses.join(",").into(),
        ]);
    }
    rows.or("nothing is attached")
}

fn place(place: &AttachPlace) -> String {
    match place {
        AttachPlace::Netns(path) => path.clone(),
        AttachPlace::Pid(pid) => format!("pid {pid}"),
        AttachPlace::Interface(name) => format!("interface {name}"),
        AttachPlace::Group => "process tree".to_owned(),
    }
}
