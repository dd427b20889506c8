//! Guests (specification: guest access).

use super::*;

#[test]
fn guests_register_and_are_told_that_they_are_guests() {
    let guest = server().register_guest();
    assert_eq!(guest.get("v3/account/whoami").ok()["is_guest"], true);
    assert!(!guest.device().is_empty());
}

#[test]
fn guests_join_rooms_that_take_them_and_no_others() {
    let alice = user("alice");
    let guest = server().register_guest();
    let open = alice.create_room(json!({ "preset": "public_chat", "initial_state": [
        { "type": "m.room.guest_access", "state_key": "", "content": { "guest_access": "can_join" } },
    ] }));
    guest.join(&open);
    guest.send_text(&open, "hello");
    let answer = guest.try_join(&alice.create_public_room());
    assert_eq!(answer.status(), 403, "{}", answer.describe());
}

#[test]
fn where_guests_are_not_taken_none_registers() {
    let server = Server::with(PROGRAM, &[("registration.guests", "false")]);
    let answer = server.anyone().post("v3/register?kind=guest", json!({}));
    answer.refused(403, "M_GUEST_ACCESS_FORBIDDEN");
}
