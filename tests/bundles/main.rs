//! Enclaves without a network between them: servers that are each the built program, and share rooms by bundles alone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod diode;
mod enclaves;
mod gaps;
mod hostile;
mod sharing;

/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_postern");
