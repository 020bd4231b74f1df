//! Planted bugs. Each spoils one core at the seam where a simulated node calls it; the product's code knows
//! nothing of them. They prove that the invariants see what they are for.

use clap::ValueEnum;

/// A planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Mutant {
    /// The data plane refuses tables that allow less than those it has.
    StaleTables,
    /// The DNS keeps naming endpoints that left the plan.
    StaleNames,
    /// What anti-entropy brings is thrown away.
    DeafToExchange,
    /// A plan depends on how often the node planned before.
    MoodyPlanner,
    /// The router takes any way, also through places that a contract avoids.
    AnyWay,
    /// Removed nodes are forgotten instead of remembered, and so taken back.
    ForgottenTombstones,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::StaleTables,
        Self::StaleNames,
        Self::DeafToExchange,
        Self::MoodyPlanner,
        Self::ForgottenTombstones,
        Self::AnyWay,
    ];

    /// The invariant that must catch it.
    #[must_use]
    pub const fn caught_by(self) -> &'static str {
        match self {
            Self::StaleTables => "packets",
            Self::StaleNames => "names",
            Self::DeafToExchange => "agreement",
            Self::MoodyPlanner => "plans",
            Self::AnyWay => "paths",
            Self::ForgottenTombstones => "tombstones",
        }
    }
}
