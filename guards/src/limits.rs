//! Bounds on what is looked at and what is said about it, and why.

/// Bytes of text of one event that are looked at. An event has at most 65,536 bytes; text in JSON may be written
/// longer than it is, never shorter, so this is reached only by content that is no event's.
pub const TEXT_BYTES: usize = 256 << 10;
/// Strings of one event that are looked at: more than 65,536 bytes of JSON have when each says something.
pub const STRINGS: usize = 16_384;
/// How deep arrays and objects are followed. Canonical JSON of events is far flatter.
pub const DEPTH: usize = 64;
/// Values of attributes and comments of one HTML text.
pub const HIDDEN_TEXTS: usize = 4_096;
/// Findings of one class (`secret`, `link`, …) in a verdict: enough for a person to see what is wrong.
pub const FINDINGS_OF_CLASS: usize = 32;
/// Ids in the set that policies see. More are said as `limit:findings`.
pub const CLASSES: usize = 256;
/// A place in an event, bytes.
pub const PLACE_BYTES: usize = 256;
/// An id of a finding, bytes: a host has 253 at most.
pub const ID_BYTES: usize = 280;
/// An excerpt, bytes.
pub const EXCERPT_BYTES: usize = 80;

/// Places in one text that a rule's expression found and that are then judged by entropy and allow-lists.
pub const MATCHES_OF_RULE: usize = 256;
/// Memory of the compiled form of one shipped rule, bytes: the largest needs half of it.
pub const RULE_BYTES: usize = 8 << 20;
/// Expressions an administrator may set.
pub const PATTERNS: usize = 256;
/// An administrator's expression, bytes.
pub const PATTERN_BYTES: usize = 4_096;
/// Memory of the compiled form of one administrator's expression, bytes.
pub const PATTERN_PROGRAM_BYTES: usize = 1 << 20;
/// Memory of the compiled form of all of an administrator's expressions together, bytes.
pub const PATTERNS_PROGRAM_BYTES: usize = 16 << 20;
/// A name of an administrator's expression, bytes.
pub const PATTERN_NAME_BYTES: usize = 64;
/// Memory an expression may use while it looks, bytes; it gets slower then, not larger.
pub const EXPRESSION_CACHE_BYTES: usize = 512 << 10;

/// Links of one text that are looked at.
pub const LINKS: usize = 1_024;
/// As much of a link as is looked at for its host, bytes: a host has 253 at most, and a name and a password may come
/// before it.
pub const LINK_BYTES: usize = 2_048;
/// Hosts in an allow-list or a deny-list.
pub const HOSTS: usize = 10_000;

/// Bytes of a file read at once.
pub const CHUNK_BYTES: usize = 64 << 10;
/// The beginning of a file, by which its type is told, bytes.
pub const HEAD_BYTES: usize = 64 << 10;
/// The end of a file that is kept, bytes: a zip archive's directory of some 3,000 files.
pub const TAIL_BYTES: usize = 256 << 10;
/// Text of a file in which secrets and expressions are looked for, bytes.
pub const FILE_TEXT_BYTES: usize = 1 << 20;
/// Files of an archive whose names are looked at.
pub const ARCHIVE_ENTRIES: usize = 16_384;

/// A name of a file, bytes.
pub const FILE_NAME_BYTES: usize = 1_024;

/// An answer of clamd, bytes.
pub const ANTIVIRUS_REPLY_BYTES: usize = 4_096;
