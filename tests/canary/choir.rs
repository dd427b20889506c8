//! The enclave and its rooms, full of the word, and those who ask.

use crate::{
    enclaves::{Enclave, Peer, label},
    peer::Mallory,
};
use postern_world::{Client, Seat, enc};
use serde_json::{Value, json};

/// The word, in lower case.
pub const CANARY: &str = "canary-5be2d1";
/// The word that is in addresses of rooms.
pub const ALIAS: &str = "canary-alias-77c0";

/// An event above what is internal, or beside one, and its room.
pub struct Place {
    pub room: String,
    pub event: String,
}

/// All of it.
pub struct Choir {
    pub high: Enclave,
    /// Cleared for all; the rooms are hers.
    pub officer: Client,
    /// A member who is cleared for what is internal, and one who was.
    pub clerk: Client,
    pub former: Client,
    /// Cleared for what is internal, and in no room.
    pub stranger: Client,
    /// The same of servers.
    pub cleared: Mallory,
    pub member: Mallory,
    pub left: Mallory,
    pub unknown: Mallory,
    /// Up to what is confidential, with members cleared for what is internal.
    pub mixed: String,
    /// For those who are cleared for it only.
    pub closed: String,
    pub space: String,
    /// Mixed, and may be knocked at.
    pub knocking: String,
    /// Mixed; those who may hear less are invited.
    pub inviting: String,
    pub alias: String,
    pub closed_alias: String,
    pub file: String,
    pub places: Vec<Place>,
    pub before: u64,
}

fn low(more: Value) -> Value {
    let mut content =
        json!({ "msgtype": "m.text", "body": "nothing", "io.postern.label": label("INTERNAL") });
    content.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    content
}

fn mixed(officer: &Client, more: Value) -> String {
    let mut request = json!({
        "preset": "private_chat",
        "name": CANARY,
        "topic": CANARY,
        "creation_content": { "io.postern.label": label("CONFIDENTIAL"), "io.postern.floor": label("INTERNAL") },
    });
    for (key, value) in more.as_object().unwrap() {
        match (&mut request[key], value) {
            (Value::Object(before), Value::Object(value)) => before.extend(value.clone()),
            (before, value) => *before = value.clone(),
        }
    }
    officer.create_room(request)
}

impl Choir {
    pub fn new() -> Self {
        let seats = [Seat::take(), Seat::take(), Seat::take(), Seat::take()];
        let [here, cleared, member, left] = &seats;
        let peers = [
            Peer(cleared, "Company CONFIDENTIAL", ""),
            Peer(member, "Company INTERNAL", ""),
            Peer(left, "Company INTERNAL", ""),
        ];
        let users = "[[user]]\nid = \"@officer*\"\nclearance = \"Company CONFIDENTIAL\"\n";
        let high = Enclave::start(here, "Company INTERNAL", &peers, users);
        let [cleared, member, left] = [cleared, member, left].map(Mallory::at);
        let [officer, clerk, former, stranger] =
            ["officer", "clerk", "former", "stranger"].map(|name| high.register(name));
        let before = crate::room::now_ms();
        let word = |text: &str| format!("{text} {CANARY} sings");
        let server = officer.server_name().to_owned();

        let guests: Vec<String> =
            [&cleared, &member, &left].iter().map(|server| server.user("eve")).collect();
        let room =
            mixed(&officer, json!({ "invite": [clerk.id(), former.id(), guests[0], guests[1], guests[2]] }));
        for user in [&clerk, &former] {
            user.join(&room);
        }
        for (server, user) in [&cleared, &member, &left].iter().zip(&guests) {
            server.join(&high.server, &room, user);
        }
        let file = officer.upload("text/plain", Some(CANARY), CANARY.as_bytes());
        let alias = format!("#{ALIAS}-1:{server}");
        officer.put(&format!("v3/directory/room/{}", enc(&alias)), json!({ "room_id": room })).done();
        let mut events = Vec::new();
        for (kind, content) in [
            ("m.room.avatar", json!({ "url": file, "info": { "note": CANARY } })),
            ("m.room.canonical_alias", json!({ "alias": alias })),
            ("m.room.pinned_events", json!({ "pinned": [CANARY] })),
            ("org.example.state", json!({ "note": CANARY })),
        ] {
            events.push(officer.set_state(&room, kind, "", content));
        }
        let parent = officer.send(&room, "m.room.message", low(json!({})));
        let relates = |kind: &str| json!({ "rel_type": kind, "event_id": parent });
        let contents = [
            ("m.room.message", json!({ "msgtype": "m.text", "body": word("plainly") })),
            (
                "m.room.message",
                json!({ "msgtype": "m.text", "body": word(clerk.id()), "m.mentions": { "user_ids": [clerk.id()] } }),
            ),
            ("m.room.message", json!({ "msgtype": "m.file", "body": CANARY, "url": file })),
            (
                "m.room.message",
                json!({
                    "msgtype": "m.text", "body": word("*"), "m.relates_to": relates("m.replace"),
                    "m.new_content": { "msgtype": "m.text", "body": word("edited") },
                }),
            ),
            (
                "m.room.message",
                json!({ "msgtype": "m.text", "body": word("in the thread"), "m.relates_to": relates("m.thread") }),
            ),
            (
                "m.room.message",
                json!({ "msgtype": "m.text", "body": word("reply"), "m.relates_to": { "m.in_reply_to": { "event_id": parent } } }),
            ),
            ("org.example.refers", json!({ "note": CANARY, "m.relates_to": relates("m.reference") })),
            (
                "m.reaction",
                json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": parent, "key": CANARY } }),
            ),
            ("m.poll.start", json!({ "m.text": [{ "body": CANARY }] })),
        ];
        events.push(parent.clone());
        events.extend(contents.map(|(kind, content)| officer.send(&room, kind, content)));
        // What was redacted says why, and not what it was.
        let gone = officer.send_text(&room, &word("redacted"));
        officer.try_redact(&room, &gone, CANARY).done();
        events.push(gone);
        former.leave(&room);

        let in_closed = json!({
            "preset": "public_chat", "name": CANARY, "topic": CANARY, "visibility": "public",
            "creation_content": { "io.postern.label": label("CONFIDENTIAL") },
        });
        let closed = officer.create_room(in_closed);
        let closed_alias = format!("#{ALIAS}-2:{server}");
        officer
            .put(&format!("v3/directory/room/{}", enc(&closed_alias)), json!({ "room_id": closed }))
            .done();
        let closed_word = officer.send_text(&closed, &word("closed"));

        let space = mixed(
            &officer,
            json!({
                "creation_content": { "type": "m.space" }, "visibility": "public", "invite": [clerk.id(), guests[1]],
            }),
        );
        clerk.join(&space);
        member.join(&high.server, &space, &guests[1]);
        let child = |more: Value| {
            let mut content = json!({ "via": [server], "order": CANARY });
            content.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
            content
        };
        officer.set_state(&space, "m.space.child", &room, child(json!({})));
        let open = json!({ "via": [server], "io.postern.label": label("INTERNAL") });
        officer.set_state(&space, "m.space.child", &closed, open);

        let knocking = mixed(
            &officer,
            json!({ "visibility": "public", "initial_state": [
            { "type": "m.room.join_rules", "state_key": "", "content": { "join_rule": "knock" } },
        ] }),
        );
        let inviting =
            mixed(&officer, json!({ "invite": [stranger.id(), member.user("mel"), left.user("mel")] }));

        let own = |path: &str| format!("v3/user/{}/{path}", officer.id_in_path());
        officer.put(&own("account_data/org.example.note"), json!({ "note": CANARY })).done();
        let of_room = own(&format!("rooms/{}/account_data/org.example.note", enc(&room)));
        officer.put(&of_room, json!({ "note": CANARY })).done();
        let tag = own(&format!("rooms/{}/tags/u.{CANARY}", enc(&room)));
        officer.put(&tag, json!({})).done();

        // The last word that all servers of the room get: what was sent before has come, too.
        let last = officer.send(&room, "m.room.message", low(json!({})));
        for server in [&cleared, &member, &left] {
            server.until(&room, "the last word comes", |room| room.has(&last));
        }
        // One server's only member leaves.
        leave(&left, &high, &room, &guests[2]);
        let mut places: Vec<Place> =
            events.into_iter().map(|event| Place { room: room.clone(), event }).collect();
        places.push(Place { room: closed.clone(), event: closed_word });
        // Of another room than it is said to be of.
        places.push(Place { room: space.clone(), event: places[0].event.clone() });
        Self {
            high,
            officer,
            clerk,
            former,
            stranger,
            cleared,
            member,
            left,
            unknown: Mallory::new(),
            mixed: room,
            closed,
            space,
            knocking,
            inviting,
            alias,
            closed_alias,
            file,
            places,
            before,
        }
    }

    /// The rooms.
    pub fn rooms(&self) -> [&String; 5] {
        [&self.mixed, &self.closed, &self.space, &self.knocking, &self.inviting]
    }

    /// The part of the file's address after the server.
    pub fn file_id(&self) -> &str {
        self.file.rsplit('/').next().unwrap()
    }
}

fn leave(mallory: &Mallory, high: &Enclave, room: &str, user: &str) {
    let path = format!("v1/make_leave/{}/{}", enc(room), enc(user));
    let proposed = mallory.get(&high.server, &path).ok();
    let version = proposed["room_version"].as_str().unwrap();
    let leave = crate::room::seal(version, mallory.name(), &mallory.parts.pair, proposed["event"].clone());
    let path = format!("v2/send_leave/{}/{}", enc(room), enc(&leave.id));
    mallory.put(&high.server, &path, &leave.json).done();
}
