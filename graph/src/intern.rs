//! Numbers for names.
//!
//! A name gets its number when it is first met, and the number is stored by the commit that first needs it. Between
//! the two it is only *claimed*: every commit that uses it meanwhile stores the mapping too (the same bytes, so twice
//! is once), and the claim ends when the last of these commits is applied or dropped.

use crate::{
    codec::Bytes,
    commit::{Commit, Op},
    error::Error,
    limits,
    schema::{Family, Names, Numbers},
    store::Graph,
};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// The kinds of name that have numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Event ids.
    Event = 0,
    /// Room ids.
    Room = 1,
    /// User ids.
    User = 2,
    /// (type, state key) pairs, as [`state_key_name`] writes them.
    StateKey = 3,
    /// Event types.
    Type = 4,
    /// Server names.
    Server = 5,
    /// Chains of the chain-cover index: numbers without names.
    Chain = 6,
}

/// The name of a (type, state key) pair: the length of the type comes first, so that no two pairs share a name.
#[must_use]
pub fn state_key_name(event_type: &str, state_key: &str) -> String {
    format!("{}:{event_type}{state_key}", event_type.len())
}

/// The type and the state key in such a name.
#[must_use]
pub fn split_state_key_name(name: &str) -> Option<(&str, &str)> {
    let (length, rest) = name.split_once(':')?;
    rest.split_at_checked(length.parse().ok()?)
}

const KINDS: usize = 7;

type Name = (Kind, Arc<str>);

/// The numbers given out, and those only claimed.
pub(crate) struct Interner {
    next: [AtomicU64; KINDS],
    numbers: Cache<Name, u64>,
    names: Cache<(Kind, u64), Arc<str>>,
    claimed: Mutex<HashMap<Name, (u64, usize)>>,
}

impl std::fmt::Debug for Interner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interner").field("next", &self.next).finish_non_exhaustive()
    }
}

impl Interner {
    pub(crate) fn new() -> Self {
        Self {
            next: Default::default(),
            numbers: Cache::new(limits::INTERNED_IN_MEMORY),
            names: Cache::new(limits::INTERNED_IN_MEMORY),
            claimed: Mutex::default(),
        }
    }

    pub(crate) fn set_next(&self, kind: u8, next: u64) {
        if let Some(counter) = self.next.get(usize::from(kind)) {
            counter.store(next, Ordering::Relaxed);
        }
    }
}

/// The names a commit uses that were not stored when it was built. Given back when it goes.
pub(crate) struct Claims {
    interner: Arc<Interner>,
    held: HashSet<Name>,
}

impl Claims {
    pub(crate) fn new(interner: Arc<Interner>) -> Self {
        Self { interner, held: HashSet::new() }
    }

    /// The commit is applied: its names are stored.
    pub(crate) fn applied(&self) {
        for name in &self.held {
            let number = self.interner.claimed.lock().get(name).map(|(number, _)| *number);
            if let Some(number) = number {
                self.interner.numbers.insert(name.clone(), number);
                self.interner.names.insert((name.0, number), name.1.clone());
            }
        }
    }
}

impl Drop for Claims {
    fn drop(&mut self) {
        let mut claimed = self.interner.claimed.lock();
        for name in &self.held {
            if let Some(entry) = claimed.get_mut(name) {
                entry.1 = entry.1.saturating_sub(1);
                if entry.1 == 0 {
                    claimed.remove(name);
                }
            }
        }
    }
}

impl Graph {
    /// The number of `name`, if it has one that is stored.
    pub fn number(&self, kind: Kind, name: &str) -> Result<Option<u64>, Error> {
        let key: Name = (kind, Arc::from(name));
        if let Some(number) = self.interner.numbers.get(&key) {
            return Ok(Some(number));
        }
        let number = self.get::<Numbers>(&(kind as u8, name.to_owned()))?;
        if let Some(number) = number {
            self.interner.names.insert((kind, number), key.1.clone());
            self.interner.numbers.insert(key, number);
        }
        Ok(number)
    }

    /// The number of `name`; a new one if it has none, which `commit` then stores.
    pub fn intern(&self, kind: Kind, name: &str, commit: &mut Commit) -> Result<u64, Error> {
        if let Some(number) = self.number(kind, name)? {
            return Ok(number);
        }
        let key: Name = (kind, Arc::from(name));
        if commit.claims.held.contains(&key)
            && let Some((number, _)) = self.interner.claimed.lock().get(&key)
        {
            return Ok(*number);
        }
        let number = {
            let mut claimed = self.interner.claimed.lock();
            if let Some((number, uses)) = claimed.get_mut(&key) {
                *uses += 1;
                *number
            } else if let Some(number) = self.get::<Numbers>(&(kind as u8, name.to_owned()))? {
                // Stored between the look above and the lock.
                return Ok(number);
            } else {
                let number = self.interner.next[kind as usize].fetch_add(1, Ordering::Relaxed);
                claimed.insert(key.clone(), (number, 1));
                number
            }
        };
        commit.claims.held.insert(key);
        commit.ops.push(Op::Put(
            Numbers::NAME,
            Bytes::of(&(kind as u8, name.to_owned())),
            Bytes::of(&number),
        ));
        commit.ops.push(Op::Put(Names::NAME, Bytes::of(&(kind as u8, number)), Bytes::of(name)));
        Ok(number)
    }

    /// The name of a stored number.
    ///
    /// # Errors
    /// [`Error::Missing`] if the number was never given out: the graph refers to what it does not have.
    pub fn name(&self, kind: Kind, number: u64) -> Result<Arc<str>, Error> {
        if let Some(name) = self.interner.names.get(&(kind, number)) {
            return Ok(name);
        }
        let name = self
            .get::<Names>(&(kind as u8, number))?
            .ok_or_else(|| Error::Missing(format!("the name of {kind:?} {number}")))?;
        let name: Arc<str> = name.into();
        self.interner.names.insert((kind, number), name.clone());
        Ok(name)
    }

    /// A number of `kind` that stands for nothing but itself (chains).
    #[must_use]
    pub fn fresh(&self, kind: Kind) -> u64 {
        self.interner.next[kind as usize].fetch_add(1, Ordering::Relaxed)
    }
}
