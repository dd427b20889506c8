//! The access control lists of labelled rooms, kept in step with the table of peers: other servers refuse whom this one does
//! not let in, too.

use crate::{
    Border, Error,
    facts::{RoomFacts, room_facts},
    gate::dominates,
    limits,
    standing::Standing,
};
use postern_graph::{RoomNum, codec::Json, schema};
use postern_rooms::{Draft, Error as RoomsError, Rooms};
use ruma::{OwnedUserId, ServerName, events::TimelineEventType};
use serde_json::{Map, Value, json};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// The type of the state.
pub(crate) const ACL: &str = "m.room.server_acl";
/// How long changes are waited for that come together, and rooms that are being created under the old table.
const PAUSE: Duration = Duration::from_millis(500);

/// The list of a room whose servers are these, as far as nobody has written one.
pub(crate) fn content(allow: &BTreeSet<String>) -> Value {
    json!({ "allow": allow, "deny": [], "allow_ip_literals": true })
}

/// The hosts that may be in a labelled room: this server, and the peers that are accredited, cleared for its floor, and not
/// kept to other rooms. Other things by which policies decide, such as the hour, they decide at this server only.
pub(crate) fn allowed(standing: &Standing, own: &ServerName, facts: &RoomFacts) -> BTreeSet<String> {
    let may_be_in = standing.peers().filter(|(_, peer)| {
        facts.federate
            && peer.server.accredited
            && dominates(&peer.clearance, &facts.floor)
            && peer.rooms.as_ref().is_none_or(|rooms| rooms.contains(&facts.id))
    });
    may_be_in.map(|(name, _)| name.host()).chain([own.host()]).map(str::to_owned).collect()
}

impl Border {
    /// Has the access control lists of rooms looked at: something they follow from has changed.
    pub(crate) fn look_at_acls(&self) {
        self.0.acls_stale.notify_one();
    }

    /// Keeps the access control lists of the labelled rooms that were created here in step with the table of peers, until the
    /// server stops. Where nothing has changed nothing is sent.
    pub async fn keep_acls(self, rooms: Arc<Rooms>, stopping: CancellationToken) {
        self.look_at_acls();
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = self.0.acls_stale.notified() => {}
            }
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
            tokio::select! {
                () = stopping.cancelled() => return,
                done = self.look_at_all(&rooms) => if let Err(error) = done {
                    tracing::error!(%error, "the rooms' access control lists cannot be looked at");
                },
            }
        }
    }

    async fn look_at_all(&self, rooms: &Rooms) -> Result<(), Error> {
        let mut after = RoomNum::NONE;
        loop {
            let standing = self.standing();
            let some = federating(rooms, after)?;
            let Some(last) = some.last() else { return Ok(()) };
            after = *last;
            for room in some {
                if let Err(error) = self.look_at(&standing, rooms, room).await {
                    tracing::warn!(room = room.0, %error, "the access control list of a room stays as it was");
                }
                tokio::task::yield_now().await;
            }
        }
    }

    /// Brings the list of one room up to date, if this server created it and it is labelled.
    async fn look_at(&self, standing: &Standing, rooms: &Rooms, room: RoomNum) -> Result<(), Error> {
        let facts = room_facts(standing, rooms, room)?;
        if facts.is_unlabelled() || !facts.federate || !rooms.is_resident(room)? {
            return Ok(());
        }
        let create = rooms.state(room, "m.room.create", "")?;
        if create.is_none_or(|create| create.sender().server_name() != self.0.server) {
            return Ok(());
        }
        let allow = allowed(standing, &self.0.server, &facts);
        let now = rooms.state(room, ACL, "")?.and_then(|event| event.content_as::<Map<String, Value>>());
        let wanted = match now {
            Some(now) if is_allowing(&now, &allow) => return Ok(()),
            Some(mut now) => {
                // Whom people have denied stays denied.
                now.insert("allow".to_owned(), json!(allow));
                Value::Object(now)
            }
            None => content(&allow),
        };
        for user in self.keepers(rooms, room)? {
            match rooms.send(&user, &facts.id, Draft::state(ACL, "", &wanted)?).await {
                Ok(_) => {
                    let servers = allow.len();
                    tracing::info!(target: "postern::border", room = %facts.id, servers, "the room's access control list follows the table of peers");
                    return Ok(());
                }
                Err(RoomsError::Forbidden(why)) => {
                    tracing::debug!(%user, room = %facts.id, why, "may not change the access control list");
                }
                Err(error) => return Err(error.into()),
            }
        }
        let why = "nobody here may change its access control list: other servers may still let in who is not cleared any more";
        self.refuse("acl", self.0.server.as_str(), facts.id.as_str(), why);
        Ok(())
    }

    /// The local members of a room that may set its list, the most powerful first.
    fn keepers(&self, rooms: &Rooms, room: RoomNum) -> Result<Vec<OwnedUserId>, Error> {
        let (levels, kind) = (rooms.power_levels(room)?, TimelineEventType::from(ACL));
        let mut users = Vec::new();
        for user in rooms.joined_users_of(room, &self.0.server)? {
            let user = rooms.user_id(user)?;
            if levels.may_send(&user, &kind, true) {
                users.push(user);
            }
        }
        users.sort_by_cached_key(|user| std::cmp::Reverse(levels.level(user)));
        users.truncate(limits::ACL_KEEPERS);
        Ok(users)
    }
}

fn is_allowing(acl: &Map<String, Value>, allow: &BTreeSet<String>) -> bool {
    let Some(now) = acl.get("allow").and_then(Value::as_array) else { return false };
    now.len() == allow.len() && now.iter().all(|host| host.as_str().is_some_and(|host| allow.contains(host)))
}

/// The next rooms after one that other servers may be in, a bounded number.
fn federating(rooms: &Rooms, after: RoomNum) -> Result<Vec<RoomNum>, Error> {
    let next = (RoomNum(after.0 + 1),);
    let found = rooms.graph().scan::<schema::Rooms, _>(&()).from(&next);
    let mut some = Vec::new();
    for entry in found.iter() {
        let ((room,), Json(record)) = entry?;
        if record.federate {
            some.push(room);
            if some.len() == limits::ACLS_AT_ONCE {
                break;
            }
        }
    }
    Ok(some)
}
