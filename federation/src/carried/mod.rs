//! Federation with servers that are reached by hand: what would be requests and answers goes in bundles, carried on a medium
//! or over a diode (`docs/air-gap.md`, `docs/bundle-format.md`).
//!
//! `plan.rs` chooses the events of a bundle, `contents.rs` puts in what is due, `export.rs` makes it, `arrive.rs` takes bundles over from where they lie and says which
//! is next, `take.rs` takes in what is in one, by the same checks as if it had come over the network. `answers.rs` answers what
//! local users ask of such a server with what was brought, `join.rs` joins its rooms.
//!
//! A bundle is first made in a directory of the server's own, then noted in the store together with what it takes out of the
//! outbox, then put where it is fetched from. A bundle that came is first copied to that directory, then taken in; only
//! then its link moves on. So a stop at any moment loses nothing, and what is done twice is known the second time.

mod answers;
mod arrive;
mod contents;
mod export;
mod join;
mod keys;
mod plan;
mod resync;
mod state;
mod take;

pub use arrive::Imported;
pub use export::Exported;
pub use resync::Resynced;

use crate::{Error, Federation};
use dashmap::DashMap;
use http::StatusCode;
use postern_border::{Border, ByHand};
use postern_bundles::spool::Spool;
use postern_web::ApiError;
use ruma::ServerName;
use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// What links by hand work with.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    pub(crate) border: OnceLock<Border>,
    /// One export or import of a link at a time.
    turns: DashMap<String, Arc<Mutex<()>>>,
}

/// Why something about a link by hand is not done.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It is not in `border.toml`.
    #[error("there is no carried link {0:?} in border.toml")]
    NoLink(String),
    /// It has no such direction.
    #[error("nothing {0} over the link {1:?}: it has no `{2}` in border.toml")]
    OneWay(&'static str, String, &'static str),
    /// A file of keys, or a directory, cannot be used.
    #[error("{}: {why}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// A bundle cannot be written, or is refused.
    #[error(transparent)]
    Bundle(#[from] postern_bundles::Error),
    /// What is stored of a link cannot be read.
    #[error("what is stored of the link {0:?} cannot be read: {1}")]
    State(String, String),
    /// A gap ticket is none, or not for this link.
    #[error("the ticket cannot be used: {0}")]
    Ticket(String),
    /// Nothing was brought with which this could be done.
    #[error("{0}")]
    NotBrought(String),
    /// The work broke off.
    #[error("the work on a bundle broke off: {0}")]
    BrokeOff(String),
}

impl Fault {
    pub(crate) fn file(path: &std::path::Path, why: &dyn std::fmt::Display) -> Self {
        Self::File { path: path.to_owned(), why: why.to_string() }
    }
}

impl From<Fault> for ApiError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::NoLink(_) | Fault::NotBrought(_) => Self::not_found(fault.to_string()),
            Fault::OneWay(..) | Fault::Ticket(_) => Self::invalid_param(fault.to_string()),
            // An administrator asked, who has to know which file it is.
            fault => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "M_UNKNOWN", fault.to_string()),
        }
    }
}

impl From<postern_bundles::Error> for Error {
    fn from(error: postern_bundles::Error) -> Self {
        Fault::Bundle(error).into()
    }
}

impl Federation {
    pub(crate) fn border(&self) -> Result<&Border, Error> {
        let border = self.0.carried.border.get();
        Ok(border.ok_or_else(|| Fault::NotBrought("this server has no border".to_owned()))?)
    }

    fn link_by_hand(&self, name: &str) -> Result<Arc<ByHand>, Error> {
        let found = self.border()?.by_hand().into_iter().find(|way| way.name == name);
        Ok(found.ok_or_else(|| Fault::NoLink(name.to_owned()))?)
    }

    async fn turn_of(&self, link: &str) -> OwnedMutexGuard<()> {
        self.0.carried.turns.entry(link.to_owned()).or_default().clone().lock_owned().await
    }

    /// Where bundles of a link lie that this server still needs.
    fn spool_of(&self, way: &ByHand, what: &str) -> Result<Spool, Error> {
        // Names of links are an officer's, and may be anything.
        let name = way.peer.as_str().replace([':', '[', ']', '/'], "_");
        let path = self.0.config.database.path.with_extension("bundles").join(name).join(what);
        Ok(Spool::new(&path).map_err(|error| Fault::file(&path, &error))?)
    }
}

/// Does something that takes long and waits for disks, where it holds up nobody.
async fn apart<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    let runtime = tokio::runtime::Handle::current();
    let done = tokio::task::spawn_blocking(move || runtime.block_on(work)).await;
    done.map_err(|error| Fault::BrokeOff(error.to_string()))?
}

/// A server's name as the key of what was brought from it.
fn of(server: &ServerName) -> String {
    server.as_str().to_owned()
}
