//! Making a small image of a large one that nobody vouches for.
//!
//! The size is read and judged before anything is decoded, so that a small file cannot ask for much memory. An
//! animation is decoded up to its first picture.

use crate::{Error, limits};
use image::{
    DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, codecs::jpeg::JpegEncoder,
    imageops::FilterType, metadata::Orientation,
};
use std::io::Cursor;

/// The quality of a JPEG, of 100.
const JPEG_QUALITY: u8 = 80;

/// How an image is made to fit (specification: thumbnails).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Cut to the shape.
    Crop,
    /// Made to fit inside, keeping its shape.
    Scale,
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

/// A small image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rendered {
    /// The file itself is one already: PNG or JPEG, still, upright, no larger than asked for and no more than one piece.
    Original,
    /// A PNG or JPEG.
    Made(Vec<u8>),
}

/// Makes a small image of the one in `source`, which may have `max_pixels`. It is never larger than the original.
///
/// # Errors
/// [`Error::NoThumbnail`] if `source` cannot be read, [`Error::ImageTooLarge`] if it is too large.
pub fn render(source: &[u8], size: Size, max_pixels: u64) -> Result<Rendered, Error> {
    let mut reader = ImageReader::new(Cursor::new(source)).with_guessed_format().map_err(|e| no(&e))?;
    let mut bounds = Limits::default();
    bounds.max_alloc = Some(limits::DECODER_BYTES);
    reader.limits(bounds.clone());
    let format = reader.format();
    let mut decoder = reader.into_decoder().map_err(|e| no(&e))?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > max_pixels {
        return Err(Error::ImageTooLarge(format!("{width}x{height} is more than {max_pixels} pixels")));
    }
    let most = max_pixels.saturating_mul(limits::PIXEL_BYTES);
    if decoder.total_bytes() > most {
        return Err(Error::ImageTooLarge(format!("decoded it takes more than {most} bytes")));
    }
    bounds.max_alloc = Some(most.saturating_add(limits::DECODER_BYTES));
    decoder.set_limits(bounds).map_err(|e| no(&e))?;
    // Which way is up stands in metadata; where these are damaged, the image is shown as it is.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(|e| no(&e))?;
    image.apply_orientation(orientation);

    let small = image.width() <= size.width && image.height() <= size.height;
    if small && orientation == Orientation::NoTransforms && may_serve(format, source) {
        return Ok(Rendered::Original);
    }
    let image = if small { image } else { fit(&image, size) };
    let mut made = Vec::new();
    if image.color().has_alpha() {
        let image = DynamicImage::from(image.into_rgba8());
        image.write_to(&mut Cursor::new(&mut made), ImageFormat::Png).map_err(|e| no(&e))?;
    } else if format == Some(ImageFormat::Png) {
        let image = DynamicImage::from(image.into_rgb8());
        image.write_to(&mut Cursor::new(&mut made), ImageFormat::Png).map_err(|e| no(&e))?;
    } else {
        let encoder = JpegEncoder::new_with_quality(&mut made, JPEG_QUALITY);
        image.into_rgb8().write_with_encoder(encoder).map_err(|e| no(&e))?;
    }
    Ok(Rendered::Made(made))
}

fn no(error: &dyn std::fmt::Display) -> Error {
    Error::NoThumbnail(error.to_string())
}

/// Whether a file may stand for its own thumbnail. A PNG with an animation says so in a chunk of that name.
fn may_serve(format: Option<ImageFormat>, source: &[u8]) -> bool {
    source.len() <= limits::PIECE_BYTES
        && match format {
            Some(ImageFormat::Jpeg) => true,
            Some(ImageFormat::Png) => !source.windows(4).any(|name| name == b"acTL"),
            _ => false,
        }
}

/// An image that does not fit into `size`, made to.
fn fit(image: &DynamicImage, size: Size) -> DynamicImage {
    match size.method {
        Method::Scale => image.resize(size.width, size.height, FilterType::Triangle),
        Method::Crop => {
            // The largest rectangle of that shape that takes no more pixels than there are: nothing is blown up.
            let ratio = |have: u32, want: u32| f64::from(have) / f64::from(want.max(1));
            let share = ratio(image.width(), size.width).min(ratio(image.height(), size.height)).min(1.0);
            let edge = |pixels: u32| ((f64::from(pixels) * share).round() as u32).max(1);
            image.resize_to_fill(edge(size.width), edge(size.height), FilterType::Triangle)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{Frame, Rgb, RgbImage, Rgba, RgbaImage, codecs::gif::GifEncoder};

    const MANY: u64 = 1 << 20;
    const CROP: Size = Size { width: 96, height: 96, method: Method::Crop };
    const SCALE: Size = Size { width: 100, height: 100, method: Method::Scale };

    /// Left half red, right half blue.
    fn picture(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, _| Rgb(if x < width / 2 { [230, 0, 0] } else { [0, 0, 230] }))
    }

    fn encoded(image: DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Vec::new();
        image.write_to(&mut Cursor::new(&mut bytes), format).unwrap();
        bytes
    }

    fn png(width: u32, height: u32) -> Vec<u8> {
        encoded(picture(width, height).into(), ImageFormat::Png)
    }

    fn made(source: &[u8], size: Size) -> (DynamicImage, ImageFormat) {
        let Rendered::Made(bytes) = render(source, size, MANY).unwrap() else {
            panic!("the original is used")
        };
        (image::load_from_memory(&bytes).unwrap(), image::guess_format(&bytes).unwrap())
    }

    fn dimensions(source: &[u8], size: Size) -> (u32, u32) {
        let (image, _) = made(source, size);
        (image.width(), image.height())
    }

    #[test]
    fn scaling_keeps_the_shape_and_cropping_fills_it() {
        assert_eq!(dimensions(&png(400, 200), SCALE), (100, 50));
        assert_eq!(dimensions(&png(400, 200), CROP), (96, 96));
        assert_eq!(dimensions(&png(3_000, 1), SCALE), (100, 1));
    }

    #[test]
    fn nothing_is_blown_up() {
        for size in [CROP, SCALE] {
            assert_eq!(render(&png(10, 20), size, MANY).unwrap(), Rendered::Original);
        }
        let webp = encoded(picture(10, 20).into(), ImageFormat::WebP);
        assert_eq!(dimensions(&webp, SCALE), (10, 20));
        // Too low to fill the square: a smaller square.
        assert_eq!(dimensions(&png(400, 40), CROP), (40, 40));
    }

    #[test]
    fn photographs_stay_jpeg_and_transparency_stays() {
        let jpeg = encoded(picture(400, 200).into(), ImageFormat::Jpeg);
        assert_eq!(made(&jpeg, SCALE).1, ImageFormat::Jpeg);
        let clear = RgbaImage::from_pixel(400, 200, Rgba([0, 200, 0, 0]));
        let (image, format) = made(&encoded(clear.into(), ImageFormat::WebP), SCALE);
        assert_eq!(format, ImageFormat::Png);
        assert_eq!(image.to_rgba8().get_pixel(5, 5).0[3], 0);
    }

    #[test]
    fn sixteen_bits_a_channel_become_eight() {
        let deep = DynamicImage::from(picture(400, 200)).into_rgb16();
        let (image, _) = made(&encoded(deep.into(), ImageFormat::Png), SCALE);
        assert_eq!(image.color(), image::ColorType::Rgb8);
    }

    #[test]
    fn an_animation_gives_its_first_picture() {
        let mut bytes = Vec::new();
        {
            let mut encoder = GifEncoder::new(&mut bytes);
            for color in [[255, 0, 0, 255], [0, 0, 255, 255]] {
                encoder.encode_frame(Frame::new(RgbaImage::from_pixel(40, 40, Rgba(color)))).unwrap();
            }
        }
        let (image, format) = made(&bytes, CROP);
        assert_eq!(format, ImageFormat::Png);
        assert_eq!((image.width(), image.height()), (40, 40));
        assert_eq!(image.to_rgba8().get_pixel(9, 9).0, [255, 0, 0, 255]);
    }

    /// A JPEG with an EXIF block that says how to turn it.
    fn turned(orientation: u8) -> Vec<u8> {
        let jpeg = encoded(picture(400, 200).into(), ImageFormat::Jpeg);
        let mut exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
        exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
        let mut bytes = jpeg[..2].to_vec();
        bytes.extend([0xff, 0xe1]);
        bytes.extend(u16::try_from(exif.len() + 2).unwrap().to_be_bytes());
        bytes.extend(exif);
        bytes.extend(&jpeg[2..]);
        bytes
    }

    #[test]
    fn a_photograph_is_turned_as_its_camera_says() {
        // 6: a quarter to the right. What was left (red) is up.
        let (image, _) = made(&turned(6), SCALE);
        assert_eq!((image.width(), image.height()), (50, 100));
        let image = image.to_rgb8();
        assert!(image.get_pixel(25, 10).0[0] > 150 && image.get_pixel(25, 90).0[2] > 150);
        assert_eq!(dimensions(&turned(1), SCALE), (100, 50));
    }

    #[test]
    fn an_image_that_claims_to_be_huge_is_refused_before_it_is_decoded() {
        let mut bomb = png(4, 4);
        bomb[16..24].copy_from_slice(&[0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff]);
        // The header's checksum, so that only the size is wrong.
        let mut sum = u32::MAX;
        for byte in &bomb[12..29] {
            sum ^= u32::from(*byte);
            for _ in 0..8 {
                sum = if sum & 1 == 1 { (sum >> 1) ^ 0xedb8_8320 } else { sum >> 1 };
            }
        }
        bomb[29..33].copy_from_slice(&(!sum).to_be_bytes());
        assert!(matches!(render(&bomb, CROP, 32_000_000), Err(Error::ImageTooLarge(_))));

        let gif =
            b"GIF89a\xff\xff\xff\xff\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\xff\xff\xff\xff\0\x02\x02D\x01\0;";
        assert!(matches!(render(gif, CROP, 32_000_000), Err(Error::ImageTooLarge(_))));

        let jpeg = encoded(picture(16, 16).into(), ImageFormat::Jpeg);
        let frame = jpeg.windows(2).position(|marker| marker == [0xff, 0xc0]).unwrap();
        let mut bomb = jpeg;
        bomb[frame + 5..frame + 9].copy_from_slice(&[0xff, 0xfe, 0xff, 0xfe]);
        assert!(matches!(render(&bomb, CROP, 32_000_000), Err(Error::ImageTooLarge(_))));
    }

    #[test]
    fn pixels_are_counted_at_their_depth() {
        let deep = encoded(DynamicImage::from(picture(100, 100)).into_rgba16().into(), ImageFormat::Png);
        assert!(matches!(render(&deep, CROP, 100 * 100), Err(Error::ImageTooLarge(_))));
        assert!(render(&deep, CROP, 2 * 100 * 100).is_ok());
    }

    #[test]
    fn what_is_no_image_has_no_thumbnail() {
        let svg = b"<svg xmlns='http://www.w3.org/2000/svg'/>";
        for bytes in [&b""[..], b"hello", svg, b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff"] {
            assert!(matches!(render(bytes, CROP, MANY), Err(Error::NoThumbnail(_))));
        }
    }

    #[test]
    fn a_truncated_or_damaged_file_is_an_error_or_a_picture_and_never_a_crash() {
        let whole = [
            png(200, 200),
            encoded(picture(200, 200).into(), ImageFormat::WebP),
            encoded(picture(200, 200).into(), ImageFormat::Jpeg),
            encoded(DynamicImage::from(picture(200, 200)).into_rgba8().into(), ImageFormat::Gif),
            turned(6),
        ];
        for source in whole {
            for eighth in 0..8 {
                let _ = render(&source[..source.len() * eighth / 8], CROP, MANY);
            }
            for at in (0..source.len()).step_by(source.len() / 50 + 1) {
                let mut damaged = source.clone();
                damaged[at] ^= 0x5a;
                let _ = render(&damaged, CROP, MANY);
            }
        }
        assert!(render(&png(200, 200)[..100], CROP, MANY).is_err());
    }
}
