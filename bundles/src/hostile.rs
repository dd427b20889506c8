//! Bundles that nobody should accept (attack 52, as far as the format goes), and some that are hard to accept. All are signed
//! with the right key unless it says otherwise: the other side of a link may be hostile too.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::cbor::Writer as Cbor;
use crate::cose;
use crate::envelope::{self, Identity};
use crate::error::{Error, FrameFault, Part};
use crate::header::{Cover, Header, PURPOSE_HEADER, RoomHeads};
use crate::keys::{Hash, sha256};
use crate::limits;
use crate::merkle;
use crate::reader::{Reader, Verified, verify_sealed};
use crate::record::{Kind, Media, OPTIONAL, Record};
use crate::testing::{self, LINK, fields, identity, keyring, link_key, recipients, records, seal};
use crate::writer::{MAGIC, Writer};
use crate::{Keyring, LinkId, Place};

fn open(bytes: &[u8]) -> Result<Reader<&[u8]>, Error> {
    Reader::open(bytes, &keyring(), &[identity()], limits::TOTAL_BYTES)
}

/// All records, in strict reading: the first error ends it.
fn read(bytes: &[u8]) -> Result<Vec<Record>, Error> {
    let mut reader = open(bytes)?;
    let mut records = Vec::new();
    while let Some(verified) = reader.next_record()? {
        records.push(verified.into_record());
    }
    Ok(records)
}

/// What can be read of a damaged bundle, and whether the end was reached.
fn salvage(bytes: &[u8]) -> (Vec<Verified>, Vec<Error>) {
    let (mut good, mut errors) = (Vec::new(), Vec::new());
    let mut reader = match open(bytes) {
        Ok(reader) => reader,
        Err(error) => return (good, vec![error]),
    };
    loop {
        match reader.next_record() {
            Ok(Some(verified)) => good.push(verified),
            Ok(None) => return (good, errors),
            Err(error) => {
                let local = error.is_local();
                errors.push(error);
                if !local {
                    return (good, errors);
                }
            }
        }
    }
}

/// A signed bundle of parts that need not fit together.
fn crafted(header: &[u8], index: &[u8], body: &[u8]) -> Vec<u8> {
    let signed = cose::sign1(&link_key(), PURPOSE_HEADER, header);
    let (head, body) = (seal(&[&signed, index].concat()), seal(body));
    let good = Header::decode(&testing::header_payload(&fields(1), 0, Hash::default())).unwrap().fields;
    let cover = Cover {
        place: good.place,
        id: good.id,
        kind: good.kind,
        created: good.created,
        not_after: good.not_after,
        hash: sha256(&[&signed]),
        head_len: head.len() as u64,
        head_sha256: sha256(&[&head]),
        body_len: body.len() as u64,
        body_sha256: sha256(&[&body]),
    };
    let cover = cover.sign(&link_key());
    [&MAGIC[..], &(cover.len() as u32).to_be_bytes(), &cover, &head, &body].concat()
}

/// One whose records are `encoded`, in one frame that is stored.
fn of_encoded(encoded: &[Vec<u8>]) -> Vec<u8> {
    let leaves: Vec<_> = encoded.iter().map(|record| merkle::leaf(record)).collect();
    let body = encoded.concat();
    let header = testing::header_payload(&fields(1), encoded.len() as u64, merkle::root(&leaves));
    crafted(&header, &index_of(0, body.len(), body.len(), &leaves), &body)
}

fn index_of(packing: u64, packed: usize, plain: usize, leaves: &[Hash]) -> Vec<u8> {
    let mut index = Cbor::default();
    index.array(1).array(4).uint(packing).uint(packed as u64).uint(plain as u64).bytes(&leaves.concat());
    index.0
}

fn encoded(kind: u64, payload: &[u8]) -> Vec<u8> {
    let mut writer = Cbor::default();
    writer.array(2).uint(kind).bytes(payload);
    writer.0
}

#[test]
fn what_is_written_is_read() {
    let (bytes, hash) = testing::bundle(&fields(1), &records(500));
    let mut reader = open(&bytes).unwrap();
    assert_eq!(reader.cover().hash, hash);
    assert_eq!(sha256(&[reader.signed_header()]), hash);
    assert_eq!(reader.header().fields, fields(1));
    assert_eq!(reader.header().count(Kind::Pdu), 500);
    for (at, record) in records(500).into_iter().enumerate() {
        let verified = reader.next_record().unwrap().unwrap();
        assert_eq!((verified.at(), verified.record()), (at as u64, &record));
        let leaf = merkle::leaf(&record.encode().unwrap());
        let header = reader.header();
        assert!(merkle::proves(
            &header.merkle_root,
            header.record_count,
            at as u64,
            leaf,
            &reader.proof(at as u64).unwrap()
        ));
    }
    assert_eq!(reader.next_record().unwrap(), None);
    assert_eq!(verify_sealed(&bytes[..], &keyring()).unwrap(), *reader.cover());
}

#[test]
fn an_empty_bundle_is_read() {
    let (bytes, _) = testing::bundle(&fields(1), &[]);
    assert_eq!(read(&bytes).unwrap(), []);
}

#[test]
fn media_travel_once_however_often_they_are_named() {
    let file: Vec<u8> = (0..1_500_000_u32).map(|at| (at.wrapping_mul(at) >> 7) as u8).collect();
    let media = |mxc: &str| Media {
        sha256: sha256(&[&file]),
        len: file.len() as u64,
        mxc: mxc.to_owned(),
        content_type: Some("image/png".to_owned()),
        file_name: None,
    };
    let mut writer = Writer::new(Vec::new(), &recipients()).unwrap();
    writer.add_media(&media("mxc://a/1"), &file[..]).unwrap();
    writer.add_media(&media("mxc://a/2"), &file[..]).unwrap();
    let staged = writer.finish().unwrap();
    assert_eq!((staged.count(Kind::Media), staged.count(Kind::MediaPiece)), (2, 3));
    let bytes = staged.sign(fields(1), Vec::new(), &link_key()).unwrap().into_bytes();
    let mut whole = Vec::new();
    for record in read(&bytes).unwrap() {
        if let Record::MediaPiece(piece) = record {
            assert_eq!(piece.offset, whole.len() as u64);
            whole.extend(piece.bytes);
        }
    }
    assert_eq!(whole, file);
}

#[test]
fn a_file_that_is_not_what_it_is_said_to_be_is_not_exported() {
    let media =
        Media { sha256: [1; 32], len: 3, mxc: "mxc://a/1".to_owned(), content_type: None, file_name: None };
    let mut writer = Writer::new(Vec::new(), &recipients()).unwrap();
    assert!(matches!(writer.add_media(&media, &b"abc"[..]), Err(Error::Media("another SHA-256"))));
    let mut writer = Writer::new(Vec::new(), &recipients()).unwrap();
    assert!(matches!(writer.add_media(&media, &b"abcd"[..]), Err(Error::Media("another length"))));
}

#[test]
fn a_changed_bit_anywhere_is_refused() {
    let (bytes, _) = testing::bundle(&fields(1), &records(20));
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        assert!(read(&changed).is_err(), "byte {at}");
        assert!(verify_sealed(&changed[..], &keyring()).is_err(), "byte {at}");
    }
}

#[test]
fn a_bundle_cut_off_anywhere_is_refused_and_what_was_read_is_good() {
    let all = records(3_000);
    let (bytes, _) = testing::bundle(&fields(1), &all);
    let mut most = 0;
    for at in (0..bytes.len()).step_by(bytes.len() / 97).chain([bytes.len() - 1]) {
        let (good, errors) = salvage(&bytes[..at]);
        assert!(!errors.is_empty(), "the first {at} bytes");
        assert!(good.iter().all(|verified| *verified.record() == all[verified.at() as usize]));
        assert!(good.len() >= most, "more of the bundle is more records");
        most = good.len();
    }
    assert!(most > 1_000, "most of a bundle is of use without its end");
    assert!(matches!(salvage(&bytes[..bytes.len() - 1]).1[..], [Error::Truncated { of: 3_000, .. }]));
}

#[test]
fn what_lies_behind_a_damaged_place_is_still_read() {
    let all = records(6_000);
    let (bytes, _) = testing::bundle(&fields(1), &all);
    let mut damaged = bytes.clone();
    let cover = verify_sealed(&bytes[..], &keyring()).unwrap();
    let body = bytes.len() - cover.body_len as usize;
    damaged[body + cover.body_len as usize / 2] ^= 1;
    let (good, errors) = salvage(&damaged);
    let [Error::Frame { records, why: FrameFault::Envelope(_) }] = &errors[..] else { panic!("{errors:?}") };
    assert!(*records.start() > 0 && *records.end() < 5_999);
    let expected: Vec<u64> = (0..6_000).filter(|at| !records.contains(at)).collect();
    assert_eq!(good.iter().map(Verified::at).collect::<Vec<_>>(), expected);
    assert!(good.iter().all(|verified| *verified.record() == all[verified.at() as usize]));
}

#[test]
fn something_behind_the_end_is_refused() {
    let (mut bytes, _) = testing::bundle(&fields(1), &records(5));
    bytes.push(0);
    assert!(matches!(read(&bytes), Err(Error::Trailing)));
    assert!(matches!(verify_sealed(&bytes[..], &keyring()), Err(Error::Trailing)));
}

#[test]
fn records_in_another_order_are_refused() {
    let (one, two) = (encoded(4, b"{\"a\":1}"), encoded(4, b"{\"b\":2}"));
    let leaves = [merkle::leaf(&one), merkle::leaf(&two)];
    let body = [&two[..], &one].concat();
    let header = testing::header_payload(&fields(1), 2, merkle::root(&leaves));
    let bytes = crafted(&header, &index_of(0, body.len(), body.len(), &leaves), &body);
    assert!(matches!(read(&bytes), Err(Error::Frame { why: FrameFault::Hash(0), .. })));
    // Nor does an index in that order help: its root is another one.
    let leaves = [leaves[1], leaves[0]];
    let bytes = crafted(&header, &index_of(0, body.len(), body.len(), &leaves), &body);
    assert!(matches!(read(&bytes), Err(Error::WrongRoot)));
}

#[test]
fn a_frame_with_other_records_than_the_index_says_is_refused() {
    let (one, two) = (encoded(4, b"{\"a\":1}"), encoded(4, b"{\"b\":2}"));
    let leaves = [merkle::leaf(&one)];
    let header = testing::header_payload(&fields(1), 1, merkle::root(&leaves));
    let body = [&one[..], &two].concat();
    let bytes = crafted(&header, &index_of(0, body.len(), body.len(), &leaves), &body);
    assert!(matches!(read(&bytes), Err(Error::Frame { why: FrameFault::Records, .. })));
    let leaves = [merkle::leaf(b"\xff\xff\xff\xff")];
    let header = testing::header_payload(&fields(1), 1, merkle::root(&leaves));
    let bytes = crafted(&header, &index_of(0, 4, 4, &leaves), b"\xff\xff\xff\xff");
    assert!(matches!(read(&bytes), Err(Error::Frame { why: FrameFault::Records, .. })));
}

#[test]
fn an_optional_record_of_an_unknown_type_is_skipped_and_any_other_is_refused() {
    let note = encoded(OPTIONAL, b"a note");
    let bytes = of_encoded(&[encoded(OPTIONAL + 99, b"?"), note.clone(), encoded(4, b"{}")]);
    let mut reader = open(&bytes).unwrap();
    let first = reader.next_record().unwrap().unwrap();
    assert_eq!((first.at(), first.into_record()), (1, Record::Plain(Kind::Note, b"a note".to_vec())));
    assert_eq!(reader.next_record().unwrap().unwrap().at(), 2);
    assert_eq!(reader.next_record().unwrap(), None);
    assert_eq!(reader.skipped(), 1);
    let bytes = of_encoded(&[note, encoded(OPTIONAL - 1, b"?")]);
    assert!(matches!(read(&bytes), Err(Error::UnknownRecord { at: 1, kind: 127 })));
}

#[test]
fn a_record_that_is_not_what_its_type_says_is_refused() {
    for payload in [&b""[..], b"\x85", b"\x83\x58\x20"] {
        for kind in [Kind::Media, Kind::MediaPiece] {
            let bytes = of_encoded(&[encoded(kind.code(), payload)]);
            assert!(matches!(read(&bytes), Err(Error::Malformed(Part::Record, _))));
        }
    }
}

#[test]
fn only_those_it_is_sealed_to_open_it() {
    let (bytes, _) = testing::bundle(&fields(1), &records(5));
    let other = Reader::open(&bytes[..], &keyring(), &[Identity::from_bytes([99; 32])], limits::TOTAL_BYTES);
    assert!(matches!(other, Err(Error::Envelope(envelope::Error::NotARecipient))));
    let none = Reader::open(&bytes[..], &keyring(), &[], limits::TOTAL_BYTES);
    assert!(matches!(none, Err(Error::Envelope(envelope::Error::NotARecipient))));
}

#[test]
fn an_old_or_unknown_key_signs_nothing() {
    let (bytes, _) = testing::bundle(&fields(1), &records(5));
    let open =
        |keys: &Keyring| Reader::open(&bytes[..], keys, &[identity()], limits::TOTAL_BYTES).map(|_| ());
    let mut none = Keyring::default();
    assert!(matches!(open(&none), Err(Error::UnknownLink(LINK))));
    none.add(LINK, 2, link_key().public());
    assert!(matches!(open(&none), Err(Error::UnknownEpoch { link: LINK, epoch: 1 })));
    let mut rolled = Keyring::default();
    rolled.add(LINK, 1, testing::key(50).public());
    assert!(matches!(open(&rolled), Err(Error::WrongKey(kid)) if kid == link_key().public().id()));
    // The key of epoch 1 is not one of epoch 2, nor one of another link.
    for place in [Place { epoch: 2, ..fields(1).place }, Place { link: LinkId([9; 8]), ..fields(1).place }] {
        let (bytes, _) = testing::bundle(&crate::Fields { place, ..fields(1) }, &records(1));
        let mut keys = keyring();
        keys.add(place.link, place.epoch, testing::key(50).public());
        assert!(matches!(
            Reader::open(&bytes[..], &keys, &[identity()], limits::TOTAL_BYTES),
            Err(Error::WrongKey(_))
        ));
    }
}

#[test]
fn a_signature_of_another_key_under_the_right_keys_name_is_refused() {
    let (bytes, _) = testing::bundle(&fields(1), &records(1));
    let length = u32::from_be_bytes(bytes[4..8].try_into().unwrap()) as usize;
    let mut forged = bytes.clone();
    forged[8 + length - 64..8 + length].copy_from_slice(&[1; 64]);
    assert!(matches!(read(&forged), Err(Error::BadSignature(Part::Cover))));
}

#[test]
fn cover_and_header_must_say_the_same() {
    let place = Place { seq: 2, ..fields(1).place };
    let header = testing::header_payload(&crate::Fields { place, ..fields(1) }, 0, merkle::root(&[]));
    assert!(matches!(read(&crafted(&header, &[0x80], &[])), Err(Error::Contradiction(_))));
}

/// A frame of zeros packs far beyond what is accepted; its sizes are told truly.
fn bomb() -> Vec<u8> {
    let record = encoded(4, &vec![0; 900_000]);
    let packed = zstd::bulk::compress(&record, 19).unwrap();
    let leaves = [merkle::leaf(&record)];
    let header = testing::header_payload(&fields(1), 1, merkle::root(&leaves));
    crafted(&header, &index_of(1, packed.len(), record.len(), &leaves), &packed)
}

/// The same as a file, for tests of the whole program.
const BOMB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/bomb.mfb");

#[test]
#[ignore = "writes the file if it is not there"]
fn write_bomb() {
    if !std::path::Path::new(BOMB).exists() {
        std::fs::write(BOMB, bomb()).unwrap();
    }
}

#[test]
fn a_zip_bomb_is_refused_before_it_is_unpacked() {
    for bytes in [bomb(), std::fs::read(BOMB).unwrap()] {
        assert!(matches!(read(&bytes), Err(Error::Malformed(Part::Index, _))));
    }
    let record = encoded(4, &vec![0; 900_000]);
    let packed = zstd::bulk::compress(&record, 19).unwrap();
    let leaves = [merkle::leaf(&record)];
    let header = testing::header_payload(&fields(1), 1, merkle::root(&leaves));
    // Or falsely: then it does not unpack to that.
    let bytes = crafted(&header, &index_of(1, packed.len(), packed.len() * 40, &leaves), &packed);
    assert!(matches!(read(&bytes), Err(Error::Frame { why: FrameFault::Unpack, .. })));
    // A thousand frames may be of sizes that are each accepted, and too much together.
    let mut index = Cbor::default();
    let leaves = vec![[0; 32]; 1_000];
    index.array(1_000);
    for leaf in &leaves {
        index
            .array(4)
            .uint(1)
            .uint(limits::FRAME_BYTES as u64 / 50 + 1)
            .uint(limits::FRAME_BYTES as u64)
            .bytes(leaf);
    }
    let header = testing::header_payload(&fields(1), 1_000, merkle::root(&leaves));
    let bytes = crafted(&header, &index.0, &[]);
    let started = Instant::now();
    let limited = Reader::open(&bytes[..], &keyring(), &[identity()], 100 << 20);
    assert!(matches!(limited, Err(Error::TooMuch { part: Part::Body, most, .. }) if most == 100 << 20));
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_million_rooms_in_the_header_are_refused_at_once() {
    let payload = testing::header_payload(&fields(1), 0, merkle::root(&[]));
    let room = RoomHeads {
        room: "!a:b".to_owned(),
        version: "12".to_owned(),
        last_depth: 1,
        before: vec![],
        after: vec![],
    };
    let many = |count: usize| crate::Fields { rooms: vec![room.clone(); count], ..fields(1) };
    // The writer refuses to say so.
    let staged = Writer::new(Vec::new(), &recipients()).unwrap().finish().unwrap();
    assert!(matches!(
        staged.sign(many(10_001), Vec::new(), &link_key()),
        Err(Error::Malformed(Part::Header, _))
    ));
    // A hostile one does not: in a header that is too long, and in one that only claims to have so many.
    let long = testing::header_payload(&many(1_000_000), 0, merkle::root(&[]));
    let rooms_at = payload.len() - testing::HEADER_BEHIND_ROOMS - 1;
    let mut claim = Cbor(payload[..rooms_at].to_vec());
    claim.array(1_000_000).raw(&payload[rooms_at + 1..]);
    for header in [&long, &claim.0] {
        let bytes = crafted(header, &[0x80], &[]);
        let started = Instant::now();
        assert!(matches!(read(&bytes), Err(Error::Malformed(Part::Header, _))));
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn lengths_that_are_too_great_are_refused_without_memory_for_them() {
    let cover = [&MAGIC[..], &u32::MAX.to_be_bytes()].concat();
    assert!(matches!(read(&cover), Err(Error::TooMuch { part: Part::Cover, .. })));
    let mut index = Cbor::default();
    index.array(limits::FRAMES + 1);
    let header = testing::header_payload(&fields(1), 0, merkle::root(&[]));
    assert!(matches!(read(&crafted(&header, &index.0, &[])), Err(Error::Malformed(Part::Index, _))));
    let header = testing::header_payload(&fields(1), limits::RECORDS + 1, merkle::root(&[]));
    assert!(matches!(read(&crafted(&header, &[0x80], &[])), Err(Error::Malformed(Part::Header, _))));
}

#[test]
fn a_record_that_is_too_large_is_not_written() {
    let mut writer = Writer::new(Vec::new(), &recipients()).unwrap();
    let record = Record::Plain(Kind::Pdu, vec![0; limits::RECORD_BYTES]);
    assert!(matches!(writer.add(&record), Err(Error::RecordTooLarge(_))));
    writer.add(&Record::Plain(Kind::Pdu, vec![0; limits::RECORD_BYTES - 8])).unwrap();
    let bytes = writer.finish().unwrap().sign(fields(1), Vec::new(), &link_key()).unwrap().into_bytes();
    assert_eq!(read(&bytes).unwrap().len(), 1);
}

#[test]
fn a_release_is_for_one_bundle_and_of_one_officer() {
    let officer = testing::key(60);
    let mut writer = Writer::new(Vec::new(), &recipients()).unwrap();
    records(3).iter().for_each(|record| writer.add(record).unwrap());
    let staged = writer.finish().unwrap();
    let release = staged.statement(&fields(1)).release("@officer:a", "exercise is over", &officer);
    let bytes = staged.sign(fields(1), vec![release], &link_key()).unwrap().into_bytes();
    let reader = open(&bytes).unwrap();
    let [release] = &reader.header().releases[..] else { panic!("one release") };
    let statement = reader.header().statement();
    assert_eq!((release.officer.as_str(), release.reason.as_str()), ("@officer:a", "exercise is over"));
    assert!(release.is_by(&officer.public(), &statement));
    assert!(!release.is_by(&testing::key(61).public(), &statement));
    assert!(
        !release.is_by(&officer.public(), &crate::Statement { label: "{}".to_owned(), ..statement.clone() })
    );
    let mut other = release.clone();
    other.reason = "another reason".to_owned();
    assert!(!other.is_by(&officer.public(), &statement));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn several_changed_bytes_yield_nothing_that_was_not_signed(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), 1..=255_u8), 1..6),
        cut in any::<Option<proptest::sample::Index>>(),
    ) {
        let all = records(40);
        let (mut bytes, _) = testing::bundle(&fields(1), &all);
        for (at, change) in changes {
            let at = at.index(bytes.len());
            bytes[at] ^= change;
        }
        bytes.truncate(cut.map_or(bytes.len(), |cut| cut.index(bytes.len())));
        let (good, _) = salvage(&bytes);
        prop_assert!(good.iter().all(|verified| *verified.record() == all[verified.at() as usize]));
    }
}
