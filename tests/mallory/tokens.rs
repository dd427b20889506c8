//! Invites by way of a token, as of somebody whose mail address was invited: the one event that is not signed by its
//! sender's server.

use crate::{Mallory, Scene, fate, peer::until, room::Pdu};
use serde_json::{Value, json};

/// A room in which eve may invite.
fn inviting(version: &str) -> Scene {
    Scene::with(json!({ "preset": "public_chat", "room_version": version,
        "power_level_content_override": { "users_default": 50 } }))
}

impl Scene {
    /// Eve says, in a state event, whose signatures under this token she will believe: those of her own key.
    fn token(&self, token: &str) -> Pdu {
        let key = self.mallory.parts.public_key();
        let content = json!({ "display_name": "f...@example.org", "key_validity_url": "https://example.org/valid",
            "public_key": key, "public_keys": [{ "public_key": key }] });
        let pdu = self.mallory.make(&self.room, &self.eve, "m.room.third_party_invite", Some(token), content);
        self.mallory.tell(self.here, &pdu);
        until(|| self.alice.event(&self.room, &pdu.id).status() == 200, "the token is known");
        pdu
    }

    /// The invite of `user` with what was signed.
    fn invite_with(&self, by: &str, user: &str, signed: &Value) -> Value {
        let content = json!({ "membership": "invite", "displayname": "Fay",
            "third_party_invite": { "display_name": "f...@example.org", "signed": signed } });
        self.mallory.room(&self.room).draft(by, "m.room.member", Some(user), content)
    }

    fn sealed_invite(&self, draft: Value) -> Pdu {
        self.mallory.seal(&self.mallory.room(&self.room), draft)
    }

    /// It is not taken, at whatever step; nobody is invited.
    #[track_caller]
    fn not_invited(&self, pdu: &Pdu, user: &str) {
        let said = self.mallory.transact(self.here, &[pdu], &[]).ok();
        if said["pdus"][&pdu.id] == json!({}) {
            fate(self.here, &pdu.id, "is rejected");
        }
        assert_eq!(self.alice.state(&self.room, "m.room.member", user).status(), 404, "{}", pdu.json);
    }
}

#[test]
fn attack_16_a_token_of_an_invite_is_for_one_user_of_one_room_by_one_inviter() {
    for version in ["6", "10", "12"] {
        let scene = inviting(version);
        let Scene { here, mallory, alice, eve, room } = &scene;
        let (fay, gus) = (mallory.user("fay"), mallory.user("gus"));
        scene.token("token");
        let signed = |user: &str, token: &str| mallory.parts.signed(json!({ "mxid": user, "token": token }));
        let honest = signed(&fay, "token");
        let of =
            |by: &str, user: &str, signed: &Value| scene.sealed_invite(scene.invite_with(by, user, signed));
        // For another user, with another token, by another inviter, and in the name of somebody here.
        scene.not_invited(&of(eve, &gus, &honest), &gus);
        scene.not_invited(&of(eve, &fay, &signed(&fay, "another")), &fay);
        scene.not_invited(&of(alice.id(), &fay, &honest), &fay);
        // Changed after it was signed, by a key that was not named, and not signed at all.
        let mut changed = honest.clone();
        changed["mxid"] = gus.as_str().into();
        scene.not_invited(&of(eve, &gus, &changed), &gus);
        let other = Mallory::new();
        let forged = other.parts.signed_as(mallory.name(), json!({ "mxid": fay, "token": "token" }));
        scene.not_invited(&of(eve, &fay, &forged), &fay);
        scene.not_invited(&of(eve, &fay, &json!({ "mxid": fay, "token": "token" })), &fay);
        scene.not_invited(&of(eve, &fay, &json!("x")), &fay);
        // In a room that does not have the token.
        let elsewhere = alice.create_room(json!({ "preset": "public_chat", "room_version": version }));
        mallory.join(here, &elsewhere, eve);
        let kept = mallory.room(&elsewhere);
        let content = json!({ "membership": "invite", "third_party_invite": { "display_name": "f", "signed": honest } });
        let there = mallory.seal(&kept, kept.draft(eve, "m.room.member", Some(&fay), content));
        mallory.tell(here, &there);
        fate(here, &there.id, "is rejected");
        // The honest form.
        let invite = of(eve, &fay, &honest);
        mallory.tell(here, &invite);
        until(|| alice.state(room, "m.room.member", &fay).status() == 200, "fay is invited");
        assert_eq!(alice.state(room, "m.room.member", &fay).ok()["membership"], "invite");
    }
}

#[test]
fn attack_16_a_token_that_was_taken_back_invites_nobody() {
    let scene = inviting("10");
    let Scene { here, mallory, alice, eve, room } = &scene;
    let fay = mallory.user("fay");
    scene.token("token");
    let taken_back = mallory.make(room, eve, "m.room.third_party_invite", Some("token"), json!({}));
    mallory.tell(here, &taken_back);
    until(|| alice.event(room, &taken_back.id).status() == 200, "the token is taken back");
    let signed = mallory.parts.signed(json!({ "mxid": fay, "token": "token" }));
    scene.not_invited(&scene.sealed_invite(scene.invite_with(eve, &fay, &signed)), &fay);
    scene.settle();
}

#[test]
fn attack_16_an_invite_of_a_user_here_by_a_token_is_signed_for_the_senders_server_only() {
    let scene = inviting("10");
    let Scene { here, mallory, alice, eve, .. } = &scene;
    let bob = here.register("bob");
    let signed = mallory.parts.signed(json!({ "mxid": bob.id(), "token": "token" }));
    let body = |pdu: &Pdu| json!({ "room_version": "10", "event": pdu.json, "invite_room_state": [] });
    let path =
        |pdu: &Pdu| format!("v2/invite/{}/{}", postern_world::enc(&scene.room), postern_world::enc(&pdu.id));
    let other = Mallory::new();
    for sender in [alice.id().to_owned(), other.user("x")] {
        let forged = scene.sealed_invite(scene.invite_with(&sender, bob.id(), &signed));
        mallory.put(here, &path(&forged), &body(&forged)).refused(403, "M_FORBIDDEN");
    }
    // The hostile server's own is.
    let own = scene.sealed_invite(scene.invite_with(eve, bob.id(), &signed));
    let said = mallory.put(here, &path(&own), &body(&own)).ok();
    assert!(said["event"]["signatures"][here.name()].is_object(), "{said}");
}
