//! Aliases, and the directory of public rooms (specification: room aliases, listing rooms).

use crate::{Entry, Error, limits, membership::allows_by_clearance, power::Action, rooms::Rooms};
use postern_graph::{
    NameKind, RoomNum, UserNum,
    event::MembershipKind,
    schema::{Aliases, Published, RoomAliases},
};
use ruma::{OwnedRoomAliasId, RoomAliasId, RoomId, ServerName, UserId};
use serde::Serialize;

/// What the directory of public rooms says about a room.
#[derive(Debug, Clone, Serialize)]
pub struct Listing {
    /// Its id.
    pub room_id: String,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Its canonical alias.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canonical_alias: Option<String>,
    /// Its avatar, an `mxc` address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avatar_url: Option<String>,
    /// Whether guests may join.
    pub guest_can_join: bool,
    /// Who may join.
    pub join_rule: String,
    /// How many have joined.
    pub num_joined_members: usize,
    /// `type` of the create event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room_type: Option<String>,
    /// Whether anyone may read it.
    pub world_readable: bool,
}

/// What a space or a summary says about a room: more than the directory may, whose entries some clients take only as they
/// are specified.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// What the directory says, too.
    #[serde(flatten)]
    pub listing: Listing,
    /// Its encryption algorithm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption: Option<String>,
    /// Its version.
    pub room_version: String,
    /// For restricted rooms: the rooms whose members may join.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_room_ids: Vec<String>,
}

/// Which public rooms.
#[derive(Debug, Clone, Default)]
pub struct PublicRooms {
    /// Text that name, topic or alias contain.
    pub term: Option<String>,
    /// Only of these types (none: a room without type).
    pub types: Option<Vec<Option<String>>>,
}

/// Who asks for public rooms.
#[derive(Debug, Clone, Copy)]
pub enum Asker<'a> {
    /// A user of this server, or somebody who does not say who they are.
    User(Option<&'a UserId>),
    /// A user of this server on one of their devices.
    Device(&'a UserId, &'a str),
    /// Another server.
    Server(&'a ServerName),
}

impl Rooms {
    /// The room an alias of this server points to.
    pub fn resolve_alias(&self, alias: &RoomAliasId) -> Result<Option<RoomNum>, Error> {
        Ok(self.graph.get::<Aliases>(&(alias.to_string(),))?.map(|(room, _)| room))
    }

    /// Makes an alias.
    ///
    /// # Errors
    /// [`Error::AliasInUse`]; [`Error::InvalidParam`] if it is not of this server; [`Error::NotFound`] without the
    /// room.
    pub async fn create_alias(
        &self,
        user: &UserId,
        alias: &RoomAliasId,
        room_id: &RoomId,
    ) -> Result<(), Error> {
        if alias.server_name() != self.server_name() {
            return Err(Error::InvalidParam("an alias is made on its own server".to_owned()));
        }
        let room = self.known_room(room_id)?;
        let seq = {
            // The room's lane: two requests for one alias of one room take turns; of two rooms, the later wins
            // nothing either, since it looks again.
            let _turn = self.alias_turn.lock().await;
            if self.graph.has::<Aliases>(&(alias.to_string(),))? {
                return Err(Error::AliasInUse(alias.to_string()));
            }
            let mut commit = self.graph.begin();
            let user = UserNum(self.graph.intern(NameKind::User, user.as_str(), &mut commit)?);
            commit.put::<Aliases>(&(alias.to_string(),), &(room, user));
            commit.put::<RoomAliases>(&(room, alias.to_string()), &());
            self.graph.commit(commit)?
        };
        self.durable(seq).await
    }

    /// Removes an alias: its maker may, and whoever may change the room's canonical alias.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn remove_alias(&self, user: &UserId, alias: &RoomAliasId, admin: bool) -> Result<(), Error> {
        let seq = {
            let _turn = self.alias_turn.lock().await;
            let (room, maker) = self
                .graph
                .get::<Aliases>(&(alias.to_string(),))?
                .ok_or_else(|| Error::not_found("there is no such alias"))?;
            let made = self.user(user)? == Some(maker);
            let powerful = || {
                self.power_levels(room)
                    .is_ok_and(|levels| levels.may_send(user, &"m.room.canonical_alias".into(), true))
            };
            if !made && !admin && !powerful() {
                return Err(Error::forbidden("you may not remove this alias"));
            }
            let mut commit = self.graph.begin();
            commit.delete::<Aliases>(&(alias.to_string(),));
            commit.delete::<RoomAliases>(&(room, alias.to_string()));
            self.graph.commit(commit)?
        };
        self.durable(seq).await
    }

    /// The aliases of a room on this server.
    pub fn aliases(&self, room: RoomNum) -> Result<Vec<OwnedRoomAliasId>, Error> {
        let mut aliases = Vec::new();
        for entry in self.graph.scan::<RoomAliases, _>(&(room,)).iter() {
            let ((_, alias), ()) = entry?;
            aliases.extend(RoomAliasId::parse(&alias).ok());
        }
        Ok(aliases)
    }

    /// Whether a room is in the public directory.
    pub fn is_published(&self, room: RoomNum) -> Result<bool, Error> {
        Ok(self.graph.has::<Published>(&(room,))?)
    }

    /// Puts a room into the public directory, or takes it out: those may who may change its canonical alias.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub async fn publish(
        &self,
        user: &UserId,
        room: RoomNum,
        published: bool,
        admin: bool,
    ) -> Result<(), Error> {
        let joined = self.user(user)?.map_or(Ok(false), |number| self.is_joined(room, number))?;
        let powerful = self.power_levels(room)?.may_send(user, &"m.room.canonical_alias".into(), true);
        if !(admin || joined && powerful) {
            return Err(Error::forbidden("you may not change how this room is listed"));
        }
        let mut commit = self.graph.begin();
        if published {
            commit.put::<Published>(&(room,), &());
        } else {
            commit.delete::<Published>(&(room,));
        }
        let seq = self.graph.commit(commit)?;
        self.durable(seq).await
    }

    /// A page of the public rooms that match, as the specification has it: `since` is a token of an earlier page.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] for a token that is none.
    pub fn public_page(
        &self,
        asker: Asker<'_>,
        query: &PublicRooms,
        since: Option<&str>,
        limit: Option<u64>,
    ) -> Result<serde_json::Value, Error> {
        let skip: usize = match since {
            None | Some("") => 0,
            Some(token) => token
                .strip_prefix('p')
                .and_then(|skip| skip.parse().ok())
                .ok_or_else(|| Error::InvalidParam("since is no token of this server".to_owned()))?,
        };
        let limit = usize::try_from(limit.unwrap_or(100).clamp(1, 500)).unwrap_or(100);
        let all = self.public_rooms(asker, query)?;
        let total = all.len();
        let chunk: Vec<_> = all.into_iter().skip(skip).take(limit).collect();
        let mut body = serde_json::json!({ "total_room_count_estimate": total });
        if skip + chunk.len() < total {
            body["next_batch"] = format!("p{}", skip + chunk.len()).into();
        }
        if skip > 0 {
            body["prev_batch"] = format!("p{}", skip.saturating_sub(limit)).into();
        }
        body["chunk"] = serde_json::json!(chunk);
        Ok(body)
    }

    /// The public rooms that match and that who asks may know, the largest first.
    pub fn public_rooms(&self, asker: Asker<'_>, query: &PublicRooms) -> Result<Vec<Listing>, Error> {
        let term = query.term.as_deref().map(str::to_lowercase).filter(|term| !term.is_empty());
        let mut found = Vec::new();
        for entry in self.graph.scan::<Published, _>(&()).iter().take(limits::PUBLIC_ROOMS) {
            let ((room,), ()) = entry?;
            let may_know = match asker {
                Asker::User(user) => self.may_enter(user, room, Entry::Look)?,
                Asker::Device(user, _) => self.may_enter(Some(user), room, Entry::Look)?,
                Asker::Server(server) => self.may_know(server, room)?,
            };
            if !may_know {
                continue;
            }
            let Ok(Summary { listing, .. }) = self.summary(asker, room) else { continue };
            let texts = [&listing.name, &listing.topic, &listing.canonical_alias];
            let contains = |term: &str| {
                texts.into_iter().flatten().any(|text| text.to_lowercase().contains(term))
                    || listing.room_id.to_lowercase() == term
            };
            if term.as_deref().is_some_and(|term| !contains(term)) {
                continue;
            }
            if query.types.as_ref().is_some_and(|types| !types.contains(&listing.room_type)) {
                continue;
            }
            found.push(listing);
        }
        found.sort_by(|a, b| {
            b.num_joined_members.cmp(&a.num_joined_members).then_with(|| a.room_id.cmp(&b.room_id))
        });
        Ok(found)
    }

    /// What a directory says about a room to who asks.
    pub fn summary(&self, asker: Asker<'_>, room: RoomNum) -> Result<Summary, Error> {
        let text = |event_type: &str, field: &str| -> Result<Option<String>, Error> {
            let Some(event) = self.state(room, event_type, "")? else { return Ok(None) };
            if !self.may_be_told(asker, &event)? {
                return Ok(None);
            }
            Ok(event.content_text(field).filter(|text| !text.is_empty()))
        };
        let record = self.record(room)?.ok_or_else(|| Error::not_found("the room is not known"))?;
        let join_rules = self.state(room, "m.room.join_rules", "")?;
        let join_rule = join_rules.as_ref().and_then(|event| event.content_text("join_rule"));
        let restricted = matches!(join_rule.as_deref(), Some("restricted" | "knock_restricted"));
        let allowed = match &join_rules {
            Some(event) if restricted => allowed_rooms(event),
            _ => Vec::new(),
        };
        let listing = Listing {
            room_id: self.room_id(room)?.to_string(),
            name: text("m.room.name", "name")?,
            topic: text("m.room.topic", "topic")?,
            canonical_alias: text("m.room.canonical_alias", "alias")?,
            avatar_url: text("m.room.avatar", "url")?,
            guest_can_join: text("m.room.guest_access", "guest_access")?.as_deref() == Some("can_join"),
            join_rule: join_rule.unwrap_or_else(|| "invite".to_owned()),
            num_joined_members: self.members_of(room, MembershipKind::Join)?.len(),
            room_type: record.room_type,
            world_readable: self.is_world_readable(room)?,
        };
        Ok(Summary {
            listing,
            encryption: text("m.room.encryption", "algorithm")?,
            room_version: record.version,
            allowed_room_ids: allowed,
        })
    }

    /// Whether somebody may know that a room exists and what it is called: members and those who are invited, anyone if
    /// it can be joined, knocked at or read by anyone, and members of a room that allows joining.
    pub fn may_see_summary(&self, room: RoomNum, user: Option<UserNum>) -> Result<bool, Error> {
        let id = user.map(|user| self.user_id(user)).transpose()?;
        Ok(self.may_enter(id.as_deref(), room, Entry::Look)? && self.rules_show_summary(room, user)?)
    }

    fn rules_show_summary(&self, room: RoomNum, user: Option<UserNum>) -> Result<bool, Error> {
        if let Some(user) = user
            && let Some(membership) = self.member(room, user)?
            && matches!(membership.kind, MembershipKind::Join | MembershipKind::Invite)
        {
            return Ok(true);
        }
        if self.is_world_readable(room)? {
            return Ok(true);
        }
        let Some(join_rules) = self.state(room, "m.room.join_rules", "")? else { return Ok(false) };
        match join_rules.content_text("join_rule").as_deref() {
            Some("public" | "knock" | "knock_restricted") => Ok(true),
            Some("restricted") => {
                let Some(user) = user else { return Ok(false) };
                if allows_by_clearance(&join_rules.content_as().unwrap_or_default())
                    && let Some(gate) = self.gate()
                    && gate.clears(self, &self.user_id(user)?, room)?
                {
                    return Ok(true);
                }
                for allowed in allowed_rooms(&join_rules) {
                    if let Ok(id) = <&RoomId>::try_from(allowed.as_str())
                        && let Some(allowed) = self.room(id)?
                        && self.is_joined(allowed, user)?
                    {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            _ => Ok(false),
        }
    }

    /// The same for a server, on behalf of its users.
    pub fn may_server_see_summary(&self, room: RoomNum, server: &ServerName) -> Result<bool, Error> {
        if !self.may_know(server, room)? {
            return Ok(false);
        }
        if self.is_in(server, room)? || self.rules_show_summary(room, None)? {
            return Ok(true);
        }
        for (user, _) in self.members_of(room, MembershipKind::Invite)? {
            if self.user_id(user)?.server_name() == server {
                return Ok(true);
            }
        }
        let Some(join_rules) = self.state(room, "m.room.join_rules", "")? else { return Ok(false) };
        if join_rules.content_text("join_rule").as_deref() != Some("restricted") {
            return Ok(false);
        }
        // That it is cleared was found out before.
        if allows_by_clearance(&join_rules.content_as().unwrap_or_default()) && self.gate().is_some() {
            return Ok(true);
        }
        for allowed in allowed_rooms(&join_rules).into_iter().take(limits::ALLOWING_ROOMS) {
            if let Ok(id) = <&RoomId>::try_from(allowed.as_str())
                && let Some(allowed) = self.room(id)?
                && self.is_in(server, allowed)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a user may invite others to a room.
    pub fn may_invite(&self, room: RoomNum, user: &UserId) -> Result<bool, Error> {
        Ok(self.power_levels(room)?.may(user, Action::Invite))
    }
}

/// The rooms whose members may join, of a join rules event.
fn allowed_rooms(join_rules: &crate::Event) -> Vec<String> {
    let content: serde_json::Value = join_rules.content_as().unwrap_or_default();
    let allowed = content.get("allow").and_then(serde_json::Value::as_array);
    allowed
        .into_iter()
        .flatten()
        .filter(|entry| entry.get("type").and_then(serde_json::Value::as_str) == Some("m.room_membership"))
        .filter_map(|entry| entry.get("room_id")?.as_str().map(str::to_owned))
        .collect()
}
