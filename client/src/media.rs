//! Uploading and downloading files (specification: content repository).

use crate::{
    Api,
    http::{Answer, ApiError, Caller, Class, Params, Query},
};
use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
    routing::{get, post, put},
};
use futures::StreamExt;
use postern_media::{Error, Media, Method, Record, Size, limits::PIECE_BYTES};
use postern_users::Session;
use serde::Deserialize;
use serde_json::json;
use std::{sync::Arc, time::Duration};

/// How long a download waits for an upload that is outstanding, if the client does not say; and at most.
const PATIENCE_MS: (u64, u64) = (20_000, 60_000);

/// What the specification has servers send with files, so that a browser runs nothing in them.
const POLICY: &str = "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; \
                      style-src 'unsafe-inline'; object-src 'self';";

/// Types a browser may show in place (specification: serving inline content).
const INLINE: [&str; 25] = [
    "text/css",
    "text/plain",
    "text/csv",
    "application/json",
    "application/ld+json",
    "image/jpeg",
    "image/gif",
    "image/png",
    "image/apng",
    "image/webp",
    "image/avif",
    "video/mp4",
    "video/webm",
    "video/ogg",
    "video/quicktime",
    "audio/mp4",
    "audio/webm",
    "audio/aac",
    "audio/mpeg",
    "audio/ogg",
    "audio/wave",
    "audio/wav",
    "audio/x-wav",
    "audio/x-pn-wav",
    "audio/flac",
];

pub fn routes() -> Router<Api> {
    let mut router = Router::new()
        .route("/_matrix/media/v1/create", post(create))
        .route("/_matrix/client/v1/media/config", get(config))
        .route("/_matrix/client/v1/media/download/{server}/{id}", get(download))
        .route("/_matrix/client/v1/media/download/{server}/{id}/{name}", get(download_named))
        .route("/_matrix/client/v1/media/thumbnail/{server}/{id}", get(thumbnail));
    for version in ["r0", "v3"] {
        let base = format!("/_matrix/media/{version}");
        router = router
            .route(&format!("{base}/upload"), post(upload))
            .route(&format!("{base}/upload/{{server}}/{{id}}"), put(upload_to))
            .route(&format!("{base}/config"), get(config))
            .route(&format!("{base}/download/{{server}}/{{id}}"), get(open_download))
            .route(&format!("{base}/download/{{server}}/{{id}}/{{name}}"), get(open_download_named))
            .route(&format!("{base}/thumbnail/{{server}}/{{id}}"), get(open_thumbnail));
    }
    router
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::NotFound => Self::not_found(text),
            Error::NotYetUploaded => Self::new(StatusCode::GATEWAY_TIMEOUT, "M_NOT_YET_UPLOADED", text),
            Error::CannotOverwrite => Self::new(StatusCode::CONFLICT, "M_CANNOT_OVERWRITE_MEDIA", text),
            Error::NotYours => Self::forbidden(text),
            Error::TooLarge(_) => Self::too_large(text),
            Error::TooManyPending => Self::limit_exceeded(60_000),
            Error::NoThumbnail(_) => Self::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", text),
            Error::InvalidParam(_) => Self::invalid_param(text),
            Error::Internal(_) | Error::Graph(_) => Self::internal(&text),
        }
    }
}

async fn config(State(api): State<Api>, _: Caller) -> Answer {
    Ok(Json(json!({ "m.upload.size": api.config.media.max_upload_bytes })))
}

fn may_upload(api: &Api, session: &Session) -> Result<(), ApiError> {
    if session.is_guest {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "M_GUEST_ACCESS_FORBIDDEN",
            "guests may not upload",
        ));
    }
    api.limiter.check(Class::Upload, session.user_id.as_str())
}

async fn create(State(api): State<Api>, Caller(session): Caller) -> Answer {
    may_upload(&api, &session)?;
    let (id, until) = api.media.create(session.user).await?;
    let uri = format!("mxc://{}/{id}", api.rooms.server_name());
    Ok(Json(json!({ "content_uri": uri, "unused_expires_at": until })))
}

#[derive(Debug, Deserialize)]
struct Name {
    filename: Option<String>,
}

async fn upload(
    State(api): State<Api>,
    Caller(session): Caller,
    Query(name): Query<Name>,
    request: Request,
) -> Answer {
    may_upload(&api, &session)?;
    let id = receive(&api, &session, None, name.filename, request).await?;
    Ok(Json(json!({ "content_uri": format!("mxc://{}/{id}", api.rooms.server_name()) })))
}

async fn upload_to(
    State(api): State<Api>,
    Caller(session): Caller,
    Params((server, id)): Params<(String, String)>,
    Query(name): Query<Name>,
    request: Request,
) -> Answer {
    may_upload(&api, &session)?;
    if server != api.rooms.server_name().as_str() {
        return Err(ApiError::not_found("this id is of another server"));
    }
    receive(&api, &session, Some(&id), name.filename, request).await?;
    Ok(crate::http::done())
}

/// Stores the body of a request, piece by piece.
async fn receive(
    api: &Api,
    session: &Session,
    id: Option<&str>,
    name: Option<String>,
    request: Request,
) -> Result<String, ApiError> {
    let headers = request.headers();
    let content_type =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let most = api.config.media.max_upload_bytes;
    if length.is_some_and(|length: u64| length > most) {
        return Err(Error::TooLarge(most).into());
    }
    let mut upload = api.media.begin(session.user, id)?;
    let mut pieces = request.into_body().into_data_stream();
    while let Some(piece) = pieces.next().await {
        let piece =
            piece.map_err(|_| ApiError::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", "the upload broke off"))?;
        upload.push(&piece)?;
    }
    Ok(upload.finish(content_type, name).await?)
}

#[derive(Debug, Deserialize)]
struct Patience {
    timeout_ms: Option<u64>,
}

impl Patience {
    fn duration(&self) -> Duration {
        Duration::from_millis(self.timeout_ms.unwrap_or(PATIENCE_MS.0).min(PATIENCE_MS.1))
    }
}

async fn download(
    State(api): State<Api>,
    _: Caller,
    Params((server, id)): Params<(String, String)>,
    Query(patience): Query<Patience>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    file(&api, &server, &id, None, &patience, &headers).await
}

async fn download_named(
    State(api): State<Api>,
    _: Caller,
    Params((server, id, name)): Params<(String, String, String)>,
    Query(patience): Query<Patience>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    file(&api, &server, &id, Some(name), &patience, &headers).await
}

/// The deprecated endpoints without authentication are there only where they are wanted.
fn open(api: &Api) -> Result<(), ApiError> {
    if api.config.media.unauthenticated_downloads {
        Ok(())
    } else {
        Err(ApiError::not_found("media need authentication: use /_matrix/client/v1/media"))
    }
}

async fn open_download(
    State(api): State<Api>,
    Params((server, id)): Params<(String, String)>,
    Query(patience): Query<Patience>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    open(&api)?;
    file(&api, &server, &id, None, &patience, &headers).await
}

async fn open_download_named(
    State(api): State<Api>,
    Params((server, id, name)): Params<(String, String, String)>,
    Query(patience): Query<Patience>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    open(&api)?;
    file(&api, &server, &id, Some(name), &patience, &headers).await
}

async fn file(
    api: &Api,
    server: &str,
    id: &str,
    name: Option<String>,
    patience: &Patience,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let record = api.media.record_within(server, id, patience.duration()).await?;
    let name = name.or_else(|| record.file_name.clone());
    let content_type = record.content_type.clone().unwrap_or_else(|| "application/octet-stream".to_owned());
    let part = Part { rendition: String::new(), content_type, size: record.size, name };
    respond(api.media.clone(), server, id, part, headers)
}

#[derive(Debug, Deserialize)]
struct Thumbnail {
    width: u32,
    height: u32,
    method: Option<String>,
    timeout_ms: Option<u64>,
}

async fn thumbnail(
    State(api): State<Api>,
    _: Caller,
    Params((server, id)): Params<(String, String)>,
    Query(query): Query<Thumbnail>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    small(&api, &server, &id, &query, &headers).await
}

async fn open_thumbnail(
    State(api): State<Api>,
    Params((server, id)): Params<(String, String)>,
    Query(query): Query<Thumbnail>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    open(&api)?;
    small(&api, &server, &id, &query, &headers).await
}

async fn small(
    api: &Api,
    server: &str,
    id: &str,
    query: &Thumbnail,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let method = match query.method.as_deref() {
        None | Some("scale") => Method::Scale,
        Some("crop") => Method::Crop,
        Some(_) => return Err(ApiError::invalid_param("method is crop or scale")),
    };
    let patience = Patience { timeout_ms: query.timeout_ms };
    let record: Record = api.media.record_within(server, id, patience.duration()).await?;
    let size = Size { width: query.width, height: query.height, method };
    let (rendition, content_type, size) = api.media.thumbnail(server, id, &record, size).await?;
    let name = format!("thumbnail.{}", if content_type == "image/png" { "png" } else { "jpg" });
    let part = Part { rendition, content_type: content_type.to_owned(), size, name: Some(name) };
    respond(api.media.clone(), server, id, part, headers)
}

/// What is sent: a file or a rendition of it.
struct Part {
    rendition: String,
    content_type: String,
    size: u64,
    name: Option<String>,
}

fn respond(
    media: Arc<Media>,
    server: &str,
    id: &str,
    part: Part,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let etag = format!("\"{id}{}{}\"", if part.rendition.is_empty() { "" } else { "-" }, part.rendition);
    let mut response = Response::builder()
        .header(header::CONTENT_TYPE, safe_value(&part.content_type))
        .header(header::CONTENT_DISPOSITION, disposition(&part.content_type, part.name.as_deref()))
        .header(header::CONTENT_SECURITY_POLICY, POLICY)
        .header("cross-origin-resource-policy", "cross-origin")
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .header(header::CACHE_CONTROL, "public,immutable,max-age=86400,s-maxage=86400")
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::ETAG, &etag);
    let failed = |error: axum::http::Error| ApiError::internal(&error);
    let matches = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    if matches.is_some_and(|tags| tags.split(',').any(|tag| tag.trim() == etag || tag.trim() == "*")) {
        return response.status(StatusCode::NOT_MODIFIED).body(Body::empty()).map_err(failed);
    }
    let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    let (from, to) = match range.map(|range| parse_range(range, part.size)) {
        Some(Wanted::Part(from, to)) => {
            response = response
                .status(StatusCode::PARTIAL_CONTENT)
                .header(header::CONTENT_RANGE, format!("bytes {from}-{to}/{}", part.size));
            (from, to + 1)
        }
        Some(Wanted::Nothing) => {
            return response
                .status(StatusCode::RANGE_NOT_SATISFIABLE)
                .header(header::CONTENT_RANGE, format!("bytes */{}", part.size))
                .body(Body::empty())
                .map_err(failed);
        }
        Some(Wanted::All) | None => (0, part.size),
    };
    let body = pieces(media, server.to_owned(), id.to_owned(), part.rendition, from, to);
    response.header(header::CONTENT_LENGTH, to - from).body(body).map_err(failed)
}

/// A body that reads piece after piece as the client takes them.
fn pieces(media: Arc<Media>, server: String, id: String, rendition: String, from: u64, to: u64) -> Body {
    let size = PIECE_BYTES as u64;
    // A rendition is one piece of any size.
    let size = if rendition.is_empty() { size } else { u64::MAX };
    let stream = futures::stream::unfold(from, move |at| {
        let next = (|| -> Option<Result<(axum::body::Bytes, u64), Error>> {
            if at >= to {
                return None;
            }
            let piece = match media.piece(&server, &id, &rendition, u32::try_from(at / size).ok()?) {
                Ok(Some(piece)) => piece,
                Ok(None) => return Some(Err(Error::Internal("a piece of a file is missing".to_owned()))),
                Err(error) => return Some(Err(error)),
            };
            let start = usize::try_from(at % size).ok()?.min(piece.len());
            let end = usize::try_from((to - at).saturating_add(start as u64)).ok()?.min(piece.len());
            let part = piece.slice(start..end);
            let taken = part.len() as u64;
            if taken == 0 {
                return Some(Err(Error::Internal("a piece of a file is too short".to_owned())));
            }
            Some(Ok((part, at + taken)))
        })();
        async move {
            match next? {
                Ok((part, at)) => Some((Ok(part), at)),
                Err(error) => {
                    tracing::error!(%error, "a download broke off");
                    Some((Err(error), u64::MAX))
                }
            }
        }
    });
    Body::from_stream(stream)
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    All,
    Part(u64, u64),
    Nothing,
}

/// A range of bytes (RFC 9110, 14.1.2). Several ranges at once are answered with the whole, as is what is no range.
fn parse_range(text: &str, size: u64) -> Wanted {
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Wanted::All;
    };
    match (first.trim().parse::<u64>(), last.trim()) {
        (Ok(first), _) if first >= size => Wanted::Nothing,
        (Ok(first), "") => Wanted::Part(first, size - 1),
        (Ok(first), last) => match last.parse::<u64>() {
            Ok(last) if last >= first => Wanted::Part(first, last.min(size - 1)),
            _ => Wanted::All,
        },
        (Err(_), last) if first.trim().is_empty() => match last.parse::<u64>() {
            Ok(0) => Wanted::Nothing,
            Ok(_) if size == 0 => Wanted::Nothing,
            Ok(last) => Wanted::Part(size.saturating_sub(last), size - 1),
            Err(_) => Wanted::All,
        },
        _ => Wanted::All,
    }
}

fn safe_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("application/octet-stream"))
}

/// `Content-Disposition` (RFC 6266; names that are not plain ASCII in the form of RFC 8187).
fn disposition(content_type: &str, name: Option<&str>) -> HeaderValue {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_lowercase();
    let place = if INLINE.contains(&kind.as_str()) { "inline" } else { "attachment" };
    let text = match name {
        None => place.to_owned(),
        Some(name) if !name.is_empty() && name.bytes().all(is_token) => format!("{place}; filename={name}"),
        Some(name) if name.is_ascii() && !name.bytes().any(|byte| byte.is_ascii_control()) => {
            let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
            format!("{place}; filename=\"{quoted}\"")
        }
        Some(name) => {
            let encoded: String = name
                .bytes()
                .map(|byte| {
                    if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
                        char::from(byte).to_string()
                    } else {
                        format!("%{byte:02X}")
                    }
                })
                .collect();
            format!("{place}; filename*=utf-8''{encoded}")
        }
    };
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("attachment"))
}

const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_rfc_9110_says() {
        for (text, wanted) in [
            ("bytes=0-499", Wanted::Part(0, 499)),
            ("bytes=500-", Wanted::Part(500, 999)),
            ("bytes=-100", Wanted::Part(900, 999)),
            ("bytes=900-5000", Wanted::Part(900, 999)),
            ("bytes=1000-", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=5-4", Wanted::All),
            ("bytes=0-1,5-6", Wanted::All),
            ("lines=0-1", Wanted::All),
        ] {
            assert_eq!(parse_range(text, 1000), wanted, "{text}");
        }
    }

    #[test]
    fn only_harmless_types_are_shown_in_place_and_names_are_encoded() {
        for (kind, name, expected) in [
            ("image/png", None, "inline"),
            ("image/svg+xml", None, "attachment"),
            ("text/html; charset=utf-8", Some("a.html"), "attachment; filename=a.html"),
            ("TEXT/PLAIN", Some("a b.txt"), "inline; filename=\"a b.txt\""),
            ("image/png", Some("q\"uote.png"), "inline; filename=\"q\\\"uote.png\""),
            ("image/png", Some("\u{1f415}.png"), "inline; filename*=utf-8''%F0%9F%90%95.png"),
        ] {
            assert_eq!(disposition(kind, name), expected);
        }
    }
}
