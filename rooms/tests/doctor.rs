//! After everything users do in rooms, the doctor finds nothing: what is stored twice is stored alike.
#![allow(clippy::unwrap_used)]

use postern_graph::{Graph, Settings, doctor};
use postern_rooms::{CreateRoom, Draft, MembershipChange, MembershipKind, Preset, Rooms, version::SUPPORTED};
use ruma::{EventId, OwnedEventId, RoomId, UserId, server_name, user_id};
use serde_json::{Value, json, value::to_raw_value};

fn alice() -> &'static UserId {
    user_id!("@alice:h")
}
fn bob() -> &'static UserId {
    user_id!("@bob:h")
}
fn carl() -> &'static UserId {
    user_id!("@carl:h")
}

async fn send(rooms: &Rooms, room: &RoomId, who: &UserId, content: Value) -> OwnedEventId {
    let draft = Draft::message("m.room.message", to_raw_value(&content).unwrap());
    rooms.send(who, room, draft).await.unwrap()
}

async fn reply(rooms: &Rooms, room: &RoomId, who: &UserId, to: &EventId, kind: &str) -> OwnedEventId {
    send(rooms, room, who, json!({ "body": "b", "m.relates_to": { "rel_type": kind, "event_id": to } })).await
}

async fn redact(rooms: &Rooms, room: &RoomId, who: &UserId, target: &EventId) {
    let draft = Draft {
        redacts: Some(target.to_owned()),
        ..Draft::message("m.room.redaction", to_raw_value(&json!({})).unwrap())
    };
    rooms.send(who, room, draft).await.unwrap();
}

#[tokio::test]
async fn what_users_do_in_rooms_leaves_a_consistent_graph() {
    use MembershipKind::{Ban, Invite, Join, Knock, Leave};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let graph = Graph::open(&Settings { path: path.clone(), block_cache: 8 << 20 }).unwrap();
    let rooms = Rooms::new(graph, server_name!("h"), "12").unwrap();
    for version in SUPPORTED {
        let request = CreateRoom {
            version: Some((*version).to_owned()),
            preset: Preset::PublicChat,
            ..CreateRoom::default()
        };
        let room = rooms.create(alice(), request).await.unwrap();
        for (who, to, whom) in [
            (bob(), Join, bob()),
            (alice(), Invite, carl()),
            (carl(), Leave, carl()),
            (carl(), Join, carl()),
            (alice(), Leave, carl()),
            (alice(), Ban, carl()),
            (alice(), Leave, carl()),
            (carl(), Join, carl()),
        ] {
            rooms.membership(who, &room, whom, MembershipChange::to(to)).await.unwrap();
        }
        if rooms.membership(carl(), &room, carl(), MembershipChange::to(Leave)).await.is_ok() {
            let rule = Draft::state("m.room.join_rules", "", &json!({ "join_rule": "knock" })).unwrap();
            // Room versions before 7 know no knocking.
            if rooms.send(alice(), &room, rule).await.is_ok() {
                let _ = rooms.membership(carl(), &room, carl(), MembershipChange::to(Knock)).await;
            }
        }
        let root = send(&rooms, &room, alice(), json!({ "body": "root" })).await;
        let first = reply(&rooms, &room, bob(), &root, "m.thread").await;
        let second = reply(&rooms, &room, alice(), &root, "m.thread").await;
        let third = reply(&rooms, &room, bob(), &root, "m.thread").await;
        reply(&rooms, &room, bob(), &first, "m.replace").await;
        let reaction = reply(&rooms, &room, alice(), &first, "m.annotation").await;
        for target in [&third, &first, &reaction] {
            redact(&rooms, &room, alice(), target).await;
        }
        reply(&rooms, &room, bob(), &root, "m.thread").await;
        redact(&rooms, &room, alice(), &second).await;
        let alone = send(&rooms, &room, alice(), json!({ "body": "another" })).await;
        let only = reply(&rooms, &room, bob(), &alone, "m.thread").await;
        redact(&rooms, &room, alice(), &only).await;
        for name in ["one", "two"] {
            let draft = Draft::state("m.room.name", "", &json!({ "name": name })).unwrap();
            rooms.send(alice(), &room, draft).await.unwrap();
        }
        rooms.upgrade(alice(), &room, "12", Vec::new()).await.unwrap();
        rooms.membership(bob(), &room, bob(), MembershipChange::to(Leave)).await.unwrap();
        rooms.forget(bob(), &room).await.unwrap();
    }
    drop(rooms);
    let findings = doctor::check(&path).unwrap();
    assert!(findings.is_healthy(), "{findings:#?}");
}
