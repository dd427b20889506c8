//! Whose devices changed, for those who encrypt for them (specification: tracking the device list for a user).

use super::{changes::Changes, room::Comings};
use crate::{Api, http::ApiError};
use postern_graph::{
    RoomNum, Seq, UserNum,
    event::{Membership, MembershipKind},
};
use postern_users::Session;
use ruma::OwnedUserId;
use serde::Serialize;
use std::collections::{BTreeSet, HashMap, HashSet};

#[derive(Debug, Default, Serialize)]
pub(crate) struct Lists {
    pub(crate) changed: BTreeSet<OwnedUserId>,
    pub(crate) left: BTreeSet<OwnedUserId>,
}

impl Lists {
    pub(crate) fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.left.is_empty()
    }
}

/// Whose devices changed in `(since, up_to]`, and who is no longer in any room with the user.
pub(crate) fn lists(
    api: &Api,
    session: &Session,
    rooms: &HashMap<RoomNum, Membership>,
    since: Option<Seq>,
    up_to: Seq,
    changes: &Changes,
    comings: &Comings,
) -> Result<Lists, ApiError> {
    let Some(since) = since else { return Ok(Lists::default()) };
    let mut lists = Lists::default();
    let mut changed: HashSet<UserNum> = comings.joined.clone();
    if changes.devices {
        changed.extend(api.users.device_changes_between(since, up_to)?);
    }
    for user in changed {
        if user == session.user || shares_room(api, rooms, user)? {
            lists.changed.insert(api.users.id(user)?);
        }
    }
    for user in &comings.left {
        if *user != session.user && !shares_room(api, rooms, *user)? {
            lists.left.insert(api.users.id(*user)?);
        }
    }
    Ok(lists)
}

/// Whether `user` is in one of the rooms one is joined to.
pub(crate) fn shares_room(
    api: &Api,
    rooms: &HashMap<RoomNum, Membership>,
    user: UserNum,
) -> Result<bool, ApiError> {
    for (room, membership) in rooms {
        if membership.kind == MembershipKind::Join && api.rooms.is_joined(*room, user)? {
            return Ok(true);
        }
    }
    Ok(false)
}
