//! The database as it is at one moment, as a directory: links to its data files, which never change, and copies of
//! the few files that do.
//!
//! The process that has it open asks RocksDB for it (a checkpoint). Any other process makes do with what RocksDB
//! guarantees on disk: a data file or log goes away only after the manifest says it is no longer needed. So while the
//! manifest stays as it was copied, everything it names is there; if it changed meanwhile, the attempt is repeated.

use super::{files, io, look_at, refused};
use crate::{error::Error, ids::Seq, limits, store::Db};
use rocksdb::checkpoint::Checkpoint;
use std::{
    fs::{self, File},
    io::ErrorKind,
    path::{Path, PathBuf},
};

pub(super) const CURRENT: &str = "CURRENT";
const STAGE: &str = "backup-staging";

/// Whether RocksDB never changes a file of this name once it is complete.
pub(super) fn is_data(name: &str) -> bool {
    has_extension(name, "sst") || has_extension(name, "blob")
}

fn has_extension(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found == extension)
}

/// A staged database; removed when dropped.
pub(super) struct Stage {
    pub(super) path: PathBuf,
    /// Where its log ends.
    pub(super) seq: Seq,
    /// One staging per database at a time.
    _lock: File,
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "what a backup used cannot be removed");
        }
    }
}

/// Takes the lock, and removes what a backup that was killed left.
fn enter(database: &Path) -> Result<(PathBuf, File), Error> {
    if !database.join(CURRENT).is_file() {
        return Err(Error::NotOurs { path: database.to_owned(), why: "it holds no database".to_owned() });
    }
    let lock = files::lock(&database.join("backup.lock"))?;
    let path = database.join(STAGE);
    for left in [path.clone(), database.join(format!("{STAGE}.tmp"))] {
        match fs::remove_dir_all(&left) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(io(&left)(error)),
            _ => {}
        }
    }
    Ok((path, lock))
}

impl Stage {
    /// Of the database this process has open.
    pub(super) fn of_open(db: &Db, database: &Path) -> Result<Self, Error> {
        let (path, lock) = enter(database)?;
        // Without a flush: the log is part of the checkpoint, and backups do not make small data files.
        Checkpoint::new(db)?.create_checkpoint_with_log_size(&path, u64::MAX)?;
        let mut stage = Self { path, seq: Seq::ZERO, _lock: lock };
        stage.seq = look_at(&stage.path)?;
        Ok(stage)
    }

    /// Of a database another process may have open.
    pub(super) fn from_outside(database: &Path) -> Result<Self, Error> {
        let (path, lock) = enter(database)?;
        files::create_private(&path)?;
        let mut stage = Self { path, seq: Seq::ZERO, _lock: lock };
        for attempt in 0..limits::BACKUP_ATTEMPTS {
            if attempt > 0 {
                std::thread::sleep(limits::BACKUP_ATTEMPT_PAUSE);
            }
            if gather(database, &stage.path)? {
                stage.seq = look_at(&stage.path)?;
                return Ok(stage);
            }
        }
        Err(refused(
            database,
            format!("its files changed during each of {} attempts to back it up", limits::BACKUP_ATTEMPTS),
        ))
    }
}

/// One attempt; false if the database changed its files meanwhile.
fn gather(database: &Path, stage: &Path) -> Result<bool, Error> {
    // Data files linked by an earlier attempt stay good; the rest is made anew.
    for name in files::names(stage)?.into_iter().filter(|name| !is_data(name)) {
        let path = stage.join(name);
        fs::remove_file(&path).map_err(io(&path))?;
    }
    let current_path = database.join(CURRENT);
    let current = fs::read_to_string(&current_path).map_err(io(&current_path))?;
    let manifest = current.trim_end();
    if Path::new(manifest).components().count() != 1 {
        return Err(refused(&current_path, "it names no manifest"));
    }
    let Some(size) = copy(&database.join(manifest), &stage.join(manifest))? else { return Ok(false) };
    let names = files::names(database)?;
    for name in names.iter().filter(|name| is_data(name)) {
        match fs::hard_link(database.join(name), stage.join(name)) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            // No longer needed by the newest manifest: the check below decides.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(io(&database.join(name))(error)),
        }
    }
    // Logs in the order they were written: one is complete before the next is begun.
    let mut logs: Vec<_> = names.iter().filter(|name| has_extension(name, "log")).collect();
    logs.sort_unstable();
    for name in logs {
        if copy(&database.join(name), &stage.join(name))?.is_none() {
            return Ok(false);
        }
    }
    let unchanged = fs::read_to_string(&current_path).is_ok_and(|now| now == current)
        && fs::metadata(database.join(manifest)).is_ok_and(|meta| meta.len() == size);
    if unchanged {
        files::write_whole(&stage.join(CURRENT), current.as_bytes())?;
    }
    Ok(unchanged)
}

/// Copies a file that may be growing or go away; how much there was of it.
fn copy(from: &Path, to: &Path) -> Result<Option<u64>, Error> {
    match fs::copy(from, to) {
        Ok(size) => Ok(Some(size)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io(from)(error)),
    }
}
