//! The border as the rooms' gate: the one decision at every door.

use crate::{
    Border, Error,
    facts::{EventFacts, Held, RoomFacts, room_facts},
    rulings::{self, Key, Party, across, rule, user_of},
    standing::{Account, Holder, Peer, Standing},
};
use postern_graph::{RoomNum, UserNum};
use postern_policy::{
    ResolvedClearance,
    decide::{self, Action, Context, Direction, Door, Principal, Question, Resource},
};
use postern_rooms::{
    Asker, CreateRoom, Draft, Entry, Error as RoomsError, Event, Form, Gate, Later, Rooms, now_ms,
    view::Viewer,
};
use ruma::{ServerName, UserId};
use serde_json::{json, value::RawValue};
use std::sync::Arc;

/// What the rooms are told of trouble at the border.
fn told(error: Error) -> RoomsError {
    match error {
        Error::Rooms(error) => error,
        Error::Graph(error) => error.into(),
        // Whatever else is wrong: nothing passes.
        error => RoomsError::Forbidden(error.to_string()),
    }
}

pub(crate) fn dominates(clearance: &ResolvedClearance, label: &Held) -> bool {
    label.as_ref().is_ok_and(|label| clearance.dominates(label))
}

/// Why a clearance does not dominate a label, for people.
pub(crate) fn why_not(standing: &Standing, clearance: &ResolvedClearance, label: &Held) -> String {
    match label {
        Ok(label) => standing.policies.explain(clearance, label).to_string(),
        Err(error) => error.to_string(),
    }
}

impl Border {
    /// Whether a server is spoken with now.
    fn speaks(&self, standing: &Standing, server: &ServerName) -> bool {
        let peer = standing.peer(server);
        if peer.hours.is_empty() && (standing.base == decide::Base::Open || peer.accredited) {
            return true;
        }
        let now = now_ms();
        (standing.base == decide::Base::Open || peer.server.clearance.is_some() || peer.accredited)
            && (peer.hours.is_empty() || peer.hours.iter().any(|hours| hours.contains(now)))
    }

    pub(crate) fn may_know(
        &self,
        standing: &Standing,
        rooms: &Rooms,
        server: &ServerName,
        room: RoomNum,
    ) -> Result<bool, Error> {
        if server == rooms.server_name() {
            return Ok(true);
        }
        let facts = room_facts(standing, rooms, room)?;
        if !standing.watches_all && facts.is_unlabelled() {
            return Ok(true);
        }
        let peer = standing.peer(server);
        if let Err(why) = self.may_be_in(standing, &facts, &peer, room, server) {
            self.refuse("join", server.as_str(), facts.id.as_str(), &why);
            return Ok(false);
        }
        Ok(true)
    }

    fn may_be_in(
        &self,
        standing: &Standing,
        facts: &RoomFacts,
        peer: &Peer,
        room: RoomNum,
        server: &ServerName,
    ) -> Result<(), String> {
        if !facts.federate {
            return Err("the room is for users of this server only".to_owned());
        }
        if peer.rooms.as_ref().is_some_and(|rooms| !rooms.contains(&facts.id)) {
            return Err("the server may be in other rooms only".to_owned());
        }
        let cleared = dominates(&peer.clearance, &facts.floor);
        let key = Key {
            party: Party::Named(server.to_string()),
            action: Action::Release,
            room,
            event: None,
            has_media: false,
            dominates: cleared,
            sender_dominates: false,
            target: None,
            hour: Key::now(),
        };
        let question =
            |hour| across(peer, Action::Release, Resource::Room(facts.room.clone()), cleared, hour);
        let ruling = rule(standing, &self.0.ledger, key, question);
        if ruling.allowed {
            return Ok(());
        }
        let labels = if cleared { String::new() } else { why_not(standing, &peer.clearance, &facts.floor) };
        Err(if labels.is_empty() { ruling.why.clone() } else { labels })
    }

    pub(crate) fn event_facts(
        &self,
        standing: &Standing,
        rooms: &Rooms,
        facts: &RoomFacts,
        event: &Event,
    ) -> Result<Arc<EventFacts>, Error> {
        let place = (event.num, event.record.redacted_by.is_some());
        if let Some(known) = standing.events.get(&place) {
            return Ok(known);
        }
        let server = event.sender().server_name();
        let peer = (server != rooms.server_name()).then(|| standing.peer(server));
        let default = peer.as_ref().and_then(|peer| peer.default_label.as_ref());
        let known = Arc::new(EventFacts::of(standing, rooms, facts, event, default)?);
        standing.events.insert(place, known.clone());
        Ok(known)
    }

    /// The event as policies see it.
    fn resource(
        &self,
        standing: &Standing,
        facts: &RoomFacts,
        event: &Event,
        known: &EventFacts,
    ) -> Resource {
        let server = event.sender().server_name();
        let sender = if server == self.0.server {
            // Its roles are not what an event is judged by.
            let own = decide::Server {
                name: server.to_string(),
                local: true,
                accredited: true,
                ..decide::Server::default()
            };
            Arc::new(decide::User {
                id: event.sender().to_string(),
                server: Arc::new(own),
                ..decide::User::default()
            })
        } else {
            user_of(&standing.peer(server), event.sender().as_str())
        };
        let mut seen = decide::Event {
            id: String::new(),
            r#type: known.event_type.clone(),
            kind: known.kind,
            room: facts.room.clone(),
            sender,
            label: known.said.as_ref().map(|label| crate::facts::text_of(standing, label)),
            has_media: known.has_media,
            size: 0,
        };
        rulings::in_general(standing, &mut seen, event.id.as_str(), known.size);
        Resource::Event(Arc::new(seen))
    }

    fn event_key(party: Party, action: Action, event: &Event, known: &EventFacts, cleared: bool) -> Key {
        Key {
            party,
            action,
            room: event.record.room,
            event: Some((
                known.event_type.clone(),
                event.sender().to_string(),
                known.label_number,
                known.findings_number,
            )),
            has_media: known.has_media,
            dominates: cleared,
            sender_dominates: false,
            target: None,
            hour: Key::now(),
        }
    }

    pub(crate) fn form(
        &self,
        standing: &Standing,
        rooms: &Rooms,
        server: &ServerName,
        event: &Event,
    ) -> Result<Form, Error> {
        if server == rooms.server_name() {
            return Ok(Form::Whole);
        }
        let facts = room_facts(standing, rooms, event.record.room)?;
        if !standing.watches_all && facts.is_unlabelled() {
            let known = self.event_facts(standing, rooms, &facts, event)?;
            if known.label.as_ref().is_ok_and(|label| label.is_unlabelled()) {
                return Ok(Form::Whole);
            }
        }
        if !self.may_know(standing, rooms, server, event.record.room)? {
            return Ok(Form::Nothing);
        }
        self.0.ledger.form(event.num, server, || {
            let known = self.event_facts(standing, rooms, &facts, event)?;
            let peer = standing.peer(server);
            if known.is_never_redacted {
                return Ok((Form::Whole, 0));
            }
            let cleared = dominates(&peer.clearance, &known.label);
            let party = Party::Named(server.to_string());
            let key = Self::event_key(party, Action::Release, event, &known, cleared);
            let ruling = rule(standing, &self.0.ledger, key, |hour| {
                let resource = self.resource(standing, &facts, event, &known);
                let mut question = across(&peer, Action::Release, resource, cleared, hour);
                question.context.guard = (*known.findings).clone();
                question.context.encrypted = known.kind == decide::Kind::Encrypted;
                question
            });
            let form = if ruling.allowed { Form::Whole } else { Form::Redacted };
            let outcome = if ruling.allowed { "whole" } else { "redacted" };
            metrics::counter!("postern_border_released", "peer" => server.to_string(), "form" => outcome).increment(1);
            if !ruling.allowed {
                tracing::info!(target: "postern::border", %server, event = %event.id, why = ruling.why, "an event is sent redacted");
            }
            Ok((form, ruling.id))
        })
    }

    /// A local user on a device.
    pub(crate) fn holder(
        &self,
        standing: &Standing,
        user: UserNum,
        id: &UserId,
        device: &str,
    ) -> Result<Arc<Holder>, Error> {
        let place = (user, device.to_owned());
        if let Some(holder) = standing.holders.get(&place) {
            return Ok(holder);
        }
        let account = self.0.users.account(id)?;
        let account = Account {
            admin: account.as_ref().is_some_and(|account| account.admin),
            guest: account.as_ref().is_some_and(|account| account.guest),
        };
        let holder = Arc::new(standing.holder(&self.0.server, id, device.into(), &account));
        standing.holders.insert(place, holder.clone());
        Ok(holder)
    }

    pub(crate) fn reads(
        &self,
        standing: &Standing,
        rooms: &Rooms,
        viewer: &Viewer<'_>,
        event: &Event,
    ) -> Result<bool, Error> {
        let facts = room_facts(standing, rooms, event.record.room)?;
        if !standing.watches_all && facts.is_unlabelled() {
            let known = self.event_facts(standing, rooms, &facts, event)?;
            if known.label.as_ref().is_ok_and(|label| label.is_unlabelled()) {
                return Ok(true);
            }
        }
        if event.record.sender == viewer.user {
            return Ok(true);
        }
        let known = self.event_facts(standing, rooms, &facts, event)?;
        let holder = self.holder(standing, viewer.user, viewer.user_id, viewer.device_id)?;
        let cleared = dominates(&holder.clearance, &known.label);
        let party = Party::Holder(viewer.user, viewer.device_id.to_owned());
        let key = Self::event_key(party, Action::Read, event, &known, cleared);
        let ruling = rule(standing, &self.0.ledger, key, |hour| Question {
            principal: Principal::User(holder.user.clone()),
            action: Action::Read,
            resource: self.resource(standing, &facts, event, &known),
            context: Context {
                dominates: cleared,
                encrypted: known.kind == decide::Kind::Encrypted,
                guard: (*known.findings).clone(),
                at: rulings::at(hour),
                via: Door::Client,
                direction: Direction::Within,
                ..Context::default()
            },
        });
        Ok(ruling.allowed)
    }

    /// Why a user may not come to know a room.
    fn enters(
        &self,
        standing: &Standing,
        rooms: &Rooms,
        user: Option<&UserId>,
        room: RoomNum,
        entry: Entry,
    ) -> Result<Option<String>, Error> {
        let facts = room_facts(standing, rooms, room)?;
        let Some(user) = user else {
            let open = facts.is_unlabelled();
            return Ok((!open).then(|| "the room is for users that are cleared for it".to_owned()));
        };
        if !standing.watches_all && facts.is_unlabelled() {
            return Ok(None);
        }
        let refused = if user.server_name() == self.0.server {
            let number = rooms.user(user)?;
            let holder = match number {
                Some(number) => self.holder(standing, number, user, "")?,
                None => {
                    let account = Account { admin: false, guest: false };
                    Arc::new(standing.holder(&self.0.server, user, "".into(), &account))
                }
            };
            let cleared = dominates(&holder.clearance, &facts.floor);
            self.join_ruled(standing, &facts, room, &holder.user, cleared)
                .map_err(|why| if cleared { why } else { why_not(standing, &holder.clearance, &facts.floor) })
        } else {
            let peer = standing.peer(user.server_name());
            let cleared = dominates(&peer.clearance, &facts.floor);
            self.may_be_in(standing, &facts, &peer, room, user.server_name()).and_then(|()| {
                self.join_ruled(standing, &facts, room, &user_of(&peer, user.as_str()), cleared)
            })
        };
        let Err(why) = refused else { return Ok(None) };
        if entry != Entry::Look {
            self.refuse("join", user.as_str(), facts.id.as_str(), &why);
        }
        Ok(Some(format!("you are not cleared for this room: {why}")))
    }

    fn join_ruled(
        &self,
        standing: &Standing,
        facts: &RoomFacts,
        room: RoomNum,
        user: &Arc<decide::User>,
        cleared: bool,
    ) -> Result<(), String> {
        let key = Key {
            party: Party::Named(user.id.clone()),
            action: Action::Join,
            room,
            event: None,
            has_media: false,
            dominates: cleared,
            sender_dominates: false,
            target: None,
            hour: Key::now(),
        };
        let ruling = rule(standing, &self.0.ledger, key, |hour| Question {
            principal: Principal::User(user.clone()),
            action: Action::Join,
            resource: Resource::Room(facts.room.clone()),
            context: Context {
                dominates: cleared,
                at: rulings::at(hour),
                via: Door::Join,
                direction: if user.server.local { Direction::Within } else { Direction::Out },
                ..Context::default()
            },
        });
        if ruling.allowed { Ok(()) } else { Err(ruling.why.clone()) }
    }

    /// Why an event of another server is not let in.
    fn kept_out(&self, standing: &Standing, rooms: &Rooms, event: &Event) -> Result<Option<String>, Error> {
        let facts = room_facts(standing, rooms, event.record.room)?;
        let known = self.event_facts(standing, rooms, &facts, event)?;
        let is_plain = facts.is_unlabelled() && known.label.as_ref().is_ok_and(|label| label.is_unlabelled());
        if is_plain && !standing.watches_all {
            return Ok(None);
        }
        let server = event.sender().server_name();
        let peer = standing.peer(server);
        if let Err(why) = self.may_be_in(standing, &facts, &peer, event.record.room, server) {
            // The server is to hear that it is out, and so is everybody: what ends a membership is let in.
            let ends = event.membership().is_some_and(|kind| {
                matches!(kind, postern_rooms::MembershipKind::Leave | postern_rooms::MembershipKind::Ban)
            });
            if !ends {
                return Ok(Some(format!("{server} may not be in the room: {why}")));
            }
        }
        let label = match &known.label {
            Ok(label) => label,
            Err(error) => return Ok(Some(error.to_string())),
        };
        if let (Some(said), Ok(ceiling)) = (&known.said, &facts.ceiling) {
            let said = match standing.resolve(Some(said)) {
                Ok(said) => said,
                Err(error) => return Ok(Some(error.to_string())),
            };
            if !said.at_most(ceiling) {
                return Ok(Some("its label is above that of the room".to_owned()));
            }
            if known.is_never_redacted && facts.floor.as_ref().is_ok_and(|floor| !said.at_most(floor)) {
                return Ok(Some(
                    "its label is above what all in the room may see, who have to see it".to_owned(),
                ));
            }
            if !label.at_most(&said) {
                return Ok(Some("its label is below that of what it relates to".to_owned()));
            }
        }
        let believed = peer.accreditation.dominates(label) || known.is_never_redacted;
        let party = Party::Named(server.to_string());
        let key = Self::event_key(party, Action::Admit, event, &known, believed);
        let ruling = rule(standing, &self.0.ledger, key, |hour| {
            let resource = self.resource(standing, &facts, event, &known);
            let mut question = across(&peer, Action::Admit, resource, believed, hour);
            question.context.guard = (*known.findings).clone();
            question.context.encrypted = known.kind == decide::Kind::Encrypted;
            question
        });
        if ruling.allowed {
            return Ok(None);
        }
        Ok(Some(if believed {
            ruling.why.clone()
        } else {
            format!(
                "{server} is not accredited for it: {}",
                why_not(standing, &peer.accreditation, &known.label)
            )
        }))
    }

    /// Notes that something was refused.
    pub(crate) fn refuse(&self, action: &'static str, who: &str, what: &str, why: &str) {
        metrics::counter!("postern_border_refused", "action" => action).increment(1);
        // Who tries again and again is told of once an hour.
        let (place, hour) = ((who.to_owned(), what.to_owned(), why.to_owned()), Key::now());
        if self.0.told.get(&place) == Some(hour) {
            return;
        }
        self.0.told.insert(place, hour);
        tracing::info!(target: "postern::border", action, who, what, why, "refused");
        self.0
            .ledger
            .note_refusal(json!({ "action": action, "who": who, "what": what, "why": why, "at": now_ms() }));
    }
}

impl Gate for Border {
    fn speaks_with(&self, server: &ServerName) -> bool {
        self.speaks(&self.standing(), server)
    }

    fn takes_request(&self, server: &ServerName) -> bool {
        let Some(rate) = self.standing().peer(server).requests_per_second else { return true };
        self.0.requests.take(server, rate)
    }

    fn knows(&self, rooms: &Rooms, server: &ServerName, room: RoomNum) -> Result<bool, RoomsError> {
        self.may_know(&self.standing(), rooms, server, room).map_err(told)
    }

    fn released(&self, rooms: &Rooms, server: &ServerName, event: &Event) -> Result<Form, RoomsError> {
        self.form(&self.standing(), rooms, server, event).map_err(told)
    }

    fn settled(&self) -> Later<'_, ()> {
        Box::pin(async move { self.0.ledger.settle().await.map_err(told) })
    }

    fn admitted(&self, rooms: &Rooms, event: &Event) -> Result<Option<String>, RoomsError> {
        let why = self.kept_out(&self.standing(), rooms, event).map_err(told)?;
        if let Some(why) = &why {
            self.refuse("admit", event.sender().as_str(), event.id.as_str(), why);
        }
        Ok(why)
    }

    fn may_enter(
        &self,
        rooms: &Rooms,
        user: Option<&UserId>,
        room: RoomNum,
        entry: Entry,
    ) -> Result<Option<String>, RoomsError> {
        self.enters(&self.standing(), rooms, user, room, entry).map_err(told)
    }

    fn may_enter_elsewhere(&self, user: &UserId, create: Option<&RawValue>) -> Option<String> {
        self.enters_elsewhere(&self.standing(), user, create)
    }

    fn may_read(&self, rooms: &Rooms, viewer: &Viewer<'_>, event: &Event) -> Result<bool, RoomsError> {
        self.reads(&self.standing(), rooms, viewer, event).map_err(told)
    }

    fn may_fetch(&self, rooms: &Rooms, asker: Asker<'_>, media: &str) -> Result<bool, RoomsError> {
        self.fetches(&self.standing(), rooms, asker, media).map_err(told)
    }

    fn creating(&self, rooms: &Rooms, creator: &UserId, request: &mut CreateRoom) -> Result<(), RoomsError> {
        self.creates(&self.standing(), rooms, creator, request).map_err(told)
    }

    fn saying(
        &self,
        rooms: &Rooms,
        create: &Event,
        sender: &UserId,
        draft: &mut Draft,
        related: &[Arc<Event>],
    ) -> Result<(), RoomsError> {
        self.says(&self.standing(), rooms, create, sender, draft, related).map_err(told)
    }
}
