//! Where requests come from.

use axum::{extract::FromRequestParts, http::request::Parts};
use std::{convert::Infallible, net::SocketAddr};

/// The client's address, as the connection or a trusted proxy tells it; put into requests by the listener.
#[derive(Debug, Clone, Copy)]
pub struct PeerAddress(pub SocketAddr);

/// The digest (SHA-256) of the public key in the certificate that was shown on the connection of a request; put into requests
/// by listeners that ask for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerKey(pub [u8; 32]);

/// The address a request comes from, without its port, for counting who asks how often. It is empty if no listener has
/// said it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAddress(pub String);

impl ClientAddress {
    /// The one of this request.
    #[must_use]
    pub fn of(parts: &Parts) -> Self {
        Self(parts.extensions.get::<PeerAddress>().map_or_else(String::new, |peer| peer.0.ip().to_string()))
    }
}

impl<S: Sync> FromRequestParts<S> for ClientAddress {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(parts))
    }
}
