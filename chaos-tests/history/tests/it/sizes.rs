//! A history of the size of an hour's run.

use selvedge_history::{Verdict, check};

use crate::generated::true_history;

#[test]
fn a_hundred_thousand_operations_are_judged() {
    let history = true_history(7, 100_000, 40, 150);
    let report = check(&history).unwrap();
    assert_eq!((report.checked, report.keys), (100_000, 40));
    assert_eq!(report.verdict, Verdict::Linearizable);
}
