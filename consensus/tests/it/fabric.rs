//! Commands and names that the tests share.

use std::sync::Mutex;

use selvedge_consensus::Proposal;
use selvedge_fabric::{
    command::{Admit, ApiToken, Command, JoinToken, Rights, Role},
    event::{EventSink, Severity},
    id::{Name, NodeName, ZoneName},
    key::{CommandId, FabricId, Hash, PublicKey, TokenId},
    policy::{FabricParams, PolicyState},
};

/// Far in the future.
const NEVER_MS: u64 = 4_000_000_000_000;

pub(crate) fn name(text: &str) -> NodeName {
    Name::new(text).expect("a name")
}

fn zone(cloud: &str) -> ZoneName {
    ZoneName::of_cloud(name(cloud))
}

pub(crate) fn propose(command: Command) -> Proposal {
    Proposal { id: CommandId(rand::random()), actor: "local:0".to_owned(), command }
}

fn admit(node: &str, cloud: &str, key: PublicKey, token: Option<TokenId>) -> Admit {
    Admit {
        node: name(node),
        key,
        sealing_key: PublicKey(key.0.map(|b| !b)),
        role: Role::Processor,
        zone: zone(cloud),
        token,
        sealed_issuer: None,
    }
}

/// The first command of a fabric whose first node is `node`.
pub(crate) fn init(node: &str, cloud: &str, key: PublicKey) -> Proposal {
    let params = FabricParams {
        name: name("test"),
        id: FabricId([1; 16]),
        suffix: "fabric.internal".to_owned(),
        ula_prefix: [0xfd, 1, 2, 3, 4, 5],
        ipv4_pool: "100.64.0.0/10".to_owned(),
        ipv4_block_len: 24,
        root_cert: vec![1],
        issuing_cert: vec![2],
        recovery_key: crate::virtual_net::key("recovery"),
        created_ms: 1,
    };
    propose(Command::Init { params, first: admit(node, cloud, key, None) })
}

/// What admits a processor: a token for its zone, and the admission.
pub(crate) fn admission(node: &str, cloud: &str, key: PublicKey) -> [Proposal; 2] {
    let id = TokenId(rand::random());
    let token = JoinToken {
        id,
        secret_hash: Hash([0; 32]),
        role: Role::Processor,
        zone: zone(cloud),
        not_after_ms: NEVER_MS,
        uses_left: 1,
    };
    [propose(Command::CreateJoinToken(token)), propose(Command::Admit(admit(node, cloud, key, Some(id))))]
}

/// A small write that can be recognized later.
pub(crate) fn write(id: TokenId) -> Proposal {
    let token = ApiToken {
        id,
        name: "ci".to_owned(),
        secret_hash: Hash([0; 32]),
        rights: Rights::Read,
        not_after_ms: NEVER_MS,
    };
    propose(Command::CreateApiToken(token))
}

pub(crate) fn holds(policy: &PolicyState, id: TokenId) -> bool {
    policy.api_tokens.contains_key(&id)
}

/// Keeps what it is told.
#[derive(Default)]
pub(crate) struct Events(Mutex<Vec<(&'static str, String)>>);

impl Events {
    pub(crate) fn tells(&self, code: &str) -> bool {
        self.0.lock().expect("no test panics while it holds this").iter().any(|(c, _)| *c == code)
    }
}

impl EventSink for Events {
    fn emit(&self, _severity: Severity, code: &'static str, _subject: &str, message: String) {
        self.0.lock().expect("no test panics while it holds this").push((code, message));
    }
}
