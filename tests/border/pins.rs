//! Servers whose certificates have to have a certain key.

use crate::enclaves::{Enclave, Peer, document, join_by};
use base64::{Engine, prelude::BASE64_STANDARD as BASE64};
use postern_world::{Client, Seat};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::json;

/// A line that says which keys a server may have.
fn pinned(seats: &[&Seat]) -> String {
    let digests = seats.iter().map(|seat| {
        let certificate = CertificateDer::from_pem_file(&seat.certificate).unwrap();
        let digest = postern_federation::key_digest(&certificate).unwrap();
        format!("sha256//{}", BASE64.encode(digest))
    });
    format!("tls_pins = {:?}", digests.collect::<Vec<_>>())
}

/// An enclave that shows its certificate to another, whose key it knows.
fn shown(seat: &Seat, other: &Seat) -> Enclave {
    let files = [("certificate", &seat.certificate), ("key", &seat.key)];
    let files =
        files.map(|(what, path)| (format!("federation.client_{what}_file"), path.display().to_string()));
    let files = files.each_ref().map(|(key, value)| (key.as_str(), value.as_str()));
    let peers = [Peer(other, "Company INTERNAL", &pinned(&[other]))];
    Enclave::start_with(seat, "Company INTERNAL", &peers, "", &files)
}

/// Why a server was refused by its key, as the records say.
fn refused(officer: &Client) -> Vec<String> {
    let refusals = officer.get("/_postern/border/refusals").ok();
    let all = refusals["refusals"].as_array().unwrap();
    let by_key = all.iter().filter(|one| one["action"] == "tls_pin");
    by_key.map(|one| one["why"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_server_with_another_key_than_it_has_to_have_is_told_nothing_and_heard_in_nothing() {
    let (here, there, other) = (Seat::take(), Seat::take(), Seat::take());
    let (high, low) = (shown(&here, &there), shown(&there, &here));
    let pins = |pins: &str| {
        high.write(
            "border.toml",
            &document("Company INTERNAL", &[Peer(&there, "Company INTERNAL", pins)], ""),
        );
        high.reread()
    };
    let officer = high.server.anyone().register_by_secret("officer", true);
    let (alice, bob) = (high.register("alice"), low.register("bob"));
    let room = alice.create_room(json!({ "preset": "private_chat", "invite": [bob.id()] }));
    join_by(&bob, &room, &high.server);
    let (heard, said) = (bob.now(), alice.send_text(&room, "over there"));
    bob.sync_until_event(&heard, &room, &said);
    let (heard, said) = (alice.now(), bob.send_text(&room, "over here"));
    alice.sync_until_event(&heard, &room, &said);
    assert_eq!(refused(&officer), [""; 0]);

    pins(&pinned(&[&other]));
    let profile = format!("/_matrix/client/v3/profile/{}", bob.id_in_path());
    assert_ne!(alice.get(&profile).status(), 200);
    let unheard = bob.send_text(&room, "who is this?");
    let mut why = refused(&officer);
    for _ in 0..600 {
        if why.len() == 2 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
        why = refused(&officer);
    }
    assert!(why.iter().any(|why| why.contains("has another public key than it has to have")), "{why:?}");
    assert!(why.iter().any(|why| why == "its certificate has another public key"), "{why:?}");
    assert_eq!(alice.event(&room, &unheard).status(), 404);
    assert!(high.server.log().contains("a server is not the one it has to be"));

    // Either of two will do, so that a key can be changed.
    pins(&pinned(&[&other, &there]));
    alice.get(&profile).done();
    let log = pins("tls_pins = [\"abc\"]");
    assert!(log.contains("tls_pins") && log.contains("is no SHA-256 digest in base64"), "{log}");
}

#[test]
fn a_server_that_shows_no_certificate_is_not_taken_for_one_that_has_to() {
    let (here, there) = (Seat::take(), Seat::take());
    let high = shown(&here, &there);
    let low = Enclave::start(&there, "Company INTERNAL", &[Peer(&here, "Company INTERNAL", "")], "");
    let officer = high.server.anyone().register_by_secret("officer", true);
    let (alice, bob) = (high.register("alice"), low.register("bob"));
    assert_ne!(bob.get(&format!("/_matrix/client/v3/profile/{}", alice.id_in_path())).status(), 200);
    assert_eq!(refused(&officer), ["it showed no certificate"]);
}
