//! The ground with real packets. Needs root: without it the tests say that they were skipped, which
//! `SELVEDGE_REQUIRE_KERNEL=1` forbids.

mod clouds;
mod namespace;

/// Runs `drill` if this is root.
fn as_root(drill: impl FnOnce()) {
    if rustix::process::geteuid().is_root() {
        return drill();
    }
    let required = std::env::var("SELVEDGE_REQUIRE_KERNEL").is_ok_and(|v| v == "1");
    assert!(!required, "SELVEDGE_REQUIRE_KERNEL=1, but this test needs root and has it not");
    eprintln!("SKIPPED: needs root");
}
