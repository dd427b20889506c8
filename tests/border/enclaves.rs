//! Enclaves to test with: servers that know each other as peers.

#![allow(dead_code, reason = "several programs of tests have this module, and none uses all of it")]

use crate::PROGRAM;
use postern_world::{Client, Seat, Server, enc};
use serde_json::{Value, json};
use std::{fmt::Write, fs, path::PathBuf};
use tempfile::TempDir;

/// A server with its border's directory.
pub struct Enclave {
    pub server: Server,
    directory: TempDir,
}

/// What one enclave knows of another: up to what it is cleared, and other lines of its entry.
pub struct Peer<'a>(pub &'a Seat, pub &'a str, pub &'a str);

impl Enclave {
    /// Starts an enclave whose users are cleared like this, with these peers and these lines of `border.toml`.
    pub fn start(seat: &Seat, clearance: &str, peers: &[Peer<'_>], more: &str) -> Self {
        Self::start_with(seat, clearance, peers, more, &[])
    }

    /// The same with these settings of the server.
    pub fn start_with(
        seat: &Seat,
        clearance: &str,
        peers: &[Peer<'_>],
        more: &str,
        settings: &[(&str, &str)],
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().display().to_string();
        let mut all = vec![("border.directory", path.as_str()), ("log.level", "info")];
        all.extend(settings);
        let enclave = Self { server: Server::seated(PROGRAM, seat, &all), directory };
        enclave.write("border.toml", &document(clearance, peers, more));
        enclave.server.start_again();
        enclave
    }

    /// A file of the border's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file of the border's directory.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Has the border read again, and waits until it is, or is refused. The log since.
    pub fn reread(&self) -> String {
        let before = self.server.log().len();
        self.server.signal("HUP");
        for _ in 0..600 {
            let log = self.server.log();
            let since = log.get(before..).unwrap_or_default();
            if since.contains("the border was read again") || since.contains("the border stays as it was") {
                return since.to_owned();
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("the border was not read again: {}", self.server.log());
    }

    pub fn register(&self, name: &str) -> Client {
        self.server.register(name)
    }
}

/// `border.toml`.
pub fn document(clearance: &str, peers: &[Peer<'_>], more: &str) -> String {
    let mut text = format!("default_clearance = \"{clearance}\"\n{more}\n");
    for Peer(seat, clearance, lines) in peers {
        writeln!(text, "[[peer]]\nname = \"{}\"\nclearance = \"{clearance}\"\n{lines}", seat.address)
            .unwrap();
    }
    text
}

/// Two enclaves: `high` is cleared for all, and knows `low` as cleared for what is internal.
pub fn high_and_low() -> (Enclave, Enclave) {
    let (here, there) = (Seat::take(), Seat::take());
    let high = Enclave::start(&here, "Company CONFIDENTIAL", &[Peer(&there, "Company INTERNAL", "")], "");
    let low = Enclave::start(&there, "Company INTERNAL", &[Peer(&here, "Company CONFIDENTIAL", "")], "");
    (high, low)
}

/// A label of the company's policy.
pub fn label(class: &str) -> Value {
    json!({ "policy": "Company", "class": class })
}

/// A room up to what is confidential, in which servers may be that are cleared for what is internal.
pub fn mixed_room(creator: &Client, invited: &Client) -> String {
    creator.create_room(json!({
        "preset": "private_chat",
        "creation_content": { "io.postern.label": label("CONFIDENTIAL"), "io.postern.floor": label("INTERNAL") },
        "invite": [invited.id()],
    }))
}

/// Somebody of each of two enclaves, in a mixed room of the first.
pub fn together(high: &Enclave, low: &Enclave) -> (Client, Client, String) {
    let (alice, bob) = (high.register("alice"), low.register("bob"));
    let room = mixed_room(&alice, &bob);
    join_by(&bob, &room, &high.server);
    (alice, bob, room)
}

/// Joins a room by a server of it.
pub fn join_by(user: &Client, room: &str, server: &Server) {
    let path = format!("/_matrix/client/v3/join/{}?via={}", enc(room), enc(server.name()));
    user.post(&path, json!({})).done();
}

/// What a message says, as somebody finds it in the room.
pub fn content(user: &Client, room: &str, event: &str) -> Value {
    user.event(room, event).body()["content"].clone()
}
