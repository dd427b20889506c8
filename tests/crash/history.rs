//! What a room's history says in the end, against what senders were told.

use crate::sender::Told;
use postern_world::{Client, enc};
use std::collections::HashMap;

/// A message in a room's history: its id and what it says.
pub type Message = (String, String);

/// All messages of a room, oldest first.
pub fn messages(client: &Client, room: &str) -> Vec<Message> {
    let mut messages = Vec::new();
    let mut from = String::new();
    loop {
        let page = client.messages(room, &format!("dir=b&limit=500{from}"));
        for event in page["chunk"].as_array().expect("a chunk") {
            if event["type"] == "m.room.message" {
                let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
                messages.push((text(&event["event_id"]), text(&event["content"]["body"])));
            }
        }
        match page["end"].as_str() {
            Some(end) => from = format!("&from={}", enc(end)),
            None => break,
        }
    }
    messages.reverse();
    messages
}

/// Everything in `told`, which one sender was told in this order, is in the histories once, in that order, with the
/// id that was told.
#[track_caller]
pub fn contains(histories: &[Vec<Message>], told: &[Told]) {
    let places: Vec<HashMap<&str, (usize, &str)>> = histories
        .iter()
        .map(|history| {
            let places: HashMap<&str, (usize, &str)> =
                history.iter().enumerate().map(|(n, (id, body))| (body.as_str(), (n, id.as_str()))).collect();
            assert_eq!(places.len(), history.len(), "something was sent twice");
            places
        })
        .collect();
    let mut last: Vec<Option<usize>> = vec![None; histories.len()];
    for told in told {
        let Some((place, id)) = places[told.room].get(told.body.as_str()) else {
            panic!("{told:?} is lost");
        };
        assert_eq!(*id, told.event, "{told:?} has another id");
        assert!(last[told.room] < Some(*place), "{told:?} is out of order");
        last[told.room] = Some(*place);
    }
}
