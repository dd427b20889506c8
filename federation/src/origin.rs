//! Who asks, and what: the signature of each request is checked before anything is done for it.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#request-authentication>

use crate::{Federation, statement::verifies, x_matrix::XMatrix};
use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Request, State, rejection::PathRejection},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use postern_rooms::keys::request_text;
use postern_web::{ApiError, ClientAddress, PeerKey, Strict, check_object, parse_json};
use ruma::{OwnedServerName, ServerName};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// How long a server that makes more requests than it may is asked to wait, milliseconds.
const REQUEST_PAUSE_MS: u64 = 1_000;
/// Signatures of one request that are looked at.
const SIGNATURES: usize = 8;
/// Bodies may have this many bytes at least, whatever is configured: 50 events and 100 ephemeral ones.
const TRANSACTION_BYTES: usize = 4 << 20;

/// The server that asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(pub OwnedServerName);

/// Lets a request through if it is signed by the server it says it is from; [`Origin`] is then who that is.
pub(crate) async fn check(State(federation): State<Federation>, request: Request, next: Next) -> Response {
    match authenticate(&federation, request).await {
        Ok(request) => {
            let answer = next.run(request).await;
            // What is given away has to be written down before.
            match federation.0.rooms.settled().await {
                Ok(()) => answer,
                Err(error) => ApiError::internal(&error).into_response(),
            }
        }
        Err(error) => error.into_response(),
    }
}

fn unauthorized(message: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "M_UNAUTHORIZED", message)
}

async fn authenticate(federation: &Federation, request: Request) -> Result<Request, ApiError> {
    let parts = &federation.0;
    let own = parts.rooms.server_name();
    // What can be refused by the header is refused before the body comes.
    let (origin, claims) = claims(request.headers(), own)?;
    if !parts.peers.allowed(&origin) {
        return Err(ApiError::forbidden("this server does not federate with yours"));
    }
    let (mut head, body) = request.into_parts();
    let bound = parts.config.limits.max_request_body_bytes.max(TRANSACTION_BYTES);
    let announced =
        head.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|announced: usize| announced > bound) {
        return Err(ApiError::too_large("the request is too large"));
    }
    let bytes = match Limited::new(body, bound).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            return Err(ApiError::too_large("the request is too large"));
        }
        Err(_) => return Err(ApiError::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", "the request broke off")),
    };
    let content: Option<Value> = if bytes.is_empty() {
        None
    } else {
        let _: Strict = parse_json(&bytes)?;
        Some(parse_json(&bytes)?)
    };
    let target = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let text = request_text(&origin, own, head.method.as_str(), target, content.as_ref());
    let ids: Vec<String> = claims.iter().map(|claim| claim.key.clone()).collect();
    let ClientAddress(address) = ClientAddress::of(&head);
    let keys =
        parts.ring.for_request(&origin, &ids, &address).await.map_err(|error| ApiError::internal(&error))?;
    let known: Vec<_> = claims.iter().filter_map(|claim| Some((keys.get(&claim.key)?, claim))).collect();
    if known.is_empty() {
        return Err(unauthorized(format!(
            "the key of {origin} that signed this cannot be had, or is not valid"
        )));
    }
    if !known.iter().all(|(key, claim)| verifies(key, &claim.sig, text.as_bytes())) {
        return Err(unauthorized(format!("the signature of {origin} is wrong")));
    }
    if let Some(gate) = parts.rooms.gate() {
        let pins = gate.pins(&origin);
        let shown = head.extensions.get::<PeerKey>();
        if !pins.is_empty() && !shown.is_some_and(|PeerKey(key)| pins.contains(key)) {
            let why = if shown.is_some() {
                "its certificate has another public key"
            } else {
                "it showed no certificate"
            };
            gate.other_key(&origin, why);
            return Err(ApiError::forbidden(format!(
                "{origin} has to come with the certificate that is known of it: {why}"
            )));
        }
    }
    if parts.rooms.gate().is_some_and(|gate| !gate.takes_request(&origin)) {
        return Err(ApiError::limit_exceeded(REQUEST_PAUSE_MS));
    }
    federation.heard_from(&origin);
    head.extensions.insert(Origin(origin));
    Ok(Request::from_parts(head, axum::body::Body::from(bytes)))
}

/// Who a request says it is from, and the signatures that should prove it. There may be several, each in a header of
/// its own.
fn claims(headers: &HeaderMap, own: &ServerName) -> Result<(OwnedServerName, Vec<XMatrix>), ApiError> {
    let mut claims: Vec<XMatrix> = Vec::new();
    for value in headers.get_all(header::AUTHORIZATION) {
        let value = value.to_str().map_err(|_| unauthorized("the Authorization header is no text"))?;
        let Some(claim) = XMatrix::parse(value) else { continue };
        let claim = claim.map_err(unauthorized)?;
        if claim.destination.as_deref().is_some_and(|destination| destination != own) {
            return Err(unauthorized("the request is for another server"));
        }
        if claims.first().is_some_and(|first| first.origin != claim.origin) {
            return Err(unauthorized("the request is said to be from several servers"));
        }
        claims.push(claim);
    }
    if claims.len() > SIGNATURES {
        return Err(unauthorized("the request has too many signatures"));
    }
    let Some(first) = claims.first() else {
        return Err(unauthorized("the request has no X-Matrix signature"));
    };
    let origin = first.origin.clone();
    if origin == own {
        return Err(unauthorized("this server does not ask itself"));
    }
    Ok((origin, claims))
}

impl FromRequestParts<Federation> for Origin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Federation) -> Result<Self, ApiError> {
        // Nothing without the middleware: an endpoint that needs it and lacks it refuses everyone.
        parts.extensions.get::<Self>().cloned().ok_or_else(|| unauthorized("the request is not signed"))
    }
}

/// A JSON object as body, in which no key occurs twice. A body that is not JSON is `M_NOT_JSON`, one that is not a `T`
/// is `M_BAD_JSON`.
#[derive(Debug, Clone)]
pub struct Body<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Federation> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, federation: &Federation) -> Result<Self, ApiError> {
        let bound = federation.0.config.limits.max_request_body_bytes.max(TRANSACTION_BYTES);
        let bytes: Bytes = Limited::new(request.into_body(), bound)
            .collect()
            .await
            .map_err(|_| ApiError::too_large("the request is too large, or broke off"))?
            .to_bytes();
        check_object(&bytes)?;
        parse_json(&bytes).map(Self)
    }
}

/// Parameters of the path, refused with a Matrix error.
#[derive(Debug, Clone)]
pub struct Params<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<Federation> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, federation: &Federation) -> Result<Self, ApiError> {
        match Path::<T>::from_request_parts(parts, federation).await {
            Ok(Path(params)) => Ok(Self(params)),
            Err(PathRejection::FailedToDeserializePathParams(error)) => {
                Err(ApiError::invalid_param(error.body_text()))
            }
            Err(error) => Err(ApiError::invalid_param(error.to_string())),
        }
    }
}

/// Parameters of the query.
#[derive(Debug, Clone)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Federation> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Federation) -> Result<Self, ApiError> {
        serde_html_form::from_str(parts.uri.query().unwrap_or_default())
            .map(Self)
            .map_err(|error| ApiError::invalid_param(error.to_string()))
    }
}

#[cfg(test)]
mod tests;
