//! What is bounded, and by how much.

/// A file of the border's directory, bytes.
pub const FILE_BYTES: u64 = 1 << 20;
/// Security policies in the directory.
pub const SPIF_FILES: usize = 64;
/// Rooms whose label is kept ready, a few hundred bytes each.
pub const ROOMS_IN_MEMORY: usize = 20_000;
/// Events whose label and findings are kept ready, a few hundred bytes each: those on their way out now.
pub const EVENTS_IN_MEMORY: usize = 20_000;
/// Files of which it is kept ready what the guards found in them.
pub const FILES_IN_MEMORY: usize = 20_000;
/// Rulings kept ready, about a kilobyte each.
pub const RULINGS_IN_MEMORY: usize = 20_000;
/// Users and devices whose clearance is kept ready.
pub const HOLDERS_IN_MEMORY: usize = 20_000;
/// Forms of events for servers kept ready, 24 bytes each.
pub const FORMS_IN_MEMORY: usize = 200_000;
/// Forms that may be taken back if it turns out that they were not sent, 24 bytes each: those of what is on its way.
pub const FORMS_ASKED_ONCE: usize = 100_000;
/// Refusals that are kept.
pub const REFUSALS: usize = 100_000;
/// Refusals that may wait for being written down; more are counted only.
pub const PENDING_REFUSALS: usize = 10_000;
/// Events showing a file, the first ones, that are looked at for one that lets it out.
pub const SHOWING_EVENTS: usize = 200;
/// Rooms of an uploader that are looked at for a file that no event shows.
pub const UPLOADERS_ROOMS: usize = 5_000;
/// Rooms whose access control lists are looked at before others get their turn.
pub const ACLS_AT_ONCE: usize = 500;
/// Members who are asked for, one after the other, to set the access control list of a room.
pub const ACL_KEEPERS: usize = 3;
/// Refusals of which it is remembered that they were told of.
pub const REFUSALS_TOLD: usize = 10_000;
/// Servers in the table that administrators write.
pub const PEERS: usize = 10_000;
/// Clearances that administrators give.
pub const CLEARANCES: usize = 100_000;
/// Rulings that are kept, about a kilobyte each.
pub const RULINGS: usize = 10_000_000;
/// Days for which rulings are kept, if nobody says how many.
pub const RULINGS_DAYS: u32 = 400;
/// Rulings that are looked at before others get their turn, when those that are too old are forgotten.
pub const RULINGS_SWEPT: usize = 1_000;
/// Why something is asked for, bytes.
pub const REASON_BYTES: usize = 2_000;
/// Releases of one user that may wait for a second person.
pub const RELEASES_WAITING: usize = 100;
/// Releases that are kept, about a kilobyte each.
pub const RELEASES: usize = 1_000_000;
/// Events that one spill is followed to.
pub const SPILLED_EVENTS: usize = 1_000;
/// Members who are asked for, one after the other, to redact what was spilled.
pub const REDACTORS: usize = 10;
/// Rulings that are looked through at once for what a candidate decides otherwise.
pub const SHADOW_STRETCH: usize = 10_000;
/// Rulings that other policies are asked about at once.
pub const REPLAYED: usize = 100_000;
/// Users of a room that are looked at for whether they could read what was spilled.
pub const SPILL_READERS: usize = 10_000;
