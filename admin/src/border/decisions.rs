//! What was decided, and why; and what was kept out.

use super::{Answer, Paging};
use crate::officer::{Failure, Officer};
use axum::{Json, extract::State};
use postern_border::{Disclosed, Explained, For, PoliciesShown, ruling_text};
use postern_client::{
    Api,
    http::{ApiError, Body, Params, Query},
};
use postern_graph::EventNum;
use postern_policy::decide::{Action, Base, Text};
use postern_rooms::{Event, Quarantined};
use ruma::{OwnedEventId, OwnedServerName, OwnedUserId};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(decisions))
        .routes(routes!(decision))
        .routes(routes!(refusals))
        .routes(routes!(of_event))
        .routes(routes!(to_server))
        .routes(routes!(explain))
        .routes(routes!(policies))
        .routes(routes!(shadow))
        .routes(routes!(replay))
        .routes(routes!(quarantine))
        .routes(routes!(let_in))
        .routes(routes!(keep_out))
}

fn event_here(api: &Api, id: &OwnedEventId) -> Result<Arc<Event>, Failure> {
    let found = api.rooms.event_by_id(id)?;
    found.ok_or_else(|| ApiError::not_found("there is no such event here").into())
}

fn with_id((id, record): (u64, Value)) -> Value {
    let mut record = record;
    if let Value::Object(record) = &mut record {
        record.insert("id".to_owned(), ruling_text(id).into());
    }
    record
}

/// Rulings: what policies were asked, what they answered and by which rules; with what a candidate would have answered.
#[utoipa::path(
    get, path = "/_postern/border/decisions", tag = "border", params(Paging),
    responses((status = 200, description = "`decisions`, and `next` if there are more", body = Object))
)]
async fn decisions(officer: Officer, Query(paging): Query<Paging>) -> Answer<Value> {
    officer.may(Action::AdminLedger)?;
    officer.border.write_down().await?;
    let most = paging.most();
    let found = officer.border.rulings(paging.number(16)?, most)?;
    let next = found.last().filter(|_| found.len() == most).map(|(id, _)| ruling_text(*id));
    let found: Vec<Value> = found.into_iter().map(with_id).collect();
    Ok(Json(json!({ "decisions": found, "next": next })))
}

/// A ruling, by the number that stands in the ledger.
#[utoipa::path(
    get, path = "/_postern/border/decisions/{id}", tag = "border", params(("id" = String, Path)),
    responses((status = 200, body = Object), (status = 404, description = "There is none"))
)]
async fn decision(officer: Officer, Params(id): Params<String>) -> Answer<Value> {
    officer.may(Action::AdminLedger)?;
    officer.border.write_down().await?;
    let number = u64::from_str_radix(&id, 16).map_err(|_| ApiError::not_found("there is no such ruling"))?;
    let found =
        officer.border.ruling(number)?.ok_or_else(|| ApiError::not_found("there is no such ruling"))?;
    Ok(Json(with_id((number, found))))
}

/// What was refused to whom and why, the latest first.
#[utoipa::path(
    get, path = "/_postern/border/refusals", tag = "border", params(Paging),
    responses((status = 200, description = "`refusals`, and `next` if there are more", body = Object))
)]
async fn refusals(officer: Officer, Query(paging): Query<Paging>) -> Answer<Value> {
    officer.may(Action::AdminLedger)?;
    officer.border.write_down().await?;
    let most = paging.most();
    let found = officer.border.refusals(paging.place()?.unwrap_or((u64::MAX, u64::MAX)), most)?;
    let next = found.last().filter(|_| found.len() == most).map(|((at, number), _)| format!("{at}-{number}"));
    let found: Vec<Value> = found.into_iter().map(|(_, refusal)| refusal).collect();
    Ok(Json(json!({ "refusals": found, "next": next })))
}

/// Which servers got an event: in which form, when, and by which ruling.
#[utoipa::path(
    get, path = "/_postern/border/disclosures/event/{event}", tag = "border", params(("event" = String, Path)),
    responses((status = 200, description = "`servers`: from name to disclosure", body = Object))
)]
async fn of_event(
    officer: Officer,
    State(api): State<Api>,
    Params(event): Params<OwnedEventId>,
) -> Answer<Value> {
    officer.may(Action::AdminLedger)?;
    officer.border.write_down().await?;
    let event = event_here(&api, &event)?;
    let servers: BTreeMap<_, _> = officer.border.disclosures(event.num)?.into_iter().collect();
    Ok(Json(json!({ "event_id": event.id, "room_id": event.room_id, "servers": servers })))
}

/// Which events a server got.
#[utoipa::path(
    get, path = "/_postern/border/disclosures/server/{server}", tag = "border",
    params(("server" = String, Path), Paging),
    responses((status = 200, description = "`disclosures`, and `next` if there may be more", body = Vec<Disclosed>))
)]
async fn to_server(
    officer: Officer,
    State(api): State<Api>,
    Params(server): Params<OwnedServerName>,
    Query(paging): Query<Paging>,
) -> Answer<Value> {
    officer.may(Action::AdminLedger)?;
    officer.border.write_down().await?;
    let after = EventNum(paging.number(10)?.unwrap_or(0));
    let (found, next) = officer.border.disclosures_to(&api.rooms, &server, after, paging.most())?;
    Ok(Json(json!({ "disclosures": found, "next": next.map(|next| next.0.to_string()) })))
}

#[derive(Debug, Deserialize)]
struct Asked {
    event_id: OwnedEventId,
    server: Option<OwnedServerName>,
    user: Option<OwnedUserId>,
}

/// Why a server or a user would get an event if they asked now, or would not.
#[utoipa::path(
    get, path = "/_postern/border/explain", tag = "border",
    params(("event_id" = String, Query), ("server" = Option<String>, Query), ("user" = Option<String>, Query)),
    responses((status = 200, body = Explained))
)]
async fn explain(officer: Officer, State(api): State<Api>, Query(asked): Query<Asked>) -> Answer<Explained> {
    officer.may(Action::AdminPolicy)?;
    let event = event_here(&api, &asked.event_id)?;
    let who = match (&asked.server, &asked.user) {
        (Some(server), None) => For::Server(server),
        (None, Some(user)) if api.rooms.is_local(user) => For::User(user),
        _ => return Err(ApiError::invalid_param("one of server, or user of this server").into()),
    };
    officer.border.write_down().await?;
    Ok(Json(officer.border.explain(&api.rooms, who, &event)?))
}

/// The policies that count, and whether others run in the shadow.
#[utoipa::path(get, path = "/_postern/border/policies", tag = "border", responses((status = 200, body = PoliciesShown)))]
async fn policies(officer: Officer) -> Answer<PoliciesShown> {
    officer.may(Action::AdminPolicy)?;
    Ok(Json(officer.border.policies()))
}

/// What the policies that run in the shadow decided otherwise than those that count.
#[utoipa::path(
    get, path = "/_postern/border/shadow", tag = "border", params(Paging),
    responses((status = 200, description = "`candidate` (its revision) and its `base`, what is `wrong` with it, `differences`: rulings with both answers, and `next` if there may be more", body = Object))
)]
async fn shadow(officer: Officer, Query(paging): Query<Paging>) -> Answer<Value> {
    officer.may(Action::AdminPolicy)?;
    officer.border.write_down().await?;
    let (after, most, border) = (paging.number(16)?, paging.most(), officer.border.clone());
    let found = blocking(move || border.shadow(after, most)).await??;
    let differences: Vec<Value> = found.differences.into_iter().map(with_id).collect();
    Ok(Json(json!({
        "candidate": found.candidate, "base": found.base, "wrong": found.wrong, "differences": differences,
        "next": found.next.map(ruling_text),
    })))
}

#[derive(Debug, Deserialize)]
struct Candidate {
    base: Option<Base>,
    policies: BTreeMap<String, String>,
    limit: Option<usize>,
}

/// What other policies would have decided of what was decided, from the first ruling that is kept: only what would change.
#[utoipa::path(
    post, path = "/_postern/border/replay", tag = "border",
    request_body(content = Object, description = "`policies`: from file name to text; `base`, if it is another; `limit`: of how many rulings, 100,000 at most"),
    responses((status = 200, description = "`asked`, `changes`, and `complete`: whether all rulings were looked at", body = Object), (status = 400, description = "What is wrong with the policies"))
)]
async fn replay(officer: Officer, Body(candidate): Body<Candidate>) -> Answer<Value> {
    officer.may(Action::AdminPolicy)?;
    officer.border.write_down().await?;
    let texts: Vec<Text> = candidate.policies.into_iter().map(|(name, text)| Text { name, text }).collect();
    let border = officer.border.clone();
    // As long as there are rulings: not where others wait.
    let replay = blocking(move || border.replay(candidate.base, &texts, candidate.limit)).await??;
    Ok(Json(json!(replay)))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|error| ApiError::internal(&error).into())
}

/// The events of other servers that were not let in, in the order in which they came.
#[utoipa::path(
    get, path = "/_postern/border/quarantine", tag = "border", params(Paging),
    responses((status = 200, description = "`events`: with `why`, `origin`, `at` and the event; `next` if there are more", body = Object))
)]
async fn quarantine(officer: Officer, State(api): State<Api>, Query(paging): Query<Paging>) -> Answer<Value> {
    officer.may(Action::AdminQuarantine)?;
    let most = paging.most();
    let found = api.rooms.quarantined(EventNum(paging.number(10)?.unwrap_or(0)), most)?;
    let next = found.last().filter(|_| found.len() == most).map(|(event, _)| event.num.0.to_string());
    let shown = |(event, about): &(Arc<Event>, Quarantined)| -> Result<Value, Failure> {
        // Who may judge it need not be cleared for it.
        let content = api.rooms.content_for(&officer.viewer(), event)?;
        Ok(json!({
            "event_id": event.id, "room_id": event.room_id, "sender": event.sender(), "type": event.kind(),
            "state_key": event.state_key(), "content": content, "origin_server_ts": event.origin_server_ts(),
            "why": about.why, "origin": about.origin, "at": about.at,
        }))
    };
    let events = found.iter().map(shown).collect::<Result<Vec<_>, _>>()?;
    Ok(Json(json!({ "events": events, "next": next })))
}

/// Lets an event in: it is shown as if it came now.
#[utoipa::path(
    post, path = "/_postern/border/quarantine/{event}/release", tag = "border", params(("event" = String, Path)),
    responses((status = 200, body = Object), (status = 404, description = "It is not in quarantine"))
)]
async fn let_in(
    officer: Officer,
    State(api): State<Api>,
    Params(event): Params<OwnedEventId>,
) -> Answer<Value> {
    judge(&officer, &api, &event, true).await
}

/// Keeps an event out for good.
#[utoipa::path(
    delete, path = "/_postern/border/quarantine/{event}", tag = "border", params(("event" = String, Path)),
    responses((status = 200, body = Object), (status = 404, description = "It is not in quarantine"))
)]
async fn keep_out(
    officer: Officer,
    State(api): State<Api>,
    Params(event): Params<OwnedEventId>,
) -> Answer<Value> {
    judge(&officer, &api, &event, false).await
}

async fn judge(officer: &Officer, api: &Api, event: &OwnedEventId, is_let_in: bool) -> Answer<Value> {
    officer.may(Action::AdminQuarantine)?;
    let event = event_here(api, event)?;
    if is_let_in {
        api.rooms.let_in(event.num).await?;
    } else {
        api.rooms.keep_out(event.num).await?;
    }
    let outcome = if is_let_in { "let in" } else { "kept out" };
    officer.border.note_judged(&officer.session.user_id, &event.id, outcome);
    Ok(Json(json!({})))
}
