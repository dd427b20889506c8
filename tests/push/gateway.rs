//! A push gateway in this process.

use crate::listen::{Asked, Reply, listen};
use postern_world::Seat;
use serde_json::{Value, json};
use std::{
    sync::{Arc, Mutex},
    thread::sleep,
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;

/// How long something may take that has to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// A push gateway; it ends when this is dropped.
pub struct Gateway {
    seat: Seat,
    heard: Arc<Mutex<Vec<Value>>>,
    task: JoinHandle<()>,
}

impl Gateway {
    /// One that takes everything.
    pub fn start() -> Self {
        Self::answering(|_| Reply::json(&json!({ "rejected": [] })))
    }

    /// One that answers notifications like this.
    pub fn answering(answer: impl Fn(&Value) -> Reply + Send + Sync + 'static) -> Self {
        Self::at(&Seat::take(), answer)
    }

    /// The same at this seat.
    pub fn at(seat: &Seat, answer: impl Fn(&Value) -> Reply + Send + Sync + 'static) -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let told = heard.clone();
        let task = listen(
            seat,
            Arc::new(move |asked: &Asked| {
                assert_eq!(asked.segments.join("/"), "_matrix/push/v1/notify");
                let notification = asked.json()["notification"].clone();
                let reply = answer(&notification);
                told.lock().unwrap().push(notification);
                reply
            }),
        );
        Self { seat: seat.clone(), heard, task }
    }

    /// Where it is, for pushers.
    pub fn url(&self) -> String {
        url_of(&self.seat)
    }

    /// All it heard so far.
    pub fn heard(&self) -> Vec<Value> {
        self.heard.lock().unwrap().clone()
    }

    /// The events it heard of so far. How much is unread it may have heard besides, by itself.
    pub fn events(&self) -> Vec<Value> {
        self.heard().iter().filter_map(|heard| heard.get("event_id").cloned()).collect()
    }

    /// Waits until it has heard something like this.
    pub fn until(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        until("the gateway hears of it", || self.heard().into_iter().find(|heard| wanted(heard)))
    }

    /// Waits until it has heard of an event.
    pub fn until_event(&self, event: &str) -> Value {
        self.until(|heard| heard["event_id"] == event)
    }

    /// Waits until it has heard, by itself, that so much is unread.
    pub fn until_unread(&self, unread: u64) -> Value {
        self.until(|heard| heard.get("event_id").is_none() && heard["counts"]["unread"] == unread)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Where a gateway at this seat is.
pub fn url_of(seat: &Seat) -> String {
    format!("https://{}/_matrix/push/v1/notify", seat.address)
}

/// Waits until there is something.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < PATIENCE, "it does not happen that {what}");
        sleep(Duration::from_millis(20));
    }
}
