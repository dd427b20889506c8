//! The server-server API, both ways.
//!
//! [`Peers`] asks other servers, [`KeyRing`] knows their keys, [`origin`] says who asks. The rest is what servers do
//! with each other: [`inbox`] takes what they send, [`outbox`] sends to them, [`memberships`] joins and leaves across
//! servers.

mod address;
mod backoff;
mod carried;
mod connector;
mod copies;
mod device_updates;
mod devices;
mod discovery;
mod dns;
mod edus;
mod elsewhere;
mod error;
mod files;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod gaps;
mod history;
mod inbox;
mod key_server;
mod lookups;
mod memberships;
mod multipart;
pub mod origin;
mod outbox;
mod peers;
mod places;
mod policy;
mod policy_server;
mod push_gateways;
mod ring;
#[cfg(test)]
mod scene;
mod statement;
mod transactions;
mod trust;
mod user_keys;
mod verify;
mod waiting;
mod well_known;
mod x_matrix;

pub use address::Guard;
pub use carried::{Exported, Fault, Imported, Resynced};
pub use connector::{Broken, Connector, Opened, Whither};
pub use error::{Error, PeerError};
pub use outbox::Followers;
pub use peers::Peers;
pub use ring::KeyRing;
pub use trust::key_digest;

use axum::Router;
use dashmap::DashMap;
use outbox::{Outbox, Pace};
use postern_config::Config;
use postern_graph::Graph;
use postern_media::Media;
use postern_rooms::Rooms;
use postern_users::Users;
use postern_web::Limiter;
use push_gateways::PushGateways;
use ruma::{OwnedServerName, ServerName};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// Federation with other servers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Federation(pub(crate) Arc<Parts>);

/// What federation works with.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) config: Arc<Config>,
    pub(crate) graph: Arc<Graph>,
    pub(crate) rooms: Arc<Rooms>,
    pub(crate) users: Arc<Users>,
    pub(crate) media: Arc<Media>,
    pub(crate) limiter: Arc<Limiter>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) ring: Arc<KeyRing>,
    pub(crate) taken: transactions::Taken,
    pub(crate) waiting: waiting::Rooms,
    pub(crate) copies: copies::Copies,
    /// Files that are being fetched: (server, id).
    pub(crate) fetching: DashMap<(OwnedServerName, String), Arc<tokio::sync::Mutex<()>>>,
    pub(crate) resyncs: devices::Resyncs,
    pub(crate) outbox: Outbox,
    pub(crate) carried: carried::Carried,
    gateways: Arc<PushGateways>,
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
        limiter: Arc<Limiter>,
        stopping: CancellationToken,
    ) -> Result<Self, Error> {
        let peers = Arc::new(Peers::new(&config, rooms.clone())?);
        rooms.reach_policy_servers(Arc::new(policy::Asker::new(&peers)));
        let ring = Arc::new(KeyRing::new(&config, graph.clone(), rooms.clone(), peers.clone())?);
        let outbox = Outbox::new(
            graph.clone(),
            rooms.clone(),
            users.clone(),
            peers.clone(),
            config.users.presence,
            Pace {
                first: Duration::from_millis(config.federation.backoff_min_ms),
                longest: Duration::from_millis(config.federation.backoff_max_ms),
            },
        );
        let taken = transactions::Taken::new(graph.clone());
        let gateways = Arc::new(PushGateways::new(&config)?);
        Ok(Self(Arc::new(Parts {
            config,
            graph,
            rooms,
            users,
            media,
            limiter,
            peers,
            ring,
            taken,
            waiting: waiting::Rooms::default(),
            copies: copies::Copies::default(),
            fetching: DashMap::new(),
            resyncs: devices::Resyncs::default(),
            outbox,
            carried: carried::Carried::default(),
            gateways,
            stopping,
        })))
    }

    /// From now on the links that `border` knows are carried by hand are served by bundles.
    pub fn carry(&self, border: postern_border::Border) {
        // The first stands: there is one border.
        let _ = self.0.carried.border.set(border);
    }

    /// Goes on with what was begun before the last stop, and begins to send to other servers.
    ///
    /// # Errors
    /// The store's.
    pub fn start(&self) -> Result<Followers, Error> {
        self.resume_waiting()?;
        tokio::spawn(device_updates::follow(self.clone()));
        for (room, _) in self.0.rooms.partial_rooms() {
            self.fetch_whole_state(room);
        }
        self.0.outbox.start()
    }

    /// Reads the certificate authorities and the certificate towards other servers again; connections made from then on
    /// go by them.
    ///
    /// # Errors
    /// [`Error::Setup`] if a file cannot be used: all stays as it was.
    pub fn read_certificates(&self) -> Result<(), Error> {
        self.0.peers.read_certificates(&self.0.config.federation)?;
        self.0.gateways.read_certificates(&self.0.config.federation)
    }

    /// The way to push gateways: the one way out, as push is configured.
    #[must_use]
    pub fn push_gateways(&self) -> Arc<dyn postern_push::Gateways> {
        self.0.gateways.clone()
    }

    /// A server has been heard from: what waits for it can be sent.
    pub(crate) fn heard_from(&self, server: &ServerName) {
        self.0.peers.alive(server);
        self.0.outbox.heard_from(server);
    }

    /// The endpoints, for the listeners.
    pub fn router(&self) -> Router {
        if !self.0.config.federation.enabled {
            return Router::new();
        }
        let of_servers = Router::new()
            .merge(inbox::routes())
            .merge(history::routes())
            .merge(memberships::routes())
            .merge(devices::routes())
            .merge(user_keys::routes())
            .merge(lookups::routes())
            .merge(files::routes())
            .merge(policy_server::routes())
            .route_layer(axum::middleware::from_fn_with_state(self.clone(), origin::check));
        Router::new()
            .merge(key_server::routes())
            .merge(lookups::open_routes())
            .merge(policy_server::open_routes())
            .merge(memberships::open_routes())
            .merge(of_servers)
            .method_not_allowed_fallback(|| async {
                postern_web::ApiError::new(
                    http::StatusCode::METHOD_NOT_ALLOWED,
                    "M_UNRECOGNIZED",
                    "this endpoint has no such method",
                )
            })
            .with_state(self.clone())
    }
}
