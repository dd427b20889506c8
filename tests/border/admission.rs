//! Who comes into a labelled room uninvited, and that other servers refuse who is not let in any more.

use crate::enclaves::{Enclave, Peer, document, join_by, label};
use postern_world::{Client, Seat, enc};
use serde_json::{Value, json};

/// A room for whoever is cleared for what is internal.
fn open_room(creator: &Client) -> String {
    creator.create_room(json!({
        "preset": "public_chat",
        "creation_content": { "io.postern.label": label("INTERNAL") },
    }))
}

fn acl(user: &Client, room: &str) -> Value {
    user.state(room, "m.room.server_acl", "").ok()
}

fn hosts(seats: &[&Seat]) -> Value {
    let mut hosts: Vec<_> = seats.iter().map(|seat| host(seat)).collect();
    hosts.sort();
    json!(hosts)
}

fn host(seat: &Seat) -> String {
    seat.address.to_string().rsplit_once(':').unwrap().0.to_owned()
}

/// Waits until a room's list of allowed hosts is this.
fn until_allowed(user: &Client, room: &str, hosts: &Value) -> Value {
    for _ in 0..200 {
        let acl = acl(user, room);
        if acl["allow"] == *hosts {
            return acl;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("{} is not {hosts}", acl(user, room));
}

#[test]
fn whoever_is_cleared_for_a_room_joins_it_without_an_invite_and_nobody_else_does() {
    let (here, there, elsewhere) = (Seat::take(), Seat::take(), Seat::take());
    let guest = "[[user]]\nid = \"@guest*\"\nclearance = \"Company PUBLIC\"\n";
    let peers = [Peer(&there, "Company INTERNAL", ""), Peer(&elsewhere, "Company PUBLIC", "")];
    let high = Enclave::start(&here, "Company INTERNAL", &peers, guest);
    let low = Enclave::start(&there, "Company INTERNAL", &[Peer(&here, "Company INTERNAL", "")], "");
    let public = Enclave::start(&elsewhere, "Company INTERNAL", &[Peer(&here, "Company INTERNAL", "")], "");
    let alice = high.register("alice");
    let room = open_room(&alice);
    let (carol, guest) = (high.register("carol"), high.register("guest"));
    carol.join(&room);
    // To who is not cleared for it, it is not there.
    guest.try_join(&room).refused(404, "M_NOT_FOUND");
    let bob = low.register("bob");
    join_by(&bob, &room, &high.server);
    let member = bob.state(&room, "m.room.member", bob.id()).ok();
    let authorised = member["join_authorised_via_users_server"].as_str().unwrap_or_default();
    assert_eq!(authorised, alice.id(), "by one of the room's own server, who may invite");
    let since = alice.now();
    let hello = bob.send_text(&room, "hello");
    alice.sync_until_event(&since, &room, &hello);

    // Neither by the room's server, nor by the other one.
    let dave = public.register("dave");
    for by in [&high.server, &low.server] {
        let path = format!("/_matrix/client/v3/join/{}?via={}", enc(&room), enc(by.name()));
        let refused = dave.post(&path, json!({}));
        assert!(matches!(refused.status(), 403 | 404), "{}", refused.describe());
    }
    assert_eq!(alice.state(&room, "m.room.member", dave.id()).status(), 404);
}

#[test]
fn a_user_of_a_cleared_server_who_may_not_join_by_policy_is_not_let_in() {
    let (here, there) = (Seat::take(), Seat::take());
    let high = Enclave::start(&here, "Company INTERNAL", &[Peer(&there, "Company INTERNAL", "")], "");
    let low = Enclave::start(&there, "Company INTERNAL", &[Peer(&here, "Company INTERNAL", "")], "");
    let policy = "@id(\"not-mallory\") @reason(\"mallory stays out\")\n\
                  forbid (principal is User, action == Action::\"join\", resource)\n\
                  when { principal.localpart like \"mallory*\" };";
    high.write("policies/join.cedar", policy);
    assert!(high.reread().contains("the border was read again"));
    let (alice, bob, mallory) = (high.register("alice"), low.register("bob"), low.register("mallory"));
    let room = open_room(&alice);
    let path = format!("/_matrix/client/v3/join/{}?via={}", enc(&room), enc(high.server.name()));
    mallory.post(&path, json!({})).refused(403, "M_FORBIDDEN");
    join_by(&bob, &room, &high.server);
}

#[test]
fn rooms_allow_the_servers_that_are_cleared_for_them_as_the_table_of_peers_changes() {
    let (here, there, elsewhere) = (Seat::take(), Seat::take(), Seat::take());
    let both = [Peer(&there, "Company INTERNAL", ""), Peer(&elsewhere, "Company INTERNAL", "")];
    let high = Enclave::start(&here, "Company CONFIDENTIAL", &both, "");
    let low = Enclave::start(&there, "Company INTERNAL", &[Peer(&here, "Company INTERNAL", "")], "");
    let (alice, bob) = (high.register("alice"), low.register("bob"));
    let room = open_room(&alice);
    let plain = alice.create_public_room();
    assert_eq!(acl(&alice, &room)["allow"], hosts(&[&here, &there, &elsewhere]));
    join_by(&bob, &room, &high.server);
    // What people deny stays denied.
    let mut with_denied = acl(&alice, &room);
    with_denied["deny"] = json!(["*.evil.example"]);
    alice.set_state(&room, "m.room.server_acl", "", with_denied);

    // One falls below the room's label, the other is crossed out.
    let peers = [Peer(&there, "Company PUBLIC", "")];
    high.write("border.toml", &document("Company CONFIDENTIAL", &peers, ""));
    high.reread();
    let now = until_allowed(&alice, &room, &hosts(&[&here]));
    assert_eq!(now["deny"], json!(["*.evil.example"]));
    assert_eq!(
        alice.state(&plain, "m.room.server_acl", "").status(),
        404,
        "rooms without a label are let be"
    );
    let since = alice.now();
    bob.send_text(&room, "still here?");
    let after = alice.send_text(&room, "after");
    let seen = alice.sync_until_event(&since, &room, &after).to_string();
    assert!(!seen.contains("still here"), "{seen}");

    // Nothing is sent where nothing changes; and what is given back comes back.
    let last = |count: u32| alice.messages(&room, &format!("dir=b&limit={count}"))["chunk"].clone();
    let before = last(1)[0]["event_id"].clone();
    high.reread();
    high.write("border.toml", &document("Company CONFIDENTIAL", &both, ""));
    high.reread();
    until_allowed(&alice, &room, &hosts(&[&here, &there, &elsewhere]));
    let last = last(2);
    assert_eq!((&last[0]["type"], &last[1]["event_id"]), (&json!("m.room.server_acl"), &before));
}

#[test]
fn a_peer_that_may_be_in_named_rooms_only_is_allowed_in_these() {
    let (here, there) = (Seat::take(), Seat::take());
    let high = Enclave::start(&here, "Company INTERNAL", &[Peer(&there, "Company INTERNAL", "")], "");
    let alice = high.register("alice");
    let (one, other) = (open_room(&alice), open_room(&alice));
    let only = format!("rooms = [\"{one}\"]");
    let peers = [Peer(&there, "Company INTERNAL", only.as_str())];
    high.write("border.toml", &document("Company INTERNAL", &peers, ""));
    high.reread();
    until_allowed(&alice, &other, &hosts(&[&here]));
    assert_eq!(acl(&alice, &one)["allow"], hosts(&[&here, &there]));
}
