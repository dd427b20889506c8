//! The task of one server: sends what the server is due until nothing is left.

use super::{
    Outbox, Untaken,
    due::{Transaction, Waits},
    pace::Backoff,
};
use crate::{Error, PeerError};
use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, ServerName, UserId};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// How long it is worth telling that somebody types.
const TYPING_WORTH: Duration = Duration::from_secs(20);
/// People typing that a server is told of at a time.
const TYPING: usize = 100;
/// How often it is looked whether the hours have come at which a server is spoken with.
const LOOK_FOR_HOURS: Duration = Duration::from_secs(15);
/// A transaction that a server refuses as such this often is dropped, so that what follows is not lost with it.
const REFUSALS: u32 = 10;

/// A server that is due something.
#[derive(Debug)]
pub(super) struct Queue {
    server: OwnedServerName,
    /// Whether something may have come since it was last looked.
    more: AtomicBool,
    /// The server was heard of.
    pub(super) heard: Notify,
    /// Whether it could not be reached the last time.
    failing: AtomicBool,
    typing: Mutex<HashMap<(OwnedRoomId, OwnedUserId), (bool, Instant)>>,
}

impl Queue {
    pub(super) fn new(server: &ServerName) -> Self {
        Self {
            server: server.to_owned(),
            more: AtomicBool::new(true),
            heard: Notify::new(),
            failing: AtomicBool::new(false),
            typing: Mutex::default(),
        }
    }

    pub(super) fn look_again(&self) {
        self.more.store(true, Ordering::Release);
    }

    /// Whether the server could not be reached the last time.
    #[cfg(test)]
    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Somebody types: what is said later replaces what was said before.
    pub(super) fn types(&self, room: &RoomId, user: &UserId, typing: bool) {
        if self.failing.load(Ordering::Relaxed) {
            return;
        }
        let mut all = self.typing.lock();
        let key = (room.to_owned(), user.to_owned());
        if all.len() < TYPING || all.contains_key(&key) {
            all.insert(key, (typing, Instant::now()));
        }
    }

    /// Who types, as EDUs.
    fn typing(&self) -> Vec<Value> {
        std::mem::take(&mut *self.typing.lock())
            .into_iter()
            .filter(|(_, (_, at))| at.elapsed() < TYPING_WORTH)
            .map(|((room, user), (typing, _))| {
                let content = json!({ "room_id": room, "user_id": user, "typing": typing });
                json!({ "edu_type": "m.typing", "content": content })
            })
            .collect()
    }
}

/// How sending went.
enum Sent {
    /// The server has it.
    Yes,
    /// Nothing is left to send.
    Nothing,
    /// The server has to be tried again.
    Later,
    /// The server is spoken with at other hours.
    AtOtherHours,
    /// This server stops.
    Stopping,
}

/// Sends what the server of `queue` is due. The task of the queue.
pub(super) async fn work_off(outbox: Outbox, queue: std::sync::Arc<Queue>) {
    let mut sending =
        Sending { outbox: &outbox, queue: &queue, backoff: Backoff::new(outbox.0.pace), refusals: 0 };
    loop {
        queue.more.store(false, Ordering::Release);
        match sending.send().await {
            Ok(Sent::Yes) => {
                sending.backoff.succeeded();
                queue.failing.store(false, Ordering::Relaxed);
            }
            Ok(Sent::Nothing) => {
                let mut queues = outbox.0.queues.lock();
                if !queue.more.load(Ordering::Acquire) {
                    queues.remove(&queue.server);
                    metrics::gauge!("postern_outbox_queues").set(queues.len() as f64);
                    return;
                }
            }
            Ok(Sent::Later) => sending.wait().await,
            Ok(Sent::AtOtherHours) => {
                queue.failing.store(true, Ordering::Relaxed);
                tokio::select! {
                    () = outbox.0.stop.cancelled() => {}
                    () = tokio::time::sleep(LOOK_FOR_HOURS) => {}
                    () = queue.heard.notified() => {}
                }
            }
            Ok(Sent::Stopping) => return,
            Err(error) => {
                tracing::error!(server = %queue.server, %error, "a transaction was not sent");
                sending.wait().await;
            }
        }
        if outbox.0.stop.is_cancelled() {
            return;
        }
    }
}

struct Sending<'q> {
    outbox: &'q Outbox,
    queue: &'q Queue,
    backoff: Backoff,
    /// How often the present transaction was refused.
    refusals: u32,
}

impl Sending<'_> {
    /// Sends the next transaction.
    async fn send(&mut self) -> Result<Sent, Error> {
        let (inner, server) = (&self.outbox.0, &self.queue.server);
        match inner.carrier.may_carry(server) {
            Ok(()) => {}
            Err(PeerError::NotNow(_)) => {
                inner.due.shorten(server, Waits::ForHours)?;
                return Ok(Sent::AtOtherHours);
            }
            Err(PeerError::NotAllowed(_)) => {
                tracing::debug!(%server, "what is due to a server is dropped: this server does not federate with it");
                inner.due.forget(server)?;
                return Ok(Sent::Nothing);
            }
            Err(error) => {
                tracing::debug!(%server, %error, "a server is not asked now");
                inner.due.shorten(server, Waits::ForReach)?;
                return Ok(Sent::Later);
            }
        }
        // Before the transaction is made: those that wait are not in memory.
        let places = if self.backoff.is_failing() { &inner.failing_at_once } else { &inner.at_once };
        let Some(Ok(_place)) = inner.stop.run_until_cancelled(places.acquire()).await else {
            return Ok(Sent::Stopping);
        };
        let Some(transaction) = inner.due.next(server, self.queue.typing()).await? else {
            return Ok(Sent::Nothing);
        };
        let carried = inner.carrier.carry(server, &transaction.id, &transaction.body);
        let Some(answer) = inner.abandon.run_until_cancelled(carried).await else {
            return Ok(Sent::Stopping);
        };
        self.answered(transaction, answer).await
    }

    async fn answered(
        &mut self,
        transaction: Transaction,
        answer: Result<Untaken, PeerError>,
    ) -> Result<Sent, Error> {
        let (due, server) = (&self.outbox.0.due, &self.queue.server);
        let result = match &answer {
            Ok(_) => "taken",
            Err(PeerError::Refused { .. }) => "refused",
            Err(PeerError::NotAllowed(_)) => "not_allowed",
            Err(PeerError::BadAnswer(_)) => "bad_answer",
            Err(PeerError::Unsendable(_)) => "unsendable",
            Err(PeerError::NotNow(_)) => "not_now",
            Err(PeerError::Unconnected(_) | PeerError::Unreachable(_) | PeerError::BackingOff) => {
                "unreachable"
            }
        };
        metrics::counter!("postern_outbox_transactions_total", "result" => result).increment(1);
        let over = || if transaction.is_stored { due.answered(server) } else { Ok(()) };
        let error = match answer {
            Ok(untaken) => {
                for (event, error) in untaken {
                    tracing::info!(%server, event, error, "a server did not take an event");
                }
                self.refusals = 0;
                over()?;
                return Ok(Sent::Yes);
            }
            Err(error) => error,
        };
        if left_nothing(&error)
            && let Some(taken) = transaction.taken
        {
            due.unmake(server, taken).await?;
            // Why is asked again, and what follows from it.
            if matches!(error, PeerError::NotAllowed(_) | PeerError::NotNow(_)) {
                return Ok(Sent::Yes);
            }
        }
        if refuses_transaction(&error) {
            self.refusals += 1;
            if self.refusals >= REFUSALS {
                tracing::error!(%server, transaction = transaction.id, %error, "a transaction is given up");
                self.refusals = 0;
                over()?;
                return Ok(Sent::Yes);
            }
        }
        tracing::debug!(%server, %error, "a server was not reached");
        due.shorten(server, Waits::ForReach)?;
        Ok(Sent::Later)
    }

    /// Waits until it is time to try again.
    async fn wait(&mut self) {
        let (stop, queue) = (&self.outbox.0.stop, self.queue);
        self.backoff.failed(rand::random());
        queue.failing.store(true, Ordering::Relaxed);
        let heard = async {
            queue.heard.notified().await;
            tokio::time::sleep_until(self.backoff.due_if_heard().into()).await;
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep_until(self.backoff.due().into()) => {}
            () = heard => {}
        }
    }
}

/// Whether nothing of a transaction has left.
const fn left_nothing(error: &PeerError) -> bool {
    matches!(
        error,
        PeerError::Unconnected(_) | PeerError::BackingOff | PeerError::NotAllowed(_) | PeerError::NotNow(_)
    )
}

/// Whether an answer says that the transaction is wrong, not that the server cannot take one now.
fn refuses_transaction(error: &PeerError) -> bool {
    match error {
        PeerError::Refused { status, .. } => matches!(status.as_u16(), 400 | 413 | 422),
        PeerError::Unsendable(_) => true,
        _ => false,
    }
}
