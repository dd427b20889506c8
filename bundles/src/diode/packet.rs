//! A datagram: a header of 32 bytes, a symbol, and a tag of 16 bytes over both.
//!
//! | bytes | what |
//! | --- | --- |
//! | 0 | version, 1 |
//! | 1–3 | number of the symbol (ESI) |
//! | 4–11 | link |
//! | 12–15 | epoch |
//! | 16–23 | sequence number |
//! | 24–25 | source symbols of the block (k); 0 in an announcement |
//! | 26–27 | number of the block |
//! | 28–31 | CRC-32 of the bytes before |
//!
//! All numbers are big-endian. The CRC only tells noise from what is worth authenticating. An announcement has no
//! symbol: it says that the link has come as far as this bundle.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::header::Place;
use crate::keys::{BadKey, Hash, LinkId, hmac};
use crate::limits;

/// Bytes of the header.
pub const HEADER: usize = 32;
/// Bytes of the tag: HMAC-SHA-256, of which the first half is sent.
pub const TAG: usize = 16;
const VERSION: u8 = 1;
const SECRET: &str = "postern-diode-secret:";
const PURPOSE: &[u8] = b"postern diode datagram 1";

/// The secret that both ends of a diode share, wiped from memory when dropped.
pub struct DiodeKey(Zeroizing<[u8; 32]>);

impl DiodeKey {
    /// A new one.
    pub fn random() -> Self {
        Self::from_bytes(rand::random())
    }

    /// From 32 secret bytes.
    pub fn from_bytes(secret: [u8; 32]) -> Self {
        Self(Zeroizing::new(secret))
    }

    /// As it stands in a file that is kept secret.
    pub fn reveal(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{SECRET}{}", BASE64.encode(*self.0)))
    }

    /// The key of one epoch of one link.
    pub(super) fn of(&self, link: LinkId, epoch: u32) -> Authenticator {
        let derived =
            hmac(&self.0).chain_update(PURPOSE).chain_update(link.0).chain_update(epoch.to_be_bytes());
        Authenticator(hmac(&Hash::from(derived.finalize().into_bytes())))
    }
}

impl fmt::Debug for DiodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DiodeKey")
    }
}

impl FromStr for DiodeKey {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        let bytes =
            text.trim().strip_prefix(SECRET).and_then(|key| BASE64.decode(key).ok()).map(Zeroizing::new);
        let secret = bytes.and_then(|bytes| bytes.as_slice().try_into().ok());
        secret.map(Self::from_bytes).ok_or(BadKey {
            expected: "a diode's secret: postern-diode-secret: and 43 characters of base 64",
        })
    }
}

/// Makes and checks tags.
#[derive(Clone)]
pub(super) struct Authenticator(Hmac<Sha256>);

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authenticator")
    }
}

/// Why a datagram is dropped. None of it changes anything at the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    #[error("too short, too long, of another version, or damaged")]
    NotOurs,
    #[error("of a link this receiver has no secret of")]
    UnknownLink,
    #[error("not authentic")]
    Forged,
    #[error("a block or a bundle of a size that is not accepted")]
    Size,
    #[error("it contradicts what came of the same block or bundle before")]
    Contradiction,
}

/// The header of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    pub place: Place,
    pub block: u16,
    /// The number of the symbol: below 2^24.
    pub esi: u32,
    /// Source symbols of the block; 0 in an announcement.
    pub k: u16,
}

impl Packet {
    /// That the link has come as far as `place`.
    pub(super) fn announcement(place: Place) -> Self {
        Self { place, block: 0, esi: 0, k: 0 }
    }

    pub(super) fn is_announcement(&self) -> bool {
        self.k == 0
    }

    fn header(&self) -> Vec<u8> {
        let mut header = Vec::with_capacity(HEADER);
        header.extend_from_slice(&(u32::from(VERSION) << 24 | self.esi & 0xff_ffff).to_be_bytes());
        header.extend_from_slice(&self.place.link.0);
        header.extend_from_slice(&self.place.epoch.to_be_bytes());
        header.extend_from_slice(&self.place.seq.to_be_bytes());
        header.extend_from_slice(&self.k.to_be_bytes());
        header.extend_from_slice(&self.block.to_be_bytes());
        let crc = crc32fast::hash(&header);
        header.extend_from_slice(&crc.to_be_bytes());
        header
    }

    /// The datagram of a symbol.
    pub(super) fn encode(&self, symbol: &[u8], key: &Authenticator) -> Vec<u8> {
        let mut datagram = self.header();
        datagram.extend_from_slice(symbol);
        let tag = key.0.clone().chain_update(&datagram).finalize().into_bytes();
        datagram.extend_from_slice(&tag[..TAG]);
        datagram
    }

    /// Reads a header without authenticating anything.
    pub(super) fn read(datagram: &[u8]) -> Result<Self, Refused> {
        let (header, rest) = datagram.split_first_chunk::<HEADER>().ok_or(Refused::NotOurs)?;
        if rest.len() < TAG || datagram.len() > limits::DATAGRAM_BYTES {
            return Err(Refused::NotOurs);
        }
        let [version, e0, e1, e2, link @ .., a, b, c, d] = *header;
        let (link, rest) = link.split_first_chunk::<8>().ok_or(Refused::NotOurs)?;
        let (epoch, rest) = rest.split_first_chunk::<4>().ok_or(Refused::NotOurs)?;
        let (seq, rest) = rest.split_first_chunk::<8>().ok_or(Refused::NotOurs)?;
        let (k, rest) = rest.split_first_chunk::<2>().ok_or(Refused::NotOurs)?;
        let block = rest.first_chunk::<2>().ok_or(Refused::NotOurs)?;
        let crc = header.get(..HEADER - 4).map(crc32fast::hash);
        if version != VERSION || crc != Some(u32::from_be_bytes([a, b, c, d])) {
            return Err(Refused::NotOurs);
        }
        let place =
            Place { link: LinkId(*link), epoch: u32::from_be_bytes(*epoch), seq: u64::from_be_bytes(*seq) };
        if place.epoch == 0 || place.seq == 0 {
            return Err(Refused::NotOurs);
        }
        Ok(Self {
            place,
            block: u16::from_be_bytes(*block),
            esi: u32::from_be_bytes([0, e0, e1, e2]),
            k: u16::from_be_bytes(*k),
        })
    }

    /// The symbol of a datagram, if it is authentic.
    pub(super) fn open<'a>(datagram: &'a [u8], key: &Authenticator) -> Result<&'a [u8], Refused> {
        let (authenticated, tag) = datagram.split_last_chunk::<TAG>().ok_or(Refused::NotOurs)?;
        key.0.clone().chain_update(authenticated).verify_truncated_left(tag).map_err(|_| Refused::Forged)?;
        authenticated.get(HEADER..).ok_or(Refused::NotOurs)
    }
}
