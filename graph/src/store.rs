//! The graph as a store: opening, reading, committing, durability.
//!
//! A commit is applied to RocksDB without waiting for the disk and is visible at once; a thread of its own then
//! brings the write-ahead log to disk, one fsync for all that was applied meanwhile, and moves [`Graph::durable`]
//! forward. Nothing may be acknowledged, and no reader that reports to the outside may look, beyond that mark.

use crate::{
    codec::{Bytes, Decode, PrefixOf, Raw},
    commit::{Commit, Op, log_key, stamp, stamped_record},
    error::Error,
    follow::LiveLog,
    ids::{Root, Seq},
    intern::{Claims, Interner},
    limits,
    scan::Range,
    schema::{ALL, ChainTips, Family, Log, Meta, Names, StateNodes, VERSION},
    tree::Node,
    tuning,
};
use parking_lot::{Condvar, Mutex};
use quick_cache::sync::Cache;
use rocksdb::{
    ColumnFamily, DBRawIteratorWithThreadMode, DBWithThreadMode, IteratorMode, ReadOptions, SingleThreaded,
    WriteBatch,
};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::watch;

pub(crate) type Db = DBWithThreadMode<SingleThreaded>;

/// How to open a graph.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The directory.
    pub path: PathBuf,
    /// Memory for cached blocks, bytes.
    pub block_cache: usize,
}

/// The event graph. Cheap to share behind an `Arc`.
pub struct Graph {
    pub(crate) db: Arc<Db>,
    pub(crate) interner: Arc<Interner>,
    nodes: Cache<Root, Arc<Node>>,
    /// Taken while a commit gets its numbers and is applied: the order of numbers is the order of application.
    applying: Mutex<Seq>,
    pub(crate) live: Arc<LiveLog>,
    disk: Arc<Disk>,
    sync_thread: Option<std::thread::JoinHandle<()>>,
    path: PathBuf,
}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Graph").field("path", &self.path).finish_non_exhaustive()
    }
}

/// What the writing side and the thread that syncs share.
struct Disk {
    applied: AtomicU64,
    wanted: Mutex<Wanted>,
    wake: Condvar,
    durable: watch::Sender<Durable>,
    /// How many times bringing the write-ahead log to disk has begun.
    begun: AtomicU64,
}

#[derive(Default)]
struct Wanted {
    stop: bool,
    pending: bool,
}

/// How far the write-ahead log is on disk, or why it is no more.
#[derive(Debug, Clone, Default)]
struct Durable {
    seq: Seq,
    /// Which time of bringing it to disk was the last that ended.
    syncs: u64,
    failed: Option<Arc<str>>,
}

impl Graph {
    /// Opens the database, or creates it.
    ///
    /// # Errors
    /// [`Error::Newer`], [`Error::NotOurs`] and [`Error::Corrupt`] before anything is written; [`Error::InUse`] if
    /// another process has it open.
    pub fn open(settings: &Settings) -> Result<Arc<Self>, Error> {
        let fresh = check_directory(&settings.path)?;
        if !fresh {
            // Opening for writing moves files before damage is met: a look first, which moves none.
            drop(Self::for_reading(settings)?);
        }
        let cache = rocksdb::Cache::new_lru_cache(settings.block_cache);
        let families = tuning::families(&cache);
        let db = Db::open_cf_descriptors(&tuning::database(true), &settings.path, families)
            .map_err(|error| Error::opening(&settings.path, error))?;
        let db = Arc::new(db);
        let mut graph = Self::over(db, &settings.path);
        graph.restore_counters()?;
        graph.sync_thread = Some(graph.start_sync_thread()?);
        if fresh {
            let mut commit = graph.begin();
            commit.put::<Meta>(&("schema".to_owned(),), &Raw(VERSION.to_string().into_bytes()));
            graph.commit(commit)?;
        }
        Ok(Arc::new(graph))
    }

    /// Opens an existing database as it is now, to be read and never written: commits fail, no file is changed.
    /// What another process writes meanwhile is not seen.
    ///
    /// # Errors
    /// As [`Graph::open`]; [`Error::NotOurs`] if there is no database.
    pub fn open_read_only(settings: &Settings) -> Result<Arc<Self>, Error> {
        let graph = Self::for_reading(settings)?;
        graph.restore_counters()?;
        Ok(Arc::new(graph))
    }

    /// The same without reading anything, for who wants to find out what can be read.
    pub(crate) fn for_reading(settings: &Settings) -> Result<Self, Error> {
        let path = &settings.path;
        if check_directory(path)? {
            return Err(Error::NotOurs { path: path.clone(), why: "it is empty".to_owned() });
        }
        let cache = rocksdb::Cache::new_lru_cache(settings.block_cache);
        let options = tuning::database(false);
        let there = Db::list_cf(&options, path).map_err(|error| Error::opening(path, error))?;
        let families =
            tuning::families(&cache).into_iter().filter(|f| there.iter().any(|name| name == f.name()));
        let db = Db::open_cf_descriptors_read_only(&options, path, families, false)
            .map_err(|error| Error::opening(path, error))?;
        Ok(Self::over(Arc::new(db), path))
    }

    fn over(db: Arc<Db>, path: &Path) -> Self {
        let (durable, _) = watch::channel(Durable::default());
        let disk = Arc::new(Disk {
            applied: AtomicU64::new(0),
            wanted: Mutex::default(),
            wake: Condvar::new(),
            durable,
            begun: AtomicU64::new(0),
        });
        Self {
            db,
            interner: Arc::new(Interner::new()),
            nodes: Cache::new(limits::STATE_NODES_IN_MEMORY),
            applying: Mutex::new(Seq::ZERO),
            live: Arc::new(LiveLog::new()),
            disk,
            sync_thread: None,
            path: path.to_owned(),
        }
    }

    /// The directory it lies in.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn restore_counters(&self) -> Result<(), Error> {
        for kind in 0..6_u8 {
            let last = self.scan::<Names, _>(&(kind,)).reverse().first()?;
            self.interner.set_next(kind, last.map_or(1, |((_, number), _)| number + 1));
        }
        let last_chain = self.scan::<ChainTips, _>(&()).reverse().first()?;
        self.interner.set_next(6, last_chain.map_or(1, |((chain,), _)| chain.0 + 1));
        let last = self.scan::<Log, _>(&()).reverse().first()?.map_or(Seq::ZERO, |((seq,), _)| seq);
        *self.applying.lock() = last;
        self.disk.applied.store(last.0, Ordering::Release);
        self.disk.durable.send_replace(Durable { seq: last, ..Durable::default() });
        Ok(())
    }

    fn start_sync_thread(&self) -> Result<std::thread::JoinHandle<()>, Error> {
        let (db, disk, live) = (self.db.clone(), self.disk.clone(), self.live.clone());
        std::thread::Builder::new()
            .name("postern-fsync".to_owned())
            .spawn(move || sync_loop(&db, &disk, &live))
            .map_err(|error| Error::Io { path: self.path.clone(), error })
    }

    // ---- reading ---------------------------------------------------------------------------------------------

    pub(crate) fn family<F: Family>(&self) -> Result<&ColumnFamily, Error> {
        self.family_named(F::NAME)
    }

    fn family_named(&self, name: &str) -> Result<&ColumnFamily, Error> {
        self.db.cf_handle(name).ok_or_else(|| Error::Missing(format!("column family {name}")))
    }

    /// What is stored under `key`.
    pub fn get<F: Family>(&self, key: &F::Key) -> Result<Option<F::Value>, Error> {
        let bytes = self.db.get_pinned_cf(self.family::<F>()?, Bytes::of(key).data)?;
        bytes.map(|bytes| F::Value::whole(&bytes).map_err(Error::damaged::<F>)).transpose()
    }

    /// What is stored under each of `keys`, in their order.
    pub fn get_many<F: Family>(&self, keys: &[F::Key]) -> Result<Vec<Option<F::Value>>, Error> {
        let encoded: Vec<Vec<u8>> = keys.iter().map(|key| Bytes::of(key).data).collect();
        self.db
            .batched_multi_get_cf(self.family::<F>()?, &encoded, false)
            .into_iter()
            .map(|result| {
                result?.map(|bytes| F::Value::whole(&bytes).map_err(Error::damaged::<F>)).transpose()
            })
            .collect()
    }

    /// Whether something is stored under `key`.
    pub fn has<F: Family>(&self, key: &F::Key) -> Result<bool, Error> {
        Ok(self.db.get_pinned_cf(self.family::<F>()?, Bytes::of(key).data)?.is_some())
    }

    /// Everything whose key begins with `prefix`; see [`Range`] to narrow it.
    pub fn scan<F: Family, P: PrefixOf<F::Key>>(&self, prefix: &P) -> Range<'_, F> {
        Range::new(self, Bytes::of(prefix).data)
    }

    pub(crate) fn raw_iterator<F: Family>(
        &self,
        options: ReadOptions,
    ) -> DBRawIteratorWithThreadMode<'_, Db> {
        match self.db.cf_handle(F::NAME) {
            Some(family) => self.db.raw_iterator_cf_opt(family, options),
            // Every family of the schema is opened; the default family is empty.
            None => self.db.raw_iterator_opt(options),
        }
    }

    pub(crate) fn state_node(&self, root: Root) -> Result<Arc<Node>, Error> {
        if let Some(node) = self.nodes.get(&root) {
            return Ok(node);
        }
        let Raw(bytes) = self
            .get::<StateNodes>(&(root,))?
            .ok_or_else(|| Error::Missing(format!("state node {root:?}")))?;
        let node = Arc::new(Node::whole(&bytes).map_err(Error::damaged::<StateNodes>)?);
        self.nodes.insert(root, node.clone());
        Ok(node)
    }

    // ---- writing ---------------------------------------------------------------------------------------------

    /// A new, empty commit.
    #[must_use]
    pub fn begin(&self) -> Commit {
        Commit::new(Claims::new(self.interner.clone()))
    }

    /// Applies `commit`: on return it is visible to every reader, though not yet durable. The result is its sequence
    /// number (its last, if it took several): the first one it took is `result.0 - taken + 1`.
    /// Nothing may be acknowledged before [`Graph::durable_at`] that number.
    pub fn commit(&self, commit: Commit) -> Result<Seq, Error> {
        if commit.slots > limits::MAX_SEQS_PER_COMMIT {
            return Err(Error::TooLarge(usize::from(commit.slots)));
        }
        if let Some(why) = &self.disk.durable.borrow().failed {
            return Err(Error::Halted(why.to_string()));
        }
        let Commit { ops, slots, record, claims, nodes, chains: _ } = commit;
        let last = {
            let mut applied = self.applying.lock();
            let first = applied.next();
            let last = Seq(applied.0 + u64::from(slots.max(1)));
            let mut batch = WriteBatch::default();
            for op in ops {
                self.add_op(&mut batch, op, first)?;
            }
            let record = stamped_record(&record, first);
            let (log, key) = log_key(last);
            batch.put_cf(self.family_named(log)?, key, &record);
            self.db.write(batch)?;
            *applied = last;
            self.live.push(last, &record);
            self.disk.applied.store(last.0, Ordering::Release);
            last
        };
        claims.applied();
        for (root, node) in nodes {
            self.nodes.insert(root, node);
        }
        self.disk.wanted.lock().pending = true;
        self.disk.wake.notify_one();
        Ok(last)
    }

    /// Applies `commit` and waits until it is durable.
    pub async fn commit_durably(&self, commit: Commit) -> Result<Seq, Error> {
        let seq = self.commit(commit)?;
        self.durable_at(seq).await?;
        Ok(seq)
    }

    /// The last sequence number that is on disk. What is reported to the outside is bounded by it.
    #[must_use]
    pub fn durable(&self) -> Seq {
        self.disk.durable.borrow().seq
    }

    /// Whether an earlier write could not be made durable: nothing is accepted any more.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.disk.durable.borrow().failed.is_some()
    }

    /// How many entries were written and removed so far, in all families together.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.db.latest_sequence_number()
    }

    /// The last sequence number applied.
    #[must_use]
    pub fn applied(&self) -> Seq {
        Seq(self.disk.applied.load(Ordering::Acquire))
    }

    /// Waits until everything up to `seq` is on disk.
    ///
    /// # Errors
    /// [`Error::Halted`] if the disk failed.
    pub async fn durable_at(&self, seq: Seq) -> Result<(), Error> {
        let mut durable = self.disk.durable.subscribe();
        let reached = durable.wait_for(|d| d.seq >= seq || d.failed.is_some()).await;
        match reached {
            Ok(state) if state.seq >= seq => Ok(()),
            Ok(state) => Err(Error::Halted(state.failed.as_deref().unwrap_or_default().to_owned())),
            Err(_) => Err(Error::Halted("the database is closed".to_owned())),
        }
    }

    /// Applies what a follower keeps for itself (its cursor, what it still has to do) beside the log: it takes no
    /// sequence number, and no follower hears of it. What was logged already may not depend on it.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if the commit took sequence numbers or says that something happened.
    pub fn commit_beside_log(&self, commit: Commit) -> Result<(), Error> {
        let Commit { ops, slots, record, claims, nodes: _, chains: _ } = commit;
        if slots > 0 || !record.entries.is_empty() {
            return Err(Error::TooLarge(usize::from(slots).max(record.entries.len())));
        }
        if let Some(why) = &self.disk.durable.borrow().failed {
            return Err(Error::Halted(why.to_string()));
        }
        let mut batch = WriteBatch::default();
        for op in ops {
            self.add_op(&mut batch, op, Seq::ZERO)?;
        }
        self.db.write(batch)?;
        claims.applied();
        Ok(())
    }

    /// The same, and waits until it is durable.
    pub async fn commit_beside_log_durably(&self, commit: Commit) -> Result<(), Error> {
        self.commit_beside_log(commit)?;
        // The one that runs may have begun before the write.
        let wanted = self.disk.begun.load(Ordering::Acquire) + 1;
        self.disk.wanted.lock().pending = true;
        self.disk.wake.notify_one();
        let mut durable = self.disk.durable.subscribe();
        match durable.wait_for(|d| d.syncs >= wanted || d.failed.is_some()).await {
            Ok(state) if state.syncs >= wanted => Ok(()),
            Ok(state) => Err(Error::Halted(state.failed.as_deref().unwrap_or_default().to_owned())),
            Err(_) => Err(Error::Halted("the database is closed".to_owned())),
        }
    }

    fn add_op(&self, batch: &mut WriteBatch, op: Op, first: Seq) -> Result<(), Error> {
        match op {
            Op::Put(family, key, value) => {
                batch.put_cf(self.family_named(family)?, stamp(key, first), stamp(value, first));
            }
            Op::Delete(family, key) => batch.delete_cf(self.family_named(family)?, stamp(key, first)),
            Op::DeleteRange(family, from, to) => {
                batch.delete_range_cf(self.family_named(family)?, from, to);
            }
        }
        Ok(())
    }

    /// Stores one value outside the log: only for a follower's cursor, which would otherwise wake the followers.
    pub(crate) fn put_quietly<F: Family>(&self, key: &F::Key, value: &F::Value) -> Result<(), Error> {
        let mut batch = WriteBatch::default();
        batch.put_cf(self.family::<F>()?, Bytes::of(key).data, Bytes::of(value).data);
        Ok(self.db.write(batch)?)
    }

    /// Writes everything in memory to its files, so that the next start has nothing to replay.
    pub fn flush(&self) -> Result<(), Error> {
        for (name, _) in ALL {
            self.db.flush_cf(self.family_named(name)?)?;
        }
        Ok(())
    }

    /// Compacts every family. Slow; for maintenance.
    pub fn compact(&self) -> Result<(), Error> {
        self.flush()?;
        for (name, _) in ALL {
            self.db.compact_range_cf(self.family_named(name)?, None::<&[u8]>, None::<&[u8]>);
        }
        Ok(())
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        self.disk.wanted.lock().stop = true;
        self.disk.wake.notify_one();
        if let Some(thread) = self.sync_thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that syncs the database had panicked");
        }
    }
}

fn sync_loop(db: &Db, disk: &Disk, live: &LiveLog) {
    loop {
        {
            let mut wanted = disk.wanted.lock();
            while !wanted.pending && !wanted.stop {
                disk.wake.wait(&mut wanted);
            }
            if !wanted.pending {
                return;
            }
            wanted.pending = false;
        }
        let applied = Seq(disk.applied.load(Ordering::Acquire));
        let syncs = disk.begun.fetch_add(1, Ordering::AcqRel) + 1;
        match db.flush_wal(true) {
            Ok(()) => {
                // In this order: a follower that is woken looks at what is durable, and then sleeps until woken again.
                disk.durable.send_replace(Durable { seq: applied, syncs, failed: None });
                live.durable(applied);
            }
            Err(error) => {
                // After a failed fsync nobody can know what is on disk: accept nothing more (and say so once).
                tracing::error!(%error, "the database cannot be written to disk; no more writes are accepted");
                disk.durable.send_modify(|d| d.failed = Some(error.to_string().into()));
                return;
            }
        }
    }
}

/// Whether the directory is new (or empty); an error if it holds something else, or a newer database. Reads only.
fn check_directory(path: &Path) -> Result<bool, Error> {
    let io = |error| Error::Io { path: path.to_owned(), error };
    if !path.exists() || std::fs::read_dir(path).map_err(io)?.next().is_none() {
        return Ok(true);
    }
    let not_ours = |why: &str| Error::NotOurs { path: path.to_owned(), why: why.to_owned() };
    if !path.join("CURRENT").exists() {
        return if half_created(path).map_err(io)? {
            Ok(true)
        } else {
            Err(not_ours("it holds other files and no database"))
        };
    }
    let options = tuning::database(false);
    let opening = |error| Error::opening(path, error);
    let families = Db::list_cf(&options, path).map_err(opening)?;
    if !families.iter().any(|name| name == Meta::NAME) {
        // Creation was interrupted before it came to the first family, or somebody else's data is here.
        let db = Db::open_for_read_only(&options, path, false).map_err(opening)?;
        return if families.len() == 1 && db.iterator(IteratorMode::Start).next().is_none() {
            Ok(true)
        } else {
            Err(not_ours("it is a RocksDB database of another program"))
        };
    }
    let db = Db::open_cf_for_read_only(&options, path, [Meta::NAME], false).map_err(opening)?;
    let meta = db.cf_handle(Meta::NAME).ok_or_else(|| not_ours("it has no description"))?;
    let Some(version) = db.get_cf(meta, Bytes::of(&("schema".to_owned(),)).data).map_err(opening)? else {
        // Created, but stopped before the first commit.
        return Ok(true);
    };
    let found = std::str::from_utf8(&version)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| not_ours("its schema version is unreadable"))?;
    if found > VERSION {
        return Err(Error::Newer { path: path.to_owned(), found, known: VERSION });
    }
    Ok(false)
}

/// Whether all there is comes from a creation that was interrupted before the database could hold anything.
fn half_created(path: &Path) -> std::io::Result<bool> {
    for entry in std::fs::read_dir(path)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        let begun = ["LOG", "LOCK", "IDENTITY", "MANIFEST-"].iter().any(|start| name.starts_with(start));
        if !begun && !name.ends_with(".dbtmp") {
            return Ok(false);
        }
    }
    Ok(true)
}
