//! Profiles (specification: profiles).

use crate::{
    Api,
    http::{Answer, ApiError, Body, Caller, Params, done},
};
use axum::{Json, Router, extract::State, routing::get};
use ruma::OwnedUserId;
use serde_json::{Map, Value, json};

pub fn routes() -> Router<Api> {
    let mut router = Router::new();
    for version in ["r0", "v3", "unstable/uk.tcpip.msc4133"] {
        router = router.route(&format!("/_matrix/client/{version}/profile/{{user}}"), get(whole)).route(
            &format!("/_matrix/client/{version}/profile/{{user}}/{{field}}"),
            get(field).put(set).delete(remove),
        );
    }
    router
}

async fn stored(api: &Api, user: &ruma::UserId) -> Result<Map<String, Value>, ApiError> {
    if !api.rooms.is_local(user) {
        return api.elsewhere.profile(user).await;
    }
    api.users.profile(user)?.ok_or_else(|| ApiError::not_found("this user has no profile"))
}

async fn whole(State(api): State<Api>, Params(user): Params<OwnedUserId>) -> Answer {
    Ok(Json(Value::Object(stored(&api, &user).await?)))
}

async fn field(State(api): State<Api>, Params((user, field)): Params<(OwnedUserId, String)>) -> Answer {
    let profile = stored(&api, &user).await?;
    match profile.get(&field) {
        Some(value) => Ok(Json(json!({ field: value }))),
        None if field == "displayname" || field == "avatar_url" => Ok(Json(json!({}))),
        None => Err(ApiError::not_found("the profile has no such field")),
    }
}

async fn set(
    State(api): State<Api>,
    Caller(session): Caller,
    Params((user, field)): Params<(OwnedUserId, String)>,
    Body(mut body): Body<Map<String, Value>>,
) -> Answer {
    let value = match body.remove(&field) {
        Some(value) => value,
        None if field == "displayname" || field == "avatar_url" => Value::Null,
        None => return Err(ApiError::missing_param(format!("the body has no field {field}"))),
    };
    if matches!(field.as_str(), "displayname" | "avatar_url") && !(value.is_string() || value.is_null()) {
        return Err(ApiError::invalid_param(format!("{field} is text")));
    }
    change(&api, &session, &user, &field, value).await
}

async fn remove(
    State(api): State<Api>,
    Caller(session): Caller,
    Params((user, field)): Params<(OwnedUserId, String)>,
) -> Answer {
    change(&api, &session, &user, &field, Value::Null).await
}

async fn change(
    api: &Api,
    session: &postern_users::Session,
    user: &ruma::UserId,
    field: &str,
    value: Value,
) -> Answer {
    if *user != session.user_id && !session.is_admin {
        return Err(ApiError::forbidden("this is another user's profile"));
    }
    if !session.is_admin && !matches!(api.config.users.profile_changes, postern_config::Who::Anyone) {
        return Err(ApiError::forbidden("profiles are kept by the administrators of this server"));
    }
    let number = api.users.number(user)?.ok_or_else(|| ApiError::not_found("no such user"))?;
    api.users.set_profile(number, field, value).await?;
    if matches!(field, "displayname" | "avatar_url") {
        api.rooms.profile_changed(user).await?;
    }
    Ok(done())
}
