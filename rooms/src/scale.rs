//! A large room whose history forks: resolving its state looks at what differs, not at the room.
//!
//! `POSTERN_MEMBERS` says how many members there are; the time of each step is printed: `scripts/cargo.sh test --release
//! -p postern-rooms scale -- --nocapture`.

use crate::{CreateRoom, Draft, Preset, Received, Rooms, Verified, batch::Batch};
use postern_graph::{Graph, Settings};
use ruma::{RoomId, UserId, server_name, user_id};
use serde_json::json;
use std::time::Instant;

/// Ends of the room.
const BRANCHES: usize = 20;
/// Changes of membership on each branch.
const CHANGES: usize = 6;
/// Members that join by one commit.
const AT_ONCE: usize = 500;

fn members() -> usize {
    std::env::var("POSTERN_MEMBERS").ok().and_then(|count| count.parse().ok()).unwrap_or(2_000)
}

fn member(n: usize) -> String {
    format!("@member{n}:s{}", n % 50)
}

/// Users of other servers join without the signature of theirs, which does not matter here.
fn unsigned(batch: &Batch<'_>, sender: &str, draft: &Draft) -> (ruma::OwnedEventId, String) {
    let sender = <&UserId>::try_from(sender).unwrap();
    let pdu = batch.build(sender, draft).unwrap();
    let id = crate::pdu::event_id(&pdu, &batch.version.rules).unwrap();
    (id, serde_json::to_string(&pdu).unwrap())
}

fn membership(user: &str, to: &str) -> Draft {
    Draft::state("m.room.member", user, &json!({ "membership": to })).unwrap()
}

fn room_with(rooms: &Rooms, room: &RoomId, count: usize) {
    let num = rooms.known_room(room).unwrap();
    for some in (0..count).collect::<Vec<_>>().chunks(AT_ONCE) {
        let mut batch = rooms.batch(num).unwrap();
        for n in some {
            let user = member(*n);
            let (id, json) = unsigned(&batch, &user, &membership(&user, "join"));
            batch.store(id, json).unwrap();
        }
        batch.commit().unwrap();
    }
}

/// The event of `draft` on top of `prev` alone, authorized by the state after it.
fn on(rooms: &Rooms, room: &RoomId, prev: &ruma::EventId, sender: &str, draft: &Draft) -> Verified {
    let num = rooms.known_room(room).unwrap();
    let mut batch = rooms.batch(num).unwrap();
    let prev = rooms.event_by_id(prev).unwrap().unwrap();
    batch.head.extremities = vec![prev.num];
    batch.head.state = prev.record.state_after;
    batch.head.depth = prev.record.depth;
    let (id, json) = unsigned(&batch, sender, draft);
    Verified::own(id, json, &batch.version)
}

#[tokio::test]
async fn a_large_room_with_twenty_ends_is_resolved_by_what_differs_between_them() {
    let count = members();
    let dir = tempfile::tempdir().unwrap();
    for version in ["10", "12"] {
        let graph = Graph::open(&Settings { path: dir.path().join(version), block_cache: 64 << 20 }).unwrap();
        let rooms = Rooms::new(graph, server_name!("h"), version).unwrap();
        let request = CreateRoom { preset: Preset::PublicChat, ..CreateRoom::default() };
        let room = rooms.create(user_id!("@alice:h"), request).await.unwrap();
        let begun = Instant::now();
        room_with(&rooms, &room, count);
        println!("version {version}: {count} members joined in {:?}", begun.elapsed());
        let num = rooms.known_room(&room).unwrap();
        let tip = rooms.event(rooms.head(num).unwrap().unwrap().extremities[0]).unwrap().id.clone();
        let mut slowest = std::time::Duration::ZERO;
        let begun = Instant::now();
        for branch in 0..BRANCHES {
            let mut prev = tip.clone();
            for change in 0..CHANGES {
                // Some leave, some rename themselves, some of them on several branches.
                let user = member((branch * (CHANGES - 2) + change) % count);
                let draft = match change % 2 {
                    0 => membership(&user, "leave"),
                    _ => {
                        let content = json!({ "membership": "join", "displayname": branch.to_string() });
                        Draft::state("m.room.member", user.as_str(), &content).unwrap()
                    }
                };
                let pdu = on(&rooms, &room, &prev, &user, &draft);
                prev = pdu.id().to_owned();
                let begun = Instant::now();
                let received = rooms.receive(&room, pdu, &[]).await.unwrap();
                slowest = slowest.max(begun.elapsed());
                assert!(
                    matches!(received, Received::Accepted | Received::SoftFailed(_)),
                    "version {version}, branch {branch}: {received:?}"
                );
            }
        }
        println!(
            "version {version}: {} events on {BRANCHES} branches in {:?}, the slowest in {slowest:?}",
            BRANCHES * CHANGES,
            begun.elapsed()
        );
        let head = rooms.head(num).unwrap().unwrap();
        assert!(head.extremities.len() > BRANCHES / 2, "{}", head.extremities.len());
        let begun = Instant::now();
        rooms.join_many_ends(num).await.unwrap();
        println!("version {version}: the ends joined in {:?}", begun.elapsed());
        assert_eq!(rooms.head(num).unwrap().unwrap().extremities.len(), 1);
        let joined = rooms.joined_users(num).unwrap().len();
        assert!(joined > count - BRANCHES * CHANGES && joined < count, "{joined}");
    }
}
