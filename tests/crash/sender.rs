//! Somebody who sends without end, and who repeats what was not answered, as clients do.

use crate::pause;
use postern_world::{Answer, Client, Method, enc};
use rand::{RngExt, rngs::StdRng};
use serde_json::{Value, json};
use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

/// Between two attempts, milliseconds.
const AGAIN_MS: u64 = 10;
/// The longest pause between two messages, milliseconds.
const PAUSE_MS: u64 = 12;

/// A message the server said it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The room it was sent to.
    pub room: usize,
    /// What it says; no two say the same.
    pub body: String,
    /// The id the server gave it.
    pub event: String,
}

/// Somebody who sends.
pub struct Sender<'w> {
    /// As whom.
    pub client: Client,
    /// Where to.
    pub rooms: &'w [String],
    /// Devices that get messages of their own: user and device.
    pub devices: &'w [(String, String)],
    /// What the server said it has, in the order it was sent.
    pub told: Mutex<Vec<Told>>,
    /// Messages to each of `devices` that the server said it has, in the order they were sent.
    pub to_devices: Mutex<Vec<(usize, String)>>,
}

impl<'w> Sender<'w> {
    pub fn new(client: Client, rooms: &'w [String], devices: &'w [(String, String)]) -> Self {
        Self { client, rooms, devices, told: Mutex::default(), to_devices: Mutex::default() }
    }

    /// Sends until `stop`, and then until the last message is answered.
    pub fn run(&self, mut random: StdRng, stop: &AtomicBool) {
        for n in 0.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let body = format!("{} {n}", self.client.localpart());
            if !self.devices.is_empty() && random.random_ratio(1, 3) {
                let to = random.random_range(0..self.devices.len());
                self.to_device(to, &body);
                self.to_devices.lock().unwrap().push((to, body));
            } else {
                let room = random.random_range(0..self.rooms.len());
                let event = self.message(room, &body);
                self.told.lock().unwrap().push(Told { room, body, event });
            }
            pause(random.random_range(0..=PAUSE_MS));
        }
    }

    /// Sends a message until it is answered; its id. The transaction is named by what it says.
    pub fn message(&self, room: usize, body: &str) -> String {
        let path =
            format!("/_matrix/client/v3/rooms/{}/send/m.room.message/{}", enc(&self.rooms[room]), enc(body));
        let answer = self.until_answered(&path, &json!({ "msgtype": "m.text", "body": body }));
        answer["event_id"].as_str().expect("an event id").to_owned()
    }

    fn to_device(&self, to: usize, body: &str) {
        let (user, device) = &self.devices[to];
        let path = format!("/_matrix/client/v3/sendToDevice/test.note/{}", enc(body));
        self.until_answered(&path, &json!({ "messages": { user: { device: { "note": body } } } }));
    }

    fn until_answered(&self, path: &str, body: &Value) -> Answer {
        loop {
            if let Some(answer) = ask(&self.client, &Method::PUT, path, Some(body)) {
                assert_eq!(answer.status(), 200, "{}", answer.describe());
                return answer;
            }
            pause(AGAIN_MS);
        }
    }
}

/// An answer, or nothing when the connection died. Neither is held against the specification: there are many.
pub fn ask(client: &Client, method: &Method, path: &str, body: Option<&Value>) -> Option<Answer> {
    let bearer = format!("Bearer {}", client.token());
    let body = body.map(Value::to_string).unwrap_or_default();
    client.link().send(method, path, &[("authorization", &bearer)], body).ok()
}
