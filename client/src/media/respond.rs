//! How files are sent: the headers that keep a browser from running what is in them, ranges, caching.

use crate::http::ApiError;
use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use postern_media::{Media, disposition};
use std::{ops::Range, sync::Arc};

/// What the specification has servers send with files, so that a browser runs nothing in them.
const POLICY: &str = "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; \
                      style-src 'unsafe-inline'; object-src 'self';";

/// Where the bytes come from.
pub(super) enum Content {
    /// A stored file, read as the client takes it.
    File {
        /// The files.
        media: Arc<Media>,
        /// The server it is of.
        server: String,
        /// Its id.
        id: String,
    },
    /// These.
    Bytes(Bytes),
}

/// Who may have it, and so who may keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    /// Whoever has an account: a cache that serves several people must not keep it.
    Users,
    /// Anyone.
    Anyone,
}

/// What is sent.
pub(super) struct Part {
    /// Names the bytes; they never change.
    pub etag: String,
    /// Its type, as somebody said.
    pub content_type: String,
    /// Its name, as somebody said.
    pub name: Option<String>,
    /// Bytes.
    pub size: u64,
    /// The bytes.
    pub content: Content,
    /// Who may have it.
    pub audience: Audience,
}

/// The response to a request with these headers: all of it, a range, or that it is unchanged.
pub(super) fn respond(part: Part, headers: &HeaderMap) -> Result<Response, ApiError> {
    let asked = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let etag = format!("\"{}\"", part.etag);
    let content_type = HeaderValue::from_str(&part.content_type)
        .unwrap_or(HeaderValue::from_static("application/octet-stream"));
    let caching = match part.audience {
        Audience::Users => "private,immutable,max-age=86400",
        Audience::Anyone => "public,immutable,max-age=86400",
    };
    let mut response = Response::builder()
        .header(header::CONTENT_DISPOSITION, disposition(&part.content_type, part.name.as_deref()))
        .header(header::CONTENT_TYPE, content_type)
        .header(header::CONTENT_SECURITY_POLICY, POLICY)
        .header("cross-origin-resource-policy", "cross-origin")
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .header(header::CACHE_CONTROL, caching)
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::ETAG, &etag);
    let failed = |error: axum::http::Error| ApiError::internal(&error);
    if asked(header::IF_NONE_MATCH).is_some_and(|tags| names(tags, &etag)) {
        return response.status(StatusCode::NOT_MODIFIED).body(Body::empty()).map_err(failed);
    }
    // A range of something else than the client believes to have is of no use.
    let same = asked(header::IF_RANGE).is_none_or(|tag| tag.trim() == etag);
    let range = asked(header::RANGE).filter(|_| same);
    let range = match range.map_or(Wanted::All, |range| parse_range(range, part.size)) {
        Wanted::All => 0..part.size,
        Wanted::Part(from, to) => {
            let text = format!("bytes {from}-{to}/{}", part.size);
            response = response.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, text);
            from..to + 1
        }
        Wanted::Nothing => {
            return response
                .status(StatusCode::RANGE_NOT_SATISFIABLE)
                .header(header::CONTENT_RANGE, format!("bytes */{}", part.size))
                .body(Body::empty())
                .map_err(failed);
        }
    };
    let length = range.end - range.start;
    response.header(header::CONTENT_LENGTH, length).body(body(part.content, range)).map_err(failed)
}

/// Whether a list of entity tags has this one (RFC 9110, 13.1.2: weak tags count).
fn names(tags: &str, etag: &str) -> bool {
    tags.split(',').map(str::trim).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

fn body(content: Content, range: Range<u64>) -> Body {
    match content {
        Content::File { media, server, id } => {
            let pieces = media.read(&server, &id, range).inspect(|piece| {
                if let Err(error) = piece {
                    tracing::error!(%error, "a download broke off");
                }
            });
            Body::from_stream(futures::stream::iter(pieces))
        }
        Content::Bytes(bytes) => {
            let place = |at: u64| usize::try_from(at).map_or(bytes.len(), |at| at.min(bytes.len()));
            Body::from(bytes.slice(place(range.start)..place(range.end)))
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    All,
    /// From the first to the last byte.
    Part(u64, u64),
    Nothing,
}

/// A range of bytes (RFC 9110, 14.1.2). Several ranges at once are answered with the whole, as is what is no range.
fn parse_range(text: &str, size: u64) -> Wanted {
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Wanted::All;
    };
    match (first.trim().parse::<u64>(), last.trim()) {
        (Ok(first), "") if first < size => Wanted::Part(first, size - 1),
        (Ok(_), "") => Wanted::Nothing,
        (Ok(first), last) => match last.parse::<u64>() {
            Ok(last) if last < first => Wanted::All,
            Ok(_) if first >= size => Wanted::Nothing,
            Ok(last) => Wanted::Part(first, last.min(size - 1)),
            Err(_) => Wanted::All,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_rfc_9110_says() {
        for (text, size, wanted) in [
            ("bytes=0-499", 1000, Wanted::Part(0, 499)),
            ("bytes=500-", 1000, Wanted::Part(500, 999)),
            ("bytes=-100", 1000, Wanted::Part(900, 999)),
            ("bytes=-5000", 1000, Wanted::Part(0, 999)),
            ("bytes=900-5000", 1000, Wanted::Part(900, 999)),
            ("bytes=999-999", 1000, Wanted::Part(999, 999)),
            ("bytes=1000-", 1000, Wanted::Nothing),
            ("bytes=1000-2000", 1000, Wanted::Nothing),
            ("bytes=-0", 1000, Wanted::Nothing),
            ("bytes=0-", 0, Wanted::Nothing),
            ("bytes=0-0", 0, Wanted::Nothing),
            ("bytes=-1", 0, Wanted::Nothing),
            ("bytes=5-4", 1000, Wanted::All),
            ("bytes=0-1,5-6", 1000, Wanted::All),
            ("bytes=x-", 1000, Wanted::All),
            ("bytes=-", 1000, Wanted::All),
            ("bytes=0-99999999999999999999", 1000, Wanted::All),
            ("lines=0-1", 1000, Wanted::All),
        ] {
            assert_eq!(parse_range(text, size), wanted, "{text} of {size}");
        }
    }

    #[test]
    fn tags_are_compared_weakly() {
        assert!(names("\"a\", W/\"b\"", "\"b\"") && names("*", "\"b\""));
        assert!(!names("\"bb\"", "\"b\"") && !names("b", "\"b\""));
    }
}
