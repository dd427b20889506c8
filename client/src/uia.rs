//! User-interactive authentication (specification: user-interactive authentication API).

use crate::{Api, http::ApiError};
use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use postern_users::Session;
use serde_json::{Value, json};

/// The stage with the account's password.
pub(crate) const PASSWORD: &str = "m.login.password";
/// The stage that asks for nothing.
pub(crate) const DUMMY: &str = "m.login.dummy";
/// The stage with a registration token.
pub(crate) const TOKEN: &str = "m.login.registration_token";

/// Why a request may not go on yet: the answer says what is missing.
#[derive(Debug)]
pub(crate) enum Halt {
    /// A stage is missing or failed.
    More(Value),
    /// Something else is wrong.
    Error(ApiError),
}

impl IntoResponse for Halt {
    fn into_response(self) -> Response {
        match self {
            Self::More(body) => (StatusCode::UNAUTHORIZED, Json(body)).into_response(),
            Self::Error(error) => error.into_response(),
        }
    }
}

impl<E: Into<ApiError>> From<E> for Halt {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

/// What a client must get through.
#[derive(Debug)]
pub(crate) struct Challenge<'a> {
    /// Which endpoint it is for: a session begun for one does not open another.
    pub(crate) endpoint: &'a str,
    /// Ways through, each a list of stages.
    pub(crate) flows: &'a [&'a [&'a str]],
}

impl Challenge<'_> {
    fn body(&self, session: &str, completed: &[String], error: Option<(&str, &str)>) -> Value {
        let flows: Vec<Value> = self.flows.iter().map(|stages| json!({ "stages": stages })).collect();
        let mut body = json!({ "flows": flows, "params": {}, "session": session, "completed": completed });
        if let Some((errcode, message)) = error {
            body["errcode"] = errcode.into();
            body["error"] = message.into();
        }
        body
    }

    /// Lets a request on if its `auth` completes a flow. `user` is whose password counts.
    pub(crate) async fn pass(
        &self,
        api: &Api,
        auth: Option<&Value>,
        user: Option<&Session>,
    ) -> Result<(), Halt> {
        let given = auth.and_then(|auth| auth.get("session")).and_then(Value::as_str);
        let session = match given.and_then(|id| Some((id, api.uiaa.completed(id, self.endpoint)?))) {
            Some((id, _)) => id.to_owned(),
            None => api.uiaa.begin(self.endpoint),
        };
        let completed = api.uiaa.completed(&session, self.endpoint).unwrap_or_default();
        let Some(auth) = auth else {
            return Err(Halt::More(self.body(&session, &completed, None)));
        };
        let Some(stage) = auth.get("type").and_then(Value::as_str) else {
            if self.done(&completed) {
                api.uiaa.end(&session);
                return Ok(());
            }
            return Err(Halt::More(self.body(&session, &completed, None)));
        };
        if !self.flows.iter().any(|flow| flow.contains(&stage)) {
            let error = ("M_UNRECOGNIZED", "this stage is not asked for");
            return Err(Halt::More(self.body(&session, &completed, Some(error))));
        }
        if stage == PASSWORD {
            same_user(api, auth, user)?;
        }
        match check(api, stage, auth, user).await {
            Ok(()) => {}
            Err(error) if error.status() == StatusCode::TOO_MANY_REQUESTS => return Err(error.into()),
            Err(error) => {
                let error = (error.errcode(), "the authentication failed");
                return Err(Halt::More(self.body(&session, &completed, Some(error))));
            }
        }
        let completed = api.uiaa.complete(&session, stage);
        if self.done(&completed) {
            api.uiaa.end(&session);
            return Ok(());
        }
        Err(Halt::More(self.body(&session, &completed, None)))
    }

    fn done(&self, completed: &[String]) -> bool {
        self.flows.iter().any(|flow| flow.iter().all(|stage| completed.iter().any(|done| done == stage)))
    }
}

/// A request is confirmed by the user who makes it. Naming another is refused outright: trying again is no use.
fn same_user(api: &Api, auth: &Value, user: Option<&Session>) -> Result<(), ApiError> {
    let named = auth.pointer("/identifier/user").or_else(|| auth.get("user")).and_then(Value::as_str);
    match (named, user) {
        (Some(named), Some(session)) if api.users.local_id(named)? != session.user_id => {
            Err(ApiError::forbidden("the password is another user's"))
        }
        _ => Ok(()),
    }
}

async fn check(api: &Api, stage: &str, auth: &Value, user: Option<&Session>) -> Result<(), ApiError> {
    let text = |name: &str| auth.get(name).and_then(Value::as_str);
    match stage {
        DUMMY => Ok(()),
        PASSWORD => {
            let session = user.ok_or_else(|| ApiError::forbidden("there is no account yet"))?;
            let password =
                text("password").ok_or_else(|| ApiError::missing_param("the password is missing"))?;
            api.limiter.check(crate::http::Class::Login, session.user_id.as_str())?;
            Ok(api.users.check_password(&session.user_id, password).await?)
        }
        TOKEN => {
            let token = text("token").ok_or_else(|| ApiError::missing_param("the token is missing"))?;
            if token_is_configured(api, token) || api.users.registration_token(token)?.is_some() {
                return Ok(());
            }
            Err(ApiError::new(StatusCode::UNAUTHORIZED, "M_FORBIDDEN", "the registration token is not valid"))
        }
        _ => Err(ApiError::forbidden("this stage is not known")),
    }
}

/// Whether `token` is the registration token of the configuration.
pub(crate) fn token_is_configured(api: &Api, token: &str) -> bool {
    api.config.registration.token.as_ref().is_some_and(|configured| configured.matches(token))
}
