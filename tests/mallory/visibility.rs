//! Who sees what of a room's past, in all the places where it could show.

use crate::{Mallory, Scene, shared};
use postern_world::{Client, enc};
use serde_json::{Value, json};

/// When somebody was in a room, seen from a message in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// In the room.
    Joined,
    /// Invited, and joined afterwards.
    Invited,
    /// Joined afterwards.
    Later,
    /// In the room before, left, and came again afterwards.
    Again,
    /// Not in the room at all.
    Never,
}

const ALL: [When; 5] = [When::Joined, When::Invited, When::Later, When::Again, When::Never];

/// Whether the specification lets somebody see the message.
fn may_see(visibility: &str, when: When) -> bool {
    match visibility {
        "world_readable" => true,
        "shared" => when != When::Never,
        "invited" => matches!(when, When::Joined | When::Invited),
        _ => when == When::Joined,
    }
}

/// A room with this history visibility, in which `alice` says something while somebody is in it, or is not yet or no more;
/// and what she said.
fn told_when(
    alice: &Client,
    visibility: &str,
    when: When,
    somebody: &str,
    join: impl Fn(&str),
) -> (String, String) {
    let room = alice.create_public_room();
    let content = json!({ "history_visibility": visibility });
    alice.set_state(&room, "m.room.history_visibility", "", content);
    if matches!(when, When::Joined | When::Again) {
        join(&room);
    }
    if when == When::Invited {
        alice.about_member(&room, "invite", somebody).done();
    }
    if when == When::Again {
        alice.about_member(&room, "kick", somebody).done();
    }
    let message = alice.send_text(&room, "a message");
    if matches!(when, When::Invited | When::Later | When::Again) {
        join(&room);
    }
    (room, message)
}

#[test]
fn attack_33_a_server_is_told_the_messages_its_users_may_see() {
    for visibility in ["world_readable", "shared", "invited", "joined"] {
        for when in ALL {
            let (here, mallory) = (shared(), Mallory::new());
            let (alice, eve) = (here.register("alice"), mallory.user("eve"));
            let join = |room: &str| mallory.join(here, room, &eve);
            let (room, message) = told_when(&alice, visibility, when, &eve, join);
            let told = mallory.get(here, &format!("v1/event/{}", enc(&message)));
            let what = format!("{visibility} {when:?}: {}", told.describe());
            // Only servers of the room are told of it, however many may read it.
            if when == When::Never {
                assert_eq!(told.status(), 404, "{what}");
                continue;
            }
            let whole = |event: &Value| event["content"]["body"] == "a message";
            let event = told.ok()["pdus"][0].clone();
            assert_eq!(whole(&event), may_see(visibility, when), "{what}");
            let missing =
                json!({ "earliest_events": [], "latest_events": [alice.send_text(&room, "after")] });
            let path = format!("v1/get_missing_events/{}", enc(&room));
            let between = mallory.post(here, &path, &missing).ok();
            let path = format!("v1/backfill/{}?v={}&limit=10", enc(&room), enc(&message));
            let back = mallory.get(here, &path).ok();
            for list in [&between["events"], &back["pdus"]] {
                let seen = list.as_array().unwrap().iter().any(whole);
                assert_eq!(seen, may_see(visibility, when), "{what}: {list}");
            }
        }
    }
}

#[test]
fn attack_33_a_user_is_shown_the_messages_that_are_theirs_to_see() {
    let here = shared();
    for visibility in ["world_readable", "shared", "invited", "joined"] {
        for when in ALL {
            let (alice, bob) = (here.register("alice"), here.register("bob"));
            let join = |room: &str| bob.join(room);
            let (room, message) = told_when(&alice, visibility, when, bob.id(), join);
            let may = may_see(visibility, when);
            let shows = |path: String| String::from_utf8_lossy(bob.get(&path).bytes()).contains("a message");
            for path in [
                Client::room_path(&room, &format!("event/{}", enc(&message))),
                Client::room_path(&room, &format!("context/{}", enc(&message))),
                Client::room_path(&room, "messages?dir=b&limit=50"),
            ] {
                assert_eq!(shows(path.clone()), may, "{visibility} {when:?} {path}");
            }
            if !may {
                assert!(!bob.sync(None).to_string().contains("a message"), "{visibility} {when:?}");
                assert!(!search(&bob, "message").contains("a message"), "{visibility} {when:?}");
            }
        }
    }
}

fn search(who: &Client, term: &str) -> String {
    let body = json!({ "search_categories": { "room_events": { "search_term": term } } });
    who.post("v3/search", body).ok().to_string()
}

fn sliding(who: &Client, position: Option<&str>) -> Value {
    let query = position.map(|pos| format!("?timeout=0&pos={}", enc(pos))).unwrap_or_default();
    let body = json!({ "lists": { "all": { "ranges": [[0, 20]], "timeline_limit": 20,
        "required_state": [["*", "*"]] } } });
    who.post(&format!("unstable/org.matrix.simplified_msc3575/sync{query}"), body).ok()
}

#[test]
fn attack_34_who_left_or_was_put_out_hears_nothing_more_by_any_sync() {
    let here = shared();
    for how in ["leave", "kick", "ban"] {
        let (alice, bob) = (here.register("alice"), here.register("bob"));
        let room = alice.create_room_with(&[&bob]);
        let subscribed = json!({ "conn_id": "subscribed", "room_subscriptions": { &room: { "timeline_limit": 20, "required_state": [["*", "*"]] } } });
        let path = "unstable/org.matrix.simplified_msc3575/sync";
        let (since, position) = (bob.now(), sliding(&bob, None)["pos"].as_str().unwrap().to_owned());
        let subscription = bob.post(&format!("{path}?timeout=0"), subscribed.clone()).ok();
        match how {
            "leave" => bob.leave(&room),
            "kick" => alice.kick(&room, &bob),
            _ => alice.ban(&room, &bob),
        }
        alice.set_state(&room, "m.room.topic", "", json!({ "topic": "secret topic" }));
        let secret = alice.send_text(&room, "secret message");
        alice.typing(&room, true);
        alice.read(&room, &secret);
        let pos = subscription["pos"].as_str().unwrap();
        let moved = bob.post(&format!("{path}?timeout=0&pos={}", enc(pos)), subscribed.clone()).ok();
        let answers = [
            moved,
            sliding(&bob, Some(&position)),
            bob.sync(Some(&since)),
            bob.sync(None),
            bob.sync_filtered(None, &json!({ "room": { "include_leave": true } })),
            bob.sync_with(&format!("full_state=true&since={}", enc(&since))),
            sliding(&bob, None),
            bob.post(&format!("{path}?timeout=0"), subscribed).ok(),
            bob.get(&Client::room_path(&room, "messages?dir=b&limit=50")).body().clone(),
            bob.get(&Client::room_path(&room, "state")).body().clone(),
            bob.get(&Client::room_path(&room, "initialSync")).body().clone(),
            bob.event(&room, &secret).body().clone(),
        ];
        for (n, answer) in answers.iter().enumerate() {
            let text = answer.to_string();
            assert!(!text.contains("secret") && !text.contains("m.typing"), "{how}, answer {n}: {text}");
        }
        assert!(!search(&bob, "secret").contains("secret message"));
        // Alice sees it all: the control.
        assert!(sliding(&alice, None).to_string().contains("secret message"));
    }
}

#[test]
fn attack_39_what_was_redacted_shows_nowhere_any_more() {
    let scene = Scene::with(json!({ "preset": "public_chat", "room_version": "11" }));
    let Scene { here, mallory, alice, room, .. } = &scene;
    let bob = here.register("bob");
    bob.join(room);
    let since = bob.now();
    let first = alice.send_text(room, "harmless");
    let text = |body: &str| json!({ "msgtype": "m.text", "body": body });
    let mut edit = text("* confidential edit");
    edit["m.new_content"] = text("confidential edit");
    edit["m.relates_to"] = json!({ "rel_type": "m.replace", "event_id": first });
    let mut threaded = text("confidential thread");
    threaded["m.relates_to"] = json!({ "rel_type": "m.thread", "event_id": first });
    let secrets = [
        alice.send(room, "m.room.message", edit),
        alice.send(room, "m.room.message", threaded),
        alice.send_text(room, &format!("confidential {}", bob.id())),
        alice.set_state(room, "m.room.topic", "", json!({ "topic": "confidential topic" })),
    ];
    assert!(bob.sync(Some(&since)).to_string().contains("confidential"), "it was there");
    for event in &secrets {
        alice.redact(room, event);
    }
    let path = |rest: &str| Client::room_path(room, rest);
    let relations = |rest: &str| format!("/_matrix/client/v1/rooms/{}/{rest}", enc(room));
    let mut answers = vec![
        bob.sync(None),
        bob.sync(Some(&since)),
        sliding(&bob, None),
        bob.messages(room, "dir=b&limit=100"),
        bob.get(&path("state")).ok(),
        bob.get(&relations(&format!("relations/{}", enc(&first)))).ok(),
        bob.get(&relations("threads")).ok(),
        bob.get(&path(&format!("context/{}", enc(&first)))).ok(),
        bob.event(room, &first).ok(),
    ];
    answers.extend(secrets.iter().map(|event| bob.event(room, event).ok()));
    let back = format!("v1/backfill/{}?limit=100&v={}", enc(room), enc(&alice.send_text(room, "last")));
    answers.push(mallory.get(here, &back).ok());
    answers.extend(secrets.iter().map(|event| mallory.get(here, &format!("v1/event/{}", enc(event))).ok()));
    let hierarchy = format!("/_matrix/client/v1/room_summary/{}", enc(room));
    answers.push(bob.get(&hierarchy).body().clone());
    for (n, answer) in answers.iter().enumerate() {
        let text = answer.to_string();
        assert!(!text.contains("confidential"), "answer {n}: {text}");
    }
    assert!(!search(&bob, "confidential").contains("confidential t"));
    // Nor does it come back by what is kept: the server that was told the event keeps its own copy, this one none.
    let found = search(alice, "confidential");
    assert!(!found.contains("confidential edit"), "{found}");
}

#[test]
fn attack_39_a_redaction_that_comes_before_its_event_is_not_displaced_by_another() {
    for version in ["10", "11"] {
        let scene = Scene::of_version(version);
        let Scene { here, mallory, alice, eve, room } = &scene;
        let other = Mallory::new();
        let bob = other.user("bob");
        other.join(here, room, &bob);
        let kept = other.room(room);
        let text = json!({ "msgtype": "m.text", "body": "confidential" });
        let said = other.seal(&kept, kept.draft(&bob, "m.room.message", None, text));
        let redaction = |by: &Mallory, sender: &str| {
            let mut draft = kept.draft(sender, "m.room.redaction", None, json!({ "redacts": said.id }));
            draft["redacts"] = said.id.as_str().into();
            by.seal(&kept, draft)
        };
        // Whoever may not redact it says so before and after him who may.
        mallory.tell(here, &redaction(mallory, eve));
        scene.settle();
        other.tell(here, &redaction(&other, &bob));
        mallory.tell(here, &redaction(mallory, eve));
        scene.settle();
        other.tell(here, &said);
        crate::until(|| alice.event(room, &said.id).status() == 200, "the event comes at last");
        assert_eq!(alice.event(room, &said.id).ok()["content"], json!({}), "version {version}");
    }
}

#[test]
fn attack_39_what_a_server_tells_of_the_past_is_redacted_here_if_it_was_redacted() {
    let (here, mallory) = (shared(), Mallory::new());
    let (eve, alice) = (mallory.user("eve"), here.register("alice"));
    let room = mallory.create_room(&eve, "11");
    let first = mallory.text(&room, &eve, "the first");
    let mut reply = json!({ "msgtype": "m.text", "body": "a reply" });
    reply["m.relates_to"] = json!({ "rel_type": "m.thread", "event_id": first.id });
    let reply = mallory.make(&room, &eve, "m.room.message", None, reply);
    let secret = mallory.text(&room, &eve, "confidential");
    mallory.make(&room, &eve, "m.room.redaction", None, json!({ "redacts": secret.id }));
    for n in 0..3 {
        mallory.text(&room, &eve, &n.to_string());
    }
    crate::try_join(&alice, &room, &mallory).done();
    // All of it comes at once, the redacted event as it was.
    let past = alice.messages(&room, "dir=b&limit=50").to_string();
    assert!(past.contains("the first") && !past.contains("confidential"), "{past}");
    let shown = alice.event(&room, &secret.id).ok();
    assert_eq!(shown["content"], json!({}));
    assert_eq!(shown["unsigned"]["redacted_because"]["type"], "m.room.redaction", "{shown}");
    let path = format!("/_matrix/client/v1/rooms/{}/relations/{}", enc(&room), enc(&first.id));
    let related = alice.get(&path).ok();
    assert_eq!(related["chunk"][0]["event_id"], reply.id.as_str(), "{related}");
}

#[test]
fn attack_31_what_is_said_in_one_room_about_an_event_of_another_does_nothing_there() {
    let scene = Scene::of_version("11");
    let Scene { here, mallory, alice, eve, room } = &scene;
    let private = alice.create_room(json!({ "preset": "private_chat", "room_version": "11" }));
    let first = alice.send_text(&private, "the first");
    let reply = |body: &str| {
        json!({ "msgtype": "m.text", "body": body,
            "m.relates_to": { "rel_type": "m.thread", "event_id": first } })
    };
    for body in ["one", "two"] {
        alice.send(&private, "m.room.message", reply(body));
    }
    // Eve knows the id, and is not in the room.
    let edit = json!({ "msgtype": "m.text", "body": "* forged", "m.new_content": { "msgtype": "m.text", "body": "forged" },
        "m.relates_to": { "rel_type": "m.replace", "event_id": first } });
    for content in [reply("forged"), edit] {
        let said = mallory.make(room, eve, "m.room.message", None, content);
        mallory.tell(here, &said);
        let redaction = mallory.make(room, eve, "m.room.redaction", None, json!({ "redacts": said.id }));
        mallory.tell(here, &redaction);
    }
    let redaction = mallory.make(room, eve, "m.room.redaction", None, json!({ "redacts": first }));
    mallory.tell(here, &redaction);
    let read = json!({ "edu_type": "m.receipt", "content": { room.as_str(): { "m.read": {
        eve.as_str(): { "event_ids": [first], "data": { "ts": 1 } } } } } });
    mallory.transact(here, &[], &[read]).done();
    scene.settle();
    let shown = alice.event(&private, &first).ok();
    assert_eq!(shown["content"]["body"], "the first");
    let thread = &shown["unsigned"]["m.relations"]["m.thread"];
    assert_eq!(
        (&thread["count"], &thread["latest_event"]["content"]["body"]),
        (&json!(2), &json!("two")),
        "{shown}"
    );
    assert!(!shown.to_string().contains("forged"), "{shown}");
    let path = format!("/_matrix/client/v1/rooms/{}/threads", enc(room));
    assert_eq!(alice.get(&path).ok()["chunk"], json!([]), "the other room has no such thread");
}

#[test]
fn attack_34_a_server_whose_users_were_put_out_is_sent_nothing_more() {
    let scene = Scene::new();
    let Scene { here, mallory, alice, eve, room } = &scene;
    // Another room that both stay in: what comes there comes after what was before it.
    let other = here.register("other");
    let shared_room = other.create_public_room();
    mallory.join(here, &shared_room, eve);
    let seen = alice.send_text(room, "for all");
    mallory.until(room, "alice is heard", |room| room.has(&seen));
    alice.about_member(room, "ban", eve).done();
    let secret = alice.send_text(room, "secret");
    alice.typing(room, true);
    alice.read(room, &secret);
    let phone = alice.log_in_again();
    phone.put(&format!("v3/devices/{}", phone.device()), json!({ "display_name": "secret phone" })).done();
    alice
        .put(
            &format!("v3/presence/{}/status", alice.id_in_path()),
            json!({ "presence": "online", "status_msg": "secret status" }),
        )
        .done();
    for n in 0..3 {
        let said = other.send_text(&shared_room, &n.to_string());
        mallory.until(&shared_room, "what is said in the other room arrives", |room| room.has(&said));
    }
    let sent = mallory.seen("send");
    let ban = sent.iter().any(|asked| String::from_utf8_lossy(&asked.body).contains("\"ban\""));
    assert!(ban, "the ban itself is told");
    for asked in sent {
        let text = String::from_utf8_lossy(&asked.body).into_owned();
        assert!(!text.contains("secret") && !text.contains(&secret), "{text}");
        assert!(!text.contains(phone.device()), "{text}");
    }
}
