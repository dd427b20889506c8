//! What is signed because another server asks for it: invites of users of this server.

use crate::{
    Mallory,
    room::{Pdu, Room, seal},
    shared, until,
};
use postern_world::{Answer, Client, Method, PASSWORD, Server, enc};
use serde_json::{Value, json};

/// A room of the hostile server, a user there and one here.
struct Scene {
    here: &'static Server,
    mallory: Mallory,
    alice: Client,
    eve: String,
    room: Room,
}

impl Scene {
    fn new() -> Self {
        let (here, mallory) = (shared(), Mallory::new());
        let (eve, alice) = (mallory.user("eve"), here.register("alice"));
        let id = mallory.create_room(&eve, "10");
        let room = mallory.room(&id);
        Self { here, mallory, alice, eve, room }
    }

    /// An honest invite of alice, changed.
    fn changed(&self, change: impl FnOnce(&mut Value)) -> Pdu {
        let content = json!({ "membership": "invite" });
        let mut draft = self.room.draft(&self.eve, "m.room.member", Some(self.alice.id()), content);
        change(&mut draft);
        self.mallory.seal(&self.room, draft)
    }

    fn ask_at(&self, version: u8, room: &str, id: &str, event: &Value) -> Answer {
        let path = format!("v{version}/invite/{}/{}", enc(room), enc(id));
        let body = json!({ "room_version": "10", "event": event, "invite_room_state": [] });
        self.mallory.put(self.here, &path, if version == 1 { event } else { &body })
    }

    fn ask(&self, pdu: &Pdu) -> Answer {
        self.ask_at(2, &self.room.id, &pdu.id, &pdu.json)
    }

    /// It is refused in both versions of the endpoint, nothing is signed, and nobody here hears of it.
    #[track_caller]
    fn refused(&self, pdu: &Pdu, status: u16, errcode: &str) {
        let since = self.alice.now();
        let said = self.ask(pdu).refused(status, errcode);
        assert!(!said.to_string().contains("signatures"), "{said}");
        // The older endpoint is for events that say their id.
        let with_id = || {
            let mut old = pdu.json.clone();
            old["event_id"] = "$invite:x".into();
            seal("1", self.mallory.name(), &self.mallory.parts.pair, old)
        };
        let old = with_id();
        let said = self.ask_at(1, &self.room.id, &old.id, &old.json);
        assert!((400..500).contains(&said.status()), "{}", said.describe());
        assert!(!String::from_utf8_lossy(said.bytes()).contains("signatures"), "{}", said.describe());
        let seen = self.alice.sync(Some(&since));
        assert!(seen["rooms"]["invite"].is_null() && seen["rooms"]["leave"].is_null(), "{seen}");
    }

    /// The honest form is signed.
    #[track_caller]
    fn control(&self) {
        let said = self.ask(&self.changed(|_| {})).ok();
        assert!(said["event"]["signatures"][self.here.name()].is_object(), "{said}");
    }
}

#[test]
fn attack_01_an_invite_that_is_another_kind_of_event_is_not_signed() {
    let scene = Scene::new();
    for kind in ["m.room.power_levels", "m.room.create", "m.room.message", "m.room.member2"] {
        scene.refused(&scene.changed(|event| event["type"] = kind.into()), 400, "M_BAD_JSON");
    }
    scene.refused(
        &scene.changed(|event| {
            event.as_object_mut().unwrap().remove("state_key");
        }),
        400,
        "M_BAD_JSON",
    );
    scene.control();
}

#[test]
fn attack_02_an_invite_that_is_another_membership_is_not_signed() {
    let scene = Scene::new();
    for membership in ["leave", "ban", "join", "knock", "", "INVITE"] {
        let pdu = scene.changed(|event| event["content"]["membership"] = membership.into());
        scene.refused(&pdu, 400, "M_BAD_JSON");
    }
    scene.refused(&scene.changed(|event| event["content"] = json!({})), 400, "M_BAD_JSON");
    scene.refused(
        &scene.changed(|event| event["content"]["membership"] = json!(["invite"])),
        400,
        "M_BAD_JSON",
    );
    scene.control();
}

#[test]
fn attack_03_an_invite_by_a_user_of_another_server_is_not_signed() {
    let scene = Scene::new();
    let other = Mallory::new();
    let bob = scene.here.register("bob");
    // Of a third server, of this server, and of nobody.
    for sender in [other.user("eve"), bob.id().to_owned(), "eve".to_owned()] {
        let mut pdu = scene.changed(|event| event["sender"] = sender.as_str().into());
        scene.refused(&pdu, 403, "M_FORBIDDEN");
        // The third server's signature does not make it this one's.
        pdu.json = other.cosign("10", &pdu.json);
        scene.refused(&pdu, 403, "M_FORBIDDEN");
    }
    scene.control();
}

#[test]
fn attack_04_an_invite_for_somebody_who_is_not_here_is_not_signed() {
    let scene = Scene::new();
    let gone = scene.here.register("gone");
    let auth = json!({ "auth": { "type": "m.login.password", "password": PASSWORD,
        "identifier": { "type": "m.id.user", "user": gone.id() } } });
    gone.post("v3/account/deactivate", auth).done();
    for user in [gone.id().to_owned(), format!("@nobody-at-all:{}", scene.here.name())] {
        let pdu = scene.changed(|event| event["state_key"] = user.as_str().into());
        scene.refused(&pdu, 404, "M_NOT_FOUND");
    }
    for user in [scene.eve.clone(), "@a:elsewhere.test".to_owned()] {
        let pdu = scene.changed(|event| event["state_key"] = user.as_str().into());
        scene.refused(&pdu, 400, "M_INVALID_PARAM");
    }
    for user in ["", "alice", "@alice"] {
        scene.refused(&scene.changed(|event| event["state_key"] = user.into()), 400, "M_BAD_JSON");
    }
    scene.control();
}

#[test]
fn attack_05_an_invite_whose_path_names_another_room_or_event_is_not_signed() {
    let scene = Scene::new();
    let pdu = scene.changed(|_| {});
    let secret = scene.alice.create_room(json!({ "preset": "private_chat" }));
    scene.ask_at(2, &secret, &pdu.id, &pdu.json).refused(400, "M_BAD_JSON");
    scene.ask_at(2, &scene.room.id, "$other", &pdu.json).refused(400, "M_BAD_JSON");
    let elsewhere = scene.changed(|event| event["room_id"] = secret.as_str().into());
    scene.ask_at(2, &scene.room.id, &elsewhere.id, &elsewhere.json).refused(400, "M_BAD_JSON");
    // Into a room of which the hostile server is no part.
    let said = scene.ask_at(2, &secret, &elsewhere.id, &elsewhere.json);
    if said.status() == 200 {
        // This server cannot know who may invite to rooms it is not in; to those it is in, the invite does not come.
        scene.control();
    }
    assert_eq!(scene.alice.state(&secret, "m.room.member", scene.alice.id()).ok()["membership"], "join");
}

#[test]
fn attack_05_memberships_whose_path_names_another_room_or_event_are_not_taken() {
    let (here, mallory) = (shared(), Mallory::new());
    let (alice, eve) = (here.register("alice"), mallory.user("eve"));
    let (room, other) = (alice.create_public_room(), alice.create_public_room());
    for (what, version) in [("join", "v2"), ("join", "v1"), ("leave", "v2"), ("leave", "v1")] {
        if what == "leave" {
            mallory.join(here, &room, &eve);
        }
        let path = format!("v1/make_{what}/{}/{}?ver=12", enc(&room), enc(&eve));
        let proposed = mallory.get(here, &path).ok();
        let pdu = seal("12", mallory.name(), &mallory.parts.pair, proposed["event"].clone());
        let put = |room: &str, id: &str| {
            mallory.put(here, &format!("{version}/send_{what}/{}/{}", enc(room), enc(id)), &pdu.json)
        };
        put(&other, &pdu.id).refused(400, "M_BAD_JSON");
        put(&room, "$other").refused(400, "M_BAD_JSON");
        put("!unknown:elsewhere.test", &pdu.id).refused(404, "M_NOT_FOUND");
        put(&room, &pdu.id).done();
    }
    alice.set_state(&room, "m.room.join_rules", "", json!({ "join_rule": "knock" }));
    let fay = mallory.user("fay");
    let proposed = mallory.get(here, &format!("v1/make_knock/{}/{}?ver=12", enc(&room), enc(&fay))).ok();
    let pdu = seal("12", mallory.name(), &mallory.parts.pair, proposed["event"].clone());
    let put = |room: &str, id: &str| {
        mallory.ask(here, Method::PUT, &format!("v1/send_knock/{}/{}", enc(room), enc(id)), Some(&pdu.json))
    };
    put(&other, &pdu.id).refused(400, "M_BAD_JSON");
    put(&room, "$other").refused(400, "M_BAD_JSON");
    put(&room, &pdu.id).done();
}

#[test]
fn what_ended_an_earlier_knock_does_not_end_the_present_one() {
    let (here, mallory) = (shared(), Mallory::new());
    let (eve, alice) = (mallory.user("eve"), here.register("alice"));
    let rule = json!({ "join_rule": "knock" });
    let room = mallory.create_room_with(&eve, "10", json!({}), &[("m.room.join_rules", "", rule)]);
    let path = format!("/_matrix/client/v3/knock/{}?via={}", enc(&room), enc(mallory.name()));
    let turned_away = |room: &str| {
        mallory.make(room, &eve, "m.room.member", Some(alice.id()), json!({ "membership": "leave" }))
    };
    alice.post(&path, json!({})).done();
    let first = turned_away(&room);
    mallory.tell(here, &first);
    until(|| alice.sync(None)["rooms"]["knock"].get(&room).is_none(), "the knock is turned away");
    alice.post(&path, json!({})).done();
    // It comes again, late.
    let _ = mallory.transact(here, &[&first], &[]);
    assert!(alice.sync(None)["rooms"]["knock"][&room].is_object());
    let second = turned_away(&room);
    mallory.tell(here, &second);
    until(|| alice.sync(None)["rooms"]["knock"].get(&room).is_none(), "the knock is ended");
}
