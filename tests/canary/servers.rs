//! What other servers ask.

use crate::{
    choir::{CANARY, Choir},
    matrix::Matrix,
    peer::Mallory,
    room::{Pdu, seal},
};
use postern_world::{Answer, enc};
use serde_json::json;
use std::{collections::BTreeSet, path::Path};

type Case = fn(&Choir, &Mallory) -> Vec<Answer>;

fn all(choir: &Choir, mallory: &Mallory, paths: impl IntoIterator<Item = String>) -> Vec<Answer> {
    paths.into_iter().map(|path| mallory.get(&choir.high.server, &path)).collect()
}

fn by_room(choir: &Choir, mallory: &Mallory, what: &str, more: &str) -> Vec<Answer> {
    all(choir, mallory, choir.rooms().into_iter().map(|room| format!("v1/{what}/{}{more}", enc(room))))
}

fn by_event(choir: &Choir, mallory: &Mallory, path: impl Fn(&str, &str) -> String) -> Vec<Answer> {
    all(choir, mallory, choir.places.iter().map(|place| path(&enc(&place.room), &enc(&place.event))))
}

/// Proposals of a membership, and what becomes of them, by a new user of the server in each room.
fn membership(choir: &Choir, mallory: &Mallory, what: &str, version: &str) -> Vec<Answer> {
    let mut answers = Vec::new();
    for room in choir.rooms() {
        for user in ["eve", "mel", "new"].map(|name| mallory.user(name)) {
            let path = format!("v1/make_{what}/{}/{}?ver=12", enc(room), enc(&user));
            let proposed = mallory.get(&choir.high.server, &path);
            answers.push(proposed.clone());
            if proposed.status() != 200 {
                continue;
            }
            let in_version = proposed["room_version"].as_str().unwrap();
            let event: Pdu = seal(in_version, mallory.name(), &mallory.parts.pair, proposed["event"].clone());
            let path = format!("{version}/send_{what}/{}/{}", enc(room), enc(&event.id));
            answers.push(mallory.put(&choir.high.server, &path, &event.json));
        }
    }
    answers
}

/// An invite of the officer to a room of the server.
fn invite(choir: &Choir, mallory: &Mallory, version: &str) -> Vec<Answer> {
    let eve = mallory.user("eve");
    let room_version = if version == "v1" { "1" } else { "12" };
    let room = mallory.create_room(&eve, room_version);
    let content = json!({ "membership": "invite" });
    let event = mallory.make(&room, &eve, "m.room.member", Some(choir.officer.id()), content);
    let path = format!("{version}/invite/{}/{}", enc(&room), enc(&event.id));
    let body = if version == "v1" {
        event.json
    } else {
        json!({ "room_version": room_version, "event": event.json, "invite_room_state": [] })
    };
    vec![mallory.put(&choir.high.server, &path, &body)]
}

fn file(choir: &Choir, mallory: &Mallory, what: &str, query: &str) -> Vec<Answer> {
    all(choir, mallory, [format!("v1/media/{what}/{}{query}", choir.file_id())])
}

fn open(choir: &Choir, mallory: &Mallory, path: &str) -> Vec<Answer> {
    vec![mallory.get(&choir.high.server, path)]
}

/// Every endpoint for servers, as the source writes it, and what is asked of it.
const CASES: &[(&str, Case)] = &[
    ("/_matrix/federation/v1/event/{}", |choir, mallory| {
        by_event(choir, mallory, |_, event| format!("v1/event/{event}"))
    }),
    ("/_matrix/federation/v1/state/{}", |choir, mallory| {
        by_event(choir, mallory, |room, event| format!("v1/state/{room}?event_id={event}"))
    }),
    ("/_matrix/federation/v1/state_ids/{}", |choir, mallory| {
        by_event(choir, mallory, |room, event| format!("v1/state_ids/{room}?event_id={event}"))
    }),
    ("/_matrix/federation/v1/event_auth/{}/{}", |choir, mallory| {
        by_event(choir, mallory, |room, event| format!("v1/event_auth/{room}/{event}"))
    }),
    ("/_matrix/federation/v1/backfill/{}", |choir, mallory| {
        by_event(choir, mallory, |room, event| format!("v1/backfill/{room}?v={event}&limit=100"))
    }),
    ("/_matrix/federation/v1/get_missing_events/{}", |choir, mallory| {
        let ask = |place: &crate::choir::Place| {
            let body =
                json!({ "earliest_events": [], "latest_events": [place.event], "limit": 20, "min_depth": 0 });
            mallory.post(&choir.high.server, &format!("v1/get_missing_events/{}", enc(&place.room)), &body)
        };
        choir.places.iter().map(ask).collect()
    }),
    ("/_matrix/federation/v1/timestamp_to_event/{}", |choir, mallory| {
        let mut answers = by_room(choir, mallory, "timestamp_to_event", "?ts=0&dir=f");
        answers.extend(by_room(choir, mallory, "timestamp_to_event", &format!("?ts={}&dir=f", choir.before)));
        answers
    }),
    ("/_matrix/federation/v1/hierarchy/{}", |choir, mallory| by_room(choir, mallory, "hierarchy", "")),
    ("/_matrix/federation/v1/publicRooms", |choir, mallory| {
        let mut answers = open(choir, mallory, "v1/publicRooms?limit=100");
        for body in [json!({ "limit": 100 }), json!({ "filter": { "generic_search_term": "canary" } })] {
            answers.push(mallory.post(&choir.high.server, "v1/publicRooms", &body));
        }
        answers
    }),
    ("/_matrix/federation/v1/query/directory", |choir, mallory| {
        let path = |alias: &String| format!("v1/query/directory?room_alias={}", enc(alias));
        all(choir, mallory, [&choir.alias, &choir.closed_alias].map(path))
    }),
    ("/_matrix/federation/v1/query/profile", |choir, mallory| {
        let path = |user: &postern_world::Client| format!("v1/query/profile?user_id={}", user.id_in_path());
        all(choir, mallory, [&choir.officer, &choir.clerk].map(path))
    }),
    ("/_matrix/federation/v1/make_join/{}/{}", |choir, mallory| membership(choir, mallory, "join", "v2")),
    ("/_matrix/federation/v1/make_knock/{}/{}", |choir, mallory| membership(choir, mallory, "knock", "v1")),
    ("/_matrix/federation/v1/make_leave/{}/{}", |choir, mallory| {
        let paths =
            choir.rooms().map(|room| format!("v1/make_leave/{}/{}", enc(room), enc(&mallory.user("eve"))));
        all(choir, mallory, paths)
    }),
    ("/_matrix/federation/v1/send_join/{}/{}", |choir, mallory| membership(choir, mallory, "join", "v1")),
    ("/_matrix/federation/v2/send_join/{}/{}", |choir, mallory| membership(choir, mallory, "join", "v2")),
    ("/_matrix/federation/v1/send_knock/{}/{}", |choir, mallory| membership(choir, mallory, "knock", "v1")),
    ("/_matrix/federation/v1/invite/{}/{}", |choir, mallory| invite(choir, mallory, "v1")),
    ("/_matrix/federation/v2/invite/{}/{}", |choir, mallory| invite(choir, mallory, "v2")),
    ("/_matrix/federation/v1/user/devices/{}", |choir, mallory| {
        all(choir, mallory, [format!("v1/user/devices/{}", choir.officer.id_in_path())])
    }),
    ("/_matrix/federation/v1/user/keys/query", |choir, mallory| {
        let body = json!({ "device_keys": { choir.officer.id(): [] } });
        vec![mallory.post(&choir.high.server, "v1/user/keys/query", &body)]
    }),
    ("/_matrix/federation/v1/user/keys/claim", |choir, mallory| {
        let body = json!({ "one_time_keys": { choir.officer.id(): { choir.officer.device(): "signed_curve25519" } } });
        vec![mallory.post(&choir.high.server, "v1/user/keys/claim", &body)]
    }),
    ("/_matrix/federation/v1/media/download/{}", |choir, mallory| file(choir, mallory, "download", "")),
    ("/_matrix/federation/v1/media/thumbnail/{}", |choir, mallory| {
        file(choir, mallory, "thumbnail", "?width=32&height=32")
    }),
    ("/_matrix/federation/v1/send/{}", |choir, mallory| {
        let eve = mallory.user("eve");
        let typing = json!({ "edu_type": "m.typing", "content": { "room_id": choir.mixed, "user_id": eve, "typing": true } });
        vec![mallory.transact(&choir.high.server, &[], &[typing])]
    }),
    ("/_matrix/federation/v1/openid/userinfo", |choir, mallory| {
        open(choir, mallory, "v1/openid/userinfo?access_token=none")
    }),
    ("/_matrix/federation/v1/version", |choir, mallory| open(choir, mallory, "v1/version")),
    ("/_matrix/federation/v1/exchange_third_party_invite/{}", |choir, mallory| {
        let ask = |room: &String| {
            let body = json!({
                "type": "m.room.member", "room_id": room, "sender": mallory.user("eve"), "state_key": mallory.user("tom"),
                "content": { "membership": "invite", "third_party_invite": { "display_name": "t", "signed": {
                    "mxid": mallory.user("tom"), "token": "t", "signatures": {},
                } } },
            });
            mallory.put(&choir.high.server, &format!("v1/exchange_third_party_invite/{}", enc(room)), &body)
        };
        choir.rooms().into_iter().map(ask).collect()
    }),
    ("/_matrix/federation/v1/3pid/onbind", |choir, mallory| {
        let body = json!({ "address": "a@b", "medium": "email", "mxid": choir.officer.id(), "invites": [] });
        vec![mallory.put(&choir.high.server, "v1/3pid/onbind", &body)]
    }),
    ("/_matrix/key/v2/server", |choir, mallory| open(choir, mallory, "/_matrix/key/v2/server")),
    ("/_matrix/key/v2/server/", |choir, mallory| open(choir, mallory, "/_matrix/key/v2/server/")),
    ("/_matrix/key/v2/server/{}", |choir, mallory| open(choir, mallory, "/_matrix/key/v2/server/ed25519:1")),
    ("/_matrix/key/v2/query", |choir, mallory| {
        let body = json!({ "server_keys": { choir.high.server.name(): {} } });
        vec![mallory.post(&choir.high.server, "/_matrix/key/v2/query", &body)]
    }),
    ("/_matrix/key/v2/query/{}", |choir, mallory| {
        open(choir, mallory, &format!("/_matrix/key/v2/query/{}", choir.high.server.name()))
    }),
    ("/.well-known/matrix/server", |choir, mallory| open(choir, mallory, "/.well-known/matrix/server")),
    ("/.well-known/matrix/policy_server", |choir, mallory| {
        open(choir, mallory, "/.well-known/matrix/policy_server")
    }),
    ("/_matrix/policy/v1/sign", |choir, mallory| {
        let ask = |place: &crate::choir::Place| {
            let eve = mallory.user("eve");
            let event = json!({
                "room_id": place.room, "type": "m.room.message", "sender": eve, "depth": 5,
                "origin_server_ts": choir.before, "content": { "msgtype": "m.text", "body": "hm" },
                "prev_events": [place.event], "auth_events": [],
            });
            let event: Pdu = seal("12", mallory.name(), &mallory.parts.pair, event);
            mallory.post(&choir.high.server, "/_matrix/policy/v1/sign", &event.json)
        };
        choir.places.iter().map(ask).collect()
    }),
    // Leaving is last.
    ("/_matrix/federation/v1/send_leave/{}/{}", |choir, mallory| membership(choir, mallory, "leave", "v1")),
    ("/_matrix/federation/v2/send_leave/{}/{}", |choir, mallory| membership(choir, mallory, "leave", "v2")),
];

#[test]
fn no_server_is_told_what_is_above_its_clearance() {
    let choir = Choir::new();
    let mut matrix = Matrix::default();
    let servers = [
        ("cleared", &choir.cleared),
        ("uncleared", &choir.member),
        ("ex-member", &choir.left),
        ("unknown", &choir.unknown),
    ];
    for (endpoint, case) in CASES {
        for (who, mallory) in servers {
            for answer in case(&choir, mallory) {
                // What was asked with is in the path that the answer remembers, and is not looked at.
                let asked = if endpoint.contains("directory") { crate::choir::ALIAS } else { "" };
                matrix.note(endpoint, who, who == "cleared", asked, &answer);
            }
        }
    }
    matrix.check();
    for endpoint in [
        "/_matrix/federation/v1/event/{}",
        "/_matrix/federation/v1/state/{}",
        "/_matrix/federation/v1/backfill/{}",
        "/_matrix/federation/v1/get_missing_events/{}",
        "/_matrix/federation/v1/publicRooms",
        "/_matrix/federation/v2/send_join/{}/{}",
        "/_matrix/federation/v1/media/download/{}",
    ] {
        assert!(matrix.was_heard(endpoint, "cleared"), "{endpoint}: the word is where it is looked for");
    }
    for (who, mallory) in
        [("uncleared", &choir.member), ("ex-member", &choir.left), ("unknown", &choir.unknown)]
    {
        let heard = mallory.heard();
        assert!(!heard.to_lowercase().contains("canary"), "{who}: {heard}");
    }
    assert!(choir.cleared.heard().contains(CANARY));
    assert!(choir.unknown.seen("send").is_empty());
    let log = choir.high.server.log();
    assert!(!log.contains(CANARY) && !log.contains("panicked"), "{log}");
}

/// The paths of routes in the source below a directory, with `{}` for what is variable.
fn routes_in(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            routes_in(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]").next().unwrap_or_default();
            let quoted = |rest: &str| rest.split('"').nth(1).unwrap_or_default().to_owned();
            // `let base = "…"`, `let (v1, v2) = ("…", "…")`, `const NAME: &str = "…"`.
            let mut names: Vec<(String, String)> = Vec::new();
            for line in text.lines().map(str::trim) {
                if let Some(("let base", rest)) = line.split_once(" = ") {
                    names.push(("{base}".to_owned(), quoted(rest)));
                } else if line.starts_with("let (v1, v2) = (") {
                    names.push(("{v1}".to_owned(), quoted(line)));
                    names.push(("{v2}".to_owned(), line.split('"').nth(3).unwrap_or_default().to_owned()));
                } else if line.contains("const ") && line.contains(": &str = \"") {
                    let name = line.split("const ").nth(1).and_then(|rest| rest.split(':').next());
                    names.push((name.unwrap_or_default().to_owned(), quoted(line)));
                }
            }
            for rest in text.split(".route(").skip(1) {
                let argument = rest.trim_start().trim_start_matches("&format!(").trim_start();
                let path = if argument.starts_with('"') {
                    names.iter().fold(quoted(argument), |path, (name, value)| path.replace(name, value))
                } else {
                    let name = argument.split(',').next().unwrap_or_default();
                    names
                        .iter()
                        .find(|(known, _)| known == name)
                        .map(|(_, path)| path.clone())
                        .unwrap_or_default()
                };
                let variable =
                    |part: &str| if part.starts_with('{') { "{}".to_owned() } else { part.to_owned() };
                if path.starts_with("/_matrix/") || path.starts_with("/.well-known/") {
                    found.insert(path.split('/').map(variable).collect::<Vec<_>>().join("/"));
                }
            }
        }
    }
}

#[test]
fn every_endpoint_for_servers_has_a_case() {
    let mut there = BTreeSet::new();
    routes_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("federation/src"), &mut there);
    let cases: BTreeSet<String> = CASES.iter().map(|(endpoint, _)| (*endpoint).to_owned()).collect();
    assert!(there.len() > 30, "{there:?}");
    let missing: Vec<&String> = there.difference(&cases).collect();
    assert!(missing.is_empty(), "endpoints without a case: {missing:?}");
    let gone: Vec<&String> = cases.difference(&there).collect();
    assert!(gone.is_empty(), "cases of endpoints that are not there: {gone:?}");
}
