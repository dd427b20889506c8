//! What is lost on the way, and what a stop at the wrong moment leaves.

use crate::{
    enclaves::{Pair, good},
    sharing::bodies,
};
use serde_json::json;
use std::{fs, thread, time::Duration};

#[test]
fn a_lost_bundle_is_sent_again_when_the_way_back_says_so() {
    let pair = Pair::new();
    let (alice, bob) = (pair.a.register("alice"), pair.b.register("bob"));
    let room = pair.shared_room(&alice, &bob, json!({ "preset": "private_chat" }));
    alice.send_text(&room, "lost");
    pair.a.export();
    fs::remove_file(pair.files("ab").pop().unwrap()).unwrap();
    alice.send_text(&room, "behind it");
    pair.a.export();
    assert_eq!(pair.b.import()["bundles"], json!([]));
    pair.to_a();
    pair.a.export();
    good(pair.b.import());
    assert_eq!(bodies(&bob, &room), ["lost", "behind it"]);
}

#[test]
fn a_lost_bundle_is_sent_again_for_a_ticket() {
    let pair = Pair::new();
    let (alice, bob) = (pair.a.register("alice"), pair.b.register("bob"));
    let room = pair.shared_room(&alice, &bob, json!({ "preset": "private_chat" }));
    alice.send_text(&room, "lost");
    pair.a.export();
    fs::remove_file(pair.files("ab").pop().unwrap()).unwrap();
    alice.send_text(&room, "behind it");
    pair.a.export();
    let ticket = pair.b.import()["ticket"].as_str().unwrap().to_owned();
    let shown = pair.b.bundle(&["resync", "courier"]);
    assert_eq!(String::from_utf8(shown.stdout).unwrap().trim(), ticket);
    let resynced = pair.a.done(&["resync", "courier", "--ticket", &ticket]);
    assert_eq!(
        (resynced["put"].as_array().unwrap().len(), &resynced["keyframe"]),
        (1, &json!(null)),
        "{resynced:#}"
    );
    good(pair.b.import());
    assert_eq!(bodies(&bob, &room), ["lost", "behind it"]);
    let wrong = pair.a.bundle(&["resync", "courier", "--ticket", "AAAAA-AAAAA"]);
    assert!(!wrong.status.success());
}

#[test]
fn a_gap_of_thirty_days_is_healed_by_a_keyframe() {
    let pair = Pair::new();
    let (alice, bob) = (pair.a.register("alice"), pair.b.register("bob"));
    let room = pair.shared_room(&alice, &bob, json!({ "preset": "private_chat", "name": "Before" }));
    let mut said = Vec::new();
    for day in 1..=30 {
        said.push(format!("day {day}"));
        alice.send_text(&room, &format!("day {day}"));
        pair.a.export();
    }
    alice.set_state(&room, "m.room.name", "", json!({ "name": "After" }));
    // All of it is lost, and not kept any more either.
    for file in pair.files("ab") {
        fs::remove_file(file).unwrap();
    }
    fs::remove_dir_all(pair.a.server.directory().join("graph.bundles")).unwrap();
    let ticket = pair.b.bundle(&["resync", "courier"]);
    let ticket = String::from_utf8(ticket.stdout).unwrap();
    let resynced = pair.a.done(&["resync", "courier", "--ticket", ticket.trim()]);
    assert_eq!(resynced["keyframe"]["kind"], "keyframe", "{resynced:#}");
    let import = pair.b.import();
    assert_eq!(import["refused"], json!([]), "{import:#}");
    assert_eq!(import["bundles"][0]["taken"]["refused"], json!([]), "{import:#}");
    assert_eq!(bodies(&bob, &room), said);
    assert_eq!(bob.state(&room, "m.room.name", "").ok()["name"], "After");
    // From here on it goes on as before, both ways.
    bob.send_text(&room, "and back");
    pair.b.export();
    let back = pair.a.import();
    assert_eq!(back["refused"], json!([]), "{back:#}");
    assert_eq!(bodies(&alice, &room).last().unwrap(), "and back");
}

#[test]
fn a_stop_at_any_moment_of_an_import_loses_and_doubles_nothing() {
    let pair = Pair::new();
    let (alice, bob) = (pair.a.register("alice"), pair.b.register("bob"));
    let room = pair.shared_room(&alice, &bob, json!({ "preset": "private_chat" }));
    let since = bob.now();
    let mut said = Vec::new();
    for n in 0..150 {
        said.push(format!("message {n}"));
        alice.send_text(&room, &format!("message {n}"));
    }
    for n in 0..20 {
        let message = json!({ "messages": { bob.id(): { bob.device(): { "n": n } } } });
        alice.put(&format!("v3/sendToDevice/test.message/{n}"), message).done();
    }
    pair.a.export();
    let mut stops = 0;
    for wait in [5, 40, 80, 120, 160, 240, 320] {
        thread::scope(|scope| {
            let importing = scope.spawn(|| pair.b.bundle(&["import", "courier"]));
            thread::sleep(Duration::from_millis(wait));
            pair.b.server.kill();
            stops += usize::from(!importing.join().unwrap().status.success());
        });
        pair.b.server.start_again();
    }
    assert!(stops > 0, "no import was stopped");
    good(pair.b.import());
    assert_eq!(bodies(&bob, &room), said);
    let (mut seen, mut since) = (Vec::new(), since);
    loop {
        let answer = bob.sync(Some(&since));
        let events = answer["to_device"]["events"].as_array().cloned().unwrap_or_default();
        if events.is_empty() {
            break;
        }
        seen.extend(events.iter().map(|event| event["content"]["n"].as_u64().unwrap()));
        since = answer["next_batch"].as_str().unwrap().to_owned();
    }
    assert_eq!(seen, (0..20).collect::<Vec<u64>>());
}

#[test]
fn a_stop_at_any_moment_of_an_export_loses_and_doubles_nothing() {
    let pair = Pair::new();
    let (alice, bob) = (pair.a.register("alice"), pair.b.register("bob"));
    let room = pair.shared_room(&alice, &bob, json!({ "preset": "private_chat" }));
    let mut said = Vec::new();
    let mut stops = 0;
    for (n, wait) in [1, 5, 10, 15, 20, 30, 45].into_iter().enumerate() {
        for m in 0..20 {
            said.push(format!("message {n} {m}"));
            alice.send_text(&room, &format!("message {n} {m}"));
        }
        thread::scope(|scope| {
            let exporting = scope.spawn(|| pair.a.bundle(&["export", "courier"]));
            thread::sleep(Duration::from_millis(wait));
            pair.a.server.kill();
            stops += usize::from(!exporting.join().unwrap().status.success());
        });
        pair.a.server.start_again();
    }
    assert!(stops > 0, "no export was stopped");
    good(pair.to_b());
    assert_eq!(bodies(&bob, &room), said);
}
