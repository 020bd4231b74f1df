//! The workload API: an endpoint on this node asks about itself.

use axum::{
    Extension, Json,
    extract::{Path, State},
};
use selvedge_fabric::id::{ContractRef, IdError, Name};

use super::{By, Ctx, Problem, Reply};
use crate::api::{
    error::ApiError,
    types::{DiscoverReply, SelfReply, ServiceStat},
};

/// Who serves `<contract>.<domain>`, best first.
#[utoipa::path(get, path = "/v1/discover/{name}", tag = "workload", params(("name" = String, Path)),
    responses((status = 200, description = "Endpoints", body = DiscoverReply), Problem))]
pub(in crate::api) async fn discover(
    State(app): Ctx,
    Extension(caller): By,
    Path(name): Path<String>,
) -> Reply<DiscoverReply> {
    app.backend.discover(&caller, &contract(&name)?).await.map(Json)
}

/// Counters of the caller's service.
#[utoipa::path(get, path = "/v1/service/stat", tag = "workload",
    responses((status = 200, description = "Counters", body = ServiceStat), Problem))]
pub(in crate::api) async fn stat(State(app): Ctx, Extension(caller): By) -> Reply<ServiceStat> {
    app.backend.service_stat(&caller).await.map(Json)
}

/// The caller as the fabric knows it. (On the API for people this path describes the node.)
pub(in crate::api) async fn whoami(State(app): Ctx, Extension(caller): By) -> Reply<SelfReply> {
    app.backend.whoami(&caller).await.map(Json)
}

fn contract(text: &str) -> Result<ContractRef, ApiError> {
    let bad = |e: IdError| ApiError::bad_request(e.to_string());
    let Some((name, domain)) = text.split_once('.') else {
        return Err(ApiError::bad_request(format!("{text:?} must have the form <contract>.<domain>")));
    };
    Ok(ContractRef::new(Name::new(name).map_err(bad)?, Name::new(domain).map_err(bad)?))
}
