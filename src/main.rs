//! Postern, a federated Matrix homeserver: the command line, and the one place where the parts are put together.

mod bundles;
mod cli;
mod health;
mod listen;
mod logging;
mod maintain;
mod observe;
mod peer;
mod probe;
mod serve;
mod stall;
mod tls;

use std::process::ExitCode;

/// Less memory lost to fragmentation than the system's allocator, with many short-lived responses.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    cli::run()
}
