//! What can go wrong with media.

/// An error of an operation on media.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such media.
    #[error("there is no such media")]
    NotFound,
    /// Its id was made, but nothing was uploaded yet.
    #[error("the media has not been uploaded yet")]
    NotYetUploaded,
    /// There is something under the id already.
    #[error("there is a file under this id already")]
    CannotOverwrite,
    /// The id was made by another user.
    #[error("only the user who made the id may upload to it")]
    NotYours,
    /// Larger than it may be.
    #[error("the file is larger than {0} bytes")]
    TooLarge(u64),
    /// An image, or the file it is in, is too large for a thumbnail.
    #[error("the image is too large for a thumbnail: {0}")]
    ImageTooLarge(String),
    /// Too many uploads are outstanding.
    #[error("too many uploads are outstanding")]
    TooManyPending,
    /// There is no thumbnail of this.
    #[error("no thumbnail can be made: {0}")]
    NoThumbnail(String),
    /// A parameter that makes no sense.
    #[error("{0}")]
    InvalidParam(String),
    /// Something failed that should not.
    #[error("{0}")]
    Internal(String),
    /// The store failed.
    #[error(transparent)]
    Graph(#[from] postern_graph::Error),
}
