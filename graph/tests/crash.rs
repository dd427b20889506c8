//! A server that is killed at any moment: everything it acknowledged is there afterwards, and commits are whole.
#![allow(clippy::unwrap_used)]

use postern_graph::codec::Raw;
use postern_graph::{
    EventNum, Graph, NameKind, Pos, RoomNum, Settings, doctor,
    log::LogEntry,
    schema::{ServerState, Timeline},
};
use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

/// Set for the process that is killed: where its database is.
const VICTIM: &str = "POSTERN_TEST_VICTIM";
/// Writers at a time, so that commits share fsyncs.
const WRITERS: u64 = 4;
const ROUNDS: u64 = 8;

fn open(path: &Path) -> Arc<Graph> {
    Graph::open(&Settings { path: path.to_owned(), block_cache: 8 << 20 }).unwrap()
}

fn name(writer: u64, n: u64) -> String {
    format!("!{writer}-{n}:h")
}

/// Not a test of its own: the process that is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_process_that_is_killed() {
    let Ok(path) = std::env::var(VICTIM) else { return };
    let graph = open(Path::new(&path));
    let writers = (0..WRITERS).map(|writer| {
        let graph = graph.clone();
        tokio::spawn(async move {
            let start =
                (0..).find(|n| graph.number(NameKind::Room, &name(writer, *n)).unwrap().is_none()).unwrap();
            for n in start.. {
                let mut commit = graph.begin();
                let room = RoomNum(graph.intern(NameKind::Room, &name(writer, n), &mut commit).unwrap());
                // Two things that belong together, in two families.
                let pos = Pos::at(commit.take_seq());
                commit.put::<Timeline>(&(room, pos), &EventNum(n + 1));
                commit.put::<ServerState>(&(name(writer, n),), &Raw(vec![1; 300]));
                commit.log(LogEntry::RoomState { room });
                graph.commit_durably(commit).await.unwrap();
                println!("\nacknowledged {writer} {n}");
                if n % 200 == 199 {
                    graph.flush().unwrap();
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let mut acknowledged = [None::<u64>; WRITERS as usize];
    for round in 0..ROUNDS {
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_process_that_is_killed", "--nocapture"])
            .env(VICTIM, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
        let killer = std::thread::spawn(move || {
            // A different moment each round; the first rounds may hit the opening of the database.
            std::thread::sleep(Duration::from_millis(60 + 70 * round));
            victim.kill().unwrap();
            victim.wait().unwrap();
        });
        // The pipe keeps what was said before the kill; it ends with the process.
        for line in lines.map_while(Result::ok) {
            let mut words = line.split(' ');
            if words.next() == Some("acknowledged")
                && let (Some(Ok(writer)), Some(Ok(n))) =
                    (words.next().map(str::parse::<usize>), words.next().map(str::parse::<u64>))
            {
                acknowledged[writer] = acknowledged[writer].max(Some(n));
            }
        }
        killer.join().unwrap();

        let graph = open(&path);
        for (writer, last) in (0..).zip(acknowledged) {
            for n in 0..=last.map_or(0, |last| last + 1) {
                let room = graph.number(NameKind::Room, &name(writer, n)).unwrap();
                if last.is_some_and(|last| n <= last) {
                    assert!(room.is_some(), "{writer} {n} was acknowledged and is gone");
                }
                // Whole, or not at all.
                let other = graph.has::<ServerState>(&(name(writer, n),)).unwrap();
                assert_eq!(room.is_some(), other, "half of {writer} {n} is there");
                if let Some(room) = room {
                    assert!(graph.scan::<Timeline, _>(&(RoomNum(room),)).first().unwrap().is_some());
                }
            }
        }
    }
    assert!(acknowledged.iter().all(Option::is_some), "nothing was ever written: {acknowledged:?}");
    let findings = doctor::check(&path).unwrap().sentences;
    let real: Vec<_> = findings.iter().filter(|sentence| !sentence.contains("has no ")).collect();
    assert!(real.is_empty(), "{real:#?}");
}
