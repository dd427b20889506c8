//! The world of the whole-server tests: servers as processes, clients that speak to them over HTTP, and the
//! specification that both are held to.
//!
//! A test starts with a [`Server`], or with one that all tests of a program share ([`shared`]), registers a user and goes
//! on in plain verbs:
//!
//! ```no_run
//! # use serde_json::json;
//! let server = postern_world::shared("target/debug/postern");
//! let alice = server.register("alice");
//! let room = alice.create_room(json!({ "preset": "public_chat" }));
//! alice.send_text(&room, "hello");
//! ```
//!
//! Every request that a server accepted, and every answer, is held against the OpenAPI data of the Matrix specification, where
//! that is present: see [`spec`]. A server ends with its [`Server`], and at the latest with the program that runs the
//! tests, however that ends.

// A world for tests: what goes wrong here fails the test, with a sentence.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod answer;
mod client;
mod federation;
mod gate;
mod keeper;
mod link;
pub mod network;
mod rooms;
pub mod secret;
mod server;
pub mod spec;
mod synapse;
mod syncing;

pub use answer::Answer;
pub use client::{Client, PASSWORD};
pub use federation::{Seat, pair};
pub use gate::Gate;
pub use http::Method;
pub use link::{Broken, Link};
pub use network::Network;
pub use server::{SHARED_SECRET, Server, free_address, shared};
pub use synapse::Synapse;
pub use syncing::{events_of, timeline};

/// A path segment, percent-encoded.
#[must_use]
pub fn enc(segment: &str) -> String {
    percent_encoding::utf8_percent_encode(segment, percent_encoding::NON_ALPHANUMERIC).to_string()
}
