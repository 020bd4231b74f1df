//! `quorum recover`: the fabric goes on without a majority that is lost for good.

use std::{
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
};

use clap::Args;
use selvedge_fabric::{
    id::NodeName,
    key::{PublicKey, Signer},
    statement::{Base, Recovery, SignedRecovery, VoterSet},
};
use selvedge_node::{
    api::types::{RecoveryDraft, RecoveryReply, RecoveryRequest, RecoveryStatement},
    clock,
    pki::{NodeKey, read_recovery_key},
};

use super::DONE;
use crate::{
    args::Global,
    client::Ask,
    failure::{Failure, Outcome},
    output::{
        Look,
        table::{Cell, Table},
    },
};

/// Go on without a majority that is lost for good, under a new fence epoch.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  selvedge quorum recover --recovery-key recovery-demo.key
  selvedge quorum recover --recovery-key recovery-demo.key --survivors aws-1,aws-2 --yes -o json")]
pub(crate) struct RecoverArgs {
    /// The file that `selvedge fabric init` made; it does not leave this process
    #[arg(long, value_name = "FILE")]
    recovery_key: PathBuf,
    /// The processors that are to vote; chosen among those that are reached when not given
    #[arg(long, value_name = "NODE,…", value_delimiter = ',')]
    survivors: Vec<NodeName>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub(crate) async fn run(global: &Global, args: RecoverArgs) -> Outcome {
    let key = read_recovery_key(&args.recovery_key).map_err(|error| {
        Failure::usage(format!("recovery key: {error}"))
            .remedy("give the file that `selvedge fabric init` made, mode 0600 (recovery-FABRIC.key)")
    })?;
    let client = global.client()?;
    let survivors = args.survivors.iter().map(ToString::to_string).collect();
    let ask = Ask::post("/v1/quorum/recovery/draft").json(&RecoveryRequest { survivors })?;
    let draft: RecoveryDraft = client.ask(ask).await?;
    check_key(&draft, &key, &args.recovery_key)?;
    // What is decided on goes to stderr: stdout is for what came of it.
    eprint!("{}", picture(&draft, Look::PLAIN));
    if !args.yes && !confirmed(&draft)? {
        return Err(Failure::new("nothing was done"));
    }
    let signed = sign(&draft, &key)?;
    let ask = Ask::post("/v1/quorum/recovery").json(&statement(&signed))?;
    let reply: RecoveryReply = client.ask(ask).await?;
    global.printer().show(&reply, |_| text(&reply))?;
    DONE
}

fn check_key(draft: &RecoveryDraft, key: &NodeKey, file: &Path) -> Outcome<()> {
    if draft.recovery_key == key.public_key().to_string() {
        return Ok(());
    }
    let what = format!("{} does not hold the recovery key of this fabric", file.display());
    Err(Failure::new(what).remedy(format!(
        "the fabric's recovery key has the public half {}; each fabric has its own",
        draft.recovery_key
    )))
}

/// What there is, what is taken, and what may be lost.
fn picture(draft: &RecoveryDraft, look: Look) -> String {
    let columns =
        ["PROCESSOR", "ZONE", "REPLICA", ">EPOCH", ">TERM", ">INDEX", ">COMMITTED", ">REVISION", ""];
    let mut rows = Table::new(look, &columns);
    for candidate in &draft.candidates {
        let known = |number: u64| Cell::maybe(candidate.reached.then(|| number.to_string()));
        let votes = draft.voters.contains(&candidate.name);
        let part = match (candidate.name == draft.source, votes, candidate.reached) {
            (true, true, _) => "newest; taken over; will vote",
            (true, false, _) => "newest; taken over",
            (false, true, _) => "will vote",
            (false, false, true) => "will follow",
            (false, false, false) => "not reached",
        };
        rows.row([
            candidate.name.as_str().into(),
            candidate.zone.as_str().into(),
            if candidate.voter { "voter" } else { "learner" }.into(),
            known(candidate.fence_epoch),
            known(candidate.term),
            known(candidate.index),
            known(candidate.committed),
            known(candidate.revision),
            part.into(),
        ]);
    }
    format!(
        "{}\nThe fabric goes on from revision {} (term {}, index {}) of {}, under fence epoch {}.\nVoters: {}.\n\
         May be lost: {}.\n\
         If the others live behind a cut, they may still be accepting changes at this moment. When they are \
         reached\nagain they are fenced, whatever they accepted is saved and listed by `selvedge quorum lost`, and \
         never merged.\n",
        rows.or("no processor"),
        draft.base_revision,
        draft.base_term,
        draft.base_index,
        draft.source,
        draft.fence_epoch,
        draft.voters.join(", "),
        draft.may_be_lost,
    )
}

fn confirmed(draft: &RecoveryDraft) -> Outcome<bool> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage("nobody is there to confirm this").remedy("add --yes"));
    }
    eprint!("Go on with {} and without the rest? Type `recover` to do it: ", draft.voters.join(", "));
    let mut answer = String::new();
    let read = io::stderr().flush().and_then(|()| io::stdin().lock().read_line(&mut answer));
    read.map_err(|e| Failure::new(format!("cannot read the answer: {e}")))?;
    Ok(answer.trim() == "recover")
}

fn sign(draft: &RecoveryDraft, key: &NodeKey) -> Outcome<SignedRecovery> {
    let odd = |what: &str| Failure::new(format!("the node's answer is not understood: {what}"));
    let keys: Result<_, _> = draft.voter_keys.iter().map(|key| key.parse::<PublicKey>()).collect();
    let recovery = Recovery {
        fabric: draft.fabric_id.parse().map_err(|_| odd("fabric_id"))?,
        base: Base {
            term: draft.base_term,
            index: draft.base_index,
            revision: draft.base_revision,
            image: draft.base_hash.parse().map_err(|_| odd("base_hash"))?,
        },
        voters: VoterSet {
            epoch: draft.fence_epoch,
            sequence: draft.sequence,
            voters: keys.map_err(|_| odd("voter_keys"))?,
        },
        at_ms: clock::unix_ms(),
    };
    Ok(recovery.sign(key))
}

fn statement(signed: &SignedRecovery) -> RecoveryStatement {
    let Recovery { fabric, base, voters, at_ms } = &signed.recovery;
    RecoveryStatement {
        fabric_id: fabric.to_string(),
        fence_epoch: voters.epoch,
        sequence: voters.sequence,
        voter_keys: voters.voters.iter().map(ToString::to_string).collect(),
        base_term: base.term,
        base_index: base.index,
        base_revision: base.revision,
        base_hash: base.image.to_string(),
        at_ms: *at_ms,
        signature: signed.signature.to_string(),
    }
}

fn text(reply: &RecoveryReply) -> String {
    let missing = match reply.missing.as_slice() {
        [] => String::new(),
        names => format!("not reached yet: {}; they follow by themselves\n", names.join(", ")),
    };
    format!(
        "fence epoch {} has begun: {} leads, changes are accepted again, after {} ms\n{missing}",
        reply.fence_epoch, reply.leader, reply.took_ms
    )
}

#[cfg(test)]
mod tests {
    use selvedge_fabric::key::{FabricId, Hash};
    use selvedge_node::api::types::RecoveryCandidate;

    use super::*;

    fn draft(key: &NodeKey) -> RecoveryDraft {
        let candidate = |name: &str, reached| RecoveryCandidate {
            name: name.into(),
            zone: "aws".into(),
            voter: true,
            reached,
            index: 7,
            ..RecoveryCandidate::default()
        };
        RecoveryDraft {
            fabric_id: FabricId([1; 16]).to_string(),
            recovery_key: key.public_key().to_string(),
            candidates: vec![candidate("aws-1", true), candidate("azr-1", false)],
            source: "aws-1".into(),
            base_term: 2,
            base_index: 7,
            base_revision: 5,
            base_hash: Hash([3; 32]).to_string(),
            fence_epoch: 1 << 20,
            sequence: 4,
            voters: vec!["aws-1".into()],
            voter_keys: vec![PublicKey([4; 32]).to_string()],
            may_be_lost: "whatever azr-1 agreed on".into(),
        }
    }

    #[test]
    fn only_the_fabrics_own_recovery_key_signs_and_the_node_reads_what_was_signed() {
        let key = NodeKey::generate().expect("a key");
        let draft = draft(&key);
        assert_eq!(check_key(&draft, &key, Path::new("r.key")), Ok(()));
        let other = NodeKey::generate().expect("a key");
        let refused = check_key(&draft, &other, Path::new("r.key")).expect_err("another key");
        assert!(refused.to_string().contains("does not hold the recovery key"), "{refused}");
        let signed = sign(&draft, &key).expect("signed");
        assert_eq!(signed.verify(&FabricId([1; 16]), &key.public_key()), Ok(()));
        assert_eq!(statement(&signed).base_hash, draft.base_hash);
    }

    #[test]
    fn what_may_be_lost_is_said_before_it_is_asked() {
        let shown = picture(&draft(&NodeKey::generate().expect("a key")), Look::PLAIN);
        for words in [
            "newest; taken over; will vote",
            "not reached",
            "from revision 5 (term 2, index 7) of aws-1",
            "May be lost: whatever azr-1 agreed on.",
            "may still be accepting changes",
        ] {
            assert!(shown.contains(words), "{words}: {shown}");
        }
    }
}
