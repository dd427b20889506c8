//! Records: what a bundle carries. A record is the array `[type, payload]`, its payload a byte string whose meaning is the
//! type's. The types of the specification carry JSON exactly as it was received or made, never encoded anew.

use crate::cbor::{Malformed, Reader, Writer};
use crate::error::{Error, Part};
use crate::keys::Hash;
use crate::limits;

/// Types from here on may be skipped by who does not know them.
pub const OPTIONAL: u64 = 128;

/// A type of record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A server's signed keys, as `GET /_matrix/key/v2/server` answers.
    Key,
    /// An event that is there because others name it in their `auth_events`.
    AuthPdu,
    /// The ids of the events of a room's state at some event.
    StateSnapshot,
    /// An event of a room's timeline.
    Pdu,
    /// An ephemeral event, `{"edu_type": …, "content": …, "origin": …}`.
    Edu,
    /// Describes a file; its bytes follow in pieces, in this bundle or in one of media.
    Media,
    /// Some bytes of a file.
    MediaPiece,
    /// A user's device and cross-signing keys, as `POST /user/keys/query` answers.
    DeviceKeys,
    /// One-time and fallback keys of a device, given out beforehand.
    OneTimeKeys,
    /// A policy, or a part of one.
    Policy,
    /// What the sender asks for: a join, an invite, keys.
    Request,
    /// A key ceremony ([`crate::Ceremony`]) that opens the next epoch.
    Ceremony,
    /// A note to whoever reads the bundle, in plain text.
    Note,
}

impl Kind {
    /// All types and their codes.
    pub const ALL: [(Self, u64, &'static str); 13] = [
        (Self::Key, 1, "key"),
        (Self::AuthPdu, 2, "authpdu"),
        (Self::StateSnapshot, 3, "state_snapshot"),
        (Self::Pdu, 4, "pdu"),
        (Self::Edu, 5, "edu"),
        (Self::Media, 6, "media"),
        (Self::MediaPiece, 7, "media_piece"),
        (Self::DeviceKeys, 8, "device_keys"),
        (Self::OneTimeKeys, 9, "otk"),
        (Self::Policy, 10, "policy"),
        (Self::Request, 11, "request"),
        (Self::Ceremony, 12, "ceremony"),
        (Self::Note, OPTIONAL, "note"),
    ];

    /// Its code in bundles.
    pub fn code(self) -> u64 {
        Self::ALL.iter().find(|(kind, ..)| *kind == self).map_or(0, |(_, code, _)| *code)
    }

    /// The type of a code.
    pub fn of(code: u64) -> Option<Self> {
        Self::ALL.iter().find(|(_, other, _)| *other == code).map(|(kind, ..)| *kind)
    }

    /// Its name in this documentation and in what commands print.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(kind, ..)| *kind == self).map_or("", |(.., name)| name)
    }
}

/// What there is to know of a file before its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// SHA-256 of the file.
    pub sha256: Hash,
    /// The file's length, bytes.
    pub len: u64,
    /// Its `mxc:` URI. Several may name the same bytes, which travel once.
    pub mxc: String,
    /// Its content type, if it has one.
    pub content_type: Option<String>,
    /// The name it was uploaded under.
    pub file_name: Option<String>,
}

/// Some bytes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaPiece {
    /// SHA-256 of the whole file.
    pub sha256: Hash,
    /// Where in the file these bytes begin.
    pub offset: u64,
    /// At most [`limits::PIECE_BYTES`].
    pub bytes: Vec<u8>,
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// Any type but the two below, with its payload.
    Plain(Kind, Vec<u8>),
    Media(Media),
    MediaPiece(MediaPiece),
}

impl Record {
    /// Its type.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Plain(kind, _) => *kind,
            Self::Media(_) => Kind::Media,
            Self::MediaPiece(_) => Kind::MediaPiece,
        }
    }

    fn payload(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        match self {
            Self::Plain(_, payload) => return payload.clone(),
            Self::Media(Media { sha256, len, mxc, content_type, file_name }) => {
                writer.array(5).bytes(sha256).uint(*len).text(mxc);
                for text in [content_type, file_name] {
                    writer.option(text.as_deref(), |writer, text| _ = writer.text(text));
                }
            }
            Self::MediaPiece(MediaPiece { sha256, offset, bytes }) => {
                writer.array(3).bytes(sha256).uint(*offset).bytes(bytes);
            }
        }
        writer.0
    }

    /// Its bytes in a bundle: what the Merkle tree hashes.
    ///
    /// # Errors
    /// If it is too large for one.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        let payload = self.payload();
        let mut writer = Writer(Vec::with_capacity(payload.len() + 8));
        writer.array(2).uint(self.kind().code()).bytes(&payload);
        if writer.0.len() > limits::RECORD_BYTES {
            Err(Error::RecordTooLarge(writer.0.len()))
        } else {
            Ok(writer.0)
        }
    }

    /// What an encoded record says. `at` is its number, for errors. `None` if its type is optional and not known here.
    pub(crate) fn decode(encoded: &[u8], at: u64) -> Result<Option<Self>, Error> {
        let mut reader = Reader::new(encoded);
        let (code, payload) = split(&mut reader).map_err(malformed)?;
        reader.end().map_err(malformed)?;
        match Kind::of(code) {
            None if code >= OPTIONAL => Ok(None),
            None => Err(Error::UnknownRecord { at, kind: code }),
            Some(kind) => Self::of(kind, payload).map(Some).map_err(malformed),
        }
    }

    fn of(kind: Kind, payload: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        let record = match kind {
            Kind::Media => {
                reader.tuple(5)?;
                Self::Media(Media {
                    sha256: reader.array_of_bytes()?,
                    len: reader.uint()?,
                    mxc: reader.text(limits::NAME_BYTES * 2)?,
                    content_type: reader.option(|reader| reader.text(limits::TEXT_BYTES))?,
                    file_name: reader.option(|reader| reader.text(limits::TEXT_BYTES))?,
                })
            }
            Kind::MediaPiece => {
                reader.tuple(3)?;
                Self::MediaPiece(MediaPiece {
                    sha256: reader.array_of_bytes()?,
                    offset: reader.uint()?,
                    bytes: reader.bytes(limits::PIECE_BYTES)?.to_vec(),
                })
            }
            plain => return Ok(Self::Plain(plain, payload.to_vec())),
        };
        reader.end()?;
        Ok(record)
    }
}

fn malformed(why: Malformed) -> Error {
    Error::Malformed(Part::Record, why)
}

/// Reads one encoded record, and gives its type and payload.
pub(crate) fn split<'a>(reader: &mut Reader<'a>) -> Result<(u64, &'a [u8]), Malformed> {
    reader.tuple(2)?;
    Ok((reader.uint()?, reader.bytes(limits::RECORD_BYTES)?))
}
