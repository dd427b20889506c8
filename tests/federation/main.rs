//! Servers among themselves: several Posterns on loopback addresses, with TLS, each the built program.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod certificates;
mod everyday;
mod keys;
mod membership;

use postern_world::{Answer, Link, Method, Server};
use serde_json::Value;

/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_postern");

/// A request without a signature to a server.
fn ask(server: &Server, method: Method, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    Link::to(&server.address()).send(&method, path, headers, body).expect("an answer")
}

fn get(server: &Server, path: &str) -> Answer {
    ask(server, Method::GET, path, &[], &Value::Null)
}
