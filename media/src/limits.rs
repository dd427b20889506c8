//! Bounds on media, and why.

/// Bytes of one stored piece: what an upload or a download holds in memory.
pub const PIECE_BYTES: usize = 256 << 10;
/// Thumbnails made at the same time: each holds a decoded image.
pub const THUMBNAILS_AT_ONCE: usize = 2;
/// The longest edge of a thumbnail, pixels.
pub const THUMBNAIL_EDGE: u32 = 1_600;
/// The largest file a thumbnail is made of, bytes: it is read whole.
pub const THUMBNAIL_SOURCE_BYTES: u64 = 64 << 20;
/// Thumbnails kept of one file. Where any size may be asked for, more are made each time they are asked for, or one
/// image could fill the disk.
pub const THUMBNAILS_KEPT: usize = 16;
/// What an image may take beside its pixels while it is decoded (color profile, rows, metadata), bytes.
pub const DECODER_BYTES: u64 = 64 << 20;
/// Bytes of a decoded pixel: eight bits of red, green, blue and alpha. Deeper images may have fewer pixels.
pub const PIXEL_BYTES: u64 = 4;
/// A file name, bytes.
pub const FILE_NAME_BYTES: usize = 1_024;
/// A content type, bytes.
pub const CONTENT_TYPE_BYTES: usize = 255;
/// Ids that nobody uploaded to in time, removed by one commit.
pub const EXPIRED_AT_ONCE: usize = 1_000;
/// The id of a file of another server, bytes: it is a key here.
pub const REMOTE_ID_BYTES: usize = 255;
