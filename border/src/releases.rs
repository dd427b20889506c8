//! Releases: saying again at a lower label what was said at a higher.
//!
//! A label is never lowered. What is released becomes a new event, by whoever asked for it, that quotes the old one and says whose
//! decision it was. Policies decide who may ask (`downgrade`), and whether a second person has to agree.

use crate::{
    Border, Error, LABEL,
    facts::{kind_of, room_facts, text_of},
    gate::{dominates, why_not},
    limits,
    rulings::{Ruling, hour, rule},
    standing::Standing,
};
use postern_graph::{codec::Json, schema::Downgrades};
use postern_policy::decide::{Action, Context, Direction, Door, Kind, Principal, Question};
use postern_rooms::{Draft, Error as RoomsError, Event, Rooms, SALT, Txn, now_ms, view::Viewer};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use utoipa::ToSchema;

/// The content key that says what an event was released from, and by whom.
pub const RELEASE: &str = "io.postern.release";

/// What somebody asks to be released.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct ReleaseWish {
    /// The event.
    #[schema(value_type = String)]
    pub event_id: OwnedEventId,
    /// The room to say it in; without, the event's own.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub to: Option<OwnedRoomId>,
    /// The label it is to have, as text.
    pub label: String,
    /// Why.
    pub reason: String,
}

/// How far a release is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReleaseState {
    /// A second person has to agree.
    Waiting,
    /// It is decided, and about to be said.
    Approved,
    /// It was said.
    Released,
    /// A second person said no.
    Refused,
    /// Who asked for it does not want it any more.
    Withdrawn,
}

/// A release, with all that was decided about it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Release {
    /// Its id.
    pub id: String,
    /// How far it is.
    pub state: ReleaseState,
    /// What is released.
    #[schema(value_type = String)]
    pub event_id: OwnedEventId,
    /// The room it is from.
    #[schema(value_type = String)]
    pub room_id: OwnedRoomId,
    /// The room it goes to.
    #[schema(value_type = String)]
    pub to: OwnedRoomId,
    /// The label it had, as text.
    pub from_label: String,
    /// The label it gets, as text.
    pub label: String,
    /// Why.
    pub reason: String,
    /// Who asked for it.
    #[schema(value_type = String)]
    pub requested_by: OwnedUserId,
    /// When, milliseconds since the epoch.
    pub requested_at: u64,
    /// The second person.
    #[schema(value_type = Option<String>)]
    pub decided_by: Option<OwnedUserId>,
    /// When it was decided, milliseconds since the epoch.
    pub decided_at: Option<u64>,
    /// The event it became.
    #[schema(value_type = Option<String>)]
    pub released_as: Option<OwnedEventId>,
    /// What policies said last.
    pub why: String,
}

fn forbidden(why: impl Into<String>) -> Error {
    RoomsError::Forbidden(why.into()).into()
}

fn not_found(what: &str) -> Error {
    RoomsError::NotFound(what.to_owned()).into()
}

impl Border {
    /// Asks for a release. What policies permit at once is said at once.
    ///
    /// # Errors
    /// Forbidden if policies say no, or what is asked for is no release; not found if the asker does not see the event.
    pub async fn ask_release(
        &self,
        rooms: &Rooms,
        asker: &Viewer<'_>,
        wish: ReleaseWish,
    ) -> Result<Release, Error> {
        let reason = wish.reason.trim();
        if reason.is_empty() || reason.len() > limits::REASON_BYTES {
            let why = format!("reason: why it is to be released, up to {} bytes", limits::REASON_BYTES);
            return Err(RoomsError::InvalidParam(why).into());
        }
        let standing = self.standing();
        let event = seen(rooms, asker, &wish.event_id)?;
        let label =
            standing.policies.parse_label(&wish.label).map_err(|error| forbidden(error.to_string()))?;
        let lower = standing.resolve(Some(&label)).map_err(|error| forbidden(&*error))?;
        let facts = room_facts(&standing, rooms, event.record.room)?;
        let known = self.event_facts(&standing, rooms, &facts, &event)?;
        let held = known.label.as_ref().map_err(|error| forbidden(&**error))?;
        if !lower.at_most(held) || held.at_most(&lower) {
            return Err(forbidden(format!("{} is not below the label the event has", wish.label)));
        }
        let from_label = standing.policies.label_of(held).map(|label| text_of(&standing, &label));
        let mut release = Release {
            id: format!("{:032x}", rand::random::<u128>()),
            state: ReleaseState::Waiting,
            room_id: event.room_id.clone(),
            to: wish.to.unwrap_or_else(|| event.room_id.clone()),
            event_id: wish.event_id,
            from_label: from_label.unwrap_or_default(),
            label: text_of(&standing, &label),
            reason: reason.to_owned(),
            requested_by: asker.user_id.to_owned(),
            requested_at: now_ms(),
            decided_by: None,
            decided_at: None,
            released_as: None,
            why: String::new(),
        };
        let _deciding = self.0.deciding.lock().await;
        let ruling = self.may_release(&standing, rooms, &event, &release, asker.user_id, None)?;
        release.why.clone_from(&ruling.why);
        if ruling.allowed {
            release.state = ReleaseState::Approved;
            release.decided_at = Some(now_ms());
            self.keep_release(&release).await?;
            return self.say_released(rooms, release).await;
        }
        if !needs_second_person(&standing) {
            self.refuse("downgrade", asker.user_id.as_str(), release.event_id.as_str(), &ruling.why);
            return Err(forbidden(format!("you may not release this: {}", ruling.why)));
        }
        let (mut all, mut own) = (0, 0);
        for kept in self.kept_releases()? {
            let kept = kept?;
            all += 1;
            own += usize::from(kept.state == ReleaseState::Waiting && kept.requested_by == asker.user_id);
        }
        if own >= limits::RELEASES_WAITING || all >= limits::RELEASES {
            return Err(forbidden("too many releases wait to be decided"));
        }
        self.keep_release(&release).await?;
        Ok(release)
    }

    /// A second person agrees to a release, which is then said, or does not agree.
    ///
    /// # Errors
    /// Forbidden if policies say that this person may not decide; not found if there is no such release, or the person does not
    /// see the event.
    pub async fn decide_release(
        &self,
        rooms: &Rooms,
        decider: &Viewer<'_>,
        id: &str,
        agrees: bool,
    ) -> Result<Release, Error> {
        let _deciding = self.0.deciding.lock().await;
        let mut release = self.waiting_release(id)?;
        let event = seen(rooms, decider, &release.event_id)?;
        let standing = self.standing();
        let by = release.requested_by.clone();
        let ruling = self.may_release(&standing, rooms, &event, &release, &by, Some(decider.user_id))?;
        if !ruling.allowed {
            self.refuse("downgrade", decider.user_id.as_str(), release.event_id.as_str(), &ruling.why);
            return Err(forbidden(format!("you may not decide about this release: {}", ruling.why)));
        }
        release.decided_by = Some(decider.user_id.to_owned());
        release.decided_at = Some(now_ms());
        release.why.clone_from(&ruling.why);
        if !agrees {
            release.state = ReleaseState::Refused;
            self.keep_release(&release).await?;
            return Ok(release);
        }
        release.state = ReleaseState::Approved;
        self.keep_release(&release).await?;
        self.say_released(rooms, release).await
    }

    /// Who asked for a release does not want it any more.
    ///
    /// # Errors
    /// Not found if this user has asked for no such release.
    pub async fn withdraw_release(&self, user: &UserId, id: &str) -> Result<Release, Error> {
        let _deciding = self.0.deciding.lock().await;
        let mut release = self.waiting_release(id)?;
        if release.requested_by != user {
            return Err(not_found("there is no such release"));
        }
        release.state = ReleaseState::Withdrawn;
        release.decided_at = Some(now_ms());
        self.keep_release(&release).await?;
        Ok(release)
    }

    /// The releases that a user asked for, and those of events the user sees; `all` of them for an officer. After an id, at most
    /// so many.
    ///
    /// # Errors
    /// The store's.
    pub fn releases(
        &self,
        rooms: &Rooms,
        viewer: &Viewer<'_>,
        all: bool,
        after: Option<&str>,
        most: usize,
    ) -> Result<Vec<Release>, Error> {
        let mut found = Vec::new();
        for release in self.kept_releases()? {
            let release = release?;
            if after.is_some_and(|after| release.id.as_str() <= after) {
                continue;
            }
            if found.len() == most {
                break;
            }
            let is_own = release.requested_by == viewer.user_id;
            if all || is_own || seen(rooms, viewer, &release.event_id).is_ok() {
                found.push(release);
            }
        }
        Ok(found)
    }

    /// Says what was decided and not said yet when the server stopped.
    ///
    /// # Errors
    /// The store's.
    pub async fn finish_releases(&self, rooms: &Rooms) -> Result<(), Error> {
        let _deciding = self.0.deciding.lock().await;
        let kept: Vec<Release> = self.kept_releases()?.collect::<Result<_, _>>()?;
        for release in kept.into_iter().filter(|release| release.state == ReleaseState::Approved) {
            let id = release.id.clone();
            if let Err(error) = self.say_released(rooms, release).await {
                tracing::warn!(target: "postern::border", id, %error, "what was released cannot be said");
            }
        }
        Ok(())
    }

    /// The releases of an event that were said.
    pub(crate) fn released_from(&self, event: &Event) -> Result<Vec<OwnedEventId>, Error> {
        let mut found = Vec::new();
        for release in self.kept_releases()? {
            let release = release?;
            if release.event_id == event.id {
                found.extend(release.released_as);
            }
        }
        Ok(found)
    }

    fn may_release(
        &self,
        standing: &Standing,
        rooms: &Rooms,
        event: &Event,
        release: &Release,
        asker: &UserId,
        second: Option<&UserId>,
    ) -> Result<Arc<Ruling>, Error> {
        let content: Map<String, Value> = event.content_as().unwrap_or_default();
        let kind = kind_of(event.kind().to_string().as_str(), event.state_key().is_some(), &content);
        match kind {
            Kind::Encrypted => return Err(forbidden("the server cannot read what is end-to-end encrypted")),
            Kind::State | Kind::Redaction | Kind::Reaction | Kind::Edit => {
                return Err(forbidden("only messages can be released"));
            }
            Kind::Message | Kind::Media | Kind::Other => {}
        }
        if event.record.redacted_by.is_some() {
            return Err(forbidden("the event is redacted"));
        }
        let facts = room_facts(standing, rooms, event.record.room)?;
        let known = self.event_facts(standing, rooms, &facts, event)?;
        let holder = self.holder(standing, asker, "")?;
        let second = second.map(|second| self.holder(standing, second, "")).transpose()?;
        for person in std::iter::once(&holder).chain(&second) {
            // Whatever policies permit, what one may not see one does not let out.
            if !dominates(&person.clearance, &known.label) {
                let who = &person.user.id;
                let why = why_not(standing, &person.clearance, &known.label);
                return Err(forbidden(format!("{who} is not cleared for the event: {why}")));
            }
        }
        let question = Question {
            principal: Principal::User(holder.user.clone()),
            action: Action::Downgrade,
            resource: self.resource(standing, rooms, &facts, event, &known)?,
            context: Context {
                dominates: true,
                at: hour(),
                via: Door::Client,
                direction: Direction::Within,
                second_person: second.map(|second| second.user.clone()),
                reason: Some(release.reason.clone()),
                ..Context::default()
            },
        };
        Ok(rule(standing, &self.0.ledger, known.asked(question)))
    }

    /// Says it. Asked twice, it is said once.
    async fn say_released(&self, rooms: &Rooms, mut release: Release) -> Result<Release, Error> {
        let standing = self.standing();
        let event =
            rooms.event_by_id(&release.event_id)?.ok_or_else(|| not_found("the event is not here"))?;
        let label =
            standing.policies.parse_label(&release.label).map_err(|error| forbidden(error.to_string()))?;
        let mut content = quoted(&event);
        content.insert(LABEL.to_owned(), label.to_json());
        content.insert(
            RELEASE.to_owned(),
            json!({
                "event_id": release.event_id,
                "room_id": release.room_id,
                "requested_by": release.requested_by,
                "confirmed_by": release.decided_by,
            }),
        );
        let content = serde_json::value::to_raw_value(&content)
            .map_err(|error| RoomsError::BadJson(error.to_string()))?;
        let txn = Txn { device: String::new(), scope: RELEASE.to_owned(), id: release.id.clone() };
        let draft = Draft { txn: Some(txn), ..Draft::message(event.kind().to_string(), content) };
        match rooms.send(&release.requested_by, &release.to, draft).await {
            Ok(id) => {
                tracing::info!(
                    target: "postern::border", release = release.id, from = %release.event_id, as_event = %id,
                    "a release was said"
                );
                release.released_as = Some(id);
                release.state = ReleaseState::Released;
                self.keep_release(&release).await?;
                Ok(release)
            }
            Err(error) => {
                // It is decided anew, once what stands in the way is gone.
                release.state = ReleaseState::Waiting;
                release.why = error.to_string();
                self.keep_release(&release).await?;
                Err(error.into())
            }
        }
    }

    fn waiting_release(&self, id: &str) -> Result<Release, Error> {
        let kept = self.0.graph.get::<Downgrades>(&(id.to_owned(),))?;
        let release = kept.map(|Json(kept)| read(kept)).transpose()?;
        let release = release.ok_or_else(|| not_found("there is no such release"))?;
        if release.state != ReleaseState::Waiting {
            return Err(RoomsError::BadState("this release is decided already".to_owned()).into());
        }
        Ok(release)
    }

    fn kept_releases(&self) -> Result<impl Iterator<Item = Result<Release, Error>> + '_, Error> {
        Ok(self.0.graph.scan::<Downgrades, _>(&()).iter().map(|entry| read(entry?.1.0)))
    }

    async fn keep_release(&self, release: &Release) -> Result<(), Error> {
        let mut commit = self.0.graph.begin();
        commit.put::<Downgrades>(&(release.id.clone(),), &Json(json!(release)));
        Ok(self.0.graph.commit_beside_log_durably(commit).await?)
    }
}

fn read(kept: Value) -> Result<Release, Error> {
    serde_json::from_value(kept).map_err(|error| RoomsError::BadJson(error.to_string()).into())
}

/// An event that somebody sees.
fn seen(rooms: &Rooms, viewer: &Viewer<'_>, id: &ruma::EventId) -> Result<Arc<Event>, Error> {
    let missing = || not_found("there is no such event, or you may not see it");
    let event = rooms.event_by_id(id)?.ok_or_else(missing)?;
    if rooms.may_see(viewer, &event)? { Ok(event) } else { Err(missing()) }
}

/// Whether some policy has a second person agree: then whoever is told no alone may be told yes with one.
fn needs_second_person(standing: &Standing) -> bool {
    let set = standing.decider.rules();
    set.rules().any(|rule| {
        let text = rule.text();
        rule.permits && text.contains("downgrade") && text.contains("second_person")
    })
}

/// What an event says, as a quotation of its sender.
fn quoted(event: &Event) -> Map<String, Value> {
    let mut content: Map<String, Value> = event.content_as().unwrap_or_default();
    for key in ["m.relates_to", "m.mentions", "m.new_content", SALT, LABEL, RELEASE] {
        content.remove(key);
    }
    let text = |key: &str| content.get(key).and_then(Value::as_str).map(str::to_owned);
    if !matches!(text("msgtype").as_deref(), Some("m.text" | "m.notice" | "m.emote")) {
        return content;
    }
    let sender = event.sender();
    let body = text("body").unwrap_or_default();
    let html = match (text("format").as_deref(), text("formatted_body")) {
        (Some("org.matrix.custom.html"), Some(html)) => html,
        _ => htmlize::escape_text(&body).replace('\n', "<br>"),
    };
    let lines: String = body.lines().map(|line| format!("> {line}\n")).collect();
    content.insert("msgtype".to_owned(), "m.text".into());
    content.insert("body".to_owned(), format!("{sender}:\n{}", lines.trim_end()).into());
    content.insert("format".to_owned(), "org.matrix.custom.html".into());
    let name = htmlize::escape_text(sender.as_str());
    content.insert("formatted_body".to_owned(), format!("{name}:<blockquote>{html}</blockquote>").into());
    content
}
