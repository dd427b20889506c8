//! What requests are about: users, a room, and one of everything that a path can name.

use postern_world::{Client, Method, Server, enc};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A PNG of one pixel.
const PNG: &[u8] =
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0\x1f\x15\xc4\x89\0\0\0\rIDATx\x9cc\xf8\
\xcf\xc0\xf0\x1f\0\x05\0\x01\xff\x89\x99=\x1d\0\0\0\0IEND\xaeB`\x82";

/// Alice, who asks, and what there is for her to ask about.
pub struct Scene {
    pub alice: Client,
    pub bob: Client,
    /// What stands in the places of paths, by name.
    places: BTreeMap<&'static str, String>,
}

impl Scene {
    pub fn on(server: &Server) -> Self {
        let alice = server.register("alice");
        let bob = server.register("bob");
        let room = alice.create_public_room();
        bob.join(&room);
        let event = bob.send_text(&room, "hello");
        let alias = format!("#{}:{}", alice.transaction(), alice.server_name());
        alice.put(&format!("v3/directory/room/{}", enc(&alias)), json!({ "room_id": room })).done();
        let other = alice.log_in_again();
        let me = alice.id_in_path();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let filter = text(&alice.post(&format!("v3/user/{me}/filter"), json!({})).ok()["filter_id"]);
        for part in ["", &format!("rooms/{}/", enc(&room))] {
            alice.put(&format!("v3/user/{me}/{part}account_data/test.kept"), json!({ "kept": true })).done();
        }
        alice.put(&format!("v3/user/{me}/rooms/{}/tags/u.tag", enc(&room)), json!({})).done();
        alice.put(&format!("v3/profile/{me}/displayname"), json!({ "displayname": "Alice" })).done();
        alice
            .put("v3/pushrules/global/override/mine", json!({ "actions": ["notify"], "conditions": [] }))
            .done();
        alice.put(&Client::room_path(&room, "state/test.state"), json!({ "kept": true })).done();
        let backup = json!({ "algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": { "public_key": "x" } });
        let version = text(&alice.loose().post("v3/room_keys/version", backup).ok()["version"]);
        let key = json!({
            "first_message_index": 1, "forwarded_count": 0, "is_verified": false,
            "session_data": { "ciphertext": "c", "ephemeral": "e", "mac": "m" },
        });
        alice.put(&format!("v3/room_keys/keys/!r:h/s?version={version}"), key).done();
        let media = alice.upload("image/png", None, PNG);
        let pending =
            text(&alice.request(Method::POST, "/_matrix/media/v1/create", None).ok()["content_uri"]);
        let id = |uri: &str| uri.rsplit('/').next().unwrap().to_owned();
        let places = BTreeMap::from([
            ("me", alice.id().to_owned()),
            ("user", bob.id().to_owned()),
            ("room", room.clone()),
            ("room_or_alias", room),
            ("event", event),
            ("alias", alias),
            ("device", other.device().to_owned()),
            ("filter", filter),
            ("rule", "mine".to_owned()),
            ("version", version),
            ("media", id(&media)),
            ("pending", id(&pending)),
            ("txn", "txn".to_owned()),
        ]);
        Self { alice, bob, places }
    }

    /// `text` with its places filled in, percent-encoded.
    pub fn fill(&self, text: &str) -> String {
        self.places
            .iter()
            .fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), &enc(value)))
    }

    /// `text` with `value`, as it is, in the place `name`, and the others as they should be.
    pub fn fill_wrong(&self, text: &str, name: &str, value: &str) -> String {
        self.fill(&text.replace(&format!("{{{name}}}"), value))
    }

    /// A body that speaks of this scene's room and event.
    pub fn body(&self, body: &str) -> String {
        body.replace("$event", &self.places["event"]).replace("!room:here.test", &self.places["room"])
    }

    /// All that the users are told of themselves and their room. What changes by itself is left out.
    pub fn digest(&self) -> Vec<Value> {
        let room = enc(&self.places["room"]);
        let mut paths: Vec<String> = [
            "v3/sync?filter=%7B%22room%22:%7B%22timeline%22:%7B%22limit%22:100%7D%7D%7D",
            "v3/devices",
            "v3/pushers",
            "v3/joined_rooms",
            "v3/room_keys/version",
            "v3/room_keys/keys?version={version}",
            "v3/directory/room/{alias}",
            "v3/publicRooms",
            "v3/profile/{me}",
            "v3/profile/{user}",
            "v3/directory/list/room/{room}",
            "v3/rooms/{room}/state",
            "v3/rooms/{room}/aliases",
            "unstable/org.matrix.msc3814.v1/dehydrated_device",
        ]
        .map(|path| format!("/_matrix/client/{}", self.fill(path)))
        .to_vec();
        paths.push(format!("/_matrix/client/v3/rooms/{room}/messages?dir=b&limit=100"));
        let mut told = Vec::new();
        for client in [&self.alice, &self.bob] {
            for path in &paths {
                let bearer = format!("Bearer {}", client.token());
                let answer =
                    client.link().send(&Method::GET, path, &[("authorization", &bearer)], "").unwrap();
                let mut body = answer.body().clone();
                forget_time(&mut body);
                told.push(json!({ "path": path, "status": answer.status(), "body": body }));
            }
        }
        told
    }
}

/// Takes away what is another each time it is asked for.
fn forget_time(value: &mut Value) {
    match value {
        Value::Object(object) => {
            for name in ["next_batch", "prev_batch", "age", "last_seen_ts", "presence", "start", "end"] {
                object.remove(name);
            }
            object.values_mut().for_each(forget_time);
        }
        Value::Array(array) => array.iter_mut().for_each(forget_time),
        _ => {}
    }
}
