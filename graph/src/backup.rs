//! Backups: complete, incremental, verified, and taken while the server goes on.
//!
//! A backup directory holds `files/`, every file once under the SHA-256 of its content, and `backups/`, one catalogue
//! per backup: which files make up the database, under which names. RocksDB never changes a data file, so a file that
//! was in the backup before (same name, size, time and inode) is neither read nor written again.
//!
//! First the database as it is at one moment is brought together without copying data ([`stage`]); that is opened and
//! looked at; then what is new is copied, brought to disk, and read back. Only then is the catalogue written: an
//! interrupted backup leaves nothing that looks like one. Everything acknowledged before a backup began is in it.
//!
//! A backup holds all that the database holds, keys included: its files are readable by their owner alone.

mod files;
mod stage;

use crate::{
    error::Error,
    ids::Seq,
    limits,
    schema::VERSION,
    store::{Graph, Settings},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use stage::Stage;
use std::{
    collections::{HashMap, HashSet},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

const FILES: &str = "files";
const BACKUPS: &str = "backups";

/// What a backup did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupReport {
    /// The number of the backup, from 1.
    pub number: u32,
    /// The last position of the log that is in it.
    pub seq: Seq,
    /// Files it consists of.
    pub files: u64,
    /// Their size, bytes.
    pub bytes: u64,
    /// Files that were not in the directory before.
    pub new_files: u64,
    /// Their size, bytes.
    pub new_bytes: u64,
}

/// A backup as it is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupInfo {
    /// Its number, from 1.
    pub number: u32,
    /// When it was taken, milliseconds since the epoch.
    pub taken_ms: u64,
    /// The last position of the log that is in it.
    pub seq: Seq,
    /// Files it consists of.
    pub files: u64,
    /// Their size, bytes.
    pub bytes: u64,
}

/// The catalogue of one backup.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Catalogue {
    number: u32,
    taken_ms: u64,
    seq: Seq,
    /// The schema version of the database.
    schema: u64,
    files: Vec<Stored>,
}

/// A file of the database, and where its content is.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Stored {
    name: String,
    sha256: String,
    #[serde(flatten)]
    seen: Seen,
}

/// What tells an unchanged data file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Seen {
    size: u64,
    inode: u64,
    modified_s: i64,
    modified_ns: i64,
}

impl Seen {
    fn of(path: &Path) -> Result<Self, Error> {
        let meta = fs::metadata(path).map_err(io(path))?;
        Ok(Self {
            size: meta.size(),
            inode: meta.ino(),
            modified_s: meta.mtime(),
            modified_ns: meta.mtime_nsec(),
        })
    }
}

impl Catalogue {
    fn info(&self) -> BackupInfo {
        BackupInfo {
            number: self.number,
            taken_ms: self.taken_ms,
            seq: self.seq,
            files: self.files.len() as u64,
            bytes: self.files.iter().map(|file| file.seen.size).sum(),
        }
    }
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |error| Error::Io { path: path.clone(), error }
}

fn refused(path: &Path, why: impl Into<String>) -> Error {
    Error::Backup { path: path.to_owned(), why: why.into() }
}

impl Graph {
    /// Backs the database up into `dir`, while it is in use. Blocks for as long as it takes to copy what is new since
    /// the last backup there.
    ///
    /// # Errors
    /// [`Error::Backup`] if `dir` holds something else or another backup is under way.
    pub fn back_up(&self, dir: &Path) -> Result<BackupReport, Error> {
        // What is visible may be acknowledged at any moment: it belongs in, so it has to be in the files.
        self.db.flush_wal(true)?;
        let stage = Stage::of_open(&self.db, self.path())?;
        store(&stage, dir)
    }
}

/// Backs up the database in `path` into `dir`, whether or not another process (a running server) has it open, and
/// without its help.
///
/// # Errors
/// As [`Graph::back_up`]; also if the database changes its files so often that no moment could be caught.
pub fn back_up_from_outside(path: &Path, dir: &Path) -> Result<BackupReport, Error> {
    let stage = Stage::from_outside(path)?;
    store(&stage, dir)
}

/// The backups in `dir`, oldest first.
pub fn list(dir: &Path) -> Result<Vec<BackupInfo>, Error> {
    Ok(catalogues(dir)?.iter().map(Catalogue::info).collect())
}

/// Reads every file of every backup in `dir` and compares it with what was backed up. The result has a sentence for
/// each file that is not as it was; it is empty if all is well.
pub fn verify(dir: &Path) -> Result<Vec<String>, Error> {
    let mut wrong = Vec::new();
    let mut read: HashSet<String> = HashSet::new();
    for catalogue in catalogues(dir)? {
        for file in catalogue.files {
            if !read.insert(file.sha256.clone()) {
                continue;
            }
            let path = dir.join(FILES).join(&file.sha256);
            match files::hash(&path) {
                Ok(found) if found == file.sha256 => {}
                Ok(_) => wrong.push(format!("{} ({}) has other content.", path.display(), file.name)),
                Err(error) => wrong.push(format!("{error} ({}).", file.name)),
            }
        }
    }
    Ok(wrong)
}

/// Puts the newest backup of `dir` into `target`, which must be empty or not exist.
///
/// # Errors
/// [`Error::Backup`] if there is no backup, if `target` is not empty, or if a file is not as it was backed up.
pub fn restore(dir: &Path, target: &Path) -> Result<BackupInfo, Error> {
    let newest = catalogues(dir)?.pop().ok_or_else(|| refused(dir, "there is no backup"))?;
    restore_catalogue(dir, &newest, target)
}

/// Puts backup `number` of `dir` into `target`; see [`restore`].
///
/// # Errors
/// As [`restore`].
pub fn restore_number(dir: &Path, number: u32, target: &Path) -> Result<BackupInfo, Error> {
    let backups = catalogues(dir)?;
    let wanted = backups.iter().find(|catalogue| catalogue.number == number);
    let wanted = wanted.ok_or_else(|| refused(dir, format!("there is no backup {number}")))?;
    restore_catalogue(dir, wanted, target)
}

/// Removes all but the newest `keep` backups (at least one stays), and the files only they needed.
///
/// # Errors
/// [`Error::Backup`] if another backup is under way.
pub fn prune(dir: &Path, keep: usize) -> Result<(), Error> {
    let _lock = files::lock(&dir.join("lock"))?;
    let mut backups = catalogues(dir)?;
    let kept = backups.split_off(backups.len().saturating_sub(keep.max(1)));
    for catalogue in backups {
        let path = catalogue_path(dir, catalogue.number);
        fs::remove_file(&path).map_err(io(&path))?;
    }
    sweep(dir, &kept)
}

/// Removes files no backup needs: those of removed backups, and what an interrupted one left.
fn sweep(dir: &Path, kept: &[Catalogue]) -> Result<(), Error> {
    let needed: HashSet<&str> =
        kept.iter().flat_map(|catalogue| &catalogue.files).map(|file| file.sha256.as_str()).collect();
    let folder = dir.join(FILES);
    for name in files::names(&folder)? {
        if !needed.contains(name.as_str()) {
            let path = folder.join(name);
            fs::remove_file(&path).map_err(io(&path))?;
        }
    }
    Ok(())
}

fn catalogue_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(BACKUPS).join(format!("{number:06}.json"))
}

/// The catalogues in `dir`, oldest first.
fn catalogues(dir: &Path) -> Result<Vec<Catalogue>, Error> {
    let folder = dir.join(BACKUPS);
    if !folder.is_dir() {
        return Err(refused(dir, "it is no directory of backups"));
    }
    let mut all = Vec::new();
    for name in files::names(&folder)?.into_iter().filter(|name| name.ends_with(".json")) {
        let path = folder.join(name);
        let text = fs::read_to_string(&path).map_err(io(&path))?;
        let (json, sum) =
            text.trim_end().rsplit_once('\n').ok_or_else(|| refused(&path, "it is incomplete"))?;
        if files::hex(&Sha256::digest(json)) != sum {
            return Err(refused(&path, "it is damaged: its content does not match its checksum"));
        }
        all.push(serde_json::from_str(json).map_err(|error| refused(&path, error.to_string()))?);
    }
    all.sort_unstable_by_key(|catalogue: &Catalogue| catalogue.number);
    Ok(all)
}

fn prepare(dir: &Path) -> Result<(), Error> {
    files::create_private(dir)?;
    if !dir.join(BACKUPS).is_dir() && !files::names(dir)?.is_empty() {
        return Err(refused(dir, "it holds other files: use an empty directory"));
    }
    files::create_private(&dir.join(FILES))?;
    files::create_private(&dir.join(BACKUPS))
}

/// Copies what is new in `stage` and writes the catalogue.
fn store(stage: &Stage, dir: &Path) -> Result<BackupReport, Error> {
    prepare(dir)?;
    let _lock = files::lock(&dir.join("lock"))?;
    let before = catalogues(dir)?;
    let known: HashMap<(&str, Seen), &str> = before
        .iter()
        .flat_map(|catalogue| &catalogue.files)
        .map(|file| ((file.name.as_str(), file.seen), file.sha256.as_str()))
        .collect();
    let folder = dir.join(FILES);
    let mut catalogue = Catalogue {
        number: before.last().map_or(1, |last| last.number + 1),
        taken_ms: now_ms(),
        seq: stage.seq,
        schema: VERSION,
        files: Vec::new(),
    };
    let (mut new_files, mut new_bytes) = (0, 0);
    for name in files::names(&stage.path)? {
        let path = stage.path.join(&name);
        let mut seen = Seen::of(&path)?;
        let unchanged = known
            .get(&(name.as_str(), seen))
            .filter(|_| stage::is_data(&name))
            .filter(|sha256| fs::metadata(folder.join(sha256)).is_ok_and(|meta| meta.len() == seen.size));
        let sha256 = if let Some(sha256) = unchanged {
            (*sha256).to_owned()
        } else {
            let copied = files::take_in(&path, &folder)?;
            seen.size = copied.size;
            if copied.new {
                new_files += 1;
                new_bytes += copied.size;
            }
            copied.sha256
        };
        catalogue.files.push(Stored { name, sha256, seen });
    }
    files::sync_directory(&folder)?;
    let json = serde_json::to_string(&catalogue).map_err(|error| refused(dir, error.to_string()))?;
    let text = format!("{json}\n{}\n", files::hex(&Sha256::digest(&json)));
    files::write_whole(&catalogue_path(dir, catalogue.number), text.as_bytes())?;
    let info = catalogue.info();
    tracing::info!(
        number = info.number,
        seq = info.seq.0,
        files = info.files,
        new_files,
        new_bytes,
        "backed up"
    );
    Ok(BackupReport {
        number: info.number,
        seq: info.seq,
        files: info.files,
        bytes: info.bytes,
        new_files,
        new_bytes,
    })
}

fn restore_catalogue(dir: &Path, catalogue: &Catalogue, target: &Path) -> Result<BackupInfo, Error> {
    if catalogue.schema > VERSION {
        return Err(Error::Newer { path: dir.to_owned(), found: catalogue.schema, known: VERSION });
    }
    files::create_private(target)?;
    if !files::names(target)?.is_empty() {
        return Err(refused(target, "it is not empty: a backup is never restored over something else"));
    }
    // The file that makes it a database comes last: half of one is not opened by mistake.
    let (current, rest): (Vec<&Stored>, Vec<&Stored>) =
        catalogue.files.iter().partition(|file| file.name == stage::CURRENT);
    for file in rest.into_iter().chain(current) {
        if Path::new(&file.name).components().count() != 1 || file.name.starts_with('.') {
            return Err(refused(dir, format!("its catalogue names a file {:?}", file.name)));
        }
        files::give_out(&dir.join(FILES).join(&file.sha256), &file.sha256, &target.join(&file.name))?;
    }
    files::sync_directory(target)?;
    let restored = look_at(target)?;
    if restored != catalogue.seq {
        return Err(refused(
            target,
            format!("the restored log ends at {}, the backup's at {}", restored.0, catalogue.seq.0),
        ));
    }
    Ok(catalogue.info())
}

/// Opens a database without writing, and says where its log ends.
fn look_at(path: &Path) -> Result<Seq, Error> {
    let settings = Settings { path: path.to_owned(), block_cache: limits::EXAMINATION_BLOCK_CACHE };
    Ok(Graph::open_read_only(&settings)?.applied())
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
