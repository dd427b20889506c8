//! Policy servers that do not sign, sign something else, or are not there.

use crate::{Mallory, Scene, fate, listen::Reply, until};
use postern_world::Client;
use ruma::signatures::Ed25519KeyPair;
use serde_json::{Value, json};
use std::sync::Arc;

fn key_pair() -> Arc<Ed25519KeyPair> {
    let pair = Ed25519KeyPair::from_der(&Ed25519KeyPair::generate(), "policy_server".to_owned());
    Arc::new(pair.unwrap())
}

/// The room has `mallory` as its policy server, with this key.
fn have_policy_server(alice: &Client, room: &str, mallory: &Mallory, pair: &Ed25519KeyPair) {
    let key = ruma::serde::Base64::<ruma::serde::base64::Standard>::new(pair.public_key().to_vec());
    let policy = json!({ "via": mallory.name(), "public_keys": { "ed25519": key } });
    alice.set_state(room, "m.room.policy", "", policy);
}

/// From now on the policy server signs with this key all that does not say "spam".
fn sign(mallory: &Mallory, pair: &Arc<Ed25519KeyPair>) {
    let (name, pair) = (mallory.name().to_owned(), pair.clone());
    mallory.on("sign", move |asked| {
        let pdu = asked.json();
        if pdu["content"].to_string().contains("spam") {
            return Some(Reply::error(400, "M_FORBIDDEN"));
        }
        let signed = crate::room::cosign("10", &name, &pair, &pdu);
        let signature = &signed["signatures"][&name]["ed25519:policy_server"];
        Some(Reply::json(&json!({ &name: { "ed25519:policy_server": signature } })))
    });
}

fn is_recommended(event: &Value, mallory: &Mallory) -> bool {
    event["signatures"][mallory.name()]["ed25519:policy_server"].is_string()
}

#[test]
fn attack_30_nothing_is_sent_that_the_policy_server_does_not_sign() {
    let scene = Scene::new();
    let Scene { mallory, alice, room, .. } = &scene;
    let (pair, other) = (key_pair(), key_pair());
    sign(mallory, &pair);
    have_policy_server(alice, room, mallory, &pair);
    let said = alice.send_text(room, "hello");
    mallory.until(room, "alice is heard", |room| room.has(&said));
    assert!(is_recommended(mallory.room(room).event(&said).unwrap(), mallory));
    let message = |body: &str| json!({ "msgtype": "m.text", "body": body });
    let refused = alice.loose().try_send(room, "m.room.message", message("spam")).refused(403, "M_FORBIDDEN");
    assert_eq!(refused["error"], "mallory says no");
    // Memberships and state are looked at like messages; a person's name, too.
    alice.try_set_state(room, "m.room.topic", "", json!({ "topic": "spam" })).refused(403, "M_FORBIDDEN");
    alice.set_state(room, "m.room.topic", "", json!({ "topic": "flowers" }));
    alice.about_member(room, "invite", &mallory.user("carl")).done();
    // One that signs with another key, or does not answer, lets nothing through.
    mallory.be_honest();
    sign(mallory, &other);
    alice.try_send(room, "m.room.message", message("hello")).refused(403, "M_FORBIDDEN");
    mallory.be_honest();
    mallory.always("sign", Reply::error(404, "M_UNRECOGNIZED"));
    alice.try_send(room, "m.room.message", message("hello")).refused(403, "M_FORBIDDEN");
    // What the room says of its policy server needs no leave of it: its key is replaced, and then it goes.
    mallory.be_honest();
    sign(mallory, &other);
    have_policy_server(alice, room, mallory, &other);
    alice.send_text(room, "with the new key");
    mallory.be_honest();
    alice.set_state(room, "m.room.policy", "", json!({}));
    alice.send_text(room, "without one");
}

#[test]
fn attack_30_what_comes_without_a_signature_of_the_policy_server_is_soft_failed() {
    let scene = Scene::new();
    let Scene { here, mallory, alice, eve, room } = &scene;
    let (pair, other) = (key_pair(), key_pair());
    sign(mallory, &pair);
    have_policy_server(alice, room, mallory, &pair);
    // It is asked for what others did not ask it for.
    let before = mallory.seen("sign").len();
    mallory.say(here, alice, room, eve);
    assert_eq!(mallory.seen("sign").len(), before + 1);
    // What brings its signature along is taken without asking.
    let message = |body: &str| json!({ "msgtype": "m.text", "body": body });
    let signed_by = |pair: &Ed25519KeyPair, body: &str| {
        let kept = mallory.room(room);
        let mut pdu = mallory.seal(&kept, kept.draft(eve, "m.room.message", None, message(body)));
        pdu.json = crate::room::cosign("10", mallory.name(), pair, &pdu.json);
        pdu
    };
    let signed = signed_by(&pair, "spam, but signed");
    mallory.tell(here, &signed);
    until(|| alice.event(room, &signed.id).status() == 200, "what is signed arrives");
    // What it does not sign is not shown, whatever other signature it has.
    for pdu in [signed_by(&other, "spam"), {
        let kept = mallory.room(room);
        mallory.seal(&kept, kept.draft(eve, "m.room.message", None, message("spam")))
    }] {
        mallory.tell(here, &pdu);
        fate(here, &pdu.id, "soft-failed");
        assert_eq!(alice.event(room, &pdu.id).status(), 404);
    }
    scene.settle();
}
