//! The doctor: silent about a healthy database, and with a sentence for each way to damage one.
#![allow(clippy::unwrap_used)]

use postern_graph::{
    Commit, EventNum, Graph, NameKind, Pos, RoomNum, Root, Seq, ServerNum, Settings, StateKeyNum, TypeNum,
    UserNum,
    codec::Raw,
    doctor,
    event::{EventLinks, EventRecord, Membership, MembershipKind, RoomHead},
    intern::state_key_name,
    log::LogEntry,
    schema::{
        ChainEvents, ChainLinks, ChainTips, Chains, Children, CurrentState, Cursors, EventJson, EventRecords,
        Heads, Links, Members, Memberships, Meta, Names, Numbers, OutboxEdus, OutboxEvents, OutboxLatest,
        OutboxTransactions, Relations, Relayed, RoomServers, SeenMessageOrder, SeenMessages, StateAt,
        StateNodes, ThreadTips, Threads, Timeline,
    },
};
use std::{path::Path, sync::Arc};

const ROOM: RoomNum = RoomNum(1);
/// The numbers of the events, in the order they are made.
const CREATE: EventNum = EventNum(1);
const ALICE: EventNum = EventNum(2);
const POWER: EventNum = EventNum(3);
const MESSAGE: EventNum = EventNum(24);
const REPLY: EventNum = EventNum(25);
/// The number of another server.
const OTHER: ServerNum = ServerNum(1);

fn open(path: &Path) -> Arc<Graph> {
    Graph::open(&Settings { path: path.to_owned(), block_cache: 8 << 20 }).unwrap()
}

/// A room being written as `rooms` does, one event after the other.
struct Writer {
    graph: Arc<Graph>,
    head: RoomHead,
}

impl Writer {
    fn add(&mut self, kind: &str, state_key: Option<&str>, auth: &[EventNum], content: &str) -> EventNum {
        let graph = self.graph.clone();
        let mut commit = graph.begin();
        let room = RoomNum(graph.intern(NameKind::Room, "!room:h", &mut commit).unwrap());
        let sender = UserNum(graph.intern(NameKind::User, "@alice:h", &mut commit).unwrap());
        let next = graph.scan::<Names, _>(&(0_u8,)).iter().count() + 1;
        let event = EventNum(graph.intern(NameKind::Event, &format!("$e{next}"), &mut commit).unwrap());
        let pos = Pos::at(commit.take_seq());
        let key = state_key.map(|key| {
            let name = state_key_name(kind, key);
            StateKeyNum(graph.intern(NameKind::StateKey, &name, &mut commit).unwrap())
        });
        let before = self.head.state;
        if let Some(key) = key {
            self.head.state = graph.state_set(&mut commit, before, key, Some(event)).unwrap();
            commit.put::<StateAt>(&(room, pos), &self.head.state);
            commit.put::<CurrentState>(&(room, kind.to_owned(), state_key.unwrap().to_owned()), &event);
            graph.chain_add(&mut commit, event, auth).unwrap();
        }
        if kind == "m.room.member" {
            let user = UserNum(graph.intern(NameKind::User, state_key.unwrap(), &mut commit).unwrap());
            let kind = MembershipKind::Join;
            commit.put::<Memberships>(&(user, room), &Membership { kind, event, since: pos, sender });
            commit.put::<Members>(&(room, kind as u8, user), &event);
            let servers = (room, "h".to_owned());
            let (count, since) = graph.get::<RoomServers>(&servers).unwrap().unwrap_or((0, pos));
            commit.put::<RoomServers>(&servers, &(count + 1, since));
        }
        let prev = std::mem::replace(&mut self.head.extremities, vec![event]);
        for prev in &prev {
            commit.put::<Children>(&(*prev, event), &());
        }
        commit.put::<Links>(&(event,), &EventLinks { prev, auth: auth.to_vec() });
        let json = format!(r#"{{"type":"{kind}","content":{content}}}"#);
        commit.put::<EventJson>(&(event,), &Raw(json.into_bytes()));
        let record = EventRecord {
            room,
            pos,
            depth: self.head.depth,
            origin_ts: 1,
            sender,
            kind: TypeNum(graph.intern(NameKind::Type, kind, &mut commit).unwrap()),
            state_key: key,
            flags: 0,
            redacted_by: None,
            state_before: before,
            state_after: self.head.state,
        };
        commit.put::<EventRecords>(&(event,), &record);
        commit.put::<Timeline>(&(room, pos), &event);
        self.head.depth += 1;
        self.head.latest = Some(pos);
        commit.put::<Heads>(&(room,), &self.head);
        commit.log(LogEntry::RoomState { room });
        self.head.latest = Some(Pos::at(graph.commit(commit).unwrap()));
        event
    }

    fn commit(&self, build: impl FnOnce(&Graph, &mut Commit)) {
        let mut commit = self.graph.begin();
        build(&self.graph, &mut commit);
        self.graph.commit(commit).unwrap();
    }
}

/// A room with a create event, power levels, more than one leaf's worth of members, and a thread.
fn healthy(path: &Path) {
    let mut room = Writer { graph: open(path), head: RoomHead::default() };
    let join = r#"{"membership":"join"}"#;
    assert_eq!(room.add("m.room.create", Some(""), &[], "{}"), CREATE);
    assert_eq!(room.add("m.room.member", Some("@alice:h"), &[CREATE], join), ALICE);
    assert_eq!(room.add("m.room.power_levels", Some(""), &[CREATE, ALICE], "{}"), POWER);
    for n in 0..20 {
        room.add("m.room.member", Some(&format!("@user{n}:h")), &[CREATE, POWER], join);
    }
    assert_eq!(room.add("m.room.message", None, &[CREATE, POWER, ALICE], "{}"), MESSAGE);
    assert_eq!(room.add("m.room.message", None, &[CREATE, POWER, ALICE], "{}"), REPLY);
    let pos = room.head.latest.unwrap();
    room.commit(|_, commit| {
        commit.put::<Relations>(&(MESSAGE, "m.thread".to_owned(), pos), &REPLY);
        commit.put::<Threads>(&(ROOM, pos, MESSAGE), &());
        commit.put::<ThreadTips>(&(MESSAGE,), &(pos, 1));
        commit.put::<Cursors>(&("push".to_owned(),), &Seq(3));
    });
    room.commit(|graph, commit| {
        let other = ServerNum(graph.intern(NameKind::Server, "other", commit).unwrap());
        assert_eq!(other, OTHER);
        commit.put::<OutboxEvents>(&(other, pos.seq()), &(REPLY, 1));
        commit.put::<Relayed>(&(REPLY,), &());
        commit.put::<OutboxEdus>(&(other, Seq(1), 2), &edu("a", r#"{"edu_type":"m.typing","content":{}}"#));
        // One that is not the latest is passed over when it is its turn.
        commit.put::<OutboxEdus>(&(other, Seq(1), 1), &edu("a", r#"{"edu_type":"m.typing","content":{}}"#));
        commit.put::<OutboxLatest>(&(other, "a".to_owned()), &(Seq(1), 2));
        commit.put::<OutboxTransactions>(&(other,), &edu("1", r#"{"pdus":[]}"#));
    });
    room.graph.flush().unwrap();
}

/// What the doctor says once `damage` is done to a healthy database.
fn findings(damage: impl FnOnce(&Graph, &mut Commit)) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    healthy(&path);
    let writer = Writer { graph: open(&path), head: RoomHead::default() };
    writer.commit(damage);
    drop(writer);
    doctor::check(&path).unwrap().sentences
}

#[track_caller]
fn finds(expected: &str, damage: impl FnOnce(&Graph, &mut Commit)) {
    let found = findings(damage);
    assert!(found.iter().any(|sentence| sentence.contains(expected)), "{expected:?} is not among {found:#?}");
}

fn head(graph: &Graph) -> RoomHead {
    graph.get::<Heads>(&(ROOM,)).unwrap().unwrap()
}

fn record(graph: &Graph, event: EventNum) -> EventRecord {
    graph.get::<EventRecords>(&(event,)).unwrap().unwrap()
}

fn user(graph: &Graph, name: &str) -> UserNum {
    UserNum(graph.number(NameKind::User, name).unwrap().unwrap())
}

/// Some node that is not a root.
fn inner_node(graph: &Graph) -> Root {
    let root = head(graph).state;
    let heads: Vec<_> = graph.scan::<StateAt, _>(&()).iter().map(|entry| entry.unwrap().1).collect();
    graph
        .scan::<StateNodes, _>(&())
        .iter()
        .map(|entry| entry.unwrap().0.0)
        .find(|node| *node != root && !heads.contains(node))
        .unwrap()
}

#[test]
fn a_healthy_database_has_no_findings_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    healthy(&path);
    let before = bytes(&path);
    let findings = doctor::check(&path).unwrap();
    assert!(findings.is_healthy(), "{findings:#?}");
    assert!(findings.entries > 200, "{}", findings.entries);
    assert_eq!(bytes(&path), before);
}

fn bytes(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(path)
        .unwrap()
        .map(|file| file.unwrap().path())
        .map(|file| (file.display().to_string(), std::fs::read(&file).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn an_empty_or_foreign_directory_is_no_patient() {
    let dir = tempfile::tempdir().unwrap();
    let error = doctor::check(dir.path()).unwrap_err();
    assert!(error.to_string().contains("is not a Postern database"), "{error}");
}

#[test]
fn the_schema_version_is_checked() {
    finds("The schema version is 0, this program's is", |_, commit| {
        commit.put::<Meta>(&("schema".to_owned(),), &Raw(b"0".to_vec()));
    });
}

#[test]
fn entries_that_cannot_be_decoded_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    healthy(&path);
    let options = rocksdb::Options::default();
    let families = rocksdb::DB::list_cf(&options, &path).unwrap();
    let db = rocksdb::DB::open_cf(&options, &path, families).unwrap();
    db.put_cf(&db.cf_handle("event").unwrap(), 24_u64.to_be_bytes(), [1, 2, 3]).unwrap();
    db.put_cf(&db.cf_handle("timeline").unwrap(), [9], 24_u64.to_be_bytes()).unwrap();
    db.put_cf(&db.cf_handle("account").unwrap(), 1_u64.to_be_bytes(), b"{\"a\":").unwrap();
    drop(db);
    let found = doctor::check(&path).unwrap().sentences;
    for expected in [
        "The value at key 0000000000000018 of family event cannot be read",
        "A key of family timeline cannot be read (09)",
        "The value at key 0000000000000001 of family account cannot be read",
    ] {
        assert!(found.iter().any(|sentence| sentence.contains(expected)), "{expected:?}: {found:#?}");
    }
}

#[test]
fn files_with_flipped_bits_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    healthy(&path);
    // The largest data file loses a few bits near its beginning, where the first data block lies.
    let files = bytes(&path).into_iter().filter(|(name, _)| name.ends_with(".sst"));
    let (name, mut damaged) = files.max_by_key(|(_, bytes)| bytes.len()).unwrap();
    damaged[8] ^= 0x55;
    std::fs::write(name, damaged).unwrap();
    let found = doctor::check(&path).unwrap().sentences;
    assert!(found.iter().any(|sentence| sentence.contains("cannot be read to its end")), "{found:#?}");
}

#[test]
fn names_and_numbers_that_disagree_are_found() {
    finds("Name \"@alice:h\" of kind 2 has number 77, but that number stands for nothing", |_, commit| {
        commit.put::<Numbers>(&(2, "@alice:h".to_owned()), &77);
    });
    finds("stands for \"@alice:h\", but the number of that name is none", |_, commit| {
        commit.delete::<Numbers>(&(2, "@alice:h".to_owned()));
    });
}

#[test]
fn timeline_entries_without_their_event_are_found() {
    finds("event 24 ($e24) at", |_, commit| commit.delete::<EventRecords>(&(MESSAGE,)));
    finds("has no JSON", |_, commit| commit.delete::<EventJson>(&(MESSAGE,)));
    finds("The JSON of the event 24 ($e24) is damaged", |_, commit| {
        commit.put::<EventJson>(&(MESSAGE,), &Raw(b"{\"type\":".to_vec()));
    });
    finds("says it stands at 5 of", |graph, commit| {
        commit.put::<EventRecords>(&(MESSAGE,), &EventRecord { pos: Pos(5), ..record(graph, MESSAGE) });
    });
    finds("has no event id", |_, commit| commit.delete::<Names>(&(0, MESSAGE.0)));
    finds("says its timeline ends at 26, but it ends at", |graph, commit| {
        let latest = head(graph).latest.unwrap();
        commit.delete::<Timeline>(&(ROOM, latest));
    });
}

#[test]
fn incomplete_states_are_found() {
    finds("The current state of room 1 (!room:h) is incomplete", |graph, commit| {
        commit.delete::<StateNodes>(&(head(graph).state,));
    });
    finds("is missing", |graph, commit| commit.delete::<StateNodes>(&(inner_node(graph),)));
    finds("has other content than its name says", |graph, commit| {
        let root = head(graph).state;
        let (_, other) =
            graph.scan::<StateNodes, _>(&()).iter().map(Result::unwrap).find(|n| n.0.0 != root).unwrap();
        commit.put::<StateNodes>(&(root,), &other);
    });
    finds("The last state change of room 1 (!room:h) does not lead to its current state", |graph, commit| {
        commit.put::<Heads>(&(ROOM,), &RoomHead { state: record(graph, POWER).state_after, ..head(graph) });
    });
}

#[test]
fn a_flat_current_state_that_is_not_the_state_map_is_found() {
    let power = || (ROOM, "m.room.power_levels".to_owned(), String::new());
    finds("which the flat current state lacks", move |_, commit| commit.delete::<CurrentState>(&power()));
    finds("its state map has event 3 ($e3)", move |_, commit| commit.put::<CurrentState>(&power(), &CREATE));
    finds("where its state map has nothing", |_, commit| {
        commit.put::<CurrentState>(&(ROOM, "m.room.topic".to_owned(), String::new()), &CREATE);
    });
    finds("has a current state and no head", |_, commit| commit.delete::<Heads>(&(ROOM,)));
    finds("which is not its own key", |graph, commit| {
        commit.put::<EventRecords>(&(POWER,), &EventRecord { state_key: None, ..record(graph, POWER) });
    });
}

#[test]
fn memberships_that_disagree_are_found() {
    finds(
        "The list of members of room 1 (!room:h) has user 1 (@alice:h), whose memberships disagree",
        |g, commit| {
            commit.delete::<Memberships>(&(user(g, "@alice:h"), ROOM));
        },
    );
    finds("By the current state of room 1 (!room:h) user @alice:h has membership join", |g, commit| {
        commit.delete::<Memberships>(&(user(g, "@alice:h"), ROOM));
        commit.delete::<Members>(&(ROOM, 0, user(g, "@alice:h")));
    });
    finds("has membership join of room 1 (!room:h), whose list of members disagrees", |g, commit| {
        commit.delete::<Members>(&(ROOM, 0, user(g, "@alice:h")));
    });
    finds("by an event that is not current state", |g, commit| {
        let key = (user(g, "@alice:h"), ROOM);
        let stored = g.get::<Memberships>(&key).unwrap().unwrap();
        commit.put::<Memberships>(&key, &Membership { event: MESSAGE, ..stored });
    });
}

#[test]
fn servers_of_a_room_that_are_not_those_of_its_members_are_found() {
    let server = |name: &str| (ROOM, name.to_owned());
    finds("Server h has 21 users in room 1 (!room:h), whose servers do not have it", move |_, commit| {
        commit.delete::<RoomServers>(&server("h"));
    });
    finds("Server h is said to have 5 users in room 1 (!room:h), and has 21", move |_, commit| {
        commit.put::<RoomServers>(&server("h"), &(5, Pos(1)));
    });
    finds("Server other is said to have 1 users in room 1 (!room:h), and has 0", move |_, commit| {
        commit.put::<RoomServers>(&server("other"), &(1, Pos(1)));
    });
}

#[test]
fn edges_without_their_inverse_are_found() {
    finds("which does not know it as a child", |_, commit| commit.delete::<Children>(&(MESSAGE, REPLY)));
    finds("is stored as a child of event 1 ($e1), but does not follow it", |_, commit| {
        commit.put::<Children>(&(CREATE, REPLY), &());
    });
    finds("is authorized by event 99, which has no record", |_, commit| {
        commit.put::<Links>(&(REPLY,), &EventLinks { prev: vec![MESSAGE], auth: vec![EventNum(99)] });
    });
    finds("has edges and no record", |_, commit| commit.delete::<EventRecords>(&(POWER,)));
}

#[test]
fn relations_and_threads_that_disagree_are_found() {
    finds("where it does not stand", |_, commit| {
        commit.put::<Relations>(&(MESSAGE, "m.annotation".to_owned(), Pos(4)), &REPLY);
    });
    finds("is missing in the list of threads", |graph, commit| {
        commit.delete::<Threads>(&(ROOM, head_pos(graph), MESSAGE));
    });
    finds("which is not its latest reply", |_, commit| commit.put::<Threads>(&(ROOM, Pos(3), MESSAGE), &()));
    finds("is said to have 5 replies", |graph, commit| {
        commit.put::<ThreadTips>(&(MESSAGE,), &(head_pos(graph), 5));
    });
}

fn head_pos(graph: &Graph) -> Pos {
    record(graph, REPLY).pos
}

#[test]
fn a_follower_ahead_of_the_log_is_found() {
    finds("Follower \"push\" has worked up to 4000, but the log ends at", |_, commit| {
        commit.put::<Cursors>(&("push".to_owned(),), &Seq(4000));
    });
}

#[test]
fn ids_of_messages_that_cannot_be_forgotten_are_found() {
    let (server, id) = (|| "other".to_owned(), || "hiezohf6Hoo7kaev".to_owned());
    finds("is not in the order of these", move |_, commit| {
        commit.put::<SeenMessages>(&(server(), id()), &3);
    });
    finds("is number 3 of its server, but not known as that", move |_, commit| {
        commit.put::<SeenMessageOrder>(&(server(), 3), &id());
    });
}

fn edu(kind: &str, json: &str) -> (String, Raw) {
    (kind.to_owned(), Raw(json.as_bytes().to_vec()))
}

#[test]
fn queues_of_other_servers_that_cannot_be_worked_off_are_found() {
    finds("queued for server 7, which has no name", |_, commit| {
        commit.put::<OutboxTransactions>(&(ServerNum(7),), &edu("1", "{}"));
    });
    finds("at 9 of the queue of server 1 (other) has no record", |_, commit| {
        commit.put::<OutboxEvents>(&(OTHER, Seq(9)), &(EventNum(70), 1));
    });
    finds("that is to be passed on has no JSON", |_, commit| commit.put::<Relayed>(&(EventNum(70),), &()));
    finds("The EDU at 1.3 of the queue of server 1 (other) is none", |_, commit| {
        commit.put::<OutboxEdus>(&(OTHER, Seq(1), 3), &edu("b", r#"{"content":{}}"#));
    });
    finds("latest EDU \"b\" of the queue of server 1 (other) is not at 1.3", |_, commit| {
        commit.put::<OutboxLatest>(&(OTHER, "b".to_owned()), &(Seq(1), 3));
    });
    finds("latest EDU \"b\" of the queue of server 1 (other) is not at 1.2", |_, commit| {
        commit.put::<OutboxLatest>(&(OTHER, "b".to_owned()), &(Seq(1), 2));
    });
    finds("Transaction \"1\" to server 1 (other) is no JSON", |_, commit| {
        commit.put::<OutboxTransactions>(&(OTHER,), &edu("1", "{"));
    });
}

#[test]
fn a_chain_cover_that_is_wrong_is_found() {
    let place = |graph: &Graph, event| graph.get::<Chains>(&(event,)).unwrap().unwrap();
    finds("where it does not stand", |_, commit| commit.delete::<Chains>(&(POWER,)));
    finds("which does not have it there", move |graph, commit| {
        let (chain, at, _) = place(graph, POWER);
        commit.delete::<ChainEvents>(&(chain, at));
    });
    finds("lies above its tip", move |graph, commit| {
        let (chain, at, _) = place(graph, POWER);
        commit.put::<ChainTips>(&(chain,), &(at - 1));
    });
    finds("has nothing at its tip", move |graph, commit| {
        let (chain, ..) = place(graph, POWER);
        commit.put::<ChainTips>(&(chain,), &500);
    });
    finds("is not in the auth chain of", |graph, commit| {
        for entry in graph.scan::<ChainLinks, _>(&()).iter() {
            commit.delete::<ChainLinks>(&entry.unwrap().0);
        }
    });
    finds("but no such auth event is known", move |graph, commit| {
        let ((chain, at, other), (_, rank)) = graph.scan::<ChainLinks, _>(&()).first().unwrap().unwrap();
        commit.put::<ChainLinks>(&(chain, at, other), &(70, rank));
    });
    finds("above an event that does not authorize it", move |_, commit| {
        commit.put::<Links>(&(POWER,), &EventLinks { prev: vec![ALICE], auth: vec![CREATE] });
    });
}
