//! EDUs of received transactions.
//!
//! A server speaks for its own users only, and of a room only where its access control list allows it (specification:
//! server access control lists, MSC4163). What is not understood is ignored: an EDU has no answer of its own.

use crate::{Error, Federation, devices};
use postern_graph::{RoomNum, UserNum};
use postern_rooms::{RemoteReceipt, now_ms};
use ruma::{EventId, OwnedRoomId, OwnedUserId, RoomId, ServerName, UserId, presence::PresenceState};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json, value::RawValue};
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
    edu_type: String,
    content: Box<RawValue>,
}

/// Takes an EDU that `origin` has sent. What it must not say, or what makes no sense, is passed over.
///
/// # Errors
/// The store's: the transaction is not answered then, and comes again.
pub(crate) async fn receive(federation: &Federation, origin: &ServerName, edu: Edu) -> Result<(), Error> {
    match edu.edu_type.as_str() {
        "m.typing" => typing(federation, origin, &edu.content),
        "m.receipt" => receipts(federation, origin, &edu.content).await,
        "m.presence" => presence(federation, origin, &edu.content).await,
        "m.direct_to_device" | "m.device_list_update" | "m.signing_key_update" => {
            devices::receive(federation, origin, &edu.edu_type, &edu.content).await
        }
        _ => Ok(()),
    }
}

fn parse<T: DeserializeOwned>(origin: &ServerName, edu_type: &str, content: &RawValue) -> Option<T> {
    serde_json::from_str(content.get())
        .inspect_err(|error| tracing::debug!(%origin, edu_type, %error, "an EDU is not understood"))
        .ok()
}

/// The number of a room in which `origin` may speak; nothing if there is none.
fn room_for(federation: &Federation, origin: &ServerName, room: &RoomId) -> Result<Option<RoomNum>, Error> {
    let rooms = &federation.0.rooms;
    let Some(num) = rooms.room(room)? else { return Ok(None) };
    Ok(rooms.server_allowed(num, origin)?.then_some(num))
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

fn typing(federation: &Federation, origin: &ServerName, content: &RawValue) -> Result<(), Error> {
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

async fn receipts(federation: &Federation, origin: &ServerName, content: &RawValue) -> Result<(), Error> {
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
        let Some(event) = event.filter(|id| id.len() <= ID_BYTES).and_then(|id| EventId::parse(id).ok()) else {
            continue;
        };
        let data = receipt.get("data");
        let thread = match data.and_then(|data| data.get("thread_id")) {
            None => "",
            Some(Value::String(thread)) if thread.len() <= ID_BYTES => thread,
            Some(_) => continue,
        };
        let ts = data.and_then(|data| data.get("ts")).and_then(Value::as_u64).unwrap_or(0);
        // What is said to have been in the future would stay the latest for ever.
        taken.push(RemoteReceipt { user, thread: thread.to_owned(), event_id: event, ts: ts.min(now_ms()) });
    }
    Ok(taken)
}

async fn presence(federation: &Federation, origin: &ServerName, content: &RawValue) -> Result<(), Error> {
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
