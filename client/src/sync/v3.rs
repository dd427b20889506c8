//! `GET /sync` (specification: syncing).

use super::{
    changes::{Changes, changes},
    devices,
    room::{Asked, Comings, Events, Joined, Left, StateAfter, raw, typed},
    token::SyncToken,
};
use crate::{
    Api,
    filter::SyncFilter,
    http::{Answer, ApiError, Caller, Query},
    presence,
    rooms::viewer,
};
use axum::{Json, Router, extract::State, routing::get};
use futures::future::BoxFuture;
use postern_graph::{
    Pos, RoomNum, Seq,
    event::{Membership, MembershipKind},
};
use postern_users::{Session, TypedContent};
use serde::{Deserialize, Serialize};
use serde_json::{json, value::RawValue};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, LazyLock},
    time::Duration,
};
use tokio::time::Instant;

/// Messages to a device in one answer.
const TO_DEVICE: usize = 100;

pub fn routes() -> Router<Api> {
    Router::new()
        .route("/_matrix/client/v3/sync", get(sync))
        .route("/_matrix/client/r0/sync", get(sync))
        .route("/_matrix/client/v3/events", get(|| async { ApiError::unrecognized() }))
}

#[derive(Debug, Deserialize)]
struct Request {
    since: Option<String>,
    filter: Option<String>,
    #[serde(default)]
    full_state: bool,
    timeout: Option<u64>,
    set_presence: Option<String>,
    #[serde(default)]
    use_state_after: bool,
    #[serde(default, rename = "org.matrix.msc4222.use_state_after")]
    use_state_after_unstable: bool,
}

#[derive(Debug, Default, Serialize)]
struct Rooms {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    join: BTreeMap<String, Joined>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    invite: BTreeMap<String, Invited>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    knock: BTreeMap<String, Knocked>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    leave: BTreeMap<String, Left>,
}

#[derive(Debug, Serialize)]
struct Invited {
    invite_state: Events,
}

#[derive(Debug, Serialize)]
struct Knocked {
    knock_state: Events,
}

#[derive(Debug, Serialize)]
pub(crate) struct Response {
    next_batch: String,
    rooms: Rooms,
    presence: Events,
    account_data: Events,
    to_device: Events,
    device_lists: devices::Lists,
    device_one_time_keys_count: BTreeMap<String, u64>,
    device_unused_fallback_key_types: Vec<String>,
    #[serde(rename = "org.matrix.msc2732.device_unused_fallback_key_types")]
    unused_fallback_key_types: Vec<String>,
    #[serde(skip)]
    something: bool,
}

/// Thousands wait here at a time, so that what a waiting request holds is small: the future is boxed before it waits, and
/// an answer that says nothing is gone by then.
fn sync(
    State(api): State<Api>,
    Caller(session): Caller,
    Query(request): Query<Request>,
) -> BoxFuture<'static, Answer<Json<Response>>> {
    Box::pin(async move {
        let task = Task::new(&api, &session, request)?;
        Box::pin(presence::seen(&api, &session, task.request.set_presence.as_deref())).await?;
        if let Some(since) = task.since {
            api.users.to_device_acknowledge(session.user, &session.device_id, since.to_device)?;
        }
        let longest = api.config.limits.long_poll_max_ms;
        let patience = Duration::from_millis(task.request.timeout.unwrap_or(0).min(longest));
        let deadline = Instant::now() + patience;
        let mut waiter = api.wake.listen(session.user);
        loop {
            if let Some(answer) = task.try_answer(deadline)? {
                return Ok(Json(answer));
            }
            tokio::select! {
                () = waiter.woken() => {}
                () = tokio::time::sleep_until(deadline) => {}
                () = api.stopping.cancelled() => {}
            }
        }
    })
}

/// A filter by its id, or as JSON.
pub(crate) fn read_filter(
    api: &Api,
    session: &Session,
    filter: Option<&str>,
) -> Result<Arc<SyncFilter>, ApiError> {
    static ALL: LazyLock<Arc<SyncFilter>> = LazyLock::new(Arc::default);
    let text = match filter {
        None | Some("") => return Ok(ALL.clone()),
        Some(json) if json.starts_with('{') => json.to_owned(),
        Some(id) => api
            .users
            .filter(session.user, id)?
            .ok_or_else(|| ApiError::invalid_param("there is no such filter"))?,
    };
    SyncFilter::parse(&text)
        .map(Arc::new)
        .map_err(|error| ApiError::invalid_param(format!("the filter cannot be read: {error}")))
}

struct Task<'a> {
    api: &'a Api,
    session: &'a Session,
    filter: Arc<SyncFilter>,
    request: Request,
    since: Option<SyncToken>,
}

impl<'a> Task<'a> {
    fn new(api: &'a Api, session: &'a Session, request: Request) -> Result<Self, ApiError> {
        let filter = read_filter(api, session, request.filter.as_deref())?;
        let since: Option<SyncToken> = match request.since.as_deref() {
            None | Some("") => None,
            // Of a time that never was, for a server restored from a backup: its client begins anew, or it would hear
            // of nothing until that time comes.
            Some(token) => Some(token.parse()?).filter(|since: &SyncToken| since.log <= api.graph.durable()),
        };
        Ok(Self { api, session, filter, request, since })
    }

    /// The answer, unless there is nothing to tell yet and time to wait for it.
    fn try_answer(&self, deadline: Instant) -> Result<Option<Response>, ApiError> {
        let answer = self.answer()?;
        let last = answer.something
            || self.since.is_none()
            || self.request.full_state
            || self.api.stopping.is_cancelled()
            || Instant::now() >= deadline;
        Ok(last.then_some(answer))
    }

    fn answer(&self) -> Result<Response, ApiError> {
        let api = self.api;
        let typing = api.typing.now();
        let up_to = api.graph.durable();
        let viewer = viewer(self.session);
        let rooms: HashMap<RoomNum, Membership> =
            api.rooms.rooms_of(self.session.user)?.into_iter().collect();
        let changes = match self.since {
            Some(since) => changes(api, self.session, &rooms, since.log, up_to)?,
            None => Changes { devices: true, key_counts: true, ..Changes::default() },
        };
        let mut asked = Asked::new(api, viewer, &self.filter.room, self.since, up_to)?;
        asked.full_state = self.request.full_state;
        asked.event_fields = self.filter.event_fields.as_deref();
        asked.state_after = match (self.request.use_state_after, self.request.use_state_after_unstable) {
            (true, _) => Some(StateAfter::Stable),
            (false, true) => Some(StateAfter::Unstable),
            _ => None,
        };
        let (global, mut by_room) = self.account_data(up_to)?;
        let mut comings = Comings::default();
        let mut shown = Rooms::default();
        for (room, now) in &rooms {
            let concerned = self.request.full_state
                || changes.rooms.as_ref().is_none_or(|changed| changed.contains(room))
                || self.since.is_some_and(|since| api.typing.changed_since(*room, since.typing).is_some());
            if concerned {
                let heard = match self.since {
                    Some(_) if !asked.was_held_back(*room) => by_room.remove(room).unwrap_or_default(),
                    _ => api.users.all_account_data(self.session.user, *room)?,
                };
                self.room(&asked, *room, now, heard, &mut comings, &mut shown)?;
            }
        }
        let (to_device, cut) = api.users.to_device_since(
            self.session.user,
            &self.session.device_id,
            self.since.map_or(Seq::ZERO, |since| since.to_device),
            up_to,
            TO_DEVICE,
        )?;
        let span = (self.since.map(|since| since.log), up_to);
        let presence = presence::changed(api, self.session, &rooms, span, &changes, &comings.joined)?
            .into_iter()
            .filter(|(user, _)| self.filter.presence.wants_sender(user))
            .filter(|_| self.filter.presence.wants_type("m.presence"))
            .map(|(user, content)| raw(&json!({ "type": "m.presence", "sender": user, "content": content })))
            .collect::<Result<Vec<_>, _>>()?;
        let device_lists =
            devices::lists(api, self.session, &rooms, self.since.map(|s| s.log), up_to, &changes, &comings)?;
        let token = SyncToken { log: up_to, typing, to_device: cut.unwrap_or(up_to) };
        let empty = shown.join.is_empty()
            && shown.invite.is_empty()
            && shown.knock.is_empty()
            && shown.leave.is_empty();
        let something = !empty
            || !to_device.is_empty()
            || !presence.is_empty()
            || !global.is_empty()
            || !device_lists.is_empty()
            || (self.since.is_some() && changes.key_counts);
        let unused = api.users.unused_fallback_key_types(self.session.user, &self.session.device_id)?;
        Ok(Response {
            next_batch: token.to_string(),
            rooms: shown,
            presence: Events { events: presence },
            account_data: Events { events: global },
            to_device: Events { events: to_device },
            device_lists,
            device_one_time_keys_count: api.users.key_counts(self.session.user, &self.session.device_id)?,
            unused_fallback_key_types: unused.clone(),
            device_unused_fallback_key_types: unused,
            something,
        })
    }

    /// New account data: the global, as events, and that of rooms.
    #[allow(clippy::type_complexity, reason = "two parts of one answer")]
    fn account_data(
        &self,
        up_to: Seq,
    ) -> Result<(Vec<Box<RawValue>>, HashMap<RoomNum, Vec<TypedContent>>), ApiError> {
        let users = &self.api.users;
        let user = self.session.user;
        let mut by_room: HashMap<RoomNum, Vec<TypedContent>> = HashMap::new();
        let mut global: Vec<TypedContent> = match self.since {
            None => users.all_account_data(user, RoomNum::NONE)?,
            Some(since) => {
                for (room, entry) in users.account_data_since(user, since.log, up_to)? {
                    by_room.entry(room).or_default().push(entry);
                }
                by_room.remove(&RoomNum::NONE).unwrap_or_default()
            }
        };
        if self.since.is_none() || global.iter().any(|(data_type, _)| data_type == "m.push_rules") {
            // The user's rules with those of the server that they do not replace.
            let rules = json!({ "global": users.push_rules(&self.session.user_id, user)? });
            global.retain(|(data_type, _)| data_type != "m.push_rules");
            global.push(("m.push_rules".to_owned(), rules.to_string()));
        }
        let wanted = |entry: &&TypedContent| self.filter.account_data.wants_type(&entry.0);
        Ok((global.iter().filter(wanted).filter_map(typed).collect(), by_room))
    }

    fn room(
        &self,
        asked: &Asked<'_>,
        room: RoomNum,
        now: &Membership,
        heard: Vec<TypedContent>,
        comings: &mut Comings,
        shown: &mut Rooms,
    ) -> Result<(), ApiError> {
        let rooms = &self.api.rooms;
        let id = rooms.room_id(room)?;
        if !self.filter.room.wants_room(&id) {
            return Ok(());
        }
        let end = Pos::at(asked.up_to);
        let Some((kind, event, since)) = rooms.member_at(room, &self.session.user_id, now, end)? else {
            return Ok(());
        };
        let now = Membership { kind, event, since, sender: now.sender };
        let news = self.since.is_none_or(|token| now.since > Pos::at(token.log));
        match kind {
            MembershipKind::Join => {
                if let Some(joined) = asked.joined(room, &now, heard, comings)? {
                    shown.join.insert(id.to_string(), joined);
                }
            }
            MembershipKind::Invite if news || self.request.full_state => {
                let sender = rooms.event(event)?.sender().to_owned();
                if !asked.ignored.contains(&sender) {
                    let events = rooms.stripped_state(room, &self.session.user_id)?;
                    shown.invite.insert(id.to_string(), Invited { invite_state: Events { events } });
                }
            }
            MembershipKind::Knock if news || self.request.full_state => {
                let events = rooms.stripped_state(room, &self.session.user_id)?;
                shown.knock.insert(id.to_string(), Knocked { knock_state: Events { events } });
            }
            MembershipKind::Leave | MembershipKind::Ban => {
                let wanted = match self.since {
                    // A client that stayed away hears of it, though another has forgotten the room.
                    Some(_) => news,
                    None => {
                        self.filter.room.include_leave && rooms.forgotten(room, self.session.user)?.is_none()
                    }
                };
                if wanted {
                    shown.leave.insert(id.to_string(), asked.left(room, &now, comings)?);
                }
            }
            _ => {}
        }
        Ok(())
    }
}
