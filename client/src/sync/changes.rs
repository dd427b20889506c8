//! What happened between two positions of the log, as far as it concerns one user.

use crate::{Api, http::ApiError};
use postern_graph::{RoomNum, Seq, UserNum, event::Membership, log::LogEntry};
use postern_users::Session;
use std::collections::{HashMap, HashSet};

/// A client further behind than this is told by looking at each of its rooms instead of at what happened.
const RECORDS: u64 = 2_000;

/// What may have changed for a user.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Rooms in which something happened; none: look at each.
    pub(crate) rooms: Option<HashSet<RoomNum>>,
    /// Users whose presence changed; none: look at each.
    pub(crate) presence: Option<HashSet<UserNum>>,
    /// Whether somebody's devices or keys changed.
    pub(crate) devices: bool,
    /// Whether one-time or fallback keys of the device changed.
    pub(crate) key_counts: bool,
}

/// What changed in `(after, up_to]` for the user of `session`, whose rooms are `rooms`.
pub(crate) fn changes(
    api: &Api,
    session: &Session,
    rooms: &HashMap<RoomNum, Membership>,
    after: Seq,
    up_to: Seq,
) -> Result<Changes, ApiError> {
    if up_to.0.saturating_sub(after.0) > RECORDS {
        return Ok(Changes { rooms: None, presence: None, devices: true, key_counts: true });
    }
    let mut changed = HashSet::new();
    let mut presence = HashSet::new();
    let mut changes = Changes::default();
    let mut at = after;
    while at < up_to {
        let records = api.graph.log_between(at, up_to)?;
        let Some((last, _)) = records.last() else { break };
        at = *last;
        for entry in records.iter().flat_map(|(_, record)| &record.entries) {
            match entry {
                LogEntry::Event { room, .. } | LogEntry::RoomState { room } => {
                    if rooms.contains_key(room) {
                        changed.insert(*room);
                    }
                }
                LogEntry::Receipt { room, user, private } => {
                    if rooms.contains_key(room) && (!private || *user == session.user) {
                        changed.insert(*room);
                    }
                }
                LogEntry::Membership { user, room } | LogEntry::AccountData { user, room } => {
                    if *user == session.user {
                        changed.insert(*room);
                    }
                }
                LogEntry::DeviceList { .. } => changes.devices = true,
                LogEntry::KeyCounts { user, device } => {
                    changes.key_counts |= *user == session.user && *device == session.device_id;
                }
                LogEntry::Presence { user } => {
                    presence.insert(*user);
                }
                LogEntry::ToDevice { .. } | LogEntry::Profile { .. } | LogEntry::Outbox { .. } => {}
            }
        }
    }
    changes.rooms = Some(changed);
    changes.presence = Some(presence);
    Ok(changes)
}
