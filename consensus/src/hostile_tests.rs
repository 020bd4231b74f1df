//! Bytes from other replicas: nothing panics, and what is not signed counts for nothing.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::SigningKey;
use openraft::{
    CommittedLeaderId, Entry, EntryPayload, LogId, Membership, SnapshotMeta, StoredMembership, Vote,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
        VoteRequest, VoteResponse,
    },
};
use selvedge_fabric::{
    command::{ApiToken, Command, Envelope, Rights},
    id::NodeName,
    key::{CommandId, FabricId, Hash, Signature, Signer, TokenId},
    policy::PolicyState,
    statement::{Base, Claim, Recovery, SignedRecovery, Statement, Succession, VoterSet},
};
use selvedge_fuzz::fuzz;

use crate::{
    image,
    recovery::plan::Position,
    statements::book::{Book, Stated},
    store::{Pair, parts},
    testing::name,
    types::{Batch, LogIndex, Member, TypeConfig},
    voters::VoterHistory,
    wire::{self, Answer, Ask, LeaderHint, Proposed, ReadIndex, Request},
};

const FABRIC: FabricId = FabricId([1; 16]);

fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

fn envelope() -> Envelope {
    let token = ApiToken {
        id: TokenId([3; 9]),
        name: "ci".to_owned(),
        secret_hash: Hash([0; 32]),
        rights: Rights::Read,
        not_after_ms: 4_000_000_000_000,
    };
    let command = Command::CreateApiToken(token);
    Envelope { id: CommandId([9; 16]), actor: "local:0".to_owned(), at_ms: 7, command }
}

fn log_id(index: u64) -> LogIndex {
    LogId::new(CommittedLeaderId::new(3, 7), index)
}

fn membership() -> Membership<u64, Member> {
    Membership::new(vec![BTreeSet::from([7])], BTreeMap::from([(7, Member::default())]))
}

fn claim() -> (Claim, VoterSet) {
    let voters = VoterSet { epoch: 0, sequence: 1, voters: [1, 2, 3].map(|n| key(n).public_key()).into() };
    let claim =
        Claim { fabric: FABRIC, epoch: 0, revision: 5, policy: Hash([4; 32]), voters: voters.hash(&FABRIC) };
    (claim, voters)
}

fn recovery() -> SignedRecovery {
    let base = Base { term: 3, index: 6, revision: 5, image: Hash([8; 32]) };
    let voters = VoterSet { epoch: 1 << 20, ..claim().1 };
    Recovery { fabric: FABRIC, base, voters, at_ms: 5 }.sign(&key(9))
}

fn position() -> Position {
    let image = Hash([8; 32]);
    Position { epoch: 0, term: 3, index: 6, committed: 4, revision: 5, clock_ms: 9, image, sequence: 1 }
}

fn requests() -> Vec<Vec<u8>> {
    let entry = |index, payload| Entry::<TypeConfig> { log_id: log_id(index), payload };
    let batch = Batch::encode(&[envelope()]).unwrap();
    let entries = vec![
        entry(5, EntryPayload::Blank),
        entry(6, EntryPayload::Normal(batch)),
        entry(7, EntryPayload::Membership(membership())),
    ];
    let meta = SnapshotMeta {
        last_log_id: Some(log_id(4)),
        last_membership: StoredMembership::new(Some(log_id(2)), membership()),
        snapshot_id: "4".to_owned(),
    };
    let vote = Vote::new_committed(3, 7);
    let asks = [
        Ask::Append(AppendEntriesRequest {
            vote,
            prev_log_id: Some(log_id(4)),
            entries,
            leader_commit: Some(log_id(3)),
        }),
        Ask::Vote(VoteRequest::new(Vote::new(4, 7), Some(log_id(6)))),
        Ask::Snapshot(InstallSnapshotRequest { vote, meta, offset: 0, data: vec![1; 40], done: true }),
        Ask::PreVote { last: Some(log_id(6)) },
        Ask::Leader,
        Ask::Propose { proposal: b"{\"id\":1}".to_vec(), within_ms: 900 },
        Ask::ReadIndex { within_ms: 900 },
        Ask::Statements { wanted: vec![3, 4, 5], links_after: 2 },
        Ask::Introduce {
            name: NodeName::new("p4").expect("a name"),
            addrs: vec!["10.0.0.4:7401".parse().expect("an address")],
        },
        Ask::Position,
        Ask::Base { recovery: recovery().recovery },
        Ask::Recover { signed: Box::new(recovery()), image: Some(vec![2; 30]) },
        Ask::Lost,
        Ask::Transfer { to: name() },
        Ask::Campaign,
    ];
    let request = |ask| wire::encode(&Request { epoch: 2, rtt_us: 900, quorum: true, ask }).unwrap();
    asks.into_iter().map(request).collect()
}

fn answers() -> Vec<Vec<u8>> {
    let (claim, _) = claim();
    let hint = LeaderHint { leader: Some(name()), term: 3 };
    let link =
        |set: VoterSet| Succession { set, signatures: [(key(1).public_key(), Signature([5; 64]))].into() };
    let answers = [
        Answer::Append(AppendEntriesResponse::PartialSuccess(Some(log_id(3)))),
        Answer::Vote(VoteResponse { vote: Vote::new(4, 7), vote_granted: true, last_log_id: None }),
        Answer::Snapshot(Ok(InstallSnapshotResponse { vote: Vote::new(4, 7) })),
        Answer::PreVote { granted: true },
        Answer::Leader(hint.clone()),
        Answer::Propose(Proposed::NoQuorum(vec![name()])),
        Answer::ReadIndex(ReadIndex::NotLeader(hint)),
        Answer::Statements {
            statements: [1, 2].map(|n| Statement::sign(claim, &key(n))).to_vec(),
            links: vec![link(VoterSet { sequence: 2, ..self::claim().1 })],
        },
        Answer::Fenced { epoch: 3, signed: None },
        Answer::Fenced { epoch: 3, signed: Some(Box::new(recovery())) },
        Answer::Position(position()),
        Answer::Base { image: Some(vec![1; 30]) },
        Answer::Recovered { refusal: Some("no".to_owned()) },
        Answer::Transferred { refusal: None },
        Answer::Lost { json: b"[]".to_vec() },
        Answer::Stopped { why: "disk".to_owned() },
    ];
    answers.iter().map(|answer| wire::encode(answer).unwrap()).collect()
}

#[test]
fn raft_messages() {
    let (claim, set) = claim();
    let genuine = [1, 2].map(|n| Statement::sign(claim, &key(n)));
    let stated = Stated { claim, policy: PolicyState::default().into(), set };
    let history = VoterHistory::default();
    let seeds: Vec<_> = requests().into_iter().chain(answers()).collect();
    fuzz("raft messages", &seeds, |bytes| {
        if let Ok(request) = wire::decode::<Request>(bytes) {
            let same = wire::encode(&request).unwrap();
            assert_eq!(wire::encode(&wire::decode::<Request>(&same).unwrap()).unwrap(), same);
            if let Ask::Append(append) = request.ask {
                for entry in append.entries {
                    if let EntryPayload::Normal(batch) = entry.payload {
                        let _ = batch.decode();
                    }
                }
            }
        }
        if let Ok(Request { ask: Ask::Recover { signed, .. }, .. }) = wire::decode(bytes) {
            let counts = signed.verify(&FABRIC, &key(9).public_key()).is_ok();
            assert!(!counts || *signed == recovery(), "a recovery that nobody signed: {signed:?}");
        }
        if let Ok(Answer::Statements { statements, links }) = wire::decode(bytes) {
            let mut book = Book::default();
            book.note(stated.clone(), true);
            for statement in &statements {
                let _ = book.take(statement);
            }
            for link in &links {
                assert!(!book.take_link(&history, &FABRIC, link));
            }
            if let Some((_, signatures)) = book.agreed_by_majority() {
                let signed = |s: &Statement| signatures.get(&s.voter) == Some(&s.signature);
                assert!(genuine.iter().all(signed), "a majority of which only two signed: {signatures:?}");
            }
        }
    });
}

/// What is in the log, and what a snapshot holds when its chunks are put together.
#[test]
fn raft_batches_and_snapshots() {
    let mut policy = PolicyState::default();
    let _ = policy.apply(&envelope());
    let (_, set) = claim();
    let history = serde_json::json!({"sets": [set], "pending": [7]});
    let history: VoterHistory = serde_json::from_value(history).unwrap();
    let batch = postcard::to_stdvec(&Batch::encode(&[envelope()]).unwrap()).unwrap();
    fuzz("raft batches and snapshots", &[batch, image::encode(&policy, &history)], |bytes| {
        if let Ok(batch) = postcard::from_bytes::<Batch>(bytes)
            && let Ok(envelopes) = batch.decode()
        {
            let mut policy = policy.clone();
            for envelope in &envelopes {
                let _ = policy.apply(envelope);
            }
        }
        if let Ok((policy, mut voters)) = image::decode(bytes) {
            voters.resolve(&policy, 0);
            let again = image::encode(&policy, &voters);
            assert_eq!(image::decode(&again).unwrap(), (policy, voters));
        }
        // As parts of a snapshot on a damaged disk.
        let pairs: Vec<Pair> =
            bytes.chunks(20).map(|c| (c[..c.len().min(12)].to_vec(), c.to_vec())).collect();
        assert!(parts::join(7, pairs.iter()).is_err());
    });
}
