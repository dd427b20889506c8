//! The published examples of state resolution: those of MSC4297 (state resolution 2.1), and the situations that
//! implementations of version 2 are commonly tested with. Events have names instead of hashes here.
#![allow(clippy::unwrap_used)]

use crate::{batch::Batch, rooms::Rooms, version::version};
use postern_graph::{Graph, NameKind, RoomNum, Root, Settings, event::RoomHead};
use ruma::{EventId, OwnedEventId, RoomId, server_name};
use serde_json::{Value, json};
use std::collections::BTreeSet;

struct Example<'r> {
    batch: Batch<'r>,
    version: &'static str,
    time: u64,
}

fn server() -> (Rooms, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let graph = Graph::open(&Settings { path: dir.path().join("db"), block_cache: 8 << 20 }).unwrap();
    (Rooms::new(graph, server_name!("example.com"), "12").unwrap(), dir)
}

fn id(name: &str) -> OwnedEventId {
    EventId::parse(format!("${name}")).unwrap()
}

fn user(name: &str) -> String {
    format!("@{name}:example.com")
}

impl<'r> Example<'r> {
    fn new(rooms: &'r Rooms, name: &'static str) -> Self {
        let version = version(name).unwrap();
        let by_hash = version.rules.authorization.room_create_event_id_as_room_id;
        let room_id = RoomId::parse(if by_hash { "!create" } else { "!room:example.com" }).unwrap();
        let mut commit = rooms.graph().begin();
        let room = RoomNum(rooms.graph().intern(NameKind::Room, room_id.as_str(), &mut commit).unwrap());
        let batch = Batch::new(rooms, commit, room, room_id, version, RoomHead::default());
        Self { batch, version: name, time: 0 }
    }

    /// Adds the state event `name`, authorized by `auth`, without judging it.
    fn event(&mut self, name: &str, sender: &str, (kind, key): (&str, &str), content: Value, auth: &[&str]) {
        self.time += 1;
        let by_hash = self.batch.version.rules.authorization.room_create_event_id_as_room_id;
        let auth: Vec<OwnedEventId> =
            auth.iter().filter(|name| !(by_hash && **name == "create")).map(|name| id(name)).collect();
        let mut pdu = json!({
            "type": kind, "state_key": key, "sender": user(sender), "content": content,
            "origin_server_ts": self.time, "depth": self.time, "auth_events": auth, "prev_events": [],
        });
        if name != "create" || !by_hash {
            pdu["room_id"] = self.batch.room_id().as_str().into();
        }
        if matches!(self.version, "1" | "2") {
            let with_hash: Vec<Value> = auth.iter().map(|id| json!([id, { "sha256": "" }])).collect();
            pdu["auth_events"] = with_hash.into();
        }
        let event = self.batch.met(id(name), pdu.to_string()).unwrap();
        let links = self.batch.links(&event).unwrap();
        self.batch.keep(event, &links).unwrap();
    }

    fn member(&mut self, name: &str, sender: &str, target: &str, membership: &str, auth: &[&str]) {
        self.event(name, sender, ("m.room.member", &user(target)), json!({ "membership": membership }), auth);
    }

    fn levels(&mut self, name: &str, sender: &str, mut content: Value, auth: &[&str]) {
        if self.version != "12" {
            content["users"]["@alice:example.com"] = 100.into();
        }
        self.event(name, sender, ("m.room.power_levels", ""), content, auth);
    }

    fn join_rule(&mut self, name: &str, sender: &str, rule: &str, auth: &[&str]) {
        self.event(name, sender, ("m.room.join_rules", ""), json!({ "join_rule": rule }), auth);
    }

    fn topic(&mut self, name: &str, sender: &str, auth: &[&str]) {
        self.event(name, sender, ("m.room.topic", ""), json!({ "topic": name }), auth);
    }

    /// The state that consists of these events.
    fn state(&mut self, names: &[&str]) -> Root {
        let entries = names
            .iter()
            .map(|name| {
                let event = self.batch.event_by_id(&id(name)).unwrap().unwrap();
                (event.record.state_key.unwrap(), event.num)
            })
            .collect();
        self.batch.rooms.graph().state_build(&mut self.batch.commit, entries)
    }

    /// The names of the events in the resolution of `states`, which must not depend on their order.
    fn resolved(&mut self, states: &[&[&str]]) -> BTreeSet<String> {
        let mut roots: Vec<Root> = states.iter().map(|names| self.state(names)).collect();
        let resolved = self.batch.resolve(roots.clone()).unwrap();
        roots.reverse();
        assert_eq!(self.batch.resolve(roots).unwrap(), resolved, "the order of states matters");
        let entries = self.batch.rooms.graph().state_entries_in(&self.batch.commit, resolved).unwrap();
        entries
            .into_iter()
            .map(|(_, num)| self.batch.event(num).unwrap().id.as_str().trim_start_matches('$').to_owned())
            .collect()
    }

    /// A public room of Alice with Bob in it, who may change levels and topics.
    fn with_alice_and_bob(rooms: &'r Rooms, version: &'static str) -> Self {
        let mut room = Self::with_alice(rooms, version);
        room.member("bob", "bob", "bob", "join", &["create", "levels", "public"]);
        room.levels(
            "levels-bob",
            "alice",
            json!({ "users": { "@bob:example.com": 50 }, "events": { "m.room.power_levels": 50 } }),
            &["create", "alice", "levels"],
        );
        room
    }

    fn with_alice(rooms: &'r Rooms, version: &'static str) -> Self {
        let mut room = Self::new(rooms, version);
        let mut content = json!({ "room_version": version });
        if !room.batch.version.rules.authorization.use_room_create_sender {
            content["creator"] = user("alice").into();
        }
        room.event("create", "alice", ("m.room.create", ""), content, &[]);
        room.member("alice", "alice", "alice", "join", &["create"]);
        room.levels(
            "levels",
            "alice",
            json!({ "events": { "m.room.power_levels": 50 } }),
            &["create", "alice"],
        );
        room.join_rule("public", "alice", "public", &["create", "alice", "levels"]);
        room
    }
}

fn names(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

/// Every version with the second algorithm; 1 has examples of its own below.
const SECOND: [&str; 3] = ["2", "10", "12"];

#[test]
fn a_ban_wins_over_what_the_banned_did_to_the_levels_meanwhile() {
    let (rooms, _dir) = server();
    for version in SECOND {
        let mut room = Example::with_alice_and_bob(&rooms, version);
        room.member("ban", "alice", "bob", "ban", &["create", "levels-bob", "alice", "bob"]);
        room.levels(
            "levels-by-bob",
            "bob",
            json!({ "users": { "@bob:example.com": 50 }, "users_default": 10 }),
            &["create", "levels-bob", "bob"],
        );
        let resolved = room.resolved(&[
            &["create", "alice", "public", "levels-bob", "ban"],
            &["create", "alice", "public", "levels-by-bob", "bob"],
        ]);
        assert_eq!(resolved, names(&["create", "alice", "public", "levels-bob", "ban"]), "version {version}");
    }
}

#[test]
fn a_demotion_wins_over_the_levels_the_demoted_set_meanwhile() {
    let (rooms, _dir) = server();
    for version in SECOND {
        let mut room = Example::with_alice_and_bob(&rooms, version);
        room.levels(
            "demoted",
            "alice",
            json!({ "users": { "@bob:example.com": 0 } }),
            &["create", "levels-bob", "alice"],
        );
        room.levels(
            "by-bob",
            "bob",
            json!({ "users": { "@bob:example.com": 50 }, "users_default": -1 }),
            &["create", "levels-bob", "bob"],
        );
        let resolved = room.resolved(&[
            &["create", "alice", "bob", "public", "demoted"],
            &["create", "alice", "bob", "public", "by-bob"],
        ]);
        assert_eq!(resolved, names(&["create", "alice", "bob", "public", "demoted"]), "version {version}");
    }
}

#[test]
fn a_topic_set_meanwhile_by_the_demoted_falls_behind_the_one_before_the_demotion() {
    let (rooms, _dir) = server();
    for version in SECOND {
        let mut room = Example::with_alice_and_bob(&rooms, version);
        room.topic("topic-alice", "alice", &["create", "levels-bob", "alice"]);
        room.levels(
            "demoted",
            "alice",
            json!({ "users": { "@bob:example.com": 0 } }),
            &["create", "levels-bob", "alice"],
        );
        room.topic("topic-bob", "bob", &["create", "levels-bob", "bob"]);
        let resolved = room.resolved(&[
            &["create", "alice", "bob", "public", "demoted", "topic-alice"],
            &["create", "alice", "bob", "public", "levels-bob", "topic-bob"],
        ]);
        let wanted = names(&["create", "alice", "bob", "public", "demoted", "topic-alice"]);
        assert_eq!(resolved, wanted, "version {version}");
    }
}

#[test]
fn a_topic_set_meanwhile_by_the_banned_is_lost_and_the_last_allowed_one_returns() {
    let (rooms, _dir) = server();
    for version in SECOND {
        let mut room = Example::with_alice_and_bob(&rooms, version);
        room.topic("topic", "alice", &["create", "levels-bob", "alice"]);
        room.member("ban", "alice", "bob", "ban", &["create", "levels-bob", "alice", "bob"]);
        room.topic("topic-bob", "bob", &["create", "levels-bob", "bob"]);
        let resolved = room.resolved(&[
            &["create", "alice", "public", "levels-bob", "topic", "ban"],
            &["create", "alice", "public", "levels-bob", "topic-bob", "bob"],
        ]);
        let wanted = names(&["create", "alice", "public", "levels-bob", "topic", "ban"]);
        assert_eq!(resolved, wanted, "version {version}");
    }
}

#[test]
fn a_join_meanwhile_does_not_evade_the_new_join_rule() {
    let (rooms, _dir) = server();
    for version in SECOND {
        let mut room = Example::with_alice_and_bob(&rooms, version);
        room.join_rule("invite-only", "alice", "invite", &["create", "levels-bob", "alice"]);
        room.member("ella", "ella", "ella", "join", &["create", "levels-bob", "public"]);
        let resolved = room.resolved(&[
            &["create", "alice", "bob", "levels-bob", "invite-only"],
            &["create", "alice", "bob", "levels-bob", "public", "ella"],
        ]);
        let wanted = names(&["create", "alice", "bob", "levels-bob", "invite-only"]);
        assert_eq!(resolved, wanted, "version {version}");
    }
}

#[test]
fn two_who_join_at_once_are_both_in() {
    let (rooms, _dir) = server();
    for version in ["1", "2", "10", "12"] {
        let mut room = Example::with_alice_and_bob(&rooms, version);
        let base = ["create", "alice", "bob", "levels-bob", "public"];
        room.member("charlie", "charlie", "charlie", "join", &["create", "levels-bob", "public"]);
        room.member("ella", "ella", "ella", "join", &["create", "levels-bob", "public"]);
        let with = |more: &'static str| base.iter().copied().chain([more]).collect::<Vec<_>>();
        let resolved = room.resolved(&[&with("charlie"), &with("ella")]);
        let wanted = base.iter().copied().chain(["charlie", "ella"]).collect::<Vec<_>>();
        assert_eq!(resolved, names(&wanted), "version {version}");
    }
}

#[test]
fn of_two_equal_changes_the_later_one_stands() {
    let (rooms, _dir) = server();
    for version in SECOND {
        let mut room = Example::with_alice_and_bob(&rooms, version);
        room.join_rule("earlier", "alice", "knock", &["create", "levels-bob", "alice"]);
        room.join_rule("later", "alice", "invite", &["create", "levels-bob", "alice"]);
        let resolved = room.resolved(&[
            &["create", "alice", "bob", "levels-bob", "earlier"],
            &["create", "alice", "bob", "levels-bob", "later"],
        ]);
        assert_eq!(resolved, names(&["create", "alice", "bob", "levels-bob", "later"]), "version {version}");
    }
}

#[test]
fn topics_are_ordered_by_the_levels_they_were_set_under_before_their_time() {
    let (rooms, _dir) = server();
    for version in SECOND {
        let mut room = Example::with_alice_and_bob(&rooms, version);
        let again = json!({ "users": { "@bob:example.com": 50 }, "events": { "m.room.power_levels": 50 }, "ban": 40 });
        room.levels("levels-newer", "alice", again, &["create", "levels-bob", "alice"]);
        room.topic("under-newer", "alice", &["create", "levels-newer", "alice"]);
        // Later by the clock, but set by who had not heard of the newer levels yet.
        room.topic("under-older", "bob", &["create", "levels-bob", "bob"]);
        let resolved = room.resolved(&[
            &["create", "alice", "bob", "public", "levels-newer", "under-newer"],
            &["create", "alice", "bob", "public", "levels-bob", "under-older"],
        ]);
        let wanted = names(&["create", "alice", "bob", "public", "levels-newer", "under-newer"]);
        assert_eq!(resolved, wanted, "version {version}");
    }
}

/// An event that all states have is in no difference, though only the auth chains of some name it: see
/// `Graph::auth_difference`. Bob's second join leads from his rules to Cara's; without it these seem unrelated, and the
/// more powerful's come first. Since version 12 the subgraph restores the order.
#[test]
fn what_all_states_have_connects_nothing_before_version_12() {
    let (rooms, _dir) = server();
    for version in ["10", "12"] {
        let mut room = Example::with_alice(&rooms, version);
        room.member("bob", "bob", "bob", "join", &["create", "levels", "public"]);
        room.member("cara", "cara", "cara", "join", &["create", "levels", "public"]);
        let levels = json!({ "users": { "@bob:example.com": 60, "@cara:example.com": 50 } });
        room.levels("both", "alice", levels, &["create", "levels", "alice"]);
        room.join_rule("by-cara", "cara", "public", &["create", "both", "cara"]);
        room.member("bob++", "bob", "bob", "join", &["create", "both", "bob", "by-cara"]);
        room.join_rule("by-bob", "bob", "public", &["create", "both", "bob++"]);
        let resolved = room.resolved(&[
            &["create", "alice", "both", "by-cara", "bob++", "cara"],
            &["create", "alice", "both", "by-bob", "bob++", "cara"],
        ]);
        let rule = if version == "12" { "by-bob" } else { "by-cara" };
        assert_eq!(resolved, names(&["create", "alice", "both", rule, "bob++", "cara"]), "version {version}");
    }
}

/// MSC4297, problem A: the join rule that both servers once had is lost where old states are not taken into account.
#[test]
fn msc4297_problem_a() {
    let (rooms, _dir) = server();
    for version in ["11", "12"] {
        let mut room = Example::with_alice(&rooms, version);
        room.member("bob", "bob", "bob", "join", &["create", "levels", "public"]);
        room.member("charlie", "charlie", "charlie", "join", &["create", "levels", "public"]);
        room.join_rule("invite-only", "alice", "invite", &["create", "levels", "alice"]);
        room.member("alice-left", "alice", "alice", "leave", &["create", "levels", "alice"]);
        room.member("bob++", "bob", "bob", "join", &["create", "levels", "bob", "invite-only"]);
        room.member(
            "charlie++",
            "charlie",
            "charlie",
            "join",
            &["create", "levels", "charlie", "invite-only"],
        );
        let resolved = room.resolved(&[
            &["create", "levels", "charlie", "invite-only", "alice-left", "bob++"],
            &["create", "levels", "public", "bob", "alice-left", "charlie++"],
        ]);
        let mut wanted = names(&["create", "levels", "alice-left", "bob++", "charlie++"]);
        if version == "12" {
            wanted.insert("invite-only".to_owned());
        }
        assert_eq!(resolved, wanted, "version {version}");
    }
}

/// MSC4297, problem B: levels that lie between two states in conflict are lost where the subgraph is not replayed.
#[test]
fn msc4297_problem_b() {
    let (rooms, _dir) = server();
    for version in ["11", "12"] {
        let mut room = Example::with_alice(&rooms, version);
        room.member("bob", "bob", "bob", "join", &["create", "levels", "public"]);
        room.member("charlie", "charlie", "charlie", "join", &["create", "levels", "public"]);
        let bob = json!({ "users": { "@bob:example.com": 50 }, "events": { "m.room.power_levels": 50 } });
        room.levels("levels-bob", "alice", bob, &["create", "levels", "alice"]);
        let both = json!({
            "users": { "@bob:example.com": 50, "@charlie:example.com": 50 }, "events": { "m.room.power_levels": 50 },
        });
        room.levels("levels-charlie", "bob", both, &["create", "levels-bob", "bob"]);
        room.member("zara", "zara", "zara", "join", &["create", "levels-charlie", "public"]);
        room.member("eve", "eve", "eve", "join", &["create", "levels-charlie", "public"]);
        room.member("eve++", "eve", "eve", "join", &["create", "levels-charlie", "public", "eve"]);
        let resolved = room.resolved(&[
            &["create", "alice", "levels", "public", "bob", "charlie", "eve++"],
            &["create", "alice", "levels-charlie", "public", "bob", "charlie", "zara"],
        ]);
        let levels = if version == "12" { "levels-charlie" } else { "levels" };
        let wanted = names(&["create", "alice", levels, "public", "bob", "charlie", "zara", "eve++"]);
        assert_eq!(resolved, wanted, "version {version}");
    }
}

#[test]
fn version_1_takes_the_levels_that_follow_one_another_and_the_deepest_topic() {
    let (rooms, _dir) = server();
    let mut room = Example::with_alice_and_bob(&rooms, "1");
    room.topic("topic-bob", "bob", &["create", "levels-bob", "bob"]);
    room.levels(
        "demoted",
        "alice",
        json!({ "users": { "@bob:example.com": 0 } }),
        &["create", "levels-bob", "alice"],
    );
    room.topic("topic-alice", "alice", &["create", "demoted", "alice"]);
    let resolved = room.resolved(&[
        &["create", "alice", "bob", "public", "levels-bob", "topic-bob"],
        &["create", "alice", "bob", "public", "demoted", "topic-alice"],
    ]);
    assert_eq!(resolved, names(&["create", "alice", "bob", "public", "demoted", "topic-alice"]));
}

#[test]
fn version_1_forgets_a_topic_whose_sender_is_out_of_power() {
    let (rooms, _dir) = server();
    let mut room = Example::with_alice_and_bob(&rooms, "1");
    room.topic("topic-alice", "alice", &["create", "levels-bob", "alice"]);
    room.levels(
        "demoted",
        "alice",
        json!({ "users": { "@bob:example.com": 0 } }),
        &["create", "levels-bob", "alice"],
    );
    room.topic("topic-bob", "bob", &["create", "levels-bob", "bob"]);
    let resolved = room.resolved(&[
        &["create", "alice", "bob", "public", "demoted", "topic-alice"],
        &["create", "alice", "bob", "public", "levels-bob", "topic-bob"],
    ]);
    assert_eq!(resolved, names(&["create", "alice", "bob", "public", "demoted", "topic-alice"]));
}
