//! The server-server API, both ways.
//!
//! [`Peers`] asks other servers, [`KeyRing`] knows their keys, [`origin`] says who asks. The rest is what servers do
//! with each other: [`inbox`] takes what they send, [`outbox`] sends to them, [`memberships`] joins and leaves across
//! servers.

mod address;
mod backoff;
mod connector;
mod discovery;
mod dns;
mod elsewhere;
mod error;
mod key_server;
pub mod origin;
mod peers;
mod ring;
mod statement;
mod trust;
mod well_known;
mod x_matrix;

pub use address::Guard;
pub use connector::{Broken, Connector, Opened, Way};
pub use error::{Error, PeerError};
pub use peers::Peers;
pub use ring::KeyRing;

use axum::{Router, middleware};
use http::StatusCode;
use postern_config::Config;
use postern_graph::Graph;
use postern_media::Media;
use postern_rooms::Rooms;
use postern_users::Users;
use postern_web::ApiError;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Federation with other servers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Federation(pub(crate) Arc<Parts>);

/// What federation works with.
#[derive(Debug)]
#[expect(dead_code, reason = "users of the parts come")]
pub(crate) struct Parts {
    pub(crate) config: Arc<Config>,
    pub(crate) graph: Arc<Graph>,
    pub(crate) rooms: Arc<Rooms>,
    pub(crate) users: Arc<Users>,
    pub(crate) media: Arc<Media>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) ring: Arc<KeyRing>,
    pub(crate) stopping: CancellationToken,
}

impl Federation {
    /// Federation over these parts.
    ///
    /// # Errors
    /// If the configuration names certificates that cannot be used.
    pub fn new(
        config: Arc<Config>,
        graph: Arc<Graph>,
        rooms: Arc<Rooms>,
        users: Arc<Users>,
        media: Arc<Media>,
        stopping: CancellationToken,
    ) -> Result<Self, Error> {
        let peers = Arc::new(Peers::new(&config, rooms.clone())?);
        let ring = Arc::new(KeyRing::new(&config, graph.clone(), rooms.clone(), peers.clone())?);
        Ok(Self(Arc::new(Parts { config, graph, rooms, users, media, peers, ring, stopping })))
    }

    /// The endpoints; none if this server does not federate. What is no endpoint is left to whoever serves them.
    pub fn router(&self) -> Router {
        if !self.0.config.federation.enabled {
            return Router::new();
        }
        Router::new()
            .merge(key_server::routes())
            .merge(self.authenticated(signed_routes()))
            // Set last, so that a wrong method is told to everyone.
            .method_not_allowed_fallback(|| async {
                ApiError::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "M_UNRECOGNIZED",
                    "this endpoint has no such method",
                )
            })
            .with_state(self.clone())
    }

    /// These endpoints, for signed requests only.
    fn authenticated(&self, routes: Router<Self>) -> Router<Self> {
        if !routes.has_routes() {
            return routes;
        }
        routes.route_layer(middleware::from_fn_with_state(self.clone(), origin::check))
    }
}

/// The endpoints that other servers sign their requests to.
fn signed_routes() -> Router<Federation> {
    Router::new()
}
