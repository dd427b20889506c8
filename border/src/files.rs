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
        let shown = rooms.events_showing(media, limits::SHOWING_EVENTS)?;
        for event in &shown {
            let facts = room_facts(standing, rooms, event.record.room)?;
            let may_see = match asker {
                // What has no label is everybody's who knows where it is, as everywhere in Matrix.
                Asker::Server(server) => {
                    (facts.is_unlabelled() || rooms.is_in(server, event.record.room)?)
                        && self.form(standing, rooms, server, event)? == Form::Whole
                }
                Asker::User(Some(user_id)) => match rooms.user(user_id)? {
                    Some(user) => {
                        self.reads(standing, rooms, &Viewer { user, user_id, device_id: "" }, event)?
                    }
                    None => false,
                },
                Asker::User(None) => self.is_plain(standing, rooms, &facts, event)?,
            };
            if may_see {
                return Ok(true);
            }
        }
        let clearance = match asker {
            Asker::Server(server) => standing.peer(server).clearance.clone(),
            Asker::User(Some(user)) => {
                let uploader = self.uploader_of(media);
                if uploader.is_some() && uploader == rooms.user(user)? {
                    return Ok(true);
                }
                self.holder(standing, user, "")?.clearance.clone()
            }
            Asker::User(None) => Arc::new(standing.policies.uncleared()),
        };
        if shown.is_empty() {
            self.is_cleared_for_unshown(standing, rooms, &clearance, media)
        } else {
            Ok(false)
        }
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
