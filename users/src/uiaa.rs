//! User-interactive authentication: sessions of requests that need more than a token.

use crate::{limits, secrets::random_name, users::now_ms};
use parking_lot::Mutex;
use std::collections::HashMap;

#[derive(Debug, Clone)]
struct Open {
    endpoint: String,
    completed: Vec<String>,
    since: u64,
}

/// Open authentications, in memory: a restart makes the client start over, as expiry does.
#[derive(Debug, Default)]
pub struct Uiaa {
    open: Mutex<HashMap<String, Open>>,
}

impl Uiaa {
    /// Begins one for a request to `endpoint` and returns its id.
    pub fn begin(&self, endpoint: &str) -> String {
        let mut open = self.open.lock();
        if open.len() >= limits::UIA_SESSIONS {
            let now = now_ms();
            open.retain(|_, session| now.saturating_sub(session.since) < limits::UIA_MS);
            if open.len() >= limits::UIA_SESSIONS {
                // Under attack the oldest give way: a client in earnest starts over.
                if let Some(oldest) =
                    open.iter().min_by_key(|(_, session)| session.since).map(|(id, _)| id.clone())
                {
                    open.remove(&oldest);
                }
            }
        }
        let id = random_name(24);
        open.insert(
            id.clone(),
            Open { endpoint: endpoint.to_owned(), completed: Vec::new(), since: now_ms() },
        );
        id
    }

    /// The stages completed; nothing if there is no such session for this endpoint, or it is too old.
    #[must_use]
    pub fn completed(&self, id: &str, endpoint: &str) -> Option<Vec<String>> {
        let open = self.open.lock();
        let session = open.get(id)?;
        (session.endpoint == endpoint && now_ms().saturating_sub(session.since) < limits::UIA_MS)
            .then(|| session.completed.clone())
    }

    /// Notes that a stage is completed and returns all that are.
    pub fn complete(&self, id: &str, stage: &str) -> Vec<String> {
        let mut open = self.open.lock();
        let Some(session) = open.get_mut(id) else { return vec![stage.to_owned()] };
        if !session.completed.iter().any(|done| done == stage) {
            session.completed.push(stage.to_owned());
        }
        session.completed.clone()
    }

    /// Ends one.
    pub fn end(&self, id: &str) {
        self.open.lock().remove(id);
    }
}
