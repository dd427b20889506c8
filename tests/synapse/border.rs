//! Synapse in a room of two enclaves, cleared for less than may be said there: it gets redacted copies, asks for more as it is
//! used to and in all other ways, by either enclave, and comes to the same state.

use crate::{
    enclaves::{Enclave, Peer, document, label},
    sides::{Pair, Side, ids, join_by, sees_event, until, walk},
};
use postern_world::{Answer, Client, Link, Method, Seat, Server, enc};
use ruma::{
    CanonicalJsonValue,
    serde::{Base64, base64::Standard},
    signatures::{Ed25519KeyPair, KeyPair},
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What is above Synapse's clearance says this.
const CANARY: &str = "canary-41c0de";
/// The seed of Synapse's signing key, as `tests/world` sets it.
const SEED: &[u8; 32] = b"nobody guesses this seed, really";
/// What stands before a seed in PKCS#8 (RFC 8410, section 7).
const PKCS8: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Two enclaves, of which one is cleared for all, and Synapse; alice, bob and carol on these; their room.
struct Three {
    high: Enclave,
    low: Enclave,
    alice: Client,
    bob: Client,
    carol: Client,
    room: String,
    /// What was said before Synapse came in, if it did not make the room.
    before: Vec<String>,
}

impl Three {
    fn new(pair: &Pair<'_>) -> Self {
        let (here, there) = (Seat::take(), Seat::take());
        let synapse = Seat { address: pair.synapse.name().parse().unwrap(), ..there.clone() };
        // It labels nothing: what its users say is taken for internal.
        let plain = "default_label = \"Company INTERNAL\"";
        let high = [Peer(&there, "Company INTERNAL", ""), Peer(&synapse, "Company INTERNAL", plain)];
        let high = Enclave::start(&here, "Company CONFIDENTIAL", &high, "");
        let low = [Peer(&here, "Company CONFIDENTIAL", ""), Peer(&synapse, "Company INTERNAL", plain)];
        let low = Enclave::start(&there, "Company INTERNAL", &low, "");
        let (alice, bob) = (high.register("alice"), low.register("bob"));
        let carol = pair.synapse.register("carol");
        let made_here = pair.host == Side::Postern;
        let (maker, others) = if made_here { (&alice, [&bob, &carol]) } else { (&carol, [&alice, &bob]) };
        let label = |class: &str| {
            let mut label = label(class);
            label["cats"] = json!([]);
            label
        };
        let room = maker.create_room(json!({
            "preset": "private_chat",
            "room_version": "11",
            "creation_content": { "io.postern.label": label("CONFIDENTIAL"), "io.postern.floor": label("INTERNAL") },
            "invite": others.map(Client::id),
        }));
        if !made_here {
            let mut levels = maker.state(&room, "m.room.power_levels", "").ok();
            levels["users"][alice.id()] = json!(100);
            maker.set_state(&room, "m.room.power_levels", "", levels);
        }
        let mut all = Self { high, low, alice, bob, carol, room, before: Vec::new() };
        if made_here {
            join_by(&all.bob, &all.room, &all.alice);
            all.before = all.sing();
            join_by(&all.carol, &all.room, &all.alice);
        } else {
            join_by(&all.alice, &all.room, &all.carol);
            join_by(&all.bob, &all.room, &all.carol);
            let power =
                || all.alice.state(&all.room, "m.room.power_levels", "")["users"][all.alice.id()] == 100;
            until("alice has the power", power);
        }
        all
    }

    /// Alice says and sets what is above the others' clearance.
    fn sing(&self) -> Vec<String> {
        let (alice, room) = (&self.alice, &self.room);
        let parent = self.open(alice, "all may hear this");
        let relates = |kind: &str, key: &str| json!({ "rel_type": kind, "event_id": parent, "key": key });
        vec![
            alice.send_text(room, &format!("the {CANARY} sings")),
            alice.set_state(room, "m.room.name", "", json!({ "name": CANARY })),
            alice.set_state(room, "m.room.topic", "", json!({ "topic": CANARY })),
            alice.send(room, "m.reaction", json!({ "m.relates_to": relates("m.annotation", CANARY) })),
            alice.send(
                room,
                "m.room.message",
                json!({
                    "msgtype": "m.text", "body": format!("* {CANARY}"), "m.relates_to": relates("m.replace", ""),
                    "m.new_content": { "msgtype": "m.text", "body": CANARY },
                }),
            ),
        ]
    }

    /// Somebody says what all may hear.
    fn open(&self, who: &Client, body: &str) -> String {
        let content = json!({ "msgtype": "m.text", "body": body, "io.postern.label": label("INTERNAL") });
        who.send(&self.room, "m.room.message", content)
    }

    /// All three see what each says to all.
    fn settle(&self) {
        for who in [&self.alice, &self.bob, &self.carol] {
            let said = self.open(who, "and that was all");
            for other in [&self.alice, &self.bob, &self.carol] {
                let seen = sees_event(other, &self.room, &said);
                assert_eq!(seen["content"]["body"], "and that was all", "{} of {}", other.id(), who.id());
            }
        }
    }

    /// The rooms' state is the same on all three, event by event.
    fn agree(&self) {
        let state = |who: &Client| -> BTreeMap<(String, String), String> {
            let text = |event: &Value, name: &str| event[name].as_str().unwrap_or_default().to_owned();
            let events = who.all_state(&self.room);
            events
                .iter()
                .map(|event| ((text(event, "type"), text(event, "state_key")), text(event, "event_id")))
                .collect()
        };
        let wanted = state(&self.alice);
        assert!(wanted.len() > 8, "{wanted:?}");
        for who in [&self.bob, &self.carol] {
            until(&format!("the state is the same for {}", who.id()), || state(who) == wanted);
        }
    }

    /// Synapse has these as redacted copies, and its users find the word nowhere.
    fn is_silent(&self, secrets: &[String]) {
        let (carol, room) = (&self.carol, enc(&self.room));
        let mut told = vec![carol.sync(None).to_string()];
        // It asks for what it lacks when its users page back.
        let paged = || ids(&walk(carol, &self.room));
        until("Synapse has the copies", || {
            let has = paged();
            secrets.iter().all(|secret| has.contains(secret))
        });
        for secret in secrets {
            let event = carol.event(&self.room, secret).ok();
            // Without a redaction that says why, and with what redaction leaves.
            assert_eq!(event["content"], json!({}), "{event}");
            let context = carol.get(&format!("v3/rooms/{room}/context/{}?limit=50", enc(secret)));
            told.push(context.ok().to_string());
            let ts = event["origin_server_ts"].as_u64().unwrap();
            for dir in ["f", "b"] {
                let path = format!("v1/rooms/{room}/timestamp_to_event?ts={ts}&dir={dir}");
                assert_eq!(carol.get(&path).status(), 200);
            }
        }
        told.extend(walk(carol, &self.room).iter().map(Value::to_string));
        told.extend(self.carol.all_state(&self.room).iter().map(Value::to_string));
        let search = json!({ "search_categories": { "room_events": { "search_term": CANARY, "include_state": true } } });
        let found = carol.post("v3/search", search).ok();
        assert_eq!(found["search_categories"]["room_events"]["count"], 0);
        let heard: Vec<&String> = told.iter().filter(|text| text.contains(CANARY)).collect();
        assert!(heard.is_empty(), "{heard:?}");
    }

    /// Asks a server for events, in Synapse's name, by all endpoints that tell of events.
    fn pull(&self, server: &Server, events: &[String], after: &str) {
        let room = enc(&self.room);
        let mut told = Vec::new();
        for event in events {
            let event = enc(event);
            let missing =
                json!({ "earliest_events": [], "latest_events": [after], "limit": 20, "min_depth": 0 });
            told.push(self.ask(server, &format!("get_missing_events/{room}"), Some(&missing)));
            for path in [
                format!("event/{event}"),
                format!("backfill/{room}?v={}&limit=100", enc(after)),
                format!("backfill/{room}?v={event}&limit=100"),
                format!("state/{room}?event_id={event}"),
                format!("state_ids/{room}?event_id={event}"),
                format!("event_auth/{room}/{event}"),
                format!("timestamp_to_event/{room}?ts=0&dir=f"),
                format!("hierarchy/{room}"),
            ] {
                told.push(self.ask(server, &path, None));
            }
        }
        for answer in told {
            assert_eq!(answer.status(), 200, "{}", answer.describe());
            assert!(!answer.describe().contains(CANARY), "{}", answer.describe());
        }
    }

    fn ask(&self, server: &Server, path: &str, body: Option<&Value>) -> Answer {
        let pair = Ed25519KeyPair::from_der(&[&PKCS8[..], &SEED[..]].concat(), "a_test".to_owned()).unwrap();
        let target = format!("/_matrix/federation/v1/{path}");
        let method = if body.is_some() { Method::POST } else { Method::GET };
        let origin = self.carol.server_name();
        let mut request = json!({
            "method": method.as_str(), "uri": target, "origin": origin, "destination": server.name(),
        });
        if let Some(body) = body {
            request["content"] = body.clone();
        }
        let text = serde_json::to_string(&CanonicalJsonValue::try_from(request).unwrap()).unwrap();
        let sig = Base64::<Standard, _>::new(pair.sign(text.as_bytes()).as_bytes().to_vec()).encode();
        let header = format!(
            "X-Matrix origin=\"{origin}\",destination=\"{}\",key=\"ed25519:a_test\",sig=\"{sig}\"",
            server.name()
        );
        let headers = [("authorization", header.as_str()), ("content-type", "application/json")];
        let body = body.map(Value::to_string).unwrap_or_default();
        Link::to(&server.address()).send(&method, &target, &headers, body).unwrap()
    }
}

pub fn what_is_above_its_clearance_reaches_it_as_copies(pair: &Pair<'_>) {
    let three = Three::new(pair);
    three.is_silent(&three.before);
    three.settle();
    let secrets = three.sing();
    three.settle();
    three.is_silent(&secrets);
    for event in secrets.iter().chain(&three.before) {
        assert!(three.alice.event(&three.room, event).ok().to_string().contains(CANARY));
    }
    let after = three.open(&three.alice, "the last");
    sees_event(&three.bob, &three.room, &after);
    sees_event(&three.carol, &three.room, &after);
    for enclave in [&three.high, &three.low] {
        three.pull(&enclave.server, &secrets, &after);
        three.pull(&enclave.server, &three.before, &after);
    }
    // A redaction of what it has as a copy it follows as any other.
    let gone = three.alice.redact(&three.room, &secrets[0]);
    sees_event(&three.carol, &three.room, &gone);
    three.settle();
    three.agree();
    let all = |who: &Client| ids(&walk(who, &three.room));
    let (alices, carols) = (all(&three.alice), all(&three.carol));
    assert!(alices.iter().all(|id| carols.contains(id)), "nothing is missing");
}

pub fn what_it_missed_it_pulls_from_another_member(pair: &Pair<'_>) {
    let three = Three::new(pair);
    three.settle();
    pair.synapse.stop();
    let mut secrets = three.sing();
    for _ in 0..3 {
        secrets.extend(three.sing());
    }
    let open = three.open(&three.alice, "open to all");
    sees_event(&three.bob, &three.room, &open);
    let reply = three.open(&three.bob, "I heard only this");
    sees_event(&three.alice, &three.room, &reply);
    // Who said it is gone: only the other enclave can be asked.
    three.high.server.terminate();
    pair.synapse.start_again();
    let last = three.open(&three.bob, "are you back?");
    assert_eq!(sees_event(&three.carol, &three.room, &last)["content"]["body"], "are you back?");
    three.is_silent(&secrets);
    three.pull(&three.low.server, &secrets, &last);
    three.high.server.start_again();
    three.settle();
    three.is_silent(&secrets);
    three.agree();
}

pub fn policies_change_while_it_is_told(pair: &Pair<'_>) {
    let three = Three::new(pair);
    three.settle();
    let seat = |name: &str| Seat { address: name.parse().unwrap(), ..Seat::take() };
    let (low, synapse) = (seat(three.low.server.name()), seat(pair.synapse.name()));
    let secrets = three.sing();
    three.settle();
    let plain = "default_label = \"Company INTERNAL\"";
    let peers = [Peer(&low, "Company INTERNAL", ""), Peer(&synapse, "Company CONFIDENTIAL", plain)];
    three.high.write("border.toml", &document("Company CONFIDENTIAL", &peers, ""));
    assert!(three.high.reread().contains("the border was read again"));
    let whole = three.alice.send_text(&three.room, "you may know now");
    let seen = sees_event(&three.carol, &three.room, &whole);
    assert_eq!(seen["content"]["body"], "you may know now");
    // What was held back stays so, and the other enclave still gets copies.
    three.is_silent(&secrets);
    three.settle();
    assert_eq!(three.bob.event(&three.room, &whole).status(), 404);
    three.agree();
}
