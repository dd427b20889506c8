//! Files between servers: giving own ones, fetching others' (specification: content repository over federation).

use crate::{
    Error, Federation, PeerError,
    gaps::enc,
    multipart::{self, Found, Part},
    origin::{Origin, Params, Query},
};
use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderValue, header},
    response::Response,
    routing::get,
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use postern_media::{Error as MediaError, Method, Record, Size};
use postern_rooms::Asker;
use postern_web::ApiError;
use ruma::ServerName;
use serde::Deserialize;
use std::time::Duration;

/// The longest a file of this server is waited for that is still being uploaded, milliseconds.
const PATIENCE_MS: u64 = 60_000;
/// How long a file may take to come, beside its first byte.
const TRANSFER: Duration = Duration::from_secs(600);

pub(crate) fn routes() -> Router<Federation> {
    let base = "/_matrix/federation/v1/media";
    Router::new()
        .route(&format!("{base}/download/{{id}}"), get(download))
        .route(&format!("{base}/thumbnail/{{id}}"), get(thumbnail))
}

#[derive(Debug, Deserialize)]
struct Patience {
    timeout_ms: Option<u64>,
}

fn patience(timeout_ms: Option<u64>) -> Duration {
    Duration::from_millis(timeout_ms.unwrap_or(20_000).min(PATIENCE_MS))
}

async fn download(
    State(federation): State<Federation>,
    Origin(origin): Origin,
    Params(id): Params<String>,
    Query(query): Query<Patience>,
) -> Result<Response, ApiError> {
    let media = &federation.0.media;
    let own = federation.0.rooms.server_name().as_str();
    let record = federation.given(&origin, &id, query.timeout_ms).await?;
    let content_type = record.content_type.as_deref().unwrap_or("application/octet-stream");
    let disposition = postern_media::disposition(content_type, record.file_name.as_deref());
    let pieces =
        stream::iter(media.read(own, &id, 0..record.size).map(|piece| piece.map_err(std::io::Error::other)));
    Ok(mixed(content_type, &disposition, pieces))
}

#[derive(Debug, Deserialize)]
struct Thumbnail {
    width: Option<u32>,
    height: Option<u32>,
    method: Option<String>,
    timeout_ms: Option<u64>,
}

async fn thumbnail(
    State(federation): State<Federation>,
    Origin(origin): Origin,
    Params(id): Params<String>,
    Query(query): Query<Thumbnail>,
) -> Result<Response, ApiError> {
    let method = match query.method.as_deref() {
        None | Some("scale") => Method::Scale,
        Some("crop") => Method::Crop,
        Some(_) => return Err(ApiError::invalid_param("method is crop or scale")),
    };
    let (Some(width), Some(height)) = (query.width, query.height) else {
        return Err(ApiError::missing_param("a thumbnail has a width and a height"));
    };
    let own = federation.0.rooms.server_name().as_str();
    let record = federation.given(&origin, &id, query.timeout_ms).await?;
    let made = federation.0.media.thumbnail(own, &id, &record, Size { width, height, method }).await?;
    let bytes = stream::iter([Ok::<_, std::io::Error>(made.bytes)]);
    Ok(mixed(made.content_type, "inline", bytes))
}

/// The two parts of an answer with a file: what is said about it, which is nothing yet, and its bytes.
fn mixed(
    content_type: &str,
    disposition: &str,
    bytes: impl futures::Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static,
) -> Response {
    let boundary = format!("postern-{:032x}", rand::random::<u128>());
    // What was stored as a type may not end the header it stands in.
    let clean = |text: &str| text.chars().filter(|letter| !letter.is_control()).collect::<String>();
    let head = format!(
        "--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--{boundary}\r\nContent-Type: {}\r\n\
         Content-Disposition: {}\r\n\r\n",
        clean(content_type),
        clean(disposition)
    );
    let (head, tail) = (Bytes::from(head), Bytes::from(format!("\r\n--{boundary}--\r\n")));
    let body = stream::iter([Ok(head)]).chain(bytes).chain(stream::iter([Ok(tail)]));
    let mut response = Response::new(Body::from_stream(body));
    let value = HeaderValue::from_str(&format!("multipart/mixed; boundary={boundary}"));
    let value = value.unwrap_or(HeaderValue::from_static("multipart/mixed"));
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}

impl Federation {
    /// What is known of a file of this server that another one may have. One it may not have and one that is not there look
    /// the same.
    async fn given(
        &self,
        server: &ServerName,
        id: &str,
        timeout_ms: Option<u64>,
    ) -> Result<Record, ApiError> {
        let own = self.0.rooms.server_name().as_str();
        let may_fetch = || self.0.rooms.may_fetch(Asker::Server(server), &format!("{own}/{id}"));
        let missing = || ApiError::from(MediaError::NotFound);
        // Before it is waited for: how long that takes would tell what there is.
        if !may_fetch()? {
            return Err(missing());
        }
        let record = self.0.media.record_within(own, id, patience(timeout_ms)).await?;
        let name = format!("{own}/{id}");
        // Its label came with it.
        let may_have = may_fetch()?
            && match self.0.rooms.gate() {
                Some(gate) => gate.may_leave(server, &name).await?,
                None => true,
            };
        if may_have { Ok(record) } else { Err(missing()) }
    }

    /// Fetches a file of another server into the media of this one, once for all who ask at the same time.
    ///
    /// # Errors
    /// What the other server says, or [`MediaError::TooLarge`].
    pub(crate) async fn fetch_file(
        &self,
        server: &ServerName,
        id: &str,
        timeout_ms: u64,
    ) -> Result<(), Error> {
        let key = (server.to_owned(), id.to_owned());
        let turn = self.0.fetching.entry(key.clone()).or_default().clone();
        let fetched = {
            let _turn = turn.lock().await;
            match self.0.media.record(server.as_str(), id) {
                Ok(_) => Ok(()),
                Err(MediaError::NotFound) => {
                    let fetching = self.fetch_once(server, id, timeout_ms);
                    tokio::time::timeout(TRANSFER, fetching).await.unwrap_or_else(|_| {
                        Err(PeerError::Unreachable("the file took too long".to_owned()).into())
                    })
                }
                Err(error) => Err(error.into()),
            }
        };
        drop(turn);
        self.0.fetching.remove_if(&key, |_, turn| std::sync::Arc::strong_count(turn) == 1);
        fetched
    }

    async fn fetch_once(&self, server: &ServerName, id: &str, timeout_ms: u64) -> Result<(), Error> {
        if !self.0.peers.allowed(server) {
            return Err(MediaError::NotFound.into());
        }
        // An id that is none is refused before anybody is asked.
        let mut copy = self.0.media.begin_copy(server.as_str(), id)?;
        let patience = Duration::from_millis(timeout_ms.min(PATIENCE_MS)) + Duration::from_secs(5);
        let path = format!("/_matrix/federation/v1/media/download/{}?timeout_ms={timeout_ms}", enc(id));
        let opened = match self.0.peers.open(server, &path, patience).await {
            Ok(opened) => match multipart::read(&opened.headers, opened.body).await? {
                Found::Here(part) => part,
                Found::At(place) => Part::plain(self.0.peers.open_location(&place, patience).await?),
            },
            // What answers with no Matrix error does not know the endpoint.
            Err(PeerError::Refused { errcode, message, .. })
                if errcode == "M_UNRECOGNIZED" || message.is_empty() =>
            {
                // A server from before files were authenticated.
                let path = format!(
                    "/_matrix/media/v3/download/{}/{}?allow_remote=false&timeout_ms={timeout_ms}",
                    enc(server.as_str()),
                    enc(id)
                );
                Part::plain(self.0.peers.open(server, &path, patience).await?)
            }
            Err(error) => return Err(error.into()),
        };
        let Part { content_type, name, mut bytes } = opened;
        while let Some(piece) = bytes.next().await {
            copy.push(&piece?)?;
        }
        copy.finish(content_type, name).await?;
        Ok(())
    }
}
