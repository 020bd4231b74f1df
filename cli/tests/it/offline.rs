//! Commands that need no node.

use crate::fake::{run, told};

#[test]
fn wrong_usage_is_exit_code_2() {
    for args in [&["frobnicate"][..], &["apply"], &["get", "weather"], &["cga", "generate", "--sec", "9"]] {
        assert_eq!(told(&run(args)).0, 2, "{args:?}");
    }
}

#[test]
fn help_shows_examples_and_goes_to_stdout() {
    let (code, out, err) = told(&run(&["apply", "--help"]));
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("Examples:") && out.contains("--wait"), "{out}");
}

#[test]
fn completions_and_manual_are_made() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, _) = told(&run(&["completions", shell]));
        assert!(code == 0 && out.contains("selvedge"), "{shell}");
    }
    let (code, out, _) = told(&run(&["man"]));
    assert!(code == 0 && out.contains(".TH"), "{out}");
}

#[test]
fn doctor_gives_each_check_its_remedy() {
    let (code, out, _) = told(&run(&["doctor", "-o", "json", "--data-dir", "/nonexistent"]));
    assert!(code == 0 || code == 5, "{code}");
    let checks: Vec<serde_json::Value> = serde_json::from_str(&out).unwrap();
    for check in checks {
        assert!(check["check"].is_string() && check["detail"].is_string(), "{check}");
        assert_eq!(check["ok"].as_bool().unwrap(), check["remedy"] == "", "{check}");
    }
}

#[test]
fn generated_addresses_verify_and_altered_ones_do_not() {
    for kind in ["ed25519", "rsa"] {
        let (code, out, err) = told(&run(&["cga", "generate", "--key-type", kind, "-o", "json"]));
        assert_eq!(code, 0, "{err}");
        let made: serde_json::Value = serde_json::from_str(&out).unwrap();
        let text = |field: &str| made[field].as_str().unwrap().to_owned();
        let (key, modifier) = (text("public_key"), text("modifier"));
        let verify =
            |address: &str| told(&run(&["cga", "verify", address, "--key", &key, "--modifier", &modifier])).0;
        assert_eq!(verify(&text("address")), 0);
        assert_eq!(verify("2001:db8::1"), 5);
    }
}
