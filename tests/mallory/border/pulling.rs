//! Asking for what is held back: all endpoints that read, and through other members.

use super::{
    CANARY, Stage, assert_same,
    enclaves::{Enclave, Peer, content, join_by, label},
    mixed_room, room_path,
};
use crate::peer::{Mallory, until};
use postern_world::{Answer, Seat, Server, enc};
use serde_json::json;

/// The ways a server can be asked for an event, with what is after it and the time at which it was.
pub(super) fn pull(
    mallory: &Mallory,
    server: &Server,
    room: &str,
    event: &str,
    after: &str,
    ts: u64,
) -> Vec<Answer> {
    let id = enc(event);
    let missing = json!({ "earliest_events": [], "latest_events": [after], "limit": 20, "min_depth": 0 });
    let mut answers = vec![mallory.post(server, &room_path("get_missing_events", room, ""), &missing)];
    let reads = [
        format!("v1/event/{id}"),
        room_path("backfill", room, &format!("?v={}&limit=20", enc(after))),
        room_path("state", room, &format!("?event_id={id}")),
        room_path("state_ids", room, &format!("?event_id={id}")),
        room_path("event_auth", room, &format!("/{id}")),
        room_path("timestamp_to_event", room, &format!("?ts={ts}&dir=f")),
    ];
    answers.extend(reads.iter().map(|path| mallory.get(server, path)));
    answers
}

#[test]
fn attack_47_a_blocked_event_is_not_pulled_by_any_endpoint() {
    let stage = Stage::new();
    let secret = stage.say("CONFIDENTIAL", CANARY);
    let name = stage.alice.set_state(&stage.room, "m.room.name", "", json!({ "name": CANARY }));
    let after = stage.settle();
    let ts = stage.alice.event(&stage.room, &secret).ok()["origin_server_ts"].as_u64().unwrap();
    for event in [&secret, &name] {
        for answer in pull(&stage.mallory, &stage.high.server, &stage.room, event, &after, ts) {
            assert_eq!(answer.status(), 200, "{}", answer.describe());
            assert!(!answer.describe().contains(CANARY), "{}", answer.describe());
        }
    }
    // The copy is the event: same id, and the signatures hold.
    let copy = stage.get(&format!("v1/event/{}", enc(&secret))).ok()["pdus"][0].clone();
    let version = stage.mallory.room(&stage.room).version;
    assert_eq!(crate::room::id_of(&version, &copy), secret);
    assert_eq!(copy["content"], json!({}));
}

#[test]
fn attack_47_a_blocked_event_is_not_pulled_through_another_member() {
    let (a, b, c) = (Seat::take(), Seat::take(), Seat::take());
    let cleared = "Company CONFIDENTIAL";
    let high = Enclave::start(&a, cleared, &[Peer(&b, cleared, ""), Peer(&c, "Company INTERNAL", "")], "");
    let other = Enclave::start(&b, cleared, &[Peer(&a, cleared, ""), Peer(&c, "Company INTERNAL", "")], "");
    let mallory = Mallory::at(&c);
    let (alice, bob, eve) = (high.register("alice"), other.register("bob"), mallory.user("eve"));
    let room = mixed_room(&alice, &eve);
    about_invite(&alice, &room, bob.id());
    join_by(&bob, &room, &high.server);
    mallory.join(&high.server, &room, &eve);
    let since = bob.now();
    let secret = alice.send_text(&room, CANARY);
    bob.sync_until_event(&since, &room, &secret);
    assert_eq!(content(&bob, &room, &secret)["body"], CANARY, "the other member has it whole");
    let last = json!({ "msgtype": "m.text", "body": "all", "io.postern.label": label("INTERNAL") });
    let after = bob.send(&room, "m.room.message", last);
    mallory.until(&room, "mallory has the last word", |room| room.has(&after));
    let ts = alice.event(&room, &secret).ok()["origin_server_ts"].as_u64().unwrap();
    until(|| alice.event(&room, &after).status() == 200, "alice has the last word");
    for server in [&other.server, &high.server] {
        for answer in pull(&mallory, server, &room, &secret, &after, ts) {
            assert!(!answer.describe().contains(CANARY), "{}", answer.describe());
        }
    }
    // A new member of the hostile server gets nothing more by coming in there.
    about_invite(&alice, &room, &mallory.user("mel"));
    until(|| bob.state(&room, "m.room.member", &mallory.user("mel")).status() == 200, "bob sees the invite");
    mallory.try_join(&other.server, &room, &mallory.user("mel"));
    assert!(!mallory.heard().contains(CANARY));
}

fn about_invite(by: &postern_world::Client, room: &str, user: &str) {
    by.about_member(room, "invite", user).done();
}

#[test]
fn attack_47_forbidden_wrong_room_and_unknown_are_one_answer() {
    let stage = Stage::new();
    let (alice, high) = (&stage.alice, &stage.high.server);
    // A room that mallory's server may know and is not in, and one that it may not know.
    let foreign = alice.create_room(json!({ "preset": "private_chat" }));
    let hidden = alice.create_room(json!({
        "preset": "private_chat",
        "creation_content": { "io.postern.label": label("CONFIDENTIAL") },
    }));
    let (of_foreign, of_hidden) = (alice.send_text(&foreign, CANARY), alice.send_text(&hidden, CANARY));
    let own = stage.settle();
    let nothing = format!("${}", "A".repeat(43));
    let nowhere = "!nowhere:nobody.test";
    let unknown = stage.get(&format!("v1/event/{}", enc(&nothing)));
    assert_eq!(unknown.status(), 404);
    for event in [&of_foreign, &of_hidden] {
        assert_same(&stage.get(&format!("v1/event/{}", enc(event))), &unknown);
    }
    // By room: an event of another room is as one that is not there.
    let at = |what: &str, room: &str, event: &str| match what {
        "event_auth" => stage.get(&room_path(what, room, &format!("/{}", enc(event)))),
        _ => stage.get(&room_path(what, room, &format!("?event_id={}", enc(event)))),
    };
    for what in ["state", "state_ids", "event_auth"] {
        let missing = at(what, &stage.room, &nothing);
        assert_eq!(missing.status(), 404, "{}", missing.describe());
        for event in [&of_foreign, &of_hidden] {
            assert_same(&at(what, &stage.room, event), &missing);
        }
        let no_room = at(what, nowhere, &nothing);
        for (room, event) in [(&foreign, &of_foreign), (&hidden, &of_hidden), (&hidden, &own)] {
            assert_same(&at(what, room, event), &no_room);
        }
    }
    let body = json!({ "earliest_events": [], "latest_events": [nothing], "limit": 5, "min_depth": 0 });
    let missing = |room: &str| stage.mallory.post(high, &room_path("get_missing_events", room, ""), &body);
    let backfill =
        |room: &str| stage.get(&room_path("backfill", room, &format!("?v={}&limit=5", enc(&nothing))));
    let time = |room: &str| stage.get(&room_path("timestamp_to_event", room, "?ts=0&dir=f"));
    let hierarchy = |room: &str| stage.get(&room_path("hierarchy", room, ""));
    let join = |room: &str| stage.get(&room_path("make_join", room, &format!("/{}?ver=12", enc(&stage.eve))));
    let leave = |room: &str| stage.get(&room_path("make_leave", room, &format!("/{}", enc(&stage.eve))));
    let knock =
        |room: &str| stage.get(&room_path("make_knock", room, &format!("/{}?ver=12", enc(&stage.eve))));
    for room in [&foreign, &hidden] {
        assert_same(&missing(room), &missing(nowhere));
        assert_same(&backfill(room), &backfill(nowhere));
        assert_same(&time(room), &time(nowhere));
    }
    assert_same(&hierarchy(&hidden), &hierarchy(nowhere));
    assert_same(&hierarchy(&foreign), &hierarchy(nowhere));
    assert_same(&join(&hidden), &join(nowhere));
    assert_same(&leave(&hidden), &leave(nowhere));
    assert_same(&knock(&hidden), &knock(nowhere));
    // Aliases, files.
    let name = format!("#hidden-{}:{}", crate::peer::number(), alice.server_name());
    alice.put(&format!("v3/directory/room/{}", enc(&name)), json!({ "room_id": hidden })).done();
    let alias = |alias: &str| stage.get(&format!("v1/query/directory?room_alias={}", enc(alias)));
    assert_same(&alias(&name), &alias(&format!("#none:{}", alice.server_name())));
    let file = alice.upload("text/plain", Some(CANARY), CANARY.as_bytes());
    let show = json!({ "msgtype": "m.file", "body": "f", "url": file });
    alice.send(&stage.room, "m.room.message", show);
    let id = file.rsplit('/').next().unwrap().to_owned();
    for what in ["download", "thumbnail"] {
        let query = if what == "thumbnail" { "?width=32&height=32" } else { "" };
        let get = |id: &str| stage.get(&format!("v1/media/{what}/{id}{query}"));
        assert_same(&get(&id), &get("AAAAAAAAAAAAAAAAAAAAAAAA"));
    }
}
