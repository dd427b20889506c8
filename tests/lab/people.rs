//! People, who write and change state, and who repeat what was not answered, as clients do.

use crate::pause;
use postern_world::{Answer, Client, Method, Server, enc};
use rand::{RngExt, rngs::StdRng};
use serde_json::{Value, json};
use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

/// Between two attempts, milliseconds.
const AGAIN_MS: u64 = 20;
/// Between two things a person does, milliseconds.
const PAUSE_MS: std::ops::RangeInclusive<u64> = 30..=350;
/// How often it is looked whether all servers know all members at the beginning, and how long between looks.
const LOOKS: usize = 600;
const LOOK_MS: u64 = 50;
/// State keys that people fight over.
const KEYS: usize = 4;

/// Somebody on one of the servers.
pub struct Person {
    pub client: Client,
    /// What the server said it has: room and event.
    told: Mutex<Vec<(usize, String)>>,
}

/// People on all servers, and rooms that all of them are in. The rooms are made on one server after the other, and are of
/// versions whose rules differ in what faults bring about: 12 resolves state by other rules.
pub fn gather(servers: &[Server], people: usize, rooms: usize) -> (Vec<Person>, Vec<String>) {
    let people: Vec<Person> = servers
        .iter()
        .flat_map(|server| (0..people).map(|n| server.register(&format!("person{n}"))))
        .map(|client| Person { client, told: Mutex::default() })
        .collect();
    let rooms: Vec<String> = (0..rooms)
        .map(|n| {
            let owner = &people[n * people.len() / rooms].client;
            let room = owner.create_room(json!({
                "preset": "public_chat",
                "room_version": if n % 2 == 0 { "12" } else { "10" },
                // State changes of all are allowed, so that no acknowledged event loses its right to be there.
                "power_level_content_override": { "users_default": 50 },
            }));
            let path = format!("/_matrix/client/v3/join/{}?via={}", enc(&room), enc(owner.server_name()));
            for person in people.iter().filter(|person| person.client.id() != owner.id()) {
                person.client.post(&path, json!({})).done();
            }
            room
        })
        .collect();
    for (at, person) in (0..rooms.len()).flat_map(|at| people.iter().map(move |person| (at, person))) {
        let room = &rooms[at];
        let owner = &people[at * people.len() / rooms.len()].client;
        let knows = || {
            let members = person.client.get(&Client::room_path(room, "joined_members")).ok();
            members["joined"].as_object().map(serde_json::Map::len) == Some(people.len())
        };
        let known = (0..LOOKS).any(|look| {
            knows() || {
                // Who joins on one server while another server joins is not sent to the latter, which nobody knew of; it
                // learns of it from what comes next.
                if look % 20 == 0 {
                    owner.send_text(room, "Is everybody here?");
                }
                pause(LOOK_MS);
                false
            }
        });
        assert!(known, "{} does not learn of all members, without any fault", person.client.id());
    }
    (people, rooms)
}

impl Person {
    /// How many events were acknowledged.
    pub fn told(&self) -> usize {
        self.told.lock().unwrap().len()
    }

    /// The events of a room that were acknowledged.
    pub fn told_in(&self, room: usize) -> Vec<String> {
        let told = self.told.lock().unwrap();
        told.iter().filter(|(in_room, _)| *in_room == room).map(|(_, event)| event.clone()).collect()
    }

    /// Writes and changes state until `stop`, and then until the last request is answered.
    pub fn live(&self, rooms: &[String], mut random: StdRng, stop: &AtomicBool) {
        for n in 0.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let at = random.random_range(0..rooms.len());
            let room = enc(&rooms[at]);
            let text = format!("{} {n}", self.client.localpart());
            let state = |kind: &str, key: &str| format!("state/{kind}/{}", enc(key));
            let (rest, content) = match random.random_range(0..12) {
                0 => (state("m.room.topic", ""), json!({ "topic": text })),
                1 => (state("m.room.name", ""), json!({ "name": text })),
                2 | 3 => {
                    let key = format!("key{}", random.random_range(0..KEYS));
                    (state("lab.state", &key), json!({ "value": text }))
                }
                4 => {
                    let own = json!({ "membership": "join", "displayname": text });
                    (state("m.room.member", self.client.id()), own)
                }
                _ => {
                    let message = json!({ "msgtype": "m.text", "body": text });
                    (format!("send/m.room.message/{}", enc(&text)), message)
                }
            };
            let answer = self.until_answered(&format!("/_matrix/client/v3/rooms/{room}/{rest}"), &content);
            let event = answer["event_id"].as_str().expect("an event id").to_owned();
            self.told.lock().unwrap().push((at, event));
            pause(random.random_range(PAUSE_MS));
        }
    }

    fn until_answered(&self, path: &str, body: &Value) -> Answer {
        let bearer = format!("Bearer {}", self.client.token());
        loop {
            let sent =
                self.client.link().send(&Method::PUT, path, &[("authorization", &bearer)], body.to_string());
            if let Ok(answer) = sent {
                assert_eq!(answer.status(), 200, "{}", answer.describe());
                return answer;
            }
            pause(AGAIN_MS);
        }
    }
}
