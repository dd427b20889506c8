//! What the program does about policies and bundles where no server runs.

use crate::PROGRAM;
use std::{fs, process::Command};

/// Exit status, and what is printed.
pub fn run(arguments: &[&str]) -> (i32, String) {
    let output = Command::new(PROGRAM).args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

#[test]
fn policies_are_checked_explained_and_compared_without_a_server() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    for name in ["old", "new", "wrong"] {
        fs::create_dir(path(name)).unwrap();
    }
    let forbid = "@id(\"quiet\") @reason(\"quiet hours\")\nforbid (principal, action == Action::\"send\", resource);\n";
    fs::write(path("new/quiet.cedar"), forbid).unwrap();
    fs::write(path("wrong/bad.cedar"), "permit (principal, action, resource)\nwhen { resource.colour };\n")
        .unwrap();
    let (status, said) = run(&["policy", "check", &path("wrong")]);
    assert_ne!(status, 0, "{said}");
    assert!(said.contains("bad.cedar:2"), "{said}");
    assert_eq!(run(&["policy", "check", &path("new")]).0, 0);
    let user = r#"{"id":"@a:hq","server":{"name":"hq","local":true,"accredited":true}}"#;
    let event = format!(
        r#"{{"type":"m.room.message","kind":"message","room":{{"id":"!r","encryption":"inspectable","federate":true}},"sender":{user}}}"#
    );
    let question = format!(
        r#"{{"v":1,"question":{{"principal":{{"user":{user}}},"action":"send","resource":{{"event":{event}}},"context":{{"dominates":true,"via":"client","direction":"within"}}}}}}"#
    );
    fs::write(path("asked.jsonl"), format!("{question}\n")).unwrap();
    let (status, said) = run(&["policy", "explain", &path("new"), &path("asked.jsonl")]);
    assert!(said.contains("quiet"), "{status} {said}");
    let (status, said) = run(&["policy", "diff", &path("old"), &path("new"), &path("asked.jsonl")]);
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("denied now by quiet"), "{said}");
}

#[test]
fn keys_of_a_link_are_made_and_not_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let to = directory.path().display().to_string();
    let make = ["bundle", "keygen", "identity", "--to", &to, "--name", "low"];
    let (status, said) = run(&make);
    assert_eq!(status, 0, "{said}");
    assert_ne!(run(&make).0, 0, "what is there stays");
    assert_ne!(run(&["bundle", "inspect", "nothing.mfb"]).0, 0);
}
