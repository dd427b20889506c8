//! The client-server API.
//!
//! Handlers are thin: they parse, call one operation of [`postern_rooms`], [`postern_users`] or [`postern_media`], and
//! answer. [`router`] puts them together; [`http`] has what they share.

mod account;
mod dehydrated;
mod devices;
mod discovery;
mod filter;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod http;
mod key_backup;
mod keys;
mod login;
mod me;
mod media;
mod presence;
mod profile;
mod push;
mod pushers;
mod register;
mod rooms;
mod sync;
mod uia;

pub use sync::{Connections, Followers, Lazy, Wake, start};

use axum::{Router, extract::FromRef, routing::any};
use http::{ApiError, Limiter};
use postern_config::Config;
use postern_graph::{Graph, Pos, RoomNum};
use postern_media::Media;
use postern_push::Push;
use postern_rooms::{Rooms, Typing};
use postern_users::{Uiaa, Users};
use postern_web::Elsewhere;
use quick_cache::sync::Cache;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Rooms whose place in sorted lists is kept in memory.
const ROOMS_SORTED: usize = 20_000;

/// What handlers may ask for; each names only what it needs.
#[derive(Debug, Clone)]
pub struct Api {
    /// The configuration.
    pub config: Arc<Config>,
    /// The store, for following it.
    pub graph: Arc<Graph>,
    /// The rooms.
    pub rooms: Arc<Rooms>,
    /// The accounts.
    pub users: Arc<Users>,
    /// The files.
    pub media: Arc<Media>,
    /// Open interactive authentications.
    pub uiaa: Arc<Uiaa>,
    /// The rate limits.
    pub limiter: Arc<Limiter>,
    /// Who waits for something to happen.
    pub wake: Arc<Wake>,
    /// Who is typing.
    pub typing: Arc<Typing>,
    /// Which members devices were told of.
    pub lazy: Arc<Lazy>,
    /// What clients were told over sliding sync.
    pub connections: Arc<Connections>,
    /// What rooms are sorted by: the position of the latest event, and that of the latest that matters.
    pub bumps: Arc<Cache<RoomNum, (Pos, Pos)>>,
    /// What users are notified of.
    pub push: Push,
    /// Other servers.
    pub elsewhere: Arc<dyn Elsewhere>,
    /// Cancelled when the server begins to stop: those who wait get their answer.
    pub stopping: CancellationToken,
}

impl Api {
    /// The API over these parts.
    #[must_use]
    #[allow(clippy::too_many_arguments, reason = "one place puts the parts together")]
    pub fn new(
        config: Arc<Config>,
        graph: Arc<Graph>,
        rooms: Arc<Rooms>,
        users: Arc<Users>,
        media: Arc<Media>,
        push: Push,
        limiter: Arc<Limiter>,
        elsewhere: Arc<dyn Elsewhere>,
        stopping: CancellationToken,
    ) -> Self {
        Self {
            config,
            graph,
            typing: rooms.typing().clone(),
            rooms,
            users,
            media,
            uiaa: Arc::default(),
            limiter,
            wake: Arc::default(),
            lazy: Arc::default(),
            connections: Arc::default(),
            bumps: Arc::new(Cache::new(ROOMS_SORTED)),
            push,
            elsewhere,
            stopping,
        }
    }

    /// Wakes the members of a room.
    pub(crate) fn wake_room(&self, room: RoomNum) {
        match self.rooms.joined_users(room) {
            Ok(users) => self.wake.wake_all(&users.into_iter().collect()),
            Err(error) => tracing::error!(%error, "the members of a room were not woken"),
        }
    }
}

macro_rules! parts {
    ($($field:ident: $part:ty),*) => {$(
        impl FromRef<Api> for Arc<$part> {
            fn from_ref(api: &Api) -> Self { api.$field.clone() }
        }
    )*};
}
parts!(config: Config, graph: Graph, rooms: Rooms, users: Users, media: Media, uiaa: Uiaa, limiter: Limiter);

/// The client-server API as a service.
pub fn router(api: Api) -> Router {
    let max_body = api.config.limits.max_request_body_bytes;
    Router::new()
        .merge(discovery::routes())
        .merge(register::routes())
        .merge(login::routes())
        .merge(account::routes())
        .merge(devices::routes())
        .merge(dehydrated::routes())
        .merge(me::routes())
        .merge(media::routes())
        .merge(push::routes())
        .merge(pushers::routes())
        .merge(presence::routes())
        .merge(profile::routes())
        .merge(rooms::routes())
        .merge(keys::routes())
        .merge(key_backup::routes())
        .merge(sync::routes())
        .fallback(any(|| async { ApiError::unrecognized() }))
        .method_not_allowed_fallback(|| async {
            ApiError::new(
                axum::http::StatusCode::METHOD_NOT_ALLOWED,
                "M_UNRECOGNIZED",
                "this endpoint has no such method",
            )
        })
        .layer(axum::extract::DefaultBodyLimit::max(max_body))
        .layer(cors())
        .with_state(api)
}

/// Web clients come from any origin (specification: web browser clients).
fn cors() -> tower_http::cors::CorsLayer {
    use axum::http::{HeaderName, Method, header};
    tower_http::cors::CorsLayer::new()
        .allow_origin(tower_http::cors::Any)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS])
        .allow_headers([
            HeaderName::from_static("x-requested-with"),
            header::CONTENT_TYPE,
            header::AUTHORIZATION,
            header::DATE,
        ])
        .expose_headers([header::RETRY_AFTER, header::CONTENT_DISPOSITION])
        .max_age(std::time::Duration::from_secs(86_400))
}
