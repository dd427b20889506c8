//! What can go wrong in the store.

use crate::{codec::Damaged, schema::Family};
use std::path::{Path, PathBuf};

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// RocksDB said no.
    #[error("the database failed: {0}")]
    RocksDb(#[from] rocksdb::Error),
    /// Stored bytes do not fit their family.
    #[error("the database is damaged in family {family}: {damaged}; run `postern doctor`")]
    Damaged {
        /// The family.
        family: &'static str,
        /// What is wrong.
        damaged: Damaged,
    },
    /// Something the rest of the graph refers to is missing.
    #[error("the database is damaged: {0} is missing; run `postern doctor`")]
    Missing(String),
    /// The database was written by a newer version.
    #[error(
        "the database in {path} has schema version {found}, and this program knows up to {known}: \
         use the newer program; nothing was changed"
    )]
    Newer {
        /// Where.
        path: PathBuf,
        /// The version found.
        found: u64,
        /// The newest version this program knows.
        known: u64,
    },
    /// RocksDB found its files damaged while opening them.
    #[error("the database in {path} is damaged: {error}; nothing was changed, restore it from a backup")]
    Corrupt {
        /// Where.
        path: PathBuf,
        /// What RocksDB found.
        error: rocksdb::Error,
    },
    /// Another process has it open.
    #[error("the database in {path} is in use by another process")]
    InUse {
        /// Where.
        path: PathBuf,
    },
    /// The directory holds something that is not one of our databases.
    #[error("{path} is not a Postern database ({why}); nothing was changed")]
    NotOurs {
        /// Where.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// A write could not be made durable; nothing is accepted from then on.
    #[error(
        "an earlier write could not be made durable, so the database takes no more: restart the server ({0})"
    )]
    Halted(String),
    /// A commit asked for more than a commit may have.
    #[error("a commit of {0} positions is too large")]
    TooLarge(usize),
    /// A backup, or what was asked of it, is not as it must be.
    #[error("backup, {path}: {why}")]
    Backup {
        /// Which file or directory.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The file system said no.
    #[error("{path}: {error}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        error: std::io::Error,
    },
}

impl Error {
    pub(crate) const fn damaged<F: Family>(damaged: Damaged) -> Self {
        Self::Damaged { family: F::NAME, damaged }
    }

    pub(crate) fn opening(path: &Path, error: rocksdb::Error) -> Self {
        match error.kind() {
            rocksdb::ErrorKind::Corruption => Self::Corrupt { path: path.to_owned(), error },
            // There is no kind of its own for this.
            rocksdb::ErrorKind::IOError if error.as_ref().contains("lock file") => {
                Self::InUse { path: path.to_owned() }
            }
            _ => Self::RocksDb(error),
        }
    }
}
