//! The server-server API, both ways.
//!
//! [`Peers`] asks other servers, [`KeyRing`] knows their keys, [`origin`] says who asks. The rest is what servers do
//! with each other: [`inbox`] takes what they send, [`outbox`] sends to them, [`memberships`] joins and leaves across
//! servers.

mod device_updates;
mod devices;
mod elsewhere;
mod error;
mod origin;
mod outbox;
mod peers;
mod ring;
mod user_keys;

pub use error::{Error, PeerError};
pub use peers::Peers;
pub use ring::KeyRing;

use axum::Router;
use postern_config::Config;
use postern_graph::Graph;
use postern_media::Media;
use postern_rooms::Rooms;
use postern_users::Users;
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
    pub(crate) resyncs: devices::Resyncs,
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
        let ring = Arc::new(KeyRing::new(&config, graph.clone(), peers.clone()));
        Ok(Self(Arc::new(Parts {
            config,
            graph,
            rooms,
            users,
            media,
            peers,
            ring,
            resyncs: devices::Resyncs::default(),
            stopping,
        })))
    }

    /// The endpoints, for the listeners of federation.
    #[must_use]
    pub fn router(&self) -> Router {
        Router::new().merge(devices::routes()).merge(user_keys::routes()).with_state(self.clone())
    }

    /// Tells other servers of what happens to devices here, until the server stops.
    pub async fn follow_devices(self) {
        device_updates::follow(self).await;
    }
}
