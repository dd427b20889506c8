//! A key ceremony: the record that opens the next epoch of a link with another key. The old key signs it, and as many of
//! the link's roots as were agreed on: a stolen link key alone opens nothing, and neither do the roots behind the back
//! of the enclave.

use std::collections::HashSet;

use crate::cbor::{Malformed, Reader, Writer};
use crate::cose;
use crate::keys::{Hash, KeyId, LinkId, PublicKey, SecretKey, sha256};
use crate::limits;
use crate::link::Roots;

const PURPOSE: &str = "postern key ceremony 1";
const VERSION: u64 = 1;

/// Why an epoch is not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CeremonyError {
    #[error("the ceremony is malformed {0}")]
    Malformed(#[from] Malformed),
    #[error("the key of the epoch that ends did not sign the ceremony")]
    NotByLink,
    #[error("{found} roots signed the ceremony; it takes {wanted}")]
    TooFewRoots { found: usize, wanted: usize },
    #[error("the ceremony is of link {0}")]
    OtherLink(LinkId),
    #[error("the ceremony does not open the epoch that follows the present one")]
    OtherEpoch,
    #[error("the ceremony says that bundle {last} was the last, with another hash than is known here")]
    OtherHistory { last: u64 },
}

/// What a ceremony says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ceremony {
    pub link: LinkId,
    /// The epoch it opens.
    pub epoch: u32,
    /// The key of that epoch.
    pub key: PublicKey,
    /// The last bundle of the epoch before, 0 if there was none.
    pub last: u64,
    /// Its hash, or what the first would have continued.
    pub last_hash: Hash,
    /// When it was made, milliseconds since the epoch.
    pub created: u64,
    /// Other roots from now on, if they change.
    pub roots: Option<Roots>,
}

impl Ceremony {
    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.array(8).uint(VERSION).bytes(&self.link.0).uint(self.epoch.into()).bytes(&self.key.to_bytes());
        writer.uint(self.last).bytes(&self.last_hash).uint(self.created);
        writer.option(self.roots.as_ref(), |writer, roots| {
            writer.array(2).uint(roots.threshold as u64);
            writer.list(roots.keys.iter(), |writer, key| _ = writer.bytes(&key.to_bytes()));
        });
        writer.0
    }

    /// What is said in an encoded ceremony, which nobody may have signed.
    ///
    /// # Errors
    /// If it is malformed.
    pub fn unverified(bytes: &[u8]) -> Result<Self, CeremonyError> {
        Self::decode(read(bytes)?.unverified()).map_err(CeremonyError::Malformed)
    }

    fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        let reader = &mut reader;
        reader.tuple(8)?;
        if reader.uint()? != VERSION {
            return Err(reader.wrong("a version that is not 1"));
        }
        let (link, epoch, key) = (LinkId(reader.array_of_bytes()?), reader.uint32()?, read_key(reader)?);
        let (last, last_hash, created) = (reader.uint()?, reader.array_of_bytes()?, reader.uint()?);
        let roots = reader.option(|reader| {
            reader.tuple(2)?;
            let threshold = reader.uint()?;
            let keys = reader.list(limits::ROOTS as u64, read_key)?;
            let threshold =
                usize::try_from(threshold).ok().filter(|threshold| (1..=keys.len()).contains(threshold));
            Ok(Roots { keys, threshold: threshold.ok_or(reader.wrong("a threshold that cannot be met"))? })
        })?;
        reader.end()?;
        Ok(Self { link, epoch, key, last, last_hash, created, roots })
    }

    /// One signature: of the link's present key, or of a root. Each can be made on another machine.
    pub fn signature(&self, key: &SecretKey) -> (KeyId, [u8; 64]) {
        cose::signature(key, PURPOSE, &self.encode())
    }

    /// Puts the signatures together: the record that opens the epoch.
    pub fn signed(&self, signatures: &[(KeyId, [u8; 64])]) -> Vec<u8> {
        cose::sign(&self.encode(), signatures)
    }

    /// What was signed by `current` and at least `threshold` different keys of `roots`, and the hash that the first bundle
    /// of the epoch continues.
    pub(crate) fn verify(
        bytes: &[u8],
        current: &PublicKey,
        roots: &[PublicKey],
        threshold: usize,
    ) -> Result<(Self, Hash), CeremonyError> {
        let signed = read(bytes)?;
        let ceremony = Self::decode(signed.unverified())?;
        if !signed.signed_by(current, PURPOSE) {
            return Err(CeremonyError::NotByLink);
        }
        let signers: HashSet<_> =
            roots.iter().filter(|root| *root != current && signed.signed_by(root, PURPOSE)).collect();
        let wanted = threshold.max(1);
        if signers.len() < wanted {
            return Err(CeremonyError::TooFewRoots { found: signers.len(), wanted });
        }
        let hash = ceremony.hash();
        Ok((ceremony, hash))
    }

    /// What the first bundle of the epoch continues. It is of what the ceremony says, not of who signed: more signatures may
    /// be added to it later.
    pub fn hash(&self) -> Hash {
        sha256(&[&self.encode()])
    }
}

fn read(bytes: &[u8]) -> Result<cose::Sign<'_>, CeremonyError> {
    let mut reader = Reader::new(bytes);
    let signed = cose::Sign::read(&mut reader, limits::CEREMONY_BYTES, limits::ROOTS as u64 + 1)?;
    reader.end()?;
    Ok(signed)
}

fn read_key(reader: &mut Reader<'_>) -> Result<PublicKey, Malformed> {
    let start = reader.clone();
    PublicKey::from_bytes(&reader.array_of_bytes()?).ok_or(start.wrong("not a public key"))
}
