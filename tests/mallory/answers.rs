//! What the hostile server answers when no test says otherwise: what an honest and simple one would.

use crate::{
    listen::{Asked, Reply},
    peer::Parts,
    room::{Pdu, Room, State, id_of, now_ms},
};
use serde_json::{Value, json};

pub const DAY_MS: u64 = 24 * 3_600_000;

/// The statement about the keys of a server.
pub fn keys(parts: &Parts, valid_until_ts: u64) -> Value {
    parts.signed(json!({
        "server_name": parts.name,
        "verify_keys": { "ed25519:1": { "key": parts.public_key() } },
        "old_verify_keys": {},
        "valid_until_ts": valid_until_ts,
    }))
}

fn unknown() -> Reply {
    Reply::error(404, "M_NOT_FOUND")
}

fn transaction(parts: &Parts, pdus: &[Value]) -> Reply {
    Reply::json(&json!({ "origin": parts.name, "origin_server_ts": now_ms(), "pdus": pdus }))
}

/// The answer of an honest server.
pub fn honest(parts: &Parts, asked: &Asked) -> Reply {
    let segments: Vec<&str> = asked.segments.iter().map(String::as_str).collect();
    match segments.as_slice() {
        ["_matrix", "key", "v2", "server", ..] => Reply::json(&keys(parts, now_ms() + DAY_MS)),
        ["_matrix", "federation", version, rest @ ..] => federation(parts, asked, version, rest),
        _ => unknown(),
    }
}

fn federation(parts: &Parts, asked: &Asked, version: &str, rest: &[&str]) -> Reply {
    match rest {
        ["version"] => Reply::json(&json!({ "server": { "name": "Mallory", "version": "1" } })),
        ["send", _] => receive(parts, &asked.json()),
        ["event", id] => {
            let rooms = parts.rooms();
            match rooms.values().find_map(|room| room.event(id)) {
                Some(event) => transaction(parts, std::slice::from_ref(event)),
                None => unknown(),
            }
        }
        ["make_join" | "make_leave" | "make_knock", room, user] => {
            let what = rest[0].trim_start_matches("make_");
            in_room(parts, room, |room| propose(room, user, what))
        }
        ["send_join", room, _] => in_room(parts, room, |room| {
            let mut said = joined(parts, room, &asked.json());
            if asked.parameter("omit_members") == "true" {
                without_members(&mut said);
            }
            Reply::json(&if version == "v1" { json!([200, said]) } else { said })
        }),
        ["send_leave", room, _] => in_room(parts, room, |room| {
            take(room, &asked.json());
            Reply::json(&json!({}))
        }),
        ["send_knock", room, _] => in_room(parts, room, |room| {
            take(room, &asked.json());
            Reply::json(&json!({ "knock_room_state": [] }))
        }),
        ["invite", _, _] => {
            let invite = asked.json();
            let version = invite["room_version"].as_str().unwrap_or("1");
            let signed = crate::room::cosign(version, &parts.name, &parts.pair, &invite["event"]);
            Reply::json(&json!({ "event": signed }))
        }
        ["state", room] => in_room(parts, room, |room| {
            let before = room.state_before(asked.parameter("event_id"));
            let chain = room.auth_chain(before.values());
            Reply::json(&json!({ "pdus": events(room, &before), "auth_chain": chain }))
        }),
        ["state_ids", room] => in_room(parts, room, |room| {
            let before = room.state_before(asked.parameter("event_id"));
            let chain: Vec<String> =
                room.auth_chain(before.values()).iter().map(|json| id_of(&room.version, json)).collect();
            let ids: Vec<&String> = before.values().collect();
            Reply::json(&json!({ "pdu_ids": ids, "auth_chain_ids": chain }))
        }),
        ["event_auth", room, id] => in_room(parts, room, |room| {
            Reply::json(&json!({ "auth_chain": room.auth_chain([&(*id).to_owned()]) }))
        }),
        ["backfill", room] => in_room(parts, room, |room| {
            let from: Vec<String> =
                asked.query.iter().filter(|(name, _)| name == "v").map(|(_, id)| id.clone()).collect();
            let mut events: Vec<Value> = from.iter().filter_map(|id| room.event(id).cloned()).collect();
            let limit = asked.parameter("limit").parse().unwrap_or(10);
            events.extend(room.between(&from, &[], limit).into_iter().rev());
            transaction(parts, &events)
        }),
        ["get_missing_events", room] => in_room(parts, room, |room| {
            let request = asked.json();
            let ids = |name: &str| -> Vec<String> {
                serde_json::from_value(request[name].clone()).unwrap_or_default()
            };
            let limit = usize::try_from(request["limit"].as_u64().unwrap_or(10)).unwrap_or(10);
            let events = room.between(&ids("latest_events"), &ids("earliest_events"), limit);
            Reply::json(&json!({ "events": events }))
        }),
        ["user", "devices", user] => Reply::json(&json!({ "user_id": user, "stream_id": 1, "devices": [] })),
        ["user", "keys", "query"] => Reply::json(&json!({ "device_keys": {} })),
        ["user", "keys", "claim"] => Reply::json(&json!({ "one_time_keys": {} })),
        ["query", "profile"] => Reply::json(&json!({ "displayname": "Mallory" })),
        ["publicRooms"] => Reply::json(&json!({ "chunk": [] })),
        ["media", "download" | "thumbnail", _] => {
            file("application/json", "{}", &[("content-type", "text/plain")], b"a file of mallory's")
        }
        _ => Reply::error(404, "M_UNRECOGNIZED"),
    }
}

/// A file in the two parts of an answer.
pub fn file(first_type: &str, first: &str, headers: &[(&str, &str)], bytes: &[u8]) -> Reply {
    let mut body = format!("--edge\r\nContent-Type: {first_type}\r\n\r\n{first}\r\n--edge\r\n").into_bytes();
    for (name, value) in headers {
        body.extend(format!("{name}: {value}\r\n").bytes());
    }
    body.extend(b"\r\n");
    body.extend(bytes);
    body.extend(b"\r\n--edge--\r\n");
    Reply::bytes("multipart/mixed; boundary=edge", body)
}

fn in_room(parts: &Parts, room: &str, answer: impl FnOnce(&mut Room) -> Reply) -> Reply {
    parts.rooms().get_mut(room).map_or_else(unknown, answer)
}

fn events(room: &Room, state: &State) -> Vec<Value> {
    state.values().filter_map(|id| room.event(id).cloned()).collect()
}

fn take(room: &mut Room, json: &Value) {
    let pdu = Pdu { id: id_of(&room.version, json), json: json.clone() };
    room.add(&pdu);
}

/// The proposal of a membership, as honest servers make it.
pub fn propose(room: &Room, user: &str, membership: &str) -> Reply {
    let event = room.draft(user, "m.room.member", Some(user), json!({ "membership": membership }));
    Reply::json(&json!({ "room_version": room.version, "event": event }))
}

/// The answer to a join, as honest servers give it.
pub fn joined(parts: &Parts, room: &mut Room, join: &Value) -> Value {
    take(room, join);
    let before = room.state_before(&id_of(&room.version, join));
    let chain = room.auth_chain(before.values());
    json!({
        "origin": parts.name,
        "members_omitted": false,
        "state": events(room, &before),
        "auth_chain": chain,
        "event": join,
    })
}

/// Leaves the members out of the answer to a join, and says which servers they are of.
pub fn without_members(said: &mut Value) {
    let mut servers = std::collections::BTreeSet::new();
    let state = said["state"].as_array_mut().unwrap();
    state.retain(|event| {
        let is_member = event["type"] == "m.room.member";
        if is_member && event["content"]["membership"] == "join" {
            let user = event["state_key"].as_str().unwrap_or_default();
            servers.extend(user.split_once(':').map(|(_, server)| server.to_owned()));
        }
        !is_member
    });
    said["members_omitted"] = true.into();
    said["servers_in_room"] = json!(servers);
}

fn receive(parts: &Parts, transaction: &Value) -> Reply {
    let mut rooms = parts.rooms();
    let mut results = serde_json::Map::new();
    for json in transaction["pdus"].as_array().into_iter().flatten() {
        let Some(room) = json["room_id"].as_str().and_then(|id| rooms.get_mut(id)) else { continue };
        take(room, json);
        results.insert(id_of(&room.version, json), json!({}));
    }
    Reply::json(&json!({ "pdus": results }))
}
