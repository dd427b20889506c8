//! What local users say: at which label, by whom, and so that a redacted copy of it tells nothing.

use crate::{
    Border, Error,
    facts::{FLOOR, Held, LABEL, RoomFacts, kind_of, said_in, shows_file, text_of},
    gate::{dominates, why_not},
    open,
    rulings::{rule, user_of, within},
    standing::Standing,
};
use postern_policy::{
    Label,
    decide::{self, Action, Question, Resource},
};
use postern_rooms::{Draft, Error as RoomsError, Event, NEVER_REDACTED, Rooms, SALT, media_named};
use ruma::UserId;
use serde_json::{Map, Value};
use std::sync::Arc;

fn forbidden(why: impl Into<String>) -> Error {
    RoomsError::Forbidden(why.into()).into()
}

impl Border {
    /// Lets pass what a local user wants to say, changed where it has to be.
    pub(crate) fn says(
        &self,
        standing: &Standing,
        rooms: &Rooms,
        create: &Event,
        sender: &UserId,
        draft: &mut Draft,
        related: &[Arc<Event>],
    ) -> Result<(), Error> {
        self.check_published(standing, &create.room_id, draft)?;
        let facts = match standing.rooms.get(&create.record.room) {
            Some(facts) => facts,
            // A room that is being created is not in the store yet.
            None => {
                let content = create.content_as().unwrap_or_default();
                Arc::new(RoomFacts::of(standing, create.room_id.clone(), &content))
            }
        };
        let mut content: Map<String, Value> = serde_json::from_str(draft.content.get())
            .map_err(|error| RoomsError::BadJson(error.to_string()))?;
        facts.keeps_to_rule(rooms, sender, draft, &content)?;
        let said = said_in(standing, &content).map_err(|error| forbidden(&*error))?;
        let never_redacted = draft.state_key.is_some() && NEVER_REDACTED.contains(&draft.event_type.as_str());
        let own = match &said {
            Some(said) => standing.resolve(Some(said)),
            None if never_redacted => facts.floor.clone(),
            None => facts.ceiling.clone(),
        };
        for file in media_named(draft.content.get()) {
            if let Some(label) = self.label_of(standing, &file)
                && !matches!((&label.held, &own), (Ok(label), Ok(own)) if label.at_most(own))
            {
                let text = label.text;
                return Err(forbidden(format!(
                    "the label of the file, {text}, is above that of the event which shows it"
                )));
            }
        }
        if facts.is_unlabelled() && said.is_none() && !standing.watches_all {
            return Ok(());
        }
        if let Some(said) = &said {
            self.is_fitting(standing, &facts, said, &own, never_redacted, related)?;
            // Clients may send it as people write it. How it is marked is not theirs to say.
            let is_marked = said.mark().is_some() || said.spif().is_some();
            let said = if is_marked { self.completed(standing, said)? } else { said.clone() };
            content.insert(LABEL.to_owned(), said.to_json());
        }
        if let Some(Value::Object(new)) = content.get("m.new_content") {
            // Clients show what it says instead.
            let new = said_in(standing, new).map_err(|error| forbidden(&*error))?;
            let is_other = |new: &Label| {
                let new = standing.resolve(Some(new));
                !matches!((&new, &own), (Ok(new), Ok(own)) if new.at_most(own) && own.at_most(new))
            };
            if new.as_ref().is_some_and(is_other) {
                return Err(forbidden("an edit has the same label as its new content"));
            }
        }
        let device = draft.txn.as_ref().map_or("", |txn| txn.device.as_str());
        let holder = self.holder(standing, sender, device)?;
        let cleared = dominates(&holder.clearance, &own);
        if !cleared {
            let why = why_not(standing, &holder.clearance, &own);
            return Err(forbidden(format!("you are not cleared for what you want to say: {why}")));
        }
        if !facts.is_unlabelled() {
            keeps_to_the_label(&facts, rooms, sender, draft, &content)?;
        }
        let saying =
            Saying { facts: &facts, user: &holder.user, draft, said: said.as_ref(), content: &content };
        if let Some(mut question) = self.asked(standing, rooms, &saying)? {
            question.context.guard = open::found_in(standing, &draft.event_type, &content);
            let (action, ruling) = (question.action, rule(standing, &self.0.ledger, question));
            if !ruling.allowed {
                self.refuse(action.as_str(), sender.as_str(), facts.id.as_str(), &ruling.why);
                let what = &draft.event_type;
                return Err(forbidden(format!("you may not send {what} here: {}", ruling.why)));
            }
        }
        self.check_open(standing, rooms, &saying, never_redacted)?;
        // Where policies are in force, what has no label may be held back, too.
        let may_be_redacted = standing.watches_all || !own.as_ref().is_ok_and(|own| own.is_unlabelled());
        if may_be_redacted && !never_redacted && draft.event_type != "m.room.encrypted" {
            let salt: u128 = rand::random();
            content.insert(SALT.to_owned(), format!("{salt:032x}").into());
        }
        draft.content = serde_json::value::to_raw_value(&content)
            .map_err(|error| RoomsError::BadJson(error.to_string()))?;
        Ok(())
    }

    /// Whether an event may have the label it says.
    fn is_fitting(
        &self,
        standing: &Standing,
        facts: &RoomFacts,
        said: &Label,
        own: &Held,
        never_redacted: bool,
        related: &[Arc<Event>],
    ) -> Result<(), Error> {
        let own = own.as_ref().map_err(|error| forbidden(&**error))?;
        let said = text_of(standing, said);
        let ceiling = facts.ceiling.as_ref().map_err(|error| forbidden(&**error))?;
        if !own.at_most(ceiling) {
            let room =
                facts.label.as_ref().map_or_else(|| "no label".to_owned(), |label| text_of(standing, label));
            return Err(forbidden(format!("the label {said} is above that of the room, {room}")));
        }
        if never_redacted && facts.floor.as_ref().is_ok_and(|floor| !own.at_most(floor)) {
            return Err(forbidden(
                "all servers of the room have to see this: it cannot have a label above the room's floor",
            ));
        }
        for target in related {
            let content: Map<String, Value> = target.content_as().unwrap_or_default();
            let its = match said_in(standing, &content) {
                Ok(Some(label)) => standing.resolve(Some(&label)),
                Ok(None) => facts.ceiling.clone(),
                Err(error) => Err(error),
            };
            if !its.is_ok_and(|its| its.at_most(own)) {
                return Err(forbidden(format!(
                    "the label {said} is below that of what you relate to: to say it again at a lower label, ask for a release"
                )));
            }
        }
        Ok(())
    }

    /// What policies are asked about it; nothing of coming and going, which is asked about where one comes in.
    fn asked(
        &self,
        standing: &Standing,
        rooms: &Rooms,
        saying: &Saying<'_>,
    ) -> Result<Option<Question>, Error> {
        let Saying { facts, user, draft, content, .. } = *saying;
        let is_member = draft.event_type == "m.room.member";
        let membership = content.get("membership").and_then(Value::as_str);
        let invited = draft
            .state_key
            .as_deref()
            .filter(|_| is_member && membership == Some("invite"))
            .and_then(|user| UserId::parse(user).ok());
        let action = match (&invited, &draft.state_key) {
            (Some(_), _) => Action::Invite,
            (None, Some(_)) if is_member => return Ok(None),
            (None, Some(_)) => Action::State,
            (None, None) => Action::Send,
        };
        let target = match &invited {
            Some(invited) if invited.server_name() == self.0.server => {
                Some(self.holder(standing, invited, "")?.user.clone())
            }
            Some(invited) => Some(user_of(&standing.peer(invited.server_name()), invited.as_str())),
            None => None,
        };
        let resource = if action == Action::Invite {
            Resource::Room(facts.seen(standing, rooms)?)
        } else {
            self.resource_of(standing, rooms, saying)?
        };
        // That the sender is cleared for it, and the invited for the room, was found out before.
        let mut question = within(user.clone(), action, resource, true);
        question.context.sender_dominates = true;
        question.context.encrypted = draft.event_type == "m.room.encrypted";
        question.context.target = target;
        Ok(Some(question))
    }

    /// What is to be said, as policies see it.
    pub(crate) fn resource_of(
        &self,
        standing: &Standing,
        rooms: &Rooms,
        saying: &Saying<'_>,
    ) -> Result<Resource, Error> {
        let Saying { facts, user, draft, said, content } = *saying;
        let size = u32::try_from(draft.content.get().len()).unwrap_or(u32::MAX);
        Ok(Resource::Event(Arc::new(decide::Event {
            id: String::new(),
            r#type: draft.event_type.clone(),
            kind: kind_of(&draft.event_type, draft.state_key.is_some(), content),
            room: facts.seen(standing, rooms)?,
            sender: user.clone(),
            label: said.map(|said| text_of(standing, said)),
            has_media: shows_file(content),
            size: if standing.is_particular { size } else { 0 },
        })))
    }

    /// A label with its policy's names, marking and digest.
    fn completed(&self, standing: &Standing, label: &Label) -> Result<Label, Error> {
        standing.policies.complete(label).map_err(|error| forbidden(error.to_string()))
    }
}

/// What somebody wants to say, and where.
#[derive(Clone, Copy)]
pub(crate) struct Saying<'a> {
    pub(crate) facts: &'a RoomFacts,
    pub(crate) user: &'a Arc<decide::User>,
    pub(crate) draft: &'a Draft,
    said: Option<&'a Label>,
    pub(crate) content: &'a Map<String, Value>,
}

/// What may not be done in a labelled room, because it would let in, or tell, servers and people that nobody asked about.
fn keeps_to_the_label(
    facts: &RoomFacts,
    rooms: &Rooms,
    sender: &UserId,
    draft: &Draft,
    content: &Map<String, Value>,
) -> Result<(), Error> {
    let text = |key: &str| content.get(key).and_then(Value::as_str);
    let integer = |key: &str, default: i64| content.get(key).and_then(Value::as_i64).unwrap_or(default);
    match draft.event_type.as_str() {
        "m.room.history_visibility" if text("history_visibility") == Some("world_readable") => {
            Err(forbidden("a labelled room cannot be read by everybody"))
        }
        "m.room.join_rules" if facts.federate && text("join_rule") == Some("public") => Err(forbidden(
            "a labelled room that other servers may be in cannot be joined by everybody: any server of it could let others in",
        )),
        "m.room.guest_access" if text("guest_access") == Some("can_join") => {
            Err(forbidden("guests cannot join a labelled room"))
        }
        "m.room.power_levels" if facts.federate => {
            let invite = integer("invite", 0);
            if integer("users_default", 0) >= invite {
                return Err(forbidden(
                    "in a labelled room that other servers may be in not everybody may invite: who invites lets servers in",
                ));
            }
            let users = content.get("users").and_then(Value::as_object).into_iter().flatten();
            for (user, level) in users {
                let is_foreign = UserId::parse(user).is_ok_and(|user| !rooms.is_local(&user));
                if is_foreign && level.as_i64().unwrap_or(i64::MAX) >= invite {
                    return Err(forbidden(format!(
                        "{user} is of another server and may not get the power to invite to a labelled room"
                    )));
                }
            }
            Ok(())
        }
        "m.room.member" if facts.is_mixed && content.contains_key("reason") => Err(forbidden(format!(
            "all servers of the room see why {} is changed, also those that may not see all of it ({FLOOR}): give no reason",
            if draft.state_key.as_deref() == Some(sender.as_str()) {
                "your membership"
            } else {
                "a membership"
            }
        ))),
        _ => Ok(()),
    }
}
