//! What clients do in rooms.

use crate::{Answer, Client, enc};
use serde_json::{Value, json};

/// A string field that must be there.
#[track_caller]
fn text(body: &Value, field: &str) -> String {
    body[field].as_str().unwrap_or_else(|| panic!("no {field} in {body}")).to_owned()
}

impl Client {
    /// The path below a room, such as `room_path(&room, "members")`.
    #[must_use]
    pub fn room_path(room: &str, rest: &str) -> String {
        format!("v3/rooms/{}/{rest}", enc(room))
    }

    /// Makes a room; its id.
    #[track_caller]
    #[must_use]
    pub fn create_room(&self, request: Value) -> String {
        text(&self.post("v3/createRoom", request).ok(), "room_id")
    }

    /// Makes a room that everybody can join; its id.
    #[track_caller]
    #[must_use]
    pub fn create_public_room(&self) -> String {
        self.create_room(json!({ "preset": "public_chat" }))
    }

    /// Makes a room and brings others in: they are invited and join. Its id.
    #[track_caller]
    #[must_use]
    pub fn create_room_with(&self, others: &[&Self]) -> String {
        let invite: Vec<&str> = others.iter().map(|other| other.id()).collect();
        let room = self.create_room(json!({ "preset": "private_chat", "invite": invite }));
        for other in others {
            other.join(&room);
        }
        room
    }

    /// Joins a room, by id or alias.
    #[track_caller]
    pub fn join(&self, room: &str) {
        self.try_join(room).done();
    }

    /// Asks to join a room, by id or alias.
    #[track_caller]
    #[must_use]
    pub fn try_join(&self, room: &str) -> Answer {
        self.post(&format!("v3/join/{}", enc(room)), json!({}))
    }

    /// Leaves a room, or declines an invitation.
    #[track_caller]
    pub fn leave(&self, room: &str) {
        self.post(&Self::room_path(room, "leave"), json!({})).done();
    }

    /// Forgets a room.
    #[track_caller]
    pub fn forget(&self, room: &str) {
        self.post(&Self::room_path(room, "forget"), json!({})).done();
    }

    /// Knocks at a room; what the server says to it.
    #[track_caller]
    #[must_use]
    pub fn try_knock(&self, room: &str, reason: &str) -> Answer {
        self.post(&format!("v3/knock/{}", enc(room)), json!({ "reason": reason }))
    }

    /// Asks for something to be done about a member: `invite`, `kick`, `ban`, `unban`.
    #[track_caller]
    #[must_use]
    pub fn about_member(&self, room: &str, what: &str, user: &str) -> Answer {
        self.post(&Self::room_path(room, what), json!({ "user_id": user }))
    }

    /// Invites.
    #[track_caller]
    pub fn invite(&self, room: &str, other: &Self) {
        self.about_member(room, "invite", other.id()).done();
    }

    /// Kicks.
    #[track_caller]
    pub fn kick(&self, room: &str, other: &Self) {
        self.about_member(room, "kick", other.id()).done();
    }

    /// Bans.
    #[track_caller]
    pub fn ban(&self, room: &str, other: &Self) {
        self.about_member(room, "ban", other.id()).done();
    }

    /// Lifts a ban.
    #[track_caller]
    pub fn unban(&self, room: &str, other: &Self) {
        self.about_member(room, "unban", other.id()).done();
    }

    /// Asks to send an event with this transaction id.
    #[track_caller]
    #[must_use]
    pub fn send_as(&self, room: &str, kind: &str, transaction: &str, content: Value) -> Answer {
        self.put(&Self::room_path(room, &format!("send/{}/{}", enc(kind), enc(transaction))), content)
    }

    /// Asks to send an event.
    #[track_caller]
    #[must_use]
    pub fn try_send(&self, room: &str, kind: &str, content: Value) -> Answer {
        self.send_as(room, kind, &self.transaction(), content)
    }

    /// Sends an event; its id.
    #[track_caller]
    pub fn send(&self, room: &str, kind: &str, content: Value) -> String {
        text(&self.try_send(room, kind, content).ok(), "event_id")
    }

    /// Sends a text message; its id.
    #[track_caller]
    pub fn send_text(&self, room: &str, body: &str) -> String {
        self.send(room, "m.room.message", json!({ "msgtype": "m.text", "body": body }))
    }

    /// Asks to set state.
    #[track_caller]
    #[must_use]
    pub fn try_set_state(&self, room: &str, kind: &str, key: &str, content: Value) -> Answer {
        self.put(&Self::room_path(room, &format!("state/{}/{}", enc(kind), enc(key))), content)
    }

    /// Sets state; the event's id.
    #[track_caller]
    pub fn set_state(&self, room: &str, kind: &str, key: &str, content: Value) -> String {
        text(&self.try_set_state(room, kind, key, content).ok(), "event_id")
    }

    /// Asks for the content of a state event.
    #[track_caller]
    #[must_use]
    pub fn state(&self, room: &str, kind: &str, key: &str) -> Answer {
        self.get(&Self::room_path(room, &format!("state/{}/{}", enc(kind), enc(key))))
    }

    /// All state events of a room.
    #[track_caller]
    #[must_use]
    pub fn all_state(&self, room: &str) -> Vec<Value> {
        let answer = self.get(&Self::room_path(room, "state")).ok();
        answer.as_array().cloned().unwrap_or_default()
    }

    /// A member's membership, as this user sees it.
    #[track_caller]
    #[must_use]
    pub fn membership_of(&self, room: &str, other: &Self) -> String {
        text(&self.state(room, "m.room.member", other.id()).ok(), "membership")
    }

    /// Changes a room's power levels by a function of their content.
    #[track_caller]
    pub fn change_power_levels(&self, room: &str, change: impl FnOnce(&mut Value)) {
        let mut levels = self.state(room, "m.room.power_levels", "").ok();
        change(&mut levels);
        self.set_state(room, "m.room.power_levels", "", levels);
    }

    /// Asks to redact an event.
    #[track_caller]
    #[must_use]
    pub fn try_redact(&self, room: &str, event: &str, reason: &str) -> Answer {
        let path = format!("redact/{}/{}", enc(event), enc(&self.transaction()));
        self.put(&Self::room_path(room, &path), json!({ "reason": reason }))
    }

    /// Redacts an event; the redaction's id.
    #[track_caller]
    pub fn redact(&self, room: &str, event: &str) -> String {
        text(&self.try_redact(room, event, "redacted by a test").ok(), "event_id")
    }

    /// Asks for an event.
    #[track_caller]
    #[must_use]
    pub fn event(&self, room: &str, event: &str) -> Answer {
        self.get(&Self::room_path(room, &format!("event/{}", enc(event))))
    }

    /// A page of a room's history; `query` is such as `dir=b&limit=10`.
    #[track_caller]
    #[must_use]
    pub fn messages(&self, room: &str, query: &str) -> Value {
        self.get(&Self::room_path(room, &format!("messages?{query}"))).ok()
    }

    /// Says that an event, and all before it, was read.
    #[track_caller]
    pub fn read(&self, room: &str, event: &str) {
        self.post(&Self::room_path(room, &format!("receipt/m.read/{}", enc(event))), json!({})).done();
    }

    /// Says whether this user is typing.
    #[track_caller]
    pub fn typing(&self, room: &str, typing: bool) {
        let body =
            if typing { json!({ "typing": true, "timeout": 30_000 }) } else { json!({ "typing": false }) };
        self.put(&Self::room_path(room, &format!("typing/{}", self.id_in_path())), body).done();
    }

    /// Uploads a file; its `mxc:` address.
    #[track_caller]
    #[must_use]
    pub fn upload(&self, content_type: &str, name: Option<&str>, bytes: &[u8]) -> String {
        let query = name.map(|name| format!("?filename={}", enc(name))).unwrap_or_default();
        let answer = self.send_bytes(
            http::Method::POST,
            &format!("/_matrix/media/v3/upload{query}"),
            &[("content-type", content_type)],
            bytes.to_vec(),
        );
        text(&answer.ok(), "content_uri")
    }
}
