//! Files that users send: stored in pieces in the graph, served whole or in part, and as thumbnails.
//!
//! An upload is written piece by piece and exists once its record says so; nothing holds a whole file in memory.

mod error;
pub mod limits;
mod store;
mod thumbnail;

pub use error::Error;
pub use store::{Media, Record, Settings, Upload};
pub use thumbnail::{Method, Size};
