//! Errors on the wire: the one place where what went wrong becomes a Matrix error.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

/// An error as a client sees it: a status and a Matrix error (specification: API standards).
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    errcode: &'static str,
    message: String,
    more: Map<String, Value>,
}

impl ApiError {
    /// An error with a code of the specification and a sentence that helps.
    pub fn new(status: StatusCode, errcode: &'static str, message: impl Into<String>) -> Self {
        Self { status, errcode, message: message.into(), more: Map::new() }
    }

    /// With one more field in the body.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.more.insert(key.to_owned(), value.into());
        self
    }

    /// 403 `M_FORBIDDEN`
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "M_FORBIDDEN", message)
    }

    /// 404 `M_NOT_FOUND`
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "M_NOT_FOUND", message)
    }

    /// 400 `M_BAD_JSON`
    pub fn bad_json(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_BAD_JSON", message)
    }

    /// 400 `M_NOT_JSON`
    pub fn not_json(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_NOT_JSON", message)
    }

    /// 400 `M_INVALID_PARAM`
    pub fn invalid_param(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_INVALID_PARAM", message)
    }

    /// 400 `M_MISSING_PARAM`
    pub fn missing_param(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_MISSING_PARAM", message)
    }

    /// 413 `M_TOO_LARGE`
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE", message)
    }

    /// 401 `M_UNKNOWN_TOKEN`; with `soft`, the device is still there.
    #[must_use]
    pub fn unknown_token(soft: bool) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "M_UNKNOWN_TOKEN", "the access token is unknown or has expired")
            .with("soft_logout", soft)
    }

    /// 429 `M_LIMIT_EXCEEDED`
    #[must_use]
    pub fn limit_exceeded(retry_after_ms: u64) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED", "too many requests: slow down")
            .with("retry_after_ms", retry_after_ms)
    }

    /// 404 `M_UNRECOGNIZED`
    #[must_use]
    pub fn unrecognized() -> Self {
        Self::new(StatusCode::NOT_FOUND, "M_UNRECOGNIZED", "there is no such endpoint")
    }

    /// 500 `M_UNKNOWN`; what went wrong is logged, not told.
    pub fn internal(what: &dyn std::fmt::Display) -> Self {
        tracing::error!(error = %what, "a request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "M_UNKNOWN",
            "the server failed; the operator finds why in its log",
        )
    }

    /// The status it is sent with.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// The sentence that helps.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The Matrix error code.
    #[must_use]
    pub const fn errcode(&self) -> &'static str {
        self.errcode
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut body = self.more;
        let retry = body.get("retry_after_ms").and_then(Value::as_u64);
        body.insert("errcode".to_owned(), self.errcode.into());
        body.insert("error".to_owned(), self.message.into());
        let mut response = (self.status, Json(json!(body))).into_response();
        if let Some(ms) = retry {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000)));
        }
        if self.status == StatusCode::PAYLOAD_TOO_LARGE {
            // The rest of the request is not read, so the connection cannot go on; clients must not send the next one there.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl From<postern_graph::Error> for ApiError {
    fn from(error: postern_graph::Error) -> Self {
        Self::internal(&error)
    }
}

impl From<postern_rooms::Error> for ApiError {
    fn from(error: postern_rooms::Error) -> Self {
        use postern_rooms::Error as E;
        let text = error.to_string();
        let bad = |errcode| Self::new(StatusCode::BAD_REQUEST, errcode, text.clone());
        match error {
            E::Forbidden(_) => Self::forbidden(text),
            E::NotFound(_) => Self::not_found(text),
            E::BadJson(_) => Self::bad_json(text),
            E::InvalidParam(_) => Self::invalid_param(text),
            E::TooLarge(_) => Self::too_large(text),
            E::UnsupportedVersion(_) => bad("M_UNSUPPORTED_ROOM_VERSION"),
            E::IncompatibleVersion(version) => {
                bad("M_INCOMPATIBLE_ROOM_VERSION").with("room_version", version)
            }
            E::UnableToAuthorise(_) => bad("M_UNABLE_TO_AUTHORISE_JOIN"),
            E::UnableToGrant(_) => bad("M_UNABLE_TO_GRANT_JOIN"),
            E::InvalidRoomState(_) => bad("M_INVALID_ROOM_STATE"),
            E::AliasInUse(_) => bad("M_ROOM_IN_USE"),
            E::BadAlias(_) => bad("M_BAD_ALIAS"),
            E::BadState(_) => bad("M_BAD_STATE"),
            E::PartialState => Self::new(StatusCode::NOT_FOUND, "M_UNABLE_DUE_TO_PARTIAL_STATE", text),
            // No client brings PDUs, so these come from what is stored.
            E::Unresolvable(_) | E::MissingEvents(_) | E::Unverified(_) => Self::internal(&text),
            E::DuplicateAnnotation => bad("M_DUPLICATE_ANNOTATION"),
            E::BadRelation(_) => bad("M_UNKNOWN"),
            E::Signing(_) | E::Graph(_) => Self::internal(&text),
        }
    }
}

impl From<postern_push::Error> for ApiError {
    fn from(error: postern_push::Error) -> Self {
        use postern_push::Error as E;
        match error {
            E::Rooms(error) => error.into(),
            E::Users(error) => error.into(),
            E::Graph(_) | E::Damaged(_) => Self::internal(&error),
        }
    }
}

impl From<postern_users::Error> for ApiError {
    fn from(error: postern_users::Error) -> Self {
        use postern_users::Error as E;
        let text = error.to_string();
        match error {
            E::UserInUse => Self::new(StatusCode::BAD_REQUEST, "M_USER_IN_USE", text),
            E::InvalidUsername(_) => Self::new(StatusCode::BAD_REQUEST, "M_INVALID_USERNAME", text),
            E::Forbidden(_) => Self::forbidden(text),
            E::Deactivated => Self::new(StatusCode::FORBIDDEN, "M_USER_DEACTIVATED", text),
            E::UnknownToken { soft } => Self::unknown_token(soft),
            E::NotFound(_) => Self::not_found(text),
            E::InvalidParam(_) => Self::invalid_param(text),
            E::MissingParam(_) => Self::missing_param(text),
            E::InvalidSignature(_) => Self::new(StatusCode::BAD_REQUEST, "M_INVALID_SIGNATURE", text),
            E::TooLarge(_) => Self::too_large(text),
            E::ProfileTooLarge => Self::new(StatusCode::BAD_REQUEST, "M_PROFILE_TOO_LARGE", text),
            E::KeyTooLarge => Self::new(StatusCode::BAD_REQUEST, "M_KEY_TOO_LARGE", text),
            E::WrongVersion { current } => {
                Self::new(StatusCode::FORBIDDEN, "M_WRONG_ROOM_KEYS_VERSION", text)
                    .with("current_version", current)
            }
            E::Internal(_) | E::Graph(_) => Self::internal(&text),
        }
    }
}

/// When to try again to make an id to upload to, while too many wait: by then the user may have used one, milliseconds.
const PENDING_RETRY_MS: u64 = 60_000;

impl From<postern_media::Error> for ApiError {
    fn from(error: postern_media::Error) -> Self {
        use postern_media::Error as E;
        let text = error.to_string();
        match error {
            E::NotFound => Self::not_found(text),
            E::NotYetUploaded => Self::new(StatusCode::GATEWAY_TIMEOUT, "M_NOT_YET_UPLOADED", text),
            E::CannotOverwrite => Self::new(StatusCode::CONFLICT, "M_CANNOT_OVERWRITE_MEDIA", text),
            E::NotYours => Self::forbidden(text),
            E::TooLarge(_) | E::ImageTooLarge(_) => Self::too_large(text),
            E::TooManyPending => Self::limit_exceeded(PENDING_RETRY_MS),
            E::NoThumbnail(_) => Self::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", text),
            E::InvalidParam(_) => Self::invalid_param(text),
            E::Internal(_) | E::Graph(_) => Self::internal(&text),
        }
    }
}
