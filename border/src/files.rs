//! Who may have a file.

use crate::{Border, Error, facts::room_facts, gate::dominates, limits, standing::Standing};
use postern_graph::UserNum;
use postern_policy::ResolvedClearance;
use postern_rooms::{Asker, Event, Form, Rooms, view::Viewer};
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
        for event in self.vouched(standing, rooms, media, &shown)? {
            if self.sees_file(standing, rooms, asker, &event)? {
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

    /// Those of the events that show a file which count: who sent them had the file. Otherwise whoever finds out where a file is
    /// would get it by showing it.
    fn vouched(
        &self,
        standing: &Standing,
        rooms: &Rooms,
        media: &str,
        shown: &[Arc<Event>],
    ) -> Result<Vec<Arc<Event>>, Error> {
        let uploader = self.uploader_of(media);
        let from = media.split_once('/').map_or("", |(server, _)| server);
        let is_local = from == self.0.server.as_str();
        // Who uploaded a file to another server is known there; here it is known which server that was.
        let is_its_own = |event: &Event| match uploader {
            Some(uploader) if is_local => event.record.sender == uploader,
            _ => event.sender().server_name() == from,
        };
        let (mut vouched, mut open): (Vec<_>, Vec<_>) =
            shown.iter().cloned().partition(|event| is_its_own(event));
        if vouched.is_empty() {
            // It was handed on in ways that are not seen: whoever here is cleared for such a file may have it.
            for event in std::mem::take(&mut open) {
                let user = event.sender();
                let had_it = if rooms.is_local(user) {
                    let clearance = self.holder(standing, user, "")?.clearance.clone();
                    self.is_cleared_for_unshown(standing, rooms, &clearance, media)?
                } else {
                    !is_local
                };
                if had_it { vouched.push(event) } else { open.push(event) }
            }
        }
        let mut looked_at = 0;
        while looked_at < vouched.len() {
            let news: Vec<_> = vouched.iter().skip(looked_at).cloned().collect();
            looked_at = vouched.len();
            for event in std::mem::take(&mut open) {
                if self.had_file(standing, rooms, &event, &news)? {
                    vouched.push(event);
                } else {
                    open.push(event);
                }
            }
        }
        Ok(vouched)
    }

    /// Whether who sent an event has a file because of one of others. Of other servers the ledger says what they got: asking for
    /// the form in which they would get it would be a disclosure.
    fn had_file(
        &self,
        standing: &Standing,
        rooms: &Rooms,
        event: &Event,
        others: &[Arc<Event>],
    ) -> Result<bool, Error> {
        let user = event.sender();
        for other in others {
            let had_it = if rooms.is_local(user) {
                self.sees_file(standing, rooms, Asker::User(Some(user)), other)?
            } else {
                let facts = room_facts(standing, rooms, other.record.room)?;
                self.is_plain(standing, rooms, &facts, other)?
                    || other.sender().server_name() == user.server_name()
                    || self.0.ledger.got_whole(other.num, user.server_name())?
            };
            if had_it {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether somebody may see an event that shows a file.
    fn sees_file(
        &self,
        standing: &Standing,
        rooms: &Rooms,
        asker: Asker<'_>,
        event: &Event,
    ) -> Result<bool, Error> {
        let facts = room_facts(standing, rooms, event.record.room)?;
        match asker {
            // What has no label is everybody's who knows where it is, as everywhere in Matrix.
            Asker::Server(server) => Ok((facts.is_unlabelled() || rooms.is_in(server, event.record.room)?)
                && self.form(standing, rooms, server, event)? == Form::Whole),
            Asker::User(Some(user_id)) => match rooms.user(user_id)? {
                Some(user) => self.reads(standing, rooms, &Viewer { user, user_id, device_id: "" }, event),
                None => Ok(false),
            },
            Asker::User(None) => self.is_plain(standing, rooms, &facts, event),
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
