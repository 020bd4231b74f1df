//! One cloud of three, and single nodes, are killed.

use selvedge_chaos_tests::{
    lab::count,
    scenario::{cloud_loss, kill9},
};

#[test]
fn a_fabric_gets_over_the_loss_of_a_cloud() {
    let outcome = cloud_loss::run(count("SELVEDGE_CLOUD_LOSS_RUNS", 2)).expect("it gets over it");
    println!("write gap: {}", outcome.write_gap);
    println!("DNS clean: {}", outcome.dns_clean);
    println!("catch-up:  {}", outcome.catch_up);
}

#[test]
fn no_acknowledged_write_is_lost_by_kills() {
    let outcome = kill9::run(count("SELVEDGE_KILL9_COUNT", 6), 1).expect("nothing is lost");
    println!("{outcome:?}");
    assert!(outcome.acknowledged > 0, "a run without an acknowledged write proves nothing");
}
