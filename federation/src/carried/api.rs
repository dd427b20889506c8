//! Links by hand for administrators: `/_postern/bundles/*`, which `postern bundle export|import|resync|links` ask.

use crate::{Federation, origin::Body};
use axum::{
    Json, Router,
    extract::{FromRequestParts, State},
    routing::{get, post},
};
use http::{StatusCode, header, request::Parts};
use postern_web::{Answer, ApiError};
use serde::Deserialize;
use serde_json::json;

pub(crate) fn routes() -> Router<Federation> {
    Router::new()
        .route("/_postern/bundles/links", get(links))
        .route("/_postern/bundles/export", post(export))
        .route("/_postern/bundles/import", post(import))
        .route("/_postern/bundles/resync", post(resync))
}

/// An administrator, by their access token.
struct Administrator;

impl FromRequestParts<Federation> for Administrator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, federation: &Federation) -> Result<Self, ApiError> {
        let said = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = said.and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
        });
        let missing = || {
            let why = "this endpoint needs the access token of an administrator";
            ApiError::new(StatusCode::UNAUTHORIZED, "M_MISSING_TOKEN", why)
        };
        if federation.0.users.session(token.ok_or_else(missing)?)?.is_admin {
            Ok(Self)
        } else {
            Err(ApiError::forbidden("this is for administrators"))
        }
    }
}

async fn links(State(federation): State<Federation>, _: Administrator) -> Answer {
    Ok(Json(json!({ "links": federation.links_by_hand()? })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Export {
    link: String,
    #[serde(default)]
    keyframe: bool,
}

async fn export(State(federation): State<Federation>, _: Administrator, Body(what): Body<Export>) -> Answer {
    Ok(Json(json!({ "bundle": federation.export_bundle(&what.link, what.keyframe).await? })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Import {
    link: String,
    #[serde(default)]
    expired: bool,
}

async fn import(State(federation): State<Federation>, _: Administrator, Body(what): Body<Import>) -> Answer {
    Ok(Json(json!(federation.import_bundles(&what.link, what.expired).await?)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resync {
    link: String,
    ticket: String,
}

async fn resync(State(federation): State<Federation>, _: Administrator, Body(what): Body<Resync>) -> Answer {
    Ok(Json(json!(federation.resync_link(&what.link, &what.ticket).await?)))
}
