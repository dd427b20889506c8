//! Signatures as in RFC 9052, of one algorithm (EdDSA with Ed25519) and in one form each: `COSE_Sign1` for what a link or
//! an officer signs, `COSE_Sign` for what several sign. The protected header has the algorithm and the key's id, the
//! unprotected one is empty, the payload is attached. Each use has its own external data, so that a signature for one
//! use is none for another.

use crate::cbor::{Malformed, Reader, Writer};
use crate::keys::{KeyId, PublicKey, SecretKey};

/// `{1: -8, 4: kid}`, up to the bytes of the kid.
const PROTECTED: [u8; 5] = [0xa2, 0x01, 0x27, 0x04, 0x48];
const TAG_SIGN1: &[u8] = &[0xd2];
const TAG_SIGN: &[u8] = &[0xd8, 98];
/// An empty map.
const UNPROTECTED: &[u8] = &[0xa0];

fn protected(kid: &KeyId) -> Vec<u8> {
    [&PROTECTED[..], kid].concat()
}

fn read_protected(reader: &mut Reader<'_>) -> Result<KeyId, Malformed> {
    let start = reader.clone();
    let bytes: [u8; 13] = reader.array_of_bytes()?;
    let kid = bytes.strip_prefix(&PROTECTED[..]).and_then(|kid| kid.try_into().ok());
    kid.ok_or(start.wrong("a protected header that is not {1: -8, 4: 8 bytes}"))
}

fn read_constant(reader: &mut Reader<'_>, constant: &[u8], what: &'static str) -> Result<(), Malformed> {
    let start = reader.clone();
    if reader.raw(constant.len())? == constant { Ok(()) } else { Err(start.wrong(what)) }
}

fn to_sign1(kid: &KeyId, purpose: &str, payload: &[u8]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.array(4).text("Signature1").bytes(&protected(kid)).bytes(purpose.as_bytes()).bytes(payload);
    writer.0
}

fn to_sign(kid: &KeyId, purpose: &str, payload: &[u8]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer
        .array(5)
        .text("Signature")
        .bytes(&[])
        .bytes(&protected(kid))
        .bytes(purpose.as_bytes())
        .bytes(payload);
    writer.0
}

/// A `COSE_Sign1` that was read and not verified.
#[derive(Debug, Clone)]
pub struct Sign1<'a> {
    kid: KeyId,
    payload: &'a [u8],
    signature: [u8; 64],
}

impl<'a> Sign1<'a> {
    /// Reads one whose payload is at most `most` bytes.
    pub fn read(reader: &mut Reader<'a>, most: usize) -> Result<Self, Malformed> {
        read_constant(reader, TAG_SIGN1, "not tagged as COSE_Sign1")?;
        reader.tuple(4)?;
        let kid = read_protected(reader)?;
        read_constant(reader, UNPROTECTED, "an unprotected header that is not empty")?;
        Ok(Self { kid, payload: reader.bytes(most)?, signature: reader.array_of_bytes()? })
    }

    /// Which key is said to have signed.
    pub fn kid(&self) -> KeyId {
        self.kid
    }

    /// What is said to be signed: to find the key with, no more.
    pub fn unverified(&self) -> &'a [u8] {
        self.payload
    }

    /// What was signed, if `key` signed it for `purpose`.
    pub fn verify(&self, key: &PublicKey, purpose: &str) -> Option<&'a [u8]> {
        let good = key.id() == self.kid
            && key.verifies(&to_sign1(&self.kid, purpose, self.payload), &self.signature);
        good.then_some(self.payload)
    }
}

/// Signs `payload` for `purpose`.
pub fn sign1(key: &SecretKey, purpose: &str, payload: &[u8]) -> Vec<u8> {
    let kid = key.public().id();
    let mut writer = Writer::default();
    writer.raw(TAG_SIGN1).array(4).bytes(&protected(&kid)).raw(UNPROTECTED).bytes(payload);
    writer.bytes(&key.sign(&to_sign1(&kid, purpose, payload)));
    writer.0
}

/// A `COSE_Sign` that was read and not verified.
#[derive(Debug, Clone)]
pub struct Sign<'a> {
    payload: &'a [u8],
    signatures: Vec<(KeyId, [u8; 64])>,
}

impl<'a> Sign<'a> {
    /// Reads one whose payload is at most `most` bytes and that at most `signers` signed.
    pub fn read(reader: &mut Reader<'a>, most: usize, signers: u64) -> Result<Self, Malformed> {
        read_constant(reader, TAG_SIGN, "not tagged as COSE_Sign")?;
        reader.tuple(4)?;
        reader.array_of_bytes::<0>()?;
        read_constant(reader, UNPROTECTED, "an unprotected header that is not empty")?;
        let payload = reader.bytes(most)?;
        let signatures = reader.list(signers, |reader| {
            reader.tuple(3)?;
            let kid = read_protected(reader)?;
            read_constant(reader, UNPROTECTED, "an unprotected header that is not empty")?;
            Ok((kid, reader.array_of_bytes()?))
        })?;
        Ok(Self { payload, signatures })
    }

    /// What is said to be signed.
    pub fn unverified(&self) -> &'a [u8] {
        self.payload
    }

    /// Whether `key` signed it for `purpose`.
    pub fn signed_by(&self, key: &PublicKey, purpose: &str) -> bool {
        let of_key = self.signatures.iter().filter(|(kid, _)| *kid == key.id());
        of_key.take(1).any(|(kid, signature)| key.verifies(&to_sign(kid, purpose, self.payload), signature))
    }
}

/// One signature of `payload` for `purpose`, to be put together with [`sign`].
pub fn signature(key: &SecretKey, purpose: &str, payload: &[u8]) -> (KeyId, [u8; 64]) {
    let kid = key.public().id();
    (kid, key.sign(&to_sign(&kid, purpose, payload)))
}

/// Puts together what several signed.
pub fn sign(payload: &[u8], signatures: &[(KeyId, [u8; 64])]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.raw(TAG_SIGN).array(4).bytes(&[]).raw(UNPROTECTED).bytes(payload);
    writer.list(signatures.iter(), |writer, (kid, signature)| {
        writer.array(3).bytes(&protected(kid)).raw(UNPROTECTED).bytes(signature);
    });
    writer.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use coset::TaggedCborSerializable as _;

    const PURPOSE: &str = "a purpose";

    #[test]
    fn another_implementation_reads_and_verifies_a_signature_of_one() {
        let key = SecretKey::from_seed(&[1; 32]);
        let signed = coset::CoseSign1::from_tagged_slice(&sign1(&key, PURPOSE, b"hello")).unwrap();
        assert_eq!(signed.payload.as_deref(), Some(&b"hello"[..]));
        assert_eq!(signed.protected.header.key_id, key.public().id());
        let verified = signed.verify_signature(PURPOSE.as_bytes(), |signature, message| {
            let signature: &[u8; 64] = signature.try_into().unwrap();
            key.public().verifies(message, signature).then_some(()).ok_or(())
        });
        assert_eq!(verified, Ok(()));
    }

    #[test]
    fn another_implementation_reads_and_verifies_a_signature_of_several() {
        let keys = [1, 2].map(|seed| SecretKey::from_seed(&[seed; 32]));
        let bytes = sign(b"hello", &keys.each_ref().map(|key| signature(key, PURPOSE, b"hello")));
        let signed = coset::CoseSign::from_tagged_slice(&bytes).unwrap();
        for (which, key) in keys.iter().enumerate() {
            let verified = signed.verify_signature(which, PURPOSE.as_bytes(), |signature, message| {
                let signature: &[u8; 64] = signature.try_into().unwrap();
                key.public().verifies(message, signature).then_some(()).ok_or(())
            });
            assert_eq!(verified, Ok(()));
        }
        let read = Sign::read(&mut Reader::new(&bytes), 100, 2).unwrap();
        assert!(keys.iter().all(|key| read.signed_by(&key.public(), PURPOSE)));
        assert!(!read.signed_by(&SecretKey::from_seed(&[3; 32]).public(), PURPOSE));
    }

    #[test]
    fn a_signature_for_one_purpose_is_none_for_another() {
        let key = SecretKey::from_seed(&[1; 32]);
        let bytes = sign1(&key, PURPOSE, b"hello");
        let signed = Sign1::read(&mut Reader::new(&bytes), 100).unwrap();
        assert_eq!(signed.verify(&key.public(), PURPOSE), Some(&b"hello"[..]));
        assert_eq!(signed.verify(&key.public(), "another purpose"), None);
        assert_eq!(signed.verify(&SecretKey::from_seed(&[2; 32]).public(), PURPOSE), None);
    }

    #[test]
    fn any_changed_byte_breaks_it() {
        let key = SecretKey::from_seed(&[1; 32]);
        let bytes = sign1(&key, PURPOSE, b"hello");
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let verified = Sign1::read(&mut Reader::new(&changed), 100)
                .is_ok_and(|read| read.verify(&key.public(), PURPOSE).is_some());
            assert!(!verified, "byte {at}");
        }
    }
}
