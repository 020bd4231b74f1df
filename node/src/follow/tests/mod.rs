//! Whom a workload node must not believe.

mod hostile;
mod lying;
