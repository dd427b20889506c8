//! What clients were told stays true: over kills at any moment, an orderly end, backups, and databases that cannot be
//! opened.
//!
//! Moments are random. The seed is printed, and `POSTERN_TEST_SEED` sets it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod backup;
mod crowd;
mod ending;
mod history;
mod kills;
mod listener;
mod refusal;
mod sender;

use postern_world::Server;
use rand::{SeedableRng, rngs::StdRng};
use std::time::Duration;

const PROGRAM: &str = env!("CARGO_BIN_EXE_postern");

/// Random numbers, the same again for the same seed.
fn random(test: &str) -> StdRng {
    let seed = match std::env::var("POSTERN_TEST_SEED") {
        Ok(seed) => seed.parse().expect("POSTERN_TEST_SEED is a number"),
        Err(_) => rand::random(),
    };
    // Shown when the test fails.
    println!("{test}: POSTERN_TEST_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

fn pause(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

/// Nothing is wrong with the database of a server that does not run.
#[track_caller]
fn healthy(server: &Server) {
    let output = server.run(&["doctor"]);
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the doctor says: {said}");
}
