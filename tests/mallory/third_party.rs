//! Invites by e-mail, of which an identity server signed who is meant.

use crate::{Mallory, Scene, server_with, shared, until};
use postern_world::{Answer, Link, Method, enc};
use ruma::signatures::Ed25519KeyPair;
use serde_json::{Value, json};

const IDENTITY_SERVER: &str = "identity.test";

/// What the identity server says when an address turns out to be this user's.
fn signed(pair: &Ed25519KeyPair, user: &str, token: &str) -> Value {
    let mut said = serde_json::from_value(json!({ "mxid": user, "token": token })).unwrap();
    ruma::signatures::sign_json(IDENTITY_SERVER, pair, &mut said).unwrap();
    serde_json::to_value(said).unwrap()
}

#[test]
fn attack_16_what_an_identity_server_signed_for_one_user_invites_no_other_and_nobody_once_it_is_taken_back() {
    let (here, mallory) = (shared(), Mallory::new());
    let alice = here.register("alice");
    let room = &alice.create_room(json!({ "preset": "private_chat", "room_version": "10" }));
    let pair = Ed25519KeyPair::from_der(&Ed25519KeyPair::generate(), "0".to_owned()).unwrap();
    let key = ruma::serde::Base64::<ruma::serde::base64::Standard>::new(pair.public_key().to_vec());
    let invite = json!({
        "display_name": "c…@example.org", "key_validity_url": "https://identity.test/valid",
        "public_key": key, "public_keys": [{ "public_key": key }],
    });
    alice.set_state(room, "m.room.third_party_invite", "token", invite.clone());
    let (carl, dora) = (mallory.user("carl"), mallory.user("dora"));
    let exchange = |user: &str, signed: &Value| -> Answer {
        let body = json!({
            "type": "m.room.member", "room_id": room, "sender": alice.id(), "state_key": user,
            "content": { "membership": "invite", "third_party_invite": { "display_name": "x", "signed": signed } },
        });
        mallory.put(here, &format!("v1/exchange_third_party_invite/{}", enc(room)), &body)
    };
    let of_carl = signed(&pair, &carl, "token");
    exchange(&dora, &of_carl).refused(403, "M_FORBIDDEN");
    exchange(&carl, &signed(&pair, &carl, "another")).refused(403, "M_FORBIDDEN");
    let other = Ed25519KeyPair::from_der(&Ed25519KeyPair::generate(), "0".to_owned()).unwrap();
    exchange(&carl, &signed(&other, &carl, "token")).refused(403, "M_FORBIDDEN");
    exchange("@somebody:else.test", &signed(&pair, "@somebody:else.test", "token"))
        .refused(403, "M_FORBIDDEN");

    exchange(&carl, &of_carl).done();
    until(|| alice.state(room, "m.room.member", &carl).status() == 200, "the invite is there");
    let invited = alice.state(room, "m.room.member", &carl).ok();
    assert_eq!(invited["membership"], "invite");
    assert_eq!(invited["third_party_invite"]["display_name"], "c…@example.org");
    mallory.join(here, room, &carl);
    // Banned, the token brings nobody back; nor once whoever invited has taken it back.
    alice.about_member(room, "ban", &carl).done();
    exchange(&carl, &of_carl).refused(403, "M_FORBIDDEN");
    alice.about_member(room, "unban", &carl).done();
    alice.set_state(room, "m.room.third_party_invite", "token", json!({}));
    exchange(&carl, &of_carl).refused(403, "M_FORBIDDEN");
}

#[test]
fn who_tells_of_addresses_again_and_again_has_to_wait() {
    let here = server_with(&[
        ("rate_limits.enabled", "true"),
        ("rate_limits.binding_per_second", "0.001"),
        ("rate_limits.binding_burst", "3"),
        ("listeners.trusted_proxies", "127.0.0.1/32"),
    ]);
    let [bob, carl] = ["bob", "carl"].map(|name| here.register(name));
    let tell = |from: &str, user: &str| {
        let body = json!({ "medium": "email", "address": "b@example.org", "mxid": user, "invites": [] });
        let headers = [("x-forwarded-for", from), ("content-type", "application/json")];
        let path = "/_matrix/federation/v1/3pid/onbind";
        Link::to(&here.address()).send(&Method::PUT, path, &headers, body.to_string()).unwrap()
    };
    for _ in 0..3 {
        tell("192.0.2.1", bob.id()).done();
    }
    tell("192.0.2.1", carl.id()).refused(429, "M_LIMIT_EXCEEDED");
    tell("192.0.2.2", bob.id()).refused(429, "M_LIMIT_EXCEEDED");
    tell("192.0.2.2", carl.id()).done();
}

#[test]
fn who_was_invited_by_an_address_is_invited_when_it_is_known_whose_it_is() {
    let scene = Scene::new();
    let Scene { here, mallory, eve, room, .. } = &scene;
    let bob = here.register("bob");
    let signed =
        json!({ "mxid": bob.id(), "token": "t", "signatures": { IDENTITY_SERVER: { "ed25519:0": "x" } } });
    let bound = |invited: &str| {
        json!({
            "medium": "email", "address": "bob@example.org", "mxid": invited,
            "invites": [{
                "medium": "email", "address": "bob@example.org", "mxid": invited, "room_id": room, "sender": eve,
                "signed": signed,
            }],
        })
    };
    let anyone = here.anyone().loose();
    let tell = |body: Value| anyone.put("/_matrix/federation/v1/3pid/onbind", body);
    tell(bound("@nobody:else.test")).refused(404, "M_NOT_FOUND");
    mallory.always("exchange_third_party_invite", crate::listen::Reply::json(&json!({})));
    tell(bound(bob.id())).done();
    // The invite is for the server of whoever invited to make.
    let asked = mallory.seen("exchange_third_party_invite");
    assert_eq!(asked.len(), 1);
    let proposed = asked[0].json();
    assert_eq!(
        (proposed["sender"].as_str(), proposed["state_key"].as_str()),
        (Some(eve.as_str()), Some(bob.id()))
    );
    assert_eq!(proposed["content"]["third_party_invite"]["signed"], signed);
}
