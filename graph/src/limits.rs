//! Bounds of the store, and why they are what they are.

use std::time::Duration;

/// Sequence numbers one commit may take; a room is created with about a dozen events.
pub const MAX_SEQS_PER_COMMIT: u16 = 4096;
/// Log records kept in memory for live followers; a follower further behind reads the stored log.
pub const LIVE_LOG_RECORDS: usize = 4096;
/// Records one call of a follower returns at most.
pub const FOLLOW_BATCH: usize = 256;
/// Names kept in memory, each direction.
pub const INTERNED_IN_MEMORY: usize = 30_000;
/// Nodes of state maps kept in memory (at most about 600 bytes each).
pub const STATE_NODES_IN_MEMORY: usize = 16_384;
/// Memory for all write buffers together, bytes.
pub const WRITE_BUFFERS: usize = 32 << 20;
/// The log is replayed at start: its size bounds the time to ready, bytes.
pub const WAL: u64 = 128 << 20;
/// Files RocksDB keeps open.
pub const OPEN_FILES: i32 = 512;
/// Places of a chain looked at to spare a link; a link too many costs a few bytes and a step of a walk.
pub const CHAIN_STOPS_LOOKED_AT: usize = 32;
/// Findings of the doctor that are spelled out; the rest is only counted.
pub const DOCTOR_FINDINGS: usize = 1000;
/// Memory for cached blocks while a database is examined or backed up, bytes.
pub const EXAMINATION_BLOCK_CACHE: usize = 64 << 20;
/// Attempts to catch a moment in which another process leaves its database's files as they are.
pub const BACKUP_ATTEMPTS: usize = 100;
/// Time between these: files change in bursts, when memory is written out.
pub const BACKUP_ATTEMPT_PAUSE: Duration = Duration::from_millis(100);
/// Memory to copy files with, bytes.
pub const COPY_BUFFER: usize = 1 << 20;
