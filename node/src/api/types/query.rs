//! Questions on names and on the model.

use selvedge_fabric::Revision;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What the DNS of this node answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResolveReply {
    /// The name asked for, absolute.
    pub name: String,
    /// The type asked for.
    #[serde(rename = "type")]
    pub kind: String,
    /// The response code, for instance `NOERROR` or `NXDOMAIN`.
    pub rcode: String,
    /// The answer section.
    pub answers: Vec<Answer>,
    /// The additional section.
    #[serde(default)]
    pub additional: Vec<Answer>,
    /// Revision of the plan that answered.
    #[serde(default)]
    pub revision: Revision,
}

/// A resource record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Answer {
    /// Its owner.
    pub name: String,
    /// Its type, for instance `A`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Seconds it may be cached.
    pub ttl: u32,
    /// Its data in presentation form.
    pub data: String,
}

/// A verdict and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExplainReply {
    /// `allow` or `deny`.
    pub verdict: String,
    /// The contract that decided, `name@domain`.
    #[serde(default)]
    pub contract: Option<String>,
    /// The rule that decided, for people.
    #[serde(default)]
    pub rule: Option<String>,
    /// A stable word for scripts, for instance `no-contract`.
    pub reason: String,
    /// The revision that was asked.
    pub revision: Revision,
    /// The decision at each place of the path.
    pub hops: Vec<Hop>,
    /// Why, in a sentence, and what would change it.
    #[serde(default)]
    pub detail: String,
}

/// The decision at one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Hop {
    /// The node, or the service where no endpoint is known.
    pub node: String,
    /// Its zone.
    #[serde(default)]
    pub zone: Option<String>,
    /// `source`, `transit` or `destination`.
    pub place: String,
    /// `allow` or `deny`.
    pub verdict: String,
    /// Why.
    pub reason: String,
}

/// One pair of services of which the first may reach the second.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct ReachItem {
    /// Who opens the flow.
    pub from: String,
    /// Who accepts it.
    pub to: String,
    /// The port or range, for instance `tcp/5432`.
    pub port: String,
    /// The contract that allows it; none for a guardrail.
    #[serde(default)]
    pub contract: Option<String>,
    /// Who allows it when it is no contract, or what to know about it, for instance `audit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Outcome of a set of assertions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AssertReply {
    /// All hold.
    pub passed: bool,
    /// The revision that was asked.
    pub revision: Revision,
    /// Each assertion.
    pub results: Vec<AssertResult>,
}

/// Outcome of one assertion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AssertResult {
    /// The assertion, for people.
    pub assertion: String,
    /// It holds.
    pub passed: bool,
    /// Pairs that break it, or why it holds.
    #[serde(default)]
    pub detail: String,
}

/// What happened to a flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FlowItem {
    /// Its number on its node.
    pub sequence: u64,
    /// When it began.
    pub time: String,
    /// The node that decided.
    pub node: String,
    /// The service that sent, or the address of somebody who is none.
    pub from: String,
    /// The service that was to receive, or the address of somebody who is none.
    pub to: String,
    /// Where from.
    pub source: String,
    /// Where to.
    pub destination: String,
    /// Protocol and port, for instance `tcp/5432`.
    pub port: String,
    /// `allow` or `deny`.
    pub verdict: String,
    /// Why; a stable word.
    pub reason: String,
    /// The contract that decided.
    pub contract: Option<String>,
    /// The rule that decided, contract or guardrail.
    pub rule: Option<String>,
    /// `enforce`, `audit` or `learn`.
    pub mode: String,
    /// `leaving` or `arriving`, as seen by the workload of this node.
    pub direction: String,
    /// `opened`, `refused` or `cut`.
    pub event: String,
    /// The revision that decided.
    pub revision: Revision,
    /// Packets that this record stands for.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Flows, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FlowPage {
    /// Number of the newest record there is: ask for what came after it next time.
    pub newest: u64,
    /// The records.
    pub flows: Vec<FlowItem>,
}
