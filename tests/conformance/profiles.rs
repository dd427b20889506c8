//! Profiles and the user directory (specification: profiles; user directory).

use super::*;

fn path(of: &Client, field: &str) -> String {
    format!("v3/profile/{}/{field}", of.id_in_path())
}

#[test]
fn display_name_and_avatar_are_set_and_read_by_anyone() {
    let alice = user("alice");
    alice.put(&path(&alice, "displayname"), json!({ "displayname": "Alice" })).done();
    alice.put(&path(&alice, "avatar_url"), json!({ "avatar_url": "mxc://here.test/a" })).done();
    let anyone = server().anyone();
    assert_eq!(anyone.get(&path(&alice, "displayname")).ok(), json!({ "displayname": "Alice" }));
    let whole = anyone.get(&format!("v3/profile/{}", alice.id_in_path())).ok();
    assert_eq!(whole, json!({ "displayname": "Alice", "avatar_url": "mxc://here.test/a" }));
}

#[test]
fn a_profile_is_its_users_to_change() {
    let (alice, bob) = two_users();
    bob.put(&path(&alice, "displayname"), json!({ "displayname": "x" })).refused(403, "M_FORBIDDEN");
    bob.delete(&path(&alice, "displayname")).refused(403, "M_FORBIDDEN");
}

#[test]
fn who_is_not_there_has_no_profile() {
    server().anyone().get("v3/profile/@nobody-there:here.test").refused(404, "M_NOT_FOUND");
}

#[test]
fn any_field_is_kept_read_and_removed() {
    let alice = user("alice");
    let field = path(&alice, "test.pronouns");
    alice.put(&field, json!({ "test.pronouns": ["she", "her"] })).done();
    assert_eq!(server().anyone().get(&field).ok(), json!({ "test.pronouns": ["she", "her"] }));
    alice.delete(&field).done();
    alice.get(&field).refused(404, "M_NOT_FOUND");
}

#[test]
fn a_field_has_to_be_in_the_body_under_its_name() {
    let alice = user("alice");
    let answer = alice.put(&path(&alice, "test.field"), json!({ "other": 1 }));
    answer.refused(400, "M_MISSING_PARAM");
}

#[test]
fn a_profile_has_at_most_64_kibibytes() {
    let alice = user("alice");
    let large = json!({ "test.large": "x".repeat(70_000) });
    let answer = alice.put(&path(&alice, "test.large"), large);
    assert_eq!(
        (answer.status(), answer.errcode()),
        (400, Some("M_PROFILE_TOO_LARGE")),
        "{}",
        answer.describe()
    );
}

#[test]
fn the_name_of_a_field_has_at_most_255_bytes() {
    let alice = user("alice");
    let name = "x".repeat(256);
    let answer = alice.put(&path(&alice, &name), json!({ name: 1 }));
    assert_eq!((answer.status(), answer.errcode()), (400, Some("M_KEY_TOO_LARGE")), "{}", answer.describe());
}

#[test]
fn a_new_name_shows_in_the_rooms() {
    let (alice, bob, room) = two_in_a_room();
    let since = bob.now();
    alice.put(&path(&alice, "displayname"), json!({ "displayname": "Alice A." })).done();
    bob.sync_until(&since, |answer| {
        timeline(answer, &room).iter().any(|event| event["content"]["displayname"] == "Alice A.")
    });
}

#[test]
fn only_where_allowed_users_change_their_profiles() {
    let server = Server::with(PROGRAM, &[("users.profile_changes", "administrators")]);
    let alice = server.register("alice");
    alice.put(&path(&alice, "displayname"), json!({ "displayname": "x" })).refused(403, "M_FORBIDDEN");
    let capabilities = alice.get("v3/capabilities").ok();
    assert_eq!(capabilities["capabilities"]["m.set_displayname"]["enabled"], false);
}

fn found(who: &Client, term: &str) -> Vec<String> {
    let answer = who.post("v3/user_directory/search", json!({ "search_term": term })).ok();
    fields(&array(&answer["results"]), "user_id")
}

#[test]
fn the_directory_finds_whom_one_shares_a_room_with_by_id_and_name() {
    let (alice, bob, _room) = two_in_a_room();
    let name = format!("Robert{}", bob.localpart());
    bob.put(&path(&bob, "displayname"), json!({ "displayname": name })).done();
    assert_eq!(found(&alice, bob.localpart()), [bob.id()]);
    assert_eq!(found(&alice, &name), [bob.id()]);
}

#[test]
fn the_directory_does_not_find_strangers_unless_they_are_in_public() {
    let (alice, bob) = two_users();
    assert!(found(&alice, bob.localpart()).is_empty());
    let _ = bob.create_room(json!({ "preset": "public_chat", "visibility": "public" }));
    assert_eq!(found(&alice, bob.localpart()), [bob.id()]);
}

#[test]
fn the_directory_cuts_where_it_is_told_to() {
    let (alice, bob) = two_users();
    let carol = user("carol");
    let _room = alice.create_room_with(&[&bob, &carol]);
    let request = json!({ "search_term": "-", "limit": 1 });
    let answer = alice.post("v3/user_directory/search", request).ok();
    assert_eq!((array(&answer["results"]).len(), &answer["limited"]), (1, &json!(true)));
}
