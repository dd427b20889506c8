//! The lanes of pushers: each tells its push gateway what the pusher is due, one after the other, until nothing is left. A gateway
//! that cannot be reached is tried again later and later.

use crate::{Error, Push, limits, pace::Backoff};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::StatusCode;
use parking_lot::Mutex;
use postern_graph::{
    EventNum, Pos, Seq, UserNum,
    codec::Raw,
    schema::{Family, PushDue},
};
use postern_rooms::now_ms;
use postern_users::Pusher;
use serde::Deserialize;
use serde_json::Value;
use std::{
    collections::HashMap,
    fmt::Debug,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};
use tokio::sync::{Notify, Semaphore};
use url::Url;

/// Whose pusher: user, app id, push key.
pub(crate) type PusherKey = (UserNum, String, String);

type DueKey = <PushDue as Family>::Key;
type Due = <PushDue as Family>::Value;

/// The place of the counts alone, as of a time, among what a pusher is due: before all events.
pub(crate) fn counts_at(seq: Seq) -> Pos {
    Pos(i64::MIN.saturating_add_unsigned(seq.0))
}

/// What a push gateway answered: status and body; or why it was not reached.
pub type Reached = Result<(StatusCode, Bytes), String>;

/// Brings notifications to push gateways.
pub trait Gateways: Send + Sync + Debug + 'static {
    /// Posts JSON to one, and brings its answer back, of `bound` bytes at most.
    fn post<'a>(&'a self, url: &'a Url, body: Bytes, bound: usize) -> BoxFuture<'a, Reached>;
}

/// The lanes there are.
#[derive(Debug)]
pub(crate) struct Lanes {
    open: Mutex<Open>,
    gateways: OnceLock<Arc<dyn Gateways>>,
    at_once: Semaphore,
    failing_at_once: Semaphore,
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            open: Mutex::default(),
            gateways: OnceLock::new(),
            at_once: Semaphore::new(limits::REQUESTS),
            failing_at_once: Semaphore::new(limits::FAILING_REQUESTS),
        }
    }
}

#[derive(Debug, Default)]
struct Open {
    lanes: HashMap<PusherKey, Arc<Lane>>,
    /// The places of users that have a lane.
    of_users: HashMap<UserNum, Arc<Semaphore>>,
}

impl Open {
    /// Ends a lane.
    fn close(&mut self, pusher: &PusherKey) {
        self.lanes.remove(pusher);
        // Here and in the lane that ends.
        if self.of_users.get(&pusher.0).is_some_and(|places| Arc::strong_count(places) <= 2) {
            self.of_users.remove(&pusher.0);
        }
        metrics::gauge!("postern_push_lanes").set(self.lanes.len() as f64);
    }
}

#[derive(Debug)]
struct Lane {
    /// The places of its user.
    of_user: Arc<Semaphore>,
    /// Whether something may have come since it was last looked.
    more: AtomicBool,
    /// What has come since the queue was last cut.
    came: AtomicUsize,
    /// It need not wait any longer.
    again: Notify,
}

/// How telling a gateway went.
enum Told {
    /// It knows, or need not.
    Yes,
    /// Nothing is left to tell.
    Nothing,
    /// It has to be tried again.
    Later,
    /// This server stops.
    Stopping,
}

impl Push {
    /// Begins to tell gateways what was left over.
    pub(crate) fn open_lanes(&self, gateways: Arc<dyn Gateways>) -> Result<(), Error> {
        // The first stand: there is one way out.
        let _ = self.0.lanes.gateways.set(gateways);
        let mut range = self.0.graph.scan::<PushDue, _>(&());
        while let Some(((user, app_id, pushkey, _), _)) = range.first()? {
            let pusher = (user, app_id, pushkey);
            range = self.0.graph.scan::<PushDue, _>(&()).after(&pusher);
            self.wake(&pusher);
        }
        Ok(())
    }

    /// A pusher is due something.
    pub(crate) fn wake(&self, pusher: &PusherKey) {
        let lanes = &self.0.lanes;
        if lanes.gateways.get().is_none() || self.0.stop.is_cancelled() {
            return;
        }
        let mut open = lanes.open.lock();
        if let Some(lane) = open.lanes.get(pusher).cloned() {
            // While no lane can end, or it would end without having seen it.
            lane.more.store(true, Ordering::Release);
            drop(open);
            if lane.came.fetch_add(1, Ordering::Relaxed) >= limits::DUE
                && let Err(error) = self.shorten(pusher, &lane)
            {
                tracing::error!(%error, "what a push gateway is due was not cut short");
            }
            return;
        }
        let places = || Arc::new(Semaphore::new(limits::REQUESTS_OF_USER));
        let of_user = open.of_users.entry(pusher.0).or_insert_with(places).clone();
        let (more, came, again) = (AtomicBool::new(true), AtomicUsize::new(1), Notify::new());
        let lane = Arc::new(Lane { of_user, more, came, again });
        open.lanes.insert(pusher.clone(), lane.clone());
        metrics::gauge!("postern_push_lanes").set(open.lanes.len() as f64);
        self.0.tasks.spawn(work_off(self.clone(), pusher.clone(), lane));
    }

    /// A pusher was set again: where its gateway is may have changed, so it is tried at once.
    pub fn pusher_was_set(&self, user: UserNum, app_id: &str, pushkey: &str) {
        let pusher = (user, app_id.to_owned(), pushkey.to_owned());
        if let Some(lane) = self.0.lanes.open.lock().lanes.get(&pusher) {
            lane.again.notify_one();
        }
    }

    /// What a pusher is due first, and whether there is more.
    fn next_due(&self, pusher: &PusherKey) -> Result<Option<(DueKey, Due, bool)>, Error> {
        let mut waiting = self.0.graph.scan::<PushDue, _>(pusher).iter();
        let Some((key, due)) = waiting.next().transpose()? else { return Ok(None) };
        Ok(Some((key, due, waiting.next().transpose()?.is_some())))
    }

    /// Drops what a gateway is due beyond the newest, and what is too old to be of use.
    fn shorten(&self, pusher: &PusherKey, lane: &Lane) -> Result<(), Error> {
        let oldest =
            now_ms().saturating_sub(u64::try_from(self.0.settings.give_up.as_millis()).unwrap_or(u64::MAX));
        let mut commit = self.0.graph.begin();
        let mut kept = 0;
        for entry in self.0.graph.scan::<PushDue, _>(pusher).reverse().iter() {
            let (key, (_, _, queued, _)) = entry?;
            if kept == limits::DUE || queued < oldest {
                commit.delete::<PushDue>(&key);
                metrics::counter!("postern_push_total", "result" => "given_up").increment(1);
            } else {
                kept += 1;
            }
        }
        lane.came.store(kept / 2, Ordering::Relaxed);
        if !commit.is_empty() {
            self.0.graph.commit_beside_log(commit)?;
        }
        Ok(())
    }
}

/// Tells the gateway of a pusher what the pusher is due. The task of the lane.
async fn work_off(push: Push, pusher: PusherKey, lane: Arc<Lane>) {
    let settings = &push.0.settings;
    let mut backoff = Backoff::new(settings.retry_min, settings.retry_max);
    loop {
        lane.more.store(false, Ordering::Release);
        match tell(&push, &pusher, &lane, backoff.is_failing()).await {
            Ok(Told::Yes) => backoff.succeeded(),
            Ok(Told::Nothing) => {
                let mut open = push.0.lanes.open.lock();
                if !lane.more.load(Ordering::Acquire) {
                    open.close(&pusher);
                    return;
                }
            }
            Ok(Told::Later) => wait(&push, &mut backoff, &pusher, &lane).await,
            Ok(Told::Stopping) => return,
            Err(error) => {
                tracing::error!(%error, "a push gateway was not told of something");
                wait(&push, &mut backoff, &pusher, &lane).await;
            }
        }
        if push.0.stop.is_cancelled() {
            return;
        }
    }
}

async fn wait(push: &Push, backoff: &mut Backoff, pusher: &PusherKey, lane: &Lane) {
    if let Err(error) = push.shorten(pusher, lane) {
        tracing::error!(%error, "what a push gateway is due was not cut short");
    }
    let pause = backoff.failed(rand::random());
    tokio::select! {
        () = push.0.stop.cancelled() => {}
        () = lane.again.notified() => {}
        () = tokio::time::sleep(pause) => {}
    }
}

/// Tells a gateway the next thing.
async fn tell(push: &Push, pusher: &PusherKey, lane: &Lane, is_failing: bool) -> Result<Told, Error> {
    let inner = &push.0;
    let places = async {
        if is_failing {
            return Some((inner.lanes.failing_at_once.acquire().await.ok()?, None));
        }
        // The user's first: whoever waits for that takes no place of others.
        let of_user = lane.of_user.acquire().await.ok()?;
        Some((inner.lanes.at_once.acquire().await.ok()?, Some(of_user)))
    };
    let Some(Some(_places)) = inner.stop.run_until_cancelled(places).await else { return Ok(Told::Stopping) };
    let Some((key, due, is_followed)) = push.next_due(pusher)? else { return Ok(Told::Nothing) };
    let known = inner.users.pusher(pusher.0, &pusher.1, &pusher.2)?;
    let url = known.as_ref().and_then(|known| known.data.get("url")?.as_str()?.parse::<Url>().ok());
    let (Some(known), Some(url), Some(gateways)) = (known, url, inner.lanes.gateways.get()) else {
        // Removed while something was queued for it.
        return clear(push, pusher);
    };
    let (room, event, _, Raw(actions)) = &due;
    let body = if *event == EventNum::UNPLACED {
        // What comes next says how much is unread, too.
        if is_followed { None } else { Some(push.counts_for(pusher.0, &known)?) }
    } else {
        let user_id = inner.users.id(pusher.0)?;
        let event = inner.rooms.event(*event)?;
        let actions = std::str::from_utf8(actions).unwrap_or("[]");
        push.notification_for((pusher.0, &user_id), &known, (key.3, *room, &event), actions)?
    };
    if let Some(body) = body {
        let answer = gateways.post(&url, Bytes::from(body.to_string()), limits::ANSWER_BYTES);
        let Some(answer) = inner.abandon.run_until_cancelled(answer).await else { return Ok(Told::Stopping) };
        match judge(&known, answer) {
            Judged::Taken => count("taken"),
            Judged::Rejected => {
                count("rejected");
                tracing::info!(
                    app = known.app_id,
                    "a push gateway rejects a push key: its pusher is removed"
                );
                inner.users.remove_pusher(pusher.0, &pusher.1, &pusher.2).await?;
                return clear(push, pusher);
            }
            Judged::Refused(why) => {
                count("refused");
                tracing::warn!(gateway = url.host_str(), why, "a push gateway refuses a notification");
            }
            Judged::Failed(why) => {
                count("failed");
                tracing::debug!(gateway = url.host_str(), why, "a push gateway was not reached");
                return Ok(Told::Later);
            }
        }
    }
    let mut commit = inner.graph.begin();
    commit.delete::<PushDue>(&key);
    inner.graph.commit_beside_log(commit)?;
    Ok(Told::Yes)
}

fn count(result: &'static str) {
    metrics::counter!("postern_push_total", "result" => result).increment(1);
}

/// Drops all that is due by a pusher that is no more.
fn clear(push: &Push, pusher: &PusherKey) -> Result<Told, Error> {
    let mut commit = push.0.graph.begin();
    commit.delete_all::<PushDue, _>(pusher);
    push.0.graph.commit_beside_log(commit)?;
    Ok(Told::Yes)
}

/// What an answer of a gateway means.
#[derive(Debug, PartialEq, Eq)]
enum Judged {
    /// It has the notification.
    Taken,
    /// The push key is none any more.
    Rejected,
    /// It will never take this one.
    Refused(String),
    /// It may take it another time.
    Failed(String),
}

fn judge(pusher: &Pusher, answer: Reached) -> Judged {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        rejected: Vec<Value>,
    }
    let (status, body) = match answer {
        Ok(answer) => answer,
        Err(why) => return Judged::Failed(why),
    };
    match status.as_u16() {
        200..300 => {
            // One key was told of. Of others this gateway may say nothing.
            let rejected =
                serde_json::from_slice::<Answer>(&body).map(|answer| answer.rejected).unwrap_or_default();
            if rejected.iter().any(|key| *key == pusher.pushkey.as_str()) {
                Judged::Rejected
            } else {
                Judged::Taken
            }
        }
        400 | 413 | 422 => Judged::Refused(status.to_string()),
        _ => Judged::Failed(status.to_string()),
    }
}
