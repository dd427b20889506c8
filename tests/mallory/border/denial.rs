//! Redacted copies of what others said, so that it is forgotten.
//!
//! One hostile server is honest here: what it says the other one tells without its content.

use super::{enclaves::content, message};
use crate::{
    Mallory,
    listen::Reply,
    peer::{fate, until},
    room::{Pdu, rules},
};
use postern_world::{Answer, Client, Server, enc};
use ruma::{CanonicalJsonObject, canonical_json::redact_in_place};
use serde_json::{Value, json};

/// The server under test with a user's room, in which both others are.
struct Scene {
    here: Server,
    alice: Client,
    honest: Mallory,
    hank: String,
    mallory: Mallory,
    eve: String,
    room: String,
}

impl Scene {
    fn new() -> Self {
        let (here, honest, mallory) = (crate::server(), Mallory::new(), Mallory::new());
        let alice = here.register("alice");
        let room = alice.create_room(json!({ "preset": "public_chat", "room_version": "11" }));
        let (hank, eve) = (honest.user("hank"), mallory.user("eve"));
        honest.join(&here, &room, &hank);
        mallory.join(&here, &room, &eve);
        honest.until(&room, "the honest server knows mallory", |room| room.membership(&eve) == "join");
        Self { here, alice, honest, hank, mallory, eve, room }
    }

    /// Hank says something, and does not send it here.
    fn said(&self, content: Value) -> Pdu {
        self.honest.make(&self.room, &self.hank, "m.room.message", None, content)
    }

    /// An event as its redacted copy.
    fn copy(&self, pdu: &Pdu) -> Pdu {
        let version = self.mallory.room(&self.room).version;
        let mut json: CanonicalJsonObject = serde_json::from_value(pdu.json.clone()).unwrap();
        redact_in_place(&mut json, &rules(&version).redaction, None).unwrap();
        Pdu { id: pdu.id.clone(), json: serde_json::to_value(json).unwrap() }
    }

    /// Mallory says something that follows on an event, and tells that as a copy; the copy is here then.
    #[track_caller]
    fn deny(&self, pdu: &Pdu) {
        let copy = self.copy(pdu);
        self.mallory.change_room(&self.room, |room| room.add(&copy));
        let word = self.mallory.text(&self.room, &self.eve, "what was before this?");
        self.mallory.tell(&self.here, &word);
        until(|| self.alice.event(&self.room, &word.id).status() == 200, "what follows on the copy is here");
    }

    fn shown(&self, pdu: &Pdu) -> Value {
        content(&self.alice, &self.room, &pdu.id)
    }

    #[track_caller]
    fn becomes_whole(&self, pdu: &Pdu) {
        until(|| self.shown(pdu) == pdu.json["content"], "the content comes");
    }

    /// An honest word of Hank's: what he sent before is judged.
    #[track_caller]
    fn settle(&self) {
        self.honest.say(&self.here, &self.alice, &self.room, &self.hank);
    }

    /// How often somebody was asked for an event.
    fn asked(of: &Mallory, pdu: &Pdu) -> usize {
        of.seen("event").iter().filter(|asked| asked.segments.contains(&pdu.id)).count()
    }
}

fn text(body: &str) -> Value {
    json!({ "msgtype": "m.text", "body": body })
}

#[test]
fn attack_49_what_others_said_is_asked_for_where_a_server_tells_it_without_content() {
    let scene = Scene::new();
    let parent = scene.alice.send_text(&scene.room, "hello");
    scene.honest.until(&scene.room, "hank hears it", |room| room.has(&parent));
    let mut reply = text("needle in a thread");
    reply["m.relates_to"] = json!({ "rel_type": "m.thread", "event_id": parent });
    let said = scene.said(reply);
    scene.deny(&said);
    fate(&scene.here, &said.id, "was told without its content");
    scene.becomes_whole(&said);
    // All that follows from its content does.
    let thread = scene.alice.event(&scene.room, &parent).ok();
    assert_eq!(thread["unsigned"]["m.relations"]["m.thread"]["count"], 1, "{thread}");
    let search = json!({ "search_categories": { "room_events": { "search_term": "needle" } } });
    let found: Answer = scene.alice.post("v3/search", search);
    assert_eq!(found["search_categories"]["room_events"]["count"], 1);
    // A name, too; who is in the room and what it is stays the same throughout.
    let state = scene.alice.all_state(&scene.room).len();
    let poll = scene.honest.make(&scene.room, &scene.hank, "org.example.poll", None, json!({ "q": 1 }));
    scene.deny(&poll);
    scene.becomes_whole(&poll);
    assert_eq!(scene.alice.all_state(&scene.room).len(), state);
}

#[test]
fn attack_49_one_more_server_is_asked_where_the_sender_cannot_be() {
    let scene = Scene::new();
    let third = Mallory::new();
    third.join(&scene.here, &scene.room, &third.user("tom"));
    let said = scene.said(text("hear me"));
    third.change_room(&scene.room, |room| room.keep(&said));
    scene.honest.always("event", Reply::error(500, "M_UNKNOWN"));
    scene.deny(&said);
    scene.becomes_whole(&said);
    assert_eq!(Scene::asked(&third, &said), 1);
}

#[test]
fn attack_49_a_full_copy_that_comes_later_is_taken_if_its_hash_is_right() {
    let scene = Scene::new();
    let said = scene.said(text("hear me"));
    scene.honest.always("event", Reply::error(404, "M_NOT_FOUND"));
    scene.deny(&said);
    until(|| Scene::asked(&scene.honest, &said) > 0, "the sender's server is asked");
    assert_eq!(scene.shown(&said), json!({}));
    // Another content with the same signatures is none.
    let mut forged = said.clone();
    forged.json["content"] = text("something else");
    scene.honest.tell(&scene.here, &forged);
    scene.mallory.tell(&scene.here, &forged);
    scene.settle();
    assert_eq!(scene.shown(&said), json!({}));
    scene.honest.tell(&scene.here, &said);
    scene.settle();
    assert_eq!(scene.shown(&said), text("hear me"));
    // And what is whole stays so.
    scene.mallory.tell(&scene.here, &scene.copy(&said));
    scene.mallory.tell(&scene.here, &forged);
    scene.mallory.say(&scene.here, &scene.alice, &scene.room, &scene.eve);
    assert_eq!(scene.shown(&said), text("hear me"));
}

#[test]
fn attack_49_what_was_redacted_is_not_made_whole_again() {
    let scene = Scene::new();
    let said = scene.said(text("forget me"));
    scene.honest.always("event", Reply::error(404, "M_NOT_FOUND"));
    scene.deny(&said);
    until(|| Scene::asked(&scene.honest, &said) > 0, "the sender's server is asked");
    let gone = json!({ "redacts": said.id, "reason": "enough" });
    let redaction = scene.honest.make(&scene.room, &scene.hank, "m.room.redaction", None, gone);
    scene.honest.tell(&scene.here, &redaction);
    scene.settle();
    scene.honest.tell(&scene.here, &said);
    scene.mallory.tell(&scene.here, &said);
    scene.settle();
    assert_eq!(scene.shown(&said), json!({}));
    let event = scene.alice.event(&scene.room, &said.id).ok();
    assert_eq!(event["unsigned"]["redacted_because"]["event_id"], redaction.id);
}

#[test]
fn attack_49_what_a_server_tells_of_its_own_without_content_is_its_own_decision() {
    let scene = Scene::new();
    let said = scene.said(text("not for you"));
    let copy = scene.copy(&said);
    scene.honest.tell(&scene.here, &copy);
    scene.settle();
    assert_eq!(scene.shown(&said), json!({}));
    // Told by somebody else it is asked for, and nobody has more; once is enough.
    scene.honest.change_room(&scene.room, |room| room.replace(&copy));
    for _ in 0..2 {
        scene.mallory.tell(&scene.here, &copy);
        scene.mallory.say(&scene.here, &scene.alice, &scene.room, &scene.eve);
    }
    assert!(Scene::asked(&scene.honest, &said) <= 1);
    // It may be released later.
    scene.honest.tell(&scene.here, &said);
    scene.settle();
    assert_eq!(scene.shown(&said), text("not for you"));
}

#[test]
fn attack_49_who_got_the_copy_keeps_it_when_the_content_comes() {
    let stage = super::Stage::new();
    let (high, room) = (&stage.high, &stage.room);
    let said = message("INTERNAL", "mine", json!({}));
    let mine = stage.mallory.make(room, &stage.eve, "m.room.message", None, said.clone());
    let mut copy = mine.clone();
    copy.json["content"] = json!({});
    stage.mallory.tell(&high.server, &copy);
    until(|| stage.alice.event(room, &mine.id).status() == 200, "the copy is here");
    let path = format!("v1/event/{}", enc(&mine.id));
    let before = stage.get(&path).ok()["pdus"].clone();
    stage.mallory.tell(&high.server, &mine);
    until(|| content(&stage.alice, room, &mine.id) == said, "the content comes");
    assert_eq!(stage.get(&path).ok()["pdus"], before);
}
