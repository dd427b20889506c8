//! What must hold of any bytes at all. The fuzz target calls this, and a test with its seeds (see `fuzz/`).
#![allow(clippy::unwrap_used, clippy::panic)]

#[cfg(test)]
#[path = "../../fuzz/seeds.rs"]
mod seeds;

use crate::{Method, Rendered, Size, render};

/// Pixels an image may have here; a server allows more, and memory grows with them.
const MOST_PIXELS: u64 = 1 << 20;

/// A file has a thumbnail of at most the size asked for, or an error. The first byte says which size and shape.
pub fn thumbnail(bytes: &[u8]) {
    let Some((first, source)) = bytes.split_first() else { return };
    let edge = |bits: u8| 1 << (bits & 7);
    let method = if first & 0x80 == 0 { Method::Scale } else { Method::Crop };
    let size = Size { width: edge(*first), height: edge(first >> 4), method };
    let Ok(Rendered::Made(made)) = render(source, size, MOST_PIXELS) else { return };
    let image = image::load_from_memory(&made).unwrap();
    assert!(image.width() <= size.width && image.height() <= size.height);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_file_has_a_thumbnail_or_an_error() {
        seeds::near("thumbnail", thumbnail);
    }
}
