//! The list of limits says what is there: each name in `docs/limits.md` is a constant of its file.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};

/// The list.
const LIST: &str = "docs/limits.md";
/// Fewer names than this mean that the list was not understood.
const FEWEST: usize = 80;

/// Checks the list.
pub(crate) fn check(root: &Path) -> Result<()> {
    let text = fs::read_to_string(root.join(LIST)).context(LIST)?;
    let limits: Vec<_> = text.lines().enumerate().flat_map(|(at, line)| named(at + 1, line)).collect();
    if limits.len() < FEWEST {
        bail!("{LIST} names {} limits, fewer than {FEWEST}: was its form changed?", limits.len());
    }
    let mut faults = Vec::new();
    for Limit { line, name, file } in &limits {
        match fs::read_to_string(root.join(file)) {
            Ok(source) if is_constant(&source, name) => {}
            Ok(_) => faults.push(format!("  {LIST}:{line}: there is no constant {name} in {file}")),
            Err(error) => faults.push(format!("  {LIST}:{line}: {file}: {error}")),
        }
    }
    if !faults.is_empty() {
        bail!("{} faults:\n{}", faults.len(), faults.join("\n"));
    }
    eprintln!("{} limits are where {LIST} says", limits.len());
    Ok(())
}

/// A constant that the list names.
#[derive(Debug, PartialEq, Eq)]
struct Limit<'a> {
    line: usize,
    name: &'a str,
    file: &'a str,
}

/// The constants in a line: names in upper case between backquotes, up to the file that they are in.
fn named(line: usize, text: &str) -> Vec<Limit<'_>> {
    let (mut waiting, mut limits) = (Vec::new(), Vec::new());
    for quoted in text.split('`').skip(1).step_by(2) {
        if quoted.ends_with(".rs") {
            limits.extend(waiting.drain(..).map(|name| Limit { line, name, file: quoted }));
        } else if quoted.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_') {
            waiting.push(quoted);
        }
    }
    limits
}

fn is_constant(source: &str, name: &str) -> bool {
    let declared = format!("const {name}:");
    source.lines().any(|line| line.contains(&declared) && !line.trim_start().starts_with("//"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_belong_to_the_next_file() {
        let limit = |name, file| Limit { line: 7, name, file };
        let row = "| a | `MAX_A`, `MAX_B` in `x/a.rs`, then `C_2` in `y/b.rs` | told (`held-back`) |";
        let expected = [limit("MAX_A", "x/a.rs"), limit("MAX_B", "x/a.rs"), limit("C_2", "y/b.rs")];
        assert_eq!(named(7, row), expected);
        assert_eq!(named(7, "| voters | none | dropped |"), []);
    }

    #[test]
    fn a_comment_is_no_constant() {
        assert!(is_constant("    pub(crate) const MAX_A: usize = 3;", "MAX_A"));
        assert!(!is_constant("// const MAX_A: usize = 3;\nconst MAX_AB: u8 = 1;", "MAX_A"));
    }
}
