//! Refusals: one stable code each, with its HTTP status and its exit code on the command line.

use std::sync::Arc;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use selvedge_fabric::command::{Problem, Refusal};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What went wrong, for programs. The text form is stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The request cannot be understood.
    BadRequest,
    /// The manifests are wrong; `problems` lists everything that is.
    Invalid,
    /// No token, or one that is unknown, revoked or expired.
    Unauthenticated,
    /// The caller may not do this.
    Forbidden,
    /// No such object, node, token, endpoint or path.
    NotFound,
    /// The path knows other methods.
    MethodNotAllowed,
    /// The fabric moved on since the client read it.
    Conflict,
    /// Refused for another reason that the text gives.
    Refused,
    /// A limit of the fabric.
    Limit,
    /// The body is larger than allowed.
    TooLarge,
    /// The body has a media type that is not understood.
    UnsupportedMediaType,
    /// Too many requests at once on this node.
    Busy,
    /// The request took too long on this node, and changed nothing.
    Timeout,
    /// The node is starting or stopping.
    Unavailable,
    /// A majority of the voters cannot be reached: nothing was written.
    NoQuorum,
    /// The write was sent, and no answer came: it may or may not take effect.
    OutcomeUnknown,
    /// A fault of this program.
    Internal,
}

/// Exit codes of the command line, as documented.
pub mod exit {
    /// Done.
    pub const DONE: u8 = 0;
    /// Refused, or not found.
    pub const REFUSED: u8 = 1;
    /// Wrong usage.
    pub const USAGE: u8 = 2;
    /// No node reachable.
    pub const UNREACHABLE: u8 = 3;
    /// No quorum.
    pub const NO_QUORUM: u8 = 4;
    /// Verdict deny, check failed, or `--wait` timed out.
    pub const CHECK_FAILED: u8 = 5;
    /// Outcome unknown: timed out after the write was sent.
    pub const OUTCOME_UNKNOWN: u8 = 6;
}

impl Code {
    /// Every code.
    pub const ALL: [Self; 17] = [
        Self::BadRequest,
        Self::Invalid,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::Conflict,
        Self::Refused,
        Self::Limit,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::Busy,
        Self::Timeout,
        Self::Unavailable,
        Self::NoQuorum,
        Self::OutcomeUnknown,
        Self::Internal,
    ];

    /// The HTTP status.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Invalid | Self::Refused | Self::Limit => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Busy | Self::Timeout | Self::Unavailable | Self::NoQuorum => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::OutcomeUnknown => StatusCode::GATEWAY_TIMEOUT,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The exit code of the command line.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::NoQuorum => exit::NO_QUORUM,
            Self::OutcomeUnknown => exit::OUTCOME_UNKNOWN,
            Self::Busy | Self::Timeout | Self::Unavailable => exit::UNREACHABLE,
            Self::BadRequest
            | Self::Invalid
            | Self::Unauthenticated
            | Self::Forbidden
            | Self::NotFound
            | Self::MethodNotAllowed
            | Self::Conflict
            | Self::Refused
            | Self::Limit
            | Self::TooLarge
            | Self::UnsupportedMediaType
            | Self::Internal => exit::REFUSED,
        }
    }

    /// A short title for people.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::BadRequest => "The request cannot be understood",
            Self::Invalid => "The manifests have problems",
            Self::Unauthenticated => "Not authenticated",
            Self::Forbidden => "Not allowed",
            Self::NotFound => "Not found",
            Self::MethodNotAllowed => "Method not allowed",
            Self::Conflict => "The fabric moved on",
            Self::Refused => "Refused",
            Self::Limit => "A limit is reached",
            Self::TooLarge => "The body is too large",
            Self::UnsupportedMediaType => "The media type is not understood",
            Self::Busy => "Too many requests at once",
            Self::Timeout => "The request took too long",
            Self::Unavailable => "The node is not ready",
            Self::NoQuorum => "No quorum",
            Self::OutcomeUnknown => "The outcome is unknown",
            Self::Internal => "Internal error",
        }
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.serialize(f)
    }
}

/// Problem details (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProblemDetails {
    /// `urn:selvedge:problem:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Short, the same for every occurrence of the code.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong this time.
    pub detail: String,
    /// What went wrong, for programs.
    pub code: Code,
    /// The id of the request, as in the node's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// Everything that is wrong with the manifests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<ManifestProblem>,
    /// Voters that are missing for a quorum.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

/// Something wrong with a manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ManifestProblem {
    /// The file, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line, counted from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The column in characters, counted from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// The object, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// The field, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl From<Problem> for ManifestProblem {
    fn from(problem: Problem) -> Self {
        let (file, line, column) = match problem.place {
            Some(place) => (place.file, Some(place.line), Some(place.column)),
            None => (None, None, None),
        };
        let Problem { object, field, message, remedy, .. } = problem;
        Self { file, line, column, object, field, message, remedy }
    }
}

/// A refusal, on its way to becoming [`ProblemDetails`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct ApiError {
    /// What went wrong, for programs.
    pub code: Code,
    /// What is wrong this time.
    pub detail: String,
    /// What to do.
    pub remedy: Option<String>,
    /// Everything that is wrong with the manifests.
    pub problems: Vec<ManifestProblem>,
    /// Voters that are missing for a quorum.
    pub missing: Vec<String>,
}

impl ApiError {
    /// A refusal without a remedy.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), remedy: None, problems: Vec::new(), missing: Vec::new() }
    }

    /// Adds what to do.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// [`Code::NotFound`].
    #[must_use]
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(Code::NotFound, detail)
    }

    /// [`Code::BadRequest`].
    #[must_use]
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(Code::BadRequest, detail)
    }

    /// [`Code::Forbidden`].
    #[must_use]
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(Code::Forbidden, detail)
    }

    /// [`Code::Internal`].
    #[must_use]
    pub fn internal(detail: impl Into<String>) -> Self {
        Self::new(Code::Internal, detail)
    }

    /// [`Code::NoQuorum`], with the voters that are missing.
    #[must_use]
    pub fn no_quorum(missing: Vec<String>, remedy: impl Into<String>) -> Self {
        let detail = if missing.is_empty() {
            "a majority of the voters cannot be reached; nothing was written".to_owned()
        } else {
            format!("no quorum: voters {} cannot be reached; nothing was written", missing.join(", "))
        };
        Self { missing, ..Self::new(Code::NoQuorum, detail).remedy(remedy) }
    }

    /// [`Code::OutcomeUnknown`].
    #[must_use]
    pub fn outcome_unknown(detail: impl Into<String>) -> Self {
        Self::new(Code::OutcomeUnknown, detail)
            .remedy("look with `selvedge history` whether it took effect; applying again is safe")
    }

    /// [`Code::Invalid`], with everything that is wrong.
    #[must_use]
    pub fn invalid(problems: Vec<Problem>) -> Self {
        let detail = match problems.as_slice() {
            [one] => one.to_string(),
            many => format!("{} problems in the manifests", many.len()),
        };
        let problems = problems.into_iter().map(ManifestProblem::from).collect();
        Self { problems, ..Self::new(Code::Invalid, detail) }
    }

    /// The body that is sent.
    #[must_use]
    pub fn details(&self, instance: Option<String>) -> ProblemDetails {
        ProblemDetails {
            kind: format!("urn:selvedge:problem:{}", self.code),
            title: self.code.title().to_owned(),
            status: self.code.status().as_u16(),
            detail: self.detail.clone(),
            code: self.code,
            instance,
            remedy: self.remedy.clone(),
            problems: self.problems.clone(),
            missing: self.missing.clone(),
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            Refusal::Invalid(problems) => Self::invalid(problems),
            Refusal::Conflict { .. } => Self::new(Code::Conflict, detail),
            Refusal::NotFound(_) => Self::new(Code::NotFound, detail),
            Refusal::Limit(_) => Self::new(Code::Limit, detail),
            Refusal::Lifecycle(_) | Refusal::Token(_) | Refusal::Node(_) => Self::new(Code::Refused, detail),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.details(None)).unwrap_or_default();
        let mut response = (self.code.status(), body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.code == Code::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // The middleware that knows the request id writes the body again with it.
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_kebab_case_and_have_error_statuses() {
        for code in Code::ALL {
            let text = code.to_string();
            assert!(text.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{text}");
            assert!(code.status().as_u16() >= 400, "{text}");
            assert_ne!(code.exit_code(), exit::DONE, "{text}");
        }
    }

    #[test]
    fn a_missing_quorum_names_the_voters_and_the_remedy() {
        let error = ApiError::no_quorum(vec!["aws-1".into(), "gcp-1".into()], "start them");
        let details = error.details(Some("7".into()));
        assert_eq!(details.code.exit_code(), exit::NO_QUORUM);
        assert!(details.detail.contains("aws-1, gcp-1"));
        assert_eq!(details.remedy.as_deref(), Some("start them"));
        let json = serde_json::to_value(&details).expect("JSON");
        assert_eq!(json["code"], "no-quorum");
        assert_eq!(json["type"], "urn:selvedge:problem:no-quorum");
    }
}
