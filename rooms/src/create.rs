//! Creating rooms, and replacing them by upgraded ones.

use crate::{
    Error,
    batch::{Batch, Draft},
    gate::{ENCRYPTION, LABEL},
    limits,
    membership::profile,
    rooms::Rooms,
    version::{Version, version},
};
use postern_graph::{
    NameKind, RoomNum, UserNum,
    codec::Json,
    event::{RoomHead, RoomRecord},
    schema::{Aliases, Published, RoomAliases, Rooms as RoomRecords},
};
use ruma::{OwnedRoomAliasId, OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tokio::sync::OwnedMutexGuard;

/// The presets of `POST /createRoom`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// By invitation; the history is shared with whoever joins.
    PrivateChat,
    /// The same, and those invited have the creator's power.
    TrustedPrivateChat,
    /// Anyone may join.
    PublicChat,
}

impl Preset {
    /// All of them, with their names in the specification.
    pub const ALL: [(&str, Self); 3] = [
        ("private_chat", Self::PrivateChat),
        ("trusted_private_chat", Self::TrustedPrivateChat),
        ("public_chat", Self::PublicChat),
    ];
}

/// What to create.
#[derive(Debug, Clone)]
pub struct CreateRoom {
    /// The room version; the server's default if none is asked for.
    pub version: Option<String>,
    /// Keys for the content of the create event.
    pub creation_content: Map<String, Value>,
    /// What the room starts from.
    pub preset: Preset,
    /// State on top of the preset: (type, state key, content).
    pub initial_state: Vec<(String, String, Value)>,
    /// The name.
    pub name: Option<String>,
    /// The topic.
    pub topic: Option<String>,
    /// Changes to the default power levels.
    pub power_levels: Map<String, Value>,
    /// Who is invited. Those of other servers are invited once the room is there: their servers have to sign it.
    pub invite: Vec<OwnedUserId>,
    /// Whether these invites are for a direct chat.
    pub is_direct: bool,
    /// The alias it gets.
    pub alias: Option<OwnedRoomAliasId>,
    /// Whether it is listed in the public directory.
    pub published: bool,
}

impl Default for CreateRoom {
    fn default() -> Self {
        Self {
            version: None,
            creation_content: Map::new(),
            preset: Preset::PrivateChat,
            initial_state: Vec::new(),
            name: None,
            topic: None,
            power_levels: Map::new(),
            invite: Vec::new(),
            is_direct: false,
            alias: None,
            published: false,
        }
    }
}

impl Rooms {
    /// Creates a room with `creator` in it; all of it lands, or none.
    ///
    /// # Errors
    /// [`Error::UnsupportedVersion`], [`Error::AliasInUse`], [`Error::InvalidRoomState`] if the state asked for
    /// contradicts the room's rules, [`Error::BadJson`].
    pub async fn create(&self, creator: &UserId, mut request: CreateRoom) -> Result<OwnedRoomId, Error> {
        if let Some(gate) = self.gate() {
            gate.creating(self, creator, &mut request)?;
        }
        let version = version(request.version.as_deref().unwrap_or(self.default_version()))?;
        if let Some(alias) = &request.alias
            && self.graph.has::<Aliases>(&(alias.to_string(),))?
        {
            return Err(Error::AliasInUse(alias.to_string()));
        }
        let mut batch =
            self.begin_room(creator, &version, &request.creation_content, additional(&request, &version))?;
        populate(&mut batch, creator, &request).map_err(|error| match error {
            Error::Forbidden(why) => Error::InvalidRoomState(why),
            other => other,
        })?;
        take_in(&mut batch, creator, &request.creation_content)?;
        let room_id = batch.room_id.clone();
        if let Some(alias) = &request.alias {
            let user = UserNum(self.graph.intern(NameKind::User, creator.as_str(), &mut batch.commit)?);
            batch.commit.put::<Aliases>(&(alias.to_string(),), &(batch.room, user));
            batch.commit.put::<RoomAliases>(&(batch.room, alias.to_string()), &());
        }
        if request.published {
            batch.commit.put::<Published>(&(batch.room,), &());
        }
        let seq = batch.commit()?;
        self.durable(seq).await?;
        Ok(room_id)
    }

    /// A batch that begins a room with its create event and the creator's join.
    fn begin_room(
        &self,
        creator: &UserId,
        version: &Arc<Version>,
        creation_content: &Map<String, Value>,
        additional_creators: Vec<OwnedUserId>,
    ) -> Result<Batch<'_>, Error> {
        let rules = &version.rules.authorization;
        let mut content = creation_content.clone();
        let is_kept = version.rules.redaction.keep_room_create_content;
        if !is_kept && [LABEL, ENCRYPTION].iter().any(|key| content.contains_key(*key)) {
            return Err(Error::forbidden(format!(
                "a room of version {} cannot have a label or a rule for encryption, which redaction would take away: 11 or later can",
                version.id
            )));
        }
        if rules.additional_room_creators {
            check_creators(&content)?;
        }
        content.insert("room_version".to_owned(), version.id.as_str().into());
        content.remove("creator");
        if !rules.use_room_create_sender {
            content.insert("creator".to_owned(), creator.as_str().into());
        }
        if !additional_creators.is_empty() {
            content.insert(
                "additional_creators".to_owned(),
                additional_creators.iter().map(|user| Value::from(user.as_str())).collect(),
            );
        }
        let draft = Draft::state("m.room.create", "", &content)?;
        let name: [u8; 18] = rand::random();
        let local = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, name);
        let provisional: OwnedRoomId = RoomId::parse(format!("!{local}:{}", self.server_name()))
            .map_err(|error| Error::BadJson(error.to_string()))?;

        let mut commit = self.graph.begin();
        let by_hash = rules.room_create_event_id_as_room_id;
        let (room_id, sealed) = if by_hash {
            // The room's id is the hash of the create event, so the event comes first.
            let unnamed = self.unplaced(commit, provisional, version);
            let sealed = unnamed.seal(unnamed.build(creator, &draft)?)?;
            let id = RoomId::parse(format!("!{}", sealed.0.as_str().trim_start_matches('$')))
                .map_err(|error| Error::BadJson(error.to_string()))?;
            commit = self.graph.begin();
            (id, Some(sealed))
        } else {
            (provisional, None)
        };
        let room = RoomNum(self.graph.intern(NameKind::Room, room_id.as_str(), &mut commit)?);
        let mut batch = Batch::new(self, commit, room, room_id, version.clone(), RoomHead::default());
        let create = match sealed {
            Some((id, json)) => batch.store(id, json)?,
            None => batch.add(creator, &draft)?,
        };
        let record = RoomRecord {
            version: version.id.to_string(),
            create: Some(create.num),
            room_type: content.get("type").and_then(Value::as_str).map(str::to_owned),
            federate: content.get("m.federate").and_then(Value::as_bool).unwrap_or(true),
        };
        batch.commit.put::<RoomRecords>(&(room,), &Json(record));
        let mut member = Map::from_iter([("membership".to_owned(), Value::from("join"))]);
        if let Some(number) = self.user(creator)? {
            member.extend(profile(self, number)?.into_iter().filter(|(_, value)| !value.is_null()));
        }
        batch.add(creator, &Draft::state("m.room.member", creator.as_str(), &member)?)?;
        Ok(batch)
    }

    fn unplaced(&self, commit: postern_graph::Commit, id: OwnedRoomId, version: &Arc<Version>) -> Batch<'_> {
        Batch::new(self, commit, RoomNum(0), id, version.clone(), RoomHead::default())
    }

    /// Replaces a room by one of another version: the old one points to the new one and is closed for talk. The old
    /// room's lane is not held while its policy server, if it has one, is asked.
    ///
    /// # Errors
    /// [`Error::Forbidden`] if `user` may not send the tombstone, or the policy server does not recommend what closes the
    /// room; [`Error::BadState`] if others change the room's power levels each time it is asked.
    pub async fn upgrade(
        &self,
        user: &UserId,
        old: &RoomId,
        new_version: &str,
        additional_creators: Vec<OwnedUserId>,
    ) -> Result<OwnedRoomId, Error> {
        let version = version(new_version)?;
        let old_room = self.known_room(old)?;
        let levels = self.power_levels(old_room)?;
        let member = self.user(user)?.map_or(Ok(false), |number| self.is_joined(old_room, number))?;
        if !member || !levels.may_send(user, &"m.room.tombstone".into(), true) {
            return Err(Error::forbidden("you may not upgrade this room"));
        }
        let old_create = self.state(old_room, "m.room.create", "")?;
        let mut creation: Map<String, Value> =
            old_create.and_then(|event| event.content_as()).unwrap_or_default();
        for key in ["room_version", "creator", "predecessor", "additional_creators"] {
            creation.remove(key);
        }
        let by_hash = version.rules.authorization.room_create_event_id_as_room_id;
        let mut predecessor = json!({ "room_id": old });
        if !by_hash && let Some(last) = self.head(old_room)?.unwrap_or_default().extremities.last() {
            // Before version 12 the predecessor names the last event known of the old room.
            predecessor["event_id"] = self.event(*last)?.id.as_str().into();
        }
        creation.insert("predecessor".to_owned(), predecessor);
        let mut batch = self.begin_room(user, &version, &creation, additional_creators.clone())?;
        let new_id = batch.room_id().to_owned();
        let (_lane, old_batch) = self.closed(user, old_room, &new_id).await?;
        // Only now: the state may have changed meanwhile, and who was banned stays out.
        copy_state(self, &mut batch, user, old_room, &additional_creators)?;
        take_in(&mut batch, user, &creation)?;

        // The new room first: a tombstone that points nowhere would be worse than a room nobody points to.
        batch.commit()?;
        let mut old_seq = old_batch.commit()?;
        if let Some(seq) = self.move_aliases(old_room, &new_id, user).await? {
            old_seq = seq;
        }
        self.durable(old_seq).await?;
        Ok(new_id)
    }

    /// The events that close a room which `replacement` replaces, recommended by its policy server if it has one; with the
    /// room's lane.
    async fn closed(
        &self,
        user: &UserId,
        room: RoomNum,
        replacement: &RoomId,
    ) -> Result<(OwnedMutexGuard<()>, Batch<'_>), Error> {
        let content = json!({ "body": "This room has been replaced", "replacement_room": replacement });
        let tombstone = Draft::state("m.room.tombstone", "", &content)?;
        for _ in 0..limits::CLOSING_ATTEMPTS {
            let lane = self.lane(room).await;
            let mut batch = self.batch(room)?;
            batch.add(user, &tombstone)?;
            close(&mut batch, user)?;
            let policy = self.policy_server(room)?.filter(|policy| !self.is_policy_server(policy));
            let Some(policy) = policy else { return Ok((lane, batch)) };
            let levels = self.state(room, "m.room.power_levels", "")?.map(|event| event.num);
            let version = batch.version.clone();
            let mut closing = Vec::with_capacity(batch.order.len());
            for num in &batch.order {
                let event = batch.event(*num)?;
                closing.push((event.id.clone(), event.json().to_owned()));
            }
            drop((batch, lane));
            for (_, json) in &mut closing {
                *json = self.recommended(&policy, &version, json).await?;
            }
            let lane = self.lane(room).await;
            let of_now = self.state(room, "m.room.power_levels", "")?.map(|event| event.num);
            let same_server = self
                .policy_server(room)?
                .is_some_and(|now| (&now.via, &now.public_keys) == (&policy.via, &policy.public_keys));
            // What closes the room says all of its power levels anew.
            if of_now != levels || !same_server {
                continue;
            }
            let mut batch = self.batch(room)?;
            for (id, json) in closing {
                batch.store(id, json)?;
            }
            return Ok((lane, batch));
        }
        Err(Error::BadState("the room's power levels change all the time; try again later".to_owned()))
    }

    async fn move_aliases(
        &self,
        old: RoomNum,
        new: &RoomId,
        user: &UserId,
    ) -> Result<Option<postern_graph::Seq>, Error> {
        let new_room = self.known_room(new)?;
        let aliases: Vec<String> = self
            .graph
            .scan::<RoomAliases, _>(&(old,))
            .iter()
            .map(|entry| entry.map(|((_, alias), ())| alias))
            .collect::<Result<_, _>>()?;
        let published = self.graph.has::<Published>(&(old,))?;
        if aliases.is_empty() && !published {
            return Ok(None);
        }
        let mut commit = self.graph.begin();
        let creator = UserNum(self.graph.intern(NameKind::User, user.as_str(), &mut commit)?);
        for alias in aliases {
            commit.put::<Aliases>(&(alias.clone(),), &(new_room, creator));
            commit.put::<RoomAliases>(&(new_room, alias.clone()), &());
            commit.delete::<RoomAliases>(&(old, alias));
        }
        if published {
            commit.delete::<Published>(&(old,));
            commit.put::<Published>(&(new_room,), &());
        }
        Ok(Some(self.graph.commit(commit)?))
    }
}

/// In rooms of version 12 those invited to a trusted private chat become creators; others are named by the client.
/// The creators that the client names have to be users' ids.
fn check_creators(content: &Map<String, Value>) -> Result<(), Error> {
    let Some(named) = content.get("additional_creators") else { return Ok(()) };
    serde_json::from_value::<Vec<OwnedUserId>>(named.clone())
        .map(|_| ())
        .map_err(|error| Error::BadJson(format!("additional_creators is a list of users' ids: {error}")))
}

fn additional(request: &CreateRoom, version: &Version) -> Vec<OwnedUserId> {
    if request.preset == Preset::TrustedPrivateChat && version.rules.authorization.additional_room_creators {
        let named = request.creation_content.get("additional_creators").and_then(Value::as_array);
        let mut all: Vec<OwnedUserId> =
            named.into_iter().flatten().filter_map(|user| UserId::parse(user.as_str()?).ok()).collect();
        for user in &request.invite {
            if !all.contains(user) {
                all.push(user.clone());
            }
        }
        return all;
    }
    Vec::new()
}

/// Everything after the creator's join, in the order of the specification.
fn populate(batch: &mut Batch<'_>, creator: &UserId, request: &CreateRoom) -> Result<(), Error> {
    let state = |event_type: &str| {
        request.initial_state.iter().any(|(kind, key, _)| kind == event_type && key.is_empty())
    };
    let levels = default_power_levels(batch, creator, request);
    batch.add(creator, &Draft::state("m.room.power_levels", "", &levels)?)?;
    if let Some(alias) = &request.alias
        && !state("m.room.canonical_alias")
    {
        batch.add(creator, &Draft::state("m.room.canonical_alias", "", &json!({ "alias": alias }))?)?;
    }
    let (join_rule, guests) = match request.preset {
        Preset::PublicChat => ("public", "forbidden"),
        Preset::PrivateChat | Preset::TrustedPrivateChat => ("invite", "can_join"),
    };
    for (event_type, content) in [
        ("m.room.join_rules", json!({ "join_rule": join_rule })),
        ("m.room.history_visibility", json!({ "history_visibility": "shared" })),
        ("m.room.guest_access", json!({ "guest_access": guests })),
    ] {
        // That guests may not join needs no event to say so.
        if !state(event_type) && content["guest_access"] != "forbidden" {
            batch.add(creator, &Draft::state(event_type, "", &content)?)?;
        }
    }
    for (event_type, state_key, content) in &request.initial_state {
        batch.add(creator, &Draft::state(event_type, state_key, content)?)?;
    }
    if let Some(name) = &request.name {
        batch.add(creator, &Draft::state("m.room.name", "", &json!({ "name": name }))?)?;
    }
    if let Some(topic) = &request.topic {
        let content = json!({
            "topic": topic,
            "m.topic": { "m.text": [{ "body": topic, "mimetype": "text/plain" }] },
        });
        batch.add(creator, &Draft::state("m.room.topic", "", &content)?)?;
    }
    for user in request.invite.iter().filter(|user| batch.rooms.is_local(user)) {
        let mut content = Map::from_iter([("membership".to_owned(), Value::from("invite"))]);
        if request.is_direct {
            content.insert("is_direct".to_owned(), true.into());
        }
        let number = UserNum(batch.rooms.graph.intern(NameKind::User, user.as_str(), &mut batch.commit)?);
        content.extend(profile(batch.rooms, number)?.into_iter().filter(|(_, value)| !value.is_null()));
        batch.add(creator, &Draft::state("m.room.member", user.as_str(), &content)?)?;
    }
    Ok(())
}

/// Takes those into a new room whom the border wants in it.
fn take_in(batch: &mut Batch<'_>, creator: &UserId, create: &Map<String, Value>) -> Result<(), Error> {
    let users = batch.rooms.gate().map(|gate| gate.always_in(create)).unwrap_or_default();
    for user in users.iter().filter(|user| *user != creator) {
        for (who, membership) in [(creator, "invite"), (&**user, "join")] {
            let content = json!({ "membership": membership });
            batch.add(who, &Draft::state("m.room.member", user.as_str(), &content)?)?;
        }
    }
    Ok(())
}

fn default_power_levels(batch: &Batch<'_>, creator: &UserId, request: &CreateRoom) -> Map<String, Value> {
    let privileged = batch.version.rules.authorization.explicitly_privilege_room_creators;
    let mut users = Map::new();
    if !privileged {
        users.insert(creator.to_string(), 100.into());
        if request.preset == Preset::TrustedPrivateChat {
            users.extend(request.invite.iter().map(|user| (user.to_string(), 100.into())));
        }
    }
    let content = json!({
        "users": users,
        "users_default": 0,
        "events": {
            "m.room.name": 50,
            "m.room.power_levels": 100,
            "m.room.history_visibility": 100,
            "m.room.canonical_alias": 50,
            "m.room.avatar": 50,
            "m.room.tombstone": if privileged { 150 } else { 100 },
            "m.room.server_acl": 100,
            "m.room.encryption": 100,
        },
        "events_default": 0,
        "state_default": 50,
        "ban": 50,
        "kick": 50,
        "redact": 50,
        "invite": if request.preset == Preset::PublicChat { 50 } else { 0 },
        "historical": 100,
    });
    let mut content = match content {
        Value::Object(content) => content,
        _ => Map::new(),
    };
    content.extend(request.power_levels.clone());
    content
}

/// State that an upgraded room takes over from its predecessor.
const COPIED: [&str; 13] = [
    "m.room.server_acl",
    "m.room.policy",
    "m.room.encryption",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.guest_access",
    "m.room.history_visibility",
    "m.room.join_rules",
    "m.room.power_levels",
    "m.room.related_groups",
    "m.space.child",
    "m.space.parent",
];

fn copy_state(
    rooms: &Rooms,
    batch: &mut Batch<'_>,
    user: &UserId,
    old: RoomNum,
    additional_creators: &[OwnedUserId],
) -> Result<(), Error> {
    let privileged = batch.version.rules.authorization.explicitly_privilege_room_creators;
    let mut levels: Map<String, Value> =
        rooms.state(old, "m.room.power_levels", "")?.and_then(|event| event.content_as()).unwrap_or_default();
    let users = levels.entry("users").or_insert_with(|| json!({}));
    if let Value::Object(users) = users {
        if privileged {
            // Creators may not be given a level since version 12: they stand above all.
            users.remove(user.as_str());
            users.retain(|name, _| !additional_creators.iter().any(|creator| creator == name.as_str()));
        } else if users.get(user.as_str()).and_then(Value::as_i64).is_none_or(|level| level < 100) {
            users.insert(user.to_string(), 100.into());
        }
    }
    if !privileged {
        // Creators of rooms of version 12 stand above all levels; here nobody is above who upgrades.
        let own = levels["users"].get(user.as_str()).and_then(Value::as_i64).unwrap_or(100);
        if let Some(Value::Object(events)) = levels.get_mut("events") {
            for level in events.values_mut().filter(|level| level.as_i64().is_some_and(|level| level > own)) {
                *level = own.into();
            }
        }
    }
    let final_levels = levels.clone();
    if !privileged {
        // Enough power to put the state in place, whatever it says in the end.
        levels.insert("users".to_owned(), json!({ user.as_str(): 100 }));
        levels.insert("events".to_owned(), json!({}));
        levels.insert("state_default".to_owned(), 50.into());
    }
    batch.add(user, &Draft::state("m.room.power_levels", "", &levels)?)?;
    for event in rooms.current_state(old)? {
        let kind = event.kind().to_string();
        let Some(state_key) = event.state_key() else { continue };
        if kind == "m.room.power_levels" || !COPIED.contains(&kind.as_str()) {
            continue;
        }
        batch.add(
            user,
            &Draft {
                state_key: Some(state_key.to_owned()),
                ..Draft::message(kind, event.content().to_owned())
            },
        )?;
    }
    if final_levels != levels {
        batch.add(user, &Draft::state("m.room.power_levels", "", &final_levels)?)?;
    }
    for event in rooms.current_state_of_type(old, "m.room.member")? {
        let Some(state_key) = event.state_key() else { continue };
        let banned = event.content_text("membership").as_deref() == Some("ban");
        if banned && state_key != user.as_str() {
            batch.add(
                user,
                &Draft {
                    state_key: Some(state_key.to_owned()),
                    ..Draft::message("m.room.member", event.content().to_owned())
                },
            )?;
        }
    }
    Ok(())
}

/// Raises what it takes to speak and invite in a room that is left behind (specification: room upgrades).
fn close(batch: &mut Batch<'_>, user: &UserId) -> Result<(), Error> {
    let Some(current) = batch.state("m.room.power_levels", "")? else { return Ok(()) };
    let mut levels: Map<String, Value> = current.content_as().unwrap_or_default();
    let default = levels.get("users_default").and_then(Value::as_i64).unwrap_or(0);
    let restricted = 50.max(default + 1);
    for key in ["events_default", "invite"] {
        if levels.get(key).and_then(Value::as_i64).unwrap_or(0) < restricted {
            levels.insert(key.to_owned(), restricted.into());
        }
    }
    match batch.add(user, &Draft::state("m.room.power_levels", "", &levels)?) {
        // Not everyone who may upgrade may change power levels; the tombstone stands all the same.
        Ok(_) | Err(Error::Forbidden(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
