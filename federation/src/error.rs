//! What can go wrong between servers.

use http::StatusCode;
use postern_web::ApiError;
use ruma::OwnedServerName;

/// Why another server did not do what it was asked for.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PeerError {
    /// It answered with an error.
    #[error("the server answered {status} {errcode}: {message}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// The Matrix error code; `M_UNKNOWN` if there was none.
        errcode: String,
        /// What it said.
        message: String,
    },
    /// There is no connection to it. Nothing was sent.
    #[error("the server cannot be reached: {0}")]
    Unconnected(String),
    /// It did not answer, or not in time. It may have what it was sent.
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    /// What it answered cannot be used.
    #[error("the server's answer cannot be used: {0}")]
    BadAnswer(String),
    /// The request could not be made: a path or body that is none.
    #[error("the request cannot be made: {0}")]
    Unsendable(String),
    /// It failed before and is not asked again yet.
    #[error("the server failed before and is asked again later")]
    BackingOff,
    /// This server does not federate with it.
    #[error("this server does not federate with {0}")]
    NotAllowed(OwnedServerName),
    /// This server speaks with it at other hours.
    #[error("this server speaks with {0} at other hours")]
    NotNow(OwnedServerName),
}

impl PeerError {
    /// Whether asking another server, or later, may help.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Unconnected(_)
            | Self::Unreachable(_)
            | Self::BackingOff
            | Self::BadAnswer(_)
            | Self::NotNow(_) => true,
            Self::Refused { status, .. } => status.as_u16() >= 500 || status.as_u16() == 429,
            Self::NotAllowed(_) | Self::Unsendable(_) => false,
        }
    }
}

/// Why something between servers failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another server.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The rooms.
    #[error(transparent)]
    Rooms(#[from] postern_rooms::Error),
    /// The accounts.
    #[error(transparent)]
    Users(#[from] postern_users::Error),
    /// The media.
    #[error(transparent)]
    Media(#[from] postern_media::Error),
    /// The store.
    #[error(transparent)]
    Graph(#[from] postern_graph::Error),
    /// A link by hand.
    #[error(transparent)]
    ByHand(#[from] crate::carried::Fault),
    /// The border.
    #[error(transparent)]
    Border(#[from] postern_border::Error),
    /// The configuration cannot be used.
    #[error("federation: {0}")]
    Setup(String),
    /// A key that is needed to check a signature cannot be had.
    #[error("the signing keys of {0} cannot be had")]
    NoKeys(OwnedServerName),
}

impl Error {
    /// Whether the same may go well later. A server that answers otherwise than it should lies, or does not know better.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Peer(PeerError::BadAnswer(_)) => false,
            Self::Peer(error) => error.is_transient(),
            Self::Graph(_) | Self::NoKeys(_) | Self::Rooms(postern_rooms::Error::Graph(_)) => true,
            _ => false,
        }
    }
}

impl From<PeerError> for ApiError {
    fn from(error: PeerError) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", error.to_string())
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        match error {
            Error::Peer(error) => error.into(),
            Error::Rooms(error) => error.into(),
            Error::Users(error) => error.into(),
            Error::Media(error) => error.into(),
            Error::Graph(error) => error.into(),
            Error::ByHand(fault) => fault.into(),
            other @ (Error::Border(_) | Error::Setup(_) | Error::NoKeys(_)) => Self::internal(&other),
        }
    }
}
