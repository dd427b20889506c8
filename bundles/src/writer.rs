//! Writing a bundle in two steps. First the records, as they come: they are packed and sealed and go to a file at once,
//! so nothing secret is ever on disk in the clear. Then what depends on all of them: the header with their
//! Merkle root, which an officer may have to release first, and the cover.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};

use crate::cbor::Writer as Cbor;
use crate::envelope::{self, Entropy, Recipient, Sealer};
use crate::error::{Error, Part};
use crate::header::{Cover, Fields, Header, Release, Statement};
use crate::index::{Frame, Index, Packing};
use crate::keys::{Hash, SecretKey, sha256};
use crate::limits;
use crate::merkle::{self, Tree};
use crate::record::{Kind, Media, MediaPiece, Record};

/// The first bytes of a bundle.
pub const MAGIC: &[u8; 4] = b"MFB1";
const LEVEL: i32 = 3;

/// Counts and hashes what goes through it.
#[derive(Debug)]
struct Hashing<W> {
    out: W,
    hash: Sha256,
    len: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hash.update(bytes.get(..written).unwrap_or_default());
        self.len += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Takes the records of a bundle. They are imported in the order they are added: keys, then events that authorize,
/// then state, then timelines in topological order.
#[derive(Debug)]
pub struct Writer<W: Write> {
    body: Sealer<Hashing<W>>,
    recipients: Vec<Recipient>,
    packing: Packing,
    frame: Vec<u8>,
    frame_records: usize,
    index: Index,
    tree: Tree,
    counts: BTreeMap<u64, u64>,
    media: HashSet<Hash>,
}

impl<W: Write> Writer<W> {
    /// Begins a bundle that `recipients` can open, and writes its sealed body to `out`.
    ///
    /// # Errors
    /// If there are no recipients, or too many, or one's key is unusable; and what `out` reports.
    pub fn new(out: W, recipients: &[Recipient]) -> Result<Self, Error> {
        Self::with(out, recipients, Packing::Zstd, &mut envelope::system_entropy)
    }

    /// The same with a choice of packing, and of where secret bytes come from.
    pub(crate) fn with(
        out: W,
        recipients: &[Recipient],
        packing: Packing,
        entropy: Entropy<'_>,
    ) -> Result<Self, Error> {
        let hashing = Hashing { out, hash: Sha256::new(), len: 0 };
        Ok(Self {
            body: envelope::seal(hashing, recipients, entropy)?,
            recipients: recipients.to_vec(),
            packing,
            frame: Vec::with_capacity(limits::FRAME_BYTES),
            frame_records: 0,
            index: Index::default(),
            tree: Tree::default(),
            counts: BTreeMap::new(),
            media: HashSet::new(),
        })
    }

    /// Adds a record.
    ///
    /// # Errors
    /// If it is too large, or the bundle is full (finish it, and begin the next), and what writing reports.
    pub fn add(&mut self, record: &Record) -> Result<(), Error> {
        let encoded = record.encode()?;
        let count = self.tree.leaves() + 1;
        if count > limits::RECORDS {
            return Err(Error::TooMuch {
                part: Part::Body,
                what: "a number of records",
                found: count,
                most: limits::RECORDS,
            });
        }
        let full = self.frame.len() + encoded.len() > limits::FRAME_BYTES;
        if full || self.frame.len() >= limits::FRAME_TARGET {
            self.end_frame()?;
        }
        let leaf = merkle::leaf(&encoded);
        self.tree.add(leaf);
        self.index.leaves.push(leaf);
        self.frame.extend_from_slice(&encoded);
        self.frame_records += 1;
        *self.counts.entry(record.kind().code()).or_default() += 1;
        Ok(())
    }

    /// Adds a file: its description, and its bytes unless they are in this bundle already.
    ///
    /// # Errors
    /// As [`Writer::add`], what `file` reports, and if it is not what `media` says; then this bundle is spoilt.
    pub fn add_media(&mut self, media: &Media, mut file: impl Read) -> Result<(), Error> {
        self.add(&Record::Media(media.clone()))?;
        if !self.media.insert(media.sha256) {
            return Ok(());
        }
        let (mut hash, mut offset) = (Sha256::new(), 0);
        loop {
            let mut bytes = Vec::new();
            (&mut file).take(limits::PIECE_BYTES as u64).read_to_end(&mut bytes)?;
            if bytes.is_empty() {
                break;
            }
            hash.update(&bytes);
            let read = bytes.len() as u64;
            self.add(&Record::MediaPiece(MediaPiece { sha256: media.sha256, offset, bytes }))?;
            offset += read;
        }
        if offset != media.len {
            return Err(Error::Media("another length"));
        }
        if <Hash>::from(hash.finalize()) != media.sha256 {
            return Err(Error::Media("another SHA-256"));
        }
        Ok(())
    }

    /// How many records there are so far.
    pub fn records(&self) -> u64 {
        self.tree.leaves()
    }

    /// How long the body is so far, bytes, without the frame in hand.
    pub fn written(&self) -> u64 {
        self.index.frames.iter().map(|frame| frame.packed as u64).sum()
    }

    fn end_frame(&mut self) -> Result<(), Error> {
        if self.frame.is_empty() {
            return Ok(());
        }
        let packed = match self.packing {
            Packing::Stored => None,
            Packing::Zstd => Some(zstd::bulk::compress(&self.frame, LEVEL)?),
        };
        let plain = self.frame.len();
        // What hardly packs is stored, and so is what packs too well: no reader accepts it.
        let useful = packed
            .filter(|packed| packed.len() < plain && plain as u64 <= limits::RATIO * packed.len() as u64);
        let (packing, bytes) = match &useful {
            Some(packed) => (Packing::Zstd, packed),
            None => (Packing::Stored, &self.frame),
        };
        self.body.write_all(bytes)?;
        self.index.frames.push(Frame { packing, packed: bytes.len(), plain, records: self.frame_records });
        self.frame.clear();
        self.frame_records = 0;
        Ok(())
    }

    /// No more records follow.
    ///
    /// # Errors
    /// What writing reports.
    pub fn finish(mut self) -> Result<Staged<W>, Error> {
        self.end_frame()?;
        let body = self.body.finish()?;
        Ok(Staged {
            body: body.out,
            body_len: body.len,
            body_sha256: body.hash.finalize().into(),
            recipients: self.recipients,
            index: self.index,
            merkle_root: self.tree.root(),
            counts: self.counts.into_iter().collect(),
        })
    }
}

/// All records of a bundle, sealed; what is said of them is still to come.
#[derive(Debug)]
pub struct Staged<W> {
    body: W,
    body_len: u64,
    body_sha256: Hash,
    recipients: Vec<Recipient>,
    index: Index,
    merkle_root: Hash,
    counts: Vec<(u64, u64)>,
}

impl<W> Staged<W> {
    /// How many records there are.
    pub fn records(&self) -> u64 {
        self.index.leaves.len() as u64
    }

    /// How many records of `kind` there are.
    pub fn count(&self, kind: Kind) -> u64 {
        self.counts.iter().find(|(code, _)| *code == kind.code()).map_or(0, |(_, count)| *count)
    }

    /// What an officer signs to release this with `fields`.
    pub fn statement(&self, fields: &Fields) -> Statement {
        Statement {
            place: fields.place,
            id: fields.id,
            destinations: fields.destinations.clone(),
            label: fields.label.clone(),
            merkle_root: self.merkle_root,
        }
    }

    /// Signs header and cover.
    ///
    /// # Errors
    /// If a field is longer or has more items than a reader accepts.
    pub fn sign(self, fields: Fields, releases: Vec<Release>, key: &SecretKey) -> Result<Finished<W>, Error> {
        self.sign_with(fields, releases, key, &mut envelope::system_entropy)
    }

    pub(crate) fn sign_with(
        self,
        fields: Fields,
        releases: Vec<Release>,
        key: &SecretKey,
        entropy: Entropy<'_>,
    ) -> Result<Finished<W>, Error> {
        let record_count = self.records();
        let header =
            Header { fields, counts: self.counts, record_count, merkle_root: self.merkle_root, releases };
        let signed = header.sign(key)?;
        let hash = sha256(&[&signed]);
        let mut sealer = envelope::seal(Vec::new(), &self.recipients, entropy)?;
        sealer.write_all(&signed)?;
        sealer.write_all(&self.index.encode())?;
        let head = sealer.finish()?;
        let Fields { place, id, kind, created, not_after, .. } = header.fields;
        let cover = Cover {
            place,
            id,
            kind,
            created,
            not_after,
            hash,
            head_len: head.len() as u64,
            head_sha256: sha256(&[&head]),
            body_len: self.body_len,
            body_sha256: self.body_sha256,
        };
        let signed = cover.sign(key);
        let mut front = Cbor(MAGIC.to_vec());
        front.raw(&u32::try_from(signed.len()).unwrap_or(u32::MAX).to_be_bytes()).raw(&signed).raw(&head);
        Ok(Finished { front: front.0, cover, header, body: self.body })
    }
}

/// A finished bundle: what stands in front of the body, and the body.
#[derive(Debug)]
pub struct Finished<W> {
    /// Magic, cover and head.
    pub front: Vec<u8>,
    pub cover: Cover,
    pub header: Header,
    /// What the body was written to, [`Cover::body_len`] bytes.
    pub body: W,
}

impl Finished<Vec<u8>> {
    /// The whole bundle, when its body is in memory.
    pub fn into_bytes(self) -> Vec<u8> {
        [self.front, self.body].concat()
    }
}
