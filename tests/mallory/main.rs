//! Attacks: a hostile server (`Mallory`) in this process against the built program. The numbers in the tests' names are
//! those of `docs/attacks.toml`, which says what each attack is and where it was seen.
//!
//! Where it can be, an attack is tried beside its honest form, so that a refusal is for the right reason.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod answers;
mod authorisation;
mod border;
mod confidentiality;
mod exhaustion;
mod honest;
mod invites;
mod joining;
mod listen;
mod logs;
mod media;
mod peer;
mod policy;
mod proposals;
mod report;
mod room;
mod signing;
mod state;
mod third_party;
mod tokens;
mod visibility;

use peer::{Mallory, fate, until};
use postern_world::{Client, Server, enc};
use serde_json::{Value, json};
use std::sync::OnceLock;

/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_postern");

/// A server all tests may use that do not ask it for more than one server should take. Its log says what became of
/// events, and why.
fn shared() -> &'static Server {
    static SHARED: OnceLock<Server> = OnceLock::new();
    SHARED.get_or_init(server)
}

/// A server of one's own.
fn server() -> Server {
    server_with(&[])
}

fn server_with(settings: &[(&str, &str)]) -> Server {
    let mut all = vec![("log.level", "warn,postern_rooms=info,postern_federation=info")];
    all.extend_from_slice(settings);
    Server::federating(PROGRAM, &all)
}

/// What a join by way of the hostile server is answered.
fn try_join(who: &Client, room: &str, by: &Mallory) -> postern_world::Answer {
    let path = format!("/_matrix/client/v3/join/{}?via={}", enc(room), enc(by.name()));
    who.post(&path, json!({}))
}

/// A room of a user of the server, and one of the hostile server's in it.
struct Scene {
    here: &'static Server,
    mallory: Mallory,
    alice: Client,
    eve: String,
    room: String,
}

impl Scene {
    fn new() -> Self {
        Self::of_version("10")
    }

    fn of_version(version: &str) -> Self {
        Self::with(json!({ "preset": "public_chat", "room_version": version }))
    }

    fn with(room: Value) -> Self {
        let (here, mallory) = (shared(), Mallory::new());
        let alice = here.register("alice");
        let room = alice.create_room(room);
        let eve = mallory.user("eve");
        mallory.join(here, &room, &eve);
        Self { here, mallory, alice, eve, room }
    }

    /// An honest word of the hostile server arrives, and with it all that it said before is judged.
    #[track_caller]
    fn settle(&self) {
        self.mallory.say(self.here, &self.alice, &self.room, &self.eve);
    }
}
