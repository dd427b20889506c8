//! What a server answered, and saying what it should have been.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::Value;
use std::ops::Index;

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    question: String,
    status: u16,
    headers: HeaderMap,
    bytes: Bytes,
    body: Value,
}

impl Answer {
    pub(crate) fn new(question: String, status: StatusCode, headers: HeaderMap, bytes: Bytes) -> Self {
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Self { question, status: status.as_u16(), headers, bytes, body }
    }

    /// The status.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// A header, as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// All headers.
    #[must_use]
    pub const fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The body as it came.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The body as JSON; null if it is none.
    #[must_use]
    pub const fn body(&self) -> &Value {
        &self.body
    }

    /// The `errcode`, if there is one.
    #[must_use]
    pub fn errcode(&self) -> Option<&str> {
        self.body.get("errcode").and_then(Value::as_str)
    }

    /// What was asked and what came back, for messages.
    #[must_use]
    pub fn describe(&self) -> String {
        let body = String::from_utf8_lossy(&self.bytes);
        let end = body.char_indices().nth(2000).map_or(body.len(), |(at, _)| at);
        format!("{}: {} {}", self.question, self.status, &body[..end])
    }

    /// The JSON of an answer that must be a success.
    ///
    /// # Panics
    /// It is not.
    #[track_caller]
    #[must_use]
    pub fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.describe());
        self.body
    }

    /// As [`Self::ok`], where the body does not matter.
    ///
    /// # Panics
    /// It is no success.
    #[track_caller]
    pub fn done(self) {
        assert_eq!(self.status, 200, "{}", self.describe());
    }

    /// The JSON of an answer that must be this error.
    ///
    /// # Panics
    /// It is not.
    #[track_caller]
    pub fn refused(self, status: u16, errcode: &str) -> Value {
        assert_eq!((self.status, self.errcode()), (status, Some(errcode)), "{}", self.describe());
        self.body
    }
}

/// A field of the body; null if it is not there.
impl Index<&str> for Answer {
    type Output = Value;

    fn index(&self, field: &str) -> &Value {
        &self.body[field]
    }
}
