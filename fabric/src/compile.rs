//! Compiles the service graph into verdict tables.

/// Who may talk to whom, by identity; what [`selvedge_abi::decide`] looks up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerdictTables {}
