//! Servers with each other: two and more of this program, over TLS.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod everyday;
mod membership;

/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_postern");
