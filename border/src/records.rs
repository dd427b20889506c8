//! What was decided, refused and disclosed, for whoever looks into it.

use crate::{
    Border, Disclosure, Error, Wrong,
    facts::room_facts,
    gate::{dominates, why_not},
    limits,
    rulings::{across, rule, within},
};
use postern_graph::{
    EventNum,
    codec::Json,
    schema::{Decisions, Refusals},
};
use postern_policy::decide::{self, Action, Explanation, Question, Recorded, Replay, RuleSet, Text};
use postern_rooms::{Event, Rooms, now_ms};
use ruma::{EventId, OwnedEventId, OwnedServerName, ServerName, UserId};
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;
use utoipa::ToSchema;

/// A ruling as it is kept: its number, and what was asked and answered.
pub type Ruling = (u64, Value);

/// A refusal as it is kept: its place, and who was refused what and why.
pub type Refusal = ((u64, u64), Value);

/// An event as another server got it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Disclosed {
    /// The event.
    #[schema(value_type = String)]
    pub event_id: OwnedEventId,
    /// In which form, when, and by which ruling.
    #[serde(flatten)]
    pub disclosure: Disclosure,
}

/// What other policies would have decided.
#[derive(Debug, Clone, Serialize)]
pub struct Replayed {
    /// Of what, and what of it otherwise.
    #[serde(flatten)]
    pub replay: Replay,
    /// Whether these are all rulings that are kept.
    pub complete: bool,
}

/// Why somebody gets an event, or does not.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Explained {
    /// Whether the clearance covers the label.
    pub cleared: bool,
    /// If not, why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uncleared_because: Option<String>,
    /// What policies say.
    #[schema(value_type = Object)]
    pub policies: Explanation,
    /// What is kept of it: the form in which a server got it, which stays as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disclosed: Option<Disclosure>,
}

/// Who asks for an event.
#[derive(Debug, Clone, Copy)]
pub enum For<'a> {
    /// Another server.
    Server(&'a ServerName),
    /// A user of this one.
    User(&'a UserId),
}

impl Border {
    /// Writes down what is only in memory yet, so that what is looked up is all there is.
    ///
    /// # Errors
    /// The store's.
    pub async fn write_down(&self) -> Result<(), Error> {
        self.0.ledger.settle().await?;
        self.0.ledger.keep_refusals().await
    }

    /// A ruling.
    ///
    /// # Errors
    /// The store's.
    pub fn ruling(&self, id: u64) -> Result<Option<Value>, Error> {
        Ok(self.0.graph.get::<Decisions>(&(id,))?.map(|Json(record)| record))
    }

    /// Rulings with numbers above `after`, at most so many. Numbers have no meaning, but their order stays.
    ///
    /// # Errors
    /// The store's.
    pub fn rulings(&self, after: Option<u64>, most: usize) -> Result<Vec<Ruling>, Error> {
        let mut range = self.0.graph.scan::<Decisions, _>(&());
        if let Some(after) = after {
            range = range.after(&(after,));
        }
        let one = |entry: Result<((u64,), Json<Value>), postern_graph::Error>| {
            let ((id,), Json(record)) = entry?;
            Ok((id, record))
        };
        range.iter().take(most).map(one).collect()
    }

    /// What the candidate decided otherwise, of at most so many rulings with numbers above `after`.
    ///
    /// # Errors
    /// The store's.
    pub fn shadow(&self, after: Option<u64>, most: usize) -> Result<Shadow, Error> {
        let standing = self.standing();
        let candidate = standing.decider.candidate().map(|set| set.revision().to_string());
        let mut shadow = Shadow {
            base: standing.candidate_base,
            wrong: standing.candidate_wrong.clone(),
            differences: Vec::new(),
            next: None,
            candidate,
        };
        let Some(candidate) = &shadow.candidate else { return Ok(shadow) };
        let rulings = self.rulings(after, limits::SHADOW_STRETCH)?;
        let last = rulings.last().filter(|_| rulings.len() == limits::SHADOW_STRETCH).map(|(id, _)| *id);
        let differs = |record: &Value| {
            record["shadow"]["revision"] == **candidate
                && record["shadow"]["allowed"] != record["answer"]["allowed"]
        };
        let mut found = rulings.into_iter().filter(|(_, record)| differs(record));
        shadow.differences.extend(found.by_ref().take(most));
        let more = found.next().and_then(|_| shadow.differences.last().map(|(id, _)| *id));
        shadow.next = more.or(last);
        Ok(shadow)
    }

    /// What was refused, the latest first, before a place; at most so many, each with its place.
    ///
    /// # Errors
    /// The store's.
    pub fn refusals(&self, before: (u64, u64), most: usize) -> Result<Vec<Refusal>, Error> {
        let range = self.0.graph.scan::<Refusals, _>(&()).below(&before).reverse();
        let one = |entry: Result<((u64, u64), Json<Value>), postern_graph::Error>| {
            let (place, Json(record)) = entry?;
            Ok((place, record))
        };
        range.iter().take(most).map(one).collect()
    }

    /// Which servers got an event, and in which form.
    ///
    /// # Errors
    /// The store's.
    pub fn disclosures(&self, event: EventNum) -> Result<Vec<(OwnedServerName, Disclosure)>, Error> {
        self.0.ledger.of_event(event)
    }

    /// Which events a server got, after an event, in the order in which they came to be known here; at most so many. Also where
    /// to go on, if there may be more.
    ///
    /// # Errors
    /// The store's.
    pub fn disclosures_to(
        &self,
        rooms: &Rooms,
        server: &ServerName,
        after: EventNum,
        most: usize,
    ) -> Result<(Vec<Disclosed>, Option<EventNum>), Error> {
        let Some(server) = self.0.ledger.known_server(server)? else { return Ok((Vec::new(), None)) };
        let page = self.0.ledger.of_server(server, after, most)?;
        let next = page.last().filter(|_| page.len() == most).map(|(event, _)| *event);
        let disclosed = |(event, disclosure)| -> Result<Disclosed, Error> {
            Ok(Disclosed { event_id: rooms.event(event)?.id.clone(), disclosure })
        };
        Ok((page.into_iter().map(disclosed).collect::<Result<_, _>>()?, next))
    }

    /// Why somebody would get an event if they asked now, or would not, with every policy that has to do with it.
    ///
    /// # Errors
    /// The store's.
    pub fn explain(&self, rooms: &Rooms, asker: For<'_>, event: &Event) -> Result<Explained, Error> {
        let standing = self.standing();
        let facts = room_facts(&standing, rooms, event.record.room)?;
        let known = self.event_facts(&standing, rooms, &facts, event)?;
        let resource = self.resource(&standing, rooms, &facts, event, &known)?;
        let (clearance, question, disclosed) = match asker {
            For::Server(server) => {
                let peer = standing.peer(server);
                let cleared = dominates(&peer.clearance, &known.label);
                let disclosed = self.disclosures(event.num)?.into_iter().find(|(name, _)| name == server);
                let question = across(&peer, Action::Release, resource, cleared);
                (peer.clearance.clone(), question, disclosed.map(|(_, disclosure)| disclosure))
            }
            For::User(user) => {
                let holder = self.holder(&standing, user, "")?;
                let cleared = dominates(&holder.clearance, &known.label);
                (holder.clearance.clone(), within(holder.user.clone(), Action::Read, resource, cleared), None)
            }
        };
        let question: Question = known.asked(question);
        let cleared = question.context.dominates;
        Ok(Explained {
            cleared,
            uncleared_because: (!cleared).then(|| why_not(&standing, &clearance, &known.label)),
            policies: standing.decider.explain(&question),
            disclosed,
        })
    }

    /// What other policies would have decided of what was decided, over so many of the rulings that are kept, the first ones, and
    /// [`limits::REPLAYED`] at most.
    ///
    /// # Errors
    /// [`Error::Wrong`] if these are no policies.
    pub fn replay(
        &self,
        base: Option<decide::Base>,
        policies: &[Text],
        most: Option<usize>,
    ) -> Result<Replayed, Error> {
        let most = most.unwrap_or(limits::REPLAYED).min(limits::REPLAYED);
        let base = base.unwrap_or(self.standing().base);
        let candidate = RuleSet::build(base, policies).map_err(Wrong::from)?;
        let recorded = |entry: Result<((u64,), Json<Value>), postern_graph::Error>| {
            let (_, Json(mut record)) = entry?;
            if let Value::Object(record) = &mut record {
                // What an earlier candidate said is no part of it.
                record.remove("shadow");
            }
            serde_json::from_value::<Recorded>(record).map_err(|error| {
                Wrong(vec![format!("a ruling that was kept cannot be read: {error}")]).into()
            })
        };
        let mut damaged: Option<Error> = None;
        let mut rulings = self.0.graph.scan::<Decisions, _>(&()).iter();
        let questions = rulings
            .by_ref()
            .take(most)
            .map_while(|entry| recorded(entry).map_err(|error| damaged = Some(error)).ok());
        let replay = decide::replay(questions, &candidate);
        match damaged {
            Some(error) => Err(error),
            None => Ok(Replayed { complete: rulings.next().is_none(), replay }),
        }
    }

    /// What counts of policies now: the base, and each policy with where it stands.
    #[must_use]
    pub fn policies(&self) -> PoliciesShown {
        let standing = self.standing();
        let rules = standing.decider.rules();
        let shown = |rule: &decide::Rule| RuleShown {
            id: rule.id.clone(),
            permits: rule.permits,
            reason: rule.reason.clone(),
            file: rule.file.clone(),
            line: rule.line,
            text: rule.text(),
        };
        PoliciesShown {
            base: standing.base,
            revision: rules.revision().to_string(),
            rules: rules.rules().map(shown).collect(),
            warnings: rules.warnings().iter().map(ToString::to_string).collect(),
            room: standing.policy_room.as_ref().map(ToString::to_string),
            bundle: standing.bundle.map(|bundle| bundle.version),
            candidate: standing.decider.candidate().map(|set| set.revision().to_string()),
            candidate_wrong: standing.candidate_wrong.clone(),
        }
    }

    /// Whether a user may do what is for administrators; why not, if not.
    ///
    /// # Errors
    /// The store's.
    pub fn permits(&self, user: &UserId, device: &str, action: Action) -> Result<Result<(), String>, Error> {
        let standing = self.standing();
        let holder = self.holder(&standing, user, device)?;
        let this = decide::Server {
            name: self.0.server.to_string(),
            local: true,
            accredited: true,
            ..decide::Server::default()
        };
        let resource = decide::Resource::Server(Arc::new(this));
        let mut question = within(holder.user.clone(), action, resource, true);
        question.context.via = decide::Door::Admin;
        let ruling = rule(&standing, &self.0.ledger, question);
        Ok(if ruling.allowed { Ok(()) } else { Err(ruling.why.clone()) })
    }

    /// Notes that a user was not let do what is for administrators.
    pub fn note_forbidden(&self, user: &UserId, action: Action, why: &str) {
        self.refuse(action.as_str(), user.as_str(), "", why);
    }

    /// Notes what an officer made of an event in quarantine.
    pub fn note_judged(&self, officer: &UserId, event: &EventId, outcome: &str) {
        tracing::info!(target: "postern::border", %officer, %event, outcome, "quarantine");
        self.0.ledger.note_refusal(json!({
            "action": "quarantine", "who": officer, "what": event, "why": outcome, "at": now_ms(),
        }));
    }
}

/// What a candidate decided otherwise.
#[derive(Debug)]
pub struct Shadow {
    /// Names the candidate; nothing if there is none.
    pub candidate: Option<String>,
    /// The base under which it is asked.
    pub base: Option<decide::Base>,
    /// Why there is none although one was written.
    pub wrong: Vec<String>,
    /// The rulings with both answers.
    pub differences: Vec<Ruling>,
    /// After which number to go on, if there may be more.
    pub next: Option<u64>,
}

/// The policies that count.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PoliciesShown {
    /// What crosses the border before any of the operator's policies says more.
    #[schema(value_type = String)]
    pub base: decide::Base,
    /// Names the set.
    pub revision: String,
    /// All of them, those of the base too.
    pub rules: Vec<RuleShown>,
    /// What is suspicious about them.
    pub warnings: Vec<String>,
    /// The room whose state they may stand in, too.
    pub room: Option<String>,
    /// The version of the bundle that was taken last.
    pub bundle: Option<u64>,
    /// Names the set that runs in the shadow, if one does.
    pub candidate: Option<String>,
    /// Why none does although one was written.
    pub candidate_wrong: Vec<String>,
}

/// A policy.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct RuleShown {
    /// Its name.
    pub id: String,
    /// Whether it permits, or forbids.
    pub permits: bool,
    /// What it is for.
    pub reason: Option<String>,
    /// Where it stands.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// Its text.
    pub text: String,
}
