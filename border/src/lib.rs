//! The border: what crosses between this enclave and others, and who inside it may know what.
//!
//! [`Border`] is the rooms' gate ([`postern_rooms::Gate`]): every door asks it. Labels and clearances decide first, by rules nobody
//! can set aside; Cedar policies decide the rest. What leaves is in the disclosure ledger before it leaves, and stays what it
//! was; what is refused is kept with its reason.

mod acls;
mod admission;
mod by_hand;
mod encryption;
mod error;
mod facts;
mod files;
pub mod fuzzing;
mod gate;
mod ledger;
pub mod limits;
mod open;
mod overruled;
mod policy_room;
mod policy_server;
mod pushes;
mod records;
mod releases;
mod requests;
mod rulings;
mod saying;
pub mod settings;
mod spills;
mod standing;
mod table;

pub use admission::BANNER;
pub use by_hand::{ByHand, CarriedEntry, Incoming, Joined, Outgoing};
pub use error::Error;
pub use facts::{AUDITOR, ENCRYPTION, FLOOR, LABEL};
pub use ledger::{Disclosure, ruling_text};
pub use policy_room::POLICIES;
pub use records::{Disclosed, Explained, For, PoliciesShown, Refusal, Replayed, RuleShown, Ruling, Shadow};
pub use releases::{RELEASE, Release, ReleaseState, ReleaseWish};
pub use settings::{DeviceEntry, Directory, Hours, PeerEntry, UserEntry, Wrong};
pub use spills::{FollowUp, Spill, SpilledEvent, SpilledFile};
pub use table::{HolderKind, PeerShown, Written};

use arc_swap::ArcSwap;
use ledger::Ledger;
use parking_lot::Mutex;
use policy_server::PolicyKey;
use postern_graph::{Graph, codec::Raw, schema::ServerState};
use postern_media::Media;
use postern_policy::decide::Accepted;
use postern_rooms::now_ms;
use postern_users::Users;
use quick_cache::sync::Cache;
use requests::Requests;
use ruma::{OwnedServerName, ServerName};
use serde::de::DeserializeOwned;
use standing::Standing;
use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};
use table::Tables;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How often what was refused is written down.
const KEEP: Duration = Duration::from_secs(1);
/// How often rulings that are too old are forgotten, and when for the first time.
const FORGET: Duration = Duration::from_hours(24);
const FORGET_FIRST: Duration = Duration::from_mins(10);

/// The border. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Border(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) server: OwnedServerName,
    pub(crate) graph: Arc<Graph>,
    pub(crate) users: Arc<Users>,
    pub(crate) media: Arc<Media>,
    directory: Option<PathBuf>,
    standing: ArcSwap<Standing>,
    pub(crate) ledger: Ledger,
    pub(crate) requests: Requests,
    /// Whoever changes the tables, or what stands in them.
    pub(crate) writing: tokio::sync::Mutex<()>,
    /// Whoever decides about releases and spills.
    pub(crate) deciding: tokio::sync::Mutex<()>,
    pub(crate) policy_key: PolicyKey,
    /// The rooms' access control lists have to be looked at.
    pub(crate) acls_stale: Notify,
    /// The policy room has to be looked at.
    pub(crate) policy_room_stale: Notify,
    /// Refusals that were told of lately, and when.
    pub(crate) told: Cache<(&'static str, String, String, String), u64>,
    /// Peers that are to be removed.
    to_remove: Mutex<BTreeSet<OwnedServerName>>,
    /// There are some.
    removing: Notify,
}

impl Border {
    /// The border of a server, as what stands in `directory` and in the tables says.
    ///
    /// # Errors
    /// [`Error::Wrong`] with all that cannot be used.
    pub fn new(
        server: &ServerName,
        directory: Option<PathBuf>,
        graph: Arc<Graph>,
        users: Arc<Users>,
        media: Arc<Media>,
    ) -> Result<Self, Error> {
        let last: Option<Accepted> = kept(&graph, BUNDLE)?;
        let directory_read = read(directory.as_ref())?;
        let published = kept(&graph, PUBLISHED)?;
        let standing =
            Standing::load(server, directory_read, &Tables::read(&graph)?, last.as_ref(), published)?;
        keep_bundle(&graph, &standing)?;
        Ok(Self(Arc::new(Inner {
            server: server.to_owned(),
            ledger: Ledger::new(graph.clone()),
            users,
            media,
            directory,
            standing: ArcSwap::from_pointee(standing),
            requests: Requests::default(),
            writing: tokio::sync::Mutex::default(),
            deciding: tokio::sync::Mutex::default(),
            policy_key: PolicyKey::load(&graph, server)?,
            acls_stale: Notify::new(),
            policy_room_stale: Notify::new(),
            graph,
            told: Cache::new(limits::REFUSALS_TOLD),
            to_remove: Mutex::default(),
            removing: Notify::new(),
        })))
    }

    /// Reads everything again. What is wrong changes nothing.
    ///
    /// # Errors
    /// [`Error::Wrong`] with all that cannot be used.
    pub async fn reload(&self) -> Result<(), Error> {
        let _writing = self.0.writing.lock().await;
        self.take(self.load(&Tables::read(&self.0.graph)?)?)
    }

    /// How things stand now.
    pub(crate) fn standing(&self) -> Arc<Standing> {
        self.0.standing.load_full()
    }

    /// Writes down what was refused, removes peers that overruled the border, and forgets rulings and refusals that are too old,
    /// until the server stops.
    pub async fn keep(self, stopping: CancellationToken) {
        tokio::join!(self.keep_refusals(&stopping), self.forget(&stopping));
    }

    async fn keep_refusals(&self, stopping: &CancellationToken) {
        loop {
            let is_last = tokio::select! {
                () = stopping.cancelled() => true,
                () = tokio::time::sleep(KEEP) => false,
                () = self.0.removing.notified() => {
                    self.remove_overruling().await;
                    false
                }
            };
            if let Err(error) = self.0.ledger.keep_refusals().await {
                tracing::error!(%error, "what was refused cannot be written down");
            }
            if is_last {
                return;
            }
        }
    }

    async fn forget(&self, stopping: &CancellationToken) {
        let mut forgetting = tokio::time::interval_at(tokio::time::Instant::now() + FORGET_FIRST, FORGET);
        let forget = async {
            loop {
                forgetting.tick().await;
                let before = now_ms().saturating_sub(self.standing().rulings_kept);
                let ledger = &self.0.ledger;
                let forgotten = async {
                    let refusals = ledger.forget_refusals(before).await?;
                    Ok::<_, Error>(refusals + ledger.forget_rulings(before, limits::RULINGS).await?)
                };
                match forgotten.await {
                    Ok(0) => {}
                    Ok(forgotten) => {
                        tracing::info!(forgotten, "rulings and refusals were too old to be kept")
                    }
                    Err(error) => {
                        tracing::error!(%error, "rulings and refusals that are too old cannot be forgotten");
                    }
                }
            }
        };
        stopping.run_until_cancelled(forget).await;
    }
}

fn read(directory: Option<&PathBuf>) -> Result<Directory, Error> {
    Ok(match directory {
        Some(path) => Directory::read(path)?,
        None => Directory::none(),
    })
}

/// Under what the bundle that was taken last stands in `schema::ServerState`: an older one is not taken, also after a restart.
const BUNDLE: &str = "policy_bundle";
/// And under what the bundle itself, if it stood in the policy room: it counts until another one does.
const PUBLISHED: &str = "policy_room_bundle";

fn kept<T: DeserializeOwned>(graph: &Graph, name: &str) -> Result<Option<T>, Error> {
    let Some(Raw(kept)) = graph.get::<ServerState>(&(name.to_owned(),))? else { return Ok(None) };
    let wrong = |error: serde_json::Error| Wrong(vec![format!("the bundle that was taken last: {error}")]);
    Ok(Some(serde_json::from_slice(&kept).map_err(wrong)?))
}

/// Keeps which bundle was taken, before it counts.
fn keep_bundle(graph: &Graph, standing: &Standing) -> Result<(), Error> {
    let Some(bundle) = &standing.bundle else { return Ok(()) };
    let wrong = |error: serde_json::Error| Wrong(vec![error.to_string()]);
    let mut commit = graph.begin();
    commit.put::<ServerState>(&(BUNDLE.to_owned(),), &Raw(serde_json::to_vec(bundle).map_err(wrong)?));
    let key = (PUBLISHED.to_owned(),);
    match &standing.published {
        Some(published) => {
            commit.put::<ServerState>(&key, &Raw(serde_json::to_vec(published).map_err(wrong)?));
        }
        None => commit.delete::<ServerState>(&key),
    }
    Ok(graph.commit_beside_log(commit)?)
}
