//! Two clients of the Matrix Rust SDK, as Element X is built on, over simplified sliding sync: what the other one shows.
#![cfg(test)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod encrypted;
mod person;
mod room_list;
mod server;
mod timeline;
