//! Bundles that are damaged, forged, late, early, or told twice. Each is refused with its reason, and nothing is lost.

use crate::{
    enclaves::{Pair, Says, good},
    sharing::bodies,
};
use postern_bundles::{
    BundleId, BundleKind, Fields, Hash, Kind, LinkId, Place, Recipient, Record, SecretKey,
    command::LinkFile,
    spool::{Name, Spool},
};
use postern_world::Client;
use serde_json::{Value, json};
use std::{fs, path::Path};

/// Two people in one room, with nothing under way.
fn talking() -> (Pair, Client, Client, String) {
    let pair = Pair::new();
    let (alice, bob) = (pair.a.register("alice"), pair.b.register("bob"));
    let room = pair.shared_room(&alice, &bob, json!({ "preset": "private_chat" }));
    (pair, alice, bob, room)
}

/// The one reason why something was refused.
#[track_caller]
fn why(import: &Value) -> String {
    let refused = import["refused"].as_array().unwrap();
    assert_eq!(refused.len(), 1, "{import:#}");
    assert_eq!(import["bundles"], json!([]), "{import:#}");
    refused[0]["why"].as_str().unwrap().to_owned()
}

#[test]
fn attack_52_a_damaged_bundle_is_refused_and_its_good_copy_is_taken() {
    let (pair, alice, bob, room) = talking();
    alice.send_text(&room, "whole");
    pair.a.export();
    let file = pair.files("ab").pop().unwrap();
    let bytes = fs::read(&file).unwrap();
    for at in [0, 20, 300, bytes.len() / 2, bytes.len() - 1] {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        fs::write(&file, flipped).unwrap();
        let import = pair.b.import();
        assert!(!why(&import).is_empty());
        assert!(!file.exists(), "it is set aside");
    }
    for length in [0, 3, 100, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&file, &bytes[..length]).unwrap();
        why(&pair.b.import());
    }
    fs::write(&file, [&bytes[..], b"more"].concat()).unwrap();
    assert!(why(&pair.b.import()).contains("follows"));
    // A good bundle under another one's name.
    let place = file.file_name().unwrap().to_str().unwrap().parse::<Name>().unwrap().place;
    let other = file.with_file_name(Name { place: Place { seq: 99, ..place }, volume: None }.to_string());
    fs::write(&other, &bytes).unwrap();
    assert!(why(&pair.b.import()).contains("named"));
    assert_eq!(bodies(&bob, &room), [""; 0]);
    fs::write(&file, &bytes).unwrap();
    good(pair.b.import());
    assert_eq!(bodies(&bob, &room), ["whole"]);
}

#[test]
fn attack_52_bundles_in_another_order_wait_and_a_repeated_one_does_nothing() {
    let (pair, alice, bob, room) = talking();
    let mut carried = Vec::new();
    for n in 1..=3 {
        alice.send_text(&room, &format!("message {n}"));
        pair.a.export();
        let file = pair.files("ab").pop().unwrap();
        carried.push((file.clone(), fs::read(&file).unwrap()));
        fs::remove_file(file).unwrap();
    }
    let lay = |n: usize| fs::write(&carried[n].0, &carried[n].1).unwrap();
    lay(2);
    let import = pair.b.import();
    assert_eq!(
        (&import["bundles"], import["waiting"].as_array().unwrap().len()),
        (&json!([]), 1),
        "{import:#}"
    );
    assert!(import["ticket"].is_string());
    // What waits is safe, whatever becomes of the medium.
    fs::remove_file(&carried[2].0).unwrap();
    pair.b.server.restart();
    lay(0);
    assert_eq!(pair.b.import()["bundles"].as_array().unwrap().len(), 1);
    assert_eq!(bodies(&bob, &room), ["message 1"]);
    lay(1);
    let import = pair.b.import();
    assert_eq!(import["bundles"].as_array().unwrap().len(), 2, "{import:#}");
    assert_eq!(bodies(&bob, &room), ["message 1", "message 2", "message 3"]);
    for n in 0..3 {
        lay(n);
    }
    let again = good(pair.b.import());
    assert_eq!(again["bundles"], json!([]));
    assert_eq!(bodies(&bob, &room), ["message 1", "message 2", "message 3"]);
}

/// What somebody has who has the files of an enclave.
struct Forger {
    key: SecretKey,
    link: LinkFile,
    to: Recipient,
}

impl Forger {
    fn of(pair: &Pair) -> Self {
        let read = |name: &str| fs::read_to_string(pair.a.path(name)).unwrap();
        let document = read("border.toml");
        let to = document.split('"').find(|word| word.starts_with("age1")).unwrap().parse().unwrap();
        Self {
            key: read("ab.link.secret").parse().unwrap(),
            link: serde_json::from_str(&read("ab.link.json")).unwrap(),
            to,
        }
    }

    fn fields(&self, seq: u64, prev: Hash) -> Fields {
        Fields {
            place: Place { link: self.link.link, epoch: 1, seq },
            id: BundleId::random(1_800_000_000_000),
            kind: BundleKind::Delta,
            source: "a.example".to_owned(),
            destinations: vec!["b.example".to_owned()],
            prev_sha256: prev,
            created: 1_800_000_000_000,
            not_after: None,
            label: String::new(),
            policy_revision: String::new(),
            rooms: Vec::new(),
            acks: Vec::new(),
            missing: Vec::new(),
        }
    }

    fn put(&self, directory: &Path, fields: Fields, records: &[Record], to: Recipient, key: &SecretKey) {
        let mut outgoing = Spool::new(directory).unwrap().begin(&[to]).unwrap();
        records.iter().for_each(|record| outgoing.add(record).unwrap());
        outgoing.finish().unwrap().publish(fields, Vec::new(), key, None).unwrap();
    }
}

fn last(pair: &Pair) -> (u64, Hash) {
    let file = pair.files("ab").pop().unwrap();
    let place = file.file_name().unwrap().to_str().unwrap().parse::<Name>().unwrap().place;
    let mut keyring = postern_bundles::Keyring::default();
    let link: LinkFile =
        serde_json::from_str(&fs::read_to_string(pair.a.path("ab.link.json")).unwrap()).unwrap();
    keyring.add(link.link, 1, link.key);
    let cover = postern_bundles::read_cover(&mut fs::File::open(&file).unwrap(), &keyring).unwrap();
    (place.seq, cover.hash)
}

#[test]
fn attack_52_what_is_signed_but_not_for_this_enclave_is_refused() {
    let (pair, alice, bob, room) = talking();
    let forger = Forger::of(&pair);
    let (seq, hash) = last(&pair);
    let into = pair.media.path().join("ab");
    let note = [Record::Plain(Kind::Note, b"hello".to_vec())];
    let stranger = postern_bundles::Identity::random().recipient().unwrap();
    let fields = || forger.fields(seq + 1, hash);
    let refused = |fields: Fields, to: Recipient, key: &SecretKey| {
        forger.put(&into, fields, &note, to, key);
        why(&pair.b.import())
    };
    assert!(refused(fields(), stranger, &forger.key).contains("not sealed to any identity"));
    assert!(refused(fields(), forger.to, &SecretKey::random()).contains("key"));
    let elsewhere = Fields { destinations: vec!["c.example".to_owned()], ..fields() };
    assert!(refused(elsewhere, forger.to, &forger.key).contains("c.example"));
    let posing = Fields { source: "c.example".to_owned(), ..fields() };
    assert!(refused(posing, forger.to, &forger.key).contains("c.example"));
    let next_epoch = Fields { place: Place { epoch: 2, ..fields().place }, ..fields() };
    assert!(refused(next_epoch, forger.to, &forger.key).contains("epoch 2"));
    let above = Fields { label: "Company SECRET".to_owned(), ..fields() };
    assert!(refused(above, forger.to, &forger.key).contains("above"));
    // None of it stands in the way of what is good.
    alice.send_text(&room, "good");
    good(pair.to_b());
    assert_eq!(bodies(&bob, &room), ["good"]);
}

#[test]
fn attack_52_records_that_are_not_what_they_should_be_take_nothing_else_with_them() {
    let (pair, alice, bob, room) = talking();
    let forger = Forger::of(&pair);
    let (seq, hash) = last(&pair);
    let plain = |kind: Kind, json: Value| Record::Plain(kind, json.to_string().into_bytes());
    let forged = json!({ "type": "m.room.message", "room_id": room, "sender": alice.id(), "content": { "body": "forged" },
        "prev_events": [], "auth_events": [], "depth": 1, "origin_server_ts": 1, "hashes": { "sha256": "x" }, "signatures": {} });
    let message = json!({ "edu_type": "m.direct_to_device", "content": { "sender": "@eve:c.example", "type": "m.x",
        "message_id": "1", "messages": { bob.id(): { "*": { "body": "smuggled" } } } } });
    let keys = json!({ "device_keys": { "@eve:c.example": { "D": {} } } });
    let since = bob.now();
    let records = [
        Record::Plain(Kind::Pdu, b"{".to_vec()),
        plain(Kind::Pdu, json!({ "type": 1 })),
        plain(Kind::Pdu, forged.clone()),
        plain(Kind::AuthPdu, forged),
        plain(Kind::StateSnapshot, json!({ "room_id": "!none:a", "event_id": "$x", "state_ids": ["$y"] })),
        plain(Kind::Key, json!({ "server_name": "c.example" })),
        plain(Kind::Edu, message),
        plain(Kind::DeviceKeys, keys),
        plain(Kind::OneTimeKeys, json!([])),
        plain(
            Kind::Request,
            json!({ "type": "m.invite", "room_id": room, "room_version": "12", "event": {} }),
        ),
        plain(Kind::Note, json!("a note")),
    ];
    forger.put(&pair.media.path().join("ab"), forger.fields(seq + 1, hash), &records, forger.to, &forger.key);
    let import = pair.b.import();
    let refused = import["bundles"][0]["taken"]["refused"].as_array().unwrap();
    assert!(refused.len() >= 6, "{import:#}");
    assert_eq!(bodies(&bob, &room), [""; 0]);
    assert!(!bob.sync(Some(&since)).to_string().contains("smuggled"));
    assert_eq!(pair.b.done(&["links"])["links"][0]["in"]["imported"], seq + 1);
}

#[test]
fn attack_52_two_bundles_for_one_place_freeze_the_link() {
    let (pair, alice, bob, room) = talking();
    let forger = Forger::of(&pair);
    let (seq, hash) = last(&pair);
    alice.send_text(&room, "first");
    good(pair.to_b());
    let into = pair.media.path().join("ab");
    fs::remove_file(pair.files("ab").pop().unwrap()).unwrap();
    let note = [Record::Plain(Kind::Note, b"another".to_vec())];
    forger.put(&into, forger.fields(seq + 1, hash), &note, forger.to, &forger.key);
    let import = pair.b.import();
    assert!(why(&import).contains("frozen") && import["frozen"].is_string(), "{import:#}");
    alice.send_text(&room, "second");
    pair.a.export();
    pair.b.server.restart();
    assert!(why(&pair.b.import()).contains("frozen"));
    assert_eq!(bodies(&bob, &room), ["first"]);
}

#[test]
fn attack_52_an_expired_bundle_takes_the_administrators_word() {
    let of_a = Says { out_lines: "expires_days = 0", ..Says::default() };
    let pair = Pair::saying(&of_a, &Says::default());
    let (alice, bob) = (pair.a.register("alice"), pair.b.register("bob"));
    let room = alice.create_room(json!({ "preset": "private_chat", "invite": [bob.id()] }));
    pair.a.export();
    let import = pair.b.import();
    assert!(why(&import).contains("not to be imported after"), "{import:#}");
    good(pair.b.done(&["import", "courier", "--expired"]));
    bob.join(&room);
}

#[test]
fn attack_52_a_zip_bomb_is_refused_and_costs_nothing() {
    let pair = Pair::new();
    // The bomb is signed and sealed with keys that everybody has.
    let link =
        LinkFile { link: LinkId(*b"testlink"), epoch: 1, key: SecretKey::from_seed(&[1; 32]).public() };
    fs::write(pair.b.path("ab.link.json"), serde_json::to_string(&link).unwrap()).unwrap();
    let identity = postern_bundles::Identity::from_bytes([5; 32]);
    fs::write(pair.b.path("own.identity.secret"), identity.reveal().as_str()).unwrap();
    let into = pair.media.path().join("ab");
    fs::create_dir_all(&into).unwrap();
    let bomb = concat!(env!("CARGO_MANIFEST_DIR"), "/bundles/tests/vectors/bomb.mfb");
    let name = Name { place: Place { link: link.link, epoch: 1, seq: 1 }, volume: None };
    fs::copy(bomb, into.join(name.to_string())).unwrap();
    assert!(why(&pair.b.import()).contains("packed more tightly"));
}

#[test]
fn only_administrators_export_and_import() {
    let pair = Pair::new();
    let bob = pair.b.register("bob");
    let body = json!({ "link": "courier" });
    for path in ["export", "import"] {
        let path = format!("/_postern/bundles/{path}");
        bob.post(&path, body.clone()).refused(403, "M_FORBIDDEN");
        pair.b.server.anyone().post(&path, body.clone()).refused(401, "M_MISSING_TOKEN");
    }
    pair.b.admin.post("/_postern/bundles/export", json!({ "link": "none" })).refused(404, "M_NOT_FOUND");
}
