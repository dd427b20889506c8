//! Who calls, and what they may do.

use axum::{
    extract::FromRequestParts,
    http::request::Parts,
    response::{IntoResponse, Response},
};
use postern_border::{Border, Error};
use postern_client::{
    Api,
    http::{ApiError, Caller},
};
use postern_policy::decide::Action;
use postern_rooms::view::Viewer;
use postern_users::Session;
use std::sync::Arc;

/// Who calls, with the border they call about.
#[derive(Debug, Clone)]
pub struct Officer {
    pub border: Border,
    pub session: Arc<Session>,
}

impl FromRequestParts<Api> for Officer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let Caller(session) = Caller::from_request_parts(parts, api).await?;
        let border = parts.extensions.get::<Border>().cloned();
        Ok(Self { border: border.ok_or_else(|| ApiError::internal(&"there is no border"))?, session })
    }
}

impl Officer {
    /// # Errors
    /// Forbidden if no policy permits it.
    pub fn may(&self, action: Action) -> Result<(), Failure> {
        let Err(why) = self.permitted(action)? else { return Ok(()) };
        self.border.note_forbidden(&self.session.user_id, action, &why);
        Err(ApiError::forbidden(format!("you may not do this ({action}): {why}")).into())
    }

    /// Whether policies permit it; why not, if not.
    pub fn permitted(&self, action: Action) -> Result<Result<(), String>, Failure> {
        Ok(self.border.permits(&self.session.user_id, &self.session.device_id, action)?)
    }

    /// As whoever sees events.
    pub fn viewer(&self) -> Viewer<'_> {
        Viewer { user: self.session.user, user_id: &self.session.user_id, device_id: &self.session.device_id }
    }
}

/// Why a request fails.
#[derive(Debug)]
pub struct Failure(ApiError);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        self.0.into_response()
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl From<postern_rooms::Error> for Failure {
    fn from(error: postern_rooms::Error) -> Self {
        Self(error.into())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(match error {
            Error::Wrong(wrong) => ApiError::invalid_param(wrong.to_string()),
            Error::Graph(error) => error.into(),
            Error::Rooms(error) => error.into(),
            Error::Users(error) => error.into(),
            Error::Media(error) => error.into(),
            Error::PolicyKey(why) => ApiError::internal(&why),
        })
    }
}
