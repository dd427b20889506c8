//! Bundles: how enclaves without a network between them exchange events, keys and files, over media carried by hand or
//! a one-way diode. This crate knows what a bundle is, byte by byte (`docs/bundle-format.md`), which bundle of a link may be
//! imported next, and how one crosses a diode. It knows nothing of rooms or of the store: who exports fills a
//! [`Writer`], who imports takes verified records out of a [`Reader`].

mod cbor;
mod ceremony;
pub mod command;
mod cose;
mod crockford;
pub mod diode;
pub mod envelope;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod header;
#[cfg(test)]
mod hostile;
mod index;
mod keys;
pub mod limits;
pub mod link;
pub mod merkle;
mod reader;
mod record;
pub mod spool;
#[cfg(test)]
mod testing;
mod ticket;
#[cfg(test)]
mod vectors;
pub mod volumes;
mod writer;

pub use ceremony::{Ceremony, CeremonyError};
pub use envelope::{Identity, Recipient};
pub use error::{Error, FrameFault, Part};
pub use header::{
    Ack, BundleId, BundleKind, Cover, Fields, Header, Missing, Place, Release, RoomHeads, Statement,
};
pub use keys::{BadKey, Hash, KeyId, LinkId, PublicKey, SecretKey, from_hex, hex};
pub use reader::{Keyring, Reader, Verified, read_cover, verify_sealed};
pub use record::{Kind, Media, MediaPiece, OPTIONAL, Record};
pub use ticket::{RoomDigest, Ticket, TicketError};
pub use writer::{Finished, MAGIC, Staged, Writer};
