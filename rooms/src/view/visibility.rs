//! Who may see which event (specification: room history visibility).

use super::Viewer;
use crate::{Error, Event, ends::is_dummy, rooms::Rooms};
use postern_graph::{Pos, RoomNum, Root, event::MembershipKind};
use ruma::events::TimelineEventType;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Visibility {
    Joined,
    Invited,
    Shared,
    WorldReadable,
}

impl Rooms {
    /// Whether a user may see an event.
    pub fn may_see(&self, viewer: &Viewer<'_>, event: &Event) -> Result<bool, Error> {
        if !event.record.is_visible() || is_dummy(event) || !self.may_read(viewer, event)? {
            return Ok(false);
        }
        let before = event.record.state_before;
        let mut visibility = self.visibility_in(before)?;
        if *event.kind() == TimelineEventType::RoomHistoryVisibility {
            // The change itself is seen by whoever may see either side of it.
            visibility = visibility.max(self.visibility_in(event.record.state_after)?);
        }
        if visibility == Visibility::WorldReadable {
            return Ok(true);
        }
        let mut then = self.membership_in(before, viewer)?;
        let own = *event.kind() == TimelineEventType::RoomMember
            && event.state_key() == Some(viewer.user_id.as_str());
        if own {
            // One's own joining, leaving, being invited and banned is one's own.
            return Ok(true);
        }
        if then == Some(MembershipKind::Join) {
            return Ok(true);
        }
        if event.state_key().is_some() && event.record.state_after != before {
            then = self.membership_in(event.record.state_after, viewer)?;
        }
        match visibility {
            Visibility::Invited => Ok(then == Some(MembershipKind::Invite)),
            Visibility::Shared => self.joined_after(viewer, event),
            Visibility::Joined | Visibility::WorldReadable => Ok(false),
        }
    }

    /// Whether the viewer was a member at some time after the event.
    fn joined_after(&self, viewer: &Viewer<'_>, event: &Event) -> Result<bool, Error> {
        let Some(now) = self.member(event.record.room, viewer.user)? else { return Ok(false) };
        if now.kind == MembershipKind::Join {
            return Ok(true);
        }
        if now.since <= event.record.pos {
            return Ok(false);
        }
        // No longer a member: then up to the time of leaving.
        let left = self.event(now.event)?;
        Ok(self.membership_in(left.record.state_before, viewer)? == Some(MembershipKind::Join))
    }

    fn visibility_in(&self, root: Root) -> Result<Visibility, Error> {
        let event = self.state_in(root, "m.room.history_visibility", "")?;
        let word = event.and_then(|event| event.content_text("history_visibility"));
        Ok(match word.as_deref() {
            Some("world_readable") => Visibility::WorldReadable,
            Some("invited") => Visibility::Invited,
            Some("joined") => Visibility::Joined,
            _ => Visibility::Shared,
        })
    }

    fn membership_in(&self, root: Root, viewer: &Viewer<'_>) -> Result<Option<MembershipKind>, Error> {
        let member = self.state_in(root, "m.room.member", viewer.user_id.as_str())?;
        Ok(member.as_deref().and_then(crate::membership::membership_of))
    }

    /// Whether anyone may read the room without being in it.
    pub fn is_world_readable(&self, room: RoomNum) -> Result<bool, Error> {
        let event = self.state(room, "m.room.history_visibility", "")?;
        Ok(event.and_then(|event| event.content_text("history_visibility")).as_deref()
            == Some("world_readable"))
    }

    /// The state a user may read of a room now: the current one for members, the one at their leaving for former
    /// members; where it was current.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for those who were never in it, unless anyone may read it.
    pub fn readable_state(&self, room: RoomNum, viewer: &Viewer<'_>) -> Result<(Root, Pos), Error> {
        let head =
            self.head(room)?.ok_or_else(|| Error::not_found("the room is not known to this server"))?;
        let latest = head.latest.unwrap_or(Pos(0));
        let membership = self.member(room, viewer.user)?;
        match membership {
            Some(now) if now.kind == MembershipKind::Join => Ok((head.state, latest)),
            _ if self.is_world_readable(room)? => Ok((head.state, latest)),
            Some(now) if matches!(now.kind, MembershipKind::Leave | MembershipKind::Ban) => {
                let left = self.event(now.event)?;
                let was = self.membership_in(left.record.state_before, viewer)?;
                if was == Some(MembershipKind::Join) && self.forgotten(room, viewer.user)?.is_none() {
                    return Ok((left.record.state_after, now.since));
                }
                Err(Error::forbidden("you are not in this room"))
            }
            _ => Err(Error::forbidden("you are not in this room")),
        }
    }
}
