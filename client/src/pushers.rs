//! Pushers, and the list of what a user was notified of (specification: push notifications).

use crate::{
    Api,
    http::{Answer, ApiError, Body, Caller, Query, done},
};
use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use postern_graph::Pos;
use postern_rooms::{now_ms, view::Viewer};
use postern_users::Pusher;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use url::Url;

/// Where push gateways listen (specification: push gateway API).
const GATEWAY_PATH: &str = "/_matrix/push/v1/notify";
/// Characters of an app id, and bytes of a push key (specification: setting pushers).
const APP_ID: usize = 64;
const PUSH_KEY: usize = 512;
/// Notifications in an answer, unless the client says how many.
const NOTIFICATIONS: usize = 20;

pub fn routes() -> Router<Api> {
    let mut router = Router::new();
    for version in ["r0", "v3"] {
        let base = format!("/_matrix/client/{version}");
        router = router
            .route(&format!("{base}/pushers"), get(pushers))
            .route(&format!("{base}/pushers/set"), post(set_pusher))
            .route(&format!("{base}/notifications"), get(notifications));
    }
    router
}

async fn pushers(State(api): State<Api>, Caller(session): Caller) -> Answer {
    let pushers = api.users.pushers(session.user)?;
    let shown = pushers.into_iter().map(|pusher| {
        let mut shown = json!({
            "pushkey": pusher.pushkey,
            "kind": pusher.kind,
            "app_id": pusher.app_id,
            "app_display_name": pusher.app_display_name,
            "device_display_name": pusher.device_display_name,
            "lang": pusher.lang,
            "data": pusher.data,
        });
        if let Some(tag) = pusher.profile_tag {
            shown["profile_tag"] = tag.into();
        }
        shown
    });
    Ok(Json(json!({ "pushers": shown.collect::<Vec<_>>() })))
}

#[derive(Debug, Deserialize)]
struct Set {
    app_id: Option<String>,
    pushkey: Option<String>,
    /// It has to be there, and may be `null`.
    #[serde(default, deserialize_with = "present")]
    kind: Option<Value>,
    app_display_name: Option<String>,
    device_display_name: Option<String>,
    profile_tag: Option<String>,
    lang: Option<String>,
    data: Option<Map<String, Value>>,
    #[serde(default)]
    append: bool,
}

fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

fn required<T>(field: Option<T>, name: &str) -> Result<T, ApiError> {
    field.ok_or_else(|| ApiError::missing_param(format!("{name} is missing")))
}

async fn set_pusher(State(api): State<Api>, Caller(session): Caller, Body(request): Body<Set>) -> Answer {
    let (app_id, pushkey) = (required(request.app_id, "app_id")?, required(request.pushkey, "pushkey")?);
    let kind = required(request.kind, "kind")?;
    if kind.is_null() {
        api.users.remove_pusher(session.user, &app_id, &pushkey).await?;
        return Ok(done());
    }
    if kind != "http" {
        return Err(ApiError::invalid_param("a pusher is of the kind http"));
    }
    if app_id.chars().count() > APP_ID || pushkey.len() > PUSH_KEY {
        return Err(ApiError::invalid_param("an app_id has 64 characters at most, a pushkey 512 bytes"));
    }
    let data = required(request.data, "data")?;
    check_gateway(&data)?;
    let pusher = Pusher {
        kind: "http".to_owned(),
        app_display_name: required(request.app_display_name, "app_display_name")?,
        device_display_name: required(request.device_display_name, "device_display_name")?,
        profile_tag: request.profile_tag,
        lang: required(request.lang, "lang")?,
        data,
        device_id: session.device_id.clone(),
        since: now_ms() / 1000,
        app_id: app_id.clone(),
        pushkey: pushkey.clone(),
    };
    let most = api.config.push.max_pushers_per_user;
    api.users.set_pusher(session.user, pusher, request.append, most).await?;
    api.push.pusher_was_set(session.user, &app_id, &pushkey);
    Ok(done())
}

/// # Errors
/// 400 unless the data say where a push gateway is, as the specification has them.
fn check_gateway(data: &Map<String, Value>) -> Result<(), ApiError> {
    let url = data.get("url").and_then(Value::as_str);
    let url = url.ok_or_else(|| ApiError::missing_param("an http pusher has a url in its data"))?;
    let is_gateway = |url: &Url| {
        url.scheme() == "https"
            && url.path() == GATEWAY_PATH
            && url.host().is_some()
            && url.username().is_empty()
            && url.password().is_none()
            && url.fragment().is_none()
    };
    if Url::parse(url).is_ok_and(|url| is_gateway(&url)) {
        return Ok(());
    }
    Err(ApiError::invalid_param(format!("the url of a push gateway is https, and its path {GATEWAY_PATH}")))
}

#[derive(Debug, Deserialize)]
struct Asked {
    from: Option<String>,
    limit: Option<usize>,
    only: Option<String>,
}

async fn notifications(
    State(api): State<Api>,
    Caller(session): Caller,
    Query(asked): Query<Asked>,
) -> Answer {
    let before = asked.from.as_deref().map(|token| {
        let number = token.strip_prefix('n').and_then(|number| number.parse().ok());
        number.map(Pos).ok_or_else(|| ApiError::invalid_param("from is a next_token of an earlier answer"))
    });
    let viewer = Viewer { user: session.user, user_id: &session.user_id, device_id: &session.device_id };
    let highlights = match asked.only.as_deref() {
        None => false,
        Some("highlight") => true,
        Some(_) => return Err(ApiError::invalid_param("only is highlight")),
    };
    let limit = asked.limit.unwrap_or(NOTIFICATIONS);
    let page = api.push.notifications(&viewer, before.transpose()?, limit, highlights).await?;
    let mut answer = json!({ "notifications": page.notifications });
    if let Some(Pos(next)) = page.next {
        answer["next_token"] = format!("n{next}").into();
    }
    Ok(Json(answer))
}
