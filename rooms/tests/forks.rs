//! Rooms whose history forks: two branches, many branches, in any order, against a model that resolves from scratch.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "other tests use more of the model")]
mod model;

use model::{Model, State};
use postern_graph::{Graph, Root, Settings, doctor};
use postern_rooms::{CreateRoom, Preset, Received, Rooms, Verified};
use proptest::prelude::*;
use ruma::{OwnedEventId, OwnedRoomId, RoomId, server_name, user_id};
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::Path, sync::Arc};
use tempfile::TempDir;

fn open(path: &Path) -> Rooms {
    let graph = Graph::open(&Settings { path: path.join("db"), block_cache: 8 << 20 }).unwrap();
    Rooms::new(graph, server_name!("h"), "12").unwrap()
}

/// A public room of `@alice:h` in which anyone may set names and topics, Bob may ban Cara, and Cara all others.
async fn room(rooms: &Rooms, version: &str) -> OwnedRoomId {
    let mut levels = json!({
        "users": { BOB: 60, CARA: 50 }, "events": { "m.room.join_rules": 50, "m.room.power_levels": 100 },
        "state_default": 0,
    });
    if version != "12" {
        levels["users"]["@alice:h"] = 100.into();
    }
    let request = CreateRoom {
        version: Some(version.to_owned()),
        preset: Preset::PublicChat,
        power_levels: levels.as_object().unwrap().clone(),
        ..CreateRoom::default()
    };
    rooms.create(user_id!("@alice:h"), request).await.unwrap()
}

/// A room and a model of it, before anything has come from elsewhere.
struct Forked {
    dir: TempDir,
    rooms: Rooms,
    id: OwnedRoomId,
    model: Model,
    /// The event it ends with.
    start: OwnedEventId,
}

impl Forked {
    async fn new(version: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let rooms = open(dir.path());
        let id = room(&rooms, version).await;
        let model = Model::of(&rooms, &id, &["r1", "r2"]);
        let start = model.tip();
        Self { dir, rooms, id, model, start }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn plain(state: &State) -> BTreeMap<(String, String), OwnedEventId> {
    state.iter().map(|((kind, key), id)| ((kind.to_string(), key.clone()), id.clone())).collect()
}

fn stored(rooms: &Rooms, root: Root) -> BTreeMap<(String, String), OwnedEventId> {
    by_key(&rooms.all_state_in(root).unwrap())
}

fn by_key(events: &[Arc<postern_rooms::Event>]) -> BTreeMap<(String, String), OwnedEventId> {
    let key =
        |event: &postern_rooms::Event| (event.kind().to_string(), event.state_key().unwrap().to_owned());
    events.iter().map(|event| (key(event), event.id.clone())).collect()
}

/// The states around every event, the present state, and the present state in its flat form are the model's.
fn agrees(rooms: &Rooms, model: &Model) {
    for (id, event) in &model.events {
        let real = rooms.event_by_id(id).unwrap().unwrap();
        assert_eq!(real.record.has(postern_graph::event::flags::REJECTED), event.rejected, "{id}");
        assert_eq!(stored(rooms, real.record.state_before), plain(&model.before[id]), "before {id}");
        assert_eq!(stored(rooms, real.record.state_after), plain(&model.after[id]), "after {id}");
    }
    let num = rooms.room(&model.room).unwrap().unwrap();
    let head = rooms.head(num).unwrap().unwrap();
    let ends = head.extremities.iter().map(|num| model.after[&rooms.event(*num).unwrap().id].clone());
    let now = plain(&model.resolved(ends.collect()));
    assert_eq!(stored(rooms, head.state), now, "the current state");
    assert_eq!(by_key(&rooms.current_state(num).unwrap()), now, "the flat current state");
}

fn object(pdu: &Verified) -> ruma::CanonicalJsonObject {
    serde_json::from_str(pdu.json()).unwrap()
}

/// The events a PDU names, as previous or as authorizing ones.
fn references(pdu: &Verified) -> Vec<OwnedEventId> {
    let pdu: Value = serde_json::from_str(pdu.json()).unwrap();
    let ids =
        ["prev_events", "auth_events"].into_iter().flat_map(|name| pdu[name].as_array().unwrap().clone());
    ids.map(|id| serde_json::from_value(if id.is_array() { id[0].clone() } else { id }).unwrap()).collect()
}

fn join(model: &mut Model, who: &str, prev: &[OwnedEventId]) -> Verified {
    model.make(who, "m.room.member", Some(who), json!({ "membership": "join" }), prev)
}

const BOB: &str = "@bob:r1";
const CARA: &str = "@cara:r2";

#[tokio::test]
async fn two_branches_meet_in_one_state_and_the_next_event_joins_them() {
    for version in ["2", "3", "6", "10", "11", "12"] {
        let Forked { dir, rooms, id, mut model, start } = Forked::new(version).await;
        let bob = join(&mut model, BOB, &[start]);
        let cara = join(&mut model, CARA, &[bob.id().to_owned()]);
        let base = cara.id().to_owned();
        // Each sets a topic without having heard of the other's; Cara's is the later one.
        let one =
            model.make(BOB, "m.room.topic", Some(""), json!({ "topic": "one" }), std::slice::from_ref(&base));
        let name = model.make(BOB, "m.room.name", Some(""), json!({ "name": "n" }), &[one.id().to_owned()]);
        let two = model.make(CARA, "m.room.topic", Some(""), json!({ "topic": "two" }), &[base]);
        for pdu in [bob, cara, one, name.clone(), two.clone()] {
            assert_eq!(rooms.receive(&id, pdu, &[]).await.unwrap(), Received::Accepted, "version {version}");
        }
        let num = rooms.room(&id).unwrap().unwrap();
        assert_eq!(rooms.head(num).unwrap().unwrap().extremities.len(), 2);
        let topic = rooms.state(num, "m.room.topic", "").unwrap().unwrap();
        assert_eq!(topic.content_text("topic").unwrap(), "two");
        assert_eq!(rooms.state(num, "m.room.name", "").unwrap().unwrap().id, name.id());
        agrees(&rooms, &model);

        let content = serde_json::value::to_raw_value(&json!({ "body": "both" })).unwrap();
        let draft = postern_rooms::Draft::message("m.room.message", content);
        let merged = rooms.send(user_id!("@alice:h"), &id, draft).await.unwrap();
        let merged = rooms.event_by_id(&merged).unwrap().unwrap();
        let mut prev: Vec<_> = merged.prev_events().cloned().collect();
        prev.sort();
        let mut ends = vec![name.id().to_owned(), two.id().to_owned()];
        ends.sort();
        assert_eq!(prev, ends);
        assert_eq!(rooms.head(num).unwrap().unwrap().extremities, [merged.num]);
        drop(rooms);
        let found = doctor::check(&dir.path().join("db")).unwrap();
        assert!(found.is_healthy(), "{found:#?}");
    }
}

#[tokio::test]
async fn who_was_banned_meanwhile_is_out_and_what_they_say_is_soft_failed() {
    let Forked { dir: _dir, rooms, id, mut model, start } = Forked::new("11").await;
    let bob = join(&mut model, BOB, &[start]);
    let base = bob.id().to_owned();
    rooms.receive(&id, bob, &[]).await.unwrap();
    let late =
        model.make(BOB, "m.room.message", None, json!({ "body": "late" }), std::slice::from_ref(&base));
    let ban = postern_rooms::MembershipChange::to(postern_rooms::MembershipKind::Ban);
    rooms.membership(user_id!("@alice:h"), &id, user_id!("@bob:r1"), ban).await.unwrap();
    let received = rooms.receive(&id, late.clone(), &[]).await.unwrap();
    assert!(matches!(received, Received::SoftFailed(_)), "{received:?}");
    assert_eq!(rooms.receive(&id, late.clone(), &[]).await.unwrap(), Received::Known);
    let num = rooms.room(&id).unwrap().unwrap();
    assert_eq!(rooms.head(num).unwrap().unwrap().extremities.len(), 1);
    assert!(!rooms.event_by_id(late.id()).unwrap().unwrap().record.is_visible());
    // On top of what is not shown nothing ends the room twice.
    let later = model.make(BOB, "m.room.message", None, json!({ "body": "later" }), &[late.id().to_owned()]);
    assert!(matches!(rooms.receive(&id, later, &[]).await.unwrap(), Received::SoftFailed(_)));
    assert_eq!(rooms.head(num).unwrap().unwrap().extremities.len(), 1);
}

#[tokio::test]
async fn what_the_rules_forbid_is_rejected_and_changes_nothing() {
    let Forked { dir: _dir, rooms, id, mut model, start } = Forked::new("12").await;
    let num = rooms.room(&id).unwrap().unwrap();
    let before = rooms.head(num).unwrap().unwrap();
    let uninvited = model.make(BOB, "m.room.message", None, json!({ "body": "hi" }), &[start]);
    assert!(matches!(rooms.receive(&id, uninvited, &[]).await.unwrap(), Received::Rejected(_)));
    let after = rooms.head(num).unwrap().unwrap();
    assert_eq!((before.state, before.extremities), (after.state, after.extremities));
    agrees(&rooms, &model);
}

#[tokio::test]
async fn an_event_whose_past_is_not_here_is_not_taken() {
    let Forked { dir: _dir, rooms, id, mut model, start } = Forked::new("12").await;
    let bob = join(&mut model, BOB, &[start]);
    let next = model.make(BOB, "m.room.message", None, json!({ "body": "hi" }), &[bob.id().to_owned()]);
    let error = rooms.receive(&id, next, &[]).await.unwrap_err();
    assert!(matches!(&error, postern_rooms::Error::MissingEvents(ids) if ids.contains(&bob.id().to_owned())));
}

#[tokio::test]
async fn an_event_that_comes_after_its_redaction_is_redacted() {
    let Forked { dir: _dir, rooms, id, mut model, start } = Forked::new("11").await;
    let bob = join(&mut model, BOB, &[start]);
    let base = [bob.id().to_owned()];
    rooms.receive(&id, bob, &[]).await.unwrap();
    let said = model.make(BOB, "m.room.message", None, json!({ "body": "wrong" }), &base);
    let redaction = model.make(BOB, "m.room.redaction", None, json!({ "redacts": said.id() }), &base);
    rooms.receive(&id, redaction.clone(), &[]).await.unwrap();
    rooms.receive(&id, said.clone(), &[]).await.unwrap();
    let stored = rooms.event_by_id(said.id()).unwrap().unwrap();
    assert!(!stored.json().contains("wrong"));
    let by = stored.record.redacted_by.expect("it says by what");
    assert_eq!(rooms.event(by).unwrap().id, redaction.id());
}

/// Stages these events and takes as many as can be taken together: how many.
async fn take_together(rooms: &Rooms, id: &RoomId, pdus: Vec<Verified>) -> usize {
    let num = rooms.room(id).unwrap().unwrap();
    let count = pdus.len();
    let mut commit = rooms.graph().begin();
    let pdus = pdus.into_iter().map(|pdu| (num, pdu)).collect();
    rooms.stage(&mut commit, server_name!("r1"), pdus).unwrap();
    rooms.graph().commit(commit).unwrap();
    let waiting = rooms.staged(num, None, usize::MAX).unwrap();
    let taken = rooms.receive_waiting(num, &waiting).await.unwrap();
    assert_eq!(rooms.staged_count(num, usize::MAX), count - taken);
    taken
}

#[tokio::test]
async fn events_that_wait_are_taken_together_up_to_one_that_lacks_something() {
    let Forked { dir: _dir, rooms, id, mut model, start } = Forked::new("11").await;
    let num = rooms.room(&id).unwrap().unwrap();
    let bob = join(&mut model, BOB, &[start]);
    let mut pdus = vec![bob.clone()];
    let mut say = |n: usize, content: Value| {
        let prev = [pdus.last().unwrap().id().to_owned()];
        pdus.push(model.make(BOB, "m.room.message", None, content, &prev));
        assert_eq!(pdus.len(), n + 2);
    };
    for n in 0..10 {
        say(n, json!({ "body": n }));
    }
    // Two answers in one thread: the second counts on the first.
    let thread =
        json!({ "body": "in a thread", "m.relates_to": { "rel_type": "m.thread", "event_id": bob.id() } });
    for n in 10..12 {
        say(n, thread.clone());
    }
    for n in 12..15 {
        say(n, json!({ "body": n }));
    }
    let end = pdus.last().unwrap().id().to_owned();
    // The next one is not told, so what follows on it cannot be taken.
    let missing =
        model.make(BOB, "m.room.message", None, json!({ "body": "missing" }), std::slice::from_ref(&end));
    let behind =
        model.make(BOB, "m.room.message", None, json!({ "body": "behind" }), &[missing.id().to_owned()]);
    let whole = pdus.len();
    // A repetition is taken too, as known.
    pdus.push(pdus[3].clone());
    pdus.push(behind);
    assert_eq!(take_together(&rooms, &id, pdus.clone()).await, whole + 1);
    let head = rooms.head(num).unwrap().unwrap();
    let ends: Vec<_> = head.extremities.iter().map(|num| rooms.event(*num).unwrap().id.clone()).collect();
    assert_eq!(ends, [end]);
    for pdu in &pdus[..whole] {
        assert!(rooms.event_by_id(pdu.id()).unwrap().unwrap().record.is_visible());
    }
    let bob = rooms.event_by_id(bob.id()).unwrap().unwrap();
    let tip = rooms.graph().get::<postern_graph::schema::ThreadTips>(&(bob.num,)).unwrap();
    assert_eq!(tip.unwrap().1, 2, "both answers are counted");
}

#[tokio::test]
async fn an_event_does_not_bring_the_state_of_another_room_along() {
    let dir = tempfile::tempdir().unwrap();
    let rooms = open(dir.path());
    let (id, elsewhere) = (room(&rooms, "11").await, room(&rooms, "11").await);
    let mut model = Model::of(&rooms, &id, &["r1", "r2"]);
    let start = model.tip();
    let bob = join(&mut model, BOB, std::slice::from_ref(&start));
    let num = rooms.room(&id).unwrap().unwrap();
    let other = rooms.room(&elsewhere).unwrap().unwrap();
    let end = rooms.event(rooms.head(other).unwrap().unwrap().extremities[0]).unwrap();
    let mut pdu = object(&bob);
    for name in ["hashes", "signatures"] {
        pdu.remove(name);
    }
    let prev = vec![start, end.id.clone()];
    pdu.insert("prev_events".to_owned(), serde_json::from_value(json!(prev)).unwrap());
    let before = rooms.head(num).unwrap();
    let refused = rooms.receive(&id, model.signed(BOB, pdu), &[]).await.unwrap_err();
    assert!(matches!(&refused, postern_rooms::Error::BadJson(_)), "{refused}");
    assert_eq!(rooms.head(num).unwrap(), before);
}

#[tokio::test]
async fn a_forged_signature_is_refused_and_a_changed_content_is_redacted() {
    let Forked { mut model, start, .. } = Forked::new("11").await;
    let bob = join(&mut model, BOB, &[start]);
    let topic = model.make(BOB, "m.room.topic", Some(""), json!({ "topic": "t" }), &[bob.id().to_owned()]);
    let mut pdu = object(&topic);
    pdu.insert("depth".to_owned(), ruma::CanonicalJsonValue::Integer(ruma::int!(1)));
    let refused = Verified::check(&model.version, pdu, &model.public).unwrap_err();
    assert!(matches!(refused, postern_rooms::Error::Unverified(_)), "{refused}");
    let mut pdu = object(&topic);
    let content = serde_json::from_value(json!({ "topic": "changed" })).unwrap();
    pdu.insert("content".to_owned(), content);
    let redacted = Verified::check(&model.version, pdu, &model.public).unwrap();
    assert_eq!(redacted.id(), topic.id());
    assert_eq!(object(&redacted)["content"], ruma::CanonicalJsonValue::Object(Default::default()));
}

/// One random thing somebody does, on top of randomly chosen events.
#[derive(Debug, Clone)]
struct Step {
    who: usize,
    what: usize,
    on: Vec<prop::sample::Index>,
    place: prop::sample::Index,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (
        0..4_usize,
        0..9_usize,
        prop::collection::vec(any::<prop::sample::Index>(), 1..4),
        any::<prop::sample::Index>(),
    )
        .prop_map(|(who, what, on, place)| Step { who, what, on, place });
    prop::collection::vec(step, 5..30)
}

const PEOPLE: [&str; 4] = ["@bob:r1", "@bea:r1", "@cara:r2", "@dan:r3"];

fn carry_out(model: &mut Model, steps: &[Step]) -> Vec<Verified> {
    let mut made: Vec<OwnedEventId> = vec![model.tip()];
    let mut pdus = Vec::new();
    let mut add = |pdu: Verified, made: &mut Vec<OwnedEventId>| {
        made.push(pdu.id().to_owned());
        pdus.push(pdu);
    };
    for who in PEOPLE {
        let tip = made.last().unwrap().clone();
        let pdu = join(model, who, &[tip]);
        add(pdu, &mut made);
    }
    for step in steps {
        // Mostly on recent events, so that branches grow and meet.
        let recent = &made[made.len().saturating_sub(8)..];
        let mut prev: Vec<OwnedEventId> = step.on.iter().map(|index| index.get(recent).clone()).collect();
        prev.sort();
        prev.dedup();
        let who = PEOPLE[step.who];
        let other = PEOPLE[(step.who + 1 + step.place.index(3)) % 4];
        let (kind, key, content): (&str, Option<&str>, Value) = match step.what {
            0 => ("m.room.topic", Some(""), json!({ "topic": who })),
            1 => ("m.room.name", Some(""), json!({ "name": other })),
            2 => ("m.room.message", None, json!({ "body": who })),
            3 => ("m.room.member", Some(who), json!({ "membership": "leave" })),
            4 => ("m.room.member", Some(who), json!({ "membership": "join" })),
            5 => ("m.room.member", Some(other), json!({ "membership": "ban" })),
            6 => ("m.room.member", Some(other), json!({ "membership": "invite" })),
            7 => (
                "m.room.join_rules",
                Some(""),
                json!({ "join_rule": if step.place.index(2) == 0 { "invite" } else { "public" } }),
            ),
            _ => ("io.postern.test", Some(who), json!({ "n": step.place.index(100) })),
        };
        let pdu = model.make(who, kind, key, content, &prev);
        add(pdu, &mut made);
    }
    pdus
}

/// The same events in another order in which each comes after those it follows on or is authorized by.
fn another_order(pdus: &[Verified], steps: &[Step]) -> Vec<Verified> {
    let mut left: Vec<&Verified> = pdus.iter().collect();
    let mut order: Vec<Verified> = Vec::new();
    let mut turn = 0;
    while !left.is_empty() {
        let waiting: Vec<OwnedEventId> = left.iter().map(|pdu| pdu.id().to_owned()).collect();
        let free: Vec<usize> = (0..left.len())
            .filter(|at| !references(left[*at]).iter().any(|id| waiting.contains(id)))
            .collect();
        let step = &steps[turn % steps.len()];
        turn += 1;
        order.push(left.remove(free[step.place.index(free.len())]).clone());
    }
    order
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    /// Whatever the graph of events looks like and in whichever order it arrives, the state kept step by step is the
    /// one resolved from scratch, on every server the same.
    #[test]
    fn state_kept_step_by_step_is_state_resolved_from_scratch(
        version in prop::sample::select(vec!["2", "3", "7", "10", "11", "12"]),
        steps in steps(),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let (first, second) = (dir.path().join("first"), dir.path().join("second"));
            std::fs::create_dir_all(&first).unwrap();
            let rooms = open(&first);
            let id = room(&rooms, version).await;
            let mut model = Model::of(&rooms, &id, &["r1", "r2", "r3"]);
            drop(rooms);
            copy(&first, &second);
            let pdus = carry_out(&mut model, &steps);
            for (path, order) in [(&first, pdus.clone()), (&second, another_order(&pdus, &steps))] {
                let rooms = open(path);
                if path == &first {
                    for pdu in order {
                        rooms.receive(&id, pdu, &[]).await.unwrap();
                    }
                } else {
                    let count = order.len();
                    assert_eq!(take_together(&rooms, &id, order).await, count);
                }
                agrees(&rooms, &model);
                drop(rooms);
                let found = doctor::check(&path.join("db")).unwrap();
                assert!(found.is_healthy(), "{found:#?}");
            }
        });
    }
}
