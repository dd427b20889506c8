//! Registration (specification: account registration), and Synapse's endpoint for tools that make accounts.

use crate::{
    Api,
    http::{Answer, ApiError, Body, Class, ClientAddress, MaybeCaller, Query},
    uia::{Challenge, DUMMY, Halt, TOKEN, token_is_configured},
};
use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use hmac::{Hmac, KeyInit, Mac};
use postern_config::RegistrationMode;
use postern_users::NewAccount;
use serde::Deserialize;
use serde_json::{Value, json};
use sha1::Sha1;

pub fn routes() -> Router<Api> {
    Router::new()
        .route("/_matrix/client/v3/register", post(register))
        .route("/_matrix/client/r0/register", post(register))
        .route("/_matrix/client/v3/register/available", get(available))
        .route("/_matrix/client/r0/register/available", get(available))
        .route("/_matrix/client/v1/register/m.login.registration_token/validity", get(token_validity))
        .route("/_synapse/admin/v1/register", get(nonce).post(shared_secret))
}

#[derive(Debug, Deserialize)]
struct Register {
    username: Option<String>,
    password: Option<String>,
    device_id: Option<String>,
    initial_device_display_name: Option<String>,
    #[serde(default)]
    inhibit_login: bool,
    #[serde(default)]
    refresh_token: bool,
    auth: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Kind {
    kind: Option<String>,
}

async fn register(
    State(api): State<Api>,
    Query(query): Query<Kind>,
    ClientAddress(from): ClientAddress,
    Body(request): Body<Register>,
) -> Result<Json<Value>, Halt> {
    let settings = &api.config.registration;
    match query.kind.as_deref() {
        None | Some("user") => {}
        Some("guest") => return Ok(register_guest(&api, &from, &request).await?),
        Some(_) => {
            return Err(ApiError::new(
                axum::http::StatusCode::BAD_REQUEST,
                "M_UNRECOGNIZED",
                "no such kind of account",
            )
            .into());
        }
    }
    if request.auth.as_ref().and_then(|auth| auth.get("type")).and_then(Value::as_str)
        == Some("m.login.application_service")
    {
        return Err(ApiError::forbidden("this server has no application services").into());
    }
    // With no account yet, whoever holds the printed token is the first admin, however registration is set.
    let first = api.users.first_admin_token().await?.is_some();
    let flows: &[&[&str]] = match settings.mode {
        RegistrationMode::Open => &[&[DUMMY]],
        RegistrationMode::Token => &[&[TOKEN]],
        RegistrationMode::Closed if first => &[&[TOKEN]],
        RegistrationMode::Closed => {
            return Err(ApiError::forbidden("registration is closed on this server").into());
        }
    };
    let with_token: &[&[&str]] = &[&[DUMMY], &[TOKEN]];
    let token = request.auth.as_ref().and_then(|auth| auth.get("token")).and_then(Value::as_str);
    // A client that sends the first admin's token means it, also where no token is needed.
    let flows = if first && token.is_some() && flows == [[DUMMY]] { with_token } else { flows };

    if let Some(username) = &request.username {
        let id = api.users.check_available(username)?;
        tracing::debug!(%id, "a user registers");
    }
    if let Some(password) = &request.password {
        check_password_strength(&api, password)?;
    }
    if request.auth.is_some() {
        api.limiter.check(Class::Registration, &from)?;
    }
    let challenge = Challenge { endpoint: "register", flows };
    challenge.pass(&api, request.auth.as_ref(), None).await?;
    let mut admin = false;
    if let Some(token) = token
        && !token_is_configured(&api, token)
    {
        match api.users.use_registration_token(token).await? {
            Some(used) => admin = used.admin,
            None if flows == [[TOKEN]] => {
                return Err(ApiError::forbidden("the registration token was used up meanwhile").into());
            }
            None => {}
        }
    }
    let account = NewAccount {
        localpart: request.username.clone(),
        password: request.password.clone(),
        admin,
        guest: false,
    };
    let user = api.users.create_account(account).await?;
    Ok(answer(&api, &user, &request).await?)
}

async fn register_guest(api: &Api, from: &str, request: &Register) -> Answer {
    if !api.config.registration.guests {
        return Err(ApiError::new(
            axum::http::StatusCode::FORBIDDEN,
            "M_GUEST_ACCESS_FORBIDDEN",
            "this server takes no guests",
        ));
    }
    api.limiter.check(Class::Registration, from)?;
    let user = api.users.create_account(NewAccount { guest: true, ..NewAccount::default() }).await?;
    answer(api, &user, request).await
}

async fn answer(api: &Api, user: &ruma::UserId, request: &Register) -> Answer {
    let mut body = json!({ "user_id": user, "home_server": api.rooms.server_name() });
    if !request.inhibit_login {
        let tokens = api
            .users
            .log_in(
                user,
                request.device_id.as_deref(),
                request.initial_device_display_name.as_deref(),
                request.refresh_token,
            )
            .await?;
        crate::login::add_tokens(&mut body, &tokens);
    }
    Ok(Json(body))
}

/// Whether a password is long enough.
pub(crate) fn check_password_strength(api: &Api, password: &str) -> Result<(), ApiError> {
    let least = api.config.passwords.min_length;
    if password.chars().count() < least {
        return Err(ApiError::new(
            axum::http::StatusCode::BAD_REQUEST,
            "M_WEAK_PASSWORD",
            format!("a password has at least {least} characters"),
        ));
    }
    Ok(())
}

#[derive(Debug, Deserialize)]
struct Username {
    username: String,
}

async fn available(State(api): State<Api>, Query(query): Query<Username>) -> Answer {
    api.users.check_available(&query.username)?;
    Ok(Json(json!({ "available": true })))
}

#[derive(Debug, Deserialize)]
struct Token {
    token: String,
}

async fn token_validity(
    State(api): State<Api>,
    ClientAddress(from): ClientAddress,
    Query(query): Query<Token>,
) -> Answer {
    api.limiter.check(Class::Registration, &from)?;
    let valid =
        token_is_configured(&api, &query.token) || api.users.registration_token(&query.token)?.is_some();
    Ok(Json(json!({ "valid": valid })))
}

// ---- Synapse's `/_synapse/admin/v1/register` ---------------------------------------------------------------------

const NONCE: &str = "register_nonce";
const NONCE_MS: u64 = 60_000;

fn secret(api: &Api) -> Result<&postern_config::Secret, ApiError> {
    api.config.registration.shared_secret.as_ref().ok_or_else(ApiError::unrecognized)
}

async fn nonce(State(api): State<Api>, _: MaybeCaller) -> Answer {
    secret(&api)?;
    let server = api.users.local_id("_nonce")?;
    let nonce = api.users.short_token(NONCE, &server, NONCE_MS).await?;
    Ok(Json(json!({ "nonce": nonce })))
}

#[derive(Debug, Deserialize)]
struct SharedSecret {
    nonce: String,
    username: String,
    displayname: Option<String>,
    password: String,
    #[serde(default)]
    admin: bool,
    user_type: Option<String>,
    mac: String,
    #[serde(default)]
    inhibit_login: bool,
}

async fn shared_secret(State(api): State<Api>, Body(request): Body<SharedSecret>) -> Answer {
    let secret = secret(&api)?;
    if api.users.redeem(NONCE, &request.nonce, true).await?.is_none() {
        return Err(ApiError::new(axum::http::StatusCode::BAD_REQUEST, "M_UNKNOWN", "unrecognised nonce"));
    }
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.reveal().as_bytes())
        .map_err(|error| ApiError::internal(&error))?;
    let admin: &[u8] = if request.admin { b"admin" } else { b"notadmin" };
    for (n, part) in
        [request.nonce.as_bytes(), request.username.as_bytes(), request.password.as_bytes(), admin]
            .iter()
            .enumerate()
    {
        if n > 0 {
            mac.update(b"\0");
        }
        mac.update(part);
    }
    if let Some(user_type) = &request.user_type {
        mac.update(b"\0");
        mac.update(user_type.as_bytes());
    }
    let given = unhex(&request.mac).ok_or_else(|| ApiError::invalid_param("the mac is not hexadecimal"))?;
    mac.verify_slice(&given).map_err(|_| ApiError::forbidden("HMAC incorrect"))?;
    let account = NewAccount {
        localpart: Some(request.username.clone()),
        password: Some(request.password.clone()),
        admin: request.admin,
        guest: false,
    };
    let user = api.users.create_account(account).await?;
    if let Some(name) = &request.displayname
        && let Some(number) = api.users.number(&user)?
    {
        api.users.set_profile(number, "displayname", name.as_str().into()).await?;
    }
    let mut body = json!({ "user_id": user, "home_server": api.rooms.server_name() });
    if !request.inhibit_login {
        crate::login::add_tokens(&mut body, &api.users.log_in(&user, None, None, false).await?);
    }
    Ok(Json(body))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}
