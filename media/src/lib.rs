//! Files that users send: stored in pieces in the graph, served whole or in part, and as thumbnails.
//!
//! An upload is written piece by piece and exists once its record is written, with the last piece and in one commit.
//! Until then a note that it is outstanding says what a crash leaves to be removed. Nothing holds a whole file in
//! memory, except to make a thumbnail of it.

mod disposition;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod limits;
mod pieces;
mod render;
mod store;
mod thumbnail;
mod upload;

pub use disposition::disposition;
pub use error::Error;
pub use pieces::Pieces;
pub use render::{Method, Rendered, Size, render};
pub use store::{Media, Record, Settings};
pub use thumbnail::Thumbnail;
pub use upload::Upload;
