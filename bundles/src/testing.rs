//! What the tests of this crate have in common: fixed keys, and bundles made with them.

use std::io::Write as _;

use crate::envelope::{self, Identity, Recipient};
use crate::header::{BundleId, BundleKind, Fields, Header, Place};
use crate::keys::{Hash, LinkId, SecretKey};
use crate::reader::Keyring;
use crate::record::{Kind, Record};
use crate::writer::Writer;

pub const LINK: LinkId = LinkId(*b"testlink");

pub fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

pub fn link_key() -> SecretKey {
    key(1)
}

pub fn keyring() -> Keyring {
    let mut keyring = Keyring::default();
    keyring.add(LINK, 1, link_key().public());
    keyring
}

pub fn identity() -> Identity {
    Identity::from_bytes([5; 32])
}

pub fn recipients() -> Vec<Recipient> {
    vec![identity().recipient().unwrap()]
}

pub fn fields(seq: u64) -> Fields {
    Fields {
        place: Place { link: LINK, epoch: 1, seq },
        id: BundleId([3; 16]),
        kind: BundleKind::Delta,
        source: "low.example".to_owned(),
        destinations: vec!["high.example".to_owned()],
        prev_sha256: Hash::default(),
        created: 1_700_000_000_000,
        not_after: None,
        label: r#"{"classification":"UNCLASSIFIED","policy":"US"}"#.to_owned(),
        policy_revision: "7".to_owned(),
        rooms: Vec::new(),
        acks: Vec::new(),
        missing: Vec::new(),
    }
}

/// Events that do not pack well, as signed ones do not.
pub fn records(count: u64) -> Vec<Record> {
    let record = |n: u64| {
        let noise: String =
            (0..4).map(|part| crate::hex(&crate::keys::sha256(&[&n.to_be_bytes(), &[part]]))).collect();
        Record::Plain(
            Kind::Pdu,
            format!(r#"{{"type":"m.room.message","n":{n},"content":{{"body":"{noise}"}}}}"#).into_bytes(),
        )
    };
    (0..count).map(record).collect()
}

/// A bundle and its hash.
pub fn bundle(fields: &Fields, records: &[Record]) -> (Vec<u8>, Hash) {
    let mut writer = Writer::new(Vec::new(), &recipients()).unwrap();
    records.iter().for_each(|record| writer.add(record).unwrap());
    let finished = writer.finish().unwrap().sign(fields.clone(), Vec::new(), &link_key()).unwrap();
    let hash = finished.cover.hash;
    (finished.into_bytes(), hash)
}

/// Sealed for [`identity`].
pub fn seal(plain: &[u8]) -> Vec<u8> {
    let mut sealer = envelope::seal(Vec::new(), &recipients(), &mut envelope::system_entropy).unwrap();
    sealer.write_all(plain).unwrap();
    sealer.finish().unwrap()
}

/// Bytes of a header behind its rooms when it has no acknowledgements, nothing missing and no releases, and no records.
pub const HEADER_BEHIND_ROOMS: usize = 1 + 34 + 3;

/// The payload of a header, even of one that no writer would write.
pub fn header_payload(fields: &Fields, record_count: u64, merkle_root: Hash) -> Vec<u8> {
    let header = Header {
        fields: fields.clone(),
        counts: Vec::new(),
        record_count,
        merkle_root,
        releases: Vec::new(),
    };
    header.encode()
}
