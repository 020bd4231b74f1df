//! The Raft replica of the policy store: durable log, snapshots, pre-vote, voter placement.
