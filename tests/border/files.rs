//! Files at the border: their labels, and what the guards find in them.

use crate::enclaves::{Enclave, Peer, join_by, label, together};
use http::Method;
use postern_world::{Client, Seat, enc};
use serde_json::{Value, json};

/// Uploads a file with a label, as people write it.
fn upload(user: &Client, label: &str) -> postern_world::Answer {
    let path = format!("/_matrix/media/v3/upload?filename=plan.txt&io.postern.label={}", enc(label));
    user.send_bytes(Method::POST, &path, &[("content-type", "text/plain")], b"the plan".to_vec())
}

fn show(uri: &str, class: &str) -> Value {
    json!({ "msgtype": "m.file", "body": "a file", "url": uri, "io.postern.label": label(class) })
}

/// What somebody gets who asks for a file.
fn fetched(user: &Client, uri: &str) -> u16 {
    let path = uri.trim_start_matches("mxc://");
    user.loose().get(&format!("/_matrix/client/v1/media/download/{path}")).status()
}

#[test]
fn a_file_with_a_label_is_for_those_who_are_cleared_for_it_wherever_it_is_shown() {
    let (here, there) = (Seat::take(), Seat::take());
    let clerks = "[[user]]\nid = \"@clerk*\"\nclearance = \"Company INTERNAL\"\n";
    let high = Enclave::start(&here, "Company CONFIDENTIAL", &[Peer(&there, "Company INTERNAL", "")], clerks);
    let low = Enclave::start(&there, "Company INTERNAL", &[Peer(&here, "Company CONFIDENTIAL", "")], "");
    let (alice, bob, room) = together(&high, &low);
    let clerk = high.register("clerk");
    alice.invite(&room, &clerk);
    clerk.join(&room);
    let uploaded =
        |user: &Client, label: &str| upload(user, label).ok()["content_uri"].as_str().unwrap().to_owned();
    let secret = uploaded(&alice, "Company CONFIDENTIAL");
    let open = uploaded(&alice, "Company INTERNAL");

    // It is not shown at a lower label than its own, and who is not cleared can neither upload nor have it.
    let refused =
        alice.try_send(&room, "m.room.message", show(&secret, "INTERNAL")).refused(403, "M_FORBIDDEN");
    assert!(refused["error"].as_str().unwrap().contains("CONFIDENTIAL, is above"), "{refused}");
    let unlabelled = alice.create_room(json!({ "preset": "private_chat" }));
    alice
        .try_send(&unlabelled, "m.room.message", json!({ "msgtype": "m.file", "body": "f", "url": secret }))
        .refused(403, "M_FORBIDDEN");
    alice.send(&room, "m.room.message", show(&secret, "CONFIDENTIAL"));
    let since = bob.now();
    let shown = alice.send(&room, "m.room.message", show(&open, "INTERNAL"));
    bob.sync_until_event(&since, &room, &shown);
    upload(&clerk, "Company CONFIDENTIAL").refused(403, "M_FORBIDDEN");
    upload(&alice, "Company NONSENSE").refused(403, "M_FORBIDDEN");
    for (user, uri, status) in [
        (&alice, &secret, 200),
        (&clerk, &secret, 404),
        (&bob, &secret, 404),
        (&clerk, &open, 200),
        (&bob, &open, 200),
    ] {
        assert_eq!(fetched(user, uri), status, "{} and {uri}", user.id());
    }
    // Also where nothing shows it: by then it might be in an encrypted room.
    let unshown = uploaded(&alice, "Company CONFIDENTIAL");
    assert_eq!((fetched(&alice, &unshown), fetched(&clerk, &unshown)), (200, 404));
}

#[test]
fn who_waits_for_a_file_gets_it_if_they_are_cleared_for_the_label_it_came_with() {
    let clerks = "[[user]]\nid = \"@clerk*\"\nclearance = \"Company INTERNAL\"\n";
    let enclave = Enclave::start(&Seat::take(), "Company CONFIDENTIAL", &[], clerks);
    let (alice, clerk) = (enclave.register("alice"), enclave.register("clerk"));
    let uri =
        alice.post("/_matrix/media/v1/create", json!({})).ok()["content_uri"].as_str().unwrap().to_owned();
    let waiting = std::thread::spawn({
        let uri = uri.clone();
        move || fetched(&clerk, &uri)
    });
    // So that it waits; if it came later, it would be refused at once.
    std::thread::sleep(std::time::Duration::from_millis(500));
    let path = format!(
        "/_matrix/media/v3/upload/{}?io.postern.label={}",
        uri.trim_start_matches("mxc://"),
        enc("Company CONFIDENTIAL")
    );
    alice.send_bytes(Method::PUT, &path, &[("content-type", "text/plain")], b"the plan".to_vec()).done();
    assert_eq!((waiting.join().unwrap(), fetched(&alice, &uri)), (404, 200));
}

#[test]
fn a_device_gets_files_up_to_its_own_clearance() {
    let phones = "[[device]]\nid = \"PHONE*\"\nuser = \"*\"\nclearance = \"Company INTERNAL\"\n";
    let enclave = Enclave::start(&Seat::take(), "Company CONFIDENTIAL", &[], phones);
    let (alice, bob) = (enclave.register("alice"), enclave.register("bob"));
    let phone = bob.log_in_with(json!({ "device_id": "PHONE1" }));
    let room = alice.create_room(json!({
        "preset": "private_chat",
        "creation_content": { "io.postern.label": label("CONFIDENTIAL"), "io.postern.floor": label("INTERNAL") },
        "invite": [bob.id()],
    }));
    bob.join(&room);
    let labelled = upload(&alice, "Company CONFIDENTIAL").ok()["content_uri"].as_str().unwrap().to_owned();
    let unlabelled = alice.upload("text/plain", Some("plan.txt"), b"the plan");
    for uri in [&labelled, &unlabelled] {
        alice.send(&room, "m.room.message", show(uri, "CONFIDENTIAL"));
        assert_eq!((fetched(&bob, uri), fetched(&phone, uri)), (200, 404), "{uri}");
    }
}

#[test]
fn a_file_in_which_a_guard_finds_what_a_policy_forbids_does_not_leave() {
    let (here, there) = (Seat::take(), Seat::take());
    let guards = "[[guards.patterns]]\nname = \"codename\"\nregex = 'north ?wind'\n";
    let high = Enclave::start(&here, "Company INTERNAL", &[Peer(&there, "Company INTERNAL", "")], guards);
    high.write(
        "policies/files.cedar",
        "@id(\"no-codenames\") @reason(\"files with code names stay inside\")\n\
         forbid (principal is Server, action == Action::\"release\", resource is Media)\n\
         when { context.guard.contains(\"pattern:codename\") };\n",
    );
    high.reread();
    let low = Enclave::start(&there, "Company INTERNAL", &[Peer(&here, "Company INTERNAL", "")], "");
    let officer = high.server.anyone().register_by_secret("officer", true);
    let (alice, bob) = (high.register("alice"), low.register("bob"));
    let room = alice.create_room(json!({ "preset": "private_chat", "invite": [bob.id()] }));
    join_by(&bob, &room, &high.server);
    let long = "x".repeat(300_000) + " operation north wind begins";
    let secret = alice.upload("text/plain", Some("notes.txt"), long.as_bytes());
    let plain = alice.upload("text/plain", Some("notes.txt"), b"operation lunch begins");
    for uri in [&secret, &plain] {
        let since = bob.now();
        let event =
            alice.send(&room, "m.room.message", json!({ "msgtype": "m.file", "body": "f", "url": uri }));
        bob.sync_until_event(&since, &room, &event);
    }
    assert_eq!((fetched(&bob, &plain), fetched(&bob, &secret)), (200, 404));
    assert_eq!(fetched(&alice, &secret), 200, "inside it is had");
    let refusals = officer.get("/_postern/border/refusals").ok();
    let of_files: Vec<&Value> =
        refusals["refusals"].as_array().unwrap().iter().filter(|one| one["action"] == "file").collect();
    assert_eq!(of_files.len(), 1, "{refusals}");
    assert!(of_files[0]["why"].as_str().unwrap().contains("code names stay inside"), "{refusals}");
}

#[test]
fn rooms_get_the_label_of_their_preset_unless_they_say_another() {
    let lines = "default_label = \"Company INTERNAL\"\n[preset_labels]\npublic_chat = \"Company PUBLIC\"\n";
    let high = Enclave::start(&Seat::take(), "Company CONFIDENTIAL", &[], lines);
    let alice = high.register("alice");
    let class = |request: Value| {
        let room = alice.create_room(request);
        let create = alice.state(&room, "m.room.create", "").ok();
        (
            create["io.postern.label"]["class"].as_str().unwrap().to_owned(),
            create["io.postern.direct"].clone(),
        )
    };
    assert_eq!(class(json!({ "preset": "public_chat" })).0, "PUBLIC");
    assert_eq!(class(json!({ "preset": "private_chat" })).0, "INTERNAL");
    let said =
        json!({ "preset": "public_chat", "creation_content": { "io.postern.label": label("CONFIDENTIAL") } });
    assert_eq!(class(said).0, "CONFIDENTIAL");
    assert_eq!(class(json!({ "preset": "trusted_private_chat", "is_direct": true })).1, true);
    high.write(
        "border.toml",
        "default_clearance = \"Company CONFIDENTIAL\"\n[preset_labels]\nquiet = \"Company PUBLIC\"\n",
    );
    assert!(high.reread().contains("preset_labels.quiet: there is no such preset"));
}
