//! What clients ask.

use crate::{
    choir::{CANARY, Choir, Place},
    endpoint::{Body, Endpoint},
    matrix::Matrix,
    table,
};
use postern_world::{Client, Method, enc};
use serde_json::{Value, json};

/// What ends the asker's stay or token is asked last.
const LAST: [&str; 8] =
    ["logout", "leave", "forget", "deactivate", "password", "delete_devices", "upgrade", "kick"];

/// What is asked of one endpoint: path and body, filled in.
struct Question {
    path: String,
    body: Option<Vec<u8>>,
}

fn fill(choir: &Choir, asker: &Client, text: &str, place: &Place, alias: &str) -> String {
    let places = [
        ("{me}", asker.id()),
        ("{user}", choir.officer.id()),
        ("{room}", &place.room),
        ("{event}", &place.event),
        ("{alias}", alias),
        ("{media}", choir.file_id()),
        ("{pending}", choir.file_id()),
        ("{device}", choir.officer.device()),
        ("{txn}", "txn"),
        ("{rule}", "mine"),
        ("{version}", "1"),
        ("{filter}", "0"),
    ];
    let filled = places.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, &enc(value)));
    filled.replace("here.test", &enc(asker.server_name()))
}

fn questions(choir: &Choir, asker: &Client, endpoint: &Endpoint) -> Vec<Question> {
    let path = endpoint.full_path();
    let room = |room: &str| Place { room: room.to_owned(), event: choir.places[0].event.clone() };
    let places: Vec<Place> = if path.contains("{event}") {
        choir
            .places
            .iter()
            .map(|place| Place { room: place.room.clone(), event: place.event.clone() })
            .collect()
    } else if path.contains("{room") {
        choir.rooms().into_iter().map(|id| room(id)).collect()
    } else {
        vec![room(&choir.mixed)]
    };
    let aliases =
        if path.contains("alias}") { vec![&choir.alias, &choir.closed_alias] } else { vec![&choir.alias] };
    let mut asked = Vec::new();
    for place in &places {
        let mut forms: Vec<(String, &String)> =
            aliases.iter().map(|alias| (path.replace("{room_or_alias}", &enc(alias)), *alias)).collect();
        if path.contains("{room_or_alias}") {
            forms.push((path.replace("{room_or_alias}", "{room}"), aliases[0]));
        }
        for (form, alias) in forms {
            let mut path = fill(choir, asker, &form, place, alias);
            if !endpoint.query.is_empty() {
                path = format!("{path}?{}", endpoint.query.replace("{version}", "1"));
            }
            let body = match &endpoint.body {
                Body::None => None,
                Body::File => Some(b"a file".to_vec()),
                Body::Fields(_) | Body::Free(_) => {
                    let body = endpoint.right_body().replace("!room:here.test", &place.room);
                    let body = body.replace("$event", &place.event);
                    Some(body.replace("@third:here.test", choir.officer.id()).into_bytes())
                }
            };
            asked.push(Question { path, body });
        }
    }
    asked
}

/// Further questions to endpoints: they are asked in the ways that tell most.
fn in_full(choir: &Choir) -> Vec<(&'static str, Method, String, Value)> {
    let mut asked = Vec::new();
    let search = |more: Value| {
        let mut events = json!({ "search_term": "sings" });
        events.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        json!({ "search_categories": { "room_events": events } })
    };
    let context = json!({
        "include_state": true, "order_by": "recent",
        "event_context": { "before_limit": 50, "after_limit": 50, "include_profile": true },
    });
    let nothing = search(
        json!({ "search_term": "nothing", "include_state": true, "event_context": context["event_context"] }),
    );
    for body in [search(json!({})), search(context), nothing] {
        asked.push(("POST v3/search", Method::POST, "v3/search".to_owned(), body));
    }
    let all_state = json!({ "room": { "timeline": { "limit": 100 }, "include_leave": true } });
    let lazy = json!({ "room": { "state": { "lazy_load_members": true }, "timeline": { "limit": 1 } } });
    for filter in [all_state, lazy] {
        for more in ["&full_state=true", "&use_state_after=true", ""] {
            let path = format!("v3/sync?filter={}{more}", enc(&filter.to_string()));
            asked.push(("GET v3/sync", Method::GET, path, Value::Null));
        }
    }
    asked.push(("POST v3/publicRooms", Method::POST, "v3/publicRooms".to_owned(), json!({ "limit": 100 })));
    let wanted = json!({ "required_state": [["*", "*"]], "timeline_limit": 100, "include_heroes": true });
    let mut subscriptions = json!({});
    for room in choir.rooms() {
        subscriptions[room] = wanted.clone();
    }
    let mut list = wanted.clone();
    list["ranges"] = json!([[0, 50]]);
    let extensions = ["account_data", "receipts", "typing", "to_device", "e2ee"]
        .map(|name| (name, json!({ "enabled": true })));
    let extensions: serde_json::Map<String, Value> =
        extensions.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let sliding = "unstable/org.matrix.simplified_msc3575/sync";
    let body = json!({ "conn_id": "all", "lists": { "all": list }, "room_subscriptions": subscriptions, "extensions": extensions });
    asked.push(("POST unstable/org.matrix.simplified_msc3575/sync", Method::POST, sliding.to_owned(), body));
    for room in choir.rooms() {
        let room = enc(room);
        for query in [
            "dir=b&limit=100",
            "dir=f&limit=100",
            "dir=b&limit=1000&filter=%7B%22lazy_load_members%22%3Atrue%7D",
        ] {
            asked.push((
                "GET v3/rooms/{room}/messages",
                Method::GET,
                format!("v3/rooms/{room}/messages?{query}"),
                Value::Null,
            ));
        }
        asked.push((
            "GET v1/rooms/{room}/hierarchy",
            Method::GET,
            format!("v1/rooms/{room}/hierarchy?limit=100"),
            Value::Null,
        ));
        for (kind, key) in [
            ("m.room.name", ""),
            ("m.room.topic", ""),
            ("m.room.avatar", ""),
            ("m.room.canonical_alias", ""),
            ("org.example.state", ""),
            ("io.postern.banner", ""),
        ] {
            let path = format!("v3/rooms/{room}/state/{kind}/{key}");
            asked.push(("GET v3/rooms/{room}/state/m.room.create/", Method::GET, path, Value::Null));
        }
    }
    for place in &choir.places {
        let (room, event) = (enc(&place.room), enc(&place.event));
        let path = format!("v1/rooms/{room}/relations/{event}?recurse=true&limit=100&dir=f");
        asked.push(("GET v1/rooms/{room}/relations/{event}", Method::GET, path, Value::Null));
        let path = format!("v3/rooms/{room}/context/{event}?limit=100");
        asked.push(("GET v3/rooms/{room}/context/{event}", Method::GET, path, Value::Null));
    }
    asked
}

fn name(endpoint: &Endpoint) -> String {
    format!("{} {}", endpoint.method, endpoint.path)
}

fn ask(asker: &Client, method: &Method, path: &str, body: Option<Vec<u8>>) -> postern_world::Answer {
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/_matrix/client/{path}") };
    let bearer = format!("Bearer {}", asker.token());
    let mut headers = vec![("content-type", "application/json")];
    if !asker.token().is_empty() {
        headers.push(("authorization", bearer.as_str()));
    }
    asker.link().send(method, &path, &headers, body.unwrap_or_default()).unwrap()
}

#[test]
fn no_client_is_told_what_is_above_its_clearance() {
    let choir = Choir::new();
    let mut matrix = Matrix::default();
    let anyone = choir.high.server.anyone();
    let askers = [
        ("cleared", &choir.officer),
        ("uncleared", &choir.clerk),
        ("ex-member", &choir.former),
        ("stranger", &choir.stranger),
        ("anyone", &anyone),
    ];
    for (who, asker) in askers {
        let may_hear = who == "cleared";
        for (endpoint, method, path, body) in in_full(&choir) {
            let body = (!body.is_null()).then(|| body.to_string().into_bytes());
            let answer = ask(asker, &method, &path, body);
            matrix.note(endpoint, who, may_hear, &path, &answer);
        }
        let is_last = |endpoint: &Endpoint| LAST.iter().any(|part| endpoint.path.contains(part));
        let (last, first): (Vec<_>, Vec<_>) = table::endpoints().into_iter().partition(is_last);
        // The rooms' owner asks nothing that changes them; the others may not.
        let reads = |endpoint: &Endpoint| {
            endpoint.method == Method::GET
                || ["search", "query", "publicRooms"].iter().any(|part| endpoint.path.contains(part))
        };
        for endpoint in first.into_iter().chain(last) {
            if may_hear && !reads(&endpoint) {
                continue;
            }
            for question in questions(&choir, asker, &endpoint) {
                let answer = ask(asker, &endpoint.method, &question.path, question.body.clone());
                let mut asked = question.path.clone();
                asked.push_str(&String::from_utf8_lossy(&question.body.unwrap_or_default()));
                matrix.note(&name(&endpoint), who, may_hear, &asked.replace("%2D", "-"), &answer);
            }
        }
    }
    matrix.check();
    for endpoint in [
        "GET v3/sync",
        "POST unstable/org.matrix.simplified_msc3575/sync",
        "POST v3/search",
        "GET v3/rooms/{room}/messages",
        "GET v3/rooms/{room}/context/{event}",
        "GET v3/rooms/{room}/event/{event}",
        "GET v3/rooms/{room}/state",
        "GET v3/rooms/{room}/aliases",
        "GET v1/rooms/{room}/relations/{event}",
        "GET v1/rooms/{room}/threads",
        "GET v1/rooms/{room}/hierarchy",
        "GET v3/publicRooms",
        "POST v3/publicRooms",
        "GET v1/room_summary/{room_or_alias}",
        "GET v1/media/download/here.test/{media}",
        "GET v3/user/{me}/rooms/{room}/tags",
    ] {
        assert!(matrix.was_heard(endpoint, "cleared"), "{endpoint}: the word is where it is looked for");
    }
    let log = choir.high.server.log();
    assert!(!log.contains(CANARY) && !log.contains("panicked"), "{log}");
}

#[test]
fn what_somebody_may_not_read_is_not_counted_as_unread() {
    let choir = Choir::new();
    let counts =
        |client: &Client| client.sync(None)["rooms"]["join"][&choir.mixed]["unread_notifications"].clone();
    // Two messages are for all, and the word beside the clerk's name is not.
    assert_eq!(counts(&choir.clerk), json!({ "highlight_count": 0, "notification_count": 2 }));
    let search = json!({ "search_categories": { "room_events": { "search_term": "sings" } } });
    let found = choir.clerk.post("v3/search", search).ok();
    assert_eq!(found["search_categories"]["room_events"]["count"], 0);
}

/// Status, headers but the date, body.
fn parts(answer: &postern_world::Answer) -> (u16, Vec<(String, String)>, String) {
    let mut headers: Vec<(String, String)> = answer
        .headers()
        .iter()
        .filter(|(name, _)| *name != "date")
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    headers.sort();
    (answer.status(), headers, String::from_utf8_lossy(answer.bytes()).into_owned())
}

#[test]
fn a_room_above_somebodys_clearance_looks_like_one_that_is_not_there() {
    let choir = Choir::new();
    let anyone = choir.high.server.anyone();
    let event = &choir.places.iter().find(|place| place.room == choir.closed).unwrap().event;
    let closed = Place { room: choir.closed.clone(), event: event.clone() };
    let nothing = format!("${}", "A".repeat(43));
    // Of the same form as what is there.
    let nowhere = Place { room: format!("!{}", "A".repeat(43)), event: nothing };
    let no_alias = choir.closed_alias.replace("alias", "slias");
    let of_rooms = |endpoint: &Endpoint| {
        ["{room}", "{room_or_alias}", "{event}", "{alias}"].iter().any(|part| endpoint.path.contains(part))
            // What one has set for oneself is nobody's secret.
            && !endpoint.path.starts_with("v3/user/")
            && !(endpoint.method == Method::PUT && endpoint.path.contains("alias"))
    };
    let mut told = Vec::new();
    for endpoint in table::endpoints().into_iter().filter(of_rooms) {
        for (who, asker) in [("stranger", &choir.stranger), ("anyone", &anyone)] {
            for place in ["{room}", "{alias}"] {
                let path = endpoint.full_path().replace("{room_or_alias}", place);
                let answers =
                    [(&closed, &choir.closed_alias), (&nowhere, &no_alias)].map(|(place, alias)| {
                        let mut filled = fill(&choir, asker, &path, place, alias);
                        if !endpoint.query.is_empty() {
                            filled = format!("{filled}?{}", endpoint.query);
                        }
                        let body = endpoint.right_body().replace("!room:here.test", &place.room);
                        let answer = ask(asker, &endpoint.method, &filled, Some(body.into_bytes()));
                        let (status, headers, body) = parts(&answer);
                        // An answer may say again what was asked for.
                        let body = body
                            .replace(&place.room, "!room")
                            .replace(alias, "#alias")
                            .replace(&place.event, "$event");
                        let headers: Vec<_> =
                            headers.into_iter().filter(|(name, _)| name != "content-length").collect();
                        (status, headers, body)
                    });
                if answers[0] != answers[1] {
                    told.push(format!("{who}: {} {place}: {:?}", name(&endpoint), answers));
                }
            }
        }
    }
    assert!(told.is_empty(), "{}", told.join("\n"));
}
