//! A word that is above somebody's clearance is put wherever words go; then everything is asked that can be asked, by everybody,
//! and the word is looked for in all that leaves.
//!
//! The endpoints are those of `tests/bad_input/table.rs`, which has all of the client API, and those of [`servers`], which is held
//! against the source. An endpoint that has no case fails the test.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code, reason = "shared")]
#[path = "../mallory/answers.rs"]
mod answers;
mod choir;
mod clients;
#[path = "../border/enclaves.rs"]
mod enclaves;
#[allow(dead_code, reason = "shared")]
#[path = "../bad_input/endpoint.rs"]
mod endpoint;
#[allow(dead_code, reason = "shared")]
#[path = "../mallory/listen.rs"]
mod listen;
mod matrix;
#[allow(dead_code, reason = "shared")]
#[path = "../mallory/peer.rs"]
mod peer;
#[allow(dead_code, reason = "shared")]
#[path = "../mallory/room.rs"]
mod room;
mod servers;
#[path = "../bad_input/table.rs"]
mod table;

/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_postern");
