//! Which servers were in a room when.
//!
//! Who is in it now is counted (`schema::RoomServers`); who was at another time follows from where the state then
//! differs from the state now, which is little.

use crate::Error;
use postern_graph::{EventNum, NameKind, RoomNum, Root, intern::split_state_key_name, schema::RoomServers};
use postern_rooms::{Event, MembershipKind, Rooms};
use ruma::{OwnedServerName, ServerName, UserId};
use std::collections::{BTreeMap, BTreeSet};

/// Attempts to read the servers of a room and its state as of the same moment.
const ATTEMPTS: usize = 10;

/// Joined users of servers.
type Counts = BTreeMap<String, i64>;

/// The servers with joined users in the room of an event, in the state before it or in the one after it; nobody if
/// this server was not there before: then it was let in by another, who sends the event.
pub(super) fn around(rooms: &Rooms, event: &Event) -> Result<BTreeSet<OwnedServerName>, Error> {
    // First, since the rest of the state may come meanwhile: then it is in what is read from here on.
    let beside = rooms.servers_beside_members(event.record.room);
    let event = rooms.event(event.num)?;
    let (mut counts, mut at) = now(rooms, event.record.room, None)?;
    let mut servers = BTreeSet::new();
    for (n, root) in moments(&event).enumerate() {
        apply(rooms, &mut counts, at, root)?;
        at = root;
        let is_here = counts.get(rooms.server_name().as_str()).is_some_and(|count| *count > 0);
        if n == 0 && !is_here {
            break;
        }
        for (server, _) in counts.iter().filter(|(_, count)| **count > 0) {
            servers.insert(
                ServerName::parse(server)
                    .map_err(|error| postern_rooms::Error::BadJson(error.to_string()))?,
            );
        }
        servers.extend(beside.iter().cloned());
    }
    Ok(servers)
}

/// The server of the user whose invite or knock an event ends: it has to hear of that, though it is not in the room.
pub(super) fn waiting_outside(rooms: &Rooms, event: &Event) -> Result<Option<OwnedServerName>, Error> {
    let Some(MembershipKind::Leave | MembershipKind::Ban) = event.membership() else { return Ok(None) };
    let Some(user) = event.state_key().and_then(|user| UserId::parse(user).ok()) else { return Ok(None) };
    let before = rooms.state_in(event.record.state_before, "m.room.member", user.as_str())?;
    let waited = before.and_then(|event| event.membership());
    Ok(matches!(waited, Some(MembershipKind::Invite | MembershipKind::Knock))
        .then(|| user.server_name().to_owned()))
}

/// The server of the user whom an event invites, if it hears of that in a bundle.
pub(super) fn invited_by_hand(rooms: &Rooms, event: &Event) -> Option<OwnedServerName> {
    let user = event.state_key().and_then(|user| UserId::parse(user).ok())?;
    let is_invite = event.membership() == Some(MembershipKind::Invite);
    (is_invite && rooms.is_by_hand(user.server_name())).then(|| user.server_name().to_owned())
}

/// Whether a server had joined users in the room of an event, in the state before it or in the one after it.
pub(super) fn was_in(rooms: &Rooms, server: &ServerName, event: &Event) -> Result<bool, Error> {
    if rooms.servers_beside_members(event.record.room).contains(server) {
        return Ok(true);
    }
    let event = rooms.event(event.num)?;
    let (mut counts, mut at) = now(rooms, event.record.room, Some(server))?;
    for root in moments(&event) {
        apply(rooms, &mut counts, at, root)?;
        at = root;
        if counts.get(server.as_str()).is_some_and(|count| *count > 0) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn moments(event: &Event) -> impl Iterator<Item = Root> {
    let (before, after) = (event.record.state_before, event.record.state_after);
    std::iter::once(before).chain((after != before).then_some(after))
}

/// The joined users of all servers, or of one, now; and the state that is so in.
fn now(rooms: &Rooms, room: RoomNum, only: Option<&ServerName>) -> Result<(Counts, Root), Error> {
    let state = || -> Result<Root, Error> { Ok(rooms.head(room)?.unwrap_or_default().state) };
    for _ in 0..ATTEMPTS {
        let before = state()?;
        let mut counts = Counts::new();
        match only {
            Some(server) => {
                let key = (room, server.as_str().to_owned());
                if let Some((count, _)) = rooms.graph().get::<RoomServers>(&key)? {
                    counts.insert(key.1, i64::try_from(count).unwrap_or(i64::MAX));
                }
            }
            None => {
                for entry in rooms.graph().scan::<RoomServers, _>(&(room,)).iter() {
                    let ((_, server), (count, _)) = entry?;
                    counts.insert(server, i64::try_from(count).unwrap_or(i64::MAX));
                }
            }
        }
        if state()? == before {
            return Ok((counts, before));
        }
    }
    // A room that changes faster than it is read is counted from nothing.
    Ok((Counts::new(), Root::EMPTY))
}

/// Counts at the state `to` what was counted at the state `from`.
fn apply(rooms: &Rooms, counts: &mut Counts, from: Root, to: Root) -> Result<(), Error> {
    if from == to {
        return Ok(());
    }
    let joined = |num: Option<EventNum>| -> Result<i64, Error> {
        let Some(num) = num else { return Ok(0) };
        Ok(i64::from(rooms.event(num)?.membership() == Some(MembershipKind::Join)))
    };
    for change in rooms.graph().state_diff(from, to)? {
        let name = rooms.graph().name(NameKind::StateKey, change.key.0)?;
        let Some(("m.room.member", user)) = split_state_key_name(&name) else { continue };
        let Ok(user) = <&UserId>::try_from(user) else { continue };
        let change = joined(change.after)? - joined(change.before)?;
        if change != 0 {
            *counts.entry(user.server_name().to_string()).or_default() += change;
        }
    }
    Ok(())
}
