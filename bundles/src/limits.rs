//! Bounds on bundles, and why.

/// Bytes of records in one compressed frame: what a reader holds unpacked. A record lies in one frame, whole.
pub const FRAME_BYTES: usize = 1 << 20;
/// Bytes of one encoded record: it fits a frame.
pub const RECORD_BYTES: usize = FRAME_BYTES;
/// Bytes of records after which a writer begins another frame: what is lost with one damaged place of a medium.
pub const FRAME_TARGET: usize = 256 << 10;
/// Unpacked bytes for each packed one in a frame. What packs better is stored as it is: nothing that a person wrote
/// comes near it.
pub const RATIO: u64 = 50;
/// Records in one bundle: a reader holds 32 bytes for each.
pub const RECORDS: u64 = 1_000_000;
/// Frames in one bundle: each holds at least one record.
pub const FRAMES: usize = 1_000_000;
/// Unpacked bytes of one bundle, unless the reader says otherwise: what an import may write.
pub const TOTAL_BYTES: u64 = 64 << 30;
/// Bytes of the signed cover.
pub const COVER_BYTES: usize = 4 << 10;
/// Bytes of the signed header: it is held in memory, with the rooms it names.
pub const HEADER_BYTES: usize = 4 << 20;
/// Bytes of the index: 32 for each record and at most 24 for each frame, rounded up.
pub const INDEX_BYTES: usize = 64 << 20;
/// Bytes of the sealed head: the header, the index and what sealing adds.
pub const HEAD_BYTES: u64 = (HEADER_BYTES + INDEX_BYTES + (1 << 20)) as u64;
/// Rooms one bundle names. An exporter with more of them writes several bundles.
pub const ROOMS: u64 = 10_000;
/// Event ids in one list of a header: a room's heads, or what it misses.
pub const EVENT_IDS: u64 = 1_000;
/// Destinations, acknowledged links, counts and releases of one bundle.
pub const LIST: u64 = 64;
/// Ranges of sequence numbers in one acknowledgement.
pub const RANGES: u64 = 1_024;
/// Bytes of a server name, a room id, an event id or another name of the specification.
pub const NAME_BYTES: usize = 255;
/// Bytes of a label, a policy revision, a reason or another short text.
pub const TEXT_BYTES: usize = 1_024;
/// Who a bundle may be sealed to.
pub const RECIPIENTS: usize = 20;
/// Bytes of the head of an envelope, before its nonce: all stanzas of all recipients.
pub const ENVELOPE_HEAD_BYTES: usize = 8 << 10;
/// Volumes of one bundle.
pub const VOLUMES: u32 = 9_999;
/// The largest file a FAT32 medium holds, bytes.
pub const FAT32_BYTES: u64 = (4 << 30) - 1;
/// The smallest volume, bytes: a cover and something of the rest.
pub const VOLUME_BYTES: u64 = 64 << 10;
/// Bytes of media in one record: with what stands around it, it leaves a frame room for little else.
pub const PIECE_BYTES: usize = 512 << 10;

/// Bundles of a link that wait for earlier ones.
pub const PARKED: usize = 1_024;
/// How long a bundle waits for earlier ones, milliseconds: 30 days. A keyframe came long before.
pub const PARKED_MS: u64 = 30 * 24 * 60 * 60 * 1_000;
/// Imported bundles a link remembers the hashes of, to tell a repetition from a fork. They are stored with each import.
pub const REMEMBERED: usize = 256;
/// Ranges of bundles that were passed over and never came.
pub const GAPS: usize = 1_024;
/// Roots of a link.
pub const ROOTS: usize = 16;
/// Bytes of a key ceremony.
pub const CEREMONY_BYTES: usize = 8 << 10;

/// Characters of a gap ticket, hyphens included: what a person reads out over the telephone.
pub const TICKET_CHARS: usize = 200;
/// Bytes of a gap ticket: 165 characters and 33 hyphens.
pub const TICKET_BYTES: usize = 103;
/// Rooms a gap ticket has digests of.
pub const TICKET_ROOMS: usize = 4;

/// Bytes of a datagram on a diode: what a jumbo frame of 9,000 bytes carries over IPv6 and UDP.
pub const DATAGRAM_BYTES: usize = 8_952;
/// Source symbols in one block of a diode.
pub const BLOCK_SYMBOLS: u16 = 2_000;
/// Blocks of one bundle: a 16-bit number.
pub const BLOCKS: u64 = 1 << 16;
/// Undecoded symbols a receiver holds, bytes. Beyond it the block that was touched longest ago is given up.
pub const SYMBOLS_BYTES: usize = 256 << 20;
/// Bundles a receiver has parts of on disk. Beyond it the one that was touched longest ago is given up.
pub const PARTIAL_BUNDLES: usize = 64;
/// Bytes of these parts on disk.
pub const PARTIAL_BYTES: u64 = 64 << 30;
/// Epochs of a link a receiver keeps account of: the last ones.
pub const EPOCHS: usize = 4;
/// Ranges of received bundles for each epoch: beyond it the lowest gap is no longer reported.
pub const RECEIVED_RANGES: usize = 1_024;
/// Bundles that wait to be sent over a diode.
pub const SEND_QUEUE: usize = 10_000;
/// Datagrams between the thread that receives them and the one that decodes.
pub const DATAGRAMS: usize = 4_096;
/// What the kernel is asked to hold for a diode's socket, bytes: it may give less.
pub const SOCKET_BYTES: usize = 16 << 20;
