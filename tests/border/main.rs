//! The border between enclaves: servers that are each the built program, with what their security officers wrote.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod admission;
mod commands;
mod enclaves;
mod encryption;
mod files;
mod inside;
mod labels;
mod officers;
mod pins;
mod policies;
mod policy_server;
mod rooms;
mod waiting;

/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_postern");
