//! Spills: something was said where it should not have been said. Who got it is in the ledger; what can be taken back is
//! redacted here and on every server of the rooms; what cannot is a list of servers and people to be spoken with.

use crate::{Border, Disclosure, Error, limits};
use postern_graph::{Pos, codec::Json, schema::Spills};
use postern_rooms::{
    Draft, Error as RoomsError, Event, MembershipKind, Rooms, Txn, now_ms,
    power::Action,
    view::{RelationQuery, Viewer},
};
use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, ServerName, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use utoipa::ToSchema;

/// How an event that shows a file of another comes to be among what was spilled.
const SAME_FILE: &str = "same file";

/// An event by which something was spilled.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SpilledEvent {
    /// The event.
    #[schema(value_type = String)]
    pub event_id: OwnedEventId,
    /// Its room.
    #[schema(value_type = String)]
    pub room_id: OwnedRoomId,
    /// Who sent it.
    #[schema(value_type = String)]
    pub sender: OwnedUserId,
    /// How it comes to be here: `original`, `edit`, `release`, or `same file`.
    pub relation: String,
    /// The redaction that took it back.
    #[schema(value_type = Option<String>)]
    pub redacted_by: Option<OwnedEventId>,
    /// Why it could not be taken back.
    pub not_redacted: Option<String>,
    /// The servers that got it.
    #[schema(value_type = HashMap<String, Disclosure>)]
    pub disclosed: BTreeMap<OwnedServerName, Disclosure>,
    /// The users of this server who could read it.
    #[schema(value_type = Vec<String>)]
    pub readers: Vec<OwnedUserId>,
}

/// A file that was spilled.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SpilledFile {
    /// `mxc://server/id`.
    pub uri: String,
    /// Whether it was here and is destroyed.
    pub destroyed: bool,
}

/// What is to be cleared up with a server.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct FollowUp {
    /// Of how many of the events it got the content.
    pub events_whole: u32,
    /// Of how many it got the redacted copy only.
    pub events_redacted: u32,
    /// Whether it is cleared up.
    pub done: bool,
    /// What was agreed.
    pub note: String,
    /// Who said so.
    #[schema(value_type = Option<String>)]
    pub by: Option<OwnedUserId>,
    /// When, milliseconds since the epoch.
    pub at: Option<u64>,
}

/// A spill, and what was done about it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Spill {
    /// Its id.
    pub id: String,
    /// Why it is one.
    pub reason: String,
    /// Who says so.
    #[schema(value_type = String)]
    pub opened_by: OwnedUserId,
    /// Since when, milliseconds since the epoch.
    pub opened_at: u64,
    /// The events.
    pub events: Vec<SpilledEvent>,
    /// The files they show.
    pub files: Vec<SpilledFile>,
    /// The other servers that got any of the events whole.
    #[schema(value_type = HashMap<String, FollowUp>)]
    pub servers: BTreeMap<OwnedServerName, FollowUp>,
    /// The users of this server who could read any of them, and whether they were spoken with.
    #[schema(value_type = HashMap<String, FollowUp>)]
    pub people: BTreeMap<OwnedUserId, FollowUp>,
    /// Whether all that can be taken back is.
    pub taken_back: bool,
}

impl Border {
    /// Takes back what was spilled by an event: it, its edits, its releases, and what else shows its files is redacted in all rooms,
    /// and destroyed here; who got what is written down before.
    ///
    /// # Errors
    /// Not found if the event is not here, the store's.
    pub async fn open_spill(
        &self,
        rooms: &Rooms,
        officer: &UserId,
        event: &EventId,
        reason: &str,
    ) -> Result<Spill, Error> {
        if reason.trim().is_empty() || reason.len() > limits::REASON_BYTES {
            let why = format!("reason: what happened, up to {} bytes", limits::REASON_BYTES);
            return Err(RoomsError::InvalidParam(why).into());
        }
        let first = rooms
            .event_by_id(event)?
            .ok_or_else(|| RoomsError::NotFound("there is no such event here".to_owned()))?;
        let _deciding = self.0.deciding.lock().await;
        // What left until now is in the report.
        self.write_down().await?;
        let found = self.spilled_with(rooms, &first)?;
        let mut spill = Spill {
            id: format!("{:032x}", rand::random::<u128>()),
            reason: reason.trim().to_owned(),
            opened_by: officer.to_owned(),
            opened_at: now_ms(),
            events: Vec::new(),
            files: Vec::new(),
            servers: BTreeMap::new(),
            people: BTreeMap::new(),
            taken_back: false,
        };
        let mut files = BTreeSet::new();
        for (relation, event) in &found {
            if relation != SAME_FILE {
                files.extend(files_of(event));
            }
            let spilled = self.report_on(rooms, relation, event)?;
            for (server, disclosure) in &spilled.disclosed {
                count(spill.servers.entry(server.clone()).or_default(), disclosure.whole);
            }
            for reader in &spilled.readers {
                count(spill.people.entry(reader.clone()).or_default(), true);
            }
            spill.events.push(spilled);
        }
        // A server that got redacted copies only has nothing to clear up.
        spill.servers.retain(|_, follow_up| follow_up.events_whole > 0);
        spill.files =
            files.iter().map(|name| SpilledFile { uri: format!("mxc://{name}"), destroyed: false }).collect();
        self.keep_spill(&spill).await?;
        tracing::warn!(target: "postern::border", spill = spill.id, %event, by = %officer, "a spill is taken back");
        self.take_back(rooms, &mut spill).await?;
        Ok(spill)
    }

    /// Tries again what could not be taken back before.
    ///
    /// # Errors
    /// Not found if there is no such spill, the store's.
    pub async fn retry_spill(&self, rooms: &Rooms, id: &str) -> Result<Spill, Error> {
        let _deciding = self.0.deciding.lock().await;
        let mut spill = self.spill(id)?;
        self.take_back(rooms, &mut spill).await?;
        Ok(spill)
    }

    /// Notes that it is cleared up with a server, or spoken about with a user.
    ///
    /// # Errors
    /// Not found if there is no such spill, or it does not concern them.
    pub async fn follow_up(
        &self,
        officer: &UserId,
        id: &str,
        whom: &str,
        done: bool,
        note: &str,
    ) -> Result<Spill, Error> {
        if note.len() > limits::REASON_BYTES {
            return Err(RoomsError::InvalidParam("note: it is too long".to_owned()).into());
        }
        let _deciding = self.0.deciding.lock().await;
        let mut spill = self.spill(id)?;
        let server = <&ServerName>::try_from(whom).ok().and_then(|server| spill.servers.get_mut(server));
        let user = <&UserId>::try_from(whom).ok().and_then(|user| spill.people.get_mut(user));
        let follow_up = server
            .or(user)
            .ok_or_else(|| RoomsError::NotFound(format!("the spill does not concern {whom}")))?;
        follow_up.done = done;
        follow_up.note = note.to_owned();
        follow_up.by = Some(officer.to_owned());
        follow_up.at = Some(now_ms());
        self.keep_spill(&spill).await?;
        Ok(spill)
    }

    /// A spill.
    ///
    /// # Errors
    /// Not found if there is no such one.
    pub fn spill(&self, id: &str) -> Result<Spill, Error> {
        let kept = self.0.graph.get::<Spills>(&(id.to_owned(),))?;
        let Some(Json(kept)) = kept else {
            return Err(RoomsError::NotFound("there is no such spill".to_owned()).into());
        };
        serde_json::from_value(kept).map_err(|error| RoomsError::BadJson(error.to_string()).into())
    }

    /// The spills after an id, at most so many.
    ///
    /// # Errors
    /// The store's.
    pub fn spills(&self, after: Option<&str>, most: usize) -> Result<Vec<Spill>, Error> {
        let mut range = self.0.graph.scan::<Spills, _>(&());
        if let Some(after) = after {
            range = range.after(&(after.to_owned(),));
        }
        let one = |entry: Result<((String,), Json<serde_json::Value>), postern_graph::Error>| {
            let (_, Json(kept)) = entry?;
            serde_json::from_value(kept).map_err(|error| RoomsError::BadJson(error.to_string()).into())
        };
        range.iter().take(most).map(one).collect()
    }

    /// The event, and what else brings what it says.
    fn spilled_with(&self, rooms: &Rooms, first: &Arc<Event>) -> Result<Vec<(String, Arc<Event>)>, Error> {
        let mut found: Vec<(String, Arc<Event>)> = vec![("original".to_owned(), first.clone())];
        let mut next = 0;
        while let Some((relation, event)) = found.get(next).cloned() {
            next += 1;
            let mut more = Vec::new();
            let edits = RelationQuery { rel_type: Some("m.replace".to_owned()), ..RelationQuery::default() };
            let all = (Pos::MIN, Pos::MAX);
            let (edits, _) = rooms.related(&event, &edits, all, true, limits::SPILLED_EVENTS)?;
            more.extend(edits.into_iter().map(|edit| ("edit", edit)));
            for id in self.released_from(&event)? {
                more.extend(rooms.event_by_id(&id)?.map(|event| ("release", event)));
            }
            // Others that show the same file may show files of their own, which have nothing to do with it.
            let files = if relation == SAME_FILE { BTreeSet::new() } else { files_of(&event) };
            for file in files {
                let shown = rooms.events_showing(&file, limits::SHOWING_EVENTS)?;
                more.extend(shown.into_iter().map(|event| (SAME_FILE, event)));
            }
            for (relation, event) in more {
                let is_new = found.iter().all(|(_, known)| known.num != event.num);
                if is_new && found.len() < limits::SPILLED_EVENTS {
                    found.push((relation.to_owned(), event));
                }
            }
        }
        Ok(found)
    }

    /// Who got an event.
    fn report_on(&self, rooms: &Rooms, relation: &str, event: &Event) -> Result<SpilledEvent, Error> {
        let mut readers = Vec::new();
        let members = rooms.members_of(event.record.room, MembershipKind::Join)?;
        for (user, _) in members.into_iter().take(limits::SPILL_READERS) {
            let user_id = rooms.user_id(user)?;
            if rooms.is_local(&user_id)
                && rooms.may_see(&Viewer { user, user_id: &user_id, device_id: "" }, event)?
            {
                readers.push(user_id);
            }
        }
        let redaction = event.record.redacted_by.map(|by| rooms.event(by)).transpose()?;
        Ok(SpilledEvent {
            event_id: event.id.clone(),
            room_id: event.room_id.clone(),
            sender: event.sender().to_owned(),
            relation: relation.to_owned(),
            redacted_by: redaction.map(|redaction| redaction.id.clone()),
            not_redacted: None,
            disclosed: self.disclosures(event.num)?.into_iter().collect(),
            readers,
        })
    }

    async fn take_back(&self, rooms: &Rooms, spill: &mut Spill) -> Result<(), Error> {
        let officer = spill.opened_by.clone();
        for spilled in &mut spill.events {
            let Some(event) = rooms.event_by_id(&spilled.event_id)? else { continue };
            if spilled.redacted_by.is_none() {
                match self.redact(rooms, &spill.id, &officer, &event).await {
                    Ok(redaction) => (spilled.redacted_by, spilled.not_redacted) = (Some(redaction), None),
                    Err(error) => spilled.not_redacted = Some(error.to_string()),
                }
            }
            if spilled.redacted_by.is_some() {
                rooms.destroy_original(event.num).await?;
            }
        }
        for file in &mut spill.files {
            let name = file.uri.trim_start_matches("mxc://");
            if let Some((server, id)) = name.split_once('/').filter(|_| !file.destroyed) {
                match self.0.media.remove(server, id).await {
                    Ok(()) => file.destroyed = true,
                    // It never was here, or is destroyed.
                    Err(postern_media::Error::NotFound) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        spill.taken_back = spill.events.iter().all(|event| event.redacted_by.is_some());
        self.keep_spill(spill).await
    }

    /// Redacts an event as the first of those who may and are let.
    async fn redact(
        &self,
        rooms: &Rooms,
        spill: &str,
        officer: &UserId,
        event: &Event,
    ) -> Result<OwnedEventId, RoomsError> {
        // It says nothing of why: all servers of the room get it.
        let content = serde_json::value::to_raw_value(&json!({}))
            .map_err(|error| RoomsError::BadJson(error.to_string()))?;
        let mut refused =
            "nobody of this server may redact it: its server, or an administrator of the room, has to"
                .to_owned();
        for by in self.redactors(rooms, officer, event)? {
            let txn = Txn {
                device: String::new(),
                scope: format!("io.postern.spill {}", event.id),
                id: spill.to_owned(),
            };
            let draft = Draft {
                redacts: Some(event.id.clone()),
                txn: Some(txn),
                ..Draft::message("m.room.redaction", content.clone())
            };
            match rooms.send(&by, &event.room_id, draft).await {
                // Not cleared for the room, for instance.
                Err(RoomsError::Forbidden(why)) => refused = why,
                sent => return sent,
            }
        }
        Err(RoomsError::Forbidden(refused))
    }

    /// The officer if the room lets them, who sent it, and the most powerful of the room's local members.
    fn redactors(
        &self,
        rooms: &Rooms,
        officer: &UserId,
        event: &Event,
    ) -> Result<Vec<OwnedUserId>, RoomsError> {
        let room = event.record.room;
        let levels = rooms.power_levels(room)?;
        let mut may = Vec::new();
        for user in rooms.joined_users_of(room, &self.0.server)? {
            let user = rooms.user_id(user)?;
            if user == event.sender() || levels.may(&user, Action::Redact) {
                may.push(user);
            }
        }
        may.sort_by_cached_key(|user| {
            (user != officer, user != event.sender(), std::cmp::Reverse(levels.level(user)))
        });
        may.truncate(limits::REDACTORS);
        Ok(may)
    }

    async fn keep_spill(&self, spill: &Spill) -> Result<(), Error> {
        let mut commit = self.0.graph.begin();
        commit.put::<Spills>(&(spill.id.clone(),), &Json(json!(spill)));
        Ok(self.0.graph.commit_beside_log_durably(commit).await?)
    }
}

/// The files that an event is about, `server/id` of each, with their pictures; not what merely stands in its text.
fn files_of(event: &Event) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![event.content_as::<Value>().unwrap_or_default()];
    while let Some(content) = open.pop() {
        let uris = ["url", "thumbnail_url"].into_iter().filter_map(|key| content.get(key)?.as_str());
        found.extend(uris.filter_map(|uri| uri.strip_prefix("mxc://")).map(str::to_owned));
        let inner = ["file", "thumbnail_file", "info", "m.new_content"].into_iter();
        open.extend(inner.filter_map(|key| content.get(key).cloned()));
    }
    found
}

fn count(follow_up: &mut FollowUp, whole: bool) {
    if whole {
        follow_up.events_whole += 1;
    } else {
        follow_up.events_redacted += 1;
    }
}
