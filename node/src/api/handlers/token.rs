//! Tokens.

use axum::{
    Extension, Json,
    extract::{Path, State},
};
use selvedge_fabric::{id::IdError, key::TokenId};

use super::{By, Ctx, Problem, Reply};
use crate::api::{
    error::ApiError,
    types::{ApplyReply, TokenCreated, TokenItem, TokenRequest},
};

/// Lists tokens, without their secrets.
#[utoipa::path(get, path = "/v1/tokens", tag = "tokens",
    responses((status = 200, description = "Tokens", body = Vec<TokenItem>), Problem))]
pub(in crate::api) async fn list(State(app): Ctx, Extension(caller): By) -> Reply<Vec<TokenItem>> {
    app.backend.tokens(&caller).await.map(Json)
}

/// Makes a token; its text is shown this once.
#[utoipa::path(post, path = "/v1/tokens", tag = "tokens", request_body = TokenRequest,
    responses((status = 200, description = "The token", body = TokenCreated), Problem))]
pub(in crate::api) async fn create(
    State(app): Ctx,
    Extension(caller): By,
    Json(request): Json<TokenRequest>,
) -> Reply<TokenCreated> {
    match request {
        TokenRequest::Service { .. } => caller.require_writer("make service tokens")?,
        TokenRequest::Join { .. } => caller.require_admin("make join tokens")?,
        TokenRequest::Api { .. } => caller.require_admin("make API tokens")?,
    }
    app.backend.create_token(&caller, request).await.map(Json)
}

/// Ends a token; what it admitted stays.
#[utoipa::path(delete, path = "/v1/tokens/{id}", tag = "tokens", params(("id" = String, Path)),
    responses((status = 200, description = "Done", body = ApplyReply), Problem))]
pub(in crate::api) async fn revoke(
    State(app): Ctx,
    Extension(caller): By,
    Path(id): Path<String>,
) -> Reply<ApplyReply> {
    caller.require_writer("revoke tokens")?;
    let id: TokenId = id.parse().map_err(|e: IdError| ApiError::bad_request(e.to_string()))?;
    app.backend.revoke_token(&caller, &id).await.map(Json)
}
