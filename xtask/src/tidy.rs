//! Sizes, ratcheted, and a few habits that lints cannot see.
//!
//! Most code bases that people like to read have short functions and one monster file at the centre,
//! where newcomers drown. The limits keep ours from growing. An exception is reviewed, has a reason and
//! a limit of its own, and must go when it is no longer needed.
//!
//! Tests are not counted: neither files that hold only tests nor `#[cfg(test)]` modules.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use syn::{
    Attribute, Block, ImplItemFn, ItemFn, ItemMod, Signature, TraitItemFn,
    visit::{self, Visit},
};

/// Most lines of production code in a file.
const MAX_FILE_LINES: usize = 500;
/// Most lines of a function, from its signature to its closing brace.
const MAX_FUNCTION_LINES: usize = 70;
/// Where exceptions are listed.
const EXCEPTIONS: &str = "xtask/tidy-exceptions.toml";

/// What must not appear in production code, and why. In two parts, so that this file may name them.
const HABITS: [((&str, &str), &str); 4] = [
    (("TO", "DO"), "finish it, or open an issue"),
    (("FIX", "ME"), "fix it, or open an issue"),
    (("tokio::", "spawn("), "every task has an owner: use a TaskTracker"),
    (("unimple", "mented!("), "a stub is not done"),
];

/// The list of exceptions.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exceptions {
    #[serde(default)]
    exception: Vec<Exception>,
}

/// One file or function that may be longer.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    path: String,
    /// `None` for the file itself.
    function: Option<String>,
    /// It may have this many lines, and no more.
    lines: usize,
    reason: String,
}

/// Something that was measured.
#[derive(Debug, PartialEq, Eq)]
struct Size {
    function: Option<String>,
    line: usize,
    lines: usize,
}

/// Checks every Rust file under version control.
pub(crate) fn check(root: &Path) -> Result<()> {
    let text =
        fs::read_to_string(root.join(EXCEPTIONS)).with_context(|| format!("cannot read {EXCEPTIONS}"))?;
    let exceptions: Exceptions =
        toml::from_str(&text).with_context(|| format!("{EXCEPTIONS} is malformed"))?;
    let mut faults: Vec<_> = exceptions.exception.iter().filter_map(Exception::fault).collect();
    let mut used = vec![false; exceptions.exception.len()];
    for path in sources(root)? {
        let name = path.to_string_lossy();
        let text = fs::read_to_string(root.join(&path)).with_context(|| format!("cannot read {name}"))?;
        let measured = measure(&text).with_context(|| format!("cannot parse {name}"))?;
        faults.extend(measured.habits.iter().map(|(line, why)| format!("{name}:{line}: {why}")));
        for size in measured.sizes {
            faults.extend(judge(&name, &size, &exceptions.exception, &mut used));
        }
    }
    let stale = exceptions.exception.iter().zip(used).filter(|(_, used)| !used);
    faults
        .extend(stale.map(|(e, _)| format!("{EXCEPTIONS}: {} is within the limits: remove it", e.subject())));
    if !faults.is_empty() {
        bail!("{} faults:\n  {}", faults.len(), faults.join("\n  "));
    }
    Ok(())
}

/// Production files, relative to the root; also new ones that are not committed yet.
fn sources(root: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "--", "*.rs"])
        .current_dir(root)
        .output()
        .context("cannot run git ls-files")?;
    if !output.status.success() {
        bail!("git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    }
    let list = String::from_utf8(output.stdout).context("a path that is not UTF-8")?;
    let paths = list.lines().map(PathBuf::from);
    Ok(paths.filter(|path| !is_test(path) && root.join(path).exists()).collect())
}

/// Whether a file holds only tests: it lies under `tests/`, or is a module named `tests`.
fn is_test(path: &Path) -> bool {
    path.iter().any(|part| part == "tests" || part == "tests.rs" || part == "benches")
}

/// What was found in one file.
#[derive(Debug, Default)]
struct Measured {
    sizes: Vec<Size>,
    habits: Vec<(usize, &'static str)>,
}

fn measure(text: &str) -> Result<Measured> {
    let mut visitor = Visitor::default();
    visitor.visit_file(&syn::parse_file(text)?);
    let is_test = |line: usize| visitor.tests.iter().any(|&(first, last)| (first..=last).contains(&line));
    let production = || (1..).zip(text.lines()).filter(|(line, _)| !is_test(*line));
    let mut sizes = visitor.sizes;
    sizes.push(Size { function: None, line: 1, lines: production().count() });
    let habits = production().flat_map(|(line, text)| {
        let broken = HABITS.iter().filter(move |((a, b), _)| text.contains(&format!("{a}{b}")));
        broken.map(move |(_, why)| (line, *why))
    });
    Ok(Measured { habits: habits.collect(), sizes })
}

#[derive(Default)]
struct Visitor {
    sizes: Vec<Size>,
    /// First and last lines of test modules.
    tests: Vec<(usize, usize)>,
}

impl Visitor {
    fn function(&mut self, signature: &Signature, block: &Block) {
        let line = signature.fn_token.span.start().line;
        let end = block.brace_token.span.close().end().line;
        self.sizes.push(Size { function: Some(signature.ident.to_string()), line, lines: end - line + 1 });
    }
}

impl<'ast> Visit<'ast> for Visitor {
    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if let Some(test) = module.attrs.iter().find(|attribute| is_cfg_test(attribute)) {
            let first = test.pound_token.span.start().line;
            let body = module.content.as_ref();
            let last = body.map_or(first, |(braces, _)| braces.span.close().end().line);
            self.tests.push((first, last));
        } else {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        self.function(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        self.function(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

fn is_cfg_test(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && attribute.parse_args::<syn::Path>().is_ok_and(|argument| argument.is_ident("test"))
}

fn judge(path: &str, size: &Size, exceptions: &[Exception], used: &mut [bool]) -> Option<String> {
    let limit = if size.function.is_some() { MAX_FUNCTION_LINES } else { MAX_FILE_LINES };
    if size.lines <= limit {
        return None;
    }
    let what = size.function.as_ref().map_or("the file".to_owned(), |name| format!("fn {name}"));
    let place = format!("{path}:{}: {what} has {} lines", size.line, size.lines);
    let found = exceptions.iter().position(|e| e.path == path && e.function == size.function);
    let Some(found) = found else { return Some(format!("{place}, more than {limit}: cut it")) };
    used[found] = true;
    let allowed = exceptions[found].lines;
    (size.lines > allowed).then(|| format!("{place}, more than its exception of {allowed}: cut it"))
}

impl Exception {
    fn subject(&self) -> String {
        let function = self.function.as_ref().map(|name| format!(" fn {name}")).unwrap_or_default();
        format!("{}{function}", self.path)
    }

    fn fault(&self) -> Option<String> {
        let silent = self.reason.trim().is_empty();
        silent.then(|| format!("{EXCEPTIONS}: {} has no reason", self.subject()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(text: &str) -> Vec<(Option<String>, usize)> {
        let measured = measure(text).expect("Rust");
        measured.sizes.into_iter().map(|size| (size.function, size.lines)).collect()
    }

    #[test]
    fn functions_are_measured_without_documentation_and_tests_not_at_all() {
        let text = "\
/// Long
/// documentation.
#[must_use]
fn one() {
    two()
}

#[cfg(test)]
mod tests {
    fn not_counted() {}
}
";
        assert_eq!(sizes(text), [(Some("one".to_owned()), 3), (None, 7)]);
    }

    #[test]
    fn exceptions_are_a_ratchet() {
        let size = |lines| Size { function: Some("long".to_owned()), line: 1, lines };
        let exceptions = [Exception {
            path: "a.rs".to_owned(),
            function: Some("long".to_owned()),
            lines: 90,
            reason: "a table".to_owned(),
        }];
        let judge = |path: &str, lines| {
            let mut used = [false];
            (judge(path, &size(lines), &exceptions, &mut used).is_some(), used[0])
        };
        assert_eq!(
            judge("a.rs", MAX_FUNCTION_LINES),
            (false, false),
            "within the limit: the exception is stale"
        );
        assert_eq!(judge("a.rs", 90), (false, true));
        assert_eq!(judge("a.rs", 91), (true, true));
        assert_eq!(judge("b.rs", 90), (true, false));
    }

    #[test]
    fn bad_habits_are_found_in_production_code_only() {
        let text = "fn a() {\n    tokio::spawn(b());\n}\n\n#[cfg(test)]\nmod tests {\n    // TODO\n}\n";
        let found = measure(text).expect("Rust").habits;
        assert_eq!(found.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn test_files_are_known_by_their_path() {
        assert!(
            is_test(Path::new("dns/tests/it/main.rs")) && is_test(Path::new("fabric/src/planner/tests.rs"))
        );
        assert!(!is_test(Path::new("chaos-tests/src/lib.rs")) && !is_test(Path::new("dns/src/answer.rs")));
    }
}
