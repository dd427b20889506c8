//! Sending to other servers.
//!
//! A follower of the log (`follow.rs`) puts what other servers are due into their queues, which lie in the graph
//! (`due.rs`). A server that is due something has a task (`queue.rs`), which makes transactions of it and sends them, one
//! at a time and in order, until nothing is left; then the task ends. A transaction is stored before it is sent, and
//! repeated, with the same id and content, until it is answered. So everything is sent at least once, in order, also
//! across restarts, and a server that is due nothing costs nothing.
//!
//! Whether an event goes to a server, and in which form, is asked when its transaction is made, and again before that is
//! repeated. A transaction of which certainly nothing has left is unmade: what was in it is decided anew when there is a way to
//! the server. To a server that is spoken with at some hours only, nothing is made at others.
//!
//! A server that cannot be reached is tried again later and later, or when it is heard of. What it is due meanwhile is
//! kept short: the latest event of each room tells it what to fetch. EDUs replace each other while they wait.

mod by_hand;
mod due;
mod edu;
mod follow;
mod pace;
mod queue;
mod release;
mod residents;
#[cfg(test)]
mod tests;

pub(crate) use edu::{edu, edu_for_all};
pub(crate) use pace::Pace;

use crate::{Error, PeerError, Peers};
use due::Due;
use futures::future::{BoxFuture, FutureExt};
use http::Method;
use parking_lot::Mutex;
use postern_graph::{Graph, RoomNum};
use postern_rooms::Rooms;
use postern_users::Users;
use queue::Queue;
use ruma::{OwnedServerName, OwnedUserId, ServerName, UserId};
use serde_json::{Value, value::RawValue};
use std::{
    collections::HashMap,
    fmt::Debug,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long a server may take to answer a transaction: it may have to fetch events first.
const PATIENCE: Duration = Duration::from_secs(60);
/// Transactions under way at a time; each is in memory, up to about 1 MiB.
const AT_ONCE: usize = 128;
/// Of these to servers that were not reached the last time: they must not keep others waiting.
const FAILING_AT_ONCE: usize = 32;
/// How long transactions under way are waited for when the server stops; they are repeated after the next start.
const STOPPING: Duration = Duration::from_secs(5);
/// Others are told that somebody still types this often: they forget it after about half a minute.
const TYPING_AGAIN: Duration = Duration::from_secs(15);
/// People who are remembered to type.
const TYPING: usize = 10_000;

/// What a server says of the PDUs of a transaction that it did not take: their ids, and why.
pub(crate) type Untaken = Vec<(String, String)>;

/// Brings transactions to servers.
pub(crate) trait Carrier: Send + Sync + Debug + 'static {
    /// Whether a transaction could be brought to a server now.
    ///
    /// # Errors
    /// Why not.
    fn may_carry(&self, _server: &ServerName) -> Result<(), PeerError> {
        Ok(())
    }

    /// Brings one, and the answer back.
    fn carry<'a>(
        &'a self,
        server: &'a ServerName,
        id: &'a str,
        body: &'a RawValue,
    ) -> BoxFuture<'a, Result<Untaken, PeerError>>;
}

impl Carrier for Peers {
    fn may_carry(&self, server: &ServerName) -> Result<(), PeerError> {
        self.may_ask(server)
    }

    fn carry<'a>(
        &'a self,
        server: &'a ServerName,
        id: &'a str,
        body: &'a RawValue,
    ) -> BoxFuture<'a, Result<Untaken, PeerError>> {
        async move {
            let path = format!("/_matrix/federation/v1/send/{id}");
            let answer: Value = self.ask(server, Method::PUT, &path, Some(body), PATIENCE).await?;
            // An answer is an answer, whatever it looks like inside.
            let results = answer.get("pdus").and_then(Value::as_object);
            let untaken = results.into_iter().flatten().filter_map(|(event, result)| {
                Some((event.clone(), result.get("error")?.as_str()?.to_owned()))
            });
            Ok(untaken.collect())
        }
        .boxed()
    }
}

/// The outbox. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Outbox(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    graph: Arc<Graph>,
    rooms: Arc<Rooms>,
    users: Arc<Users>,
    carrier: Arc<dyn Carrier>,
    /// Whether other servers are told who is online.
    presence: bool,
    pace: Pace,
    due: Due,
    /// The servers that have a task.
    queues: Mutex<HashMap<OwnedServerName, Arc<Queue>>>,
    /// When others were last told that somebody types.
    typing: Mutex<HashMap<(RoomNum, OwnedUserId), Instant>>,
    started: AtomicBool,
    tasks: TaskTracker,
    /// Nothing new is begun.
    stop: CancellationToken,
    /// What is under way is given up.
    abandon: CancellationToken,
    at_once: Semaphore,
    failing_at_once: Semaphore,
}

/// What works in the background.
#[derive(Debug)]
pub struct Followers(Outbox);

impl Followers {
    /// Ends it; transactions under way have a moment to be answered.
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

impl Outbox {
    /// An outbox over what is stored, whose transactions `carrier` brings away.
    pub(crate) fn new(
        graph: Arc<Graph>,
        rooms: Arc<Rooms>,
        users: Arc<Users>,
        carrier: Arc<dyn Carrier>,
        presence: bool,
        pace: Pace,
    ) -> Self {
        Self(Arc::new(Inner {
            due: Due::new(graph.clone(), rooms.clone()),
            graph,
            rooms,
            users,
            carrier,
            presence,
            pace,
            queues: Mutex::default(),
            typing: Mutex::default(),
            started: AtomicBool::new(false),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            abandon: CancellationToken::new(),
            at_once: Semaphore::new(AT_ONCE),
            failing_at_once: Semaphore::new(FAILING_AT_ONCE),
        }))
    }

    /// Begins to send. What happens in the graph from now on, and what was left over, is sent.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn start(&self) -> Result<Followers, Error> {
        let follower = self.0.graph.follow(follow::NAME)?;
        *self.0.due.followed.lock() = follower.cursor();
        self.0.started.store(true, Ordering::Release);
        Due::count(self.0.due.events()? as f64);
        for server in self.0.due.servers()? {
            self.wake(&server);
        }
        self.0.tasks.spawn(follow::follow(self.clone(), follower));
        Ok(Followers(self.clone()))
    }

    /// A server may be due something.
    pub(crate) fn wake(&self, server: &ServerName) {
        self.with_queue(server, |_| ());
    }

    /// A server is there: if it could not be reached, it is tried again soon.
    pub(crate) fn heard_from(&self, server: &ServerName) {
        if let Some(queue) = self.0.queues.lock().get(server) {
            queue.heard.notify_one();
        }
    }

    /// A local user types, or types no more. Kept in memory only: it is true for seconds.
    pub(crate) fn typing(&self, room: RoomNum, user: &UserId, typing: bool) {
        {
            let mut told = self.0.typing.lock();
            let key = (room, user.to_owned());
            if typing && told.get(&key).is_some_and(|at| at.elapsed() < TYPING_AGAIN) {
                return;
            }
            if typing {
                if told.len() >= TYPING {
                    told.retain(|_, at| at.elapsed() < TYPING_AGAIN);
                }
                if told.len() < TYPING {
                    told.insert(key, Instant::now());
                }
            } else if told.remove(&key).is_none() {
                return;
            }
        }
        let told = || Ok::<_, Error>((self.0.rooms.room_id(room)?, self.knowing(room)?));
        let (room_id, servers) = match told() {
            Ok(told) => told,
            Err(error) => {
                tracing::error!(%error, "other servers were not told who types");
                return;
            }
        };
        for server in servers {
            self.with_queue(&server, |queue| queue.types(&room_id, user, typing));
        }
    }

    /// The other servers of a room that may know it.
    fn knowing(&self, room: RoomNum) -> Result<Vec<OwnedServerName>, Error> {
        let mut servers = self.others(self.0.rooms.servers_in(room)?);
        let mut failed = Ok(());
        servers.retain(|server| {
            self.0.rooms.may_know(server, room).unwrap_or_else(|error| {
                failed = Err(error);
                false
            })
        });
        failed?;
        Ok(servers)
    }

    /// All but this server.
    fn others(&self, servers: impl IntoIterator<Item = OwnedServerName>) -> Vec<OwnedServerName> {
        servers.into_iter().filter(|server| server != self.0.rooms.server_name()).collect()
    }

    /// Does something with the queue of a server, which then looks for what it is due.
    fn with_queue(&self, server: &ServerName, act: impl FnOnce(&Queue)) {
        if !self.0.started.load(Ordering::Acquire) || self.0.stop.is_cancelled() {
            return;
        }
        // What such a server is due waits for the next bundle.
        if self.0.rooms.is_by_hand(server) {
            return;
        }
        let mut queues = self.0.queues.lock();
        if let Some(queue) = queues.get(server) {
            act(queue);
            queue.look_again();
            return;
        }
        let queue = Arc::new(Queue::new(server));
        act(&queue);
        queues.insert(server.to_owned(), queue.clone());
        metrics::gauge!("postern_outbox_queues").set(queues.len() as f64);
        self.0.tasks.spawn(queue::work_off(self.clone(), queue));
    }
}
