//! What can go wrong with accounts.

/// An error of an operation on accounts. What each becomes on the wire is decided by the API that called.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The user id is taken, or reserved.
    #[error("the user id is taken")]
    UserInUse,
    /// The localpart is not one.
    #[error("{0}")]
    InvalidUsername(String),
    /// Wrong user, password or token; which of them is not said.
    #[error("{0}")]
    Forbidden(String),
    /// The account is deactivated.
    #[error("the account is deactivated")]
    Deactivated,
    /// The access token is unknown, or (`soft`) expired: the client may refresh it or log in again with its device.
    #[error("the access token is unknown or has expired")]
    UnknownToken {
        /// Whether the device still exists.
        soft: bool,
    },
    /// Not there.
    #[error("{0}")]
    NotFound(String),
    /// A parameter that makes no sense.
    #[error("{0}")]
    InvalidParam(String),
    /// A parameter that is needed is not there.
    #[error("{0}")]
    MissingParam(String),
    /// A signature that is needed is not there, or not valid.
    #[error("{0}")]
    InvalidSignature(String),
    /// Larger than it may be.
    #[error("{0}")]
    TooLarge(String),
    /// A profile would exceed its 64 KiB.
    #[error("the profile would be larger than 64 KiB")]
    ProfileTooLarge,
    /// The name of a profile field exceeds its 255 bytes.
    #[error("the name of a profile field has at most 255 bytes")]
    KeyTooLarge,
    /// The version of something (key backup) is not the current one.
    #[error("the current version is {current}")]
    WrongVersion {
        /// What is current.
        current: String,
    },
    /// Something failed that should not.
    #[error("{0}")]
    Internal(String),
    /// The store failed.
    #[error(transparent)]
    Graph(#[from] postern_graph::Error),
}
