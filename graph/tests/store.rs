//! The store from outside: commits, order, durability, reopening.
#![allow(clippy::unwrap_used)]

use postern_graph::{
    Graph, NameKind, Pos, RoomNum, Seq, Settings,
    codec::Raw,
    ids::EventNum,
    log::LogEntry,
    schema::{ServerState, Timeline},
};
use std::sync::Arc;

fn open(dir: &tempfile::TempDir) -> Arc<Graph> {
    Graph::open(&Settings { path: dir.path().join("db"), block_cache: 8 << 20 }).unwrap()
}

#[tokio::test]
async fn what_is_durable_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let graph = open(&dir);
    let mut commit = graph.begin();
    let room = RoomNum(graph.intern(NameKind::Room, "!a:b", &mut commit).unwrap());
    let pos = Pos::at(commit.take_seq());
    commit.put::<Timeline>(&(room, pos), &EventNum(7));
    commit.log(LogEntry::RoomState { room });
    let seq = graph.commit_durably(commit).await.unwrap();
    assert_eq!(graph.durable(), seq);
    drop(graph);

    let graph = open(&dir);
    assert_eq!(graph.number(NameKind::Room, "!a:b").unwrap(), Some(room.0));
    assert_eq!(&*graph.name(NameKind::Room, room.0).unwrap(), "!a:b");
    let found: Vec<_> = graph.scan::<Timeline, _>(&(room,)).iter().map(Result::unwrap).collect();
    assert_eq!(found, [((room, Pos::at(seq)), EventNum(7))]);
    assert_eq!(graph.durable(), seq);
    assert!(graph.commit(graph.begin()).unwrap() > seq);
}

#[tokio::test]
async fn a_timeline_is_read_in_both_directions_with_backfill_before_live() {
    let dir = tempfile::tempdir().unwrap();
    let graph = open(&dir);
    for room in 1..4 {
        let mut commit = graph.begin();
        commit.put::<Timeline>(&(RoomNum(room), Pos::BACKFILL), &EventNum(1));
        for n in 2..6 {
            let pos = Pos::at(commit.take_seq());
            commit.put::<Timeline>(&(RoomNum(room), pos), &EventNum(n));
        }
        graph.commit_durably(commit).await.unwrap();
    }
    let events = |range: postern_graph::Range<'_, Timeline>| -> Vec<u64> {
        range.iter().map(|entry| entry.unwrap().1.0).collect()
    };
    let room = RoomNum(2);
    for flushed in [false, true] {
        if flushed {
            graph.compact().unwrap();
        }
        assert_eq!(events(graph.scan::<Timeline, _>(&(room,))), [1, 2, 3, 4, 5]);
        assert_eq!(events(graph.scan::<Timeline, _>(&(room,)).reverse()), [5, 4, 3, 2, 1]);
        assert_eq!(events(graph.scan::<Timeline, _>(&(room,)).after(&(room, Pos::at(Seq(6))))), [3, 4, 5]);
        assert_eq!(events(graph.scan::<Timeline, _>(&(room,)).from(&(room, Pos::at(Seq(6))))), [2, 3, 4, 5]);
        assert_eq!(
            events(graph.scan::<Timeline, _>(&(room,)).below(&(room, Pos::at(Seq(6)))).reverse()),
            [1]
        );
        assert_eq!(
            events(graph.scan::<Timeline, _>(&(room,)).up_to(&(room, Pos::at(Seq(6)))).reverse()),
            [2, 1]
        );
    }
}

#[tokio::test]
async fn a_follower_goes_on_from_its_cursor() {
    let dir = tempfile::tempdir().unwrap();
    let graph = open(&dir);
    let mut follower = graph.follow("test").unwrap();
    let mut commit = graph.begin();
    commit.log(LogEntry::RoomState { room: RoomNum(1) });
    graph.commit(commit).unwrap();
    let mut commit = graph.begin();
    commit.log(LogEntry::RoomState { room: RoomNum(2) });
    let second = graph.commit_durably(commit).await.unwrap();
    let mut rooms = Vec::new();
    while rooms.len() < 2 {
        let records = follower.next().await.unwrap();
        for (seq, record) in records {
            rooms.extend(record.entries.clone());
            if rooms.len() == 1 {
                follower.done(seq).unwrap();
                break;
            }
        }
    }
    assert_eq!(rooms, [LogEntry::RoomState { room: RoomNum(1) }, LogEntry::RoomState { room: RoomNum(2) }]);
    assert!(follower.cursor() < second);
    drop(follower);
    drop(graph);
    let graph = open(&dir);
    let mut follower = graph.follow("test").unwrap();
    let records = follower.next().await.unwrap();
    assert_eq!(records[0].1.entries, [LogEntry::RoomState { room: RoomNum(2) }]);
}

#[test]
fn a_foreign_directory_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("db")).unwrap();
    std::fs::write(dir.path().join("db/letter.txt"), "dear").unwrap();
    let error = Graph::open(&Settings { path: dir.path().join("db"), block_cache: 1 << 20 }).unwrap_err();
    assert!(error.to_string().contains("is not a Postern database"), "{error}");
    assert_eq!(std::fs::read_dir(dir.path().join("db")).unwrap().count(), 1);
}

#[tokio::test]
async fn a_newer_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let graph = open(&dir);
    let mut commit = graph.begin();
    commit.put::<postern_graph::schema::Meta>(&("schema".to_owned(),), &Raw(b"999".to_vec()));
    commit.put::<ServerState>(&("x".to_owned(),), &Raw(b"y".to_vec()));
    graph.commit_durably(commit).await.unwrap();
    drop(graph);
    let error = Graph::open(&Settings { path: dir.path().join("db"), block_cache: 1 << 20 }).unwrap_err();
    assert!(error.to_string().contains("schema version 999"), "{error}");
}

#[tokio::test]
async fn names_get_one_number_even_while_their_commits_are_open() {
    let dir = tempfile::tempdir().unwrap();
    let graph = open(&dir);
    let (mut one, mut two) = (graph.begin(), graph.begin());
    let a = graph.intern(NameKind::User, "@u:h", &mut one).unwrap();
    let b = graph.intern(NameKind::User, "@u:h", &mut two).unwrap();
    assert_eq!(a, b);
    assert_eq!(graph.number(NameKind::User, "@u:h").unwrap(), None);
    drop(one);
    graph.commit_durably(two).await.unwrap();
    assert_eq!(graph.number(NameKind::User, "@u:h").unwrap(), Some(a));
    let mut three = graph.begin();
    assert_ne!(graph.intern(NameKind::User, "@v:h", &mut three).unwrap(), a);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_hears_of_every_commit_though_none_comes_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let graph = open(&dir);
    let mut follower = graph.follow_from(graph.durable());
    for _ in 0..500 {
        let mut commit = graph.begin();
        commit.log(LogEntry::RoomState { room: RoomNum(1) });
        let heard = tokio::spawn(async move {
            let records = follower.next().await.unwrap();
            follower.done(records.last().unwrap().0).unwrap();
            follower
        });
        // The follower sleeps by now, mostly.
        tokio::task::yield_now().await;
        graph.commit(commit).unwrap();
        let patience = std::time::Duration::from_secs(30);
        follower = tokio::time::timeout(patience, heard).await.expect("the follower was woken").unwrap();
    }
}

#[tokio::test]
async fn what_a_follower_keeps_for_itself_is_no_part_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let graph = open(&dir);
    let mut commit = graph.begin();
    commit.log(LogEntry::RoomState { room: RoomNum(1) });
    let last = graph.commit_durably(commit).await.unwrap();

    let mut commit = graph.begin();
    let server = graph.intern(NameKind::Server, "b", &mut commit).unwrap();
    commit.put::<ServerState>(&("kept".to_owned(),), &Raw(b"1".to_vec()));
    graph.commit_beside_log_durably(commit).await.unwrap();
    assert_eq!(graph.applied(), last);
    assert_eq!(graph.number(NameKind::Server, "b").unwrap(), Some(server));

    let mut numbered = graph.begin();
    let seq = numbered.take_seq();
    numbered.put::<Timeline>(&(RoomNum(1), Pos::at(seq)), &EventNum(1));
    assert!(graph.commit_beside_log(numbered).is_err());
    let mut told = graph.begin();
    told.log(LogEntry::RoomState { room: RoomNum(1) });
    assert!(graph.commit_beside_log(told).is_err());
    drop(graph);

    let graph = open(&dir);
    assert_eq!(graph.get::<ServerState>(&("kept".to_owned(),)).unwrap(), Some(Raw(b"1".to_vec())));
    assert_eq!(graph.durable(), last);
    let mut commit = graph.begin();
    assert_ne!(graph.intern(NameKind::Server, "c", &mut commit).unwrap(), server);
}
