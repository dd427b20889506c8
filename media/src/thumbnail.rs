//! Thumbnails (specification: thumbnails): made when first asked for, and kept.

use crate::{Error, Media, Method, Record, Rendered, Size, limits, render};
use bytes::Bytes;
use postern_graph::{codec::Raw, schema::MediaChunks};
use std::sync::Arc;

/// The sizes of the specification.
const SIZES: [Size; 5] = [
    Size { width: 32, height: 32, method: Method::Crop },
    Size { width: 96, height: 96, method: Method::Crop },
    Size { width: 320, height: 240, method: Method::Scale },
    Size { width: 640, height: 480, method: Method::Scale },
    Size { width: 800, height: 600, method: Method::Scale },
];

/// A thumbnail, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thumbnail {
    /// A PNG or JPEG.
    pub bytes: Bytes,
    /// `image/png` or `image/jpeg`, by what the bytes are.
    pub content_type: &'static str,
    /// Which of the file's thumbnails it is: `WxH-method`.
    pub rendition: String,
}

impl Size {
    /// The size that is made when this one is asked for: itself, or the smallest of the specification's that is at least
    /// as large.
    fn made(self, dynamic: bool) -> Self {
        if dynamic {
            let edge = |pixels: u32| pixels.clamp(1, limits::THUMBNAIL_EDGE);
            return Self { width: edge(self.width), height: edge(self.height), method: self.method };
        }
        let fits = |size: &&Self| size.width >= self.width && size.height >= self.height;
        let same = |size: &&Self| size.method == self.method;
        *SIZES
            .iter()
            .filter(same)
            .find(fits)
            .or_else(|| SIZES.iter().find(fits))
            .unwrap_or(&SIZES[SIZES.len() - 1])
    }

    fn rendition(self) -> String {
        let method = match self.method {
            Method::Crop => "crop",
            Method::Scale => "scale",
        };
        format!("{}x{}-{method}", self.width, self.height)
    }
}

impl Media {
    /// The thumbnail of a file that comes closest to `size`, made now if there is none.
    ///
    /// # Errors
    /// [`Error::NoThumbnail`] if the file is no image that can be read, [`Error::ImageTooLarge`] if it is too large.
    pub async fn thumbnail(
        self: &Arc<Self>,
        server: &str,
        id: &str,
        record: &Record,
        size: Size,
    ) -> Result<Thumbnail, Error> {
        if size.width == 0 || size.height == 0 {
            return Err(Error::InvalidParam("width and height are above zero".to_owned()));
        }
        let size = size.made(self.settings.dynamic_thumbnails);
        if let Some(kept) = self.kept(server, id, &size.rendition())? {
            return Ok(kept);
        }
        if record.size > limits::THUMBNAIL_SOURCE_BYTES {
            let most = limits::THUMBNAIL_SOURCE_BYTES;
            return Err(Error::ImageTooLarge(format!("the file has more than {most} bytes")));
        }
        let turn = self.turns.clone().acquire_owned().await;
        let turn = turn.map_err(|_| Error::Internal("the server is stopping".to_owned()))?;
        let (media, server, id) = (self.clone(), server.to_owned(), id.to_owned());
        tokio::task::spawn_blocking(move || {
            // Kept until it is made, also if who asked for it has gone: the turns bound what is decoded at a time.
            let _turn = turn;
            media.make(&server, &id, size)
        })
        .await
        .map_err(|error| Error::NoThumbnail(error.to_string()))?
    }

    fn kept(&self, server: &str, id: &str, rendition: &str) -> Result<Option<Thumbnail>, Error> {
        let kept = match self.piece(server, id, rendition, 0)? {
            // Nothing in it: the file is its own thumbnail.
            Some(bytes) if bytes.is_empty() => self.piece(server, id, "", 0)?,
            other => other,
        };
        Ok(kept.map(|bytes| thumbnail(bytes, rendition.to_owned())))
    }

    fn make(&self, server: &str, id: &str, size: Size) -> Result<Thumbnail, Error> {
        let rendition = size.rendition();
        // Made while this waited for its turn?
        if let Some(kept) = self.kept(server, id, &rendition)? {
            return Ok(kept);
        }
        let Some(first) = self.piece(server, id, "", 0)? else {
            return Err(Error::NoThumbnail("the file is empty".to_owned()));
        };
        // What is no image is not read further.
        image::guess_format(&first).map_err(|error| Error::NoThumbnail(error.to_string()))?;
        let mut source = first.to_vec();
        let mut n = 1;
        while let Some(piece) = self.piece(server, id, "", n)? {
            source.extend_from_slice(&piece);
            n += 1;
        }
        let (stored, bytes) = match render(&source, size, self.settings.max_image_pixels)? {
            Rendered::Original => (Vec::new(), first),
            Rendered::Made(made) => (made.clone(), made.into()),
        };
        let others = self.graph.scan::<MediaChunks, _>(&(server.to_owned(), id.to_owned()));
        // The empty name of the file itself sorts behind all others.
        let others = others.below(&(server.to_owned(), id.to_owned(), String::new())).iter();
        if others.take(limits::THUMBNAILS_KEPT).count() < limits::THUMBNAILS_KEPT {
            let mut commit = self.graph.begin();
            let key = (server.to_owned(), id.to_owned(), rendition.clone(), 0);
            commit.put::<MediaChunks>(&key, &Raw(stored));
            // The disk is not waited for: what is lost is made again.
            self.graph.commit(commit)?;
        }
        Ok(thumbnail(bytes, rendition))
    }
}

fn thumbnail(bytes: Bytes, rendition: String) -> Thumbnail {
    let content_type = if bytes.starts_with(b"\x89PNG") { "image/png" } else { "image/jpeg" };
    Thumbnail { bytes, content_type, rendition }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sizes_of_the_specification_are_made_unless_any_are_allowed() {
        let asked = Size { width: 50, height: 40, method: Method::Crop };
        assert_eq!(asked.made(false), SIZES[1]);
        assert_eq!(asked.made(true), asked);
        let huge = Size { width: 9_000, height: 9_000, method: Method::Scale };
        assert_eq!(huge.made(false), SIZES[4]);
        assert_eq!(huge.made(true).width, limits::THUMBNAIL_EDGE);
    }
}
