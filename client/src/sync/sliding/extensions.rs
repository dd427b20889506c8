//! What sliding sync tells besides rooms.

use super::connection::Connection;
use crate::{
    filter::EventFilter,
    http::ApiError,
    sync::{
        changes::Changes,
        devices,
        room::{self, Comings, receipt_event, typed, typing_event},
    },
};
use postern_graph::{Pos, RoomNum, Seq, event::Membership};
use postern_users::Session;
use serde::{Deserialize, Serialize};
use serde_json::{json, value::RawValue};
use std::collections::{BTreeMap, HashMap};

/// Messages to a device in one answer, if the client does not say; and at most.
const TO_DEVICE: (usize, usize) = (100, 1_000);

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct Enabled {
    enabled: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct ToDevice {
    enabled: bool,
    since: Option<String>,
    limit: Option<usize>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Asked {
    to_device: ToDevice,
    e2ee: Enabled,
    account_data: Enabled,
    receipts: Enabled,
    typing: Enabled,
}

impl Asked {
    /// Up to where the client has taken messages to its device.
    pub(crate) fn to_device_since(&self) -> Result<Option<Seq>, ApiError> {
        match self.to_device.since.as_deref() {
            None | Some("") => Ok(None),
            Some(since) => since.parse().map(|seq| Some(Seq(seq))).map_err(|_| {
                ApiError::invalid_param("extensions.to_device.since is no token of this server")
            }),
        }
    }
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct Told {
    #[serde(skip_serializing_if = "Option::is_none")]
    to_device: Option<Messages>,
    #[serde(skip_serializing_if = "Option::is_none")]
    e2ee: Option<Keys>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account_data: Option<AccountData>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipts: Option<ByRoom>,
    #[serde(skip_serializing_if = "Option::is_none")]
    typing: Option<ByRoom>,
    #[serde(skip)]
    keys_changed: bool,
}

impl Told {
    /// Whether there is nothing a client waits for.
    pub(crate) fn is_empty(&self) -> bool {
        self.to_device.as_ref().is_none_or(|told| told.events.is_empty())
            && !self.keys_changed
            && self.e2ee.as_ref().is_none_or(|told| told.device_lists.is_empty())
            && self.account_data.as_ref().is_none_or(|told| told.global.is_empty() && told.rooms.is_empty())
            && self.receipts.as_ref().is_none_or(|told| told.rooms.is_empty())
            && self.typing.as_ref().is_none_or(|told| told.rooms.is_empty())
    }
}

#[derive(Debug, Serialize)]
struct Messages {
    events: Vec<Box<RawValue>>,
    next_batch: String,
}

#[derive(Debug, Serialize)]
struct Keys {
    device_lists: devices::Lists,
    device_one_time_keys_count: BTreeMap<String, u64>,
    device_unused_fallback_key_types: Vec<String>,
}

#[derive(Debug, Default, Serialize)]
struct AccountData {
    global: Vec<Box<RawValue>>,
    rooms: BTreeMap<String, Vec<Box<RawValue>>>,
}

#[derive(Debug, Default, Serialize)]
struct ByRoom {
    rooms: BTreeMap<String, Box<RawValue>>,
}

/// What the extensions are about.
pub(crate) struct Scope<'a> {
    pub(crate) connection: &'a Connection,
    /// Rooms that are told of for the first time.
    pub(crate) initial: &'a [RoomNum],
    pub(crate) memberships: &'a HashMap<RoomNum, Membership>,
    pub(crate) news: &'a Changes,
}

pub(crate) fn told(
    asked: &room::Asked<'_>,
    session: &Session,
    request: &Asked,
    scope: &Scope<'_>,
) -> Result<Told, ApiError> {
    let mut told = Told::default();
    if request.to_device.enabled {
        told.to_device = Some(to_device(asked, session, request)?);
    }
    if request.e2ee.enabled {
        told.keys_changed = asked.since.is_some() && scope.news.key_counts;
        told.e2ee = Some(keys(asked, session, scope)?);
    }
    if request.account_data.enabled {
        told.account_data = Some(account_data(asked, session, scope)?);
    }
    if request.receipts.enabled {
        told.receipts = Some(receipts(asked, scope)?);
    }
    if request.typing.enabled {
        told.typing = Some(typing(asked, scope)?);
    }
    Ok(told)
}

fn to_device(asked: &room::Asked<'_>, session: &Session, request: &Asked) -> Result<Messages, ApiError> {
    let after = request.to_device_since()?.unwrap_or(Seq::ZERO);
    let limit = request.to_device.limit.unwrap_or(TO_DEVICE.0).clamp(1, TO_DEVICE.1);
    let users = &asked.api.users;
    let (events, cut) = users.to_device_since(session.user, &session.device_id, after, asked.up_to, limit)?;
    Ok(Messages { events, next_batch: cut.unwrap_or(asked.up_to).0.to_string() })
}

fn keys(asked: &room::Asked<'_>, session: &Session, scope: &Scope<'_>) -> Result<Keys, ApiError> {
    let (api, since) = (asked.api, asked.since.map(|since| since.log));
    let mut comings = Comings::default();
    if let Some(since) = since {
        for (room, now) in scope.memberships {
            let changed = scope.news.rooms.as_ref().is_none_or(|rooms| rooms.contains(room));
            if changed {
                comings.note(api, session, *room, now, (Pos::at(since), Pos::at(asked.up_to)))?;
            }
        }
    }
    let lists = devices::lists(api, session, scope.memberships, since, asked.up_to, scope.news, &comings)?;
    Ok(Keys {
        device_lists: lists,
        device_one_time_keys_count: api.users.key_counts(session.user, &session.device_id)?,
        device_unused_fallback_key_types: api
            .users
            .unused_fallback_key_types(session.user, &session.device_id)?,
    })
}

fn account_data(
    asked: &room::Asked<'_>,
    session: &Session,
    scope: &Scope<'_>,
) -> Result<AccountData, ApiError> {
    let (api, user) = (asked.api, session.user);
    let mut told = AccountData::default();
    let mut global = Vec::new();
    match asked.since {
        None => global = api.users.all_account_data(user, RoomNum::NONE)?,
        Some(since) => {
            for (room, entry) in api.users.account_data_since(user, since.log, asked.up_to)? {
                if room == RoomNum::NONE {
                    global.push(entry);
                } else if scope.connection.rooms.contains_key(&room) && !scope.initial.contains(&room) {
                    let id = api.rooms.room_id(room)?.to_string();
                    told.rooms.entry(id).or_default().extend(typed(&entry));
                }
            }
        }
    }
    if asked.since.is_none() || global.iter().any(|(data_type, _)| data_type == "m.push_rules") {
        let rules = json!({ "global": api.users.push_rules(&session.user_id, user)? });
        global.retain(|(data_type, _)| data_type != "m.push_rules");
        global.push(("m.push_rules".to_owned(), rules.to_string()));
    }
    told.global = global.iter().filter_map(typed).collect();
    for room in scope.initial {
        let data = api.users.all_account_data(user, *room)?;
        if !data.is_empty() {
            let id = api.rooms.room_id(*room)?.to_string();
            told.rooms.insert(id, data.iter().filter_map(typed).collect());
        }
    }
    Ok(told)
}

fn receipts(asked: &room::Asked<'_>, scope: &Scope<'_>) -> Result<ByRoom, ApiError> {
    let (api, filter) = (asked.api, EventFilter::default());
    let mut told = ByRoom::default();
    for room in scope.connection.rooms.keys() {
        let after = match asked.since {
            Some(since) if !scope.initial.contains(room) => {
                let changed = scope.news.rooms.as_ref().is_none_or(|rooms| rooms.contains(room));
                if !changed {
                    continue;
                }
                since.log
            }
            _ => Seq::ZERO,
        };
        let moved = api.rooms.receipts_between(*room, asked.viewer.user, after, asked.up_to)?;
        if let Some(event) = receipt_event(api, &moved, &filter, &asked.ignored)? {
            told.rooms.insert(api.rooms.room_id(*room)?.to_string(), event);
        }
    }
    Ok(told)
}

fn typing(asked: &room::Asked<'_>, scope: &Scope<'_>) -> Result<ByRoom, ApiError> {
    let api = asked.api;
    let mut told = ByRoom::default();
    for room in scope.connection.rooms.keys() {
        let initial = scope.initial.contains(room);
        let since = asked.since.filter(|_| !initial).map_or(0, |since| since.typing);
        if let Some(typing) = api.typing.changed_since(*room, since)
            && (!initial || !typing.is_empty())
        {
            told.rooms.insert(api.rooms.room_id(*room)?.to_string(), typing_event(api, &typing)?);
        }
    }
    Ok(told)
}
