//! Manifests in request bodies: one text, or several files of one apply.
//!
//! What only the policy can judge (whether a reference leads anywhere) comes back from the backend
//! without a place; it is given the place in the text here, so that every problem names line and column.

use axum::http::{HeaderMap, header};
use selvedge_fabric::{
    command::{Place, Problem},
    manifest::{self, Located},
};

use super::{
    error::{ApiError, Code, ManifestProblem},
    types::ManifestFiles,
};

/// Media type of [`ManifestFiles`].
pub const FILES_MEDIA_TYPE: &str = "application/vnd.selvedge.manifests+json";

/// Reads the manifests of a request. JSON needs no care of its own: it is YAML.
pub(super) fn read(headers: &HeaderMap, body: &[u8], file: Option<&str>) -> Result<Located, ApiError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    match kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        FILES_MEDIA_TYPE => read_files(body),
        "" | "application/json" | "application/yaml" | "application/x-yaml" | "text/yaml" | "text/plain" => {
            manifest::parse_bytes(body, file).map_err(ApiError::invalid)
        }
        other => {
            let detail = format!("manifests are application/yaml or application/json, not {other}");
            Err(ApiError::new(Code::UnsupportedMediaType, detail))
        }
    }
}

/// Gives problems that have no place the place of what they speak of.
pub(super) fn locate(located: &Located, mut error: ApiError) -> ApiError {
    let problems = error.problems.drain(..).map(Problem::from).collect();
    error.problems = located.locate(problems).into_iter().map(ManifestProblem::from).collect();
    error
}

fn read_files(body: &[u8]) -> Result<Located, ApiError> {
    let request: ManifestFiles =
        serde_json::from_slice(body).map_err(|e| ApiError::bad_request(e.to_string()))?;
    let (mut all, mut problems) = (Located::default(), Vec::new());
    for file in &request.files {
        match manifest::parse_located(&file.text, Some(&file.name)) {
            Ok(located) => all.extend(located),
            Err(more) => problems.extend(more),
        }
    }
    if problems.is_empty() { Ok(all) } else { Err(ApiError::invalid(problems)) }
}

impl From<ManifestProblem> for Problem {
    fn from(problem: ManifestProblem) -> Self {
        let ManifestProblem { file, line, column, object, field, message, remedy } = problem;
        let place = line.map(|line| Place { file, line, column: column.unwrap_or(1) });
        Self { place, object, field, message, remedy }
    }
}
