//! What can go wrong at the border.

use crate::settings::Wrong;

/// An error of the border.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What the security officer wrote cannot be used.
    #[error(transparent)]
    Wrong(#[from] Wrong),
    /// The key of the policy server.
    #[error("the policy server's key: {0}")]
    PolicyKey(String),
    /// The store failed.
    #[error(transparent)]
    Graph(#[from] postern_graph::Error),
    /// The rooms.
    #[error(transparent)]
    Rooms(#[from] postern_rooms::Error),
    /// The files.
    #[error(transparent)]
    Media(#[from] postern_media::Error),
    /// The accounts.
    #[error(transparent)]
    Users(#[from] postern_users::Error),
}
