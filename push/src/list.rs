//! The list of what a user was notified of (specification: listing notifications).

use crate::{Error, Push, limits, payload::is_invite};
use postern_graph::{
    Pos,
    codec::Raw,
    schema::{Notifications, Unread},
};
use postern_rooms::view::{Format, Viewer};
use ruma::OwnedRoomId;
use serde::Serialize;
use serde_json::value::RawValue;

/// One of them.
#[derive(Debug, Serialize)]
pub struct Notification {
    /// What the rule asks for.
    pub actions: Box<RawValue>,
    /// The event.
    pub event: Box<RawValue>,
    /// Whether it was read.
    pub read: bool,
    /// Its room.
    pub room_id: OwnedRoomId,
    /// When it was sent, milliseconds since the epoch.
    pub ts: u64,
}

/// A page of the list.
#[derive(Debug)]
pub struct Page {
    /// The newest first.
    pub notifications: Vec<Notification>,
    /// Where the next page begins; nothing at the end.
    pub next: Option<Pos>,
}

impl Push {
    /// What a user was notified of, before a position if one is given, at most `limit`; with `highlights` only what was
    /// highlighted. What they cannot see any more is not in it.
    ///
    /// # Errors
    /// The store's.
    pub async fn notifications(
        &self,
        viewer: &Viewer<'_>,
        before: Option<Pos>,
        limit: usize,
        highlights: bool,
    ) -> Result<Page, Error> {
        self.caught_up().await;
        let limit = limit.clamp(1, limits::PAGE);
        let mut page = Page { notifications: Vec::new(), next: None };
        let range = self.0.graph.scan::<Notifications, _>(&(viewer.user,));
        let range = match before {
            Some(Pos(before)) => range.up_to(&(viewer.user, Pos(before.saturating_sub(1)))),
            None => range,
        };
        let mut last = Pos::MAX;
        for entry in range.reverse().iter().take(limits::NOTIFICATIONS + limits::SLACK) {
            let ((user, pos), (room, event, highlight, Raw(actions))) = entry?;
            if highlights && !highlight {
                continue;
            }
            let event = self.0.rooms.event(event)?;
            if !is_invite(&event, viewer.user_id) && !self.0.rooms.may_see(viewer, &event)? {
                continue;
            }
            if page.notifications.len() == limit {
                page.next = Some(last);
                break;
            }
            last = pos;
            let actions = String::from_utf8(actions).ok().and_then(|text| RawValue::from_string(text).ok());
            page.notifications.push(Notification {
                actions: actions.ok_or_else(|| Error::Damaged("actions that are none".to_owned()))?,
                event: self.0.rooms.client_event(&event, viewer, Format::SYNC)?,
                read: !self.0.graph.has::<Unread>(&(user, room, pos))?,
                room_id: self.0.rooms.room_id(room)?,
                ts: event.origin_server_ts(),
            });
        }
        Ok(page)
    }
}
