//! The client-server specification, section by section, on the built program: a file per section of its prose, a test per
//! sentence.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod discovery;

use postern_world::Server;

/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_postern");

/// The server that tests with the usual settings share.
fn server() -> &'static Server {
    postern_world::shared(PROGRAM)
}
