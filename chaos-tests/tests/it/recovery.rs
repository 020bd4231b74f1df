//! A majority behind a cut: the rest is recovered, the cut heals, and one history is left. The long run of it
//! is `cargo xtask soak recover`.

use selvedge_chaos_tests::{
    lab::{
        count,
        kernel::{Own, with_own},
    },
    scenario::recover,
};

#[test]
fn the_survivors_go_on_and_the_old_majority_is_fenced() -> anyhow::Result<()> {
    with_own(Own::Host, || {
        let outcome = recover::run(count("SELVEDGE_RECOVERIES", 1), 3)?;
        println!("{outcome:?}");
        Ok(())
    })?;
    Ok(())
}
