//! Releases and spills.

use super::{Answer, Paging};
use crate::officer::Officer;
use axum::{Json, extract::State};
use postern_border::{Release, ReleaseWish, Spill};
use postern_client::{
    Api,
    http::{Body, Class, Params, Query},
};
use postern_policy::decide::Action;
use ruma::OwnedEventId;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(releases, ask))
        .routes(routes!(approve))
        .routes(routes!(refuse))
        .routes(routes!(withdraw))
        .routes(routes!(spills, open))
        .routes(routes!(spill))
        .routes(routes!(retry))
        .routes(routes!(follow_up))
}

/// The releases that one asked for, and those of events one sees; an officer gets all.
#[utoipa::path(
    get, path = "/_postern/border/releases", tag = "border", params(Paging),
    responses((status = 200, description = "`releases`, and `next` if there are more", body = Vec<Release>))
)]
async fn releases(officer: Officer, State(api): State<Api>, Query(paging): Query<Paging>) -> Answer<Value> {
    let (all, most) = (officer.permitted(Action::AdminLedger)?.is_ok(), paging.most());
    let found = officer.border.releases(&api.rooms, &officer.viewer(), all, paging.from.as_deref(), most)?;
    let next = found.last().filter(|_| found.len() == most).map(|last| last.id.clone());
    Ok(Json(json!({ "releases": found, "next": next })))
}

/// Asks that an event be said again at a lower label. Policies say whether it is at once, or waits for a second person.
#[utoipa::path(
    post, path = "/_postern/border/releases", tag = "border", request_body = ReleaseWish,
    responses((status = 200, body = Release), (status = 403, description = "Why not"))
)]
async fn ask(officer: Officer, State(api): State<Api>, Body(wish): Body<ReleaseWish>) -> Answer<Release> {
    api.limiter.check(Class::Message, officer.session.user_id.as_str())?;
    Ok(Json(officer.border.ask_release(&api.rooms, &officer.viewer(), wish).await?))
}

/// Agrees to a release, as the second person.
#[utoipa::path(
    post, path = "/_postern/border/releases/{id}/approve", tag = "border", params(("id" = String, Path)),
    responses((status = 200, body = Release), (status = 403, description = "Why not"))
)]
async fn approve(officer: Officer, State(api): State<Api>, Params(id): Params<String>) -> Answer<Release> {
    Ok(Json(officer.border.decide_release(&api.rooms, &officer.viewer(), &id, true).await?))
}

/// Says no to a release, as the second person.
#[utoipa::path(
    post, path = "/_postern/border/releases/{id}/refuse", tag = "border", params(("id" = String, Path)),
    responses((status = 200, body = Release), (status = 403, description = "Why not"))
)]
async fn refuse(officer: Officer, State(api): State<Api>, Params(id): Params<String>) -> Answer<Release> {
    Ok(Json(officer.border.decide_release(&api.rooms, &officer.viewer(), &id, false).await?))
}

/// Withdraws a release that one asked for.
#[utoipa::path(
    delete, path = "/_postern/border/releases/{id}", tag = "border", params(("id" = String, Path)),
    responses((status = 200, body = Release), (status = 404, description = "One asked for no such release"))
)]
async fn withdraw(officer: Officer, Params(id): Params<String>) -> Answer<Release> {
    Ok(Json(officer.border.withdraw_release(&officer.session.user_id, &id).await?))
}

/// The spills.
#[utoipa::path(
    get, path = "/_postern/border/spills", tag = "border", params(Paging),
    responses((status = 200, description = "`spills`, and `next` if there are more", body = Vec<Spill>))
)]
async fn spills(officer: Officer, Query(paging): Query<Paging>) -> Answer<Value> {
    officer.may(Action::AdminLedger)?;
    let most = paging.most();
    let found = officer.border.spills(paging.from.as_deref(), most)?;
    let next = found.last().filter(|_| found.len() == most).map(|last| last.id.clone());
    Ok(Json(json!({ "spills": found, "next": next })))
}

#[derive(Debug, Deserialize)]
struct Opening {
    event_id: OwnedEventId,
    reason: String,
}

/// Takes back what was spilled by an event, and says who got it.
#[utoipa::path(
    post, path = "/_postern/border/spills", tag = "border",
    request_body(content = Object, description = "`event_id`, `reason`"), responses((status = 200, body = Spill))
)]
async fn open(officer: Officer, State(api): State<Api>, Body(opening): Body<Opening>) -> Answer<Spill> {
    officer.may(Action::AdminLedger)?;
    officer.may(Action::AdminRooms)?;
    let (user, event) = (&officer.session.user_id, &opening.event_id);
    Ok(Json(officer.border.open_spill(&api.rooms, user, event, &opening.reason).await?))
}

/// A spill: what was taken back, and who is to be spoken with.
#[utoipa::path(
    get, path = "/_postern/border/spills/{id}", tag = "border", params(("id" = String, Path)),
    responses((status = 200, body = Spill), (status = 404, description = "There is none"))
)]
async fn spill(officer: Officer, Params(id): Params<String>) -> Answer<Spill> {
    officer.may(Action::AdminLedger)?;
    Ok(Json(officer.border.spill(&id)?))
}

/// Tries again what could not be taken back.
#[utoipa::path(
    post, path = "/_postern/border/spills/{id}/retry", tag = "border", params(("id" = String, Path)),
    responses((status = 200, body = Spill))
)]
async fn retry(officer: Officer, State(api): State<Api>, Params(id): Params<String>) -> Answer<Spill> {
    officer.may(Action::AdminRooms)?;
    Ok(Json(officer.border.retry_spill(&api.rooms, &id).await?))
}

#[derive(Debug, Deserialize)]
struct Noted {
    done: bool,
    #[serde(default)]
    note: String,
}

/// Notes that it is cleared up with a server, or spoken about with a user.
#[utoipa::path(
    put, path = "/_postern/border/spills/{id}/follow_up/{whom}", tag = "border",
    params(("id" = String, Path), ("whom" = String, Path)),
    request_body(content = Object, description = "`done`, `note`"), responses((status = 200, body = Spill))
)]
async fn follow_up(
    officer: Officer,
    Params((id, whom)): Params<(String, String)>,
    Body(noted): Body<Noted>,
) -> Answer<Spill> {
    officer.may(Action::AdminLedger)?;
    let user = &officer.session.user_id;
    Ok(Json(officer.border.follow_up(user, &id, &whom, noted.done, &noted.note).await?))
}
