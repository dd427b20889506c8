//! Somebody who syncs, from where they were, whatever becomes of the server.

use crate::{pause, sender::ask};
use postern_world::{Client, Method, enc, events_of, timeline};
use rand::{RngExt, rngs::StdRng};
use serde_json::{Value, json};
use std::{
    collections::HashSet,
    sync::atomic::{AtomicBool, Ordering},
};

/// How long an answer may wait for something to happen, milliseconds.
const WAIT_MS: u64 = 2_000;
/// Between two attempts, milliseconds.
const AGAIN_MS: u64 = 10;
/// Events of a room in one answer: more than can come between two.
const LIMIT: u64 = 1_000;

/// What somebody was told.
#[derive(Debug, Default)]
pub struct Heard {
    /// For each room: ids of messages, in order.
    pub messages: Vec<Vec<String>>,
    /// What messages to the device say, in order.
    pub notes: Vec<String>,
}

/// Syncs on from `since` until `finished`, and then until there is nothing new. Now and then an answer is thrown away, as by a
/// client that ends before it has stored it, and asked for again.
pub fn listen(
    client: &Client,
    rooms: &[String],
    since: String,
    mut random: StdRng,
    finished: &AtomicBool,
) -> Heard {
    let filter =
        json!({ "room": { "timeline": { "limit": LIMIT } }, "presence": { "types": [] } }).to_string();
    let mut heard = Heard { messages: vec![Vec::new(); rooms.len()], ..Heard::default() };
    let mut known = HashSet::new();
    let mut since = since;
    loop {
        let last = finished.load(Ordering::Relaxed);
        let wait = if last { 0 } else { WAIT_MS };
        let path =
            format!("/_matrix/client/v3/sync?timeout={wait}&since={}&filter={}", enc(&since), enc(&filter));
        let Some(answer) = ask(client, &Method::GET, &path, None) else {
            pause(AGAIN_MS);
            continue;
        };
        assert_eq!(answer.status(), 200, "{}", answer.describe());
        if random.random_ratio(1, 5) {
            continue;
        }
        let answer = answer.body();
        let found = take(answer, rooms, &mut heard, &mut known);
        answer["next_batch"].as_str().expect("next_batch").clone_into(&mut since);
        if last && !found {
            return heard;
        }
    }
}

/// Adds what an answer tells; whether it tells anything.
fn take(answer: &Value, rooms: &[String], heard: &mut Heard, known: &mut HashSet<String>) -> bool {
    let mut found = false;
    for (room, messages) in rooms.iter().zip(&mut heard.messages) {
        let joined = &answer["rooms"]["join"][room];
        assert_ne!(joined["timeline"]["limited"], true, "there was a gap: {joined}");
        for event in timeline(answer, room) {
            let id = event["event_id"].as_str().expect("an event id").to_owned();
            assert!(known.insert(id.clone()), "told twice: {event}");
            if event["type"] == "m.room.message" {
                messages.push(id);
            }
            found = true;
        }
    }
    for note in events_of(&answer["to_device"]) {
        let text = note["content"]["note"].as_str().expect("a note").to_owned();
        assert!(known.insert(text.clone()), "given twice: {note}");
        heard.notes.push(text);
        found = true;
    }
    found
}
