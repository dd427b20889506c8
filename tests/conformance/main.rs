//! The client-server specification, section by section, on the built program: a file per section of its prose, a test per
//! sentence.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod account;
mod creation;
mod devices;
mod directory;
mod discovery;
mod encryption;
mod endpoints;
mod ephemeral;
mod guests;
mod interactive;
mod limits;
mod login;
mod media;
mod membership;
mod operator;
mod paging;
mod personal;
mod profiles;
mod registration;
mod relations;
mod sending;
mod sliding;
mod state;
mod syncing;
mod upgrades;

use postern_world::{Answer, Client, Method, PASSWORD, Server, enc, events_of, timeline};
use serde_json::{Value, json};

/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_postern");

/// The server that tests with the usual settings share.
fn server() -> &'static Server {
    postern_world::shared(PROGRAM)
}

/// A new user of the shared server.
fn user(name: &str) -> Client {
    server().register(name)
}

/// Two new users of the shared server.
fn two_users() -> (Client, Client) {
    (user("alice"), user("bob"))
}

/// Two new users, in a room of the first.
fn two_in_a_room() -> (Client, Client, String) {
    let (alice, bob) = two_users();
    let room = alice.create_room_with(&[&bob]);
    (alice, bob, room)
}

/// A string that must be there.
#[track_caller]
fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

/// The elements of an array; none if it is not there.
fn array(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

/// One field of each element, as text; what has none is passed over.
fn fields(values: &[Value], field: &str) -> Vec<String> {
    values.iter().filter_map(|value| value[field].as_str().map(str::to_owned)).collect()
}

/// The bodies of messages.
fn bodies(events: &[Value]) -> Vec<String> {
    events.iter().filter_map(|event| event["content"]["body"].as_str().map(str::to_owned)).collect()
}
