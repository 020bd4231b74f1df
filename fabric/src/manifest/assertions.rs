//! Documents of assertions: a list of `deny` and `allow`, each with `from`, `to` and perhaps `port`.
//!
//! ```yaml
//! - deny: {from: "*@getaway-app", to: "*@voting-app"}
//! - allow: {from: voting-svc@voting-app, to: voting-db@voting-app, port: tcp/5432}
//! ```

use super::{
    read::{documents_of, problem_at},
    reader::{Fields, Reader},
    tree::{self, Node},
};
use crate::{
    command::Problem,
    query::{Assertion, FlowPattern},
};

/// Most assertions in one document.
pub const MAX_ASSERTIONS: usize = 10_000;

/// Reads assertions from YAML or JSON.
///
/// # Errors
/// Every problem, with its place.
pub fn parse_assertions(text: &str, file: Option<&str>) -> Result<Vec<Assertion>, Vec<Problem>> {
    let at = tree::At { line: 1, column: 1 };
    if text.len() > super::MAX_MANIFEST_BYTES {
        let message = format!("{} bytes; at most {} are read", text.len(), super::MAX_MANIFEST_BYTES);
        return Err(vec![problem_at(file, at, message, Some("split it into several files"))]);
    }
    let (documents, faults) = tree::load(&super::json::as_yaml(text));
    let fault = |fault: tree::Fault| problem_at(file, fault.at, fault.message, fault.remedy);
    let mut reader = Reader { file: file.map(str::to_owned), ..Reader::default() };
    reader.problems.extend(faults.into_iter().map(fault));
    let nodes: Vec<_> = documents.into_iter().flat_map(documents_of).collect();
    let numbered = nodes.iter().take(MAX_ASSERTIONS).enumerate();
    let assertions =
        numbered.filter_map(|(i, node)| assertion(&mut reader, node, &format!("[{i}]"))).collect();
    if nodes.is_empty() && reader.problems.is_empty() {
        reader.problem(at, "", "holds no assertion", Some("write - deny: {from: …, to: …}".to_owned()));
    }
    if nodes.len() > MAX_ASSERTIONS {
        reader.problem(nodes[MAX_ASSERTIONS].at, "", format!("more than {MAX_ASSERTIONS} assertions"), None);
    }
    if reader.problems.is_empty() { Ok(assertions) } else { Err(reader.problems) }
}

fn assertion(r: &mut Reader, node: &Node, path: &str) -> Option<Assertion> {
    let before = r.problems.len();
    let mut fields = Fields::new(r, node, path)?;
    let deny = fields.optional(r, "deny", pattern);
    let allow = fields.optional(r, "allow", pattern);
    fields.finish(r);
    match (deny, allow) {
        (Some(pattern), None) => Some(Assertion::Deny(pattern)),
        (None, Some(pattern)) => Some(Assertion::Allow(pattern)),
        (Some(_), Some(_)) => {
            r.problem(node.at, path, "has both deny and allow", Some("write two assertions".to_owned()));
            None
        }
        (None, None) => {
            // A misspelt word or a bad pattern has been reported already.
            if r.problems.len() == before {
                r.problem(node.at, path, "must be deny or allow", None);
            }
            None
        }
    }
}

fn pattern(r: &mut Reader, node: &Node, path: &str) -> Option<FlowPattern> {
    let mut fields = Fields::new(r, node, path)?;
    let from = fields.required(r, "from", Reader::parse_text);
    let to = fields.required(r, "to", Reader::parse_text);
    let port = fields.optional(r, "port", Reader::parse_text);
    fields.finish(r);
    Some(FlowPattern { from: from?, to: to?, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assertions_are_read_and_shown() {
        let text = "- deny: {from: '*@a', to: '*@b'}\n- allow: {from: x@a, to: y@a, port: tcp/5432}\n";
        let read = parse_assertions(text, None).expect("two assertions");
        let shown: Vec<_> = read.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["deny *@a to *@b on any", "allow x@a to y@a on tcp/5432"]);
    }

    #[test]
    fn problems_have_places() {
        let problems =
            parse_assertions("- dney: {from: a@b, to: c@d}\n- deny: {from: '!', to: c@d}\n", Some("f"))
                .expect_err("two problems");
        let lines: Vec<_> = problems.iter().filter_map(|p| p.place.as_ref()).map(|p| p.line).collect();
        assert!(lines.contains(&1) && lines.contains(&2), "{problems:?}");
        assert!(parse_assertions("", None).is_err());
    }
}
