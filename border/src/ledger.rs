//! The disclosure ledger: which server got which event in which form, by which ruling.
//!
//! Whoever asks for the form of an event for a server gets the one that stands in the ledger. So what servers are told never
//! contradicts itself, whatever becomes of policies meanwhile; and it can be told who has seen what.

use crate::{Error, limits};
use dashmap::{DashMap, Entry};
use parking_lot::{Mutex, RwLock};
use postern_graph::{
    Commit, EventNum, Graph, NameKind, ServerNum,
    codec::Json,
    schema::{Decisions, Disclosures, DisclosuresTo, Refusals},
};
use postern_rooms::{Form, now_ms};
use quick_cache::sync::Cache;
use ruma::{OwnedServerName, ServerName};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use utoipa::ToSchema;

/// An event as a server got it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Disclosure {
    /// Whether it got all of it.
    pub whole: bool,
    /// The ruling by which, in `schema::Decisions`.
    #[serde(serialize_with = "ruling_id", deserialize_with = "read_ruling_id")]
    #[schema(value_type = String)]
    pub ruling: u64,
    /// When, milliseconds since the epoch.
    pub at: u64,
}

/// The number of a ruling as text: JSON's numbers do not reach that far.
#[must_use]
pub fn ruling_text(id: u64) -> String {
    format!("{id:016x}")
}

fn ruling_id<S: Serializer>(id: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&ruling_text(*id))
}

fn read_ruling_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    u64::from_str_radix(&text, 16).map_err(serde::de::Error::custom)
}

/// When a ruling was asked for, to the hour.
fn asked_at(record: &Value) -> u64 {
    record["question"]["context"]["at"].as_u64().unwrap_or_default()
}

type Place = (EventNum, ServerNum);

/// The ledger.
#[derive(Debug)]
pub(crate) struct Ledger {
    graph: Arc<Graph>,
    servers: DashMap<OwnedServerName, ServerNum>,
    /// What is decided and not written down yet. What is removed from here stands in the store.
    pending: DashMap<Place, Disclosure>,
    rulings: Mutex<Vec<(u64, Value)>>,
    refusals: Mutex<Vec<Value>>,
    known: Cache<Place, bool>,
    /// What was asked for once only. Of what is not here that is not known.
    once: Cache<Place, ()>,
    /// Held by whoever asks for a form, alone by who takes some back.
    asking: RwLock<()>,
    next_refusal: AtomicU64,
    /// How many refusals are in the store, once they have been counted; held by who writes some.
    refusals_kept: tokio::sync::Mutex<Option<usize>>,
    /// Whoever writes down.
    writing: tokio::sync::Mutex<()>,
}

impl Ledger {
    pub(crate) fn new(graph: Arc<Graph>) -> Self {
        Self {
            graph,
            servers: DashMap::new(),
            pending: DashMap::new(),
            rulings: Mutex::default(),
            refusals: Mutex::default(),
            known: Cache::new(limits::FORMS_IN_MEMORY),
            once: Cache::new(limits::FORMS_ASKED_ONCE),
            asking: RwLock::default(),
            next_refusal: AtomicU64::new(0),
            refusals_kept: tokio::sync::Mutex::default(),
            writing: tokio::sync::Mutex::default(),
        }
    }

    /// Whether a server got all of an event.
    pub(crate) fn got_whole(&self, event: EventNum, server: &ServerName) -> Result<bool, Error> {
        let Some(server) = self.known_server(server)? else { return Ok(false) };
        if let Some(pending) = self.pending.get(&(event, server)) {
            return Ok(pending.whole);
        }
        Ok(self.graph.get::<Disclosures>(&(event, server))?.is_some_and(|(whole, _, _)| whole == 1))
    }

    /// The number of a server, if anything was ever kept of it.
    pub(crate) fn known_server(&self, name: &ServerName) -> Result<Option<ServerNum>, Error> {
        Ok(self.graph.number(NameKind::Server, name.as_str())?.map(ServerNum))
    }

    fn server(&self, name: &ServerName) -> Result<ServerNum, Error> {
        if let Some(number) = self.servers.get(name) {
            return Ok(*number);
        }
        let mut commit = self.graph.begin();
        let number = ServerNum(self.graph.intern(NameKind::Server, name.as_str(), &mut commit)?);
        if !commit.is_empty() {
            self.graph.commit_beside_log(commit)?;
        }
        self.servers.insert(name.to_owned(), number);
        Ok(number)
    }

    /// The form in which a server got an event, or gets it from now on: then `decide` says in which, and by which ruling.
    pub(crate) fn form(
        &self,
        event: EventNum,
        server: &ServerName,
        decide: impl FnOnce() -> Result<(Form, u64), Error>,
    ) -> Result<Form, Error> {
        let place = (event, self.server(server)?);
        let _asking = self.asking.read();
        let form = |whole: bool| {
            self.once.remove(&place);
            if whole { Form::Whole } else { Form::Redacted }
        };
        if let Some(whole) = self.known.get(&place) {
            return Ok(form(whole));
        }
        if let Some((whole, _, _)) = self.graph.get::<Disclosures>(&(place.0, place.1))? {
            self.known.insert(place, whole == 1);
            return Ok(form(whole == 1));
        }
        let vacant = match self.pending.entry(place) {
            Entry::Occupied(pending) => return Ok(form(pending.get().whole)),
            Entry::Vacant(vacant) => vacant,
        };
        // Between the look at the store and this turn it may have been written down.
        if let Some((whole, _, _)) = self.graph.get::<Disclosures>(&(place.0, place.1))? {
            return Ok(form(whole == 1));
        }
        let (decided, ruling) = decide()?;
        let whole = match decided {
            Form::Whole => true,
            Form::Redacted => false,
            // What is not sent at all is not in the ledger: it may be sent another day.
            Form::Nothing => return Ok(Form::Nothing),
        };
        self.once.insert(place, ());
        vacant.insert(Disclosure { whole, ruling, at: now_ms() });
        Ok(decided)
    }

    /// A server was to get these events, once their forms were written down, and nothing of that has left: the forms that were
    /// asked for only then are forgotten, and decided again for whoever asks next.
    pub(crate) async fn take_back(&self, server: &ServerName, events: &[EventNum]) -> Result<(), Error> {
        let Some(server) = self.known_server(server)? else { return Ok(()) };
        let _writing = self.writing.lock().await;
        let _asking = self.asking.write();
        let mut commit = self.graph.begin();
        for event in events {
            let place = (*event, server);
            if self.once.remove(&place).is_some() && !self.pending.contains_key(&place) {
                commit.delete::<Disclosures>(&place);
                commit.delete::<DisclosuresTo>(&(server, *event));
                self.known.remove(&place);
            }
        }
        if commit.is_empty() { Ok(()) } else { Ok(self.graph.commit_beside_log(commit)?) }
    }

    /// Notes a ruling, which is written down with the next forms.
    pub(crate) fn note_ruling(&self, id: u64, record: Value) {
        self.rulings.lock().push((id, record));
    }

    /// Notes that something was refused.
    pub(crate) fn note_refusal(&self, record: Value) {
        let mut refusals = self.refusals.lock();
        if refusals.len() < limits::PENDING_REFUSALS {
            refusals.push(record);
        } else {
            metrics::counter!("postern_border_refusals_not_kept").increment(1);
        }
    }

    fn is_settled(&self) -> bool {
        self.pending.is_empty() && self.rulings.lock().is_empty()
    }

    /// Writes down what is decided, and waits until it is on disk.
    pub(crate) async fn settle(&self) -> Result<(), Error> {
        if self.is_settled() {
            return Ok(());
        }
        // Whoever comes second may find that the first wrote for both, but then has waited for the disk, too.
        let _writing = self.writing.lock().await;
        let mut commit = self.graph.begin();
        // A form names a ruling that was noted before it.
        let forms: Vec<(Place, Disclosure)> =
            self.pending.iter().map(|entry| (*entry.key(), *entry.value())).collect();
        for (id, record) in std::mem::take(&mut *self.rulings.lock()) {
            commit.put::<Decisions>(&(id,), &Json(record));
        }
        for ((event, server), disclosure) in &forms {
            let value = (u8::from(disclosure.whole), disclosure.ruling, disclosure.at);
            commit.put::<Disclosures>(&(*event, *server), &value);
            commit.put::<DisclosuresTo>(&(*server, *event), &());
        }
        if !commit.is_empty() {
            self.graph.commit_beside_log_durably(commit).await?;
        }
        for (place, disclosure) in forms {
            self.known.insert(place, disclosure.whole);
            self.pending.remove(&place);
        }
        Ok(())
    }

    /// Writes down refusals, and forgets the oldest beyond the bound.
    pub(crate) async fn keep_refusals(&self) -> Result<(), Error> {
        let mut counted = self.refusals_kept.lock().await;
        let records = std::mem::take(&mut *self.refusals.lock());
        if records.is_empty() {
            return Ok(());
        }
        let refusals = || self.graph.scan::<Refusals, _>(&()).iter();
        let mut kept = counted.unwrap_or_else(|| refusals().count()) + records.len();
        let mut commit = self.graph.begin();
        for record in records {
            let number = self.next_refusal.fetch_add(1, Ordering::Relaxed);
            commit.put::<Refusals>(&(now_ms(), number), &Json(record));
        }
        for entry in refusals().take(kept.saturating_sub(limits::REFUSALS)) {
            commit.delete::<Refusals>(&entry?.0);
            kept -= 1;
        }
        *counted = Some(kept);
        Ok(self.graph.commit_beside_log_durably(commit).await?)
    }

    /// Who got an event, and in which form.
    pub(crate) fn of_event(&self, event: EventNum) -> Result<Vec<(OwnedServerName, Disclosure)>, Error> {
        let mut found = Vec::new();
        for entry in self.graph.scan::<Disclosures, _>(&(event,)).iter() {
            let ((_, server), (whole, ruling, at)) = entry?;
            let name = self.graph.name(NameKind::Server, server.0)?;
            let Ok(name) = OwnedServerName::try_from(&*name) else { continue };
            found.push((name, Disclosure { whole: whole == 1, ruling, at }));
        }
        Ok(found)
    }

    /// The events after `after` that a server got, at most so many, in the order in which they came to be known here.
    pub(crate) fn of_server(
        &self,
        server: ServerNum,
        after: EventNum,
        most: usize,
    ) -> Result<Vec<(EventNum, Disclosure)>, Error> {
        let mut found = Vec::new();
        let events = self.graph.scan::<DisclosuresTo, _>(&(server,)).after(&(server, after));
        for entry in events.iter().take(most) {
            let ((_, event), ()) = entry?;
            if let Some((whole, ruling, at)) = self.graph.get::<Disclosures>(&(event, server))? {
                found.push((event, Disclosure { whole: whole == 1, ruling, at }));
            }
        }
        Ok(found)
    }

    /// Forgets refusals from before a time; how many.
    pub(crate) async fn forget_refusals(&self, before: u64) -> Result<usize, Error> {
        let mut forgotten = 0;
        loop {
            let mut counted = self.refusals_kept.lock().await;
            let mut commit = self.graph.begin();
            let old = self.graph.scan::<Refusals, _>(&()).below(&(before, 0));
            let mut some = 0;
            for entry in old.iter().take(limits::RULINGS_SWEPT) {
                commit.delete::<Refusals>(&entry?.0);
                some += 1;
            }
            if !commit.is_empty() {
                self.graph.commit_beside_log(commit)?;
            }
            *counted = counted.map(|kept| kept.saturating_sub(some));
            forgotten += some;
            if some < limits::RULINGS_SWEPT {
                return Ok(forgotten);
            }
            tokio::task::yield_now().await;
        }
    }

    /// Forgets rulings from before a time, and of the others the oldest ones beyond a number; how many. What was disclosed is
    /// not forgotten.
    pub(crate) async fn forget_rulings(&self, before: u64, most: usize) -> Result<usize, Error> {
        let mut counted: BTreeMap<u64, usize> = BTreeMap::new();
        self.each_ruling(|_, at, _| *counted.entry(at).or_default() += 1).await?;
        let (mut until, mut kept) = (before, 0);
        for (at, count) in counted.into_iter().rev() {
            kept += count;
            if kept > most {
                until = until.max(at.saturating_add(1));
                break;
            }
        }
        let mut forgotten = 0;
        let forget = |id, at, commit: &mut Commit| {
            if at < until {
                commit.delete::<Decisions>(&(id,));
                forgotten += 1;
            }
        };
        self.each_ruling(forget).await?;
        Ok(forgotten)
    }

    /// Does something with each ruling, by its number and when it was asked for, while others get their turns.
    async fn each_ruling(&self, mut each: impl FnMut(u64, u64, &mut Commit)) -> Result<(), Error> {
        let mut after = None;
        loop {
            let mut range = self.graph.scan::<Decisions, _>(&());
            if let Some(after) = after {
                range = range.after(&(after,));
            }
            let mut commit = self.graph.begin();
            let mut looked_at = 0;
            for entry in range.iter().take(limits::RULINGS_SWEPT) {
                let ((id,), Json(record)) = entry?;
                each(id, asked_at(&record), &mut commit);
                (after, looked_at) = (Some(id), looked_at + 1);
            }
            if !commit.is_empty() {
                self.graph.commit_beside_log(commit)?;
            }
            if looked_at < limits::RULINGS_SWEPT {
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postern_graph::Settings;
    use serde_json::json;

    #[tokio::test]
    async fn rulings_that_are_too_old_or_too_many_are_forgotten_and_disclosures_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = ledger(&directory);
        let count = u64::try_from(limits::RULINGS_SWEPT).unwrap() * 2 + 10;
        for id in 0..count {
            ledger.note_ruling(id, json!({ "question": { "context": { "at": id } } }));
        }
        let server = <&ServerName>::try_from("b.example").unwrap();
        for event in [7, 3, 9] {
            ledger.form(EventNum(event), server, || Ok((Form::Whole, 5))).unwrap();
        }
        ledger.settle().await.unwrap();
        let kept = || ledger.graph.scan::<Decisions, _>(&()).iter().count();
        assert_eq!(ledger.forget_rulings(10, usize::MAX).await.unwrap(), 10);
        assert_eq!(ledger.forget_rulings(10, 1_500).await.unwrap(), 500);
        assert_eq!(ledger.forget_rulings(count - 1, usize::MAX).await.unwrap(), 1_499);
        assert_eq!(kept(), 1);
        let number = ledger.known_server(server).unwrap().unwrap();
        let of = |after, most| -> Vec<u64> {
            let page = ledger.of_server(number, EventNum(after), most).unwrap();
            page.into_iter().map(|(event, _)| event.0).collect()
        };
        assert_eq!((of(0, 2), of(7, 2)), (vec![3, 7], vec![9]));
        assert!(ledger.got_whole(EventNum(9), server).unwrap());
    }

    fn ledger(directory: &tempfile::TempDir) -> Ledger {
        let settings = Settings { path: directory.path().join("db"), block_cache: 8 << 20 };
        Ledger::new(Graph::open(&settings).unwrap())
    }

    #[tokio::test]
    async fn a_form_that_did_not_leave_is_decided_again_unless_somebody_else_was_told_it() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = ledger(&directory);
        let server = <&ServerName>::try_from("b.example").unwrap();
        let form = |event, decided| ledger.form(EventNum(event), server, || Ok((decided, 5))).unwrap();
        let (sent, unsent, asked) = (1, 2, 3);
        for event in [sent, unsent, asked] {
            assert_eq!(form(event, Form::Whole), Form::Whole);
        }
        ledger.settle().await.unwrap();
        assert_eq!(form(asked, Form::Redacted), Form::Whole);
        ledger.take_back(server, &[EventNum(unsent), EventNum(asked)]).await.unwrap();
        assert!(!ledger.got_whole(EventNum(unsent), server).unwrap());
        assert!(ledger.of_event(EventNum(unsent)).unwrap().is_empty());
        for (event, now) in
            [(sent, Form::Whole), (unsent, Form::Redacted), (unsent, Form::Redacted), (asked, Form::Whole)]
        {
            assert_eq!(form(event, Form::Redacted), now);
        }
        // It was asked for twice by now.
        ledger.settle().await.unwrap();
        ledger.take_back(server, &[EventNum(unsent)]).await.unwrap();
        assert_eq!(form(unsent, Form::Whole), Form::Redacted);
        let number = ledger.known_server(server).unwrap().unwrap();
        assert_eq!(ledger.of_server(number, EventNum(0), 10).unwrap().len(), 3);
    }

    #[tokio::test]
    async fn refusals_that_are_too_old_are_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = ledger(&directory);
        let count = limits::RULINGS_SWEPT + 10;
        for n in 0..count {
            ledger.note_refusal(json!(n));
        }
        ledger.keep_refusals().await.unwrap();
        assert_eq!(ledger.forget_refusals(1).await.unwrap(), 0);
        assert_eq!(ledger.forget_refusals(u64::MAX).await.unwrap(), count);
        assert_eq!(*ledger.refusals_kept.lock().await, Some(0));
    }
}
