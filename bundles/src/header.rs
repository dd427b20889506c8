//! What is said of a bundle: the cover in the clear and the header inside, each signed with the link's key.
//!
//! The cover is for whoever carries a bundle: with the link's public key alone it shows whose bundle this is, which one,
//! and, with all its bytes at hand, that none of them was altered. The header is for who it is sealed to. It
//! fixes everything in the bundle by its Merkle root, so its hash *is* the bundle's hash, whoever it is sealed to.

use std::fmt;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::cbor::{Malformed, Reader, Writer};
use crate::cose;
use crate::error::{Error, Part};
use crate::keys::{Hash, LinkId, PublicKey, SecretKey, hex};
use crate::limits;
use crate::record::Kind;

pub(crate) const PURPOSE_COVER: &str = "postern bundle cover 1";
pub(crate) const PURPOSE_HEADER: &str = "postern bundle header 1";
const PURPOSE_RELEASE: &str = "postern bundle release 1";
const VERSION: u64 = 1;
/// How the head and the body are sealed: 1 is age.
const SEAL_AGE: u64 = 1;

/// A bundle's own id, a ULID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BundleId(pub [u8; 16]);

impl BundleId {
    /// A new one, made at `now` (milliseconds since the epoch).
    pub fn random(now: u64) -> Self {
        let random: [u8; 10] = rand::random();
        let mut id = [0; 16];
        id[..6].copy_from_slice(&now.to_be_bytes()[2..]);
        id[6..].copy_from_slice(&random);
        Self(id)
    }
}

impl fmt::Display for BundleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A ULID has its two spare bits in front, where base 32 has them behind.
        let value = u128::from_be_bytes(self.0);
        (0..26).rev().try_for_each(|at| {
            f.write_str(&crate::crockford::encode(&[((value >> (5 * at) & 31) as u8) << 3])[..1])
        })
    }
}

impl fmt::Debug for BundleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a bundle is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BundleKind {
    /// What happened since the bundle before it.
    Delta,
    /// Everything a reader needs who missed bundles before it.
    Keyframe,
    /// The sender asks for something.
    Request,
    /// Nothing but acknowledgements.
    Ack,
    /// Files.
    Media,
}

impl BundleKind {
    const ALL: [(Self, u64, &'static str); 5] = [
        (Self::Delta, 1, "delta"),
        (Self::Keyframe, 2, "keyframe"),
        (Self::Request, 3, "request"),
        (Self::Ack, 4, "ack"),
        (Self::Media, 5, "media"),
    ];

    fn code(self) -> u64 {
        Self::ALL.iter().find(|(kind, ..)| *kind == self).map_or(0, |(_, code, _)| *code)
    }

    /// As it is documented and printed.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(kind, ..)| *kind == self).map_or("", |(.., name)| name)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let start = reader.clone();
        let code = reader.uint()?;
        let found = Self::ALL.iter().find(|(_, other, _)| *other == code);
        found.map(|(kind, ..)| *kind).ok_or(start.wrong("a kind of bundle that is not known"))
    }
}

/// Which bundle: the place in its link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    pub link: LinkId,
    /// Counts the keys of the link, from 1.
    pub epoch: u32,
    /// Counts the bundles of the epoch, from 1.
    pub seq: u64,
}

impl Place {
    fn write(&self, writer: &mut Writer) {
        writer.bytes(&self.link.0).uint(self.epoch.into()).uint(self.seq);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let place =
            Self { link: LinkId(reader.array_of_bytes()?), epoch: reader.uint32()?, seq: reader.uint()? };
        if place.epoch == 0 || place.seq == 0 {
            Err(reader.wrong("an epoch or a sequence number of 0"))
        } else {
            Ok(place)
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bundle {} of epoch {} of link {}", self.seq, self.epoch, self.link)
    }
}

/// The cover, in the clear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cover {
    pub place: Place,
    pub id: BundleId,
    pub kind: BundleKind,
    /// When it was made, milliseconds since the epoch.
    pub created: u64,
    /// After this it is not to be imported, milliseconds since the epoch.
    pub not_after: Option<u64>,
    /// SHA-256 of the signed header: the bundle's hash.
    pub hash: Hash,
    /// Length of the sealed head, bytes.
    pub head_len: u64,
    /// SHA-256 of the sealed head.
    pub head_sha256: Hash,
    /// Length of the sealed body, bytes.
    pub body_len: u64,
    /// SHA-256 of the sealed body.
    pub body_sha256: Hash,
}

impl Cover {
    pub(crate) fn sign(&self, key: &SecretKey) -> Vec<u8> {
        cose::sign1(key, PURPOSE_COVER, &self.encode())
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.array(14).uint(VERSION);
        self.place.write(&mut writer);
        writer.bytes(&self.id.0).uint(self.kind.code()).uint(self.created);
        writer.option(self.not_after, |writer, time| _ = writer.uint(time));
        writer.bytes(&self.hash).uint(SEAL_AGE).uint(self.head_len).bytes(&self.head_sha256);
        writer.uint(self.body_len).bytes(&self.body_sha256);
        writer.0
    }

    /// Only the place, which says whose key to verify with.
    pub(crate) fn place(payload: &[u8]) -> Result<Place, Error> {
        let mut reader = Reader::new(payload);
        let place = reader.array(u64::MAX).and_then(|_| reader.uint());
        check_version(Part::Cover, place.map_err(|why| Error::Malformed(Part::Cover, why))?)?;
        Place::read(&mut reader).map_err(|why| Error::Malformed(Part::Cover, why))
    }

    pub(crate) fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        reader.tuple(14)?;
        if reader.uint()? != VERSION {
            return Err(reader.wrong("a version that is not 1"));
        }
        let place = Place::read(&mut reader)?;
        let (id, kind, created) =
            (BundleId(reader.array_of_bytes()?), BundleKind::read(&mut reader)?, reader.uint()?);
        let (not_after, hash) = (reader.option(Reader::uint)?, reader.array_of_bytes()?);
        if reader.uint()? != SEAL_AGE {
            return Err(reader.wrong("a seal that is not age"));
        }
        let (head_len, head_sha256) = (reader.uint()?, reader.array_of_bytes()?);
        let (body_len, body_sha256) = (reader.uint()?, reader.array_of_bytes()?);
        reader.end()?;
        Ok(Self { place, id, kind, created, not_after, hash, head_len, head_sha256, body_len, body_sha256 })
    }
}

fn check_version(part: Part, version: u64) -> Result<(), Error> {
    if version == VERSION { Ok(()) } else { Err(Error::Version(part, version)) }
}

/// Where a room was before and after what a bundle has of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomHeads {
    pub room: String,
    pub version: String,
    /// The greatest depth in the bundle.
    pub last_depth: u64,
    /// Forward extremities the sender had when the bundle before it was made.
    pub before: Vec<String>,
    /// Forward extremities after this one.
    pub after: Vec<String>,
}

/// What of another link has arrived here: the way back says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// The last bundle up to which all are there, but for the missing ones. `seq` is at least 1.
    pub place: Place,
    /// Bundles that are wanted again.
    pub missing: Vec<RangeInclusive<u64>>,
}

/// Events that events in the bundle name in `prev_events`, and that are neither in it nor acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    pub room: String,
    pub events: Vec<String>,
}

/// An officer's word that this bundle may cross to where its label may not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    pub officer: String,
    pub reason: String,
    signed: Vec<u8>,
}

/// What an officer signs for: exactly these records with this label to these destinations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    pub place: Place,
    pub id: BundleId,
    pub destinations: Vec<String>,
    pub label: String,
    pub merkle_root: Hash,
}

impl Statement {
    fn encode(&self, officer: &str, reason: &str) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.array(10).uint(VERSION);
        self.place.write(&mut writer);
        writer.bytes(&self.id.0).list(self.destinations.iter(), |writer, name| _ = writer.text(name));
        writer.text(&self.label).bytes(&self.merkle_root).text(officer).text(reason);
        writer.0
    }

    /// The officer's release.
    pub fn release(&self, officer: &str, reason: &str, key: &SecretKey) -> Release {
        let signed = cose::sign1(key, PURPOSE_RELEASE, &self.encode(officer, reason));
        Release { officer: officer.to_owned(), reason: reason.to_owned(), signed }
    }
}

impl Release {
    /// Whether the officer whose key this is released `statement`.
    pub fn is_by(&self, key: &PublicKey, statement: &Statement) -> bool {
        let signed = cose::Sign1::read(&mut Reader::new(&self.signed), limits::HEADER_BYTES);
        let payload = signed.as_ref().ok().and_then(|signed| signed.verify(key, PURPOSE_RELEASE));
        payload == Some(&statement.encode(&self.officer, &self.reason)[..])
    }
}

/// What the exporter says of a bundle. What follows from its records is in [`Header`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    pub place: Place,
    pub id: BundleId,
    pub kind: BundleKind,
    /// The server it comes from.
    pub source: String,
    /// The servers it is for.
    pub destinations: Vec<String>,
    /// The hash of the bundle before it; of the ceremony that opened the epoch, or zeros if nothing opened it, for the first.
    pub prev_sha256: Hash,
    /// When it was made, milliseconds since the epoch.
    pub created: u64,
    /// After this it is not to be imported, milliseconds since the epoch.
    pub not_after: Option<u64>,
    /// The join of the labels of everything inside, in the written form of the sender's label policy.
    pub label: String,
    /// Which revision of its policies the sender released this by.
    pub policy_revision: String,
    pub rooms: Vec<RoomHeads>,
    pub acks: Vec<Ack>,
    pub missing: Vec<Missing>,
}

/// The header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub fields: Fields,
    /// How many records there are of each type, by code.
    pub counts: Vec<(u64, u64)>,
    pub record_count: u64,
    /// The root of the Merkle tree over all records.
    pub merkle_root: Hash,
    pub releases: Vec<Release>,
}

fn write_texts(writer: &mut Writer, texts: &[String]) {
    writer.list(texts.iter(), |writer, text| _ = writer.text(text));
}

fn read_event_ids(reader: &mut Reader<'_>) -> Result<Vec<String>, Malformed> {
    reader.list(limits::EVENT_IDS, |reader| {
        let start = reader.clone();
        let id = reader.text(limits::NAME_BYTES)?;
        // The shortest is `$a:b`. Without this a small header could make a million tiny texts.
        if id.len() < 4 { Err(start.wrong("too short for an event id")) } else { Ok(id) }
    })
}

fn read_range(reader: &mut Reader<'_>) -> Result<RangeInclusive<u64>, Malformed> {
    reader.tuple(2)?;
    let (first, last) = (reader.uint()?, reader.uint()?);
    if first == 0 || first > last { Err(reader.wrong("a range that is empty")) } else { Ok(first..=last) }
}

impl Header {
    /// What an officer who releases this bundle signs for.
    pub fn statement(&self) -> Statement {
        let Fields { place, id, destinations, label, .. } = &self.fields;
        Statement {
            place: *place,
            id: *id,
            destinations: destinations.clone(),
            label: label.clone(),
            merkle_root: self.merkle_root,
        }
    }

    /// How many records of `kind` there are.
    pub fn count(&self, kind: Kind) -> u64 {
        self.counts.iter().find(|(code, _)| *code == kind.code()).map_or(0, |(_, count)| *count)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let fields = &self.fields;
        let mut writer = Writer::default();
        writer.array(20).uint(VERSION);
        fields.place.write(&mut writer);
        writer.bytes(&fields.id.0).uint(fields.kind.code()).text(&fields.source);
        write_texts(&mut writer, &fields.destinations);
        writer.bytes(&fields.prev_sha256).uint(fields.created);
        writer.option(fields.not_after, |writer, time| _ = writer.uint(time));
        writer.text(&fields.label).text(&fields.policy_revision);
        writer.list(self.counts.iter(), |writer, (code, count)| _ = writer.array(2).uint(*code).uint(*count));
        writer.list(fields.rooms.iter(), |writer, room| {
            writer.array(5).text(&room.room).text(&room.version).uint(room.last_depth);
            write_texts(writer, &room.before);
            write_texts(writer, &room.after);
        });
        writer.uint(self.record_count).bytes(&self.merkle_root);
        writer.list(fields.acks.iter(), |writer, ack| {
            writer.array(4);
            ack.place.write(writer);
            writer.list(ack.missing.iter(), |writer, range| {
                _ = writer.array(2).uint(*range.start()).uint(*range.end())
            });
        });
        writer.list(fields.missing.iter(), |writer, missing| {
            writer.array(2).text(&missing.room);
            write_texts(writer, &missing.events);
        });
        writer.list(self.releases.iter(), |writer, release| {
            writer.array(3).text(&release.officer).text(&release.reason).bytes(&release.signed);
        });
        writer.0
    }

    pub(crate) fn sign(&self, key: &SecretKey) -> Result<Vec<u8>, Error> {
        let payload = self.encode();
        // Everything a reader would refuse is refused here.
        Self::decode(&payload).map_err(|why| Error::Malformed(Part::Header, why))?;
        let signed = cose::sign1(key, PURPOSE_HEADER, &payload);
        match signed.len() {
            length if length > limits::HEADER_BYTES => Err(too_long(length)),
            _ => Ok(signed),
        }
    }

    pub(crate) fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        let reader = &mut reader;
        reader.tuple(20)?;
        if reader.uint()? != VERSION {
            return Err(reader.wrong("a version that is not 1"));
        }
        let place = Place::read(reader)?;
        let (id, kind) = (BundleId(reader.array_of_bytes()?), BundleKind::read(reader)?);
        let source = reader.text(limits::NAME_BYTES)?;
        let destinations = reader.list(limits::LIST, |reader| reader.text(limits::NAME_BYTES))?;
        let (prev_sha256, created) = (reader.array_of_bytes()?, reader.uint()?);
        let not_after = reader.option(Reader::uint)?;
        let (label, policy_revision) = (reader.text(limits::TEXT_BYTES)?, reader.text(limits::TEXT_BYTES)?);
        let counts = reader.list(limits::LIST, |reader| {
            reader.tuple(2)?;
            Ok((reader.uint()?, reader.uint()?))
        })?;
        let rooms = reader.list(limits::ROOMS, |reader| {
            reader.tuple(5)?;
            let (room, version) = (reader.text(limits::NAME_BYTES)?, reader.text(limits::NAME_BYTES)?);
            let last_depth = reader.uint()?;
            Ok(RoomHeads {
                room,
                version,
                last_depth,
                before: read_event_ids(reader)?,
                after: read_event_ids(reader)?,
            })
        })?;
        let (record_count, merkle_root) = (reader.uint()?, reader.array_of_bytes()?);
        let acks = reader.list(limits::LIST, |reader| {
            reader.tuple(4)?;
            Ok(Ack { place: Place::read(reader)?, missing: reader.list(limits::RANGES, read_range)? })
        })?;
        let missing = reader.list(limits::ROOMS, |reader| {
            reader.tuple(2)?;
            Ok(Missing { room: reader.text(limits::NAME_BYTES)?, events: read_event_ids(reader)? })
        })?;
        let releases = reader.list(limits::LIST, |reader| {
            reader.tuple(3)?;
            let (officer, reason) = (reader.text(limits::NAME_BYTES)?, reader.text(limits::TEXT_BYTES)?);
            Ok(Release { officer, reason, signed: reader.bytes(limits::HEADER_BYTES)?.to_vec() })
        })?;
        reader.end()?;
        if record_count > limits::RECORDS {
            return Err(reader.wrong("more records than one bundle may have"));
        }
        let fields = Fields {
            place,
            id,
            kind,
            source,
            destinations,
            prev_sha256,
            created,
            not_after,
            label,
            policy_revision,
            rooms,
            acks,
            missing,
        };
        Ok(Self { fields, counts, record_count, merkle_root, releases })
    }

    /// What the cover says too must be the same.
    pub(crate) fn agrees_with(&self, cover: &Cover) -> Result<(), Error> {
        let Fields { place, id, kind, created, not_after, .. } = &self.fields;
        let pairs = [
            ("the place in the link", *place == cover.place),
            ("the bundle's id", *id == cover.id),
            ("the kind", *kind == cover.kind),
            ("the time it was made", *created == cover.created),
            ("the time it expires", *not_after == cover.not_after),
        ];
        pairs.into_iter().find(|(_, same)| !same).map_or(Ok(()), |(what, _)| Err(Error::Contradiction(what)))
    }
}

fn too_long(length: usize) -> Error {
    Error::TooMuch {
        part: Part::Header,
        what: "a length",
        found: length as u64,
        most: limits::HEADER_BYTES as u64,
    }
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, root {})", self.fields.place, self.fields.kind.name(), hex(&self.merkle_root))
    }
}
