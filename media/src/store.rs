//! What is known of files, and ids that wait for theirs.

use crate::{Error, Pieces, Upload, limits};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use parking_lot::Mutex;
use postern_graph::{
    Commit, Graph, UserNum,
    codec::{Json, Raw},
    schema::{Media as MediaRecords, MediaChunks},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::HashMap,
    ops::Range,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};

/// Stands in place of the server name, which is never empty, in the keys of what is outstanding: what a start has to
/// look at lies together, however many files there are.
const OUTSTANDING: &str = "";

/// What media need to know of the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The largest upload, bytes.
    pub max_upload_bytes: u64,
    /// The largest image a thumbnail is made of, pixels.
    pub max_image_pixels: u64,
    /// Whether thumbnails are made in any size asked for.
    pub dynamic_thumbnails: bool,
    /// How long an id waits for its upload, milliseconds.
    pub pending_upload_lifetime_ms: u64,
    /// Ids of one user that wait.
    pub max_pending_uploads: usize,
}

/// What is known of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its content type, as the uploader said.
    pub content_type: Option<String>,
    /// Its name, as the uploader said.
    pub file_name: Option<String>,
    /// Its size, bytes.
    pub size: u64,
    /// The SHA-256 of its bytes, in lower-case hexadecimal.
    pub sha256: String,
    /// When it was uploaded, milliseconds since the epoch.
    pub created: u64,
    /// Who uploaded it.
    pub uploader: UserNum,
    /// Its label, as the border keeps it; nothing if it was given none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// What is stored of an upload that is not there yet.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Outstanding {
    uploader: UserNum,
    /// Until when its id waits; none if no id was made before.
    until: Option<u64>,
}

/// An id that was made and has no file.
#[derive(Debug)]
struct Waiting {
    owner: UserNum,
    /// Milliseconds since the epoch.
    until: u64,
    /// Whether its upload is going on.
    uploading: bool,
}

/// The files. Share behind an `Arc`.
pub struct Media {
    pub(crate) graph: Arc<Graph>,
    pub(crate) settings: Settings,
    /// Turns at making thumbnails.
    pub(crate) turns: Arc<Semaphore>,
    pub(crate) arrived: Notify,
    server_name: String,
    /// What is stored of ids that wait, with who is uploading now.
    waiting: Mutex<HashMap<String, Waiting>>,
}

impl std::fmt::Debug for Media {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Media").field("settings", &self.settings).finish_non_exhaustive()
    }
}

pub(crate) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}

fn new_id() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 18]>())
}

fn outstanding_key(id: &str) -> (String, String) {
    (OUTSTANDING.to_owned(), id.to_owned())
}

/// Between server and id where a file of another server is noted as coming in. No id made here contains it.
const OF: char = '/';

fn write<T: Serialize>(commit: &mut Commit, key: &(String, String), value: &T) -> Result<(), Error> {
    let value = serde_json::to_value(value).map_err(|error| Error::Internal(error.to_string()))?;
    commit.put::<MediaRecords>(key, &Json(value));
    Ok(())
}

fn read<T: DeserializeOwned>(value: serde_json::Value) -> Result<T, Error> {
    serde_json::from_value(value)
        .map_err(|error| Error::Internal(format!("a media record is damaged: {error}")))
}

impl Media {
    /// The files in `graph`, of the server `server_name`.
    #[must_use]
    pub fn new(graph: Arc<Graph>, server_name: &str, settings: Settings) -> Self {
        Self {
            graph,
            settings,
            turns: Arc::new(Semaphore::new(limits::THUMBNAILS_AT_ONCE)),
            arrived: Notify::new(),
            server_name: server_name.to_owned(),
            waiting: Mutex::default(),
        }
    }

    /// What they need to know of the configuration.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Removes what uploads left behind that were cut off by a crash, and remembers which ids wait. Once, at the
    /// start, before anything is uploaded.
    ///
    /// # Errors
    /// Of the store.
    pub fn sweep(&self) -> Result<(), Error> {
        for entry in self.graph.scan::<MediaRecords, _>(&(OUTSTANDING.to_owned(),)).iter() {
            let ((_, id), Json(value)) = entry?;
            let Outstanding { uploader, until } = read(value)?;
            let until = until.filter(|until| *until > now_ms());
            let mut commit = self.graph.begin();
            let (server, name) = id.split_once(OF).unwrap_or((&self.server_name, &id));
            if self.graph.has::<MediaChunks>(&(server.to_owned(), name.to_owned(), String::new(), 0))? {
                self.remove_pieces(&mut commit, server, name);
            }
            match until {
                Some(until) => {
                    self.waiting.lock().insert(id, Waiting { owner: uploader, until, uploading: false });
                }
                None => commit.delete::<MediaRecords>(&outstanding_key(&id)),
            }
            if !commit.is_empty() {
                self.graph.commit(commit)?;
            }
        }
        Ok(())
    }

    /// Makes an id to upload to later; returns it and until when (milliseconds since the epoch).
    ///
    /// # Errors
    /// [`Error::TooManyPending`].
    pub async fn create(&self, user: UserNum) -> Result<(String, u64), Error> {
        let (id, now) = (new_id(), now_ms());
        let until = now.saturating_add(self.settings.pending_upload_lifetime_ms);
        let mut commit = self.graph.begin();
        {
            let mut waiting = self.waiting.lock();
            let of_user = waiting.values().filter(|one| one.owner == user && one.until > now).count();
            if of_user >= self.settings.max_pending_uploads {
                return Err(Error::TooManyPending);
            }
            let expired = waiting.extract_if(|_, one| one.until <= now && !one.uploading);
            for (id, _) in expired.take(limits::EXPIRED_AT_ONCE) {
                commit.delete::<MediaRecords>(&outstanding_key(&id));
            }
            waiting.insert(id.clone(), Waiting { owner: user, until, uploading: false });
        }
        write(&mut commit, &outstanding_key(&id), &Outstanding { uploader: user, until: Some(until) })?;
        self.graph.commit_durably(commit).await?;
        Ok((id, until))
    }

    /// Begins an upload under a new id, or under one made before.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotYours`], [`Error::CannotOverwrite`] for an id that cannot be uploaded to.
    pub fn begin(self: &Arc<Self>, user: UserNum, id: Option<&str>) -> Result<Upload, Error> {
        let own = self.server_name.clone();
        let Some(id) = id else { return Ok(Upload::new(self.clone(), user, own, new_id(), false)) };
        if let Some(one) = self.waiting.lock().get_mut(id) {
            if one.owner != user {
                return Err(Error::NotYours);
            }
            if one.uploading {
                return Err(Error::CannotOverwrite);
            }
            if one.until <= now_ms() {
                return Err(Error::NotFound);
            }
            one.uploading = true;
            return Ok(Upload::new(self.clone(), user, own, id.to_owned(), true));
        }
        match self.stored(&self.server_name, id)? {
            None => Err(Error::NotFound),
            Some(record) if record.uploader != user => Err(Error::NotYours),
            Some(_) => Err(Error::CannotOverwrite),
        }
    }

    /// Begins to take over a file of another server.
    ///
    /// # Errors
    /// [`Error::CannotOverwrite`] if it is here, [`Error::InvalidParam`] if the id is none.
    pub fn begin_copy(self: &Arc<Self>, server: &str, id: &str) -> Result<Upload, Error> {
        let fits = !id.is_empty()
            && id.len() <= limits::REMOTE_ID_BYTES
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        if !fits || server == self.server_name || server.contains(OF) {
            return Err(Error::InvalidParam("this is no id of a file".to_owned()));
        }
        if self.stored(server, id)?.is_some() {
            return Err(Error::CannotOverwrite);
        }
        Ok(Upload::new(self.clone(), UserNum(0), server.to_owned(), id.to_owned(), false))
    }

    fn stored(&self, server: &str, id: &str) -> Result<Option<Record>, Error> {
        if server == OUTSTANDING {
            return Ok(None);
        }
        let key = (server.to_owned(), id.to_owned());
        self.graph.get::<MediaRecords>(&key)?.map(|Json(value)| read(value)).transpose()
    }

    /// What is known of a file.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotYetUploaded`].
    pub fn record(&self, server: &str, id: &str) -> Result<Record, Error> {
        // Looked at first: an upload that is finished in between is found below.
        let waits = server == self.server_name
            && self.waiting.lock().get(id).is_some_and(|one| one.uploading || one.until > now_ms());
        let missing = if waits { Error::NotYetUploaded } else { Error::NotFound };
        self.stored(server, id)?.ok_or(missing)
    }

    /// The same, waiting for an upload that is outstanding for at most `patience`.
    ///
    /// # Errors
    /// As [`Media::record`].
    pub async fn record_within(&self, server: &str, id: &str, patience: Duration) -> Result<Record, Error> {
        let deadline = Instant::now() + patience;
        loop {
            let arrived = self.arrived.notified();
            match self.record(server, id) {
                Err(Error::NotYetUploaded) if Instant::now() < deadline => {}
                other => return other,
            }
            // What was not waited for long enough is asked about once more.
            let _ = tokio::time::timeout_at(deadline, arrived).await;
        }
    }

    /// Removes a file, with all that was made of it. Its id is not used again: ids are random.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn remove(&self, server: &str, id: &str) -> Result<(), Error> {
        if self.stored(server, id)?.is_none() {
            return Err(Error::NotFound);
        }
        let mut commit = self.graph.begin();
        self.remove_pieces(&mut commit, server, id);
        commit.delete::<MediaRecords>(&(server.to_owned(), id.to_owned()));
        self.graph.commit_durably(commit).await?;
        Ok(())
    }

    /// The bytes `range` of a file, to be read piece by piece as they are taken.
    #[must_use]
    pub fn read(self: &Arc<Self>, server: &str, id: &str, range: Range<u64>) -> Pieces {
        Pieces::new(self.clone(), server, id, range)
    }

    /// Piece `n` of a file, or of a rendition of it; nothing beyond its end.
    pub(crate) fn piece(
        &self,
        server: &str,
        id: &str,
        rendition: &str,
        n: u32,
    ) -> Result<Option<Bytes>, Error> {
        let key = (server.to_owned(), id.to_owned(), rendition.to_owned(), n);
        Ok(self.graph.get::<MediaChunks>(&key)?.map(|Raw(bytes)| bytes.into()))
    }

    // ---- for uploads -----------------------------------------------------------------------------------------

    /// Stores piece `n` of an upload.
    pub(crate) fn put_piece(&self, commit: &mut Commit, server: &str, id: &str, n: u32, piece: Vec<u8>) {
        commit.put::<MediaChunks>(&(server.to_owned(), id.to_owned(), String::new(), n), &Raw(piece));
    }

    /// Notes that there will be pieces to remove if the upload is not finished.
    pub(crate) fn put_note(
        &self,
        commit: &mut Commit,
        server: &str,
        id: &str,
        uploader: UserNum,
    ) -> Result<(), Error> {
        write(commit, &self.note_key(server, id), &Outstanding { uploader, until: None })
    }

    /// Makes an upload a file.
    pub(crate) fn put_record(
        &self,
        commit: &mut Commit,
        server: &str,
        id: &str,
        record: &Record,
    ) -> Result<(), Error> {
        commit.delete::<MediaRecords>(&self.note_key(server, id));
        write(commit, &(server.to_owned(), id.to_owned()), record)
    }

    fn note_key(&self, server: &str, id: &str) -> (String, String) {
        if server == self.server_name {
            outstanding_key(id)
        } else {
            outstanding_key(&format!("{server}{OF}{id}"))
        }
    }

    fn remove_pieces(&self, commit: &mut Commit, server: &str, id: &str) {
        commit.delete_all::<MediaChunks, _>(&(server.to_owned(), id.to_owned()));
    }

    /// The id has its file: it waits no longer.
    pub(crate) fn forget_waiting(&self, id: &str) {
        self.waiting.lock().remove(id);
    }

    /// Removes what was stored of an upload. An id that waited for it waits on.
    pub(crate) fn abandon(&self, server: &str, id: &str, waited: bool, pieces: u32) -> Result<(), Error> {
        if pieces > 0 {
            let mut commit = self.graph.begin();
            self.remove_pieces(&mut commit, server, id);
            if !waited {
                commit.delete::<MediaRecords>(&self.note_key(server, id));
            }
            self.graph.commit(commit)?;
        }
        if let Some(one) = self.waiting.lock().get_mut(id) {
            one.uploading = false;
        }
        Ok(())
    }
}
