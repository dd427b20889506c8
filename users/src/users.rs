//! The accounts of this server behind one handle.

use crate::{
    Error,
    keys::Turns,
    passwords::{Cost, Passwords},
    sessions::Sessions,
};
use postern_graph::{Graph, NameKind, UserNum};
use ruma::{OwnedServerName, OwnedUserId, ServerName, UserId};
use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::sync::Mutex;

/// What accounts need to know of the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Work of a password hash.
    pub password_cost: Cost,
    /// Life of an access token that can be refreshed, milliseconds.
    pub access_token_ms: u64,
}

/// The accounts. Share behind an `Arc`.
pub struct Users {
    pub(crate) graph: Arc<Graph>,
    pub(crate) settings: Settings,
    pub(crate) passwords: Passwords,
    pub(crate) sessions: Sessions,
    /// Changes that read before they write take turns: there are few of them.
    pub(crate) account_turn: Mutex<()>,
    /// The same for push rules.
    pub(crate) push_turn: Mutex<()>,
    /// The same for keys, messages to devices and key backups.
    pub(crate) turns: Turns,
    server_name: OwnedServerName,
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Users").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

impl Users {
    /// The accounts in `graph`.
    #[must_use]
    pub fn new(graph: Arc<Graph>, server_name: &ServerName, settings: Settings) -> Self {
        Self {
            graph,
            passwords: Passwords::new(settings.password_cost),
            settings,
            sessions: Sessions::new(),
            account_turn: Mutex::new(()),
            push_turn: Mutex::new(()),
            turns: Turns::default(),
            server_name: server_name.to_owned(),
        }
    }

    /// This server's name.
    #[must_use]
    pub fn server_name(&self) -> &ServerName {
        &self.server_name
    }

    /// The number of a user this server has met.
    pub fn number(&self, user: &UserId) -> Result<Option<UserNum>, Error> {
        Ok(self.graph.number(NameKind::User, user.as_str())?.map(UserNum))
    }

    /// The id of a user.
    pub fn id(&self, user: UserNum) -> Result<OwnedUserId, Error> {
        let name = self.graph.name(NameKind::User, user.0)?;
        UserId::parse(&*name).map_err(|error| Error::Internal(error.to_string()))
    }
}

/// Now, in milliseconds since the epoch.
#[must_use]
pub(crate) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}
