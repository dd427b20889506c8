//! A server is away, or cannot be reached, while much happens.

use crate::{
    devices::{KEY, device_keys},
    sides::{Pair, Side, ids, join_by, sees_event, sees_membership, shared_room, talk, until, walk},
};
use postern_world::{Client, enc, events_of};
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

    let many = if pair.host == Side::Postern { ON_POSTERN } else { ON_SYNAPSE };
    while_the_other_is_down(pair, || {
        std::thread::scope(|scope| {
            for member in &members {
                let room = &room;
                let each = many / members.len();
                scope.spawn(move || (0..each).for_each(|number| happens(member, room, number)));
            }
        });
        pair.here("grace").join(&room);
        members[0].leave(&room);
    });

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

/// Does something while the server on which the room is not made is down. That is started again in any case: other tests need it.
fn while_the_other_is_down(pair: &Pair<'_>, happens: impl FnOnce()) {
    if pair.host == Side::Postern {
        pair.synapse.stop();
    } else {
        pair.postern.terminate();
    }
    let happened = catch_unwind(AssertUnwindSafe(happens));
    if pair.host == Side::Postern {
        pair.synapse.start_again();
    } else {
        pair.postern.start_again();
    }
    happened.unwrap_or_else(|why| resume_unwind(why));
}

pub fn messages_to_devices_and_new_devices_wait_for_a_server_that_is_down(pair: &Pair<'_>) {
    /// More than fit into one transaction.
    const MESSAGES: u64 = 150;
    let (alice, bob) = pair.couple();
    alice.post("v3/keys/upload", json!({ "device_keys": device_keys(&alice, KEY) })).done();
    shared_room(&alice, &bob);
    let query = || bob.post("v3/keys/query", json!({ "device_keys": { alice.id(): [] } })).ok();
    assert!(query()["device_keys"][alice.id()][alice.device()].is_object());
    let mut since = bob.now();
    let mut second = None;
    while_the_other_is_down(pair, || {
        for number in 0..MESSAGES {
            let path = format!("v3/sendToDevice/org.example.note/{}", alice.transaction());
            let message = json!({ "messages": { bob.id(): { bob.device(): { "number": number } } } });
            alice.put(&path, message).done();
        }
        let device = alice.log_in_again();
        device.post("v3/keys/upload", json!({ "device_keys": device_keys(&device, KEY) })).done();
        second = Some(device);
    });
    let second = second.unwrap();
    let (mut numbers, mut changed) = (Vec::new(), false);
    until("all messages and the change have come", || {
        let answer = bob.sync_with(&format!("timeout=100&since={}", enc(&since)));
        since = answer["next_batch"].as_str().expect("a token").to_owned();
        let notes = events_of(&answer["to_device"]);
        numbers.extend(notes.iter().filter_map(|note| note["content"]["number"].as_u64()));
        changed |= answer["device_lists"]["changed"].to_string().contains(alice.id());
        changed && numbers.len() >= usize::try_from(MESSAGES).unwrap()
    });
    assert_eq!(numbers, (0..MESSAGES).collect::<Vec<_>>());
    until("the new device is found", || query()["device_keys"][alice.id()][second.device()].is_object());
}

pub fn servers_that_were_parted_agree_afterwards(pair: &Pair<'_>) {
    const ROUNDS: usize = 20;
    let (alice, bob) = pair.couple();
    let (carol, dave) = (pair.here("carol"), pair.there("dave"));
    let room = shared_room(&alice, &bob);
    join_by(&carol, &room, &alice);
    join_by(&dave, &room, &alice);
    alice.change_power_levels(&room, |levels| levels["users"][bob.id()] = json!(100));
    until("Bob has the power", || bob.state(&room, "m.room.power_levels", "")["users"][bob.id()] == 100);
    talk(&dave, &carol, &room);

    let gates = [pair.gate, pair.synapse.gate()];
    gates.iter().for_each(|gate| gate.close());
    let mut said = Vec::new();
    // Opened again in any case: other tests need them.
    let parted = catch_unwind(AssertUnwindSafe(|| {
        for (who, friend, foe) in [(&alice, &carol, &dave), (&bob, &dave, &carol)] {
            for number in 0..ROUNDS {
                said.push(who.send_text(&room, &format!("{number}")));
                let text = format!("{number} of {}", who.id());
                who.set_state(&room, "m.room.topic", "", json!({ "topic": text }));
                who.set_state(&room, "m.room.name", "", json!({ "name": text }));
                who.set_state(&room, "org.example.own", who.id(), json!({ "number": number }));
            }
            who.change_power_levels(&room, |levels| {
                levels["users"][friend.id()] = json!(50);
                levels["events"]["org.example.own"] = json!(50);
            });
            friend.set_state(&room, "m.room.topic", "", json!({ "topic": friend.id() }));
            who.ban(&room, foe);
        }
    }));
    gates.iter().for_each(|gate| gate.open());
    parted.unwrap_or_else(|why| resume_unwind(why));

    for (from, to) in [(&alice, &bob), (&bob, &alice)] {
        let again = from.send_text(&room, "can you hear me");
        sees_event(to, &room, &again);
    }
    until("both have the same state", || state(&alice, &room) == state(&bob, &room));
    for who in [&alice, &bob] {
        until("both have what either said", || {
            let have = ids(&walk(who, &room));
            said.iter().all(|event| have.contains(event))
        });
    }
    talk(&alice, &bob, &room);
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
