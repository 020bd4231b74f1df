//! What went wrong: one form for all commands, and the exit code.

use std::{fmt, process::ExitCode};

use selvedge_node::api::{ApiError, ManifestProblem, ProblemDetails, exit};

use crate::output::style::{self, Tone};

/// A command that was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) code: u8,
    /// What went wrong.
    what: String,
    /// Where: the node that said so, the file.
    place: Option<String>,
    /// What to do.
    remedy: Option<String>,
    /// Single problems, one line each.
    problems: Vec<String>,
}

/// What every command returns.
pub(crate) type Outcome<T = ExitCode> = Result<T, Failure>;

impl Failure {
    /// Refused, or not found.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { code: exit::REFUSED, what: what.into(), place: None, remedy: None, problems: Vec::new() }
    }

    /// Wrong usage that clap cannot see.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self { code: exit::USAGE, ..Self::new(what) }
    }

    /// No node reachable.
    pub(crate) fn unreachable(what: impl Into<String>) -> Self {
        Self { code: exit::UNREACHABLE, ..Self::new(what) }
    }

    /// The write was sent, and no answer came.
    pub(crate) fn outcome_unknown(what: impl Into<String>) -> Self {
        let remedy = "look with `selvedge history` whether it took effect before you repeat it";
        Self { code: exit::OUTCOME_UNKNOWN, ..Self::new(what) }.remedy(remedy)
    }

    /// Adds where.
    pub(crate) fn at(mut self, place: impl Into<String>) -> Self {
        self.place = Some(place.into());
        self
    }

    /// Adds what to do.
    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Adds single problems.
    pub(crate) fn problems(mut self, problems: Vec<String>) -> Self {
        self.problems = problems;
        self
    }

    /// What a node refused.
    pub(crate) fn refused(details: &ProblemDetails, place: &str) -> Self {
        let mut failure = Self { code: details.code.exit_code(), ..Self::new(&details.detail) }.at(place);
        failure.remedy.clone_from(&details.remedy);
        let problems: Vec<_> = details.problems.iter().map(problem_line).collect();
        // A single problem is the detail already.
        if problems == [details.detail.as_str()] { failure } else { failure.problems(problems) }
    }

    /// Says it on stderr and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        let colour = style::stderr_has_colour();
        let label = |text, tone| style::paint(text, tone, colour);
        eprintln!("{} {}", label("error:", Tone::Bad), self.what);
        for problem in &self.problems {
            eprintln!("  {problem}");
        }
        if let Some(place) = &self.place {
            eprintln!("{} {place}", label("where:", Tone::Dim));
        }
        if let Some(remedy) = &self.remedy {
            eprintln!("{} {remedy}", label("remedy:", Tone::Good));
        }
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl From<ApiError> for Failure {
    /// For requests that are found wrong before they are sent.
    fn from(error: ApiError) -> Self {
        let failure = Self::usage(error.detail);
        Self { remedy: error.remedy, ..failure }
    }
}

/// `file:line:column: object: field: message (remedy)`, the form that editors can jump to.
pub(crate) fn problem_line(problem: &ManifestProblem) -> String {
    let mut line = String::new();
    if let Some(number) = problem.line {
        let file = problem.file.as_deref().unwrap_or("-");
        line.push_str(&format!("{file}:{number}:{}: ", problem.column.unwrap_or(1)));
    }
    for part in [&problem.object, &problem.field].into_iter().flatten() {
        line.push_str(&format!("{part}: "));
    }
    line.push_str(&problem.message);
    if let Some(remedy) = &problem.remedy {
        line.push_str(&format!(" ({remedy})"));
    }
    line
}

#[cfg(test)]
mod tests {
    use selvedge_node::api::Code;

    use super::*;

    #[test]
    fn codes_become_the_documented_exit_codes() {
        let exit_of = |code| Failure::refused(&ApiError::new(code, "").details(None), "x").code;
        assert_eq!(exit_of(Code::Refused), 1);
        assert_eq!(exit_of(Code::NotFound), 1);
        assert_eq!(exit_of(Code::Unavailable), 3);
        assert_eq!(exit_of(Code::NoQuorum), 4);
        assert_eq!(exit_of(Code::OutcomeUnknown), 6);
        assert_eq!(Failure::usage("").code, 2);
        assert_eq!(Failure::unreachable("").code, 3);
    }

    #[test]
    fn problems_have_the_form_that_editors_know() {
        let problem = ManifestProblem {
            file: Some("shop.yaml".into()),
            line: Some(4),
            column: Some(9),
            object: Some("Domain shop".into()),
            field: Some("spec.descrption".into()),
            message: "unknown field".into(),
            remedy: Some("did you mean description?".into()),
        };
        let line = "shop.yaml:4:9: Domain shop: spec.descrption: unknown field (did you mean description?)";
        assert_eq!(problem_line(&problem), line);
        assert_eq!(problem_line(&ManifestProblem { message: "m".into(), ..Default::default() }), "m");
    }
}
