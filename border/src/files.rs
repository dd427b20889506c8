//! Who may have a file.

use crate::{Border, Error, facts::room_facts, gate::dominates, limits, standing::Standing};
use postern_graph::UserNum;
use postern_policy::ResolvedClearance;
use postern_rooms::{Asker, Form, Rooms, view::Viewer};
use std::sync::Arc;

impl Border {
    /// Whether somebody may have a file: who may see an event that shows it. In encrypted rooms no event says which file it
    /// shows; there whoever is cleared for all that its uploader may have shown it in.
    pub(crate) fn fetches(
        &self,
        standing: &Standing,
        rooms: &Rooms,
        asker: Asker<'_>,
        media: &str,
    ) -> Result<bool, Error> {
        let clearance: Arc<ResolvedClearance> = match asker {
            Asker::Server(server) => {
                for event in rooms.events_showing(media, limits::SHOWING_EVENTS)? {
                    if rooms.is_in(server, event.record.room)?
                        && self.form(standing, rooms, server, &event)? == Form::Whole
                    {
                        return Ok(true);
                    }
                }
                standing.peer(server).clearance.clone()
            }
            Asker::User(Some(user)) => {
                let Some(number) = rooms.user(user)? else { return Ok(false) };
                let viewer = Viewer { user: number, user_id: user, device_id: "" };
                for event in rooms.events_showing(media, limits::SHOWING_EVENTS)? {
                    if self.reads(standing, rooms, &viewer, &event)? {
                        return Ok(true);
                    }
                }
                let holder = self.holder(standing, number, user, "")?;
                if self.uploader_of(media) == Some(number) {
                    return Ok(true);
                }
                holder.clearance.clone()
            }
            Asker::User(None) => Arc::new(standing.policies.uncleared()),
        };
        if !rooms.events_showing(media, 1)?.is_empty() {
            return Ok(false);
        }
        self.is_cleared_for_unshown(standing, rooms, &clearance, media)
    }

    fn uploader_of(&self, media: &str) -> Option<UserNum> {
        let (server, id) = media.split_once('/')?;
        Some(self.0.media.record(server, id).ok()?.uploader)
    }

    /// Whether a clearance covers everything a file can be about that no event shows.
    fn is_cleared_for_unshown(
        &self,
        standing: &Standing,
        rooms: &Rooms,
        clearance: &ResolvedClearance,
        media: &str,
    ) -> Result<bool, Error> {
        let (Some((server, _)), Some(uploader)) = (media.split_once('/'), self.uploader_of(media)) else {
            // It is not here: who fetches it is asked again by the server that has it.
            return Ok(true);
        };
        if server != self.0.server.as_str() {
            return Ok(true);
        }
        for room in rooms.joined_rooms(uploader)?.into_iter().take(limits::UPLOADERS_ROOMS) {
            let facts = room_facts(standing, rooms, room)?;
            if !dominates(clearance, &facts.ceiling) && rooms.state(room, "m.room.encryption", "")?.is_some()
            {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
