//! matrix-nio on both servers: `encrypted.py`.

use crate::{harness::environment, sides::Pair};
use postern_world::PASSWORD;
use std::{
    path::Path,
    process::{Command, Stdio},
};

pub fn clients_on_both_servers_talk_encrypted(pair: &Pair<'_>) {
    let (alice, bob) = pair.couple();
    let python = environment("clients-nio", Path::new("tests/clients/nio/requirements.txt"));
    let python = python.expect("matrix-nio can be installed where Synapse could");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let output = Command::new(python.join("bin/python"))
        .arg(root.join("synapse/encrypted.py"))
        .args([pair.address_of(&alice), alice.id().to_owned(), pair.address_of(&bob), bob.id().to_owned()])
        .arg(PASSWORD)
        .env("PYTHONPATH", root.join("clients/nio"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .output()
        .expect("Python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
