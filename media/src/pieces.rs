//! Files going out.

use crate::{Error, Media, limits::PIECE_BYTES};
use bytes::Bytes;
use std::{ops::Range, sync::Arc};

/// Part of a file, read piece by piece as it is taken. After an error it ends.
#[derive(Debug)]
pub struct Pieces {
    media: Arc<Media>,
    server: String,
    id: String,
    left: Range<u64>,
}

impl Pieces {
    pub(crate) fn new(media: Arc<Media>, server: &str, id: &str, range: Range<u64>) -> Self {
        Self { media, server: server.to_owned(), id: id.to_owned(), left: range }
    }

    fn take_next(&mut self) -> Result<Bytes, Error> {
        let size = PIECE_BYTES as u64;
        let damaged = || Error::Internal(format!("bytes of the file {} are missing", self.id));
        let n = u32::try_from(self.left.start / size).map_err(|_| damaged())?;
        let piece = self.media.piece(&self.server, &self.id, "", n)?.ok_or_else(damaged)?;
        let from = usize::try_from(self.left.start % size).map_err(|_| damaged())?;
        let wanted = usize::try_from(self.left.end - self.left.start).unwrap_or(usize::MAX);
        let to = from.saturating_add(wanted).min(piece.len());
        if to <= from {
            return Err(damaged());
        }
        let part = piece.slice(from..to);
        self.left.start += part.len() as u64;
        Ok(part)
    }
}

impl Iterator for Pieces {
    type Item = Result<Bytes, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left.is_empty() {
            return None;
        }
        let next = self.take_next();
        if next.is_err() {
            self.left = 0..0;
        }
        Some(next)
    }
}
