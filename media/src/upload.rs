//! Files coming in.

use crate::{Error, Media, Record, limits, store::now_ms};
use bytes::BytesMut;
use postern_graph::UserNum;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// A file being uploaded. Dropped before it is finished, it leaves nothing.
#[derive(Debug)]
pub struct Upload {
    media: Arc<Media>,
    user: UserNum,
    /// The server it is of.
    server: String,
    id: String,
    /// Whether the id was made before and waited for this.
    waited: bool,
    size: u64,
    digest: Sha256,
    /// Pieces stored so far.
    pieces: u32,
    /// The piece being gathered; the last one is stored together with the record.
    piece: BytesMut,
    /// The label it will have.
    label: Option<String>,
    finished: bool,
}

impl Upload {
    pub(crate) fn new(media: Arc<Media>, user: UserNum, server: String, id: String, waited: bool) -> Self {
        Self {
            media,
            user,
            server,
            id,
            waited,
            size: 0,
            digest: Sha256::new(),
            pieces: 0,
            piece: BytesMut::new(),
            label: None,
            finished: false,
        }
    }

    /// The id it will have.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Gives it a label.
    #[must_use]
    pub fn labelled(mut self, label: Option<String>) -> Self {
        self.label = label;
        self
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// [`Error::TooLarge`].
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let most = self.media.settings.max_upload_bytes;
        self.size += bytes.len() as u64;
        if self.size > most {
            return Err(Error::TooLarge(most));
        }
        self.digest.update(bytes);
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.piece.len() == limits::PIECE_BYTES {
                self.store_piece()?;
            }
            let (now, later) = rest.split_at(rest.len().min(limits::PIECE_BYTES - self.piece.len()));
            self.piece.extend_from_slice(now);
            rest = later;
        }
        Ok(())
    }

    fn store_piece(&mut self) -> Result<(), Error> {
        let mut commit = self.media.graph.begin();
        if self.pieces == 0 && !self.waited {
            self.media.put_note(&mut commit, &self.server, &self.id, self.user)?;
        }
        self.media.put_piece(&mut commit, &self.server, &self.id, self.pieces, self.piece.to_vec());
        self.piece.clear();
        // Counted first: what failed halfway is removed too.
        self.pieces += 1;
        self.media.graph.commit(commit)?;
        Ok(())
    }

    /// Makes it a file, whose id is returned; durable on return. A name or content type that is too long is left out.
    ///
    /// # Errors
    /// Of the store.
    pub async fn finish(
        mut self,
        content_type: Option<String>,
        file_name: Option<String>,
    ) -> Result<String, Error> {
        let fits = |text: &String, most: usize| !text.is_empty() && text.len() <= most;
        let digest = std::mem::take(&mut self.digest).finalize();
        let record = Record {
            content_type: content_type.filter(|text| fits(text, limits::CONTENT_TYPE_BYTES)),
            file_name: file_name.filter(|text| fits(text, limits::FILE_NAME_BYTES)),
            size: self.size,
            sha256: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
            created: now_ms(),
            uploader: self.user,
            label: self.label.take(),
        };
        let mut commit = self.media.graph.begin();
        if !self.piece.is_empty() {
            self.media.put_piece(&mut commit, &self.server, &self.id, self.pieces, self.piece.to_vec());
        }
        self.media.put_record(&mut commit, &self.server, &self.id, &record)?;
        let seq = self.media.graph.commit(commit)?;
        // It is there from here on, also if nobody waits for the disk any more.
        self.finished = true;
        self.media.forget_waiting(&self.id);
        self.media.graph.durable_at(seq).await?;
        self.media.arrived.notify_waiters();
        Ok(std::mem::take(&mut self.id))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.finished
            && let Err(error) = self.media.abandon(&self.server, &self.id, self.waited, self.pieces)
        {
            tracing::error!(%error, "what a broken upload left could not be removed");
        }
    }
}
