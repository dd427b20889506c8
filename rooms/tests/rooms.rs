//! Rooms through their operations, in every room version.
#![allow(clippy::unwrap_used)]

use postern_graph::{Graph, Settings};
use postern_rooms::{
    CreateRoom, Draft, Error, MembershipChange, MembershipKind, Preset, Rooms, Txn, version::SUPPORTED,
};
use ruma::{OwnedRoomId, RoomId, UserId, server_name, user_id};
use serde_json::{json, value::to_raw_value};

struct Server {
    rooms: Rooms,
    dir: tempfile::TempDir,
}

fn server() -> Server {
    let dir = tempfile::tempdir().unwrap();
    Server { rooms: open(&dir), dir }
}

fn open(dir: &tempfile::TempDir) -> Rooms {
    let graph = Graph::open(&Settings { path: dir.path().join("db"), block_cache: 8 << 20 }).unwrap();
    Rooms::new(graph, server_name!("h"), "12").unwrap()
}

fn alice() -> &'static UserId {
    user_id!("@alice:h")
}
fn bob() -> &'static UserId {
    user_id!("@bob:h")
}

async fn public(rooms: &Rooms, version: &str) -> OwnedRoomId {
    let request =
        CreateRoom { version: Some(version.to_owned()), preset: Preset::PublicChat, ..CreateRoom::default() };
    rooms.create(alice(), request).await.unwrap()
}

async fn set(
    rooms: &Rooms,
    who: &UserId,
    room: &RoomId,
    to: MembershipKind,
    target: &UserId,
) -> Result<(), Error> {
    rooms.membership(who, room, target, MembershipChange::to(to)).await.map(|_| ())
}

fn text(body: &str) -> Draft {
    Draft::message("m.room.message", to_raw_value(&json!({ "msgtype": "m.text", "body": body })).unwrap())
}

#[tokio::test]
async fn a_room_of_every_version_is_created_joined_and_talked_in() {
    let server = server();
    let rooms = &server.rooms;
    for version in SUPPORTED {
        let room = public(rooms, version).await;
        set(rooms, bob(), &room, MembershipKind::Join, bob()).await.unwrap();
        let id = rooms.send(bob(), &room, text("hello")).await.unwrap();
        let event = rooms.event_by_id(&id).unwrap().unwrap();
        assert_eq!(event.sender(), bob());
        assert_eq!(event.room_id, room);
        let num = rooms.room(&room).unwrap().unwrap();
        assert_eq!(rooms.joined_users(num).unwrap().len(), 2, "version {version}");
        assert_eq!(rooms.state(num, "m.room.create", "").unwrap().unwrap().sender(), alice());
    }
}

#[tokio::test]
async fn everything_is_there_after_reopening() {
    let Server { rooms, dir } = server();
    let room = public(&rooms, "12").await;
    let id = rooms.send(alice(), &room, text("still here")).await.unwrap();
    drop(rooms);
    let rooms = open(&dir);
    assert_eq!(rooms.event_by_id(&id).unwrap().unwrap().content_text("body").unwrap(), "still here");
    rooms.send(alice(), &room, text("and on")).await.unwrap();
}

#[tokio::test]
async fn who_may_not_is_refused() {
    let server = server();
    let rooms = &server.rooms;
    let room = public(rooms, "11").await;
    let refused = rooms.send(bob(), &room, text("hi")).await.unwrap_err();
    assert!(matches!(refused, Error::Forbidden(_)), "{refused}");
    set(rooms, bob(), &room, MembershipKind::Join, bob()).await.unwrap();
    let name = Draft::state("m.room.name", "", &json!({ "name": "mine" })).unwrap();
    assert!(matches!(rooms.send(bob(), &room, name).await.unwrap_err(), Error::Forbidden(_)));
    assert!(set(rooms, bob(), &room, MembershipKind::Ban, alice()).await.is_err());
    set(rooms, alice(), &room, MembershipKind::Ban, bob()).await.unwrap();
    assert!(set(rooms, bob(), &room, MembershipKind::Join, bob()).await.is_err());
    assert!(matches!(rooms.send(bob(), &room, text("hi")).await.unwrap_err(), Error::Forbidden(_)));
}

#[tokio::test]
async fn a_float_is_no_canonical_json() {
    let server = server();
    let room = public(&server.rooms, "12").await;
    let draft = Draft::message("m.room.message", to_raw_value(&json!({ "x": 1.5 })).unwrap());
    assert!(matches!(server.rooms.send(alice(), &room, draft).await.unwrap_err(), Error::BadJson(_)));
}

#[tokio::test]
async fn a_repeated_transaction_is_the_same_event() {
    let server = server();
    let room = public(&server.rooms, "12").await;
    let txn = Txn { device: "D".to_owned(), scope: format!("send/{room}"), id: "1".to_owned() };
    let draft = Draft { txn: Some(txn), ..text("once") };
    let first = server.rooms.send(alice(), &room, draft.clone()).await.unwrap();
    assert_eq!(server.rooms.send(alice(), &room, draft).await.unwrap(), first);
}

#[tokio::test]
async fn redaction_takes_the_content_and_who_may_not_redact_is_refused() {
    let server = server();
    let rooms = &server.rooms;
    for version in ["1", "3", "11", "12"] {
        let room = public(rooms, version).await;
        set(rooms, bob(), &room, MembershipKind::Join, bob()).await.unwrap();
        let id = rooms.send(alice(), &room, text("secret")).await.unwrap();
        let redaction = Draft {
            redacts: Some(id.clone()),
            ..Draft::message("m.room.redaction", to_raw_value(&json!({})).unwrap())
        };
        assert!(matches!(
            rooms.send(bob(), &room, redaction.clone()).await.unwrap_err(),
            Error::Forbidden(_)
        ));
        rooms.send(alice(), &room, redaction).await.unwrap();
        let event = rooms.event_by_id(&id).unwrap().unwrap();
        assert_eq!(event.content().get(), "{}", "version {version}");
        assert!(event.record.redacted_by.is_some());
    }
}

#[tokio::test]
async fn a_restricted_room_lets_members_of_the_named_room_in() {
    let server = server();
    let rooms = &server.rooms;
    for version in ["8", "10", "12"] {
        let space = public(rooms, version).await;
        let rule = json!({
            "join_rule": "restricted",
            "allow": [{ "type": "m.room_membership", "room_id": space }],
        });
        let request = CreateRoom {
            version: Some(version.to_owned()),
            initial_state: vec![("m.room.join_rules".to_owned(), String::new(), rule)],
            ..CreateRoom::default()
        };
        let room = rooms.create(alice(), request).await.unwrap();
        assert!(set(rooms, bob(), &room, MembershipKind::Join, bob()).await.is_err());
        set(rooms, bob(), &space, MembershipKind::Join, bob()).await.unwrap();
        set(rooms, bob(), &room, MembershipKind::Join, bob()).await.unwrap();
    }
}

#[tokio::test]
async fn an_upgraded_room_points_to_its_successor() {
    let server = server();
    let rooms = &server.rooms;
    for (from, to) in [("9", "11"), ("11", "12"), ("12", "12"), ("12", "11")] {
        let old = public(rooms, from).await;
        let name = Draft::state("m.room.name", "", &json!({ "name": "n" })).unwrap();
        rooms.send(alice(), &old, name).await.unwrap();
        let new = rooms.upgrade(alice(), &old, to, Vec::new()).await.unwrap();
        let old_num = rooms.room(&old).unwrap().unwrap();
        let new_num = rooms.room(&new).unwrap().unwrap();
        let tombstone = rooms.state(old_num, "m.room.tombstone", "").unwrap().unwrap();
        assert_eq!(tombstone.content_text("replacement_room").unwrap(), new.as_str());
        assert_eq!(
            rooms.state(new_num, "m.room.name", "").unwrap().unwrap().content_text("name").unwrap(),
            "n"
        );
        let create = rooms.state(new_num, "m.room.create", "").unwrap().unwrap();
        let content: serde_json::Value = create.content_as().unwrap();
        assert_eq!(content["predecessor"]["room_id"], old.as_str());
    }
}

#[tokio::test]
async fn a_second_create_event_is_the_clients_mistake() {
    let server = server();
    let rooms = &server.rooms;
    for version in SUPPORTED {
        let room = public(rooms, version).await;
        let again =
            Draft::state("m.room.create", "", &json!({ "room_version": version, "more": 1 })).unwrap();
        assert!(
            matches!(rooms.send(alice(), &room, again).await, Err(Error::BadState(_))),
            "version {version}"
        );
    }
}

#[tokio::test]
async fn since_version_12_creators_have_no_power_level() {
    let server = server();
    let rooms = &server.rooms;
    let levels = Draft::state("m.room.power_levels", "", &json!({ "users": { "@alice:h": 100 } })).unwrap();
    let old = public(rooms, "11").await;
    rooms.send(alice(), &old, levels.clone()).await.unwrap();
    let new = public(rooms, "12").await;
    assert!(matches!(rooms.send(alice(), &new, levels).await, Err(Error::BadJson(_))));
}

#[tokio::test]
async fn additional_creators_are_a_list_of_users() {
    let server = server();
    for wrong in [json!("@bob:h"), json!([42]), json!(["bob"]), json!(["@bob:not a server"])] {
        let request = CreateRoom {
            version: Some("12".to_owned()),
            creation_content: serde_json::from_value(json!({ "additional_creators": wrong })).unwrap(),
            ..CreateRoom::default()
        };
        let made = server.rooms.create(alice(), request).await;
        assert!(matches!(made, Err(Error::BadJson(_))), "{wrong}");
    }
}
