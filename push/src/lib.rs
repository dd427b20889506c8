//! Push: what users are notified of, and how it reaches their devices (specification: push notifications).
//!
//! A follower of the log (`follow.rs`) holds each event against the push rules of the local users it is for, once, and keeps what
//! notifies: as unread, until it is read (`unread.rs`), and in a list (`list.rs`). What a user's pushers are due is queued with
//! it. Each pusher that is due something has a task (`lanes.rs`), so that no gateway waits for another.

mod follow;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod judge;
mod lanes;
pub mod limits;
mod list;
mod pace;
mod payload;
mod rules;
mod unread;

pub use lanes::{Gateways, Reached};
pub use list::{Notification, Page};
pub use unread::{Count, Counts};

use lanes::Lanes;
use postern_graph::{EventNum, Graph, Seq, UserNum};
use postern_rooms::Rooms;
use postern_users::Users;
use quick_cache::{Weighter, sync::Cache};
use rules::{Rules, Subject};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Why something cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store.
    #[error(transparent)]
    Graph(#[from] postern_graph::Error),
    /// The rooms.
    #[error(transparent)]
    Rooms(#[from] postern_rooms::Error),
    /// The accounts.
    #[error(transparent)]
    Users(#[from] postern_users::Error),
    /// What is stored makes no sense.
    #[error("what is stored for push makes no sense: {0}")]
    Damaged(String),
}

/// What of an event push gateways are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// All that the specification has, unless a pusher wants less.
    Full,
    /// The ids of event and room.
    IdsOnly,
}

/// How push gateways are spoken with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whether they are at all.
    pub enabled: bool,
    /// What they are told.
    pub content: Content,
    /// How long one that failed is left alone, at first.
    pub retry_min: Duration,
    /// How long at most.
    pub retry_max: Duration,
    /// After this time a notification that could not be delivered is of no use any more.
    pub give_up: Duration,
}

/// As the configuration has it unless it says otherwise.
impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            content: Content::Full,
            retry_min: Duration::from_secs(1),
            retry_max: Duration::from_secs(60 * 60),
            give_up: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// Push. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Push(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    graph: Arc<Graph>,
    rooms: Arc<Rooms>,
    users: Arc<Users>,
    settings: Settings,
    rules: Cache<UserNum, (Seq, Arc<Rules>), OfRules>,
    subjects: Cache<EventNum, Arc<Subject>>,
    /// Up to where the log was followed: what lies behind that is stored.
    followed: watch::Sender<Seq>,
    lanes: Lanes,
    tasks: TaskTracker,
    /// Nothing new is begun.
    stop: CancellationToken,
    /// What is under way is given up.
    abandon: CancellationToken,
}

/// How much of the memory for rules a user's take.
#[derive(Debug, Clone)]
struct OfRules;

impl Weighter<UserNum, (Seq, Arc<Rules>)> for OfRules {
    fn weight(&self, _: &UserNum, (_, rules): &(Seq, Arc<Rules>)) -> u64 {
        rules.weight()
    }
}

/// Types of events by which somebody calls.
const CALL_TYPES: [&str; 2] = ["m.call.invite", "m.call.notify"];

/// How long requests under way are waited for when the server stops; they are repeated after the next start.
const STOPPING: Duration = Duration::from_secs(5);
/// How long somebody who asks for notifications waits for those that are being found.
const PATIENCE: Duration = Duration::from_secs(5);

/// What works in the background.
#[derive(Debug)]
pub struct Followers(Push);

impl Followers {
    /// Ends it; requests under way have a moment to be answered.
    pub async fn stop(self) {
        let inner = &self.0.0;
        inner.stop.cancel();
        inner.tasks.close();
        if tokio::time::timeout(STOPPING, inner.tasks.wait()).await.is_err() {
            inner.abandon.cancel();
            inner.tasks.wait().await;
        }
    }
}

impl Push {
    /// Push over what is stored.
    #[must_use]
    pub fn new(graph: Arc<Graph>, rooms: Arc<Rooms>, users: Arc<Users>, settings: Settings) -> Self {
        Self(Arc::new(Inner {
            graph,
            rooms,
            users,
            settings,
            rules: Cache::with_weighter(limits::USERS_IN_MEMORY, limits::RULES_IN_MEMORY, OfRules),
            subjects: Cache::new(limits::SUBJECTS_IN_MEMORY),
            followed: watch::channel(Seq::ZERO).0,
            lanes: Lanes::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            abandon: CancellationToken::new(),
        }))
    }

    /// Begins to follow the log and to tell push gateways, by `gateways`, of what there is and what was left over.
    ///
    /// # Errors
    /// The store's.
    pub fn start(&self, gateways: Arc<dyn Gateways>) -> Result<Followers, Error> {
        let follower = self.0.graph.follow(follow::NAME)?;
        self.0.followed.send_replace(follower.cursor());
        if self.0.settings.enabled {
            self.open_lanes(gateways)?;
        }
        self.0.tasks.spawn(follow::follow(self.clone(), follower));
        Ok(Followers(self.clone()))
    }

    /// Waits, for a moment, until all is found that happened so far.
    async fn caught_up(&self) {
        let wanted = self.0.graph.durable();
        let mut followed = self.0.followed.subscribe();
        // Without the latest, then.
        let _ = tokio::time::timeout(PATIENCE, followed.wait_for(|seq| *seq >= wanted)).await;
    }
}
