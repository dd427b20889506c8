//! Databases the program does not open: it says why, and changes nothing.

use crate::PROGRAM;
use postern_graph::{
    Graph,
    codec::Raw,
    schema::{Meta, VERSION},
};
use postern_world::Server;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A server that was used and has ended.
fn used() -> Server {
    let server = Server::start(PROGRAM);
    let alice = server.register("alice");
    let room = alice.create_public_room();
    alice.send_text(&room, "hello");
    server.terminate();
    server
}

fn database(server: &Server) -> PathBuf {
    server.directory().join("graph")
}

/// All files, except the empty one by which backups take turns.
fn files(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(path)
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|file| !file.ends_with("backup.lock"))
        .map(|file| (file.clone(), fs::read(&file).unwrap()))
        .collect();
    files.sort();
    files
}

/// Neither serving nor anything else gets anywhere; all say `sentence`.
#[track_caller]
fn refused(server: &Server, sentence: &str) {
    let before = files(&database(server));
    let backups = server.directory().join("backups");
    let backups = backups.to_str().unwrap();
    for command in [&["serve"][..], &["doctor"], &["backup", "create", backups]] {
        let output = server.run(command);
        let said =
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{command:?}: {said}");
        assert!(said.contains(sentence), "{command:?}: {said}");
        assert!(!said.contains("panicked"), "{command:?}: {said}");
        assert!(files(&database(server)) == before, "{command:?} changed the database");
    }
}

#[test]
fn a_database_of_a_newer_program_is_refused_and_left_as_it_is() {
    let server = used();
    let settings = postern_graph::Settings { path: database(&server), block_cache: 1 << 20 };
    let graph = Graph::open(&settings).unwrap();
    let mut commit = graph.begin();
    commit.put::<Meta>(&("schema".to_owned(),), &Raw((VERSION + 1).to_string().into_bytes()));
    graph.commit(commit).unwrap();
    drop(graph);
    refused(&server, &format!("has schema version {}", VERSION + 1));
}

#[test]
fn a_damaged_database_is_refused_and_left_as_it_is() {
    let server = used();
    let manifest = fs::read_dir(database(&server))
        .unwrap()
        .map(|file| file.unwrap().path())
        .find(|file| file.file_name().unwrap().to_str().unwrap().starts_with("MANIFEST"))
        .unwrap();
    let mut bytes = fs::read(&manifest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    fs::write(&manifest, bytes).unwrap();
    refused(&server, "is damaged");
}

#[test]
fn a_database_that_another_process_serves_is_refused() {
    let server = Server::start(PROGRAM);
    let alice = server.register("alice");
    let output = server.run(&["serve"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("in use"), "{said}");
    assert_eq!(alice.get("v3/account/whoami").ok()["user_id"], alice.id());
}
