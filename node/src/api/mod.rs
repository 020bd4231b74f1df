//! The HTTP API of a node: `/v1/…`, its OpenAPI description, and the workload API.
//!
//! The module knows nothing of consensus, membership or the planner. It turns requests into calls of
//! one trait, [`backend::Backend`], and results into JSON or problem details (RFC 9457). So the whole
//! API is tested with a fake backend over real sockets, and the command line shares the very types
//! that the server sends.
//!
//! * [`types`]: what goes over the wire.
//! * [`error`]: refusals, their HTTP status and the exit code of the command line.
//! * [`rights`]: who may change which objects.
//! * [`backend`]: what the daemon implements.
//! * [`ApiServer`]: serves it all.

pub mod backend;
pub mod caller;
pub mod error;
mod guard;
mod handlers;
pub mod key;
pub mod limits;
mod manifests;
mod openapi;
pub mod rights;
mod router;
mod serve;
mod stream;
pub mod types;
mod unix;

pub use backend::Backend;
pub use caller::Caller;
pub use error::{ApiError, Code, ManifestProblem, ProblemDetails, exit};
pub use guard::{READ, REQUEST_ID, REVISION};
pub use manifests::FILES_MEDIA_TYPE;
pub use openapi::document as openapi_document;
pub use serve::{ApiServer, Origin};
pub use unix::{MAX_SOCKET_PATH_BYTES, SocketError, UnixSocket};
