//! `/sync`, and waiting for something to show in it.

use crate::{Client, enc};
use serde_json::Value;

/// How often it is looked again for what has to come; each look waits for something to happen, at most [`WAIT_MS`].
const LOOKS: usize = 40;
const WAIT_MS: u64 = 1_000;

impl Client {
    /// What `/sync` says now, without waiting: all, or what is new since `since`.
    #[track_caller]
    #[must_use]
    pub fn sync(&self, since: Option<&str>) -> Value {
        let query = since.map(|since| format!("?since={}", enc(since))).unwrap_or_default();
        self.get(&format!("v3/sync{query}")).ok()
    }

    /// What `/sync` says with this query, such as `timeout=0&full_state=true`.
    #[track_caller]
    #[must_use]
    pub fn sync_with(&self, query: &str) -> Value {
        self.get(&format!("v3/sync?{query}")).ok()
    }

    /// What `/sync` says with this filter, given in the request.
    #[track_caller]
    #[must_use]
    pub fn sync_filtered(&self, since: Option<&str>, filter: &Value) -> Value {
        let since = since.map(|since| format!("&since={}", enc(since))).unwrap_or_default();
        self.get(&format!("v3/sync?filter={}{since}", enc(&filter.to_string()))).ok()
    }

    /// The token of now.
    #[track_caller]
    #[must_use]
    pub fn now(&self) -> String {
        next_batch(&self.sync(None))
    }

    /// Syncs on from `since` until an answer shows what is waited for; that answer.
    ///
    /// # Panics
    /// It does not show.
    #[track_caller]
    pub fn sync_until(&self, since: &str, mut shows: impl FnMut(&Value) -> bool) -> Value {
        let mut since = since.to_owned();
        let mut last = Value::Null;
        for _ in 0..LOOKS {
            last = self.sync_with(&format!("timeout={WAIT_MS}&since={}", enc(&since)));
            if shows(&last) {
                return last;
            }
            since = next_batch(&last);
        }
        panic!("{} does not see it; the last answer: {last}", self.id());
    }

    /// Syncs on from `since` until an event with this id is in a room's timeline; that answer.
    #[track_caller]
    pub fn sync_until_event(&self, since: &str, room: &str, event: &str) -> Value {
        self.sync_until(since, |answer| timeline(answer, room).iter().any(|each| each["event_id"] == event))
    }
}

#[track_caller]
fn next_batch(answer: &Value) -> String {
    answer["next_batch"].as_str().unwrap_or_else(|| panic!("no next_batch in {answer}")).to_owned()
}

/// The timeline of a joined room in an answer to `/sync`.
#[must_use]
pub fn timeline(answer: &Value, room: &str) -> Vec<Value> {
    events_of(&answer["rooms"]["join"][room]["timeline"])
}

/// The events below `events`, of any part of an answer to `/sync`.
#[must_use]
pub fn events_of(part: &Value) -> Vec<Value> {
    part["events"].as_array().cloned().unwrap_or_default()
}
