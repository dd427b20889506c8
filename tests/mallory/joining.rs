//! Rooms that are joined without their members, and servers that are slow to tell the rest.

use crate::{Mallory, listen::Reply, server, try_join, until};
use postern_world::Client;
use serde_json::{Value, json};

/// What clients ask for that are told members when they see something of them.
fn lazy() -> Value {
    json!({ "room": { "state": { "lazy_load_members": true } } })
}

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
    let shown = alice.sync_filtered(None, &lazy())["rooms"]["join"][&room]["state"]["events"].clone();
    assert!(shown.as_array().unwrap().len() < 15, "{shown}");
    // Who speaks is known from what the words rest on.
    assert!(shown.to_string().contains(&member), "{shown}");
    // Whoever is told all members hears nothing of the room until they are known, and then of all of it.
    let nothing = alice.sync(None);
    assert_eq!(nothing["rooms"]["join"][&room], Value::Null, "{nothing}");
    // A restart does not make it forget what is missing.
    until(|| !mallory.seen("state_ids").is_empty(), "the rest of the state is asked for");
    here.kill();
    here.start_again();
    let again = alice.now();
    mallory.say(&here, &alice, &room, &member);
    mallory.be_honest();
    assert_eq!(members(&alice, &room), 32);
    let told = alice.sync(Some(&again))["rooms"]["join"][&room].clone();
    assert!(told["state"]["events"].to_string().contains("member29"), "{told}");
    assert_eq!(told["timeline"]["limited"], true, "{told}");
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

#[test]
fn others_of_a_server_join_a_room_before_its_members_are_known() {
    let (here, mallory) = (server(), Mallory::new());
    let eve = mallory.user("eve");
    let room = crowded(&mallory, &eve, 10);
    for endpoint in ["state_ids", "state"] {
        mallory.always(endpoint, Reply::error(500, "M_UNKNOWN"));
    }
    let (alice, bob) = (here.register("alice"), here.register("bob"));
    try_join(&alice, &room, &mallory).done();
    try_join(&bob, &room, &mallory).done();
    until(|| mallory.room(&room).membership(bob.id()) == "join", "bob joins");
    let hello = bob.send_text(&room, "hello");
    mallory.until(&room, "bob is heard", |room| room.has(&hello));
    mallory.be_honest();
    assert_eq!(members(&alice, &room), 13);
}

#[test]
fn the_rest_of_the_state_is_asked_for_where_every_server_of_the_room_knows_it() {
    let (here, mallory) = (server(), Mallory::new());
    let eve = mallory.user("eve");
    let room = crowded(&mallory, &eve, 3);
    // As of an event that not all of them have the state cannot be told.
    let known: Vec<String> = mallory.room(&room).state().values().cloned().collect();
    mallory.on("state_ids", move |asked| {
        let at = asked.parameter("event_id");
        (!known.iter().any(|id| id == at)).then(|| Reply::error(404, "M_NOT_FOUND"))
    });
    let alice = here.register("alice");
    try_join(&alice, &room, &mallory).done();
    assert_eq!(members(&alice, &room), 5);
}
