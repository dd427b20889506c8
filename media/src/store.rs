//! Storing and reading files.

use crate::{Error, limits};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use postern_graph::{
    Graph, UserNum,
    codec::{Json, Raw},
    schema::{Media as MediaRecords, MediaChunks},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};

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
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Its content type, as the uploader said.
    pub content_type: Option<String>,
    /// Its name.
    pub file_name: Option<String>,
    /// Its size, bytes.
    pub size: u64,
    /// When it was uploaded or its id made, milliseconds since the epoch.
    pub created: u64,
    /// Who uploaded it.
    pub uploader: UserNum,
    /// Until when its id waits for the upload, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pending_until: Option<u64>,
    /// Whether it is being uploaded at the moment (or was, when the server died).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    uploading: bool,
}

/// The files. Share behind an `Arc`.
pub struct Media {
    pub(crate) graph: Arc<Graph>,
    pub(crate) settings: Settings,
    pub(crate) thumbnails: Semaphore,
    server_name: String,
    /// Ids that wait for their upload: whose, until when.
    pending: Mutex<HashMap<String, (UserNum, u64)>>,
    arrived: Notify,
}

impl std::fmt::Debug for Media {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Media").field("settings", &self.settings).finish_non_exhaustive()
    }
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}

impl Media {
    /// The files in `graph`, of the server `server_name`.
    #[must_use]
    pub fn new(graph: Arc<Graph>, server_name: &str, settings: Settings) -> Self {
        Self {
            graph,
            settings,
            thumbnails: Semaphore::new(limits::THUMBNAILS_AT_ONCE),
            server_name: server_name.to_owned(),
            pending: Mutex::default(),
            arrived: Notify::new(),
        }
    }

    /// What they need to know of the configuration.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Removes what uploads left behind that were cut off by a crash, and remembers which ids wait. Once, at the start.
    pub fn sweep(&self) -> Result<(), Error> {
        for entry in self.graph.scan::<MediaRecords, _>(&(self.server_name.clone(),)).iter() {
            let ((server, id), Json(value)) = entry?;
            let record: Record =
                serde_json::from_value(value).map_err(|error| Error::Internal(error.to_string()))?;
            if record.uploading {
                self.remove(&server, &id)?;
            } else if let Some(until) = record.pending_until {
                if until < now_ms() {
                    self.remove(&server, &id)?;
                } else {
                    self.pending.lock().insert(id, (record.uploader, until));
                }
            }
        }
        Ok(())
    }

    fn remove(&self, server: &str, id: &str) -> Result<(), Error> {
        let key = (server.to_owned(), id.to_owned());
        let mut commit = self.graph.begin();
        commit.delete_all::<MediaChunks, _>(&key);
        commit.delete::<MediaRecords>(&key);
        self.graph.commit(commit)?;
        Ok(())
    }

    fn key(&self, id: &str) -> (String, String) {
        (self.server_name.clone(), id.to_owned())
    }

    fn put(&self, id: &str, record: &Record) -> Result<postern_graph::Commit, Error> {
        let value = serde_json::to_value(record).map_err(|error| Error::Internal(error.to_string()))?;
        let mut commit = self.graph.begin();
        commit.put::<MediaRecords>(&self.key(id), &Json(value));
        Ok(commit)
    }

    fn stored(&self, server: &str, id: &str) -> Result<Option<Record>, Error> {
        let key = (server.to_owned(), id.to_owned());
        let Some(Json(value)) = self.graph.get::<MediaRecords>(&key)? else { return Ok(None) };
        serde_json::from_value(value).map(Some).map_err(|error| Error::Internal(error.to_string()))
    }

    /// Makes an id to upload to later; returns it and until when (milliseconds since the epoch).
    ///
    /// # Errors
    /// [`Error::TooManyPending`].
    pub async fn create(&self, user: UserNum) -> Result<(String, u64), Error> {
        let id = new_id();
        let until = now_ms().saturating_add(self.settings.pending_upload_lifetime_ms);
        {
            let mut pending = self.pending.lock();
            let now = now_ms();
            pending.retain(|_, (_, until)| *until > now);
            let waiting = pending.values().filter(|(owner, _)| *owner == user).count();
            if waiting >= self.settings.max_pending_uploads {
                return Err(Error::TooManyPending);
            }
            pending.insert(id.clone(), (user, until));
        }
        let record = Record {
            content_type: None,
            file_name: None,
            size: 0,
            created: now_ms(),
            uploader: user,
            pending_until: Some(until),
            uploading: false,
        };
        let commit = self.put(&id, &record)?;
        self.graph.commit_durably(commit).await?;
        Ok((id, until))
    }

    /// Begins an upload under a new id, or under one made before.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotYours`], [`Error::CannotOverwrite`] for an id that cannot be uploaded to.
    pub fn begin(self: &Arc<Self>, user: UserNum, id: Option<&str>) -> Result<Upload, Error> {
        let record = Record {
            content_type: None,
            file_name: None,
            size: 0,
            created: now_ms(),
            uploader: user,
            pending_until: None,
            uploading: true,
        };
        let (id, waiting) = match id {
            None => (new_id(), None),
            Some(id) => {
                let waiting = self.stored(&self.server_name, id)?.ok_or(Error::NotFound)?;
                if waiting.uploader != user {
                    return Err(Error::NotYours);
                }
                let Some(until) = waiting.pending_until else { return Err(Error::CannotOverwrite) };
                if until < now_ms() {
                    return Err(Error::NotFound);
                }
                if self.pending.lock().remove(id).is_none() {
                    // Another upload to the same id is in progress.
                    return Err(Error::CannotOverwrite);
                }
                (id.to_owned(), Some(waiting))
            }
        };
        let commit = self.put(&id, &record)?;
        self.graph.commit(commit)?;
        Ok(Upload {
            media: self.clone(),
            id,
            record,
            waiting,
            pieces: 0,
            buffer: BytesMut::new(),
            finished: false,
        })
    }

    /// What is known of a file.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotYetUploaded`].
    pub fn record(&self, server: &str, id: &str) -> Result<Record, Error> {
        let record = self.stored(server, id)?.ok_or(Error::NotFound)?;
        match record.pending_until {
            Some(until) if until < now_ms() => Err(Error::NotFound),
            Some(_) => Err(Error::NotYetUploaded),
            None if record.uploading => Err(Error::NotYetUploaded),
            None => Ok(record),
        }
    }

    /// The same, waiting for an upload that is outstanding for at most `patience`.
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

    /// A piece of a file, or of a rendition of it; nothing beyond its end.
    pub fn piece(&self, server: &str, id: &str, rendition: &str, n: u32) -> Result<Option<Bytes>, Error> {
        let key = (server.to_owned(), id.to_owned(), rendition.to_owned(), n);
        Ok(self.graph.get::<MediaChunks>(&key)?.map(|Raw(bytes)| bytes.into()))
    }
}

fn new_id() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 18]>())
}

/// A file being uploaded. Dropped before it is finished, it leaves nothing.
#[derive(Debug)]
pub struct Upload {
    media: Arc<Media>,
    id: String,
    record: Record,
    /// The record of the id that waited for it.
    waiting: Option<Record>,
    pieces: u32,
    buffer: BytesMut,
    finished: bool,
}

impl Upload {
    /// The id it will have.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// [`Error::TooLarge`].
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.record.size += bytes.len() as u64;
        if self.record.size > self.media.settings.max_upload_bytes {
            return Err(Error::TooLarge(self.media.settings.max_upload_bytes));
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = limits::PIECE_BYTES - self.buffer.len();
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.buffer.extend_from_slice(now);
            rest = later;
            if self.buffer.len() == limits::PIECE_BYTES {
                self.write_piece()?;
            }
        }
        Ok(())
    }

    fn write_piece(&mut self) -> Result<(), Error> {
        let piece = self.buffer.split();
        let mut commit = self.media.graph.begin();
        let (server, id) = self.media.key(&self.id);
        commit.put::<MediaChunks>(&(server, id, String::new(), self.pieces), &Raw(piece.to_vec()));
        self.media.graph.commit(commit)?;
        self.pieces += 1;
        Ok(())
    }

    /// Makes it a file; durable on return.
    pub async fn finish(
        mut self,
        content_type: Option<String>,
        file_name: Option<String>,
    ) -> Result<String, Error> {
        if !self.buffer.is_empty() {
            self.write_piece()?;
        }
        self.record.content_type = content_type.filter(|text| text.len() <= limits::CONTENT_TYPE_BYTES);
        self.record.file_name =
            file_name.filter(|name| !name.is_empty() && name.len() <= limits::FILE_NAME_BYTES);
        self.record.uploading = false;
        let commit = self.media.put(&self.id, &self.record)?;
        self.media.graph.commit_durably(commit).await?;
        self.finished = true;
        self.media.arrived.notify_waiters();
        Ok(std::mem::take(&mut self.id))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let undo = || -> Result<(), Error> {
            self.media.remove(&self.media.server_name, &self.id)?;
            if let Some(waiting) = &self.waiting {
                // The id may be uploaded to again.
                let commit = self.media.put(&self.id, waiting)?;
                self.media.graph.commit(commit)?;
                if let Some(until) = waiting.pending_until {
                    self.media.pending.lock().insert(self.id.clone(), (waiting.uploader, until));
                }
            }
            Ok(())
        };
        if let Err(error) = undo() {
            tracing::error!(%error, "what a broken upload left could not be removed");
        }
    }
}
