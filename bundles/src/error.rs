//! Why a bundle is refused, or cannot be written.

use std::io;
use std::ops::RangeInclusive;

use crate::cbor::Malformed;
use crate::envelope;
use crate::keys::{BadKey, KeyId, LinkId, hex};

/// A part of a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The signed cover, in the clear.
    Cover,
    /// The signed header.
    Header,
    /// The list of frames and of hashes of records.
    Index,
    /// Header and index, sealed.
    Head,
    /// The frames, sealed.
    Body,
    /// A record.
    Record,
    /// A release of an officer.
    Release,
    /// A volume's beginning.
    Volume,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Cover => "the cover",
            Self::Header => "the header",
            Self::Index => "the index",
            Self::Head => "the sealed head",
            Self::Body => "the sealed body",
            Self::Record => "a record",
            Self::Release => "a release",
            Self::Volume => "the beginning of a volume",
        })
    }
}

/// Why a bundle is refused, or cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("not a bundle: it does not begin with MFB1")]
    NotABundle,
    #[error("{0} is of version {1}; this is version 1")]
    Version(Part, u64),
    #[error("{0} is malformed {1}")]
    Malformed(Part, Malformed),
    #[error("link {0} is not known here")]
    UnknownLink(LinkId),
    #[error("epoch {epoch} of link {link} is not known here: a key ceremony opens an epoch")]
    UnknownEpoch { link: LinkId, epoch: u32 },
    #[error("signed with the key {}, which is not the one of this link and epoch", hex(.0))]
    WrongKey(KeyId),
    #[error("the signature of {0} does not verify")]
    BadSignature(Part),
    #[error("{0} was altered: it is not the one the cover names")]
    Altered(Part),
    #[error("cover and header contradict one another in {0}")]
    Contradiction(&'static str),
    #[error("the hashes in the index do not have the Merkle root of the header")]
    WrongRoot,
    #[error("{part} has {what} of {found}; at most {most} are accepted")]
    TooMuch { part: Part, what: &'static str, found: u64, most: u64 },
    #[error(transparent)]
    Envelope(#[from] envelope::Error),
    #[error("records {} to {} cannot be read: {why}", .records.start(), .records.end())]
    Frame { records: RangeInclusive<u64>, why: FrameFault },
    #[error("the bundle ends before record {next} of {of}; the ones before it are good")]
    Truncated { next: u64, of: u64 },
    #[error("something follows the end of the bundle")]
    Trailing,
    #[error("record {at} is of type {kind}, which is not known here and not optional")]
    UnknownRecord { at: u64, kind: u64 },
    #[error("a record of {0} bytes is too large: at most {most} fit", most = crate::limits::RECORD_BYTES)]
    RecordTooLarge(usize),
    #[error("a file of media is not what its description says: {0}")]
    Media(&'static str),
    #[error("{} is there already; nothing is overwritten", .0.display())]
    Exists(std::path::PathBuf),
    #[error("{0} is not the name of a bundle")]
    Name(String),
    #[error("volume {found} was given where volume {wanted} of this bundle is due")]
    Volume { wanted: u32, found: u32 },
    #[error("a volume has at least {least} bytes, not {0}", least = crate::limits::VOLUME_BYTES)]
    VolumeSize(u64),
    #[error(transparent)]
    Key(#[from] BadKey),
}

impl Error {
    /// Whether reading may go on behind it: only some records are lost.
    pub fn is_local(&self) -> bool {
        matches!(self, Self::Frame { .. } | Self::UnknownRecord { .. } | Self::Malformed(Part::Record, _))
    }
}

/// What is wrong with a frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameFault {
    #[error(transparent)]
    Envelope(envelope::Error),
    #[error("the frame does not unpack to what the index says")]
    Unpack,
    #[error("record {0} is not the one that was signed for")]
    Hash(u64),
    #[error("the frame has other records than the index says")]
    Records,
}
