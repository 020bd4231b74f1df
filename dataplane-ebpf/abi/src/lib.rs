//! Verdicts on packets: types and the `decide` function that the eBPF programs, the userspace twin,
//! `explain`, the router and the simulation all share. `no_std`, no allocation, no panics.
//!
//! * [`decide()`] is the stateless half: may this service open a flow to that one, on this protocol and
//!   port? It knows no packet and no flow.
//! * [`judge`] is the whole decision about a packet: it reads the headers, checks the addresses against
//!   the [`Attachment`], follows flows, and calls `decide` where one is opened. Its reason codes begin at
//!   [`verdict::FIRST_PACKET_REASON`].
//! * [`layout`] is what else the maps in the kernel hold.
//!
//! # How the tables are laid out, and why
//! Everything that takes thought happens once, in userspace, when the policy changes; a verdict is a few
//! exact look-ups and one scan of a short array, which the BPF verifier accepts and a CPU likes.
//!
//! * Contracts are compiled to *edges*: (source, destination, protocol class) → disjoint port ranges.
//!   Where contracts overlap, the compiler has decided already which one speaks.
//! * Guardrails speak of sets of services (`*`, `*@domain`), which as edges between single services
//!   would be as many as all pairs. Services that the guardrails do not tell apart share a *group*, one
//!   for each side of a flow; guardrails are edges between groups. Group 0 is: no guardrail.
//! * Guardrails are looked at first and end the search, whether they deny or allow. No contract, in
//!   whatever mode, can come before them.
#![no_std]
#![warn(missing_docs)]

pub mod address;
pub mod attachment;
pub mod decide;
pub mod flow;
pub mod judge;
pub mod layout;
pub mod packet;
pub mod tables;
pub mod verdict;

pub use address::Address;
pub use attachment::Attachment;
pub use decide::decide;
pub use flow::{Direction, FlowEntry, FlowKey};
pub use judge::{Judgement, Note};
pub use tables::{Class, EdgeKey, Groups, MAX_RANGES, Range, Tables};
pub use verdict::{Mode, Reason, Verdict};

/// The number that stands for a service in verdict tables. 0 is nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Identity(pub u32);
