//! Who may have a file.

use crate::{
    Border, Error,
    facts::{Held, room_facts, text_of},
    gate::{dominates, why_not},
    limits,
    rulings::{across, rule, within},
    standing::Standing,
};
use futures::stream;
use postern_graph::UserNum;
use postern_guards::File;
use postern_media::Record;
use postern_policy::{
    Label, ResolvedClearance,
    decide::{self, Action, Resource},
};
use postern_rooms::{Asker, Error as RoomsError, Event, Form, Rooms, now_ms, view::Viewer};
use ruma::{ServerName, UserId};
use serde_json::Value;
use std::{collections::BTreeSet, io, sync::Arc};
use tokio_util::io::StreamReader;

/// For how long it counts what was found in a file, milliseconds.
const FILE_LOOKED_AT_MS: u64 = 86_400_000;

/// The label of a file.
pub(crate) struct FileLabel {
    pub(crate) held: Held,
    /// For people.
    pub(crate) text: String,
}

impl FileLabel {
    /// As it is kept with the file.
    pub(crate) fn kept(standing: &Standing, kept: String) -> Self {
        let label = serde_json::from_str::<Value>(&kept)
            .map_err(|error| error.to_string())
            .and_then(|label| Label::from_json(&label).map_err(|error| error.to_string()));
        match label {
            Ok(label) => Self { held: standing.resolve(Some(&label)), text: text_of(standing, &label) },
            Err(error) => Self { held: Err(error.into()), text: kept },
        }
    }

    /// As whoever uploads the file says it.
    pub(crate) fn said(standing: &Standing, said: &str) -> Result<Label, String> {
        let label = standing.policies.parse_label(said).and_then(|label| standing.policies.complete(&label));
        label.map_err(|error| error.to_string())
    }
}

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
        if let Some(label) = self.label_of(standing, media)
            && !dominates(&*self.clearance_of(standing, asker)?, &label.held)
        {
            return Ok(false);
        }
        let shown = rooms.events_showing(media, limits::SHOWING_EVENTS)?;
        for event in self.vouched(standing, rooms, media, &shown)? {
            if self.sees_file(standing, rooms, asker, &event)? {
                return Ok(true);
            }
        }
        if let Asker::User(Some(user)) | Asker::Device(user, _) = asker {
            let uploader = self.uploader_of(media);
            if uploader.is_some() && uploader == rooms.user(user)? {
                return Ok(true);
            }
        }
        let clearance = self.clearance_of(standing, asker)?;
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
            Asker::User(Some(user_id)) => self.sees_file(standing, rooms, Asker::Device(user_id, ""), event),
            Asker::Device(user_id, device_id) => match rooms.user(user_id)? {
                Some(user) => self.reads(standing, rooms, &Viewer { user, user_id, device_id }, event),
                None => Ok(false),
            },
            Asker::User(None) => self.is_plain(standing, rooms, &facts, event),
        }
    }

    fn clearance_of(&self, standing: &Standing, asker: Asker<'_>) -> Result<Arc<ResolvedClearance>, Error> {
        Ok(match asker {
            Asker::Server(server) => standing.peer(server).clearance.clone(),
            Asker::User(Some(user)) => self.holder(standing, user, "")?.clearance.clone(),
            Asker::Device(user, device) => self.holder(standing, user, device)?.clearance.clone(),
            Asker::User(None) => Arc::new(standing.policies.uncleared()),
        })
    }

    /// The label of a file that is here, if it was given one.
    pub(crate) fn label_of(&self, standing: &Standing, media: &str) -> Option<FileLabel> {
        let (server, id) = media.split_once('/')?;
        Some(FileLabel::kept(standing, self.0.media.record(server, id).ok()?.label?))
    }

    /// The label a file gets of which its uploader says the type and the label.
    pub(crate) fn uploads(
        &self,
        standing: &Standing,
        user: &UserId,
        device: &str,
        (content_type, label): (Option<&str>, Option<&str>),
    ) -> Result<Option<String>, Error> {
        if label.is_none() && !standing.watches_all {
            return Ok(None);
        }
        let forbidden = |why: String| Error::from(RoomsError::Forbidden(why));
        let label = label.map(|said| FileLabel::said(standing, said)).transpose().map_err(forbidden)?;
        let held = standing.resolve(label.as_ref());
        let holder = self.holder(standing, user, device)?;
        if !dominates(&holder.clearance, &held) {
            let why = why_not(standing, &holder.clearance, &held);
            return Err(forbidden(format!("you are not cleared for what you want to upload: {why}")));
        }
        let resource = Resource::Media(Arc::new(decide::Media {
            id: String::new(),
            r#type: content_type.unwrap_or_default().to_owned(),
            size: 0,
            room: None,
            label: label.as_ref().map(|label| text_of(standing, label)),
        }));
        let mut question = within(holder.user.clone(), Action::Send, resource, true);
        question.context.sender_dominates = true;
        question.context.via = decide::Door::Media;
        let ruling = rule(standing, &self.0.ledger, question);
        if !ruling.allowed {
            self.refuse("send", user.as_str(), "", &ruling.why);
            return Err(forbidden(format!("you may not upload this: {}", ruling.why)));
        }
        Ok(label.map(|label| label.to_canonical_json()))
    }

    /// Whether a file of this server may go to another one, which was found to be cleared for it, with what the guards find.
    pub(crate) async fn leaves(&self, server: &ServerName, media: &str) -> Result<bool, Error> {
        let standing = self.standing();
        let Some((own, id)) = media.split_once('/') else { return Ok(true) };
        let Ok(record) = self.0.media.record(own, id) else { return Ok(true) };
        if !standing.watches_all && record.label.is_none() {
            return Ok(true);
        }
        let label = self.label_of(&standing, media);
        let peer = standing.peer(server);
        let cleared = label.as_ref().is_none_or(|label| dominates(&peer.clearance, &label.held));
        // Which one it is, is asked where some policy wants to know it.
        let name = if standing.is_particular { format!("mxc://{media}") } else { String::new() };
        let resource = Resource::Media(Arc::new(decide::Media {
            id: name,
            r#type: record.content_type.clone().unwrap_or_default(),
            size: if standing.is_particular { record.size } else { 0 },
            room: None,
            label: label.map(|label| label.text),
        }));
        let mut question = across(&peer, Action::Release, resource, cleared);
        question.context.via = decide::Door::Media;
        question.context.guard = (*self.found_in_file(&standing, own, id, &record).await?).clone();
        let ruling = rule(&standing, &self.0.ledger, question);
        if !ruling.allowed {
            self.refuse("file", server.as_str(), media, &ruling.why);
        }
        Ok(ruling.allowed)
    }

    /// What the guards find in a file: looked for once a day, as scanners learn of new viruses.
    async fn found_in_file(
        &self,
        standing: &Standing,
        server: &str,
        id: &str,
        record: &Record,
    ) -> Result<Arc<BTreeSet<String>>, Error> {
        let Some(guards) = &standing.guards else { return Ok(Arc::default()) };
        let content = (record.sha256.clone(), record.file_name.clone(), record.content_type.clone());
        if let Some((until, found)) = standing.files.get(&content)
            && now_ms() < until
        {
            return Ok(found);
        }
        let file = File {
            name: record.file_name.as_deref(),
            media_type: record.content_type.as_deref(),
            size: Some(record.size),
        };
        let pieces = self.0.media.read(server, id, 0..record.size);
        let pieces = stream::iter(pieces.map(|piece| piece.map_err(io::Error::other)));
        let verdict = guards
            .inspect_file(&file, StreamReader::new(pieces))
            .await
            .map_err(|error| postern_media::Error::Internal(error.to_string()))?;
        let found = Arc::new(verdict.classes().clone());
        // A scanner that cannot be asked now may be asked later.
        if !verdict.contains("antivirus:unavailable") {
            standing.files.insert(content, (now_ms() + FILE_LOOKED_AT_MS, found.clone()));
        }
        Ok(found)
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
