//! The predefined rules and the conditions, held against events as the specification describes them.
#![allow(clippy::unwrap_used)]

use super::*;
use postern_users::default_push_rules;
use ruma::{push::NewPushRule, user_id};
use serde_json::json;
use std::convert::Infallible;

/// A room of Alice's, and what Bob may there.
struct Room {
    members: u64,
    name: &'static str,
    may_notify: bool,
}

const ROOM: Room = Room { members: 5, name: "Alice Margatroid", may_notify: false };
const DIRECT: Room = Room { members: 2, ..ROOM };

impl Scene for Room {
    type Error = Infallible;

    fn room_id(&self) -> &str {
        "!room:here.test"
    }

    fn members(&self) -> Result<u64, Infallible> {
        Ok(self.members)
    }

    fn sender_may_notify(&self, name: &str) -> Result<bool, Infallible> {
        Ok(name == "room" && self.may_notify)
    }

    fn display_name(&self) -> Result<Option<String>, Infallible> {
        Ok(Some(self.name.to_owned()))
    }
}

fn ask(rules: &Ruleset, room: &Room, event: &Value) -> Option<String> {
    let subject = Subject::new(&event.to_string()).unwrap();
    let rules = Rules::new(rules);
    let Ok(verdict) = rules.verdict(&subject, room);
    verdict.map(|verdict| match (verdict.notify, verdict.highlight) {
        (false, _) => "nothing".to_owned(),
        (true, highlight) => {
            let sound = ["ring", "default"].into_iter().find(|sound| verdict.actions.contains(sound));
            format!("{}{}", if highlight { "highlight " } else { "" }, sound.unwrap_or("silent"))
        }
    })
}

fn event(kind: &str, content: Value) -> Value {
    json!({ "type": kind, "sender": "@bob:here.test", "content": content })
}

fn state(kind: &str, key: &str, content: Value) -> Value {
    let mut event = event(kind, content);
    event["state_key"] = key.into();
    event
}

fn text(body: &str) -> Value {
    event("m.room.message", json!({ "msgtype": "m.text", "body": body }))
}

fn mentioning(body: &str, mentions: Value) -> Value {
    event("m.room.message", json!({ "msgtype": "m.text", "body": body, "m.mentions": mentions }))
}

fn defaults() -> Ruleset {
    default_push_rules(user_id!("@alice:here.test"))
}

#[test]
fn the_predefined_rules_do_what_the_specification_says() {
    let edit = json!({ "body": "* x", "m.relates_to": { "rel_type": "m.replace", "event_id": "$x" } });
    let poll = |kind: &str| event(&format!("org.matrix.msc3381.poll.{kind}"), json!({ "body": "?" }));
    for (what, room, event, expected) in [
        ("a message", ROOM, text("hello"), Some("silent")),
        ("a message to one", DIRECT, text("hello"), Some("default")),
        (
            "a notice",
            ROOM,
            event("m.room.message", json!({ "msgtype": "m.notice", "body": "Alice" })),
            Some("nothing"),
        ),
        ("something encrypted", ROOM, event("m.room.encrypted", json!({})), Some("silent")),
        ("something encrypted to one", DIRECT, event("m.room.encrypted", json!({})), Some("default")),
        ("a call", ROOM, event("m.call.invite", json!({})), Some("ring")),
        (
            "an invite for her",
            ROOM,
            state("m.room.member", "@alice:here.test", json!({ "membership": "invite" })),
            Some("default"),
        ),
        (
            "another's invite",
            ROOM,
            state("m.room.member", "@eve:here.test", json!({ "membership": "invite" })),
            Some("nothing"),
        ),
        ("a reaction", ROOM, event("m.reaction", json!({})), Some("nothing")),
        ("an edit", ROOM, event("m.room.message", edit), Some("nothing")),
        ("an upgrade", ROOM, state("m.room.tombstone", "", json!({})), Some("highlight silent")),
        ("no upgrade", ROOM, state("m.room.tombstone", "x", json!({})), None),
        ("an access control list", ROOM, state("m.room.server_acl", "", json!({})), Some("nothing")),
        ("a topic", ROOM, state("m.room.topic", "", json!({ "topic": "x" })), None),
        ("a poll", ROOM, poll("start"), Some("silent")),
        ("a poll among two", DIRECT, poll("start"), Some("default")),
        ("a vote", DIRECT, poll("response"), Some("nothing")),
        ("the end of a poll", ROOM, poll("end"), Some("silent")),
    ] {
        assert_eq!(ask(&defaults(), &room, &event).as_deref(), expected, "{what}");
    }
}

#[test]
fn who_is_mentioned_is_what_the_sender_says_and_only_without_that_what_the_text_says() {
    let powerful = || Room { may_notify: true, ..ROOM };
    for (what, room, event, expected) in [
        (
            "a mention",
            ROOM,
            mentioning("you", json!({ "user_ids": ["@alice:here.test"] })),
            "highlight default",
        ),
        ("another's", ROOM, mentioning("alice", json!({ "user_ids": ["@eve:here.test"] })), "silent"),
        ("nobody's", ROOM, mentioning("alice Alice Margatroid @room", json!({})), "silent"),
        ("the room's", powerful(), mentioning("all", json!({ "room": true })), "highlight silent"),
        ("the room's, without the power", ROOM, mentioning("all", json!({ "room": true })), "silent"),
        ("the room's, not quite", powerful(), mentioning("@room", json!({ "room": "true" })), "silent"),
        ("her name in a text", ROOM, text("is alice there?"), "highlight default"),
        ("part of her name", ROOM, text("malice"), "silent"),
        ("her display name", ROOM, text("hello ALICE MARGATROID!"), "highlight default"),
        ("the room in a text", powerful(), text("@room: hello"), "highlight silent"),
        ("the room in a text, without the power", ROOM, text("@room: hello"), "silent"),
    ] {
        assert_eq!(ask(&defaults(), &room, &event).as_deref(), Some(expected), "{what}");
    }
}

#[test]
fn a_display_name_is_no_pattern() {
    for name in ["*", "?????", ""] {
        let room = Room { name, ..ROOM };
        assert_eq!(ask(&defaults(), &room, &text("hello")).as_deref(), Some("silent"), "{name:?}");
    }
    let room = Room { name: "* B [x]", ..ROOM };
    assert_eq!(ask(&defaults(), &room, &text("hi * b [X]")).as_deref(), Some("highlight default"));
}

/// Whether a rule with one condition applies.
fn holds(condition: Value, room: &Room, event: &Value) -> bool {
    let mut rules = Ruleset::new();
    let condition = serde_json::from_value(condition).unwrap();
    let rule = ruma::push::NewConditionalPushRule::new("x".to_owned(), vec![condition], vec![Action::Notify]);
    rules.insert(NewPushRule::Underride(rule), None, None).unwrap();
    ask(&rules, room, event).is_some()
}

#[test]
fn conditions_hold_as_the_specification_says() {
    let message = event(
        "m.room.message",
        json!({ "body": "Time for Lunch", "n": 1, "b": true, "z": null, "list": ["a", 2, null, true],
                "m.x": { "y.z": "dotted", "b\\s": "slashed" }, "0": { "1": "digits" } }),
    );
    let matches = |key: &str, pattern: &str| json!({ "kind": "event_match", "key": key, "pattern": pattern });
    let is = |key: &str, value: Value| json!({ "kind": "event_property_is", "key": key, "value": value });
    let has =
        |key: &str, value: Value| json!({ "kind": "event_property_contains", "key": key, "value": value });
    let members = |is: &str| json!({ "kind": "room_member_count", "is": is });
    for (condition, expected) in [
        (matches("content.body", "lunc?*"), true),
        (matches("content.body", "Lun"), false),
        (matches("type", "m.room.*"), true),
        (matches("type", "room"), false),
        (matches("room_id", "!ROOM:here.test"), true),
        (matches("sender", "@bob:*"), true),
        (matches(r"content.m\.x.y\.z", "dotted"), true),
        (matches(r"content.m\.x.b\\s", "slashed"), true),
        (matches("content.m.x.y.z", "dotted"), false),
        (matches("content.0.1", "digits"), true),
        (matches("content.n", "1"), false),
        (matches("content.missing", "*"), false),
        (is("content.n", json!(1)), true),
        (is("content.n", json!("1")), false),
        (is("content.b", json!(true)), true),
        (is("content.z", Value::Null), true),
        (is("content.missing", Value::Null), false),
        (is("content.body", json!("time for lunch")), false),
        (has("content.list", json!("a")), true),
        (has("content.list", json!(2)), true),
        (has("content.list", Value::Null), true),
        (has("content.list", json!("A")), false),
        (has("content.body", json!("Time")), false),
        (members("5"), true),
        (members("==5"), true),
        (members("<5"), false),
        (members(">4"), true),
        (members(">=5"), true),
        (members("<=4"), false),
        (json!({ "kind": "sender_notification_permission", "key": "room" }), false),
        (json!({ "kind": "contains_display_name" }), false),
        (json!({ "kind": "org.example.unknown", "key": "x" }), false),
    ] {
        assert_eq!(holds(condition.clone(), &ROOM, &message), expected, "{condition}");
    }
    let permission = json!({ "kind": "sender_notification_permission", "key": "room" });
    assert!(holds(permission, &Room { may_notify: true, ..ROOM }, &message));
}

#[test]
fn kinds_of_rules_come_in_the_order_of_the_specification() {
    let mut rules = defaults();
    let add = |rules: &mut Ruleset, kind: &str, sound: &str| {
        let actions: Vec<Action> =
            serde_json::from_value(json!(["notify", { "set_tweak": "sound", "value": sound }])).unwrap();
        let conditional =
            || ruma::push::NewConditionalPushRule::new(kind.to_owned(), vec![], actions.clone());
        let rule = match kind {
            "override" => NewPushRule::Override(conditional()),
            "underride" => NewPushRule::Underride(conditional()),
            "content" => NewPushRule::Content(ruma::push::NewPatternedPushRule::new(
                kind.to_owned(),
                "hello".to_owned(),
                actions,
            )),
            "room" => NewPushRule::Room(ruma::push::NewSimplePushRule::new(
                ruma::room_id!("!room:here.test").to_owned(),
                actions,
            )),
            _ => NewPushRule::Sender(ruma::push::NewSimplePushRule::new(
                user_id!("@bob:here.test").to_owned(),
                actions,
            )),
        };
        rules.insert(rule, None, None).unwrap();
    };
    let actions = |rules: &Ruleset| {
        let rules = Rules::new(rules);
        let Ok(verdict) = rules.verdict(&Subject::new(&text("hello").to_string()).unwrap(), &ROOM);
        verdict.unwrap().actions.to_string()
    };
    for kind in ["underride", "sender", "room", "content", "override"] {
        add(&mut rules, kind, kind);
        assert!(actions(&rules).contains(kind), "{kind}: {}", actions(&rules));
    }
    rules.set_enabled(ruma::push::RuleKind::Override, ".m.rule.master", true).unwrap();
    assert_eq!(actions(&rules), "[]");
}

#[test]
fn more_patterns_than_count_are_not_kept() {
    let mut rules = Ruleset::new();
    for number in 0..GLOBS + 50 {
        let rule = ruma::push::NewPatternedPushRule::new(number.to_string(), format!("x*{number}"), vec![]);
        rules.insert(NewPushRule::Content(rule), None, None).unwrap();
    }
    assert_eq!(Rules::new(&rules).weight(), 1 + u64::try_from(GLOBS).unwrap());
}
