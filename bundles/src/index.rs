//! The index: which frames the body has, and the hash of each record in them. With it every record is checked as soon as
//! it is read, and a reader knows all sizes before it unpacks anything.

use crate::cbor::{Malformed, Reader, Writer};
use crate::error::{Error, Part};
use crate::keys::Hash;
use crate::limits;
use crate::merkle;

/// How a frame is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// As it is.
    Stored,
    /// One Zstandard frame (RFC 8878).
    Zstd,
}

/// One frame of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    pub packing: Packing,
    /// Its length in the body, bytes.
    pub packed: usize,
    /// Its length unpacked, bytes.
    pub plain: usize,
    /// How many records are in it.
    pub records: usize,
}

/// All frames, and the hashes of all records in order.
#[derive(Debug, Clone, Default)]
pub struct Index {
    pub frames: Vec<Frame>,
    pub leaves: Vec<Hash>,
}

impl Index {
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        let mut leaves = self.leaves.iter();
        writer.list(self.frames.iter(), |writer, frame| {
            let packing = match frame.packing {
                Packing::Stored => 0,
                Packing::Zstd => 1,
            };
            let leaves: Vec<u8> = leaves.by_ref().take(frame.records).flatten().copied().collect();
            writer.array(4).uint(packing).uint(frame.packed as u64).uint(frame.plain as u64).bytes(&leaves);
        });
        writer.0
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let mut index = Self::default();
        let count = reader.array(limits::FRAMES as u64)?;
        for _ in 0..count {
            let frame = index.frame(&mut reader)?;
            index.frames.push(frame);
        }
        reader.end()?;
        Ok(index)
    }

    fn frame(&mut self, reader: &mut Reader<'_>) -> Result<Frame, Malformed> {
        let start = reader.clone();
        reader.tuple(4)?;
        let packing = match reader.uint()? {
            0 => Packing::Stored,
            1 => Packing::Zstd,
            _ => return Err(start.wrong("a packing that is not known")),
        };
        let length = |reader: &mut Reader<'_>| {
            let start = reader.clone();
            let length = reader.uint()?;
            let fits =
                usize::try_from(length).ok().filter(|length| (1..=limits::FRAME_BYTES).contains(length));
            fits.ok_or(start.wrong("a frame that is empty or too large"))
        };
        let (packed, plain) = (length(reader)?, length(reader)?);
        if packed > plain || packing == Packing::Stored && packed != plain {
            return Err(start.wrong("a frame that packing made larger"));
        }
        if plain as u64 > limits::RATIO * packed as u64 {
            return Err(start.wrong("a frame that is packed more tightly than is accepted"));
        }
        let (leaves, rest) = reader.bytes(limits::INDEX_BYTES)?.as_chunks();
        // The smallest record is the array, a type and an empty payload: three bytes.
        if leaves.is_empty() || !rest.is_empty() || leaves.len() > plain / 3 {
            return Err(start.wrong("a number of hashes that cannot be"));
        }
        if self.leaves.len() + leaves.len() > limits::RECORDS as usize {
            return Err(start.wrong("more records than one bundle may have"));
        }
        self.leaves.extend_from_slice(leaves);
        Ok(Frame { packing, packed, plain, records: leaves.len() })
    }

    /// Bytes of all frames unpacked.
    pub fn plain(&self) -> u64 {
        self.frames.iter().map(|frame| frame.plain as u64).sum()
    }

    /// The hashes must be those that the header's root is of, and there must not be more than `most` bytes to unpack.
    pub fn check(&self, record_count: u64, root: &Hash, most: u64) -> Result<(), Error> {
        let plain = self.plain();
        if plain > most {
            return Err(Error::TooMuch { part: Part::Body, what: "an unpacked length", found: plain, most });
        }
        let good = self.leaves.len() as u64 == record_count && merkle::root(&self.leaves) == *root;
        if good { Ok(()) } else { Err(Error::WrongRoot) }
    }
}
