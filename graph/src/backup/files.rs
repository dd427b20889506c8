//! Files of a backup: copied, brought to disk, checked.

use super::{io, refused};
use crate::{error::Error, limits};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

/// A file taken into the backup.
pub(super) struct Taken {
    pub(super) sha256: String,
    pub(super) size: u64,
    /// It was not there before.
    pub(super) new: bool,
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The names in a directory, sorted.
pub(super) fn names(dir: &Path) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(io(dir))? {
        let name = entry.map_err(io(dir))?.file_name();
        names.push(name.into_string().map_err(|name| refused(dir, format!("it holds a file {name:?}")))?);
    }
    names.sort_unstable();
    Ok(names)
}

/// Creates a directory only its owner can enter, unless it is there.
pub(super) fn create_private(dir: &Path) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io(dir))
}

fn create_file(path: &Path) -> Result<File, Error> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).map_err(io(path))
}

/// A lock that ends with the process, however it ends.
pub(super) fn lock(path: &Path) -> Result<File, Error> {
    let file = create_file(path)?;
    file.try_lock().map_err(|_| refused(path, "another backup is under way"))?;
    Ok(file)
}

pub(super) fn sync_directory(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io(dir))
}

/// Writes a small file so that it is there whole, and on disk, or not at all.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let partial = path.with_extension("partial");
    let mut file = create_file(&partial)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io(&partial))?;
    fs::rename(&partial, path).map_err(io(path))?;
    path.parent().map_or(Ok(()), sync_directory)
}

/// Reads a file to its end, writing it to `to` as well if given; its SHA-256 and size.
fn read_through(path: &Path, mut to: Option<(&mut File, &Path)>) -> Result<(String, u64), Error> {
    let mut from = File::open(path).map_err(io(path))?;
    let mut buffer = vec![0; limits::COPY_BUFFER];
    let mut hash = Sha256::new();
    let mut size = 0;
    loop {
        let read = from.read(&mut buffer).map_err(io(path))?;
        if read == 0 {
            return Ok((hex(&hash.finalize()), size));
        }
        hash.update(&buffer[..read]);
        size += read as u64;
        if let Some((file, path)) = &mut to {
            file.write_all(&buffer[..read]).map_err(io(path))?;
        }
    }
}

/// The SHA-256 of a file's content.
pub(super) fn hash(path: &Path) -> Result<String, Error> {
    read_through(path, None).map(|(sha256, _)| sha256)
}

/// Copies `path` into `folder` under the SHA-256 of its content, brings it to disk and reads it back.
pub(super) fn take_in(path: &Path, folder: &Path) -> Result<Taken, Error> {
    let partial = folder.join("partial");
    let mut file = create_file(&partial)?;
    let (sha256, size) = read_through(path, Some((&mut file, &partial)))?;
    file.sync_all().map_err(io(&partial))?;
    drop(file);
    if hash(&partial)? != sha256 {
        return Err(refused(&partial, "what was written cannot be read back"));
    }
    let place = folder.join(&sha256);
    let new = !place.exists();
    fs::rename(&partial, &place).map_err(io(&place))?;
    Ok(Taken { sha256, size, new })
}

/// Copies a file of the backup to `to`, provided it still has the content it should.
pub(super) fn give_out(from: &Path, sha256: &str, to: &Path) -> Result<(), Error> {
    let mut file = create_file(to)?;
    let (found, _) = read_through(from, Some((&mut file, to)))?;
    if found != sha256 {
        return Err(refused(from, "it is damaged: its content is not what was backed up"));
    }
    file.sync_all().map_err(io(to))
}
