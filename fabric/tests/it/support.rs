//! What several tests need: a fabric to apply things to.

use selvedge_fabric::{
    command::{Admit, Applied, Apply, Command, Envelope, Refusal, Role},
    id::Name,
    key::{CommandId, FabricId, PublicKey},
    object::Object,
    policy::{FabricParams, PolicyState},
};

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

pub(crate) fn key(seed: u8) -> PublicKey {
    PublicKey(ed25519_dalek::SigningKey::from_bytes(&[seed; 32]).verifying_key().to_bytes())
}

pub(crate) fn params() -> FabricParams {
    FabricParams {
        name: name("test"),
        id: FabricId([1; 16]),
        suffix: "fabric.internal".to_owned(),
        ula_prefix: [0xfd, 1, 2, 3, 4, 5],
        ipv4_pool: "100.64.0.0/10".to_owned(),
        ipv4_block_len: 24,
        root_cert: vec![1],
        issuing_cert: vec![2],
        recovery_key: key(255),
        created_ms: 1_000,
    }
}

pub(crate) fn admit(node: &str, seed: u8, role: Role) -> Admit {
    Admit {
        node: name(node),
        key: key(seed),
        sealing_key: PublicKey([seed; 32]),
        role,
        zone: "aws".parse().expect("a zone"),
        token: None,
        sealed_issuer: None,
    }
}

/// A fabric and the number of its next command.
pub(crate) struct Fabric {
    pub(crate) state: PolicyState,
    next: u128,
    pub(crate) now_ms: u64,
}

impl Fabric {
    pub(crate) fn new() -> Self {
        let mut fabric = Self { state: PolicyState::default(), next: 0, now_ms: 10_000 };
        let first = admit("p1", 1, Role::Processor);
        fabric.command(Command::Init { params: params(), first }).expect("a new fabric");
        fabric
    }

    pub(crate) fn envelope(&mut self, command: Command) -> Envelope {
        self.next += 1;
        let id = CommandId(self.next.to_be_bytes());
        Envelope { id, actor: "local:0".to_owned(), at_ms: self.now_ms, command }
    }

    pub(crate) fn command(&mut self, command: Command) -> Result<Applied, Refusal> {
        let envelope = self.envelope(command);
        self.state.apply(&envelope)
    }

    pub(crate) fn set(&mut self, set: Vec<Object>) -> Result<Applied, Refusal> {
        self.command(Command::Apply(Apply { set, ..Apply::default() }))
    }

    /// Applies a manifest and gives back the problems as text, one a line.
    pub(crate) fn yaml(&mut self, text: &str) -> Result<Applied, String> {
        let lines = |problems: Vec<selvedge_fabric::command::Problem>| {
            problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        };
        let located = selvedge_fabric::manifest::parse_located(text, None).map_err(lines)?;
        self.set(located.objects.clone()).map_err(|refusal| match refusal {
            Refusal::Invalid(problems) => lines(located.locate(problems)),
            other => other.to_string(),
        })
    }
}
