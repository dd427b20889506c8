//! What people of one server see of the other without being in a room there, and files.

use crate::sides::{Pair, shared_room, until};
use postern_world::{Client, enc};
use serde_json::json;

pub fn profiles_are_shown_and_changes_follow(pair: &Pair<'_>) {
    let (alice, bob) = pair.couple();
    let path = format!("v3/profile/{}", bob.id_in_path());
    let rename = |name: &str| bob.put(&format!("{path}/displayname"), json!({ "displayname": name })).done();
    rename("Bobby");
    bob.put(&format!("{path}/avatar_url"), json!({ "avatar_url": "mxc://example.org/face" })).done();
    let seen = alice.get(&path);
    assert_eq!(seen["displayname"], "Bobby", "{}", seen.describe());
    assert_eq!(seen["avatar_url"], "mxc://example.org/face");
    assert_eq!(alice.get(&format!("{path}/displayname")).ok(), json!({ "displayname": "Bobby" }));
    let nobody = format!("v3/profile/{}", enc(&format!("@nobody:{}", bob.server_name())));
    assert_eq!(alice.get(&nobody).status(), 404);
    let room = shared_room(&alice, &bob);
    let member = || alice.state(&room, "m.room.member", bob.id());
    assert_eq!(member()["displayname"], "Bobby");
    rename("Robert");
    until("the new name is in the room", || member()["displayname"] == "Robert");
}

pub fn rooms_are_found_in_the_directory(pair: &Pair<'_>) {
    let (alice, bob) = pair.couple();
    let topic = format!("flowers of {}", alice.localpart());
    let room = alice.create_room(json!({
        "preset": "public_chat",
        "visibility": "public",
        "name": "garden",
        "topic": topic,
    }));
    let path = format!("v3/publicRooms?server={}", enc(alice.server_name()));
    until("the room is listed", || bob.get(&path)["chunk"].to_string().contains(&room));
    let found = bob.post(&path, json!({ "filter": { "generic_search_term": topic } })).ok();
    let found = found["chunk"].as_array().unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["room_id"], room.as_str());
    assert_eq!(found[0]["name"], "garden");
    assert_eq!(found[0]["num_joined_members"], 1);
    assert_eq!(found[0]["join_rule"], "public");
    let page = bob.post(&path, json!({ "limit": 1 })).ok();
    assert_eq!(page["chunk"].as_array().map(Vec::len), Some(1), "{page}");
}

pub fn spaces_are_walked(pair: &Pair<'_>) {
    let (alice, bob) = pair.couple();
    let via = json!({ "via": [alice.server_name()] });
    let space = |name: &str| {
        alice.create_room(json!({
            "preset": "public_chat",
            "name": name,
            "creation_content": { "type": "m.space" },
        }))
    };
    let (outer, inner) = (space("outer"), space("inner"));
    let room = alice.create_room(json!({ "preset": "public_chat", "name": "room" }));
    let hidden = alice.create_room(json!({ "preset": "private_chat", "name": "hidden" }));
    alice.set_state(&outer, "m.space.child", &inner, via.clone());
    alice.set_state(&inner, "m.space.child", &room, via.clone());
    alice.set_state(&inner, "m.space.child", &hidden, via);
    let walk = |who: &Client| -> Vec<String> {
        let path = Client::room_path(&outer, "hierarchy").replacen("v3", "v1", 1);
        let answer = who.get(&path);
        let rooms = answer["rooms"].as_array().cloned().unwrap_or_default();
        rooms.iter().filter_map(|room| room["room_id"].as_str()).map(str::to_owned).collect()
    };
    assert_eq!(walk(&alice), [outer.clone(), inner.clone(), room.clone(), hidden.clone()]);
    // One has to be there for the server to be known: a room's id does not name it.
    crate::sides::join_by(&bob, &outer, &alice);
    assert_eq!(walk(&bob), [outer.clone(), inner.clone(), room.clone()]);
}

/// A picture of one colour: a PNG of 64 by 48 pixels.
const PICTURE: &[u8] = include_bytes!("picture.png");

pub fn files_and_thumbnails_are_fetched(pair: &Pair<'_>) {
    let (alice, bob) = pair.couple();
    let bytes: Vec<u8> = (0..500_000_u32).flat_map(u32::to_le_bytes).collect();
    let uri = alice.upload("application/octet-stream", Some("data \u{e4}.bin"), &bytes);
    let path = uri.trim_start_matches("mxc://");
    for _ in 0..2 {
        let file = bob.loose().get(&format!("v1/media/download/{path}"));
        assert_eq!(file.status(), 200, "{}", file.describe());
        assert!(file.bytes() == &bytes[..], "the file is another");
        assert_eq!(file.header("content-type"), Some("application/octet-stream"));
        let disposition = file.header("content-disposition").unwrap_or_default().to_lowercase();
        assert!(disposition.contains("data%20%c3%a4.bin"), "{disposition}");
    }
    let missing = format!("v1/media/download/{}/nothing", alice.server_name());
    assert_eq!(bob.get(&missing).status(), 404);

    let uri = alice.upload("image/png", None, PICTURE);
    let path = uri.trim_start_matches("mxc://");
    let small = bob.loose().get(&format!("v1/media/thumbnail/{path}?width=32&height=32&method=scale"));
    assert_eq!(small.status(), 200, "{}", small.describe());
    assert!(small.header("content-type").is_some_and(|kind| kind.starts_with("image/")));
    let file = bob.loose().get(&format!("v1/media/download/{path}"));
    assert_eq!(file.status(), 200, "{}", file.describe());
    assert!(file.bytes() == PICTURE);
    assert_eq!(file.header("content-type"), Some("image/png"));
}
