//! Aliases and the public directory (specification: room aliases; published room directory).

use super::*;

fn alias(of: &Client) -> String {
    format!("#den-{}:here.test", of.localpart())
}

fn at(alias: &str) -> String {
    format!("v3/directory/room/{}", enc(alias))
}

#[test]
fn an_alias_is_made_looked_up_and_deleted() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    let alias = alias(&alice);
    alice.put(&at(&alias), json!({ "room_id": room })).done();
    let found = server().anyone().get(&at(&alias)).ok();
    assert_eq!(found["room_id"], room);
    assert_eq!(found["servers"], json!(["here.test"]));
    alice.delete(&at(&alias)).done();
    alice.get(&at(&alias)).refused(404, "M_NOT_FOUND");
}

#[test]
fn an_alias_can_have_any_letters() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    let alias = format!("#Höhle-老{}:here.test", alice.localpart());
    alice.put(&at(&alias), json!({ "room_id": room })).done();
    assert_eq!(alice.get(&at(&alias)).ok()["room_id"], room);
}

#[test]
fn an_alias_that_is_taken_is_a_conflict() {
    let alice = user("alice");
    let (one, two) = (alice.create_room(json!({})), alice.create_room(json!({})));
    alice.put(&at(&alias(&alice)), json!({ "room_id": one })).done();
    let answer = alice.put(&at(&alias(&alice)), json!({ "room_id": two }));
    assert_eq!(answer.status(), 409, "{}", answer.describe());
}

#[test]
fn an_alias_that_is_none_or_of_another_server_is_refused() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    for alias in ["no-alias", "#x:elsewhere.test"] {
        let answer = alice.put(&at(alias), json!({ "room_id": room }));
        assert!(matches!(answer.status(), 400 | 403), "{}", answer.describe());
    }
}

#[test]
fn an_alias_is_deleted_by_its_maker_or_whoever_has_the_power() {
    let (alice, bob, room) = two_in_a_room();
    let his = alias(&bob);
    bob.put(&at(&his), json!({ "room_id": room })).done();
    user("carol").delete(&at(&his)).refused(403, "M_FORBIDDEN");
    alice.delete(&at(&his)).done();
    let hers = alias(&alice);
    alice.put(&at(&hers), json!({ "room_id": room })).done();
    bob.delete(&at(&hers)).refused(403, "M_FORBIDDEN");
    bob.delete(&at("#nothing-there:here.test")).refused(404, "M_NOT_FOUND");
}

#[test]
fn a_deleted_canonical_alias_is_taken_from_the_room() {
    let alice = user("alice");
    let name = format!("canon{}", alice.localpart());
    let room = alice.create_room(json!({ "room_alias_name": name }));
    alice.delete(&at(&format!("#{name}:here.test"))).done();
    assert!(alice.state(&room, "m.room.canonical_alias", "").ok().get("alias").is_none());
}

#[test]
fn the_aliases_of_a_room_are_listed_to_its_members() {
    let (alice, bob) = two_users();
    let room = alice.create_room(json!({}));
    alice.put(&at(&alias(&alice)), json!({ "room_id": room })).done();
    let path = Client::room_path(&room, "aliases");
    assert_eq!(alice.get(&path).ok()["aliases"], json!([alias(&alice)]));
    bob.get(&path).refused(403, "M_FORBIDDEN");
}

fn listed(who: &Client, room: &str) -> Option<Value> {
    let answer = who.post("v3/publicRooms", json!({ "limit": 1000 })).ok();
    array(&answer["chunk"]).into_iter().find(|chunk| chunk["room_id"] == room)
}

#[test]
fn a_room_is_published_and_withdrawn() {
    let alice = user("alice");
    let room = alice.create_public_room();
    let path = format!("v3/directory/list/room/{}", enc(&room));
    assert_eq!(alice.get(&path).ok()["visibility"], "private");
    assert!(listed(&alice, &room).is_none());
    alice.put(&path, json!({ "visibility": "public" })).done();
    assert_eq!(alice.get(&path).ok()["visibility"], "public");
    assert!(listed(&alice, &room).is_some());
    alice.put(&path, json!({ "visibility": "private" })).done();
    assert!(listed(&alice, &room).is_none());
}

#[test]
fn the_directory_tells_no_more_than_what_is_specified() {
    let alice = user("alice");
    let room = alice.create_room(json!({ "visibility": "public" }));
    let entry = listed(&alice, &room).unwrap();
    // Some clients refuse a list with an entry that has fields they do not know.
    for field in ["room_version", "encryption", "allowed_room_ids"] {
        assert!(entry.get(field).is_none(), "{entry}");
    }
    let summary = alice.get(&format!("v1/room_summary/{}", enc(&room))).ok();
    assert_eq!(summary["room_version"], "12");
    assert_eq!(summary["join_rule"], entry["join_rule"]);
}

#[test]
fn only_with_the_power_a_room_is_published() {
    let (_, bob, room) = two_in_a_room();
    let path = format!("v3/directory/list/room/{}", enc(&room));
    bob.put(&path, json!({ "visibility": "public" })).refused(403, "M_FORBIDDEN");
    bob.get("v3/directory/list/room/%21nothing%3Ahere.test").refused(404, "M_NOT_FOUND");
}

#[test]
fn the_directory_tells_what_there_is_to_tell() {
    let alice = user("alice");
    let name = format!("pub{}", alice.localpart());
    let room = alice.create_room(json!({
        "visibility": "public", "name": "Tea Ünd Talk", "topic": "all teas", "room_alias_name": name,
        "initial_state": [
            { "type": "m.room.history_visibility", "state_key": "", "content": { "history_visibility": "world_readable" } },
            { "type": "m.room.guest_access", "state_key": "", "content": { "guest_access": "can_join" } },
        ],
    }));
    let chunk = listed(&alice, &room).unwrap();
    assert_eq!(chunk["name"], "Tea Ünd Talk");
    assert_eq!(chunk["topic"], "all teas");
    assert_eq!(chunk["num_joined_members"], 1);
    assert_eq!(chunk["canonical_alias"], format!("#{name}:here.test"));
    assert_eq!((&chunk["world_readable"], &chunk["guest_can_join"]), (&json!(true), &json!(true)));
    assert_eq!(chunk["join_rule"], "public");
}

#[test]
fn the_directory_is_searched_and_comes_in_pages() {
    let alice = user("alice");
    let word = format!("quokka{}", alice.localpart());
    for n in 0..3 {
        let _ = alice.create_room(json!({ "visibility": "public", "name": format!("{word} {n}") }));
    }
    let filter = json!({ "generic_search_term": word });
    let first = alice.post("v3/publicRooms", json!({ "limit": 2, "filter": filter })).ok();
    assert_eq!(array(&first["chunk"]).len(), 2);
    let rest = json!({ "limit": 2, "filter": filter, "since": first["next_batch"] });
    let second = alice.post("v3/publicRooms", rest).ok();
    assert_eq!(array(&second["chunk"]).len(), 1);
    assert!(second.get("next_batch").is_none());
    assert!(array(&server().anyone().get("v3/publicRooms?limit=1").ok()["chunk"]).len() <= 1);
}

#[test]
fn the_directory_is_filtered_by_type() {
    let alice = user("alice");
    let space =
        alice.create_room(json!({ "visibility": "public", "creation_content": { "type": "m.space" } }));
    let room = alice.create_room(json!({ "visibility": "public" }));
    let ids = |types: Value| {
        let body = json!({ "limit": 1000, "filter": { "room_types": types } });
        fields(&array(&alice.post("v3/publicRooms", body).ok()["chunk"]), "room_id")
    };
    assert!(ids(json!(["m.space"])).contains(&space) && !ids(json!(["m.space"])).contains(&room));
    assert!(ids(json!([null])).contains(&room) && !ids(json!([null])).contains(&space));
}

// ---- summaries and spaces

#[test]
fn a_room_is_summarised_for_who_may_join_it() {
    let (alice, bob) = two_users();
    let room = alice.create_room(json!({ "preset": "public_chat", "name": "The Den" }));
    let summary = bob.get(&format!("v1/room_summary/{}", enc(&room))).ok();
    assert_eq!((&summary["name"], &summary["num_joined_members"]), (&json!("The Den"), &json!(1)));
    assert_eq!(alice.get(&format!("v1/room_summary/{}", enc(&room))).ok()["membership"], "join");
    let private = alice.create_room(json!({}));
    bob.get(&format!("v1/room_summary/{}", enc(&private))).refused(404, "M_NOT_FOUND");
}

fn space(alice: &Client, children: &[&str]) -> String {
    let space =
        alice.create_room(json!({ "preset": "public_chat", "creation_content": { "type": "m.space" } }));
    for (n, child) in children.iter().enumerate() {
        let content = json!({ "via": ["here.test"], "order": format!("{n}") });
        alice.set_state(&space, "m.space.child", child, content);
    }
    space
}

fn hierarchy(who: &Client, space: &str, query: &str) -> Vec<String> {
    let answer = who.get(&format!("v1/rooms/{}/hierarchy{query}", enc(space))).ok();
    fields(&array(&answer["rooms"]), "room_id")
}

#[test]
fn a_space_shows_its_rooms_in_order_and_those_of_its_spaces() {
    let (alice, bob) = two_users();
    let (one, two) = (alice.create_public_room(), alice.create_public_room());
    let inner = space(&alice, &[&two]);
    let outer = space(&alice, &[&inner, &one]);
    assert_eq!(hierarchy(&bob, &outer, ""), [outer.clone(), inner.clone(), two, one.clone()]);
    assert_eq!(hierarchy(&bob, &outer, "?max_depth=1"), [outer, inner, one]);
}

#[test]
fn a_space_does_not_show_rooms_one_may_not_enter() {
    let (alice, bob) = two_users();
    let (public, private) = (alice.create_public_room(), alice.create_room(json!({})));
    let space = space(&alice, &[&private, &public]);
    assert_eq!(hierarchy(&bob, &space, ""), [space.clone(), public.clone()]);
    assert_eq!(hierarchy(&alice, &space, ""), [space.clone(), private, public]);
}

#[test]
fn a_space_shows_only_suggested_rooms_if_asked_to() {
    let alice = user("alice");
    let (one, two) = (alice.create_public_room(), alice.create_public_room());
    let space = space(&alice, &[&one]);
    alice.set_state(&space, "m.space.child", &two, json!({ "via": ["here.test"], "suggested": true }));
    assert_eq!(hierarchy(&alice, &space, "?suggested_only=true"), [space, two]);
}

#[test]
fn a_removed_child_is_not_shown() {
    let alice = user("alice");
    let one = alice.create_public_room();
    let space = space(&alice, &[&one]);
    alice.set_state(&space, "m.space.child", &one, json!({}));
    assert_eq!(hierarchy(&alice, &space, ""), [space]);
}

#[test]
fn a_hierarchy_comes_in_pages() {
    let alice = user("alice");
    let rooms: Vec<String> = (0..3).map(|_| alice.create_public_room()).collect();
    let space = space(&alice, &rooms.iter().map(String::as_str).collect::<Vec<_>>());
    let path = format!("v1/rooms/{}/hierarchy?limit=2", enc(&space));
    let first = alice.get(&path).ok();
    assert_eq!(array(&first["rooms"]).len(), 2);
    let rest = alice.get(&format!("{path}&from={}", enc(first["next_batch"].as_str().unwrap()))).ok();
    assert_eq!(fields(&array(&rest["rooms"]), "room_id"), rooms[1..]);
}

#[test]
fn strangers_do_not_see_a_private_space() {
    let alice = user("alice");
    let space = alice.create_room(json!({ "creation_content": { "type": "m.space" } }));
    let answer = user("bob").get(&format!("v1/rooms/{}/hierarchy", enc(&space)));
    answer.refused(403, "M_FORBIDDEN");
}
