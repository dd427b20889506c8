//! Joining, leaving, inviting, knocking, banning: changes of membership by local users.

use crate::{
    Entry, Error, Event,
    batch::{Batch, Draft},
    limits,
    power::Action,
    rooms::Rooms,
    say::Wish,
};
use postern_graph::{
    NameKind, Pos, RoomNum, UserNum,
    event::MembershipKind,
    schema::{Forgotten, Profiles},
};
use ruma::{OwnedEventId, OwnedUserId, RoomId, UserId};
use serde_json::{Map, Value};

/// A change of somebody's membership.
#[derive(Debug, Clone)]
pub struct MembershipChange {
    /// What it becomes. `Leave` covers leaving, kicking, withdrawing an invite or knock, and unbanning.
    pub to: MembershipKind,
    /// Why.
    pub reason: Option<String>,
    /// More content for the event (third-party signatures, display name and avatar of a custom join).
    pub extra: Map<String, Value>,
    /// For `Leave`: only lift a ban, and fail if there is none.
    pub only_unban: bool,
    /// For `Leave`: never lift a ban.
    pub only_kick: bool,
}

impl MembershipChange {
    /// A change to `to` without reason or anything else.
    #[must_use]
    pub fn to(to: MembershipKind) -> Self {
        Self { to, reason: None, extra: Map::new(), only_unban: false, only_kick: false }
    }

    /// With a reason.
    #[must_use]
    pub fn because(mut self, reason: Option<String>) -> Self {
        self.reason = reason;
        self
    }
}

impl Rooms {
    /// Changes the membership of `target` as `sender`. Joining where one is joined already changes nothing.
    ///
    /// # Errors
    /// [`Error::Forbidden`] if the room's rules say no, [`Error::BadState`] if there is nothing to change.
    pub async fn membership(
        &self,
        sender: &UserId,
        room: &RoomId,
        target: &UserId,
        change: MembershipChange,
    ) -> Result<Option<OwnedEventId>, Error> {
        let room = self.known_room(room)?;
        match change.to {
            MembershipKind::Join | MembershipKind::Knock => self.check_entry(target, room, Entry::Join)?,
            MembershipKind::Invite => self.check_entry(target, room, Entry::Invite)?,
            MembershipKind::Leave | MembershipKind::Ban => {}
        }
        // Whoever leaves needs to know nobody's membership but their own.
        if sender != target || change.to != MembershipKind::Leave {
            self.wait_for_whole_state(room).await?;
        }
        let wish = |batch: &mut Batch<'_>| {
            let draft = draft_membership(batch, sender, target, &change)?;
            Ok(draft.map_or(Wish::Nothing(None), Wish::Say))
        };
        self.say(room, sender, wish).await
    }

    /// Display name and avatar of a user as member events carry them; null where there is none.
    pub fn profile_in_events(&self, user: UserNum) -> Result<Vec<(String, Value)>, Error> {
        profile(self, user)
    }

    /// Whether a local user can be let into a restricted room of this server by a server of the room only that is
    /// another one.
    pub fn needs_help_to_join(&self, room: RoomNum, user: &UserId) -> Result<bool, Error> {
        let batch = self.batch(room)?;
        let before = batch.state("m.room.member", user.as_str())?.and_then(|event| event.membership());
        let elsewhere = self.servers_in(room)?.iter().any(|server| server != self.server_name());
        Ok(elsewhere && matches!(admission(&batch, user, before)?, Admission::Unknown | Admission::NobodyMay))
    }

    /// Forgets a room one has left: its history up to now is no longer shown to the user.
    ///
    /// # Errors
    /// [`Error::BadState`] while still joined, invited or knocking.
    pub async fn forget(&self, user: &UserId, room: &RoomId) -> Result<(), Error> {
        let room = self.known_room(room)?;
        let number = self.user(user)?.ok_or_else(|| Error::not_found("you were never in this room"))?;
        let seq = {
            let _lane = self.lane(room).await;
            let membership =
                self.member(room, number)?.ok_or_else(|| Error::not_found("you were never in this room"))?;
            if !matches!(membership.kind, MembershipKind::Leave | MembershipKind::Ban) {
                return Err(Error::BadState(format!("you cannot forget {room:?}: leave the room first")));
            }
            let mut commit = self.graph.begin();
            let until = Pos::at(self.graph.applied());
            commit.put::<Forgotten>(&(number, room), &until);
            commit.log(postern_graph::log::LogEntry::Membership { user: number, room });
            self.graph.commit(commit)?
        };
        self.durable(seq).await
    }

    /// Writes a user's changed profile into the rooms they are joined to, so that other members see it.
    pub async fn profile_changed(&self, user: &UserId) -> Result<(), Error> {
        let Some(number) = self.user(user)? else { return Ok(()) };
        for room in self.joined_rooms(number)? {
            let wish = |batch: &mut Batch<'_>| {
                let Some(current) = batch.state("m.room.member", user.as_str())? else {
                    return Ok(Wish::Nothing(None));
                };
                let mut content: Map<String, Value> = current.content_as().unwrap_or_default();
                let before = content.clone();
                for (name, value) in profile(self, number)? {
                    if value.is_null() {
                        content.remove(&name);
                    } else {
                        content.insert(name, value);
                    }
                }
                if content == before {
                    return Ok(Wish::Nothing(None));
                }
                Ok(Wish::Say(Draft::state("m.room.member", user.as_str(), &content)?))
            };
            match self.say(room, user, wish).await {
                Ok(_) => {}
                // A room may forbid it (a profile change is a join event); the others still hear of it.
                Err(Error::Forbidden(why)) => tracing::debug!(%why, "a room does not take the new profile"),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Display name and avatar as member events carry them; null where there is none.
pub(crate) fn profile(rooms: &Rooms, user: UserNum) -> Result<Vec<(String, Value)>, Error> {
    let stored = rooms.graph.get::<Profiles>(&(user,))?.map(|json| json.0).unwrap_or_default();
    Ok(["displayname", "avatar_url"]
        .into_iter()
        .map(|name| (name.to_owned(), stored.get(name).cloned().unwrap_or(Value::Null)))
        .collect())
}

/// The member event for a change; nothing if it is so already.
pub(crate) fn draft_membership(
    batch: &mut Batch<'_>,
    sender: &UserId,
    target: &UserId,
    change: &MembershipChange,
) -> Result<Option<Draft>, Error> {
    let current = batch.state("m.room.member", target.as_str())?;
    let before = current.as_deref().and_then(membership_of);
    check(batch, sender, target, before, change)?;

    let mut content = Map::new();
    content.insert("membership".to_owned(), change.to.as_str().into());
    if matches!(change.to, MembershipKind::Join | MembershipKind::Invite | MembershipKind::Knock) {
        let number = UserNum(batch.rooms.graph.intern(NameKind::User, target.as_str(), &mut batch.commit)?);
        content.extend(profile(batch.rooms, number)?.into_iter().filter(|(_, value)| !value.is_null()));
    }
    if change.to == MembershipKind::Join
        && let Admission::By(user) = admission(batch, target, before)?
    {
        content.insert("join_authorised_via_users_server".to_owned(), user.to_string().into());
    }
    if let Some(reason) = &change.reason {
        content.insert("reason".to_owned(), reason.clone().into());
    }
    content.extend(change.extra.clone());
    if change.to == MembershipKind::Join && before == Some(MembershipKind::Join) {
        let same = current.as_deref().and_then(Event::content_as::<Map<String, Value>>);
        if same.is_some_and(|mut same| {
            same.remove("join_authorised_via_users_server");
            same == content
        }) {
            return Ok(None);
        }
    }
    Draft::state("m.room.member", target.as_str(), &content).map(Some)
}

/// What the room's rules alone would answer less helpfully, or allow though the request makes no sense.
fn check(
    batch: &Batch<'_>,
    sender: &UserId,
    target: &UserId,
    before: Option<MembershipKind>,
    change: &MembershipChange,
) -> Result<(), Error> {
    use MembershipKind::{Ban, Invite, Join, Knock, Leave};
    match change.to {
        Leave if sender == target => match before {
            Some(Join | Invite | Knock) => Ok(()),
            Some(Ban) => Err(Error::forbidden("you are banned from this room")),
            _ => Err(Error::forbidden("you are not in this room")),
        },
        Leave if change.only_unban => match before {
            Some(Ban) => Ok(()),
            _ => Err(Error::BadState(format!("{target} is not banned"))),
        },
        Leave => match before {
            Some(Ban) if change.only_kick => {
                Err(Error::forbidden(format!("{target} is banned, not in the room")))
            }
            Some(Join | Invite | Knock | Ban) => Ok(()),
            _ => Err(Error::forbidden(format!("{target} is not in the room"))),
        },
        Invite => match before {
            Some(Join) => Err(Error::forbidden(format!("{target} is already in the room"))),
            Some(Ban) => Err(Error::forbidden(format!("{target} is banned from the room"))),
            _ => Ok(()),
        },
        Ban => {
            if batch.power_levels()?.may(sender, Action::Ban) {
                Ok(())
            } else {
                Err(Error::forbidden("you may not ban in this room"))
            }
        }
        Join | Knock => Ok(()),
    }
}

/// The membership a member event says.
pub(crate) fn membership_of(event: &Event) -> Option<MembershipKind> {
    event.membership()
}

/// The type of an entry among those that allow joining a restricted room: whoever the gate counts as cleared for the room may
/// join it.
pub const CLEARANCE: &str = "io.postern.clearance";

/// Who lets a user into a restricted room without an invite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Nobody has to: the room is not restricted, or the user is in it or invited.
    NotNeeded,
    /// This local member.
    By(OwnedUserId),
    /// The user is in none of the rooms that allow joining, and not cleared.
    NotEntitled,
    /// This server is in none of these rooms, and cannot tell.
    Unknown,
    /// The user is entitled, but no local member may invite.
    NobodyMay,
}

/// Whether join rules let in whoever is cleared for the room ([`CLEARANCE`]).
pub(crate) fn allows_by_clearance(join_rules: &Value) -> bool {
    let allowed = join_rules.get("allow").and_then(Value::as_array);
    allowed.into_iter().flatten().any(|entry| entry.get("type").and_then(Value::as_str) == Some(CLEARANCE))
}

/// For a restricted room joined without an invite: a local member who may invite, if `user` is in one of the rooms
/// that allow joining (specification: restricted rooms), or cleared where the room asks for that.
pub(crate) fn admission(
    batch: &Batch<'_>,
    user: &UserId,
    before: Option<MembershipKind>,
) -> Result<Admission, Error> {
    let rules = &batch.version.rules.authorization;
    if !rules.restricted_join_rule || matches!(before, Some(MembershipKind::Invite | MembershipKind::Join)) {
        return Ok(Admission::NotNeeded);
    }
    let Some(join_rules) = batch.state("m.room.join_rules", "")? else { return Ok(Admission::NotNeeded) };
    let content: Value = join_rules.content_as().unwrap_or_default();
    let restricted = match content.get("join_rule").and_then(Value::as_str) {
        Some("restricted") => true,
        Some("knock_restricted") => rules.knock_restricted_join_rule,
        _ => false,
    };
    if !restricted {
        return Ok(Admission::NotNeeded);
    }
    let allowed = content.get("allow").and_then(Value::as_array).into_iter().flatten();
    let named = allowed
        .filter(|entry| entry.get("type").and_then(Value::as_str) == Some("m.room_membership"))
        .filter_map(|entry| <&RoomId>::try_from(entry.get("room_id")?.as_str()?).ok());
    let (mut entitled, mut known, mut any) = (false, false, false);
    let number = batch.rooms.user(user)?;
    for room in named.take(limits::ALLOWING_ROOMS) {
        any = true;
        let Some(room) = batch.rooms.room(room)? else { continue };
        if !batch.rooms.is_resident(room)? {
            continue;
        }
        known = true;
        if let Some(number) = number {
            entitled = entitled || batch.rooms.is_joined(room, number)?;
        }
    }
    if !entitled && allows_by_clearance(&content) {
        // Who is cleared for a room, each of its servers knows by itself.
        known = true;
        entitled = match batch.rooms.gate() {
            Some(gate) => gate.clears(batch.rooms, user, batch.room)?,
            None => false,
        };
    }
    if !entitled {
        return Ok(if known || !any { Admission::NotEntitled } else { Admission::Unknown });
    }
    let levels = batch.power_levels()?;
    let mut candidates: Vec<OwnedUserId> = Vec::new();
    for joined in batch.rooms.joined_users(batch.room)? {
        let id = batch.rooms.user_id(joined)?;
        if batch.rooms.is_local(&id) && levels.may(&id, Action::Invite) {
            candidates.push(id);
        }
    }
    // Any would do; the most powerful is the least likely to be gone when others check.
    Ok(candidates.into_iter().max_by_key(|id| levels.level(id)).map_or(Admission::NobodyMay, Admission::By))
}
