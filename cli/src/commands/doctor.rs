//! `doctor`.

use std::path::PathBuf;

use clap::Args;

use super::{DONE, check_failed};
use crate::{
    args::Global,
    doctor::{self, Check},
    failure::Outcome,
    output::{
        Look,
        style::{Tone, paint},
        table::{Cell, Table},
    },
};

/// Check this host, with a remedy for each finding. Exit code 5 when something that a node needs is missing.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  selvedge doctor
  selvedge doctor --data-dir /srv/selvedge -o json | jq '.[] | select(.ok | not)'")]
pub(crate) struct DoctorArgs {
    /// The node's data directory
    #[arg(long, default_value = "/var/lib/selvedge", value_name = "D")]
    data_dir: PathBuf,
}

pub(crate) fn run(global: &Global, args: DoctorArgs) -> Outcome {
    let checks = doctor::examine(&args.data_dir);
    global.printer().show(&checks, |look| table(&checks, look))?;
    if checks.iter().any(|c| c.required && !c.ok) { check_failed() } else { DONE }
}

fn table(checks: &[Check], look: Look) -> String {
    let mut rows = Table::new(look, &["CHECK", "RESULT", "DETAIL"]);
    for check in checks {
        let result = match (check.ok, check.required) {
            (true, _) => Cell::toned("ok", Tone::Good),
            (false, true) => Cell::toned("failed", Tone::Bad),
            (false, false) => Cell::toned("note", Tone::Warn),
        };
        rows.row([check.check.into(), result, check.detail.as_str().into()]);
    }
    let mut text = rows.finish();
    for check in checks.iter().filter(|c| !c.ok) {
        let name = paint(check.check, Tone::Strong, look.colour);
        text.push_str(&format!("\n{name}: {}\n", check.remedy));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_end_with_their_remedies() {
        let good =
            Check { check: "kernel", ok: true, required: true, detail: "6.12".into(), remedy: String::new() };
        let bad = Check {
            check: "tun",
            ok: false,
            required: false,
            detail: "no /dev/net/tun".into(),
            remedy: "modprobe tun".into(),
        };
        let expected = "\
CHECK   RESULT  DETAIL
kernel  ok      6.12
tun     note    no /dev/net/tun

tun: modprobe tun
";
        assert_eq!(table(&[good, bad], Look::PLAIN), expected);
    }
}
