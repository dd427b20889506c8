//! `/_postern/bundles/…`: links by hand, which `postern bundle export|import|resync|links` ask for.

use crate::officer::{Failure, Officer};
use axum::{Extension, Json};
use postern_client::{Api, http::Body};
use postern_federation::{Error, Federation, Imported, Resynced};
use postern_policy::decide::Action;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

type Answer<T> = Result<Json<T>, Failure>;

pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(links))
        .routes(routes!(export))
        .routes(routes!(import))
        .routes(routes!(resync))
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        postern_client::http::ApiError::from(error).into()
    }
}

/// All links by hand, and how far they have come.
#[utoipa::path(get, path = "/_postern/bundles/links", tag = "bundles", responses((status = 200, body = Object)))]
async fn links(officer: Officer, Extension(federation): Extension<Federation>) -> Answer<Value> {
    officer.may(Action::AdminBundles)?;
    Ok(Json(json!({ "links": federation.links_by_hand()? })))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Export {
    /// The link's name in `border.toml`.
    link: String,
    /// Whether the bundle is to stand for all before it.
    #[serde(default)]
    keyframe: bool,
}

/// Makes a bundle of what the enclave at the other end is due: `bundle` is null if that is nothing. Where it says `more`, another one is
/// to be made at once.
#[utoipa::path(
    post, path = "/_postern/bundles/export", tag = "bundles", request_body = Export,
    responses((status = 200, body = Object), (status = 404, description = "There is no such link"))
)]
async fn export(
    officer: Officer,
    Extension(federation): Extension<Federation>,
    Body(what): Body<Export>,
) -> Answer<Value> {
    officer.may(Action::AdminBundles)?;
    Ok(Json(json!({ "bundle": federation.export_bundle(&what.link, what.keyframe).await? })))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Import {
    /// The link's name in `border.toml`.
    link: String,
    /// Whether bundles are imported whose time is over.
    #[serde(default)]
    expired: bool,
}

/// Imports the bundles that lie in the directory of a link.
#[utoipa::path(
    post, path = "/_postern/bundles/import", tag = "bundles", request_body = Import,
    responses((status = 200, body = Object), (status = 404, description = "There is no such link"))
)]
async fn import(
    officer: Officer,
    Extension(federation): Extension<Federation>,
    Body(what): Body<Import>,
) -> Answer<Imported> {
    officer.may(Action::AdminBundles)?;
    Ok(Json(federation.import_bundles(&what.link, what.expired).await?))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Resync {
    /// The link's name in `border.toml`.
    link: String,
    /// The gap ticket that the other side read out.
    ticket: String,
}

/// Puts out again what a gap ticket says is missing.
#[utoipa::path(
    post, path = "/_postern/bundles/resync", tag = "bundles", request_body = Resync,
    responses((status = 200, body = Object), (status = 400, description = "The ticket is none, or of another link"))
)]
async fn resync(
    officer: Officer,
    Extension(federation): Extension<Federation>,
    Body(what): Body<Resync>,
) -> Answer<Resynced> {
    officer.may(Action::AdminBundles)?;
    Ok(Json(federation.resync_link(&what.link, &what.ticket).await?))
}
