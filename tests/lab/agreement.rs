//! Whether all servers have the same.

use crate::{pause, people::Person};
use postern_world::{Client, enc};
use std::collections::{BTreeMap, BTreeSet};

/// How often it is looked whether all agree, and how long between looks, milliseconds.
const LOOKS: usize = 90;
const LOOK_MS: u64 = 1_000;
/// Events of a page.
const PAGE: usize = 1_000;
/// Differences that are shown.
const SHOWN: usize = 10;

/// A room as one server has it.
#[derive(PartialEq, Eq)]
struct View {
    /// Event ids by type and state key.
    state: BTreeMap<(String, String), String>,
    /// Ids of all events.
    events: BTreeSet<String>,
}

impl View {
    fn of(client: &Client, room: &str) -> Self {
        let text =
            |event: &serde_json::Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
        let state = client.all_state(room);
        let state = state
            .iter()
            .map(|event| ((text(event, "type"), text(event, "state_key")), text(event, "event_id")));
        let mut events = BTreeSet::new();
        let mut from: Option<String> = None;
        loop {
            let mut query = format!("dir=b&limit={PAGE}");
            if let Some(from) = &from {
                query += &format!("&from={}", enc(from));
            }
            let page = client.messages(room, &query);
            events.extend(page["chunk"].as_array().unwrap().iter().map(|event| text(event, "event_id")));
            match page["end"].as_str() {
                Some(end) if from.as_deref() != Some(end) => from = Some(end.to_owned()),
                _ => break,
            }
        }
        Self { state: state.collect(), events }
    }
}

/// Waits until all servers have the same of each room, without anybody doing anything, and have what was acknowledged.
pub fn reached(people: &[Person], rooms: &[String]) {
    // One of each server.
    let mut watchers: BTreeMap<&str, &Client> = BTreeMap::new();
    for person in people {
        watchers.entry(person.client.server_name()).or_insert(&person.client);
    }
    for (at, room) in rooms.iter().enumerate() {
        let told: BTreeSet<String> = people.iter().flat_map(|person| person.told_in(at)).collect();
        let mut wrong = String::new();
        let agreed = (0..LOOKS).any(|_| {
            let views: Vec<(&str, View)> =
                watchers.iter().map(|(server, client)| (*server, View::of(client, room))).collect();
            wrong = differences(&views, &told);
            wrong.is_empty() || {
                pause(LOOK_MS);
                false
            }
        });
        if !agreed {
            panic!("the servers do not agree on {room}:\n{wrong}{}", shown(&watchers, room));
        }
    }
}

/// The events that not all servers have, as those have them that do.
fn shown(watchers: &BTreeMap<&str, &Client>, room: &str) -> String {
    let views: Vec<(&&Client, View)> =
        watchers.values().map(|client| (client, View::of(client, room))).collect();
    let all: BTreeSet<&String> = views.iter().flat_map(|(_, view)| &view.events).collect();
    let mut text = String::new();
    let differing = |event: &&&String| views.iter().any(|(_, view)| !view.events.contains(**event));
    for event in all.iter().filter(differing).take(SHOWN) {
        for (client, _) in &views {
            let known = client.loose().event(room, event);
            text += &format!("on {}: {}\n", client.server_name(), known.describe());
        }
    }
    text
}

fn differences(views: &[(&str, View)], told: &BTreeSet<String>) -> String {
    let mut wrong = String::new();
    let all: BTreeSet<&String> = views.iter().flat_map(|(_, view)| &view.events).chain(told).collect();
    for (server, view) in views {
        let missing: Vec<&&String> = all.iter().filter(|event| !view.events.contains(**event)).collect();
        if !missing.is_empty() {
            let acknowledged = missing.iter().filter(|event| told.contains(**event as &str)).count();
            let shown = &missing[..missing.len().min(SHOWN)];
            wrong += &format!(
                "{server} lacks {} of {} events, {acknowledged} of them acknowledged: {shown:?}\n",
                missing.len(),
                all.len()
            );
        }
        for (key, event) in &views[0].1.state {
            if view.state.get(key) != Some(event) {
                wrong += &format!(
                    "{key:?} is {event} on {} and {:?} on {server}\n",
                    views[0].0,
                    view.state.get(key)
                );
            }
        }
        for key in view.state.keys().filter(|key| !views[0].1.state.contains_key(*key)) {
            wrong += &format!("{key:?} is there on {server} only\n");
        }
    }
    wrong
}
