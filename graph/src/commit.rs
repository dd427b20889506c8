//! A commit: typed operations that land together, or not at all.

use crate::{
    chain::Unstored,
    codec::{Bytes, Encode, PrefixOf},
    ids::{POS_PLACEHOLDER, Root, Seq},
    intern::Claims,
    log::{LogEntry, LogRecord},
    schema::{Family, Log},
    tree::Node,
};
use std::{collections::HashMap, sync::Arc};

pub(crate) enum Op {
    Put(&'static str, Bytes, Bytes),
    Delete(&'static str, Bytes),
    DeleteRange(&'static str, Vec<u8>, Vec<u8>),
}

/// Operations being gathered. Made by [`crate::Graph::begin`], applied by [`crate::Graph::commit`]; dropped, it
/// leaves no trace. Its bytes alone reproduce what it does: no clock and no randomness is consulted when it is applied.
pub struct Commit {
    pub(crate) ops: Vec<Op>,
    pub(crate) slots: u16,
    pub(crate) record: LogRecord,
    pub(crate) claims: Claims,
    /// Nodes of state maps made by this commit, so that it can go on building on them.
    pub(crate) nodes: HashMap<Root, Arc<Node>>,
    /// Events this commit added to the chain cover, likewise.
    pub(crate) chains: Unstored,
}

impl std::fmt::Debug for Commit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Commit")
            .field("ops", &self.ops.len())
            .field("record", &self.record)
            .finish_non_exhaustive()
    }
}

impl Commit {
    pub(crate) fn new(claims: Claims) -> Self {
        Self {
            ops: Vec::new(),
            slots: 0,
            record: LogRecord::default(),
            claims,
            nodes: HashMap::new(),
            chains: Unstored::default(),
        }
    }

    /// Takes the next sequence number: a placeholder until the commit is applied, which may be put into keys and
    /// values, but not compared or calculated with.
    pub fn take_seq(&mut self) -> Seq {
        let seq = Seq::pending(self.slots);
        self.slots = self.slots.saturating_add(1);
        seq
    }

    /// Stores `value` under `key`.
    pub fn put<F: Family>(&mut self, key: &F::Key, value: &F::Value) {
        self.ops.push(Op::Put(F::NAME, Bytes::of(key), Bytes::of(value)));
    }

    /// Removes what is under `key`, if anything.
    pub fn delete<F: Family>(&mut self, key: &F::Key) {
        self.ops.push(Op::Delete(F::NAME, Bytes::of(key)));
    }

    /// Removes everything whose key begins with `prefix`, as of the moment the commit is applied.
    pub fn delete_all<F: Family, P: PrefixOf<F::Key>>(&mut self, prefix: &P) {
        let from = Bytes::of(prefix).data;
        let mut to = from.clone();
        to.extend([u8::MAX; 64]);
        self.ops.push(Op::DeleteRange(F::NAME, from, to));
    }

    /// Says what happened, for the followers of the log.
    pub fn log(&mut self, entry: LogEntry) {
        self.record.entries.push(entry);
    }

    /// Whether nothing has been asked of it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.record.entries.is_empty()
    }
}

/// Fills `first + slot` in wherever a placeholder was written.
pub(crate) fn stamp(mut bytes: Bytes, first: Seq) -> Vec<u8> {
    for (at, slot) in std::mem::take(&mut bytes.stamps) {
        let Some(place) = usize::try_from(at).ok().and_then(|at| bytes.data.get_mut(at..at + 8)) else {
            continue;
        };
        let seq = first.0 + u64::from(slot);
        // A position keeps its order-preserving sign bit, a sequence number has none.
        let value = if *place == POS_PLACEHOLDER.to_be_bytes() { seq | POS_PLACEHOLDER } else { seq };
        place.copy_from_slice(&value.to_be_bytes());
    }
    bytes.data
}

/// The log record of a commit as it is stored, its positions filled in.
pub(crate) fn stamped_record(record: &LogRecord, first: Seq) -> Vec<u8> {
    stamp(Bytes::of(record), first)
}

/// The name of the log's family, and the key of a record.
pub(crate) fn log_key(seq: Seq) -> (&'static str, Vec<u8>) {
    let mut key = Bytes::default();
    (seq,).encode(&mut key);
    (Log::NAME, key.data)
}
