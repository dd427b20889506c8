//! The administrators' API, `/_postern/…`: what security officers and administrators do with a running server, and what users ask
//! of the border. Each operation is permitted by the policies (`admin.*`); its description is served with it.

mod border;
mod bundles;
mod officer;

use axum::{Extension, Json, Router, routing::get};
use postern_border::Border;
use postern_client::Api;
use postern_federation::Federation;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

/// Where the description is.
pub const DESCRIPTION: &str = "/_postern/border/openapi.json";

#[derive(OpenApi)]
#[openapi(
    info(title = "Postern: the border", description = "For security officers: docs/border.md."),
    tags(
        (name = "border", description = "What crosses between this enclave and others"),
        (name = "bundles", description = "Links that are no network: docs/air-gap.md")
    )
)]
struct Description;

/// The routes, over these parts.
pub fn router(api: Api, border: Border, federation: Federation) -> Router {
    let (router, description) = OpenApiRouter::with_openapi(Description::openapi())
        .merge(border::routes())
        .merge(bundles::routes())
        .split_for_parts();
    router
        .route(DESCRIPTION, get(move || async move { Json(description) }))
        .layer(Extension(border))
        .layer(Extension(federation))
        .with_state(api)
}
