//! Files as other servers answer with them: one part that says what is known of the file, one with its bytes or with
//! where they are (specification: content repository over federation).

use crate::{Broken, Opened, PeerError, connector::causes};
use bytes::Bytes;
use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use http::{HeaderMap, HeaderValue, header};
use multer::Multipart;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

/// What comes before the bytes of a file, bytes at most: all of that is held in memory, and searched for its end.
const BEFORE_THE_FILE: usize = 64 << 10;
/// Longest boundary between parts, bytes (RFC 2046).
const BOUNDARY: usize = 70;

/// A file as it comes.
pub(crate) struct Part {
    pub(crate) content_type: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) bytes: BoxStream<'static, Result<Bytes, PeerError>>,
}

/// What an answer in two parts has.
pub(crate) enum Found {
    /// The file.
    Here(Part),
    /// The URL of the file.
    At(String),
}

impl Part {
    /// An answer that is the file.
    pub(crate) fn plain(opened: Opened) -> Self {
        let bytes = opened.body.map(|piece| piece.map_err(|error| PeerError::Unreachable(error.to_string())));
        Self::described(&opened.headers, bytes)
    }

    fn described(
        headers: &HeaderMap,
        bytes: impl Stream<Item = Result<Bytes, PeerError>> + Send + 'static,
    ) -> Self {
        Self {
            content_type: text(headers, &header::CONTENT_TYPE).map(str::to_owned),
            name: text(headers, &header::CONTENT_DISPOSITION).and_then(file_name),
            bytes: bytes.boxed(),
        }
    }
}

/// Reads an answer in two parts up to the bytes of the file.
///
/// # Errors
/// [`PeerError::BadAnswer`] if it has no two parts, or too much stands before the file.
pub(crate) async fn read(
    headers: &HeaderMap,
    body: impl Stream<Item = Result<Bytes, Broken>> + Send + 'static,
) -> Result<Found, PeerError> {
    let bad = |why: &dyn std::fmt::Display| PeerError::BadAnswer(format!("the file: {why}"));
    let boundary = text(headers, &header::CONTENT_TYPE)
        .and_then(boundary)
        .ok_or_else(|| bad(&"the answer has no parts"))?;
    let begun = Arc::new(AtomicBool::new(false));
    let mut parts = Multipart::new(one_by_one(body, begun.clone()), boundary);
    let mut next = async || {
        let part = parts.next_field().await.map_err(|error| bad(&causes(&error)))?;
        part.ok_or_else(|| bad(&"a part is missing"))
    };
    drop(next().await?);
    let file = next().await?;
    begun.store(true, Relaxed);
    if let Some(place) = text(file.headers(), &header::LOCATION) {
        return Ok(Found::At(place.to_owned()));
    }
    let headers = file.headers().clone();
    let bytes = file.map(|piece| piece.map_err(|error| PeerError::BadAnswer(causes(&error))));
    Ok(Found::Here(Part::described(&headers, bytes)))
}

/// The same pieces, the next one only once what has come was looked at: the reader of parts takes all there is into
/// memory first. It fails if too much has come before the file has `begun`.
fn one_by_one(
    body: impl Stream<Item = Result<Bytes, Broken>> + Send + 'static,
    begun: Arc<AtomicBool>,
) -> impl Stream<Item = Result<Bytes, PeerError>> + Send + 'static {
    let mut before = 0;
    let pieces = body.map(move |piece| {
        let piece = piece.map_err(|error| PeerError::Unreachable(error.to_string()))?;
        if !begun.load(Relaxed) {
            before += piece.len();
            if before > BEFORE_THE_FILE {
                return Err(PeerError::BadAnswer(format!("{BEFORE_THE_FILE} bytes stand before the file")));
            }
        }
        Ok(piece)
    });
    stream::unfold(Box::pin(pieces), |mut pieces| async move {
        tokio::task::yield_now().await;
        pieces.next().await.map(|piece| (piece, pieces))
    })
}

fn text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok())
}

/// The boundary that the type of an answer names.
fn boundary(content_type: &str) -> Option<String> {
    let named = content_type.split(';').find_map(|part| part.trim().strip_prefix("boundary="))?;
    let boundary = named.trim_matches('"');
    (!boundary.is_empty() && boundary.len() <= BOUNDARY).then(|| boundary.to_owned())
}

/// The file name of a `Content-Disposition` (RFC 6266): the extended form goes before the plain one.
fn file_name(disposition: &str) -> Option<String> {
    let (mut plain, mut extended) = (None, None);
    for part in disposition.split(';').map(str::trim) {
        let Some((name, value)) = part.split_once('=') else { continue };
        match name.trim().to_ascii_lowercase().as_str() {
            "filename" => plain = Some(value.trim().trim_matches('"').replace("\\\"", "\"")),
            "filename*" => {
                let encoded =
                    value.trim().strip_prefix("utf-8''").or_else(|| value.trim().strip_prefix("UTF-8''"));
                extended = encoded.and_then(|encoded| {
                    percent_encoding::percent_decode_str(encoded)
                        .decode_utf8()
                        .ok()
                        .map(|name| name.into_owned())
                });
            }
            _ => {}
        }
    }
    extended.or(plain).filter(|name| !name.is_empty())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use futures::TryStreamExt;

    const TYPE: &str = "multipart/mixed; boundary=b";
    const TWO_PARTS: &str = "--b\r\nContent-Type: application/json\r\n\r\n{}\r\n--b\r\nContent-Type: text/plain\r\n\
         Content-Disposition: inline; filename=x.txt\r\n\r\nthe file\r\n--b--\r\n";

    async fn answer(content_type: &str, pieces: Vec<Bytes>) -> Result<Found, PeerError> {
        let headers =
            HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_str(content_type).unwrap())]);
        read(&headers, stream::iter(pieces.into_iter().map(Ok))).await
    }

    #[tokio::test]
    async fn the_second_part_is_the_file_however_the_answer_is_cut() {
        for size in [1, 7, 1_000] {
            let pieces = TWO_PARTS.as_bytes().chunks(size).map(Bytes::copy_from_slice).collect();
            let Found::Here(part) = answer(TYPE, pieces).await.unwrap() else { panic!("{size}") };
            assert_eq!(part.content_type.as_deref(), Some("text/plain"));
            assert_eq!(part.name.as_deref(), Some("x.txt"));
            let bytes: Vec<Bytes> = part.bytes.try_collect().await.unwrap();
            assert_eq!(bytes.concat(), b"the file", "{size}");
        }
    }

    #[tokio::test]
    async fn a_part_that_names_a_place_is_no_file() {
        let parts = "--b\r\na: b\r\n\r\n{}\r\n--b\r\nLocation: https://a.test/x\r\n\r\n\r\n--b--\r\n";
        let Found::At(place) = answer(TYPE, vec![parts.into()]).await.unwrap() else { panic!() };
        assert_eq!(place, "https://a.test/x");
    }

    #[tokio::test]
    async fn an_answer_without_two_parts_is_refused() {
        for (content_type, parts) in [
            ("image/png", TWO_PARTS),
            ("multipart/mixed", TWO_PARTS),
            ("multipart/mixed; boundary=c", TWO_PARTS),
            (TYPE, ""),
            (TYPE, "--b\r\na: b\r\n\r\n{}\r\n--b--\r\n"),
        ] {
            let error = answer(content_type, vec![parts.into()]).await.err().unwrap();
            assert!(matches!(error, PeerError::BadAnswer(_)), "{content_type}: {error}");
        }
    }

    #[tokio::test]
    async fn what_stands_before_a_file_is_bounded_and_not_taken_all_at_once() {
        let endless = |beginning: &str| {
            let mut pieces = vec![Bytes::from(beginning.to_owned())];
            pieces.resize(1_000, vec![b'x'; 1_000].into());
            pieces
        };
        for beginning in ["", "--b\r\nx: ", "--b\r\na: b\r\n\r\n", "--b\r\na: b\r\n\r\n{}\r\n--b\r\nx: "] {
            let error = answer(TYPE, endless(beginning)).await.err().unwrap().to_string();
            assert!(error.contains("before the file"), "{beginning:?}: {error}");
        }
        let file = answer(TYPE, endless("--b\r\na: b\r\n\r\n{}\r\n--b\r\na: b\r\n\r\n")).await;
        assert!(matches!(file, Ok(Found::Here(_))), "the file itself is not bounded here");
    }

    #[test]
    fn the_name_of_a_file_is_read_in_both_forms() {
        assert_eq!(file_name("inline; filename=\"a b.txt\"").as_deref(), Some("a b.txt"));
        assert_eq!(file_name("attachment; filename=x.png").as_deref(), Some("x.png"));
        assert_eq!(file_name("inline; filename=\"x\"; filename*=utf-8''%F0%9F%90%94").as_deref(), Some("🐔"));
        assert_eq!(file_name("inline"), None);
    }
}
