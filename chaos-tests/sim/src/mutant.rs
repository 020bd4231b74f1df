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
    /// A third of the voters passes for a majority.
    LonelyMajority,
    /// A voter promises its vote to anybody, also while it hears a leader.
    EagerPreVote,
    /// Voters are chosen without regard to clouds.
    CrowdedSeats,
    /// A replica forgets on a restart in which term it is and for whom it voted.
    ForgottenVotes,
    /// A voter votes for anybody, also for one who lacks what it has.
    AnyLog,
    /// Who was taken for dead once is taken for dead from then on.
    Unforgiving,
    /// The router allows what its first plan allowed.
    StaleRoutes,
    /// A change of membership does not wait for the one before.
    HastyPlacement,
    /// What comes from another fence epoch is taken.
    AnyEpoch,
    /// Removed nodes are forgotten instead of remembered, and so taken back.
    ForgottenTombstones,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::StaleTables,
        Self::StaleNames,
        Self::DeafToExchange,
        Self::MoodyPlanner,
        Self::ForgottenTombstones,
        Self::AnyWay,
        Self::LonelyMajority,
        Self::EagerPreVote,
        Self::ForgottenVotes,
        Self::AnyLog,
        Self::Unforgiving,
        Self::StaleRoutes,
        Self::CrowdedSeats,
        Self::HastyPlacement,
        Self::AnyEpoch,
    ];

    /// The invariants for whose subject it is; one of them must catch it.
    #[must_use]
    pub const fn caught_by(self) -> &'static [&'static str] {
        match self {
            Self::StaleTables => &["packets"],
            Self::StaleNames => &["names"],
            Self::DeafToExchange | Self::Unforgiving => &["agreement"],
            Self::MoodyPlanner => &["plans"],
            Self::AnyWay => &["paths"],
            // Both ends of the overlay look.
            Self::StaleRoutes => &["packets", "paths"],
            Self::LonelyMajority | Self::EagerPreVote | Self::ForgottenVotes | Self::AnyLog => &["leaders"],
            Self::CrowdedSeats | Self::HastyPlacement => &["seats"],
            Self::AnyEpoch => &["fencing"],
            Self::ForgottenTombstones => &["tombstones"],
        }
    }
}
