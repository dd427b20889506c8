//! The border as the rooms' gate: the one decision at every door.

use crate::{
    Border, Error,
    facts::{AUDITOR, EventFacts, Held, RoomFacts, room_facts, text_of},
    rulings::{across, hour, rule, user_of, within},
    standing::{Holder, Party, Peer, Standing},
};
use postern_graph::{EventNum, RoomNum, event::flags};
use postern_policy::{
    ResolvedClearance,
    decide::{self, Action, Resource},
};
use postern_rooms::{
    Asker, CreateRoom, Draft, Entry, Error as RoomsError, Event, Form, Gate, Later, Pins, Rooms, now_ms,
    version::Version, view::Viewer,
};
use ruma::{OwnedUserId, RoomId, ServerName, UserId};
use serde_json::{Map, Value, json, value::RawValue};
use std::sync::Arc;

/// What the rooms are told of trouble at the border.
fn told(error: Error) -> RoomsError {
    match error {
        Error::Rooms(error) => error,
        Error::Graph(error) | Error::Users(postern_users::Error::Graph(error)) => error.into(),
        // Whatever else is wrong: nothing passes.
        error => {
            tracing::error!(%error, "the border cannot decide");
            RoomsError::Forbidden("this cannot be decided now".to_owned())
        }
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
    pub(crate) fn speaks(standing: &Standing, server: &ServerName) -> bool {
        let peer = standing.peer(server);
        let now = now_ms();
        let is_open = peer.hours.is_empty() || peer.hours.iter().any(|hours| hours.contains(now));
        is_open && Self::speaks_at_some_hour(standing, &peer)
    }

    fn speaks_at_some_hour(standing: &Standing, peer: &Peer) -> bool {
        peer.is_known || standing.base == decide::Base::Open
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
        if let Err(why) = self.may_be_in(standing, rooms, &facts, &standing.peer(server))? {
            self.refuse("join", server.as_str(), facts.id.as_str(), &why);
            return Ok(false);
        }
        Ok(true)
    }

    fn may_be_in(
        &self,
        standing: &Standing,
        rooms: &Rooms,
        facts: &RoomFacts,
        peer: &Peer,
    ) -> Result<Result<(), String>, Error> {
        if !facts.federate {
            return Ok(Err("the room is for users of this server only".to_owned()));
        }
        if peer.rooms.as_ref().is_some_and(|rooms| !rooms.contains(&facts.id)) {
            return Ok(Err("the server may be in other rooms only".to_owned()));
        }
        let cleared = dominates(&peer.clearance, &facts.floor);
        let resource = Resource::Room(facts.seen(standing, rooms)?);
        let ruling = rule(standing, &self.0.ledger, across(peer, Action::Release, resource, cleared));
        Ok(match (ruling.allowed, cleared) {
            (true, _) => Ok(()),
            (false, true) => Err(ruling.why.clone()),
            (false, false) => Err(why_not(standing, &peer.clearance, &facts.floor)),
        })
    }

    pub(crate) fn event_facts(
        &self,
        standing: &Standing,
        rooms: &Rooms,
        facts: &RoomFacts,
        event: &Event,
    ) -> Result<Arc<EventFacts>, Error> {
        // What it says is another thing once it is redacted, or its content comes.
        let place = (event.num, event.record.redacted_by.is_some() || event.record.has(flags::COPY));
        let is_stored = event.num != EventNum::UNPLACED;
        if is_stored && let Some(known) = standing.events.get(&place) {
            return Ok(known);
        }
        let server = event.sender().server_name();
        let peer = (server != rooms.server_name()).then(|| standing.peer(server));
        let default = peer.as_ref().and_then(|peer| peer.default_label.as_ref());
        let known = Arc::new(EventFacts::of(standing, rooms, facts, event, default)?);
        if is_stored {
            standing.events.insert(place, known.clone());
        }
        Ok(known)
    }

    /// Whether nothing is to be decided about an event: it has no label, and nobody wrote down what becomes of those.
    pub(crate) fn is_plain(
        &self,
        standing: &Standing,
        rooms: &Rooms,
        facts: &RoomFacts,
        event: &Event,
    ) -> Result<bool, Error> {
        if standing.watches_all || !facts.is_unlabelled() {
            return Ok(false);
        }
        let known = self.event_facts(standing, rooms, facts, event)?;
        Ok(known.label.as_ref().is_ok_and(|label| label.is_unlabelled()))
    }

    /// The event as policies see it.
    pub(crate) fn resource(
        &self,
        standing: &Standing,
        rooms: &Rooms,
        facts: &RoomFacts,
        event: &Event,
        known: &EventFacts,
    ) -> Result<Resource, Error> {
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
        // What is asked about every event anew is asked where some policy wants to know it.
        let (id, size) =
            if standing.is_particular { (event.id.to_string(), known.size) } else { (String::new(), 0) };
        Ok(Resource::Event(Arc::new(decide::Event {
            id,
            r#type: known.event_type.clone(),
            kind: known.kind,
            room: facts.seen(standing, rooms)?,
            sender,
            label: known.said.as_ref().map(|label| text_of(standing, label)),
            has_media: known.has_media,
            size,
        })))
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
        if self.is_plain(standing, rooms, &facts, event)? {
            return Ok(Form::Whole);
        }
        if !self.may_know(standing, rooms, server, event.record.room)? {
            return Ok(Form::Nothing);
        }
        self.0.ledger.form(event.num, server, || {
            let known = self.event_facts(standing, rooms, &facts, event)?;
            if event.record.has(flags::COPY) {
                // There is nothing else to be had here. If the content comes, who got the copy keeps it.
                return Ok((Form::Redacted, 0));
            }
            if known.is_never_redacted {
                return Ok((Form::Whole, 0));
            }
            let peer = standing.peer(server);
            let cleared = dominates(&peer.clearance, &known.label);
            let resource = self.resource(standing, rooms, &facts, event, &known)?;
            let question = known.asked(across(&peer, Action::Release, resource, cleared));
            let ruling = rule(standing, &self.0.ledger, question);
            let (form, outcome) =
                if ruling.allowed { (Form::Whole, "whole") } else { (Form::Redacted, "redacted") };
            // Names of servers that nobody wrote down would be without end.
            let name = if peer.is_known { server.to_string() } else { "others".to_owned() };
            metrics::counter!("postern_border_released", "peer" => name, "form" => outcome).increment(1);
            if !ruling.allowed {
                let why = &ruling.why;
                tracing::info!(target: "postern::border", %server, event = %event.id, why, "an event is sent redacted");
            }
            Ok((form, ruling.id))
        })
    }

    /// A local user on a device; none for what the user may see anywhere.
    pub(crate) fn holder(
        &self,
        standing: &Standing,
        user: &UserId,
        device: &str,
    ) -> Result<Arc<Holder>, Error> {
        let account = self.0.users.account(user)?;
        Ok(standing.holder(Party {
            user: user.to_owned(),
            device: device.to_owned(),
            admin: account.as_ref().is_some_and(|account| account.admin),
            guest: account.as_ref().is_some_and(|account| account.guest),
        }))
    }

    pub(crate) fn reads(
        &self,
        standing: &Standing,
        rooms: &Rooms,
        viewer: &Viewer<'_>,
        event: &Event,
    ) -> Result<bool, Error> {
        let facts = room_facts(standing, rooms, event.record.room)?;
        if event.record.sender == viewer.user || self.is_plain(standing, rooms, &facts, event)? {
            return Ok(true);
        }
        let known = self.event_facts(standing, rooms, &facts, event)?;
        let holder = self.holder(standing, viewer.user_id, viewer.device_id)?;
        let cleared = dominates(&holder.clearance, &known.label);
        let resource = self.resource(standing, rooms, &facts, event, &known)?;
        let question = known.asked(within(holder.user.clone(), Action::Read, resource, cleared));
        Ok(rule(standing, &self.0.ledger, question).allowed)
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
        let Err(why) = self.may_join(standing, rooms, user, &facts)? else { return Ok(None) };
        if entry != Entry::Look {
            self.refuse("join", user.as_str(), facts.id.as_str(), &why);
        }
        Ok(Some(format!("you are not cleared for this room: {why}")))
    }

    /// Whether a user may come into a labelled room uninvited.
    fn is_cleared(
        &self,
        standing: &Standing,
        rooms: &Rooms,
        user: &UserId,
        room: RoomNum,
    ) -> Result<bool, Error> {
        let facts = room_facts(standing, rooms, room)?;
        // Of what has no label, who is cleared says nothing.
        Ok(!facts.is_unlabelled() && self.may_join(standing, rooms, user, &facts)?.is_ok())
    }

    /// Whether a user may be in a room, or why not.
    pub(crate) fn may_join(
        &self,
        standing: &Standing,
        rooms: &Rooms,
        user: &UserId,
        facts: &RoomFacts,
    ) -> Result<Result<(), String>, Error> {
        let (clearance, seen) = if user.server_name() == self.0.server {
            let holder = self.holder(standing, user, "")?;
            (holder.clearance.clone(), holder.user.clone())
        } else {
            let peer = standing.peer(user.server_name());
            if let Err(why) = self.may_be_in(standing, rooms, facts, &peer)? {
                return Ok(Err(why));
            }
            (peer.clearance.clone(), user_of(&peer, user.as_str()))
        };
        let cleared = dominates(&clearance, &facts.floor);
        let resource = Resource::Room(facts.seen(standing, rooms)?);
        let ruling = rule(standing, &self.0.ledger, within(seen, Action::Join, resource, cleared));
        Ok(match (ruling.allowed, cleared) {
            (true, _) => Ok(()),
            (false, true) => Err(ruling.why.clone()),
            (false, false) => Err(why_not(standing, &clearance, &facts.floor)),
        })
    }

    /// Why an event of another server is not let in.
    pub(crate) fn kept_out(
        &self,
        standing: &Standing,
        rooms: &Rooms,
        event: &Event,
    ) -> Result<Option<String>, Error> {
        let facts = room_facts(standing, rooms, event.record.room)?;
        let is_redacted = event.record.redacted_by.is_some() || event.record.has(flags::COPY);
        if let Some(why) = facts.against_rule(&event.kind().to_string(), event.state_key().is_some())
            && !is_redacted
        {
            return Ok(Some(why.to_owned()));
        }
        if self.is_plain(standing, rooms, &facts, event)? {
            return Ok(None);
        }
        let known = self.event_facts(standing, rooms, &facts, event)?;
        let server = event.sender().server_name();
        let peer = standing.peer(server);
        if let Err(why) = self.may_be_in(standing, rooms, &facts, &peer)? {
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
        // Told without its content it says nothing that would have to be believed. If that comes, it is looked at again.
        let is_copy = event.record.has(flags::COPY);
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
        let believed = is_copy || peer.accreditation.dominates(label) || known.is_never_redacted;
        let resource = self.resource(standing, rooms, &facts, event, &known)?;
        let question = known.asked(across(&peer, Action::Admit, resource, believed));
        let ruling = rule(standing, &self.0.ledger, question);
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
        let (place, hour) = ((action, who.to_owned(), what.to_owned(), why.to_owned()), hour());
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
        Self::speaks(&self.standing(), server)
    }

    fn speaks_later(&self, server: &ServerName) -> bool {
        let standing = self.standing();
        Self::speaks_at_some_hour(&standing, &standing.peer(server)) && !Self::speaks(&standing, server)
    }

    fn not_sent<'a>(&'a self, server: &'a ServerName, events: &'a [EventNum]) -> Later<'a, ()> {
        Box::pin(async move { self.0.ledger.take_back(server, events).await.map_err(told) })
    }

    fn is_by_hand(&self, server: &ServerName) -> bool {
        self.standing().by_hand.values().any(|way| way.peer == *server)
    }

    fn pins(&self, server: &ServerName) -> Pins {
        self.standing().peer(server).pins.clone()
    }

    fn other_key(&self, server: &ServerName, why: &str) {
        tracing::error!(target: "postern::border", %server, why, "a server is not the one it has to be");
        self.refuse("tls_pin", server.as_str(), "", why);
    }

    fn takes_request(&self, server: &ServerName) -> bool {
        let Some(rate) = self.standing().peer(server).requests_per_second else { return true };
        self.0.requests.take(server, rate)
    }

    fn writes_to_strangers(&self, _: &ServerName) -> bool {
        // As everywhere in Matrix. Elsewhere what says nothing of its label goes where a room goes, too.
        self.standing().base == decide::Base::Open
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

    fn overruled(&self, rooms: &Rooms, event: &Event) {
        self.look_at_overruling(&self.standing(), rooms, event);
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

    fn may_enter_elsewhere(
        &self,
        rooms: &Rooms,
        user: &UserId,
        room: &RoomId,
        create: Option<&RawValue>,
    ) -> Result<Option<String>, RoomsError> {
        self.enters_elsewhere(&self.standing(), rooms, user, room, create).map_err(told)
    }

    fn pushed(&self, rooms: &Rooms, _: &Viewer<'_>, event: &Event) -> Result<Form, RoomsError> {
        self.pushes(&self.standing(), rooms, event).map_err(told)
    }

    fn policy_key(&self) -> String {
        self.0.policy_key.public()
    }

    fn is_policy_server(&self) -> bool {
        self.standing().policy_server
    }

    fn recommended(
        &self,
        rooms: &Rooms,
        version: &Version,
        event: &Event,
    ) -> Result<Result<String, String>, RoomsError> {
        self.recommends(&self.standing(), rooms, version, event).map_err(told)
    }

    fn clears(&self, rooms: &Rooms, user: &UserId, room: RoomNum) -> Result<bool, RoomsError> {
        self.is_cleared(&self.standing(), rooms, user, room).map_err(told)
    }

    fn may_read(&self, rooms: &Rooms, viewer: &Viewer<'_>, event: &Event) -> Result<bool, RoomsError> {
        self.reads(&self.standing(), rooms, viewer, event).map_err(told)
    }

    fn may_read_all(&self, rooms: &Rooms, user: &UserId, room: RoomNum) -> Result<bool, RoomsError> {
        let standing = self.standing();
        let facts = room_facts(&standing, rooms, room).map_err(told)?;
        let holder = self.holder(&standing, user, "").map_err(told)?;
        Ok(dominates(&holder.clearance, &facts.ceiling))
    }

    fn may_fetch(&self, rooms: &Rooms, asker: Asker<'_>, media: &str) -> Result<bool, RoomsError> {
        self.fetches(&self.standing(), rooms, asker, media).map_err(told)
    }

    fn may_leave<'a>(&'a self, server: &'a ServerName, media: &'a str) -> Later<'a, bool> {
        Box::pin(async move { self.leaves(server, media).await.map_err(told) })
    }

    fn uploading(
        &self,
        user: &UserId,
        device: &str,
        content_type: Option<&str>,
        label: Option<&str>,
    ) -> Result<Option<String>, RoomsError> {
        self.uploads(&self.standing(), user, device, (content_type, label)).map_err(told)
    }

    fn always_in(&self, create: &Map<String, Value>) -> Vec<OwnedUserId> {
        let auditor = create.get(AUDITOR).and_then(Value::as_str);
        let auditor = auditor.and_then(|user| UserId::parse(user).ok());
        auditor.into_iter().filter(|user| user.server_name() == self.0.server).collect()
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
