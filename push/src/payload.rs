//! What a push gateway is told (specification: push gateway API).

use crate::{CALL_TYPES, Content, Error, Push};
use postern_graph::{Pos, RoomNum, UserNum, schema::Unread};
use postern_rooms::{Event, Form, MembershipKind, view::Viewer};
use postern_users::Pusher;
use ruma::UserId;
use serde_json::{Map, Value, json};

/// Whether an event invites a user.
pub(crate) fn is_invite(event: &Event, user: &UserId) -> bool {
    event.membership() == Some(MembershipKind::Invite) && event.state_key() == Some(user.as_str())
}

/// The tweaks that a rule's actions set.
fn tweaks(actions: &str) -> Map<String, Value> {
    let actions: Vec<Value> = serde_json::from_str(actions).unwrap_or_default();
    let tweak = |action: Value| {
        let name = action.get("set_tweak")?.as_str()?.to_owned();
        // The highlight without a value is one (specification: actions).
        let value = action.get("value").cloned().unwrap_or_else(|| (name == "highlight").into());
        Some((name, value))
    };
    actions.into_iter().filter_map(tweak).collect()
}

/// Whether the device is to be woken for it: for what rings or is highlighted, and for what only the device can read.
fn is_urgent(event: &Event, tweaks: &Map<String, Value>) -> bool {
    let kind = event.kind().to_string();
    tweaks.contains_key("sound")
        || tweaks.get("highlight") == Some(&true.into())
        || kind == "m.room.encrypted"
        || CALL_TYPES.contains(&kind.as_str())
}

fn device(pusher: &Pusher, tweaks: Option<Map<String, Value>>) -> Value {
    let mut data = pusher.data.clone();
    data.remove("url");
    let mut device = json!({
        "app_id": pusher.app_id,
        "pushkey": pusher.pushkey,
        "pushkey_ts": pusher.since,
        "data": data,
    });
    if let Some(tweaks) = tweaks {
        device["tweaks"] = tweaks.into();
    }
    device
}

impl Push {
    /// The counts alone.
    pub(crate) fn counts_for(&self, user: UserNum, pusher: &Pusher) -> Result<Value, Error> {
        let mut counts = self.counts(user)?;
        // Counts that are zero may be left out, but nobody could tell then that nothing is unread any more.
        counts.entry("unread").or_insert_with(|| 0.into());
        Ok(json!({ "notification": { "counts": counts, "devices": [device(pusher, None)] } }))
    }

    fn counts(&self, user: UserNum) -> Result<Map<String, Value>, Error> {
        let (unread, calls) = self.badge(user)?;
        let counts = [("unread", unread), ("missed_calls", calls)];
        let counts = counts.into_iter().filter(|(_, count)| *count > 0);
        Ok(counts.map(|(name, count)| (name.to_owned(), count.into())).collect())
    }

    /// What the gateway of a pusher is told of an event; nothing if it was read meanwhile, or is not for the pusher's device or
    /// for gateways.
    pub(crate) fn notification_for(
        &self,
        (user, user_id): (UserNum, &UserId),
        pusher: &Pusher,
        (pos, room, event): (Pos, RoomNum, &Event),
        actions: &str,
    ) -> Result<Option<Value>, Error> {
        if !self.0.graph.has::<Unread>(&(user, room, pos))? {
            return Ok(None);
        }
        let viewer = Viewer { user, user_id, device_id: &pusher.device_id };
        if !is_invite(event, user_id) && !self.0.rooms.may_see(&viewer, event)? {
            return Ok(None);
        }
        let ids_only = match self.0.rooms.pushed(&viewer, event)? {
            Form::Nothing => return Ok(None),
            Form::Redacted => true,
            Form::Whole => self.0.settings.content == Content::IdsOnly || pusher.wants_ids_only(),
        };
        let tweaks = tweaks(actions);
        let mut notification = json!({
            "event_id": event.id,
            "room_id": event.room_id,
            "prio": if is_urgent(event, &tweaks) { "high" } else { "low" },
            "counts": self.counts(user)?,
            "devices": [device(pusher, (!ids_only).then_some(tweaks))],
        });
        if !ids_only && let Some(notification) = notification.as_object_mut() {
            self.describe(&viewer, event, notification)?;
        }
        Ok(Some(json!({ "notification": notification })))
    }

    /// What the event says, and how the room is called.
    fn describe(
        &self,
        viewer: &Viewer<'_>,
        event: &Event,
        notification: &mut Map<String, Value>,
    ) -> Result<(), Error> {
        let rooms = &self.0.rooms;
        let text = |event_type: &str, state_key: &str, field: &str| -> Result<Option<Value>, Error> {
            let Some(state) = rooms.state(event.record.room, event_type, state_key)? else {
                return Ok(None);
            };
            let content: Value = parse(rooms.content_for(viewer, &state)?.get())?;
            Ok(content.get(field).filter(|text| text.is_string()).cloned())
        };
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                notification.insert(name.to_owned(), value);
            }
        };
        put("type", Some(event.kind().to_string().into()));
        put("sender", Some(event.sender().as_str().into()));
        put("content", Some(parse(event.content().get())?));
        put("sender_display_name", text("m.room.member", event.sender().as_str(), "displayname")?);
        put("room_name", text("m.room.name", "", "name")?);
        put("room_alias", text("m.room.canonical_alias", "", "alias")?);
        if event.kind().to_string() == "m.room.member" {
            put("user_is_target", Some((event.state_key() == Some(viewer.user_id.as_str())).into()));
        }
        Ok(())
    }
}

fn parse(json: &str) -> Result<Value, Error> {
    serde_json::from_str(json).map_err(|error| Error::Damaged(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_set_tweaks() {
        let actions = r#"["notify",{"set_tweak":"sound","value":"ring"},{"set_tweak":"highlight"}]"#;
        assert_eq!(Value::from(tweaks(actions)), json!({ "sound": "ring", "highlight": true }));
        let off = r#"["notify",{"set_tweak":"highlight","value":false}]"#;
        assert_eq!(Value::from(tweaks(off)), json!({ "highlight": false }));
        assert!(tweaks(r#"["notify"]"#).is_empty());
    }
}
