//! This server as the policy server of its rooms: other servers ask it before they send, and show nothing that it has not
//! signed.

use crate::enclaves::{Enclave, Peer, join_by, label};
use postern_world::{Seat, enc};
use serde_json::json;

#[test]
fn a_labelled_room_has_its_server_as_policy_server_and_others_ask_it_before_they_send() {
    let (here, there) = (Seat::take(), Seat::take());
    let doubted = "accreditation = \"Company PUBLIC\"";
    let peers = [Peer(&there, "Company INTERNAL", doubted)];
    let high = Enclave::start(&here, "Company INTERNAL", &peers, "policy_server = true");
    let low = Enclave::start(&there, "Company INTERNAL", &[Peer(&here, "Company INTERNAL", "")], "");
    let (alice, bob) = (high.register("alice"), low.register("bob"));
    let room = alice.create_room(json!({
        "preset": "public_chat",
        "creation_content": { "io.postern.label": label("INTERNAL") },
        "name": "with a policy server",
    }));
    let policy = alice.state(&room, "m.room.policy", "").ok();
    assert_eq!(policy["via"], high.server.name());
    let published = alice.get("/.well-known/matrix/policy_server").ok();
    assert_eq!(published["public_keys"], policy["public_keys"]);
    let server_keys = alice.get("/_matrix/key/v2/server").ok().to_string();
    let key = policy["public_keys"]["ed25519"].as_str().unwrap();
    assert!(!server_keys.contains(key), "it is another key than that of the server");
    assert_eq!(bob.get("/.well-known/matrix/policy_server").status(), 404);

    join_by(&bob, &room, &high.server);
    let since = bob.now();
    let hello = alice.send_text(&room, "hello");
    bob.sync_until_event(&since, &room, &hello);
    let say = |body: &str, class: &str| {
        let content = json!({ "msgtype": "m.text", "body": body, "io.postern.label": label(class) });
        bob.try_send(&room, "m.room.message", content)
    };
    let since = alice.now();
    let refused = say("believe me", "INTERNAL").refused(403, "M_FORBIDDEN");
    let why = refused["error"].to_string();
    assert!(why.contains("is not accredited for it"), "{why}");
    let fine = say("good morning", "PUBLIC").ok()["event_id"].as_str().unwrap().to_owned();
    alice.sync_until_event(&since, &room, &fine);

    // What the room's own people say needs nobody's answer; what others say needs this server's.
    low.server.kill();
    alice.send_text(&room, "nobody else is there");
    low.server.start_again();
    high.server.kill();
    let unasked = say("is anybody there", "PUBLIC").refused(403, "M_FORBIDDEN");
    assert!(unasked["error"].to_string().contains("cannot be asked"), "{unasked}");
}

#[test]
fn a_room_whose_policy_state_has_another_key_says_what_is_wrong_and_can_be_mended() {
    let enclave = Enclave::start(&Seat::take(), "Company INTERNAL", &[], "policy_server = true");
    let alice = enclave.register("alice");
    let room = alice.create_public_room();
    let key = alice.get("/.well-known/matrix/policy_server").ok()["public_keys"].clone();
    let name = enclave.server.name();
    let other =
        json!({ "via": name, "public_keys": { "ed25519": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE" } });
    alice.set_state(&room, "m.room.policy", "", other);
    let content = json!({ "msgtype": "m.text", "body": "hm" });
    let refused = alice.try_send(&room, "m.room.message", content).refused(403, "M_FORBIDDEN");
    let why = refused["error"].to_string();
    assert!(why.contains(key["ed25519"].as_str().unwrap()), "{why}");
    alice.set_state(&room, "m.room.policy", "", json!({ "via": name, "public_keys": key }));
    alice.send_text(&room, "mended");
    // An upgraded room keeps it.
    let upgrade = json!({ "new_version": "11" });
    let path = format!("/_matrix/client/v3/rooms/{}/upgrade", enc(&room));
    let new = alice.post(&path, upgrade).ok()["replacement_room"].as_str().unwrap().to_owned();
    assert_eq!(alice.state(&new, "m.room.policy", "").ok()["via"], name);
}
