//! The OpenAPI 3.1 description, made from the handlers and types themselves.

use std::sync::LazyLock;

use utoipa::{
    Modify, OpenApi,
    openapi::{
        Components,
        security::{Http, HttpAuthScheme, SecurityScheme},
    },
};

use super::handlers::{drill, endpoint, fabric, intent, operate, query, token, watch, workload};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Selvedge",
        description = "API of a node. On the local socket without a token; on TLS with a bearer token. Send \
            `Selvedge-Read: linearizable` to make a read at least as new as every acknowledged write; every \
            response has `Selvedge-Revision` and `X-Request-Id`. Errors are problem details (RFC 9457) with a \
            stable `code`. Paths tagged `workload` are on the workload API, where `/v1/self` answers a \
            `SelfReply`."
    ),
    paths(
        intent::apply, intent::diff, intent::delete, intent::list, intent::get_object, intent::describe,
        intent::export, intent::history, intent::rollback, intent::wait,
        fabric::me, fabric::status, fabric::members, fabric::links, fabric::routes, fabric::quorum, fabric::set_state, fabric::remove,
        fabric::revocation_draft, fabric::revoke,
        drill::report, drill::claim, drill::end,
        fabric::recovery_draft, fabric::recover, fabric::lost, fabric::transfer,
        token::list, token::create, token::revoke,
        endpoint::list, endpoint::register, endpoint::deregister,
        endpoint::attachments, endpoint::attach, endpoint::detach,
        query::resolve, query::explain, query::reach, query::check_assertions,
        watch::events, watch::flows, watch::watch,
        operate::healthz, operate::readyz, operate::metrics, operate::openapi,
        workload::discover, workload::stat,
    ),
    components(schemas(super::types::SelfReply, super::types::ManifestFiles, super::error::ProblemDetails)),
    security(("bearer" = [])),
    modifiers(&Bearer),
)]
struct Description;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_with(Components::default);
        components.add_security_scheme("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    }
}

/// The description as JSON; made once.
pub fn document() -> &'static str {
    static DOCUMENT: LazyLock<String> =
        LazyLock::new(|| serde_json::to_string(&Description::openapi()).unwrap_or_default());
    &DOCUMENT
}
