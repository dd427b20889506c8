//! Rooms joined without their members: what is taken meanwhile, and what becomes of it when the rest is told.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "other tests use more of the model")]
mod model;

use model::Model;
use postern_graph::{
    Graph, Settings, doctor,
    event::flags,
    schema::{Relations, ThreadTips},
};
use postern_rooms::{
    CreateRoom, Draft, Error, Gap, MembershipChange, MembershipKind, Omitted, Preset, Received, Rooms,
    Verified, version::version,
};
use ruma::{
    CanonicalJsonObject, OwnedEventId, RoomId, ServerName, UserId, serde::Base64, server_name,
    signatures::PublicKeyMap, user_id,
};
use serde_json::{Map, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

const BOB: &str = "@bob:r1";
const CARA: &str = "@cara:r2";

fn open(path: &Path, server: &ServerName) -> Rooms {
    let graph = Graph::open(&Settings { path: path.join(server.as_str()), block_cache: 8 << 20 }).unwrap();
    Rooms::new(graph, server, "11").unwrap()
}

fn add_keys(keys: &mut PublicKeyMap, rooms: &Rooms) {
    let key = Base64::parse(rooms.keys().public_key()).unwrap();
    keys.insert(rooms.server_name().to_string(), BTreeMap::from([(rooms.keys().key_id(), key)]));
}

fn checked(rooms: &Rooms, id: &OwnedEventId, keys: &PublicKeyMap) -> Verified {
    let event = rooms.event_by_id(id).unwrap().unwrap();
    let pdu: CanonicalJsonObject = serde_json::from_str(event.json()).unwrap();
    Verified::check(&version("11").unwrap(), pdu, keys).unwrap()
}

/// `zed` of the server `there` joins a room of `here`, and is told the state without members.
async fn join(here: &Rooms, there: &Rooms, room: &RoomId, zed: &UserId, keys: &PublicKeyMap) {
    let versions = ["11".to_owned()];
    let (_, template) = here.template(room, zed, MembershipKind::Join, Some(&versions)).unwrap();
    let join = there.complete(room, "11", zed, MembershipKind::Join, Map::new(), &template).unwrap();
    here.accept(room, join.clone()).await.unwrap();
    let event = here.event_by_id(join.id()).unwrap().unwrap();
    let told = here.state_for_join(&event, true).unwrap();
    let all = |nums: &[postern_graph::EventNum]| -> Vec<Verified> {
        nums.iter().map(|num| checked(here, &here.event(*num).unwrap().id, keys)).collect()
    };
    let omitted = Omitted {
        servers: here.servers_in(event.record.room).unwrap(),
        told_by: here.server_name().to_owned(),
    };
    let (state, chain) = (all(&told.state), all(&told.auth_chain));
    there.adopt(room, "11", state, chain, join, Some(omitted)).await.unwrap();
}

#[tokio::test]
async fn what_comes_before_the_members_are_known_is_judged_again_when_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (open(dir.path(), server_name!("h")), open(dir.path(), server_name!("z")));
    let (alice, zed) = (user_id!("@alice:h"), user_id!("@zed:z"));
    let request =
        CreateRoom { preset: Preset::PublicChat, name: Some("named".to_owned()), ..CreateRoom::default() };
    let room = here.create(alice, request).await.unwrap();
    let mut model = Model::of(&here, &room, &["r1", "r2"]);
    let mut last = model.tip();
    let mut memberships = Vec::new();
    for who in [BOB, CARA] {
        let join = model.make(who, "m.room.member", Some(who), json!({ "membership": "join" }), &[last]);
        last = join.id().to_owned();
        memberships.push(join.clone());
        assert_eq!(here.receive(&room, join, &[]).await.unwrap(), Received::Accepted);
    }
    let ban = MembershipChange::to(MembershipKind::Ban);
    here.membership(alice, &room, <&UserId>::try_from(CARA).unwrap(), ban).await.unwrap();
    let mut keys = model.public.clone();
    add_keys(&mut keys, &here);
    add_keys(&mut keys, &there);

    join(&here, &there, &room, zed, &keys).await;
    let num = there.known_room(&room).unwrap();
    assert!(there.is_partial(num));
    assert_eq!(there.joined_users(num).unwrap().len(), 1);
    // It is known all the same where events have to go, and who may ask.
    let servers: Vec<_> = there.servers_in(num).unwrap();
    assert!(servers.contains(&server_name!("r1").to_owned()), "{servers:?}");
    assert!(there.asking(server_name!("r1"), &room).is_ok());
    // Who joined writes at once; others are told nothing of the state yet.
    let hello = Draft::message(
        "m.room.message",
        serde_json::value::to_raw_value(&json!({ "body": "hello" })).unwrap(),
    );
    let hello = there.send(zed, &room, hello).await.unwrap();
    let event = there.event_by_id(&hello).unwrap().unwrap();
    assert!(matches!(there.state_before_event(&event), Err(Error::PartialState)));
    assert!(matches!(
        there.template(&room, user_id!("@new:n"), MembershipKind::Join, None),
        Err(Error::PartialState)
    ));

    // Bob and Cara speak, of whose memberships nothing is known here but what their events say.
    let ban = here.state(here.known_room(&room).unwrap(), "m.room.member", CARA).unwrap().unwrap();
    model.learn(&ban.id, ban.json());
    let joined = there.partial_room(num).unwrap().join;
    let joined = there.event(joined).unwrap();
    model.learn(&joined.id, joined.json());
    let after = [joined.id.clone()];
    let reply =
        |body: &str| json!({ "body": body, "m.relates_to": { "rel_type": "m.thread", "event_id": hello } });
    let said = model.make(BOB, "m.room.message", None, reply("I am here"), &after);
    let liked = json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": hello, "key": "+" } });
    let sneaked = [reply("still here"), reply("and again"), liked]
        .map(|content| said_on(&model, CARA, &content, &after[0], &memberships[1]));
    there.add_outliers(&room, memberships.clone()).await.unwrap();
    for pdu in std::iter::once(&said).chain(&sneaked) {
        assert_eq!(there.receive(&room, pdu.clone(), &[]).await.unwrap(), Received::Accepted);
    }
    let related = || -> Vec<OwnedEventId> {
        let related = there.graph().scan::<Relations, _>(&(event.num,));
        related.iter().map(|entry| there.event(entry.unwrap().1).unwrap().id.clone()).collect()
    };
    let tip = || there.graph().get::<ThreadTips>(&(event.num,)).unwrap().unwrap();
    assert_eq!((related().len(), tip().1), (4, 3));

    // The rest of the state comes.
    let told: Vec<OwnedEventId> = model.before[&joined.id].values().cloned().collect();
    let events = told.iter().map(|id| checked(&here, id, &keys)).collect();
    there.add_outliers(&room, events).await.unwrap();
    there.make_whole(&room, &Gap { prev: joined.id.clone(), state: told }).await.unwrap();
    assert!(!there.is_partial(num));
    there.wait_for_whole_state(num).await.unwrap();
    let kind = |user: &str| {
        let user = there.user(<&UserId>::try_from(user).unwrap()).unwrap().unwrap();
        there.member(num, user).unwrap().unwrap().kind
    };
    assert_eq!((kind(BOB), kind(CARA)), (MembershipKind::Join, MembershipKind::Ban));
    let flag = |id: &ruma::EventId| there.event_by_id(id).unwrap().unwrap().record.has(flags::REJECTED);
    assert_eq!((flag(said.id()), flag(&hello)), (false, false));
    assert!(sneaked.iter().all(|sneaked| flag(sneaked.id())));
    // What was rejected is in no thread any more and likes nothing.
    assert_eq!(related(), [said.id().to_owned()]);
    assert_eq!(tip(), (there.event_by_id(said.id()).unwrap().unwrap().record.pos, 1));
    let state = there.all_state_in(there.head(num).unwrap().unwrap().state).unwrap();
    let state: BTreeSet<_> = state.iter().map(|event| event.id.clone()).collect();
    assert_eq!(state, model.after[said.id()].values().cloned().collect());
    drop((here, there));
    for server in ["h", "z"] {
        let found = doctor::check(&dir.path().join(server)).unwrap();
        assert!(found.is_healthy(), "{server}: {found:#?}");
    }
}

/// A message that follows on an event and rests on a membership that is over by then.
fn said_on(
    model: &Model,
    who: &str,
    content: &serde_json::Value,
    after: &ruma::EventId,
    membership: &Verified,
) -> Verified {
    let auth: Vec<OwnedEventId> = model.after[after]
        .iter()
        .filter(|((kind, _), _)| matches!(kind.to_string().as_str(), "m.room.create" | "m.room.power_levels"))
        .map(|(_, id)| id.clone())
        .chain([membership.id().to_owned()])
        .collect();
    let pdu = json!({
        "type": "m.room.message", "room_id": model.room, "sender": who, "content": content,
        "depth": 20, "origin_server_ts": 1, "prev_events": [after], "auth_events": auth,
    });
    model.signed(who, serde_json::from_value(pdu).unwrap())
}

#[tokio::test]
async fn a_room_is_still_partial_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (open(dir.path(), server_name!("h")), open(dir.path(), server_name!("z")));
    let request = CreateRoom { preset: Preset::PublicChat, ..CreateRoom::default() };
    let room = here.create(user_id!("@alice:h"), request).await.unwrap();
    let mut keys = PublicKeyMap::new();
    add_keys(&mut keys, &here);
    join(&here, &there, &room, user_id!("@zed:z"), &keys).await;
    drop(there);
    let there = open(dir.path(), server_name!("z"));
    let num = there.known_room(&room).unwrap();
    assert_eq!(there.partial_room(num).unwrap().told_by, "h");
    // Who has no name is called by its first members, so these are told.
    let alice = there.user(user_id!("@alice:h")).unwrap().unwrap();
    assert!(there.is_joined(num, alice).unwrap());
    let leave = MembershipChange::to(MembershipKind::Leave);
    there.membership(user_id!("@zed:z"), &room, user_id!("@zed:z"), leave).await.unwrap();
    there.give_up_whole_state(num).await.unwrap();
    assert!(!there.is_partial(num));
}

#[tokio::test]
async fn the_whole_state_may_be_told_as_it_was_before_the_event_that_the_join_follows_on() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (open(dir.path(), server_name!("h")), open(dir.path(), server_name!("z")));
    let request = CreateRoom { preset: Preset::PublicChat, ..CreateRoom::default() };
    let room = here.create(user_id!("@alice:h"), request).await.unwrap();
    let mut model = Model::of(&here, &room, &["r1"]);
    let create = here.state(here.known_room(&room).unwrap(), "m.room.create", "").unwrap().unwrap();
    let bob = model.make(BOB, "m.room.member", Some(BOB), json!({ "membership": "join" }), &[model.tip()]);
    assert_eq!(here.receive(&room, bob.clone(), &[]).await.unwrap(), Received::Accepted);
    let mut keys = model.public.clone();
    add_keys(&mut keys, &here);
    add_keys(&mut keys, &there);
    join(&here, &there, &room, user_id!("@zed:z"), &keys).await;

    let num = there.known_room(&room).unwrap();
    let before = here.event_by_id(bob.id()).unwrap().unwrap();
    let (state, _) = here.state_before_event(&before).unwrap();
    let state: Vec<OwnedEventId> = state.iter().map(|num| here.event(*num).unwrap().id.clone()).collect();
    let events = state.iter().map(|id| checked(&here, id, &keys)).chain([bob.clone()]).collect();
    there.add_outliers(&room, events).await.unwrap();
    // Nothing else than what the join follows on will do.
    let wrong = Gap { prev: create.id.clone(), state: state.clone() };
    assert!(matches!(there.make_whole(&room, &wrong).await, Err(Error::BadJson(_))));
    assert!(there.is_partial(num));
    there.make_whole(&room, &Gap { prev: bob.id().to_owned(), state }).await.unwrap();
    let member = there.state(num, "m.room.member", BOB).unwrap().unwrap();
    assert_eq!(member.id, bob.id());
    assert!(there.is_joined(num, there.user(user_id!("@zed:z")).unwrap().unwrap()).unwrap());
    let whole = |rooms: &Rooms| -> BTreeSet<OwnedEventId> {
        let head = rooms.head(rooms.known_room(&room).unwrap()).unwrap().unwrap();
        rooms.all_state_in(head.state).unwrap().iter().map(|event| event.id.clone()).collect()
    };
    assert_eq!(whole(&there), whole(&here));
}
