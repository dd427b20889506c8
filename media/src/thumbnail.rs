//! Thumbnails (specification: thumbnails).

use crate::{Error, Media, Record, limits};
use image::{
    DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, codecs::jpeg::JpegEncoder,
    imageops::FilterType,
};
use postern_graph::{codec::Raw, schema::MediaChunks};
use std::io::Cursor;

/// How an image is made to fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Cut to the shape.
    Crop,
    /// Made to fit inside, keeping its shape.
    Scale,
}

impl Method {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Crop => "crop",
            Self::Scale => "scale",
        }
    }
}

/// The size and shape of a thumbnail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// How it is made to fit.
    pub method: Method,
}

/// The sizes of the specification.
const SIZES: [Size; 5] = [
    Size { width: 32, height: 32, method: Method::Crop },
    Size { width: 96, height: 96, method: Method::Crop },
    Size { width: 320, height: 240, method: Method::Scale },
    Size { width: 640, height: 480, method: Method::Scale },
    Size { width: 800, height: 600, method: Method::Scale },
];

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
        format!("{}x{}-{}", self.width, self.height, self.method.as_str())
    }
}

impl Media {
    /// The name of the rendition that is a file's thumbnail, made now if need be, with its content type and size.
    ///
    /// # Errors
    /// [`Error::NoThumbnail`] if the file is no image that can be read.
    pub async fn thumbnail(
        &self,
        server: &str,
        id: &str,
        record: &Record,
        size: Size,
    ) -> Result<(String, &'static str, u64), Error> {
        if size.width == 0 || size.height == 0 {
            return Err(Error::InvalidParam("width and height are above zero".to_owned()));
        }
        let size = size.made(self.settings.dynamic_thumbnails);
        let rendition = size.rendition();
        if let Some(made) = self.piece(server, id, &rendition, 0)? {
            return Ok((rendition, content_type(&made), made.len() as u64));
        }
        if record.size > limits::THUMBNAIL_SOURCE_BYTES {
            return Err(Error::NoThumbnail("the file is too large".to_owned()));
        }
        let closed = |_| Error::Internal("the server is stopping".to_owned());
        let _turn = self.thumbnails.acquire().await.map_err(closed)?;
        let source = self.whole(server, id)?;
        let most = self.settings.max_image_pixels;
        let made = tokio::task::spawn_blocking(move || make(&source, size, most))
            .await
            .map_err(|error| Error::NoThumbnail(error.to_string()))??;
        let (kind, bytes) = (content_type(&made), made.len() as u64);
        let mut commit = self.graph.begin();
        commit.put::<MediaChunks>(&(server.to_owned(), id.to_owned(), rendition.clone(), 0), &Raw(made));
        // Not waited for: what is lost is made again.
        self.graph.commit(commit)?;
        Ok((rendition, kind, bytes))
    }

    fn whole(&self, server: &str, id: &str) -> Result<Vec<u8>, Error> {
        let mut whole = Vec::new();
        let mut n = 0;
        while let Some(piece) = self.piece(server, id, "", n)? {
            whole.extend_from_slice(&piece);
            n += 1;
        }
        Ok(whole)
    }
}

fn content_type(made: &[u8]) -> &'static str {
    if made.starts_with(b"\x89PNG") { "image/png" } else { "image/jpeg" }
}

fn make(source: &[u8], size: Size, max_pixels: u64) -> Result<Vec<u8>, Error> {
    let no = |error: &dyn std::fmt::Display| Error::NoThumbnail(error.to_string());
    let reader = ImageReader::new(Cursor::new(source)).with_guessed_format().map_err(|error| no(&error))?;
    let format = reader.format();
    let mut decoder = reader.into_decoder().map_err(|error| no(&error))?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 || pixels > max_pixels {
        return Err(Error::NoThumbnail("the image has too many pixels".to_owned()));
    }
    let mut bounds = Limits::default();
    // Up to 16 bytes a pixel, and as much again for working on it.
    bounds.max_alloc = Some(pixels.saturating_mul(32).saturating_add(1 << 20));
    decoder.set_limits(bounds).map_err(|error| no(&error))?;
    let orientation = decoder.orientation().map_err(|error| no(&error))?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(|error| no(&error))?;
    image.apply_orientation(orientation);
    let larger = image.width() > size.width || image.height() > size.height;
    let image = match size.method {
        Method::Crop => image.resize_to_fill(size.width, size.height, FilterType::Triangle),
        Method::Scale if larger => image.resize(size.width, size.height, FilterType::Triangle),
        Method::Scale => image,
    };
    let mut made = Vec::new();
    if image.color().has_alpha() || format == Some(ImageFormat::Png) {
        image.write_to(&mut Cursor::new(&mut made), ImageFormat::Png).map_err(|error| no(&error))?;
    } else {
        let encoder = JpegEncoder::new_with_quality(&mut made, 80);
        image.into_rgb8().write_with_encoder(encoder).map_err(|error| no(&error))?;
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{Rgb, RgbImage};

    fn png(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        DynamicImage::ImageRgb8(RgbImage::from_pixel(width, height, Rgb([200, 30, 30])))
            .write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png)
            .unwrap();
        bytes
    }

    fn dimensions(bytes: &[u8]) -> (u32, u32) {
        ImageReader::new(Cursor::new(bytes)).with_guessed_format().unwrap().into_dimensions().unwrap()
    }

    #[test]
    fn scaling_keeps_the_shape_and_cropping_fills_it() {
        let source = png(400, 200);
        let scale = Size { width: 100, height: 100, method: Method::Scale };
        assert_eq!(dimensions(&make(&source, scale, 1 << 20).unwrap()), (100, 50));
        let crop = Size { width: 96, height: 96, method: Method::Crop };
        assert_eq!(dimensions(&make(&source, crop, 1 << 20).unwrap()), (96, 96));
    }

    #[test]
    fn a_small_image_is_not_blown_up() {
        let scale = Size { width: 800, height: 600, method: Method::Scale };
        assert_eq!(dimensions(&make(&png(10, 20), scale, 1 << 20).unwrap()), (10, 20));
    }

    #[test]
    fn an_image_that_claims_to_be_huge_is_refused_before_it_is_decoded() {
        let mut bomb = png(4, 4);
        // Width and height of the header; its checksum is put right, so that only the size is wrong.
        bomb[16..24].copy_from_slice(&[0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff]);
        let crop = Size { width: 32, height: 32, method: Method::Crop };
        assert!(matches!(make(&bomb, crop, 32_000_000), Err(Error::NoThumbnail(_))));
    }

    #[test]
    fn what_is_no_image_has_no_thumbnail() {
        let crop = Size { width: 32, height: 32, method: Method::Crop };
        for bytes in [&b""[..], b"hello", b"\x89PNG\r\n\x1a\n", &png(40, 40)[..60]] {
            assert!(matches!(make(bytes, crop, 1 << 20), Err(Error::NoThumbnail(_))));
        }
    }

    #[test]
    fn the_sizes_of_the_specification_are_made_unless_any_are_allowed() {
        let asked = Size { width: 50, height: 40, method: Method::Crop };
        assert_eq!(asked.made(false), SIZES[1]);
        assert_eq!(asked.made(true), asked);
        let huge = Size { width: 9_000, height: 9_000, method: Method::Scale };
        assert_eq!(huge.made(false), SIZES[4]);
    }
}
