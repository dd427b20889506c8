//! The confidentiality of a bundle: the age format, version 1 (<https://c2sp.org/age>), with X25519 recipients only: what
//! is sealed here can be opened with age, and what age sealed is opened here. Anybody can seal: who wrote a bundle
//! is known by its signatures alone.
//!
//! Only the framing is ours. X25519 and ChaCha20-Poly1305 are those of aws-lc-rs, which the server's TLS uses too.

mod bech32;
mod stream;

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey, X25519};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::keys::{BadKey, hmac};
use crate::limits;

pub use stream::{CHUNK, Opener, Sealer, sealed_len};

const VERSION: &str = "age-encryption.org/v1";
const STANZA: &str = "-> X25519 ";
const INFO_WRAP: &[u8] = b"age-encryption.org/v1/X25519";
const MAC: &str = "---";
/// Characters of a line that is not the last one of a recipient.
const FULL_LINE: usize = 64;
/// Base 64 of 32 bytes: of a share, a wrapped key or a MAC.
const CHARACTERS: usize = 43;

/// Where secret bytes come from: the system, but for tests that need the same bytes each time.
pub type Entropy<'a> = &'a mut dyn FnMut(&mut [u8]);

/// Fills `bytes` from the system.
pub fn system_entropy(bytes: &mut [u8]) {
    rand::Rng::fill_bytes(&mut rand::rng(), bytes);
}

/// Why an envelope cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the envelope is not one of age: {0}")]
    Malformed(&'static str),
    #[error("the bundle was not sealed to any identity given here")]
    NotARecipient,
    #[error("the head of the envelope was altered")]
    Altered,
    #[error("chunk {chunk} of the sealed part was altered, or is the last one and the end was cut off")]
    Damaged { chunk: u64 },
    #[error("the sealed part ends too early")]
    Truncated,
    #[error("between 1 and {most} recipients are possible, not {0}", most = limits::RECIPIENTS)]
    Recipients(usize),
    #[error("a recipient's key, or this machine's cryptography, does not work")]
    Crypto,
}

/// Who can open: a public key, written `age1…` as age writes it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Recipient(pub [u8; 32]);

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bech32::encode("age", &self.0))
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Recipient {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        bech32::decode("age", text.trim())
            .map(Self)
            .ok_or(BadKey { expected: "an age recipient: age1 and 58 characters" })
    }
}

/// The secret that opens, written `AGE-SECRET-KEY-1…` as age writes it. Wiped from memory when dropped.
pub struct Identity(Zeroizing<[u8; 32]>);

impl Identity {
    /// A new one.
    pub fn random() -> Self {
        Self::from_bytes(rand::random())
    }

    /// From the 32 secret bytes of RFC 7748.
    pub fn from_bytes(secret: [u8; 32]) -> Self {
        Self(Zeroizing::new(secret))
    }

    /// As it stands in a file that is kept secret.
    pub fn reveal(&self) -> Zeroizing<String> {
        Zeroizing::new(Zeroizing::new(bech32::encode("age-secret-key-", &self.0)).to_uppercase())
    }

    /// Who seals to this is opened here.
    ///
    /// # Errors
    /// If this machine's cryptography does not work.
    pub fn recipient(&self) -> Result<Recipient, Error> {
        public(&private(&self.0)?)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

impl FromStr for Identity {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        let secret = bech32::decode("age-secret-key-", text.trim());
        secret
            .map(Self::from_bytes)
            .ok_or(BadKey { expected: "an age identity: AGE-SECRET-KEY-1 and 58 characters" })
    }
}

fn private(secret: &[u8; 32]) -> Result<PrivateKey, Error> {
    PrivateKey::from_private_key(&X25519, secret).map_err(|_| Error::Crypto)
}

fn public(key: &PrivateKey) -> Result<Recipient, Error> {
    let key = key.compute_public_key().map_err(|_| Error::Crypto)?;
    Ok(Recipient(key.as_ref().try_into().map_err(|_| Error::Crypto)?))
}

/// HKDF-SHA-256 (RFC 5869) with 32 bytes of output: one block.
fn hkdf<const N: usize>(secret: &[u8], salt: &[u8; N], info: &[u8]) -> Zeroizing<[u8; 32]> {
    let extracted = Zeroizing::new(<[u8; 32]>::from(hmac(salt).chain_update(secret).finalize().into_bytes()));
    Zeroizing::new(hmac(&extracted).chain_update(info).chain_update([1]).finalize().into_bytes().into())
}

fn aead(key: &[u8; 32]) -> Result<LessSafeKey, Error> {
    UnboundKey::new(&CHACHA20_POLY1305, key).map(LessSafeKey::new).map_err(|_| Error::Crypto)
}

/// The key that wraps the file's key. `share` is the sender's public key of this file, `ours` one secret and `theirs` the
/// other public key.
fn wrapping_key(
    ours: &PrivateKey,
    theirs: &Recipient,
    share: &Recipient,
    recipient: &Recipient,
) -> Result<LessSafeKey, Error> {
    agreement::agree(ours, UnparsedPublicKey::new(&X25519, &theirs.0), Error::Crypto, |secret| {
        let mut salt = [0; 64];
        salt.iter_mut().zip(share.0.iter().chain(&recipient.0)).for_each(|(to, from)| *to = *from);
        aead(&hkdf(secret, &salt, INFO_WRAP))
    })
}

fn zero_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

type FileKey = Zeroizing<[u8; 16]>;

fn head_mac(file_key: &FileKey, head: &[u8]) -> Hmac<Sha256> {
    hmac(&hkdf(&**file_key, &[], b"header")).chain_update(head)
}

/// Begins an envelope to `recipients` and writes its head to `out`.
///
/// # Errors
/// If there are no recipients, or too many, or one has no usable key; and what `out` reports.
pub fn seal<W: Write>(
    mut out: W,
    recipients: &[Recipient],
    entropy: Entropy<'_>,
) -> Result<Sealer<W>, Error> {
    if recipients.is_empty() || recipients.len() > limits::RECIPIENTS {
        return Err(Error::Recipients(recipients.len()));
    }
    let mut file_key = FileKey::default();
    entropy(&mut *file_key);
    let mut head = format!("{VERSION}\n");
    for recipient in recipients {
        let mut secret = Zeroizing::new([0; 32]);
        entropy(&mut *secret);
        let ours = private(&secret)?;
        let share = public(&ours)?;
        let mut wrapped = file_key.to_vec();
        let key = wrapping_key(&ours, recipient, &share, recipient)?;
        key.seal_in_place_append_tag(zero_nonce(), Aad::empty(), &mut wrapped).map_err(|_| Error::Crypto)?;
        head += &format!("{STANZA}{}\n{}\n", BASE64.encode(share.0), BASE64.encode(wrapped));
    }
    head += MAC;
    let mac = head_mac(&file_key, head.as_bytes()).finalize().into_bytes();
    head += &format!(" {}\n", BASE64.encode(mac));
    let mut nonce = [0; 16];
    entropy(&mut nonce);
    out.write_all(head.as_bytes())?;
    out.write_all(&nonce)?;
    Ok(Sealer::new(out, aead(&hkdf(&*file_key, &nonce, b"payload"))?))
}

/// The bytes an envelope has more than what is in it and its chunks' tags.
pub fn head_len(recipients: usize) -> u64 {
    let stanza = STANZA.len() + CHARACTERS + 1 + CHARACTERS + 1;
    (VERSION.len() + 1 + recipients * stanza + MAC.len() + 1 + CHARACTERS + 1 + 16) as u64
}

/// Opens an envelope with whichever of `identities` it was sealed to.
///
/// # Errors
/// If `from` does not begin with the head of an envelope, or it was sealed to others, or altered.
pub fn open<R: Read>(mut from: R, identities: &[Identity]) -> Result<Opener<R>, Error> {
    let head = read_head(&mut from)?;
    let ours = identities.iter().map(|identity| {
        let key = private(&identity.0)?;
        let recipient = public(&key)?;
        Ok((key, recipient))
    });
    let ours = ours.collect::<Result<Vec<_>, Error>>()?;
    let pairs = head.stanzas.iter().flat_map(|stanza| ours.iter().map(move |ours| (stanza, ours)));
    let unwrapped = pairs.filter_map(|((share, wrapped), (key, recipient))| {
        let key = wrapping_key(key, share, share, recipient).ok()?;
        let mut wrapped = Zeroizing::new(*wrapped);
        let opened = key.open_in_place(zero_nonce(), Aad::empty(), &mut *wrapped).ok()?;
        opened.try_into().ok().map(FileKey::new)
    });
    let file_key = unwrapped.take(1).next().ok_or(Error::NotARecipient)?;
    head_mac(&file_key, &head.authenticated).verify_slice(&head.mac).map_err(|_| Error::Altered)?;
    let mut nonce = [0; 16];
    from.read_exact(&mut nonce).map_err(too_early)?;
    Ok(Opener::new(from, aead(&hkdf(&*file_key, &nonce, b"payload"))?))
}

fn too_early(error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::UnexpectedEof { Error::Truncated } else { Error::Io(error) }
}

struct Head {
    /// The bytes that the MAC is of.
    authenticated: Vec<u8>,
    mac: [u8; 32],
    stanzas: Vec<(Recipient, [u8; 32])>,
}

fn read_head(from: &mut impl Read) -> Result<Head, Error> {
    let mut head = Vec::new();
    if read_line(from, &mut head)? != VERSION {
        return Err(Error::Malformed("it begins with another line"));
    }
    let mut stanzas = Vec::new();
    loop {
        let before = head.len();
        let line = read_line(from, &mut head)?;
        if let Some(share) = line.strip_prefix(STANZA) {
            if stanzas.len() == limits::RECIPIENTS {
                return Err(Error::Malformed("it has too many recipients"));
            }
            let share = Recipient(decode(share)?);
            stanzas.push((share, decode(&read_line(from, &mut head)?)?));
        } else if let Some(mac) = line.strip_prefix("--- ") {
            let mac = decode(mac)?;
            head.truncate(before + MAC.len());
            return Ok(Head { authenticated: head, mac, stanzas });
        } else if line.starts_with("-> ") {
            // A recipient of another kind, or one that age puts in so that readers do not forget to skip those. Its
            // body ends with the first line that is not full.
            while read_line(from, &mut head)?.len() == FULL_LINE {}
        } else {
            return Err(Error::Malformed("it has a line that begins no recipient"));
        }
    }
}

fn decode(text: &str) -> Result<[u8; 32], Error> {
    let bytes = BASE64.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or(Error::Malformed("what should be 32 bytes in base 64 is not"))
}

/// Reads a line into `head`, and returns it without its end.
fn read_line(from: &mut impl Read, head: &mut Vec<u8>) -> Result<String, Error> {
    let start = head.len();
    loop {
        let mut byte = [0];
        from.read_exact(&mut byte).map_err(too_early)?;
        head.extend_from_slice(&byte);
        if byte == *b"\n" {
            break;
        }
        if head.len() > limits::ENVELOPE_HEAD_BYTES {
            return Err(Error::Malformed("its head is too long"));
        }
    }
    let line = head.get(start..head.len() - 1).unwrap_or_default();
    std::str::from_utf8(line).map(str::to_owned).map_err(|_| Error::Malformed("its head is not text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Deterministic bytes: 1, 2, 3, …
    fn counting() -> impl FnMut(&mut [u8]) {
        let mut next = 0_u8;
        move |bytes: &mut [u8]| {
            bytes.iter_mut().for_each(|byte| {
                next = next.wrapping_add(1);
                *byte = next;
            });
        }
    }

    fn sealed(plain: &[u8], recipients: &[Recipient]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut sealer = seal(&mut out, recipients, &mut counting()).unwrap();
        sealer.write_all(plain).unwrap();
        sealer.finish().unwrap();
        out
    }

    fn opened(sealed: &[u8], identity: &Identity) -> Result<Vec<u8>, Error> {
        let mut opener = open(sealed, std::slice::from_ref(identity))?;
        let mut plain = Vec::new();
        let mut buffer = [0; 10_000];
        loop {
            let read = opener.read(&mut buffer)?;
            if read == 0 {
                return Ok(plain);
            }
            plain.extend_from_slice(&buffer[..read]);
        }
    }

    #[test]
    fn what_is_sealed_is_opened_by_each_recipient_and_nobody_else() {
        let identities = [1, 2].map(|seed| Identity::from_bytes([seed; 32]));
        let recipients = identities.each_ref().map(|identity| identity.recipient().unwrap());
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
            let plain: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let bytes = sealed(&plain, &recipients);
            assert_eq!(bytes.len() as u64, head_len(2) + sealed_len(length as u64));
            for identity in &identities {
                assert_eq!(opened(&bytes, identity).unwrap(), plain);
            }
            assert!(matches!(opened(&bytes, &Identity::from_bytes([3; 32])), Err(Error::NotARecipient)));
        }
    }

    #[test]
    fn any_changed_or_missing_byte_is_seen() {
        let identity = Identity::from_bytes([1; 32]);
        let bytes = sealed(b"some words", &[identity.recipient().unwrap()]);
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(opened(&changed, &identity).is_err(), "byte {at}");
            assert!(opened(&bytes[..at], &identity).is_err(), "the first {at} bytes");
        }
        assert!(opened(&[&bytes[..], b"x"].concat(), &identity).is_err());
    }

    #[test]
    fn chunks_behind_a_damaged_one_can_still_be_read() {
        let identity = Identity::from_bytes([1; 32]);
        let plain: Vec<u8> = (0..3 * CHUNK + 5).map(|at| (at / CHUNK) as u8).collect();
        let mut bytes = sealed(&plain, &[identity.recipient().unwrap()]);
        let at = head_len(1) as usize + CHUNK + 100;
        bytes[at] ^= 1;
        let mut opener = open(&bytes[..], std::slice::from_ref(&identity)).unwrap();
        let mut first = vec![9; CHUNK];
        opener.read_exact(&mut first).unwrap();
        assert_eq!(first, plain[..CHUNK]);
        assert!(matches!(opener.read(&mut [0; 10]), Err(Error::Damaged { chunk: 1 })));
        opener.skip_to(2 * CHUNK as u64 + 7).unwrap();
        let mut rest = vec![9; CHUNK - 2];
        opener.read_exact(&mut rest).unwrap();
        assert_eq!(rest, plain[2 * CHUNK + 7..]);
    }

    #[test]
    fn keys_are_written_as_age_writes_them() {
        // From the test vectors of age: the identity that its test kit uses.
        let identity: Identity =
            "AGE-SECRET-KEY-1XMWWC06LY3EE5RYTXM9MFLAZ2U56JJJ36S0MYPDRWSVLUL66MV4QX3S7F6".parse().unwrap();
        assert_eq!(
            identity.reveal().as_str(),
            "AGE-SECRET-KEY-1XMWWC06LY3EE5RYTXM9MFLAZ2U56JJJ36S0MYPDRWSVLUL66MV4QX3S7F6"
        );
        let recipient = identity.recipient().unwrap();
        assert_eq!(recipient.to_string().parse(), Ok(recipient));
    }
}
