//! Before anything starts: the identity of this node, from disk or by joining.

use std::net::SocketAddr;

use anyhow::{Context, bail};
use selvedge_fabric::{command::Role, key::Signer, token::JoinTokenText};

use crate::{
    clock,
    config::NodeConfig,
    enroll::{
        answer,
        client::{self, Joining},
    },
    files,
    identity::{DataDir, Identity, IdentityError, Machine},
    pki::{self, NodeKey, SealingKey},
};

/// A node that may start.
pub(super) struct Admitted {
    pub(super) identity: Identity,
    pub(super) key: NodeKey,
    pub(super) sealing: SealingKey,
}

/// Reads the identity, or joins with the configured token.
pub(super) async fn identify(
    config: &NodeConfig,
    dir: &DataDir,
    advertised: &[SocketAddr],
) -> anyhow::Result<Admitted> {
    if let Some(identity) = Identity::load(dir)? {
        match identity.check_machine(dir, &Machine::this()) {
            Err(_) if config.accept_new_host => return adopt(dir, identity),
            Ok(()) => return load_keys(dir, identity),
            Err(error) => moved(config, dir, &identity, error)?,
        }
    }
    join(config, dir, advertised).await
}

fn load_keys(dir: &DataDir, identity: Identity) -> anyhow::Result<Admitted> {
    let key = NodeKey::load(&dir.node_key())?;
    let sealing = SealingKey::load(&dir.sealing_key())?;
    if pki::certified_key(&identity.node_cert)? != key.public_key() {
        bail!(
            "{} is not the key of node {}, of which {} speaks: restore both from the same copy, or move the data \
             directory away and join again",
            dir.node_key().display(),
            identity.node,
            dir.identity().display()
        );
    }
    Ok(Admitted { identity, key, sealing })
}

/// The operator vouches that the machine this identity was made on will never run again.
fn adopt(dir: &DataDir, identity: Identity) -> anyhow::Result<Admitted> {
    let machine = Machine::this();
    tracing::warn!(was = %identity.machine, is = %machine, "the identity moves to this machine, as told");
    let identity = Identity { machine, ..identity };
    identity.save(dir)?;
    load_keys(dir, identity)
}

/// The directory was made on another machine. A workload node sets the identity aside and joins anew;
/// a processor refuses, because its vote may be alive elsewhere.
fn moved(
    config: &NodeConfig,
    dir: &DataDir,
    identity: &Identity,
    error: IdentityError,
) -> anyhow::Result<()> {
    if identity.role == Role::Processor {
        return Err(error.into());
    }
    if config.join_token_file.is_none() {
        bail!("{error}; this workload node needs a join token (join-token-file) to become a node of its own");
    }
    let aside = dir.path().join(format!("set-aside-{}", clock::unix_ms()));
    files::private_dir(&aside)?;
    for path in
        [dir.identity(), dir.node_key(), dir.sealing_key(), dir.endpoints(), dir.policy(), dir.facts()]
    {
        if let (true, Some(name)) = (path.exists(), path.file_name()) {
            std::fs::rename(&path, aside.join(name))
                .with_context(|| format!("cannot set {} aside", path.display()))?;
        }
    }
    tracing::warn!(aside = %aside.display(), "this is a copy of another node: its key is set aside, joining anew");
    Ok(())
}

async fn join(config: &NodeConfig, dir: &DataDir, advertised: &[SocketAddr]) -> anyhow::Result<Admitted> {
    let token = read_token(config, dir)?;
    client::check_token(&token, config.role, config.zone.as_ref(), clock::unix_ms())?;
    let name = config.node_name()?;
    // Kept before the first attempt: a crash after admission must find the admitted key again.
    let key = NodeKey::load_or_generate(&dir.node_key())?;
    let sealing = SealingKey::load_or_generate(&dir.sealing_key())?;
    let joining = Joining {
        token: &token,
        seeds: &config.seeds,
        name: name.clone(),
        csr: pki::csr(&key)?,
        sealing_key: sealing.public_key(),
        addresses: advertised.to_vec(),
    };
    tracing::info!(node = %name, zone = %token.zone, role = %token.role, "joining fabric {}", token.fabric_name);
    let reply = client::join(&joining).await?;
    let identity = answer::identity(reply, &token, name, &key, clock::unix_ms()).context(
        "the answer of the seed makes no sense and nothing of it was kept: join through another one",
    )?;
    identity.save(dir)?;
    tracing::info!(node = %identity.node, "joined");
    Ok(Admitted { identity, key, sealing })
}

fn read_token(config: &NodeConfig, dir: &DataDir) -> anyhow::Result<JoinTokenText> {
    let Some(path) = &config.join_token_file else {
        bail!(
            "{} holds no node and no join token is configured: run `selvedge fabric init` for a new fabric, \
             or make a token with `selvedge token join` on a running node and pass it with --join-token",
            dir.path().display()
        );
    };
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the join token {}", path.display()))?;
    JoinTokenText::parse(text.trim()).with_context(|| format!("join token {}", path.display()))
}
