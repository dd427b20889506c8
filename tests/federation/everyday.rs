//! What people see of each other across servers: profiles, aliases, files, keys, messages to devices, receipts, typing.

use crate::{PROGRAM, membership::servers};
use postern_world::{Client, Method, Server, enc};
use serde_json::{Value, json};

/// A public room of `alice` that `bob` of another server has joined.
fn shared_room(alice: &Client, bob: &Client) -> String {
    let room = alice.create_public_room();
    let path = format!("/_matrix/client/v3/join/{}?via={}", enc(&room), enc(alice.server_name()));
    let since = alice.now();
    assert_eq!(bob.post(&path, json!({})).status(), 200);
    alice.sync_until(&since, |answer| answer["rooms"]["join"][&room].to_string().contains(bob.id()));
    room
}

fn couple() -> (Client, Client) {
    let (here, there) = servers();
    (here.register("alice"), there.register("bob"))
}

#[test]
fn profiles_of_other_servers_are_shown() {
    let (alice, bob) = couple();
    let path = format!("/_matrix/client/v3/profile/{}", bob.id_in_path());
    let named = bob.put(&format!("{path}/displayname"), json!({ "displayname": "Bobby" }));
    assert_eq!(named.status(), 200);
    assert_eq!(alice.get(&path).body()["displayname"], "Bobby");
    assert_eq!(alice.get(&format!("{path}/displayname")).body(), &json!({ "displayname": "Bobby" }));
    let nobody = format!("/_matrix/client/v3/profile/{}", enc(&format!("@nobody:{}", bob.server_name())));
    assert_eq!(alice.get(&nobody).status(), 404);
}

#[test]
fn a_room_is_joined_by_its_alias_and_found_in_the_directory() {
    let (alice, bob) = couple();
    let room = alice.create_room(json!({
        "preset": "public_chat",
        "visibility": "public",
        "name": "square",
        "room_alias_name": format!("square-{}", alice.localpart()),
    }));
    let alias = format!("#square-{}:{}", alice.localpart(), alice.server_name());
    let found = bob.get(&format!("/_matrix/client/v3/directory/room/{}", enc(&alias)));
    assert_eq!(found.body()["room_id"], room.as_str());
    let listed = bob.get(&format!("/_matrix/client/v3/publicRooms?server={}", enc(alice.server_name())));
    assert!(listed.body()["chunk"].to_string().contains(&room), "{}", listed.describe());
    let joined = bob.post(&format!("/_matrix/client/v3/join/{}", enc(&alias)), json!({}));
    assert_eq!(joined.body()["room_id"], room.as_str());
}

#[test]
fn files_of_other_servers_are_fetched_with_their_names() {
    let (alice, bob) = couple();
    let bytes: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let uri = alice.upload("image/png", Some("bild \u{e4}.png"), &bytes);
    let path = uri.trim_start_matches("mxc://");
    for _ in 0..2 {
        let file = bob.loose().get(&format!("/_matrix/client/v1/media/download/{path}"));
        assert_eq!(file.status(), 200, "{}", file.describe());
        assert_eq!(file.bytes(), &bytes[..]);
        let disposition = file.header("content-disposition").unwrap_or_default().to_owned();
        assert!(disposition.contains("utf-8''bild%20%C3%A4.png"), "{disposition}");
    }
    // Without an account nobody has a file fetched.
    let stranger = bob.without_token();
    assert_eq!(stranger.get(&format!("/_matrix/client/v1/media/download/{path}x")).status(), 401);
    let missing = format!("/_matrix/client/v1/media/download/{}/nothing", alice.server_name());
    assert_eq!(bob.get(&missing).status(), 404);
}

fn device_keys(who: &Client) -> Value {
    json!({
        "user_id": who.id(),
        "device_id": who.device(),
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": { format!("ed25519:{}", who.device()): "a2V5", format!("curve25519:{}", who.device()): "a2V5" },
        "signatures": { who.id(): { format!("ed25519:{}", who.device()): "c2ln" } },
    })
}

#[test]
fn keys_are_found_and_messages_reach_devices() {
    let (alice, bob) = couple();
    let upload = json!({
        "device_keys": device_keys(&bob),
        "one_time_keys": { "signed_curve25519:AAAA": { "key": "a2V5", "signatures": {} } },
    });
    assert_eq!(bob.post("/_matrix/client/v3/keys/upload", upload).status(), 200);
    shared_room(&alice, &bob);
    let found = alice.post("/_matrix/client/v3/keys/query", json!({ "device_keys": { bob.id(): [] } }));
    assert_eq!(
        found.body()["device_keys"][bob.id()][bob.device()]["user_id"],
        bob.id(),
        "{}",
        found.describe()
    );
    let wanted = json!({ "one_time_keys": { bob.id(): { bob.device(): "signed_curve25519" } } });
    let claimed = alice.post("/_matrix/client/v3/keys/claim", wanted);
    assert!(claimed.body()["one_time_keys"][bob.id()][bob.device()]["signed_curve25519:AAAA"].is_object());
    let since = bob.now();
    let message = json!({ "messages": { bob.id(): { bob.device(): { "secret": 1 } } } });
    for _ in 0..2 {
        // The second is a repetition.
        assert_eq!(alice.put("/_matrix/client/v3/sendToDevice/my.type/txn", message.clone()).status(), 200);
    }
    let seen = bob.sync_until(&since, |answer| !postern_world::events_of(&answer["to_device"]).is_empty());
    let messages = postern_world::events_of(&seen["to_device"]);
    assert_eq!(messages, [json!({ "type": "my.type", "sender": alice.id(), "content": { "secret": 1 } })]);
    // A new device is told of.
    let since = alice.now();
    let again = bob.log_in_again();
    let upload = json!({ "device_keys": device_keys(&again) });
    assert_eq!(again.post("/_matrix/client/v3/keys/upload", upload).status(), 200);
    alice.sync_until(&since, |answer| answer["device_lists"]["changed"].to_string().contains(bob.id()));
}

#[test]
fn receipts_and_typing_are_seen_on_the_other_side() {
    let (alice, bob) = couple();
    let room = shared_room(&alice, &bob);
    let since = bob.now();
    let said = alice.send_text(&room, "read this");
    bob.sync_until_event(&since, &room, &said);
    let since = alice.now();
    bob.typing(&room, true);
    alice.sync_until(&since, |answer| {
        answer["rooms"]["join"][&room]["ephemeral"].to_string().contains(bob.id())
    });
    let since = alice.now();
    bob.read(&room, &said);
    alice.sync_until(&since, |answer| {
        let ephemeral = answer["rooms"]["join"][&room]["ephemeral"].to_string();
        ephemeral.contains("m.read") && ephemeral.contains(bob.id())
    });
}

#[test]
fn a_server_that_a_room_denies_is_kept_out() {
    let (alice, bob) = couple();
    let room = alice.create_public_room();
    let acl =
        json!({ "allow": ["*"], "deny": [bob.server_name().split(':').next()], "allow_ip_literals": true });
    alice.set_state(&room, "m.room.server_acl", "", acl);
    let path = format!("/_matrix/client/v3/join/{}?via={}", enc(&room), enc(alice.server_name()));
    // Both servers have one address, so the room's own is denied too: it does not ask itself.
    assert_eq!(bob.post(&path, json!({})).status(), 403);
}

#[test]
fn requests_that_no_server_signed_are_refused() {
    let (here, _) = servers();
    let anyone = here.anyone().loose();
    for path in
        ["state/!room:x?event_id=$e", "event/$e", "make_join/!room:x/@a:y", "query/profile?user_id=@a:x"]
    {
        let answer = anyone.get(&format!("/_matrix/federation/v1/{path}"));
        assert_eq!(answer.status(), 401, "{path}: {}", answer.describe());
        assert_eq!(answer.body()["errcode"], "M_UNAUTHORIZED");
    }
    let answer = anyone.request(Method::PUT, "/_matrix/federation/v1/send/1", Some(&json!({ "pdus": [] })));
    assert_eq!(answer.status(), 401);
    let keys = anyone.get("/_matrix/key/v2/server");
    assert_eq!(keys.body()["server_name"], here.name());
    assert!(anyone.get("/_matrix/federation/v1/version").body()["server"]["name"].is_string());
}

#[test]
fn a_server_without_federation_has_no_such_endpoints() {
    let server = Server::start(PROGRAM);
    let anyone = server.anyone().loose();
    assert_eq!(anyone.get("/_matrix/key/v2/server").status(), 404);
    assert_eq!(anyone.get("/_matrix/federation/v1/version").status(), 404);
    let alice = server.register("alice");
    let path = format!("/_matrix/client/v3/join/{}?via=elsewhere.test", enc("!room:elsewhere.test"));
    assert_eq!(alice.post(&path, json!({})).status(), 403);
}
