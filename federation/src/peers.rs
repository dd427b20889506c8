//! Asking other servers: discovery, one connector, signed requests, bounded answers.

use crate::{Error, PeerError};
use http::Method;
use postern_config::Config;
use postern_rooms::Rooms;
use ruma::ServerName;
use serde::{Serialize, de::DeserializeOwned};
use std::{sync::Arc, time::Duration};

/// The other servers.
#[derive(Debug)]
pub struct Peers {
    rooms: Arc<Rooms>,
}

impl Peers {
    /// The way to other servers, as configured.
    ///
    /// # Errors
    /// [`Error::Setup`].
    pub fn new(_config: &Config, rooms: Arc<Rooms>) -> Result<Self, Error> {
        Ok(Self { rooms })
    }

    /// `GET` of `path` (with query, encoded), signed.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn get<A: DeserializeOwned>(&self, server: &ServerName, path: &str) -> Result<A, PeerError> {
        self.ask(server, Method::GET, path, None::<&()>, DEFAULT_PATIENCE).await
    }

    /// `POST` of a body, signed.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn post<A: DeserializeOwned>(
        &self,
        server: &ServerName,
        path: &str,
        body: &impl Serialize,
    ) -> Result<A, PeerError> {
        self.ask(server, Method::POST, path, Some(body), DEFAULT_PATIENCE).await
    }

    /// `PUT` of a body, signed.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn put<A: DeserializeOwned>(
        &self,
        server: &ServerName,
        path: &str,
        body: &impl Serialize,
    ) -> Result<A, PeerError> {
        self.ask(server, Method::PUT, path, Some(body), DEFAULT_PATIENCE).await
    }

    /// A signed request whose JSON answer is awaited for at most `patience`, whole.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn ask<A: DeserializeOwned>(
        &self,
        server: &ServerName,
        _method: Method,
        _path: &str,
        _body: Option<&(impl Serialize + ?Sized)>,
        _patience: Duration,
    ) -> Result<A, PeerError> {
        let _ = self.rooms.server_name();
        Err(PeerError::NotAllowed(server.to_owned()))
    }
}

/// How long an answer is waited for.
pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(30);
