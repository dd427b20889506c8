//! What must hold of any bytes at all. The fuzz targets call this, and tests with their seeds (see `fuzz/`).
#![allow(clippy::unwrap_used, clippy::panic)]

#[cfg(test)]
#[path = "../../fuzz/seeds.rs"]
mod seeds;

use crate::{
    inbox::{self, Transaction},
    multipart::{self, Found},
    verify,
    x_matrix::XMatrix,
};
use bytes::Bytes;
use futures::{StreamExt, executor::block_on, stream};
use http::{HeaderMap, HeaderValue, header};
use postern_rooms::{
    Verified,
    keys::request_text,
    version::{SUPPORTED, version},
};
use postern_web::{check_object, parse_json};
use ruma::{ServerName, server_name, signatures::PublicKeyMap};
use serde_json::Value;

/// A header is refused, or is what it reads as when it is written again.
pub fn x_matrix(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Some(Ok(read)) = XMatrix::parse(text) else { return };
    let quoted = |value: &str| format!("\"{}\"", value.replace('\\', r"\\").replace('"', r#"\""#));
    let destination = read.destination.as_deref().map(ServerName::as_str).map(quoted);
    let destination = destination.map(|name| format!(",destination={name}")).unwrap_or_default();
    let (origin, key, sig) = (quoted(read.origin.as_str()), quoted(&read.key), quoted(&read.sig));
    let written = format!("X-Matrix origin={origin}{destination},key={key},sig={sig}");
    // Quotes make it longer.
    match XMatrix::parse(&written).unwrap() {
        Ok(again) => assert_eq!(again, read),
        Err(error) => assert!(error.contains("too long"), "{error}"),
    }
}

/// The body of a transaction is refused, or means the same to whoever signs it and whoever reads it; no PDU of it passes
/// without the keys of its servers.
pub fn transaction(bytes: &[u8]) {
    if check_object(bytes).is_err() {
        return;
    }
    let content: Value = parse_json(bytes).unwrap();
    let (from, to) = (server_name!("a.example.org"), server_name!("b.example.org"));
    let signed = request_text(from, to, "PUT", "/_matrix/federation/v1/send/1", Some(&content));
    let signed: Value = serde_json::from_str(&signed).unwrap();
    assert_eq!(signed["content"], content);
    let Ok(transaction) = parse_json::<Transaction>(bytes) else { return };
    if !transaction.is_within_bounds() {
        return;
    }
    for pdu in &transaction.pdus {
        let Ok(pdu) = verify::parse(pdu) else { continue };
        let _ = inbox::room_of(&pdu);
        for id in SUPPORTED {
            let version = version(id).unwrap();
            let _ = (Verified::signers(&version, &pdu), inbox::id_of(&version, &pdu));
            assert!(Verified::check(&version, pdu.clone(), &PublicKeyMap::new()).is_err());
        }
    }
}

/// An answer with a file, whose first line is its `Content-Type`, has a file or is refused; how it is cut into pieces
/// does not matter, and a file is no longer than its answer.
pub fn multipart(bytes: &[u8]) {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return };
    let (content_type, body) = bytes.split_at(end);
    let Ok(content_type) = HeaderValue::from_bytes(content_type) else { return };
    let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, content_type)]);
    let read = |size: usize| block_on(read_file(&headers, &body[1..], size));
    let whole = read(usize::MAX);
    if let Some((_, file)) = &whole {
        assert!(file.len() <= body.len());
    }
    for size in [1, 13] {
        assert_eq!(read(size), whole);
    }
}

/// What is said of a file and its bytes, or where it is; nothing if the answer is refused.
async fn read_file(headers: &HeaderMap, body: &[u8], size: usize) -> Option<(Option<String>, Vec<u8>)> {
    let pieces: Vec<_> =
        body.chunks(size.min(body.len().max(1))).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let mut part = match multipart::read(headers, stream::iter(pieces)).await.ok()? {
        Found::Here(part) => part,
        Found::At(place) => return Some((None, place.into_bytes())),
    };
    let mut file = Vec::new();
    while let Some(piece) = part.bytes.next().await {
        file.extend_from_slice(&piece.ok()?);
    }
    Some((part.name, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authorization_header_is_refused_or_read_as_it_is_written() {
        seeds::near("x_matrix", x_matrix);
    }

    #[test]
    fn a_transaction_means_one_thing_and_passes_nothing_unsigned() {
        seeds::near("transaction", transaction);
    }

    #[test]
    fn an_answer_with_a_file_is_read_or_refused_however_it_is_cut() {
        seeds::near("multipart", multipart);
    }
}
