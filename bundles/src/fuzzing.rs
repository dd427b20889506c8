//! What must hold of any bytes at all. The fuzz targets call these, and tests with their seeds (see `fuzz/`).
#![allow(clippy::unwrap_used, clippy::panic)]

#[cfg(test)]
#[path = "../../fuzz/seeds.rs"]
mod seeds;

use crate::cbor;
use crate::ceremony::Ceremony;
use crate::diode;
use crate::envelope::{self, Identity};
use crate::header::{Cover, Header};
use crate::index::Index;
use crate::keys::{LinkId, SecretKey};
use crate::limits;
use crate::reader::{Keyring, Reader, verify_sealed};
use crate::record::{self, Record};
use crate::ticket::Ticket;
use crate::volumes::Joined;

/// Bytes a bundle may unpack to here.
const TOTAL: u64 = 16 << 20;

/// The link and the keys of `bundles/tests/vectors/`.
fn keys() -> (Keyring, Identity) {
    let link = LinkId([0x0f, 0x1e, 0x2d, 0x3c, 0x4b, 0x5a, 0x69, 0x78]);
    let mut keyring = Keyring::default();
    keyring.add(link, 1, SecretKey::from_seed(&[1; 32]).public());
    (keyring, Identity::from_bytes([31; 32]))
}

/// A bundle, or one of its parts, which the first byte tells, is read or refused. Parts that are signed are read as though they
/// had been: who signs may be hostile. What is read is written the same.
pub fn bundle(bytes: &[u8]) {
    let Some((part, bytes)) = bytes.split_first() else { return };
    let (keyring, identity) = keys();
    match part % 8 {
        0 => {
            _ = verify_sealed(bytes, &keyring);
            let Ok(mut reader) = Reader::open(bytes, &keyring, &[identity], TOTAL) else { return };
            // A local error is of one frame or one record, and there are only so many of them.
            for _ in 0..=reader.header().record_count * 2 {
                match reader.next_record() {
                    Ok(Some(_)) => {}
                    Err(error) if error.is_local() => {}
                    Ok(None) | Err(_) => return,
                }
            }
            panic!("reading a bundle does not end");
        }
        1 => {
            if let Ok(cover) = Cover::decode(bytes) {
                assert_eq!(cover.encode(), bytes);
            }
        }
        2 => {
            if let Ok(header) = Header::decode(bytes) {
                assert_eq!(header.encode(), bytes);
            }
        }
        3 => {
            if let Ok(index) = Index::decode(bytes) {
                assert_eq!(index.encode(), bytes);
                assert!(index.plain() >= index.leaves.len() as u64);
            }
        }
        4 => {
            let mut reader = cbor::Reader::new(bytes);
            while !reader.is_empty() && record::split(&mut reader).is_ok() {}
            if let Ok(Some(record)) = Record::decode(bytes, 0) {
                assert_eq!(record.encode().unwrap(), bytes);
            }
        }
        5 => {
            if let Ok(mut opener) = envelope::open(bytes, &[identity]) {
                while opener.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {}
            }
        }
        6 => _ = Ceremony::unverified(bytes),
        _ => {
            let volumes = bytes.chunks(bytes.len() / 3 + 1).collect();
            let mut all = Vec::new();
            _ = std::io::Read::read_to_end(&mut Joined::new(volumes), &mut all);
            assert!(all.len() <= bytes.len());
        }
    }
}

/// A ticket is read or refused; one that is read is written so that it is read the same.
pub fn ticket(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(ticket) = text.parse::<Ticket>() {
        let written = ticket.to_string();
        assert!(written.len() <= limits::TICKET_CHARS);
        assert_eq!(written.parse(), Ok(ticket.fitted()));
    }
}

/// A datagram is read or refused, and symbols of one block, authentic but of any content, make a block or none.
pub fn datagram(bytes: &[u8]) {
    diode::fuzz(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bundle_is_read_or_refused() {
        seeds::near("bundle", bundle);
    }

    #[test]
    fn any_ticket_is_read_or_refused() {
        seeds::near("ticket", ticket);
    }

    #[test]
    fn any_datagram_is_read_or_refused() {
        seeds::near("datagram", datagram);
    }
}
