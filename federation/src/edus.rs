//! EDUs of received transactions.
//!
//! A server speaks for its own users only, and of a room only where its access control list allows it (specification:
//! server access control lists, MSC4163). What is not understood is ignored: an EDU has no answer of its own.

use crate::{Error, Federation, devices};
use postern_graph::{RoomNum, UserNum};
use postern_rooms::{RemoteReceipt, now_ms};
use ruma::{EventId, OwnedRoomId, OwnedUserId, RoomId, ServerName, UserId, presence::PresenceState};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

/// How long somebody of another server types without it being said again.
const TYPING: Duration = Duration::from_secs(30);
/// Receipts taken from one EDU.
const RECEIPTS: usize = 5_000;
/// Users whose presence is taken from one EDU; [`postern_users::limits::PRESENCES_AT_ONCE`] at most.
const PRESENCES: usize = 1_000;
/// A status message, bytes.
const STATUS_BYTES: usize = 1_024;
/// An id of an event or a thread, bytes (specification: size limits).
const ID_BYTES: usize = 255;
/// That somebody is still there is written down this often while nothing else changes, milliseconds.
const ACTIVE_AGAIN_MS: u64 = 60_000;

/// An ephemeral message between servers.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Edu {
    #[serde(default)]
    edu_type: String,
    #[serde(default)]
    content: Value,
}

/// Takes an EDU that `origin` has sent. What it must not say, or what makes no sense, is passed over.
///
/// # Errors
/// The store's: the transaction is not answered then, and comes again.
pub(crate) async fn receive(federation: &Federation, origin: &ServerName, edu: Edu) -> Result<(), Error> {
    match edu.edu_type.as_str() {
        "m.typing" => typing(federation, origin, edu.content),
        "m.receipt" => receipts(federation, origin, edu.content).await,
        "m.presence" => presence(federation, origin, edu.content).await,
        "m.direct_to_device" | "m.device_list_update" | "m.signing_key_update" => {
            devices::receive(federation, origin, &edu.edu_type, edu.content).await
        }
        _ => Ok(()),
    }
}

fn parse<T: DeserializeOwned>(origin: &ServerName, edu_type: &str, content: Value) -> Option<T> {
    serde_json::from_value(content)
        .inspect_err(|error| tracing::debug!(%origin, edu_type, %error, "an EDU is not understood"))
        .ok()
}

/// The number of a room in which `origin` may speak; nothing if there is none.
fn room_for(federation: &Federation, origin: &ServerName, room: &RoomId) -> Result<Option<RoomNum>, Error> {
    let rooms = &federation.0.rooms;
    let Some(num) = rooms.room(room)? else { return Ok(None) };
    Ok((rooms.server_allowed(num, origin)? && rooms.may_know(origin, num)?).then_some(num))
}

/// The number of a user of `origin` that is joined to a room; nothing if it is not.
fn member(
    federation: &Federation,
    origin: &ServerName,
    room: RoomNum,
    user: &UserId,
) -> Result<Option<UserNum>, Error> {
    if user.server_name() != origin {
        return Ok(None);
    }
    let rooms = &federation.0.rooms;
    let Some(num) = rooms.user(user)? else { return Ok(None) };
    Ok(rooms.is_joined(room, num)?.then_some(num))
}

fn typing(federation: &Federation, origin: &ServerName, content: Value) -> Result<(), Error> {
    #[derive(Deserialize)]
    struct Typing {
        room_id: OwnedRoomId,
        user_id: OwnedUserId,
        typing: bool,
    }
    let Some(said) = parse::<Typing>(origin, "m.typing", content) else { return Ok(()) };
    let Some(room) = room_for(federation, origin, &said.room_id)? else { return Ok(()) };
    if let Some(user) = member(federation, origin, room, &said.user_id)? {
        federation.0.rooms.typing().set(room, user, said.typing.then_some(TYPING));
    }
    Ok(())
}

async fn receipts(federation: &Federation, origin: &ServerName, content: Value) -> Result<(), Error> {
    let Some(by_room) = parse::<BTreeMap<String, Value>>(origin, "m.receipt", content) else {
        return Ok(());
    };
    let mut left = RECEIPTS;
    for (room, receipts) in by_room {
        let Ok(room) = <&RoomId>::try_from(room.as_str()) else { continue };
        let Some(room) = room_for(federation, origin, room)? else { continue };
        let Some(read) = receipts.get("m.read").and_then(Value::as_object) else { continue };
        let taken = receipts_of_room(federation, origin, room, read, left)?;
        left -= taken.len();
        federation.0.rooms.take_receipts(room, &taken).await?;
    }
    Ok(())
}

/// The receipts of a room that may be taken, at most `most`.
fn receipts_of_room(
    federation: &Federation,
    origin: &ServerName,
    room: RoomNum,
    read: &Map<String, Value>,
    most: usize,
) -> Result<Vec<RemoteReceipt>, Error> {
    let mut taken = Vec::new();
    for (user, receipt) in read {
        if taken.len() >= most {
            break;
        }
        let Ok(id) = <&UserId>::try_from(user.as_str()) else { continue };
        let Some(user) = member(federation, origin, room, id)? else { continue };
        // Several are the ends of a fork; the last is as good as any.
        let event = receipt.get("event_ids").and_then(Value::as_array).and_then(|ids| ids.last()?.as_str());
        let Some(event) = event.filter(|id| id.len() <= ID_BYTES).and_then(|id| EventId::parse(id).ok())
        else {
            continue;
        };
        let data = receipt.get("data");
        let thread = match data.and_then(|data| data.get("thread_id")) {
            None => "",
            Some(Value::String(thread)) if is_thread(federation, room, thread)? => thread,
            Some(_) => continue,
        };
        let ts = data.and_then(|data| data.get("ts")).and_then(Value::as_u64).unwrap_or(0);
        // What is said to have been in the future would stay the latest for ever.
        taken.push(RemoteReceipt { user, thread: thread.to_owned(), event_id: event, ts: ts.min(now_ms()) });
    }
    Ok(taken)
}

/// Whether there is such a thread in the room. A receipt is kept for each, and all are told to everybody in the room:
/// names that are made up would be without end.
fn is_thread(federation: &Federation, room: RoomNum, thread: &str) -> Result<bool, Error> {
    if thread == "main" {
        return Ok(true);
    }
    let Some(root) = Some(thread).filter(|id| id.len() <= ID_BYTES).and_then(|id| EventId::parse(id).ok())
    else {
        return Ok(false);
    };
    Ok(federation.0.rooms.event_by_id(&root)?.is_some_and(|event| event.record.room == room))
}

async fn presence(federation: &Federation, origin: &ServerName, content: Value) -> Result<(), Error> {
    #[derive(Deserialize)]
    struct Presence {
        push: Vec<Value>,
    }
    #[derive(Deserialize)]
    struct Update {
        user_id: OwnedUserId,
        presence: PresenceState,
        status_msg: Option<String>,
        #[serde(default)]
        last_active_ago: u64,
    }
    if !federation.0.config.users.presence {
        return Ok(());
    }
    let Some(said) = parse::<Presence>(origin, "m.presence", content) else { return Ok(()) };
    let now = now_ms();
    let mut taken: HashMap<UserNum, Value> = HashMap::new();
    for update in said.push.into_iter().take(PRESENCES) {
        let Ok(update) = serde_json::from_value::<Update>(update) else { continue };
        if update.user_id.server_name() != origin {
            continue;
        }
        let state = update.presence.as_str();
        if !matches!(state, "online" | "offline" | "unavailable") {
            continue;
        }
        // Whoever shares no room with anyone here is of no interest.
        let Some(user) = federation.0.rooms.user(&update.user_id)? else { continue };
        if federation.0.rooms.joined_rooms(user)?.is_empty() {
            continue;
        }
        let message = update.status_msg.filter(|message| message.len() <= STATUS_BYTES);
        let active = now.saturating_sub(update.last_active_ago);
        let before = federation.0.users.presence(user)?.map(|(_, before)| before).unwrap_or_default();
        let text = |name: &str| before.get(name).and_then(Value::as_str);
        let was_active = before.get("last_active_ts").and_then(Value::as_u64).unwrap_or(0);
        if text("presence") == Some(state)
            && text("status_msg") == message.as_deref()
            && active.abs_diff(was_active) < ACTIVE_AGAIN_MS
        {
            taken.remove(&user);
            continue;
        }
        let presence = json!({ "presence": state, "status_msg": message, "last_active_ts": active });
        taken.insert(user, presence);
    }
    Ok(federation.0.users.set_presences(taken.into_iter().collect()).await?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::scene::{Parts, alice, bob, carl};
    use postern_config::Config;
    use postern_graph::Seq;
    use postern_media::Media;
    use postern_rooms::{Draft, UserReceipt};
    use ruma::server_name;
    use std::sync::Arc;
    use tempfile::TempDir;
    use tokio_util::sync::CancellationToken;

    struct Here {
        parts: Parts,
        federation: Federation,
        room_id: OwnedRoomId,
        room: RoomNum,
        _dir: TempDir,
    }

    impl Here {
        /// A room of alice here and bob elsewhere.
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let parts = Parts::open(dir.path());
            let config = Arc::new(Config::with([("server.name", "h")]).unwrap());
            let settings = postern_media::Settings {
                max_upload_bytes: 1,
                max_image_pixels: 1,
                dynamic_thumbnails: false,
                pending_upload_lifetime_ms: 1,
                max_pending_uploads: 1,
            };
            let media = Arc::new(Media::new(parts.graph.clone(), "h", settings));
            let (graph, rooms, users) = (parts.graph.clone(), parts.rooms.clone(), parts.users.clone());
            let federation =
                Federation::new(config, graph, rooms, users, media, Arc::default(), CancellationToken::new())
                    .unwrap();
            let room_id = parts.room().await;
            parts.join(&room_id, bob()).await;
            let room = parts.rooms.known_room(&room_id).unwrap();
            Self { parts, federation, room_id, room, _dir: dir }
        }

        /// Bob's server sends an EDU.
        async fn receive(&self, edu_type: &str, content: &Value) {
            let edu = Edu { edu_type: edu_type.to_owned(), content: content.clone() };
            receive(&self.federation, server_name!("b"), edu).await.unwrap();
        }

        async fn deny(&self) {
            let acl = Draft::state("m.room.server_acl", "", &json!({ "allow": ["h"] })).unwrap();
            self.parts.rooms.send(alice(), &self.room_id, acl).await.unwrap();
        }

        fn number(&self, user: &UserId) -> UserNum {
            self.parts.rooms.user(user).unwrap().unwrap()
        }

        fn typing(&self) -> Vec<UserNum> {
            self.parts.rooms.typing().typing(self.room)
        }

        fn receipts(&self) -> Vec<UserReceipt> {
            let viewer = self.number(alice());
            let graph = &self.parts.graph;
            self.parts.rooms.receipts_between(self.room, viewer, Seq::ZERO, graph.applied()).unwrap()
        }

        fn presence(&self, user: &UserId) -> Option<Value> {
            self.parts.users.presence(self.number(user)).unwrap().map(|(_, presence)| presence)
        }
    }

    fn read(room: &RoomId, user: &str, event: &str, data: &Value) -> Value {
        json!({ room.as_str(): { "m.read": { user: { "data": data, "event_ids": [event] } } } })
    }

    #[tokio::test]
    async fn a_server_says_who_of_its_own_members_types() {
        let here = Here::new().await;
        here.parts.join(&here.room_id, carl()).await;
        let said =
            |user: &UserId, typing| json!({ "room_id": here.room_id, "user_id": user, "typing": typing });
        here.receive("m.typing", &said(carl(), true)).await;
        here.receive("m.typing", &said(alice(), true)).await;
        here.receive("m.typing", &said(ruma::user_id!("@eve:b"), true)).await;
        here.receive("m.typing", &json!({ "room_id": "!other:b", "user_id": bob(), "typing": true })).await;
        here.receive("m.typing", &json!({ "typing": true })).await;
        assert!(here.typing().is_empty());
        here.receive("m.typing", &said(bob(), true)).await;
        assert_eq!(here.typing(), [here.number(bob())]);
        here.receive("m.typing", &said(bob(), false)).await;
        assert!(here.typing().is_empty());
        here.deny().await;
        here.receive("m.typing", &said(bob(), true)).await;
        assert!(here.typing().is_empty());
    }

    #[tokio::test]
    async fn receipts_of_members_move_forward_in_each_thread_and_nobody_elses_do() {
        let here = Here::new().await;
        let (first, second) =
            (here.parts.say(&here.room_id, "1").await, here.parts.say(&here.room_id, "2").await);
        let ts = |ts: u64| json!({ "ts": ts });
        for user in ["@alice:h", "@carl:c", "@eve:b", "nobody"] {
            here.receive("m.receipt", &read(&here.room_id, user, first.as_str(), &ts(1))).await;
        }
        assert!(here.receipts().is_empty());
        here.receive("m.receipt", &read(&here.room_id, "@bob:b", second.as_str(), &ts(2))).await;
        here.receive("m.receipt", &read(&here.room_id, "@bob:b", first.as_str(), &ts(3))).await;
        let thread = json!({ "ts": 4, "thread_id": "main" });
        here.receive("m.receipt", &read(&here.room_id, "@bob:b", first.as_str(), &thread)).await;
        let found: Vec<_> = here
            .receipts()
            .into_iter()
            .map(|found| (found.user, found.thread, found.receipt.event_id, found.receipt.ts))
            .collect();
        let bob = here.number(bob());
        let expected =
            [(bob, String::new(), second.to_string(), 2), (bob, "main".to_owned(), first.to_string(), 4)];
        assert_eq!(found, expected);
    }

    #[tokio::test]
    async fn a_receipt_may_come_before_its_event_and_yields_to_one_whose_event_is_here() {
        let here = Here::new().await;
        let first = here.parts.say(&here.room_id, "1").await;
        let told = |event: &str, ts: u64| read(&here.room_id, "@bob:b", event, &json!({ "ts": ts }));
        let present = || here.receipts().into_iter().map(|found| found.receipt.event_id).collect::<Vec<_>>();
        here.receive("m.receipt", &told("$unknown", 5)).await;
        assert_eq!(present(), ["$unknown"]);
        here.receive("m.receipt", &told(first.as_str(), 6)).await;
        assert_eq!(present(), [first.as_str()]);
        here.receive("m.receipt", &told("$older", 5)).await;
        assert_eq!(present(), [first.as_str()]);
        here.receive("m.receipt", &told("$newer", 7)).await;
        assert_eq!(present(), ["$newer"]);
        let second = here.parts.say(&here.room_id, "2").await;
        here.deny().await;
        here.receive("m.receipt", &told(second.as_str(), 8)).await;
        assert_eq!(present(), ["$newer"], "the server is denied");
    }

    #[tokio::test]
    async fn presence_is_taken_of_the_servers_own_users_that_share_a_room() {
        let here = Here::new().await;
        let update = |user: &str, presence: &str, ago: u64| json!({ "user_id": user, "presence": presence, "last_active_ago": ago, "status_msg": "hi" });
        let push = |updates: Vec<Value>| json!({ "push": updates });
        let all = vec![
            update("@alice:h", "offline", 0),
            update("@eve:b", "online", 0),
            json!({ "user_id": 1 }),
            update("@bob:b", "unavailable", 5_000),
        ];
        here.receive("m.presence", &push(all)).await;
        assert!(here.presence(alice()).is_none());
        assert!(here.parts.rooms.user(ruma::user_id!("@eve:b")).unwrap().is_none(), "of no interest");
        let bobs = here.presence(bob()).unwrap();
        assert_eq!((&bobs["presence"], &bobs["status_msg"]), (&json!("unavailable"), &json!("hi")));
        assert!(now_ms() - bobs["last_active_ts"].as_u64().unwrap() >= 5_000);

        let before = here.parts.graph.applied();
        here.receive("m.presence", &push(vec![update("@bob:b", "unavailable", 5_000)])).await;
        here.receive("m.presence", &push(vec![update("@bob:b", "dancing", 0)])).await;
        assert_eq!(here.parts.graph.applied(), before, "nothing new was said");
    }

    #[tokio::test]
    async fn what_is_unknown_is_ignored() {
        let here = Here::new().await;
        here.receive("org.example.dance", &json!({ "anything": [] })).await;
        here.receive("m.receipt", &json!([])).await;
        here.receive("m.presence", &json!({ "push": {} })).await;
        assert!(
            serde_json::from_str::<Edu>(r#"{"edu_type":"m.typing","content":{"typing":1},"x":0}"#).is_ok()
        );
    }
}
