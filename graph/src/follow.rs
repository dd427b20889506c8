//! Followers of the log: those who act on what happened, at least once, in order, from where they left off.

use crate::{
    codec::Decode,
    error::Error,
    ids::Seq,
    limits,
    log::LogRecord,
    schema::{Cursors, Log},
    store::Graph,
};
use parking_lot::RwLock;
use std::{collections::VecDeque, sync::Arc};
use tokio::sync::watch;

/// The newest part of the log, in memory.
pub(crate) struct LiveLog {
    records: RwLock<VecDeque<(Seq, Arc<LogRecord>)>>,
    durable: watch::Sender<Seq>,
}

impl LiveLog {
    pub(crate) fn new() -> Self {
        Self { records: RwLock::default(), durable: watch::channel(Seq::ZERO).0 }
    }

    pub(crate) fn push(&self, seq: Seq, record: &[u8]) {
        let Ok(record) = LogRecord::whole(record) else { return };
        let mut records = self.records.write();
        if records.len() == limits::LIVE_LOG_RECORDS {
            records.pop_front();
        }
        records.push_back((seq, Arc::new(record)));
    }

    pub(crate) fn durable(&self, seq: Seq) {
        self.durable.send_replace(seq);
    }

    /// Records in `(after, up_to]`, or nothing if memory does not reach back to `after`.
    fn between(&self, after: Seq, up_to: Seq) -> Option<Vec<(Seq, Arc<LogRecord>)>> {
        let records = self.records.read();
        let (oldest, _) = records.front()?;
        // A record's predecessors may have been dropped from memory: it reaches back to `after` only if it holds a
        // record at or before it.
        if *oldest > after {
            return None;
        }
        let start = records.partition_point(|(seq, _)| *seq <= after);
        Some(
            records
                .range(start..)
                .take_while(|(seq, _)| *seq <= up_to)
                .take(limits::FOLLOW_BATCH)
                .cloned()
                .collect(),
        )
    }
}

/// Reads the log from a position on. Only what is durable is handed out.
#[derive(Debug)]
pub struct Follower {
    graph: Arc<Graph>,
    name: Option<String>,
    at: Seq,
    durable: watch::Receiver<Seq>,
}

impl Graph {
    /// A follower that goes on from its stored cursor; a new one starts with what happens from now on.
    pub fn follow(self: &Arc<Self>, name: &str) -> Result<Follower, Error> {
        let at = match self.get::<Cursors>(&(name.to_owned(),))? {
            Some(seq) => seq,
            None => {
                let at = self.durable();
                let mut commit = self.begin();
                commit.put::<Cursors>(&(name.to_owned(),), &at);
                self.commit(commit)?;
                at
            }
        };
        Ok(Follower {
            graph: self.clone(),
            name: Some(name.to_owned()),
            at,
            durable: self.live.durable.subscribe(),
        })
    }

    /// A follower without a stored cursor, from `after` on: for what need not survive a restart.
    #[must_use]
    pub fn follow_from(self: &Arc<Self>, after: Seq) -> Follower {
        Follower { graph: self.clone(), name: None, at: after, durable: self.live.durable.subscribe() }
    }

    /// Log records in `(after, up_to]`, oldest first, at most [`limits::FOLLOW_BATCH`] of them.
    pub fn log_between(&self, after: Seq, up_to: Seq) -> Result<Vec<(Seq, Arc<LogRecord>)>, Error> {
        if let Some(records) = self.live.between(after, up_to) {
            return Ok(records);
        }
        self.scan::<Log, _>(&())
            .after(&(after,))
            .up_to(&(up_to,))
            .iter()
            .take(limits::FOLLOW_BATCH)
            .map(|entry| entry.map(|((seq,), record)| (seq, Arc::new(record))))
            .collect()
    }
}

impl Follower {
    /// Waits until something has happened after the cursor, and returns it, oldest first. The cursor does not move:
    /// call [`Follower::done`] when it is worked off.
    pub async fn next(&mut self) -> Result<Vec<(Seq, Arc<LogRecord>)>, Error> {
        loop {
            self.durable.borrow_and_update();
            let durable = self.graph.durable();
            if durable > self.at {
                let records = self.graph.log_between(self.at, durable)?;
                if !records.is_empty() {
                    return Ok(records);
                }
            }
            if self.durable.changed().await.is_err() {
                return Err(Error::Halted("the database is closed".to_owned()));
            }
        }
    }

    /// Everything up to `seq` is worked off: move the cursor there (durably, for a named follower).
    pub fn done(&mut self, seq: Seq) -> Result<(), Error> {
        self.at = seq;
        if let Some(name) = &self.name {
            self.graph.put_quietly::<Cursors>(&(name.clone(),), &seq)?;
        }
        Ok(())
    }

    /// Where it stands.
    #[must_use]
    pub const fn cursor(&self) -> Seq {
        self.at
    }
}
