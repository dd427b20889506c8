//! Leaving, and being made to.

use crate::sides::{Pair, join_by, says_to, sees_membership, shared_room, talk, try_join_by, until};
use serde_json::json;

pub fn somebody_leaves_and_comes_back(pair: &Pair<'_>) {
    let (alice, bob) = pair.couple();
    let room = shared_room(&alice, &bob);
    bob.leave(&room);
    sees_membership(&alice, &room, &bob, "leave");
    let missed = alice.send_text(&room, "nobody of elsewhere is here");
    join_by(&bob, &room, &alice);
    sees_membership(&alice, &room, &bob, "join");
    talk(&bob, &alice, &room);
    until("what was missed is fetched", || {
        bob.messages(&room, "dir=b&limit=50").to_string().contains(&missed)
    });
    // The maker leaves, and the others stay.
    let carol = pair.there("carol");
    join_by(&carol, &room, &alice);
    alice.leave(&room);
    sees_membership(&bob, &room, &alice, "leave");
    talk(&bob, &carol, &room);
}

pub fn somebody_is_kicked(pair: &Pair<'_>) {
    let (alice, bob) = pair.couple();
    let room = shared_room(&alice, &bob);
    let since = bob.now();
    alice.kick(&room, &bob);
    bob.sync_until(&since, |answer| answer["rooms"]["leave"][&room].is_object());
    assert_eq!(bob.try_send(&room, "m.room.message", json!({ "body": "but" })).status(), 403);
    join_by(&bob, &room, &alice);
    talk(&alice, &bob, &room);
    // And the other way round, by somebody who was given the power.
    let carol = pair.here("carol");
    join_by(&carol, &room, &alice);
    alice.change_power_levels(&room, |levels| levels["users"][bob.id()] = json!(50));
    until("Bob may kick", || bob.about_member(&room, "kick", carol.id()).status() == 200);
    sees_membership(&alice, &room, &carol, "leave");
}

pub fn somebody_is_banned_and_let_in_again(pair: &Pair<'_>) {
    let (alice, bob) = pair.couple();
    let room = shared_room(&alice, &bob);
    let since = bob.now();
    alice.ban(&room, &bob);
    bob.sync_until(&since, |answer| answer["rooms"]["leave"][&room].is_object());
    assert_eq!(try_join_by(&bob, &room, &alice).status(), 403);
    alice.unban(&room, &bob);
    join_by(&bob, &room, &alice);
    sees_membership(&alice, &room, &bob, "join");
    talk(&bob, &alice, &room);
}

pub fn a_server_that_a_room_denies_is_kept_out(pair: &Pair<'_>) {
    let (alice, bob) = pair.couple();
    let room = shared_room(&alice, &bob);
    says_to(&bob, &alice, &room, "before");
    let host = bob.server_name().split(':').next().unwrap();
    let acl = json!({ "allow": ["*"], "deny": [host], "allow_ip_literals": true });
    let denied = alice.set_state(&room, "m.room.server_acl", "", acl);
    until("the other server knows", || bob.event(&room, &denied).status() == 200);
    let unheard = bob.send_text(&room, "nobody there hears this");
    // Another room, where it is heard, shows when it would have been.
    let other = shared_room(&alice, &bob);
    says_to(&bob, &alice, &other, "but this");
    assert_eq!(alice.event(&room, &unheard).status(), 404);
    let newcomer = pair.there("carol");
    let second = alice.create_public_room();
    let acl = json!({ "allow": ["*"], "deny": [host], "allow_ip_literals": true });
    alice.set_state(&second, "m.room.server_acl", "", acl);
    assert_eq!(try_join_by(&newcomer, &second, &alice).status(), 403);
}
