//! Rooms that are joined without their members, and servers that are slow to tell the rest.

use crate::{Mallory, listen::Reply, server, try_join, until};
use postern_world::Client;
use serde_json::json;

fn members(who: &Client, room: &str) -> usize {
    let answer = who.get(&Client::room_path(room, "members")).ok();
    answer["chunk"].as_array().map_or(0, Vec::len)
}

/// A room of the hostile server with `count` members beside its creator.
fn crowded(mallory: &Mallory, eve: &str, count: usize) -> String {
    let name = json!({ "name": "crowded" });
    let room = mallory.create_room_with(eve, "10", json!({}), &[("m.room.name", "", name)]);
    for n in 0..count {
        let user = mallory.user(&format!("member{n}"));
        mallory.make(&room, &user, "m.room.member", Some(&user), json!({ "membership": "join" }));
    }
    room
}

#[test]
fn a_room_is_used_before_its_members_are_known_and_they_are_asked_for_until_they_are_told() {
    let (here, mallory) = (server(), Mallory::new());
    let eve = mallory.user("eve");
    let room = crowded(&mallory, &eve, 30);
    for endpoint in ["state_ids", "state"] {
        mallory.always(endpoint, Reply::error(500, "M_UNKNOWN"));
    }
    let alice = here.register("alice");
    try_join(&alice, &room, &mallory).done();
    let hello = alice.send_text(&room, "hello");
    mallory.until(&room, "alice is heard", |room| room.has(&hello));
    // Somebody speaks whose membership is not known yet.
    let member = mallory.user("member7");
    mallory.say(&here, &alice, &room, &member);
    let known = alice.sync(None)["rooms"]["join"][&room]["state"]["events"].as_array().unwrap().len();
    assert!(known < 15, "{known}");
    // A restart does not make it forget what is missing.
    until(|| !mallory.seen("state_ids").is_empty(), "the rest of the state is asked for");
    here.kill();
    here.start_again();
    let again = alice.now();
    mallory.say(&here, &alice, &room, &member);
    mallory.be_honest();
    assert_eq!(members(&alice, &room), 32);
    // Who follows the room is told of the members then.
    let told = alice.sync(Some(&again))["rooms"]["join"][&room]["state"]["events"].to_string();
    assert!(told.contains("member29"), "{told}");
    // And what has come in between is still there.
    alice.event(&room, &hello).done();
    alice.send_text(&room, "all there");
}

#[test]
fn who_leaves_a_room_before_its_members_are_known_can_come_back() {
    let (here, mallory) = (server(), Mallory::new());
    let eve = mallory.user("eve");
    let room = crowded(&mallory, &eve, 10);
    for endpoint in ["state_ids", "state"] {
        mallory.always(endpoint, Reply::error(500, "M_UNKNOWN"));
    }
    let alice = here.register("alice");
    try_join(&alice, &room, &mallory).done();
    alice.leave(&room);
    until(|| mallory.room(&room).membership(alice.id()) == "leave", "alice leaves");
    mallory.be_honest();
    try_join(&alice, &room, &mallory).done();
    assert_eq!(members(&alice, &room), 12);
}
