//! Reading a bundle as it comes: from a file, from volumes, from a pipe. Nothing comes out before the signatures of cover
//! and header are verified, and no record before its hash is found among those the header's Merkle root is of.
//! What is held in memory is the header, 32 bytes for each record, and one frame.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::Range;

use sha2::{Digest as _, Sha256};

use crate::cbor;
use crate::cose::Sign1;
use crate::envelope::{self, Identity, Opener};
use crate::error::{Error, FrameFault, Part};
use crate::header::{Cover, Header, PURPOSE_COVER, PURPOSE_HEADER, Place};
use crate::index::{Frame, Index, Packing};
use crate::keys::{Hash, LinkId, PublicKey, sha256};
use crate::limits;
use crate::merkle;
use crate::record::{self, Record};
use crate::writer::MAGIC;

/// Which key signs each epoch of each link.
#[derive(Debug, Clone, Default)]
pub struct Keyring(BTreeMap<LinkId, BTreeMap<u32, PublicKey>>);

impl Keyring {
    /// Says that `key` signs `epoch` of `link`.
    pub fn add(&mut self, link: LinkId, epoch: u32, key: PublicKey) {
        self.0.entry(link).or_default().insert(epoch, key);
    }

    /// The key of an epoch of a link.
    ///
    /// # Errors
    /// If the link, or this epoch of it, is not known.
    pub fn get(&self, place: Place) -> Result<&PublicKey, Error> {
        let Place { link, epoch, .. } = place;
        let epochs = self.0.get(&link).ok_or(Error::UnknownLink(link))?;
        epochs.get(&epoch).ok_or(Error::UnknownEpoch { link, epoch })
    }
}

fn read_front(from: &mut impl Read, front: &mut [u8]) -> Result<(), Error> {
    from.read_exact(front).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::NotABundle,
        _ => Error::Io(error),
    })
}

fn verify<'a>(part: Part, signed: &Sign1<'a>, key: &PublicKey, purpose: &str) -> Result<&'a [u8], Error> {
    if signed.kid() != key.id() {
        return Err(Error::WrongKey(signed.kid()));
    }
    signed.verify(key, purpose).ok_or(Error::BadSignature(part))
}

/// Reads the cover of a bundle and verifies its signature. What follows in `from` is the sealed head and the sealed body.
///
/// # Errors
/// If it is no bundle, the link or the epoch is not known, or the signature is not by its key.
pub fn read_cover(from: &mut impl Read, keys: &Keyring) -> Result<Cover, Error> {
    let mut front = [0; 8];
    read_front(from, &mut front)?;
    let [m, f, b, version, length @ ..] = front;
    let length = u32::from_be_bytes(length) as usize;
    if [m, f, b, version] != *MAGIC {
        return Err(Error::NotABundle);
    }
    if length > limits::COVER_BYTES {
        return Err(Error::TooMuch {
            part: Part::Cover,
            what: "a length",
            found: length as u64,
            most: limits::COVER_BYTES as u64,
        });
    }
    let mut bytes = vec![0; length];
    read_front(from, &mut bytes)?;
    let malformed = |why| Error::Malformed(Part::Cover, why);
    let mut reader = cbor::Reader::new(&bytes);
    let signed = Sign1::read(&mut reader, limits::COVER_BYTES).map_err(malformed)?;
    reader.end().map_err(malformed)?;
    let key = keys.get(Cover::place(signed.unverified())?)?;
    Cover::decode(verify(Part::Cover, &signed, key, PURPOSE_COVER)?).map_err(malformed)
}

fn hash_part(from: &mut impl Read, part: Part, len: u64, sha256: &Hash) -> Result<(), Error> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; envelope::CHUNK];
    let (mut part_bytes, mut read) = (from.take(len), 0_u64);
    loop {
        let bytes = part_bytes.read(&mut buffer)?;
        if bytes == 0 {
            break;
        }
        hash.update(buffer.get(..bytes).unwrap_or_default());
        read += bytes as u64;
    }
    match part {
        _ if read < len => Err(Error::Envelope(envelope::Error::Truncated)),
        _ if <Hash>::from(hash.finalize()) != *sha256 => Err(Error::Altered(part)),
        _ => Ok(()),
    }
}

fn nothing_follows(from: &mut impl Read) -> Result<(), Error> {
    match from.take(1).read_to_end(&mut Vec::new())? {
        0 => Ok(()),
        _ => Err(Error::Trailing),
    }
}

/// Verifies a bundle without opening it: that it is whole, unaltered, and of the link it says. Only public keys are needed.
///
/// # Errors
/// As [`read_cover`], and if a byte is missing, altered or too many.
pub fn verify_sealed(mut from: impl Read, keys: &Keyring) -> Result<Cover, Error> {
    let cover = read_cover(&mut from, keys)?;
    hash_part(&mut from, Part::Head, cover.head_len, &cover.head_sha256)?;
    hash_part(&mut from, Part::Body, cover.body_len, &cover.body_sha256)?;
    nothing_follows(&mut from)?;
    Ok(cover)
}

/// A record that the link's key signed for, at its place. Only a reader makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    at: u64,
    record: Record,
}

impl Verified {
    /// Its number in the bundle, from 0.
    pub fn at(&self) -> u64 {
        self.at
    }

    pub fn record(&self) -> &Record {
        &self.record
    }

    pub fn into_record(self) -> Record {
        self.record
    }
}

/// Reads a bundle.
#[derive(Debug)]
pub struct Reader<R: Read> {
    body: Opener<io::Take<R>>,
    cover: Cover,
    header: Header,
    signed_header: Vec<u8>,
    index: Index,
    /// The next frame.
    frame: usize,
    /// Where it begins, in the packed body.
    frame_at: u64,
    /// The next record of those not unpacked yet.
    next: u64,
    /// Records of the frame in hand.
    plain: Vec<u8>,
    ranges: std::vec::IntoIter<Range<usize>>,
    skipped: u64,
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// Reads up to the body: everything but the records is verified then. `total` is how many bytes the records may have
    /// unpacked; [`limits::TOTAL_BYTES`] for example.
    ///
    /// # Errors
    /// As [`read_cover`]; if it was not sealed to any of `identities`; if header or index are altered, malformed, contradict
    /// one another or the cover, or are larger than is accepted.
    pub fn open(mut from: R, keys: &Keyring, identities: &[Identity], total: u64) -> Result<Self, Error> {
        let cover = read_cover(&mut from, keys)?;
        let head = open_head(&mut from, &cover, identities)?;
        let malformed = |part| move |why| Error::Malformed(part, why);
        let mut reader = cbor::Reader::new(&head);
        let signed = Sign1::read(&mut reader, limits::HEADER_BYTES).map_err(malformed(Part::Header))?;
        let (signed_header, index) = head.split_at(reader.at());
        if sha256(&[signed_header]) != cover.hash {
            return Err(Error::Altered(Part::Header));
        }
        let payload = verify(Part::Header, &signed, keys.get(cover.place)?, PURPOSE_HEADER)?;
        let header = Header::decode(payload).map_err(malformed(Part::Header))?;
        header.agrees_with(&cover)?;
        let index = Index::decode(index).map_err(malformed(Part::Index))?;
        index.check(header.record_count, &header.merkle_root, total)?;
        let signed_header = signed_header.to_vec();
        let body = envelope::open(from.take(cover.body_len), identities)?;
        Ok(Self {
            body,
            cover,
            header,
            signed_header,
            index,
            frame: 0,
            frame_at: 0,
            next: 0,
            plain: Vec::new(),
            ranges: Vec::new().into_iter(),
            skipped: 0,
            ended: false,
        })
    }

    pub fn cover(&self) -> &Cover {
        &self.cover
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The header as it was signed: to be kept as evidence of what the link said.
    pub fn signed_header(&self) -> &[u8] {
        &self.signed_header
    }

    /// The audit path of record `at`: with it and [`Reader::signed_header`] a single record can be proved to others.
    pub fn proof(&self, at: u64) -> Option<Vec<Hash>> {
        merkle::proof(&self.index.leaves, usize::try_from(at).ok()?)
    }

    /// Records of types that are optional and not known here.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The next record; `None` when all were read and nothing follows. After an error for which [`Error::is_local`]
    /// holds, the records behind it can be read: what is left of a damaged medium is of use.
    ///
    /// # Errors
    /// If a frame or a record was altered or cannot be understood, the bundle ends too early, or something follows it.
    pub fn next_record(&mut self) -> Result<Option<Verified>, Error> {
        loop {
            if let Some(range) = self.ranges.next() {
                let at = self.next - self.ranges.len() as u64 - 1;
                match Record::decode(self.plain.get(range).unwrap_or_default(), at)? {
                    Some(record) => return Ok(Some(Verified { at, record })),
                    None => self.skipped += 1,
                }
            } else if self.ended {
                return Ok(None);
            } else if let Some(frame) = self.index.frames.get(self.frame).copied() {
                self.next_frame(frame)?;
            } else {
                self.ended = true;
                self.body.end()?;
                nothing_follows(self.body.get_mut().get_mut())?;
            }
        }
    }

    fn next_frame(&mut self, frame: Frame) -> Result<(), Error> {
        let (first, at) = (self.next, self.frame_at);
        self.next += frame.records as u64;
        self.frame += 1;
        self.frame_at += frame.packed as u64;
        let unpacked = self.unpack(frame, at).and_then(|()| self.check(frame, first));
        unpacked.map_err(|why| match why {
            FrameFault::Envelope(envelope::Error::Truncated) => {
                self.ended = true;
                self.frame = self.index.frames.len();
                Error::Truncated { next: first, of: self.header.record_count }
            }
            FrameFault::Envelope(envelope::Error::Io(error)) => Error::Io(error),
            why => Error::Frame { records: first..=self.next - 1, why },
        })
    }

    fn unpack(&mut self, frame: Frame, at: u64) -> Result<(), FrameFault> {
        self.plain.clear();
        let mut packed = vec![0; frame.packed];
        self.body.skip_to(at).and_then(|()| self.body.read_exact(&mut packed)).map_err(
            |error| match error {
                // What is last because the rest is missing was not sealed as the last.
                envelope::Error::Damaged { .. }
                    if self.body.is_at_end() && self.body.get_mut().limit() > 0 =>
                {
                    FrameFault::Envelope(envelope::Error::Truncated)
                }
                error => FrameFault::Envelope(error),
            },
        )?;
        match frame.packing {
            Packing::Stored => self.plain = packed,
            Packing::Zstd => {
                // In one pass and into as many bytes as the index says: there is no window to be asked for.
                let plain = zstd::bulk::decompress(&packed, frame.plain);
                self.plain = plain.map_err(|_| FrameFault::Unpack)?;
            }
        }
        if self.plain.len() == frame.plain { Ok(()) } else { Err(FrameFault::Unpack) }
    }

    /// Splits the frame in hand into records, and checks each against its hash.
    fn check(&mut self, frame: Frame, first: u64) -> Result<(), FrameFault> {
        let mut reader = cbor::Reader::new(&self.plain);
        let mut ranges = Vec::with_capacity(frame.records);
        for at in (first..).take(frame.records) {
            let start = reader.at();
            record::split(&mut reader).map_err(|_| FrameFault::Records)?;
            let range = start..reader.at();
            let leaf = self.plain.get(range.clone()).map(merkle::leaf);
            let signed = usize::try_from(at).ok().and_then(|at| self.index.leaves.get(at));
            if leaf.as_ref() != signed {
                return Err(FrameFault::Hash(at));
            }
            ranges.push(range);
        }
        reader.end().map_err(|_| FrameFault::Records)?;
        self.ranges = ranges.into_iter();
        Ok(())
    }
}

/// Reads the sealed head, and opens it once it is known to be the one the cover names.
fn open_head(from: &mut impl Read, cover: &Cover, identities: &[Identity]) -> Result<Vec<u8>, Error> {
    if cover.head_len > limits::HEAD_BYTES {
        return Err(Error::TooMuch {
            part: Part::Head,
            what: "a length",
            found: cover.head_len,
            most: limits::HEAD_BYTES,
        });
    }
    let mut sealed = Vec::new();
    from.take(cover.head_len).read_to_end(&mut sealed)?;
    if (sealed.len() as u64) < cover.head_len {
        return Err(Error::Envelope(envelope::Error::Truncated));
    }
    if sha256(&[&sealed]) != cover.head_sha256 {
        return Err(Error::Altered(Part::Head));
    }
    let mut head = Vec::with_capacity(sealed.len());
    let mut opener = envelope::open(&sealed[..], identities)?;
    let mut buffer = vec![0; envelope::CHUNK];
    loop {
        match opener.read(&mut buffer)? {
            0 => return Ok(head),
            read => head.extend_from_slice(buffer.get(..read).unwrap_or_default()),
        }
    }
}
