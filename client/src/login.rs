//! Logging in and out (specification: login).

use crate::{
    Api,
    http::{Answer, ApiError, Body, Caller, Class, ClientAddress, done},
    uia::{Challenge, Halt, PASSWORD},
};
use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use postern_users::Tokens;
use serde::Deserialize;
use serde_json::{Value, json};

pub fn routes() -> Router<Api> {
    let mut router = Router::new()
        .route("/_matrix/client/v3/refresh", post(refresh))
        .route("/_matrix/client/v1/login/get_token", post(login_token));
    for version in ["r0", "v3"] {
        router = router
            .route(&format!("/_matrix/client/{version}/login"), get(flows).post(login))
            .route(&format!("/_matrix/client/{version}/logout"), post(logout))
            .route(&format!("/_matrix/client/{version}/logout/all"), post(logout_all));
    }
    router
}

async fn flows(State(api): State<Api>) -> Json<Value> {
    let mut flows = vec![json!({ "type": "m.login.token", "get_login_token": true })];
    if api.config.passwords.enabled {
        flows.insert(0, json!({ "type": "m.login.password" }));
    }
    Json(json!({ "flows": flows }))
}

#[derive(Debug, Deserialize)]
struct Login {
    #[serde(rename = "type")]
    kind: String,
    identifier: Option<Value>,
    user: Option<String>,
    password: Option<String>,
    token: Option<String>,
    device_id: Option<String>,
    initial_device_display_name: Option<String>,
    #[serde(default)]
    refresh_token: bool,
}

async fn login(
    State(api): State<Api>,
    ClientAddress(from): ClientAddress,
    Body(request): Body<Login>,
) -> Answer {
    api.limiter.check(Class::Login, &from)?;
    let user = match request.kind.as_str() {
        "m.login.password" if api.config.passwords.enabled => {
            let name = named_user(&request)?;
            let wrong = |_| ApiError::forbidden("wrong user or password");
            let mut user = api.users.local_id(name).map_err(wrong)?;
            if api.users.account(&user)?.is_none() {
                // People write their name with a capital; accounts made here have none.
                user = api.users.local_id(&name.to_lowercase()).map_err(wrong)?;
            }
            api.limiter.check(Class::Login, user.as_str())?;
            let password = request
                .password
                .as_deref()
                .ok_or_else(|| ApiError::missing_param("the password is missing"))?;
            api.users.check_password(&user, password).await?;
            user
        }
        "m.login.token" => {
            let token =
                request.token.as_deref().ok_or_else(|| ApiError::missing_param("the token is missing"))?;
            api.users
                .redeem("login", token, true)
                .await?
                .ok_or_else(|| ApiError::forbidden("the login token is not valid"))?
        }
        "m.login.application_service" => {
            return Err(ApiError::forbidden("this server has no application services"));
        }
        _ => {
            return Err(ApiError::new(
                axum::http::StatusCode::BAD_REQUEST,
                "M_UNKNOWN",
                "this server does not know this type of login",
            ));
        }
    };
    let tokens = api
        .users
        .log_in(
            &user,
            request.device_id.as_deref(),
            request.initial_device_display_name.as_deref(),
            request.refresh_token,
        )
        .await?;
    let mut body = json!({ "user_id": user, "home_server": api.rooms.server_name() });
    if let Some(url) = &api.config.server.public_base_url {
        body["well_known"] = json!({ "m.homeserver": { "base_url": url.as_str().trim_end_matches('/') } });
    }
    add_tokens(&mut body, &tokens);
    Ok(Json(body))
}

fn named_user(request: &Login) -> Result<&str, ApiError> {
    if let Some(identifier) = &request.identifier {
        return match identifier.get("type").and_then(Value::as_str) {
            Some("m.id.user") => identifier
                .get("user")
                .and_then(Value::as_str)
                .ok_or_else(|| ApiError::bad_json("the identifier names no user")),
            Some("m.id.thirdparty" | "m.id.phone") => {
                Err(ApiError::forbidden("this server does not know third-party identifiers"))
            }
            _ => Err(ApiError::bad_json("the identifier is of no known type")),
        };
    }
    request.user.as_deref().ok_or_else(|| ApiError::missing_param("the request names no user"))
}

/// Adds what a login gives to an answer.
pub(crate) fn add_tokens(body: &mut Value, tokens: &Tokens) {
    body["device_id"] = tokens.device_id.as_str().into();
    body["access_token"] = tokens.access_token.as_str().into();
    if let Some(refresh) = &tokens.refresh_token {
        body["refresh_token"] = refresh.as_str().into();
    }
    if let Some(life) = tokens.expires_in_ms {
        body["expires_in_ms"] = life.into();
    }
}

#[derive(Debug, Deserialize)]
struct Refresh {
    refresh_token: String,
}

async fn refresh(State(api): State<Api>, Body(request): Body<Refresh>) -> Answer {
    let tokens = api.users.refresh(&request.refresh_token).await?;
    let mut body = json!({});
    add_tokens(&mut body, &tokens);
    if let Some(body) = body.as_object_mut() {
        body.remove("device_id");
    }
    Ok(Json(body))
}

async fn logout(State(api): State<Api>, Caller(session): Caller) -> Answer {
    api.users.remove_devices(session.user, std::slice::from_ref(&session.device_id)).await?;
    Ok(done())
}

async fn logout_all(State(api): State<Api>, Caller(session): Caller) -> Answer {
    api.users.remove_all_devices(session.user, None).await?;
    Ok(done())
}

#[derive(Debug, Deserialize)]
struct WithAuth {
    auth: Option<Value>,
}

async fn login_token(
    State(api): State<Api>,
    Caller(session): Caller,
    Body(request): Body<WithAuth>,
) -> Result<Json<Value>, Halt> {
    let challenge = Challenge { endpoint: "get_token", flows: &[&[PASSWORD]] };
    challenge.pass(&api, request.auth.as_ref(), Some(&session)).await?;
    let life = api.config.sessions.login_token_lifetime_ms;
    let token = api.users.short_token("login", &session.user_id, life).await?;
    Ok(Json(json!({ "login_token": token, "expires_in_ms": life })))
}
