//! Files coming in.

use crate::{
    Api,
    http::{Answer, ApiError, Caller, Class, Params, Query},
};
use axum::{
    Json,
    extract::{Request, State},
    http::{StatusCode, header},
};
use futures::StreamExt;
use postern_media::Error;
use postern_users::Session;
use serde::Deserialize;
use serde_json::json;

fn may_upload(api: &Api, session: &Session) -> Result<(), ApiError> {
    if session.is_guest {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "M_GUEST_ACCESS_FORBIDDEN",
            "guests may not upload",
        ));
    }
    api.limiter.check(Class::Upload, session.user_id.as_str())
}

pub(super) async fn create(State(api): State<Api>, Caller(session): Caller) -> Answer {
    may_upload(&api, &session)?;
    let (id, until) = api.media.create(session.user).await?;
    let uri = format!("mxc://{}/{id}", api.rooms.server_name());
    Ok(Json(json!({ "content_uri": uri, "unused_expires_at": until })))
}

#[derive(Debug, Deserialize)]
pub(super) struct Said {
    filename: Option<String>,
    #[serde(rename = "io.postern.label")]
    label: Option<String>,
}

pub(super) async fn upload(
    State(api): State<Api>,
    Caller(session): Caller,
    Query(said): Query<Said>,
    request: Request,
) -> Answer {
    may_upload(&api, &session)?;
    let id = receive(&api, &session, None, said, request).await?;
    Ok(Json(json!({ "content_uri": format!("mxc://{}/{id}", api.rooms.server_name()) })))
}

pub(super) async fn upload_to(
    State(api): State<Api>,
    Caller(session): Caller,
    Params((server, id)): Params<(String, String)>,
    Query(said): Query<Said>,
    request: Request,
) -> Answer {
    may_upload(&api, &session)?;
    if server != api.rooms.server_name().as_str() {
        return Err(ApiError::not_found("this id is of another server"));
    }
    receive(&api, &session, Some(&id), said, request).await?;
    Ok(crate::http::done())
}

/// Stores the body of a request, piece by piece. Its bound is that of uploads, not that of other bodies.
async fn receive(
    api: &Api,
    session: &Session,
    id: Option<&str>,
    said: Said,
    request: Request,
) -> Result<String, ApiError> {
    let headers = request.headers();
    let content_type =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let most = api.media.settings().max_upload_bytes;
    if length.is_some_and(|length: u64| length > most) {
        return Err(Error::TooLarge(most).into());
    }
    let label = match api.rooms.gate() {
        Some(gate) => {
            let (user, device) = (&session.user_id, &session.device_id);
            gate.uploading(user, device, content_type.as_deref(), said.label.as_deref())?
        }
        None => None,
    };
    let mut upload = api.media.begin(session.user, id)?.labelled(label);
    let mut pieces = request.into_body().into_data_stream();
    while let Some(piece) = pieces.next().await {
        let piece =
            piece.map_err(|_| ApiError::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", "the upload broke off"))?;
        upload.push(&piece)?;
    }
    Ok(upload.finish(content_type, said.filename).await?)
}
