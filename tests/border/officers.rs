//! What officers do with a running server: the table of peers, the ledger, quarantine, releases, spills.

use crate::enclaves::{Enclave, Peer, content, high_and_low, join_by, label, mixed_room, together};
use postern_world::{Client, Method, Seat, enc};
use serde_json::{Value, json};

const API: &str = "/_postern/border";

fn admin(enclave: &Enclave) -> Client {
    enclave.server.anyone().register_by_secret("officer", true)
}

fn get(officer: &Client, path: &str) -> Value {
    officer.get(&format!("{API}{path}")).ok()
}

#[test]
fn the_api_is_described_and_for_who_policies_permit() {
    let enclave = Enclave::start(&Seat::take(), "Company INTERNAL", &[], "");
    let (officer, clerk) = (admin(&enclave), enclave.register("clerk"));
    let described = get(&clerk, "/openapi.json");
    let paths = described["paths"].as_object().unwrap();
    assert!(paths.len() >= 20, "{paths:?}");
    for (path, operations) in paths {
        // Of each a stranger and a clerk get nothing.
        let path = path.replace("{event}", "%24x").replace("{server}", "other").replace("{user}", "x");
        let path = path.replace("{id}", "0").replace("{whom}", "other");
        let is_for_all = path.contains("/releases");
        for method in operations.as_object().unwrap().keys() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let stranger = enclave.server.anyone().loose().request(method.clone(), &path, Some(&json!({})));
            assert_eq!(stranger.status(), 401, "{method} {path}: {}", stranger.describe());
            if !is_for_all {
                let clerk = clerk.loose().request(method.clone(), &path, Some(&json!({
                    "event_id": "$x", "reason": "x", "done": true, "policies": {}, "id": "x", "clearance": null, "user": "@x:y",
                })));
                assert!(matches!(clerk.status(), 400 | 403), "{method} {path}: {}", clerk.describe());
            }
        }
    }
    assert_eq!(get(&officer, "/policies")["base"], "peers");
    enclave.write(
        "policies/clerks.cedar",
        "@id(\"ledger-clerks\")\npermit (principal is User, action == Action::\"admin.ledger\", resource)\n\
         when { principal.roles.contains(\"auditor\") };",
    );
    enclave.write("border.toml", &format!("[[user]]\nid = \"{}\"\nroles = [\"auditor\"]\n", clerk.id()));
    officer.post(&format!("{API}/reload"), json!({})).done();
    get(&clerk, "/refusals");
    clerk.get(&format!("{API}/peers")).refused(403, "M_FORBIDDEN");
}

#[test]
fn peers_are_written_at_runtime_and_count_at_once_and_after_a_restart() {
    let (here, there) = (Seat::take(), Seat::take());
    let high = Enclave::start(&here, "Company CONFIDENTIAL", &[], "");
    let low = Enclave::start(&there, "Company INTERNAL", &[Peer(&here, "Company CONFIDENTIAL", "")], "");
    let officer = admin(&high);
    let (alice, bob) = (high.register("alice"), low.register("bob"));
    let wanted =
        json!({ "preset": "private_chat", "creation_content": { "io.postern.label": label("INTERNAL") } });
    let room = alice.create_room(wanted.clone());
    assert_eq!(alice.state(&room, "m.room.create", "").ok()["m.federate"], false, "for nobody else");
    let path = format!("{API}/peers/{}", enc(low.server.name()));
    let wrong = officer.put(&path, json!({ "clearance": "Company SECRET" })).refused(400, "M_INVALID_PARAM");
    assert!(wrong["error"].to_string().contains("SECRET"), "{wrong}");
    assert_eq!(get(&officer, "/peers"), json!([]));
    officer.put(&path, json!({ "clearance": "Company INTERNAL" })).done();
    assert_eq!(get(&officer, "/peers")[0]["written"], "table");
    // Not asked to stop first: what was answered is on disk.
    high.server.kill();
    high.server.start_again();
    assert_eq!(get(&officer, "/peers")[0]["clearance"], "Company INTERNAL");
    let room = alice.create_room(json!({
        "preset": "private_chat", "invite": [bob.id()],
        "creation_content": { "io.postern.label": label("INTERNAL") },
    }));
    join_by(&bob, &room, &high.server);
    let since = bob.now();
    let hello = alice.send_text(&room, "hello");
    bob.sync_until_event(&since, &room, &hello);
    let to = get(&officer, &format!("/disclosures/server/{}", enc(low.server.name())));
    assert!(to["disclosures"].to_string().contains(&hello), "{to}");
    officer.delete(&path).done();
    assert_eq!(get(&officer, "/peers"), json!([]));
    let room = alice.create_room(wanted);
    let invite = json!({ "user_id": bob.id() });
    alice
        .post(&format!("/_matrix/client/v3/rooms/{}/invite", enc(&room)), invite)
        .refused(403, "M_FORBIDDEN");
}

#[test]
fn the_ledger_says_who_got_what_and_why() {
    let (high, low) = high_and_low();
    let officer = admin(&high);
    let (alice, bob, room) = together(&high, &low);
    let since = bob.now();
    let secret = alice.send_text(&room, "the canary sings");
    let open = alice.send(
        &room,
        "m.room.message",
        json!({ "msgtype": "m.text", "body": "lunch", "io.postern.label": label("INTERNAL") }),
    );
    bob.sync_until_event(&since, &room, &open);
    let got = |event: &str| {
        get(&officer, &format!("/disclosures/event/{}", enc(event)))["servers"][low.server.name()].clone()
    };
    assert_eq!((&got(&secret)["whole"], &got(&open)["whole"]), (&json!(false), &json!(true)));
    let ruling = got(&secret)["ruling"].as_str().unwrap().to_owned();
    let ruling = get(&officer, &format!("/decisions/{ruling}"));
    assert_eq!(ruling["answer"]["allowed"], false, "{ruling}");
    assert!(get(&officer, "/decisions")["decisions"].as_array().unwrap().len() >= 2);
    let why = get(&officer, &format!("/explain?event_id={}&server={}", enc(&secret), enc(low.server.name())));
    assert_eq!((&why["cleared"], &why["disclosed"]["whole"]), (&json!(false), &json!(false)), "{why}");
    assert!(why["uncleared_because"].to_string().contains("CONFIDENTIAL"), "{why}");
    // What other policies would have decided of the same.
    let strict =
        "@id(\"nothing\")\nforbid (principal is Server, action == Action::\"release\", resource is Event);";
    let replay = json!({ "policies": { "strict.cedar": strict } });
    let replayed = officer.post(&format!("{API}/replay"), replay).ok();
    assert!(!replayed["changes"].as_array().unwrap().is_empty(), "{replayed}");
    assert_eq!(replayed["complete"], true, "{replayed}");
    // No more than the bound are looked at, which is said.
    let all = replayed["asked"].as_u64().unwrap();
    assert!(all >= 2, "{replayed}");
    let first = |limit: u64| {
        let replay = json!({ "policies": { "strict.cedar": strict }, "limit": limit });
        let replayed = officer.post(&format!("{API}/replay"), replay).ok();
        (replayed["asked"].as_u64().unwrap(), replayed["complete"].as_bool().unwrap())
    };
    assert_eq!((first(1), first(all - 1)), ((1, false), (all - 1, false)));
    assert!(first(u64::from(u32::MAX)).1);
    let broken = json!({ "policies": { "strict.cedar": "forbid (" } });
    let wrong = officer.post(&format!("{API}/replay"), broken).refused(400, "M_INVALID_PARAM");
    assert!(wrong["error"].to_string().contains("strict.cedar"), "{wrong}");
}

#[test]
fn an_event_in_quarantine_is_let_in_or_kept_out() {
    let (here, there) = (Seat::take(), Seat::take());
    let doubted = "accreditation = \"Company PUBLIC\"";
    let high =
        Enclave::start(&here, "Company CONFIDENTIAL", &[Peer(&there, "Company INTERNAL", doubted)], "");
    let low = Enclave::start(&there, "Company INTERNAL", &[Peer(&here, "Company CONFIDENTIAL", "")], "");
    let officer = admin(&high);
    let (alice, bob, room) = together(&high, &low);
    let since = alice.now();
    let say = |body: &str, class: &str| {
        let content = json!({ "msgtype": "m.text", "body": body, "io.postern.label": label(class) });
        bob.send(&room, "m.room.message", content)
    };
    let (first, second) = (say("believe me", "INTERNAL"), say("or me", "INTERNAL"));
    let fine = say("good morning", "PUBLIC");
    alice.sync_until_event(&since, &room, &fine);
    let held = get(&officer, "/quarantine");
    // Who judges need not be cleared for it.
    let auditor = high.register("auditor");
    let entry = json!({ "id": auditor.id(), "clearance": "Company PUBLIC", "roles": ["judge"] });
    officer.put(&format!("{API}/users"), entry).done();
    high.write(
        "policies/judges.cedar",
        "@id(\"judges\")\npermit (principal is User, action == Action::\"admin.quarantine\", resource)\n\
         when { principal.roles.contains(\"judge\") };",
    );
    high.reread();
    let judged = get(&auditor, "/quarantine");
    assert_eq!(judged["events"].as_array().unwrap().len(), 2);
    assert!(!judged.to_string().contains("believe me"), "{judged}");
    let ids: Vec<&str> =
        held["events"].as_array().unwrap().iter().filter_map(|one| one["event_id"].as_str()).collect();
    assert_eq!(ids, [first.as_str(), second.as_str()]);
    assert!(held["events"][0]["why"].to_string().contains("accredited"), "{held}");
    let since = alice.now();
    officer.post(&format!("{API}/quarantine/{}/release", enc(&first)), json!({})).done();
    alice.sync_until_event(&since, &room, &first);
    assert_eq!(content(&alice, &room, &first)["body"], "believe me");
    officer.delete(&format!("{API}/quarantine/{}", enc(&second))).done();
    assert_eq!(get(&officer, "/quarantine")["events"], json!([]));
    assert_eq!(alice.event(&room, &second).status(), 404);
    officer
        .post(&format!("{API}/quarantine/{}/release", enc(&second)), json!({}))
        .refused(404, "M_NOT_FOUND");
    // The room goes on on both sides.
    let since = bob.now();
    let after = alice.send(
        &room,
        "m.room.message",
        json!({ "msgtype": "m.text", "body": "after", "io.postern.label": label("INTERNAL") }),
    );
    bob.sync_until_event(&since, &room, &after);
}

/// Two release officers have to agree.
const TWO: &str = r#"@id("release-officers") @reason("two release officers")
permit (principal is User, action == Action::"downgrade", resource is Event)
when {
  principal.roles.contains("release-officer") && context has reason && context has second_person &&
  context.second_person.roles.contains("release-officer")
};"#;

#[test]
fn a_release_takes_a_second_person_where_policies_ask_for_one() {
    let (high, low) = high_and_low();
    let (alice, bob, eve) = (high.register("alice"), low.register("bob"), high.register("eve"));
    let carol = high.register("carol");
    let roles =
        "[[user]]\nid = \"WHO\"\nclearance = \"Company CONFIDENTIAL\"\nroles = [\"release-officer\"]\n";
    let more = [&alice, &carol].map(|user| roles.replace("WHO", user.id())).concat();
    high.write("policies/two.cedar", TWO);
    let peer = format!("[[peer]]\nname = \"{}\"\nclearance = \"Company INTERNAL\"\n", low.server.name());
    high.write("border.toml", &format!("default_clearance = \"Company CONFIDENTIAL\"\n{more}{peer}"));
    high.reread();
    let room = mixed_room(&alice, &bob);
    for user in [&carol, &eve] {
        alice
            .post(&format!("/_matrix/client/v3/rooms/{}/invite", enc(&room)), json!({ "user_id": user.id() }))
            .done();
        user.join(&room);
    }
    join_by(&bob, &room, &high.server);
    let secret = alice.send_text(&room, "the plan\nis good");
    let wish =
        json!({ "event_id": secret, "label": "Company INTERNAL", "reason": "the partner has to know" });
    let ask = |user: &Client, wish: Value| user.post(&format!("{API}/releases"), wish);
    let decide =
        |user: &Client, id: &str, how: &str| user.post(&format!("{API}/releases/{id}/{how}"), json!({}));
    let higher = json!({ "event_id": secret, "label": "Company CONFIDENTIAL", "reason": "x" });
    ask(&alice, higher).refused(403, "M_FORBIDDEN");
    let asked = ask(&alice, wish.clone()).ok();
    assert_eq!(asked["state"], "waiting", "{asked}");
    let id = asked["id"].as_str().unwrap();
    decide(&alice, id, "approve").refused(403, "M_FORBIDDEN");
    decide(&eve, id, "approve").refused(403, "M_FORBIDDEN");
    // A role is no clearance.
    let dora = high.register("dora");
    let low_officer = roles.replace("WHO", dora.id()).replace("CONFIDENTIAL", "INTERNAL");
    high.write(
        "border.toml",
        &format!("default_clearance = \"Company CONFIDENTIAL\"\n{more}{low_officer}{peer}"),
    );
    high.reread();
    alice
        .post(&format!("/_matrix/client/v3/rooms/{}/invite", enc(&room)), json!({ "user_id": dora.id() }))
        .done();
    dora.join(&room);
    decide(&dora, id, "approve").refused(404, "M_NOT_FOUND");
    let since = bob.now();
    let done = decide(&carol, id, "approve").ok();
    assert_eq!((&done["state"], &done["decided_by"]), (&json!("released"), &json!(carol.id())));
    let released = done["released_as"].as_str().unwrap();
    bob.sync_until_event(&since, &room, released);
    let got = content(&bob, &room, released);
    assert!(got["body"].as_str().unwrap().contains("> the plan\n> is good"), "{got}");
    assert_eq!(got["io.postern.release"]["event_id"], secret.as_str());
    assert!(!bob.loose().event(&room, &secret).body().to_string().contains("plan"), "the event itself stays");
    decide(&carol, id, "approve").refused(400, "M_BAD_STATE");
    let again = ask(&alice, wish.clone()).ok();
    let again = again["id"].as_str().unwrap();
    assert_eq!(decide(&carol, again, "refuse").ok()["state"], "refused");
    let last = ask(&alice, wish).ok();
    let last = last["id"].as_str().unwrap();
    carol.delete(&format!("{API}/releases/{last}")).refused(404, "M_NOT_FOUND");
    assert_eq!(alice.delete(&format!("{API}/releases/{last}")).ok()["state"], "withdrawn");
    assert_eq!(get(&carol, "/releases")["releases"].as_array().unwrap().len(), 3);
    let refusals = get(&admin(&high), "/refusals").to_string();
    assert!(!refusals.contains("admin."), "who looks at releases has tried nothing forbidden: {refusals}");
}

#[test]
fn refusals_are_all_found_page_by_page() {
    let enclave = Enclave::start(&Seat::take(), "Company INTERNAL", &[], "");
    let (officer, clerk) = (admin(&enclave), enclave.register("clerk"));
    for path in ["peers", "policies", "decisions", "quarantine", "users", "spills"] {
        clerk.get(&format!("{API}/{path}")).refused(403, "M_FORBIDDEN");
    }
    let all = get(&officer, "/refusals")["refusals"].clone();
    let (mut paged, mut from) = (Vec::new(), String::new());
    loop {
        let page = get(&officer, &format!("/refusals?limit=2{from}"));
        paged.extend(page["refusals"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else { break };
        from = format!("&from={next}");
    }
    // Two were about the ledger: of what somebody tries again and again one is kept in an hour.
    assert_eq!(paged.len(), 5, "{paged:?}");
    assert_eq!(json!(paged), all);
}

#[test]
fn a_spill_is_taken_back_everywhere_and_says_who_got_it() {
    let (high, low) = high_and_low();
    let officer = admin(&high);
    let (alice, bob, room) = together(&high, &low);
    let since = bob.now();
    let uri = alice.upload("text/plain", None, b"the canary sings");
    let spilled = alice.send(
        &room,
        "m.room.message",
        json!({ "msgtype": "m.file", "body": "canary", "url": uri, "io.postern.label": label("INTERNAL") }),
    );
    bob.sync_until_event(&since, &room, &spilled);
    let edit = alice.send(
        &room,
        "m.room.message",
        json!({
            "msgtype": "m.text", "body": "* canary again", "io.postern.label": label("INTERNAL"),
            "m.new_content": { "msgtype": "m.text", "body": "canary again" },
            "m.relates_to": { "rel_type": "m.replace", "event_id": spilled },
        }),
    );
    bob.sync_until_event(&since, &room, &edit);
    let opening = json!({ "event_id": spilled, "reason": "it should have been confidential" });
    let spill = officer.post(&format!("{API}/spills"), opening).ok();
    assert_eq!(spill["taken_back"], true, "{spill}");
    assert_eq!(spill["events"].as_array().unwrap().len(), 2);
    assert_eq!(spill["files"], json!([{ "uri": uri, "destroyed": true }]));
    assert_eq!(spill["servers"][low.server.name()]["events_whole"], 2);
    assert!(spill["people"][alice.id()].is_object(), "{spill}");
    for (user, name) in [(&alice, "alice"), (&bob, "bob")] {
        user.sync_until(&user.now(), |_| {
            [&spilled, &edit]
                .iter()
                .all(|event| !user.event(&room, event).body().to_string().contains("canary"))
        });
        assert!(!user.messages(&room, "dir=b&limit=100").to_string().contains("canary"), "{name}");
    }
    let file = format!("/_matrix/client/v1/media/download/{}", uri.trim_start_matches("mxc://"));
    assert_eq!(alice.get(&file).status(), 404);
    let id = spill["id"].as_str().unwrap();
    let path = format!("{API}/spills/{id}/follow_up/{}", enc(low.server.name()));
    let noted = officer.put(&path, json!({ "done": true, "note": "their officer confirmed" })).ok();
    assert_eq!(noted["servers"][low.server.name()]["done"], true);
    officer
        .put(&format!("{API}/spills/{id}/follow_up/other"), json!({ "done": true }))
        .refused(404, "M_NOT_FOUND");
    assert_eq!(get(&officer, "/spills")["spills"][0]["id"], id);
}

#[test]
fn a_spill_takes_no_file_that_merely_stands_beside_what_was_spilled() {
    let enclave = Enclave::start(&Seat::take(), "Company INTERNAL", &[], "");
    let (officer, alice) = (admin(&enclave), enclave.register("alice"));
    let room = alice.create_public_room();
    let upload = |bytes: &[u8]| alice.upload("text/plain", None, bytes);
    let (smiley, spilled, other) = (upload(b"a smiley"), upload(b"the canary"), upload(b"something else"));
    let show = |uri: &str, more: Value| {
        let mut content = json!({ "msgtype": "m.file", "body": "file", "url": uri });
        content.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        alice.send(&room, "m.room.message", content)
    };
    let html = format!("<img data-mx-emoticon src=\"{smiley}\">");
    let with_smiley = alice.send(
        &room,
        "m.room.message",
        json!({ "msgtype": "m.text", "body": ":)", "format": "org.matrix.custom.html", "formatted_body": html }),
    );
    let first = show(&spilled, json!({ "format": "org.matrix.custom.html", "formatted_body": html }));
    let again = show(&spilled, json!({ "info": { "thumbnail_url": other } }));
    let of_other = show(&other, json!({}));
    let spill = officer.post(&format!("{API}/spills"), json!({ "event_id": first, "reason": "x" })).ok();
    assert_eq!(spill["files"], json!([{ "uri": spilled, "destroyed": true }]), "{spill}");
    let ids: Vec<&Value> = spill["events"].as_array().unwrap().iter().map(|one| &one["event_id"]).collect();
    assert_eq!(ids, [&json!(first), &json!(again)]);
    for event in [&with_smiley, &of_other] {
        assert_ne!(content(&alice, &room, event), json!({}));
    }
    for uri in [&smiley, &other] {
        let path = format!("/_matrix/client/v1/media/download/{}", uri.trim_start_matches("mxc://"));
        assert_eq!(alice.loose().get(&path).status(), 200);
    }
}

#[test]
fn looking_for_who_has_a_file_discloses_nothing() {
    let (high, low) = high_and_low();
    let officer = admin(&high);
    let (alice, bob) = (high.register("alice"), low.register("bob"));
    let room = mixed_room(&alice, &bob);
    // What was said before they came is not for them.
    alice.set_state(&room, "m.room.history_visibility", "", json!({ "history_visibility": "joined" }));
    let uri = alice.upload("text/plain", None, b"lunch at noon");
    let file =
        json!({ "msgtype": "m.file", "body": "file", "url": uri, "io.postern.label": label("INTERNAL") });
    let before = alice.send(&room, "m.room.message", file.clone());
    join_by(&bob, &room, &high.server);
    let since = alice.now();
    let shown = bob.send(&room, "m.room.message", file);
    alice.sync_until_event(&since, &room, &shown);
    let path = format!("/_matrix/client/v1/media/download/{}", uri.trim_start_matches("mxc://"));
    let carol = high.register("carol");
    assert_eq!(carol.loose().get(&path).status(), 200);
    let got = get(&officer, &format!("/disclosures/event/{}", enc(&before)));
    assert_eq!(got["servers"], json!({}), "nobody has asked for it");
}
