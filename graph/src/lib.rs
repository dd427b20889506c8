//! The event graph: rooms, events, state and everything else that is kept, over RocksDB.
//!
//! [`schema`] lists all that is stored. [`Graph::get`] and [`Graph::scan`] read; the one way to change anything is a
//! [`Commit`], and [`log`] says what each commit did to those who follow. State maps are in [`tree`]; names become
//! numbers in [`intern`].

pub mod backup;
mod chain;
pub mod codec;
mod commit;
pub mod doctor;
#[cfg(test)]
mod encodings;
mod error;
pub mod event;
mod follow;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod ids;
pub mod intern;
pub mod limits;
pub mod log;
mod scan;
pub mod schema;
mod store;
pub mod tree;
mod tuning;

pub use commit::Commit;
pub use error::Error;
pub use follow::Follower;
pub use ids::{ChainNum, EventNum, Pos, RoomNum, Root, Seq, ServerNum, StateKeyNum, TypeNum, UserNum};
pub use intern::Kind as NameKind;
pub use scan::{Entry, Range, Scan};
pub use schema::Family;
pub use store::{Graph, Settings};
