//! A directory of bundles: where an exporter puts them, where a receiver finds them, and what a medium carries. A file
//! appears under its name only when it is complete and on the disk, and no file is ever overwritten. Names sort by link, epoch,
//! sequence number and volume.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek as _, Write};
use std::path::{Path, PathBuf};

use crate::envelope::Recipient;
use crate::error::Error;
use crate::header::{Cover, Fields, Place, Release, Statement};
use crate::keys::SecretKey;
use crate::limits;
use crate::record::{Media, Record};
use crate::volumes::{self, Joined};
use crate::writer::{Staged, Writer};

const SUFFIX: &str = ".mfb";
/// What unfinished files begin with. Others of such a name are left alone: another process may be writing them.
const UNFINISHED: &str = ".unfinished-";

/// The name of a bundle's file, or of one of its volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    pub place: Place,
    /// The number of the volume, if there are several.
    pub volume: Option<u32>,
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Place { link, epoch, seq } = self.place;
        write!(f, "{link}-{epoch:010}-{seq:020}")?;
        self.volume.map_or(Ok(()), |volume| write!(f, ".{volume:04}"))?;
        f.write_str(SUFFIX)
    }
}

impl std::str::FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parse = || {
            let stem = text.strip_suffix(SUFFIX)?;
            let (stem, volume) = match stem.split_once('.') {
                Some((stem, volume)) => (stem, Some(volume.parse().ok()?)),
                None => (stem, None),
            };
            let mut parts = stem.split('-');
            let place = Place {
                link: parts.next()?.parse().ok()?,
                epoch: parts.next()?.parse().ok()?,
                seq: parts.next()?.parse().ok()?,
            };
            let name = Self { place, volume };
            // One name for one place: no other spelling of it.
            (name.to_string() == text).then_some(name)
        };
        parse().ok_or_else(|| Error::Name(text.to_owned()))
    }
}

/// A bundle's files in a spool: one, or its volumes in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub place: Place,
    pub files: Vec<PathBuf>,
}

impl Found {
    /// The number of the last volume, if there are volumes.
    fn last_volume(&self) -> Option<u32> {
        let name = self.files.last().and_then(|file| file.file_name()?.to_str()?.parse::<Name>().ok());
        name.and_then(|name| name.volume)
    }

    /// Opens all files, to be read as one bundle.
    ///
    /// # Errors
    /// What opening reports.
    pub fn open(&self) -> io::Result<Joined<File>> {
        open(&self.files)
    }
}

/// Opens the volumes of a bundle in the order given, to be read as one.
///
/// # Errors
/// What opening reports.
pub fn open(files: &[impl AsRef<Path>]) -> io::Result<Joined<File>> {
    Ok(Joined::new(files.iter().map(File::open).collect::<io::Result<_>>()?))
}

/// A directory of bundles.
#[derive(Debug, Clone)]
pub struct Spool {
    directory: PathBuf,
}

impl Spool {
    /// The spool in `directory`, which is made if it is not there.
    ///
    /// # Errors
    /// If it can't be made.
    pub fn new(directory: impl Into<PathBuf>) -> io::Result<Self> {
        let directory = directory.into();
        fs::create_dir_all(&directory)?;
        Ok(Self { directory })
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// All bundles, in the order of their places. Files with other names are left out. A bundle whose first volume is
    /// not there is left out too: its volumes may still be on the way.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn list(&self) -> io::Result<Vec<Found>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            names.extend(name.to_str().and_then(|name| name.parse::<Name>().ok()));
        }
        names.sort_unstable();
        let mut found: Vec<Found> = Vec::new();
        for name in names {
            let file = self.directory.join(name.to_string());
            let begun = found.last_mut().filter(|last| last.place == name.place);
            match (begun, name.volume) {
                (None, None | Some(1)) => found.push(Found { place: name.place, files: vec![file] }),
                (Some(begun), Some(volume)) if begun.last_volume().is_some_and(|last| last + 1 == volume) => {
                    begun.files.push(file)
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// Whether there is a bundle, or a volume of one, for a place.
    pub fn has(&self, place: Place) -> bool {
        [None, Some(1)]
            .into_iter()
            .any(|volume| self.directory.join(Name { place, volume }.to_string()).exists())
    }

    /// Begins a bundle for `recipients`.
    ///
    /// # Errors
    /// As [`Writer::new`], and if a file cannot be made.
    pub fn begin(&self, recipients: &[Recipient]) -> Result<Outgoing, Error> {
        let unfinished = self.unfinished()?;
        let file = unfinished.file.try_clone()?;
        Ok(Outgoing {
            spool: self.clone(),
            unfinished,
            writer: Writer::new(io::BufWriter::new(file), recipients)?,
        })
    }

    /// Puts a whole bundle here that came in one piece, as it is.
    ///
    /// # Errors
    /// If there is one for this place already, and what writing reports.
    pub fn put(&self, place: Place, mut bundle: impl Read) -> Result<PathBuf, Error> {
        let mut unfinished = self.unfinished()?;
        io::copy(&mut bundle, &mut unfinished.file)?;
        self.publish(unfinished, Name { place, volume: None })
    }

    /// Puts a whole bundle here, in volumes of at most `volume` bytes if it is longer.
    ///
    /// # Errors
    /// As [`Spool::put`], and if volumes of that size cannot be.
    pub fn put_in_volumes(
        &self,
        place: Place,
        bundle: Joined<File>,
        volume: Option<u64>,
    ) -> Result<Vec<PathBuf>, Error> {
        if self.has(place) {
            return Err(Error::Exists(self.directory.join(Name { place, volume: None }.to_string())));
        }
        let mut whole = self.unfinished()?;
        let len = io::copy(&mut io::BufReader::new(bundle), &mut whole.file)?;
        let many = match volume {
            Some(most) => volumes::volumes(len, most)? > 1,
            None => false,
        };
        let Some(most) = volume.filter(|_| many) else {
            return Ok(vec![self.publish(whole, Name { place, volume: None })?]);
        };
        whole.file.rewind()?;
        let mut front = [0; 8];
        whole.file.read_exact(&mut front)?;
        let [.., a, b, c, d] = front;
        let cover = (u32::from_be_bytes([a, b, c, d]) as usize).min(limits::COVER_BYTES);
        let mut beginning = front.to_vec();
        (&mut whole.file).take(cover as u64).read_to_end(&mut beginning)?;
        let rest = io::BufReader::new(whole.file.try_clone()?);
        let files = volumes::split(&beginning, rest, len, most, |_| self.unfinished().map_err(Error::Io))?;
        self.publish_volumes(files, place, true)
    }

    /// Gives volumes their names, the first one last: with it the bundle is there.
    fn publish_volumes(
        &self,
        files: Vec<Unfinished>,
        place: Place,
        many: bool,
    ) -> Result<Vec<PathBuf>, Error> {
        let numbered: Vec<_> = (1..).zip(files).collect();
        let mut named = Vec::new();
        for (number, file) in numbered.into_iter().rev() {
            named.push(self.publish(file, Name { place, volume: many.then_some(number) })?);
        }
        named.reverse();
        Ok(named)
    }

    fn unfinished(&self) -> io::Result<Unfinished> {
        let path = self
            .directory
            .join(format!("{UNFINISHED}{}", crate::crockford::encode(&rand::random::<[u8; 10]>())));
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        Ok(Unfinished { path, file })
    }

    fn publish(&self, unfinished: Unfinished, name: Name) -> Result<PathBuf, Error> {
        let to = self.directory.join(name.to_string());
        unfinished.file.sync_all()?;
        publish(&unfinished.path, &to)?;
        File::open(&self.directory)?.sync_all()?;
        Ok(to)
    }
}

/// Gives a complete file its name, unless there is one of that name.
pub(crate) fn publish(from: &Path, to: &Path) -> Result<(), Error> {
    match fs::hard_link(from, to) {
        Ok(()) => Ok(fs::remove_file(from)?),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Error::Exists(to.to_owned())),
        // FAT has no second names. Two writers at the same moment are not kept apart there.
        Err(_) if to.exists() => Err(Error::Exists(to.to_owned())),
        Err(_) => Ok(fs::rename(from, to)?),
    }
}

/// A file without a name yet; it is removed if it gets none.
#[derive(Debug)]
struct Unfinished {
    path: PathBuf,
    file: File,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // It is gone already if it got its name.
        _ = fs::remove_file(&self.path);
    }
}

/// A bundle that is being written into a spool.
#[derive(Debug)]
pub struct Outgoing {
    spool: Spool,
    unfinished: Unfinished,
    writer: Writer<io::BufWriter<File>>,
}

impl Outgoing {
    /// As [`Writer::add`].
    ///
    /// # Errors
    /// The same.
    pub fn add(&mut self, record: &Record) -> Result<(), Error> {
        self.writer.add(record)
    }

    /// As [`Writer::add_media`].
    ///
    /// # Errors
    /// The same.
    pub fn add_media(&mut self, media: &Media, file: impl Read) -> Result<(), Error> {
        self.writer.add_media(media, file)
    }

    /// How many records there are so far.
    pub fn records(&self) -> u64 {
        self.writer.records()
    }

    /// How long the bundle is so far, bytes.
    pub fn written(&self) -> u64 {
        self.writer.written()
    }

    /// No more records follow.
    ///
    /// # Errors
    /// What writing reports.
    pub fn finish(self) -> Result<OutgoingStaged, Error> {
        let staged = self.writer.finish()?;
        Ok(OutgoingStaged { spool: self.spool, unfinished: self.unfinished, staged })
    }
}

/// All records of a bundle, written; it is still to be signed.
#[derive(Debug)]
pub struct OutgoingStaged {
    spool: Spool,
    unfinished: Unfinished,
    staged: Staged<io::BufWriter<File>>,
}

impl OutgoingStaged {
    /// What an officer signs to release this with `fields`.
    pub fn statement(&self, fields: &Fields) -> Statement {
        self.staged.statement(fields)
    }

    /// Signs the bundle and gives it its name, in volumes of at most `volume` bytes if it is longer.
    ///
    /// # Errors
    /// If there is one for this place, a field is more than a reader accepts, and what writing reports.
    pub fn publish(
        self,
        fields: Fields,
        releases: Vec<Release>,
        key: &SecretKey,
        volume: Option<u64>,
    ) -> Result<(Cover, Vec<PathBuf>), Error> {
        let (place, spool) = (fields.place, self.spool);
        if spool.has(place) {
            return Err(Error::Exists(spool.directory.join(Name { place, volume: None }.to_string())));
        }
        let finished = self.staged.sign(fields, releases, key)?;
        let mut body = finished.body;
        body.flush()?;
        let mut body = body.into_inner().map_err(io::IntoInnerError::into_error)?;
        body.rewind()?;
        let len = finished.front.len() as u64 + finished.cover.body_len;
        let most = volume.unwrap_or(u64::MAX);
        let many = volumes::volumes(len, most)? > 1;
        let files = volumes::split(&finished.front, io::BufReader::new(body), len, most, |_| {
            spool.unfinished().map_err(Error::Io)
        })?;
        let named = spool.publish_volumes(files, place, many)?;
        drop(self.unfinished);
        Ok((finished.cover, named))
    }
}

impl Write for Unfinished {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reader;
    use crate::testing::{LINK, fields, identity, keyring, link_key, recipients, records};

    fn spool() -> (tempfile::TempDir, Spool) {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::new(directory.path().join("spool")).unwrap();
        (directory, spool)
    }

    fn write(spool: &Spool, seq: u64, volume: Option<u64>) -> Result<Vec<PathBuf>, Error> {
        let mut outgoing = spool.begin(&recipients()).unwrap();
        records(3_000).iter().for_each(|record| outgoing.add(record).unwrap());
        outgoing
            .finish()
            .unwrap()
            .publish(fields(seq), Vec::new(), &link_key(), volume)
            .map(|(_, files)| files)
    }

    fn names(spool: &Spool) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(spool.directory())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn count(found: &Found) -> usize {
        let mut reader =
            Reader::open(found.open().unwrap(), &keyring(), &[identity()], limits::TOTAL_BYTES).unwrap();
        std::iter::from_fn(|| reader.next_record().unwrap()).count()
    }

    #[test]
    fn bundles_are_listed_in_the_order_of_their_places() {
        let (_directory, spool) = spool();
        for seq in [10, 9, 100] {
            write(&spool, seq, None).unwrap();
        }
        let listed = spool.list().unwrap();
        assert_eq!(listed.iter().map(|found| found.place.seq).collect::<Vec<_>>(), [9, 10, 100]);
        assert_eq!(names(&spool)[0], format!("{LINK}-0000000001-00000000000000000009.mfb"));
        assert!(listed.iter().all(|found| count(found) == 3_000));
    }

    #[test]
    fn nothing_is_overwritten_and_nothing_is_left_behind() {
        let (_directory, spool) = spool();
        let files = write(&spool, 1, None).unwrap();
        let before = fs::read(&files[0]).unwrap();
        assert!(matches!(write(&spool, 1, None), Err(Error::Exists(_))));
        assert!(matches!(write(&spool, 1, Some(limits::VOLUME_BYTES)), Err(Error::Exists(_))));
        assert!(matches!(spool.put(fields(1).place, &b"other"[..]), Err(Error::Exists(_))));
        assert_eq!(fs::read(&files[0]).unwrap(), before);
        // A bundle that is given up is gone.
        drop(spool.begin(&recipients()).unwrap());
        assert_eq!(names(&spool).len(), 1);
    }

    #[test]
    fn a_bundle_in_volumes_is_read_as_one() {
        let (_directory, spool) = spool();
        let files = write(&spool, 1, Some(limits::VOLUME_BYTES)).unwrap();
        assert!(files.len() > 2);
        assert!(files.iter().all(|file| fs::metadata(file).unwrap().len() <= limits::VOLUME_BYTES));
        let listed = spool.list().unwrap();
        assert_eq!(listed, [Found { place: fields(1).place, files: files.clone() }]);
        assert_eq!(count(&listed[0]), 3_000);
        crate::verify_sealed(listed[0].open().unwrap(), &keyring()).unwrap();
        // Without its first volume it is not there yet; without a later one it ends early, and its beginning is of use.
        fs::remove_file(files.last().unwrap()).unwrap();
        let mut reader = Reader::open(
            spool.list().unwrap()[0].open().unwrap(),
            &keyring(),
            &[identity()],
            limits::TOTAL_BYTES,
        )
        .unwrap();
        let mut read = 0;
        let error = loop {
            match reader.next_record() {
                Ok(Some(_)) => read += 1,
                Ok(None) => panic!("a volume is missing"),
                Err(error) => break error,
            }
        };
        assert!(read > 0 && matches!(error, Error::Truncated { of: 3_000, .. }), "{read}: {error}");
        // A whole bundle of the same place is not mixed with them.
        fs::copy(
            &files[0],
            spool.directory().join(Name { place: fields(1).place, volume: None }.to_string()),
        )
        .unwrap();
        assert_eq!(spool.list().unwrap()[0].files.len(), 1);
        fs::remove_file(&spool.list().unwrap()[0].files[0]).unwrap();
        fs::remove_file(&files[0]).unwrap();
        assert_eq!(spool.list().unwrap(), []);
    }

    #[test]
    fn other_files_are_left_alone() {
        let (_directory, spool) = spool();
        write(&spool, 1, None).unwrap();
        let name = names(&spool).remove(0);
        for other in [
            "notes.txt",
            ".unfinished-ABC",
            &name.to_lowercase(),
            &name.replace("-0000000001-", "-1-"),
            &format!("x{name}"),
        ] {
            fs::write(spool.directory().join(other), "?").unwrap();
        }
        assert_eq!(spool.list().unwrap().len(), 1);
    }
}
