//! The files in `tests/vectors/`, which other readers can be held against (see `docs/bundle-format.md`). They were
//! written once, by the first test below; the others hold this crate against them.

use std::fs;
use std::path::PathBuf;

use crate::ceremony::Ceremony;
use crate::diode::DiodeKey;
use crate::diode::vector_datagrams;
use crate::envelope::Identity;
use crate::header::{Ack, BundleId, BundleKind, Fields, Missing, Place, RoomHeads};
use crate::index::Packing;
use crate::keys::{Hash, LinkId, SecretKey, sha256};
use crate::limits;
use crate::link::Roots;
use crate::reader::{Keyring, Reader, verify_sealed};
use crate::record::{Kind, Media, MediaPiece, Record};
use crate::ticket::{RoomDigest, Ticket};
use crate::writer::Writer;

const LINK: LinkId = LinkId([0x0f, 0x1e, 0x2d, 0x3c, 0x4b, 0x5a, 0x69, 0x78]);

/// Keys are made of one byte, repeated: 1 is the link's, 2 its next one, 11 to 13 its roots, 21 an officer's, 31 the
/// identity and 41 the diode's secret.
fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn identity() -> Identity {
    Identity::from_bytes([31; 32])
}

/// What would be random is SHA-256 of `postern vector` and a counter (32 bits, from 0), one hash after the other.
fn entropy() -> impl FnMut(&mut [u8]) {
    let (mut counter, mut held) = (0_u32, Vec::new());
    move |bytes: &mut [u8]| {
        for byte in bytes {
            if held.is_empty() {
                held = sha256(&[b"postern vector", &counter.to_be_bytes()]).to_vec();
                held.reverse();
                counter += 1;
            }
            *byte = held.pop().unwrap();
        }
    }
}

fn file() -> Vec<u8> {
    (0..1_000_u32).map(|at| (at * 7 % 251) as u8).collect()
}

fn records() -> Vec<Record> {
    let plain = |kind, text: &str| Record::Plain(kind, text.as_bytes().to_vec());
    let sha256 = sha256(&[&file()]);
    vec![
        plain(
            Kind::Key,
            r#"{"old_verify_keys":{},"server_name":"low.example","valid_until_ts":1700600000000,"verify_keys":{}}"#,
        ),
        plain(
            Kind::AuthPdu,
            r#"{"content":{"room_version":"12"},"depth":1,"sender":"@alice:low.example","type":"m.room.create"}"#,
        ),
        plain(Kind::StateSnapshot, r#"{"event_id":"$b","state":["$a"]}"#),
        plain(
            Kind::Pdu,
            r#"{"content":{"body":"grüße","msgtype":"m.text"},"depth":2,"sender":"@alice:low.example","type":"m.room.message"}"#,
        ),
        plain(Kind::Edu, r#"{"content":{},"edu_type":"m.direct_to_device","origin":"low.example"}"#),
        Record::Media(Media {
            sha256,
            len: 1_000,
            mxc: "mxc://low.example/abc".to_owned(),
            content_type: Some("image/png".to_owned()),
            file_name: None,
        }),
        Record::MediaPiece(MediaPiece { sha256, offset: 0, bytes: file()[..600].to_vec() }),
        Record::MediaPiece(MediaPiece { sha256, offset: 600, bytes: file()[600..].to_vec() }),
        plain(Kind::DeviceKeys, "{}"),
        plain(Kind::OneTimeKeys, "{}"),
        plain(Kind::Policy, "{}"),
        plain(Kind::Request, "{}"),
        plain(Kind::Note, "a note"),
    ]
}

fn fields() -> Fields {
    Fields {
        place: Place { link: LINK, epoch: 1, seq: 42 },
        id: BundleId([0x01, 0x8b, 0xcf, 0xe5, 0x68, 0x00, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        kind: BundleKind::Delta,
        source: "low.example".to_owned(),
        destinations: vec!["high.example".to_owned(), "other.example".to_owned()],
        prev_sha256: [0xaa; 32],
        created: 1_700_000_000_000,
        not_after: Some(1_702_592_000_000),
        label: r#"{"classification":"RESTRICTED","policy":"example"}"#.to_owned(),
        policy_revision: "17".to_owned(),
        rooms: vec![RoomHeads {
            room: "!room".to_owned(),
            version: "12".to_owned(),
            last_depth: 2,
            before: vec!["$head-before".to_owned()],
            after: vec!["$head-after".to_owned()],
        }],
        acks: vec![Ack {
            place: Place { link: LinkId([0x88; 8]), epoch: 2, seq: 900 },
            missing: vec![7..=7, 10..=300],
        }],
        missing: vec![Missing { room: "!room".to_owned(), events: vec!["$not-here".to_owned()] }],
    }
}

fn bundle(packing: Packing) -> Vec<u8> {
    let entropy = &mut entropy();
    let mut writer = Writer::with(Vec::new(), &[identity().recipient().unwrap()], packing, entropy).unwrap();
    records().iter().for_each(|record| writer.add(record).unwrap());
    let staged = writer.finish().unwrap();
    let release = staged.statement(&fields()).release("@officer:low.example", "for the exercise", &key(21));
    staged.sign_with(fields(), vec![release], &key(1), entropy).unwrap().into_bytes()
}

fn ceremony() -> Ceremony {
    let roots = Roots { keys: [12, 13].map(|seed| key(seed).public()).to_vec(), threshold: 1 };
    Ceremony {
        link: LINK,
        epoch: 2,
        key: key(2).public(),
        last: 42,
        last_hash: [0xbb; 32],
        created: 1_700_000_000_000,
        roots: Some(roots),
    }
}

fn signed_ceremony() -> Vec<u8> {
    let signatures = [1, 11, 13].map(|seed| ceremony().signature(&key(seed)));
    ceremony().signed(&signatures)
}

fn ticket() -> Ticket {
    let rooms = vec![RoomDigest::of("!room", ["$b", "$a"])];
    Ticket { link: LINK, epoch: 1, last: 1_000, missing: vec![5..=5, 17..=20, 900..=999], exact: true, rooms }
}

/// Symbol 0, and the first one that is not of the block itself, of bundle 42 with the 1,000 bytes of [`file`].
fn datagrams() -> [Vec<u8>; 2] {
    vector_datagrams(&DiodeKey::from_bytes([41; 32]), fields().place, &file())
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name)
}

fn vector(name: &str) -> Vec<u8> {
    fs::read(path(name)).unwrap()
}

fn keyring() -> Keyring {
    let mut keyring = Keyring::default();
    keyring.add(LINK, 1, key(1).public());
    keyring
}

#[test]
#[ignore = "writes the vectors that are not there"]
fn write() {
    let [first, repair] = datagrams();
    let files = [
        ("stored.mfb", bundle(Packing::Stored)),
        ("packed.mfb", bundle(Packing::Zstd)),
        ("ceremony.cbor", signed_ceremony()),
        ("ticket.txt", ticket().to_string().into_bytes()),
        ("datagram-source.bin", first),
        ("datagram-repair.bin", repair),
    ];
    for (name, bytes) in files.into_iter().filter(|(name, _)| !path(name).exists()) {
        fs::write(path(name), bytes).unwrap();
    }
}

#[test]
fn bundles_are_read_as_they_were_written_once() {
    for name in ["stored.mfb", "packed.mfb"] {
        let bytes = vector(name);
        let mut reader = Reader::open(&bytes[..], &keyring(), &[identity()], limits::TOTAL_BYTES).unwrap();
        assert_eq!(reader.header().fields, fields());
        let [release] = &reader.header().releases[..] else { panic!("one release") };
        assert!(release.is_by(&key(21).public(), &reader.header().statement()));
        for record in records() {
            assert_eq!(reader.next_record().unwrap().unwrap().into_record(), record);
        }
        assert_eq!(reader.next_record().unwrap(), None);
        assert_eq!(verify_sealed(&bytes[..], &keyring()).unwrap().place, fields().place);
    }
}

#[test]
fn a_bundle_is_written_as_it_was_written_once() {
    // How Zstandard packs may change; everything else may not.
    assert!(bundle(Packing::Stored) == vector("stored.mfb"));
}

#[test]
fn the_other_vectors_are_what_they_were_once() {
    assert!(signed_ceremony() == vector("ceremony.cbor"));
    let roots: Vec<_> = [11, 12, 13].map(|seed| key(seed).public()).to_vec();
    let (read, hash) = Ceremony::verify(&vector("ceremony.cbor"), &key(1).public(), &roots, 2).unwrap();
    assert_eq!((read, hash), (ceremony(), ceremony().hash()));
    let text = String::from_utf8(vector("ticket.txt")).unwrap();
    assert_eq!((text.parse(), ticket().to_string()), (Ok(ticket()), text));
    assert!(datagrams() == [vector("datagram-source.bin"), vector("datagram-repair.bin")]);
}

#[test]
fn what_age_sealed_is_opened() {
    let sealed = vector("sealed-by-age.bin");
    let mut opener = crate::envelope::open(&sealed[..], &[identity()]).unwrap();
    let mut plain = Vec::new();
    std::io::Read::read_to_end(&mut opener, &mut plain).unwrap();
    assert!(plain == (0..65_600_u32).map(|at| (at * 7 % 251) as u8).collect::<Vec<_>>());
    assert_eq!(String::from_utf8(vector("identity.txt")).unwrap().trim(), identity().reveal().as_str());
}

#[test]
fn hashes_in_the_documentation_are_these() {
    let cover = verify_sealed(&vector("stored.mfb")[..], &keyring()).unwrap();
    let documentation =
        fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/bundle-format.md"))
            .unwrap();
    let said = |hash: &Hash| documentation.contains(&crate::hex(hash));
    assert!(said(&cover.hash), "{}", crate::hex(&cover.hash));
    assert!(said(&ceremony().hash()), "{}", crate::hex(&ceremony().hash()));
    for seed in [1, 2, 11, 12, 13, 21] {
        assert!(documentation.contains(&key(seed).public().to_string()), "{seed}: {}", key(seed).public());
    }
    assert!(
        documentation.contains(&identity().recipient().unwrap().to_string()),
        "{}",
        identity().recipient().unwrap()
    );
    assert!(documentation.contains(&ticket().to_string()), "{}", ticket());
    assert!(documentation.contains(&LINK.to_string()), "{LINK}");
}
