//! What rooms mean: building, authorizing, signing and storing events; memberships; creation and upgrades; state
//! resolution. Everything a local user does to a room is an operation of [`Rooms`].

mod acl;
mod authorize;
mod batch;
mod copies;
mod create;
mod directory;
mod effects;
mod ends;
mod error;
mod event;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod gate;
pub mod glob;
mod hierarchy;
mod intent;
mod invites;
pub mod keys;
pub mod limits;
mod membership;
mod outliers;
mod partial;
pub mod pdu;
mod policy;
pub mod power;
mod quarantine;
mod receipts;
mod receive;
mod resolve;
mod rooms;
mod say;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod scale;
mod served;
mod servers;
mod staging;
pub mod templates;
mod typing;
pub mod version;
pub mod view;

pub use batch::{Draft, Txn};
pub use create::{CreateRoom, Preset};
pub use directory::{Asker, Listing, PublicRooms, Summary};
pub use effects::{Relation, media_named, media_shown};
pub use error::Error;
pub use event::Event;
pub use gate::{ENCRYPTION, Entry, Form, Gate, LABEL, Later, NEVER_REDACTED, Pins, SALT};
pub use hierarchy::Space;
pub use membership::{CLEARANCE, MembershipChange};
pub use partial::Omitted;
pub use policy::{PolicyServers, Recommendation};
pub use postern_graph::event::MembershipKind;
pub use quarantine::Quarantined;
pub use receipts::{ReceiptKind, RemoteReceipt, UserReceipt};
pub use receive::{Gap, Received, Verified};
pub use rooms::{Rooms, now_ms};
pub use served::Asking;
pub use staging::Waiting;
pub use typing::Typing;
