//! Files and thumbnails going out: with a token, or without one where the operator wants that.

use crate::{
    Api,
    http::{ApiError, Caller, Params, Query},
    media::respond::{Audience, Content, Part, respond},
};
use axum::{extract::State, http::HeaderMap, response::Response};
use postern_media::{Error, Method, Record, Size};
use postern_rooms::Asker;
use ruma::ServerName;
use serde::Deserialize;
use std::time::Duration;

/// How long a download waits for an upload that is outstanding, if the client does not say; milliseconds.
const PATIENCE_MS: u64 = 20_000;
/// The longest it waits, milliseconds.
const MAX_PATIENCE_MS: u64 = 60_000;

type Sent = Result<Response, ApiError>;

#[derive(Debug, Deserialize)]
pub(super) struct Patience {
    timeout_ms: Option<u64>,
    /// Of the deprecated endpoints: whether the file may be another server's.
    allow_remote: Option<bool>,
}

/// What is known of a file, waiting for it as long as the client says; but not for longer than the server runs.
async fn record(
    api: &Api,
    asker: Asker<'_>,
    server: &str,
    id: &str,
    timeout_ms: Option<u64>,
) -> Result<Record, ApiError> {
    let name = format!("{server}/{id}");
    // Before it is waited for: how long that takes would tell what there is.
    if !api.rooms.may_fetch(asker, &name)? {
        return Err(Error::NotFound.into());
    }
    let patience_ms = timeout_ms.unwrap_or(PATIENCE_MS).min(MAX_PATIENCE_MS);
    if server != api.rooms.server_name().as_str()
        && matches!(api.media.record(server, id), Err(Error::NotFound))
        && let Ok(server) = ServerName::parse(server)
    {
        api.elsewhere.media(&server, id, patience_ms).await?;
    }
    let patience = Duration::from_millis(patience_ms);
    let record = tokio::select! {
        record = api.media.record_within(server, id, patience) => record,
        () = api.stopping.cancelled() => api.media.record(server, id),
    }?;
    // Its label came with it, and it may be shown somewhere meanwhile.
    if api.rooms.may_fetch(asker, &name)? { Ok(record) } else { Err(Error::NotFound.into()) }
}

/// Who may keep an answer.
fn audience(asker: Asker<'_>) -> Audience {
    if matches!(asker, Asker::User(None)) { Audience::Anyone } else { Audience::Users }
}

pub(super) async fn download(
    State(api): State<Api>,
    Caller(session): Caller,
    Params((server, id)): Params<(String, String)>,
    Query(patience): Query<Patience>,
    headers: HeaderMap,
) -> Sent {
    file(&api, &server, &id, None, &patience, &headers, Asker::Device(&session.user_id, &session.device_id))
        .await
}

pub(super) async fn download_named(
    State(api): State<Api>,
    Caller(session): Caller,
    Params((server, id, name)): Params<(String, String, String)>,
    Query(patience): Query<Patience>,
    headers: HeaderMap,
) -> Sent {
    file(
        &api,
        &server,
        &id,
        Some(name),
        &patience,
        &headers,
        Asker::Device(&session.user_id, &session.device_id),
    )
    .await
}

/// The deprecated endpoints without authentication are there only where they are wanted.
fn open(api: &Api) -> Result<(), ApiError> {
    if api.config.media.unauthenticated_downloads {
        Ok(())
    } else {
        Err(ApiError::not_found("media need authentication: use /_matrix/client/v1/media"))
    }
}

pub(super) async fn open_download(
    State(api): State<Api>,
    Params((server, id)): Params<(String, String)>,
    Query(patience): Query<Patience>,
    headers: HeaderMap,
) -> Sent {
    open(&api)?;
    file(&api, &server, &id, None, &patience, &headers, Asker::User(None)).await
}

pub(super) async fn open_download_named(
    State(api): State<Api>,
    Params((server, id, name)): Params<(String, String, String)>,
    Query(patience): Query<Patience>,
    headers: HeaderMap,
) -> Sent {
    open(&api)?;
    file(&api, &server, &id, Some(name), &patience, &headers, Asker::User(None)).await
}

/// A file of another server is not for who asks another server for it.
fn local(api: &Api, server: &str, allowed: Option<bool>) -> Result<(), ApiError> {
    if allowed == Some(false) && server != api.rooms.server_name().as_str() {
        return Err(ApiError::not_found("the file is of another server"));
    }
    Ok(())
}

async fn file(
    api: &Api,
    server: &str,
    id: &str,
    name: Option<String>,
    patience: &Patience,
    headers: &HeaderMap,
    asker: Asker<'_>,
) -> Sent {
    local(api, server, patience.allow_remote)?;
    let record = record(api, asker, server, id, patience.timeout_ms).await?;
    let part = Part {
        etag: id.to_owned(),
        content_type: record.content_type.unwrap_or_else(|| "application/octet-stream".to_owned()),
        name: name.or(record.file_name),
        size: record.size,
        content: Content::File { media: api.media.clone(), server: server.to_owned(), id: id.to_owned() },
        audience: audience(asker),
    };
    respond(part, headers)
}

#[derive(Debug, Deserialize)]
pub(super) struct Thumbnail {
    width: Option<u32>,
    height: Option<u32>,
    method: Option<String>,
    timeout_ms: Option<u64>,
}

pub(super) async fn thumbnail(
    State(api): State<Api>,
    Caller(session): Caller,
    Params((server, id)): Params<(String, String)>,
    Query(query): Query<Thumbnail>,
    headers: HeaderMap,
) -> Sent {
    small(&api, &server, &id, &query, &headers, Asker::Device(&session.user_id, &session.device_id)).await
}

pub(super) async fn open_thumbnail(
    State(api): State<Api>,
    Params((server, id)): Params<(String, String)>,
    Query(query): Query<Thumbnail>,
    headers: HeaderMap,
) -> Sent {
    open(&api)?;
    small(&api, &server, &id, &query, &headers, Asker::User(None)).await
}

async fn small(
    api: &Api,
    server: &str,
    id: &str,
    query: &Thumbnail,
    headers: &HeaderMap,
    asker: Asker<'_>,
) -> Sent {
    let method = match query.method.as_deref() {
        None | Some("scale") => Method::Scale,
        Some("crop") => Method::Crop,
        Some(_) => return Err(ApiError::invalid_param("method is crop or scale")),
    };
    let (Some(width), Some(height)) = (query.width, query.height) else {
        return Err(ApiError::missing_param("a thumbnail has a width and a height"));
    };
    let record = record(api, asker, server, id, query.timeout_ms).await?;
    let size = Size { width, height, method };
    let made = api.media.thumbnail(server, id, &record, size).await?;
    let ending = if made.content_type == "image/png" { "png" } else { "jpg" };
    let part = Part {
        etag: format!("{id}-{}", made.rendition),
        content_type: made.content_type.to_owned(),
        name: Some(format!("thumbnail.{ending}")),
        size: made.bytes.len() as u64,
        content: Content::Bytes(made.bytes),
        audience: audience(asker),
    };
    respond(part, headers)
}
