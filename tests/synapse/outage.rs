//! A server is away while much happens.

use crate::sides::{Pair, Side, ids, join_by, sees_event, sees_membership, talk, until, walk};
use postern_world::Client;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

/// What happens meanwhile, events: less on Synapse, which is slower at it.
const ON_POSTERN: usize = 2_000;
const ON_SYNAPSE: usize = 500;
/// Every so many events there is a change of state.
const STATE_EVERY: usize = 25;

pub fn what_one_server_missed_while_it_was_down_is_made_up_for(pair: &Pair<'_>) {
    let (alice, bob) = pair.couple();
    let members = ["carol", "dave", "erin", "frank"].map(|name| pair.here(name));
    let room = alice.create_public_room();
    alice.change_power_levels(&room, |levels| levels["users_default"] = json!(50));
    for member in &members {
        member.join(&room);
    }
    join_by(&bob, &room, &alice);
    sees_membership(&alice, &room, &bob, "join");
    talk(&alice, &bob, &room);

    let many = if pair.host == Side::Postern {
        pair.synapse.stop();
        ON_POSTERN
    } else {
        pair.postern.terminate();
        ON_SYNAPSE
    };
    // The server is started again in any case: other tests need it.
    let happened = catch_unwind(AssertUnwindSafe(|| {
        std::thread::scope(|scope| {
            for member in &members {
                let room = &room;
                let each = many / members.len();
                scope.spawn(move || (0..each).for_each(|number| happens(member, room, number)));
            }
        });
        pair.here("grace").join(&room);
        members[0].leave(&room);
    }));
    if pair.host == Side::Postern {
        pair.synapse.start_again();
    } else {
        pair.postern.start_again();
    }
    happened.unwrap_or_else(|why| resume_unwind(why));

    // Either may wake the other.
    let back = bob.send_text(&room, "back");
    sees_event(&alice, &room, &back);
    let said = alice.send_text(&room, "there you are");
    sees_event(&bob, &room, &said);
    until("both have the same state", || state(&alice, &room) == state(&bob, &room));
    let all = walk(&alice, &room);
    assert!(all.len() > many, "{}", all.len());
    let wanted = ids(&all);
    let mut have = Vec::new();
    until("both have the same history", || {
        have = ids(&walk(&bob, &room));
        have == wanted
    });
    assert_eq!(state(&alice, &room), state(&bob, &room));
}

fn happens(member: &Client, room: &str, number: usize) {
    if number % STATE_EVERY == STATE_EVERY / 2 {
        let kind = ["m.room.topic", "m.room.name", "org.example.own"][number / STATE_EVERY % 3];
        let content = json!({ "topic": number.to_string(), "name": number.to_string() });
        let key = if kind == "org.example.own" { member.id() } else { "" };
        member.set_state(room, kind, key, content);
    } else {
        member.send_text(room, &format!("{number} of {}", member.id()));
    }
}

/// The state: for each type and key the event, and what it says.
fn state(who: &Client, room: &str) -> BTreeMap<(String, String), (String, Value)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    who.all_state(room)
        .into_iter()
        .map(|event| {
            let key = (text(&event["type"]), text(&event["state_key"]));
            (key, (text(&event["event_id"]), event["content"].clone()))
        })
        .collect()
}
