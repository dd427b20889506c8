//! Bounds on what rooms take, and why.

/// A PDU, all of it, in bytes (specification: size limits).
pub const PDU_BYTES: usize = 65_536;
/// Type, state key, sender and room id, in bytes each.
pub const FIELD_BYTES: usize = 255;
/// Previous events an event names; more extremities are merged over several events.
pub const PREV_EVENTS: usize = 20;
/// Parsed events kept in memory.
pub const EVENTS_IN_MEMORY: usize = 4_000;
/// Rooms whose lane is remembered; idle lanes beyond that are dropped.
pub const LANES_IN_MEMORY: usize = 4_096;
/// Events looked at for one walk through the auth graph.
pub const AUTH_WALK: usize = 100_000;
/// Events not shown (rejected, soft-failed) that are walked through to find which ends of a room a new event follows on.
pub const HIDDEN_WALK: usize = 1_000;
/// Public rooms looked at for one listing.
pub const PUBLIC_ROOMS: usize = 10_000;
/// Users considered for one search of the user directory.
pub const VISIBLE_USERS: usize = 100_000;
/// Rooms whose member counts are kept in memory.
pub const ROOMS_IN_MEMORY: usize = 10_000;
/// Keys of one signer tried for one event; servers sign with one.
pub const KEYS_OF_A_SIGNER: usize = 8;
/// Rooms of a restricted room's join rules that are looked at.
pub const ALLOWING_ROOMS: usize = 100;
/// Authorizing events taken over from another server's template.
pub const TEMPLATE_AUTH_EVENTS: usize = 16;
/// Stripped state events of an invite, and all of them together in bytes.
pub const INVITE_STATE_EVENTS: usize = 64;
/// See [`INVITE_STATE_EVENTS`].
pub const INVITE_STATE_BYTES: usize = 128 << 10;
/// Events of an auth chain given to another server at once.
pub const AUTH_CHAIN: usize = 100_000;
/// Events of one answer to a server that backfills.
pub const BACKFILL_EVENTS: usize = 100;
/// Events of one answer to a server that misses some.
pub const MISSING_EVENTS: usize = 50;
/// Events walked through for such an answer.
pub const HISTORY_WALK: usize = 2_000;
/// Access control lists kept ready in memory: each is about as large as its event.
pub const ACLS_IN_MEMORY: usize = 500;
/// Redactions of one event that wait for it.
pub const REDACTIONS_WAITING: usize = 1_000;
/// Receipts moved by one commit: each takes a sequence number.
pub const RECEIPTS_AT_ONCE: usize = 1_000;
/// Servers of a room that are noted while its members are not known.
pub const SERVERS_OF_A_PARTIAL_ROOM: usize = 10_000;
/// How long somebody waits for what needs the whole state of a room that was just joined.
pub const WHOLE_STATE_PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);
/// Members after whom a room without a name is called (specification: `m.heroes`).
pub const HEROES: usize = 5;
/// Ends of a room that are many: then they are joined.
pub const MANY_ENDS: usize = 10;
/// Events by which the ends of a room are joined at once, each of up to [`PREV_EVENTS`].
pub const JOINING_EVENTS: usize = 50;
/// Files that an event can show; more are not noted.
pub const MEDIA_OF_AN_EVENT: usize = 100;
/// How often a policy server is asked for what closes a room that is upgraded, while others change its power levels.
pub const CLOSING_ATTEMPTS: usize = 3;
