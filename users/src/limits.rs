//! Bounds on what accounts may store, and why.

/// Sessions kept in memory (about 300 bytes each).
pub const SESSIONS_IN_MEMORY: usize = 50_000;
/// A device's time of last use is written at most this often, milliseconds.
pub const LAST_SEEN_EVERY_MS: u64 = 60_000;
/// Password hashes computed at the same time: each takes the configured memory.
pub const PASSWORD_HASHES_AT_ONCE: usize = 2;
/// The longest password, bytes: beyond it only the hashing gets slower.
pub const PASSWORD_BYTES: usize = 1024;
/// Life of a login token, milliseconds.
pub const LOGIN_TOKEN_MS: u64 = 2 * 60_000;
/// Life of an OpenID token, milliseconds.
pub const OPENID_TOKEN_MS: u64 = 60 * 60_000;
/// Open user-interactive authentications.
pub const UIA_SESSIONS: usize = 10_000;
/// Life of an open user-interactive authentication, milliseconds.
pub const UIA_MS: u64 = 15 * 60_000;
/// A profile, all fields, bytes (specification: profiles).
pub const PROFILE_BYTES: usize = 65_536;
/// The name of a profile field, bytes.
pub const PROFILE_KEY_BYTES: usize = 255;
/// One piece of account data or a filter, bytes.
pub const ACCOUNT_DATA_BYTES: usize = 256 << 10;
/// Filters of one user.
pub const FILTERS_PER_USER: u64 = 10_000;
/// A display name of a device or a user, bytes.
pub const DISPLAY_NAME_BYTES: usize = 1024;
/// A device id, bytes.
pub const DEVICE_ID_BYTES: usize = 512;
/// A pusher, bytes: it is read for each notification.
pub const PUSHER_BYTES: usize = 4 << 10;
/// A pattern of a push rule, bytes: each is held against every message.
pub const PUSH_PATTERN_BYTES: usize = 1024;
/// The actions of a push rule as JSON, bytes: they are kept with each notification.
pub const PUSH_ACTIONS_BYTES: usize = 1024;
/// One-time keys kept for a device: clients upload about 50 and top them up.
pub const ONE_TIME_KEYS_PER_DEVICE: usize = 1000;
/// Algorithms a device may have fallback keys for.
pub const FALLBACK_ALGORITHMS: usize = 10;
/// A key with its signatures, bytes: the size of the largest event.
pub const KEY_OBJECT_BYTES: usize = 65_536;
/// Devices whose keys one request may ask for or that it may send messages to.
pub const DEVICES_PER_KEY_REQUEST: usize = 10_000;
/// Devices kept of a user of another server: whoever has more is no person, and each message is encrypted for each.
pub const DEVICES_PER_REMOTE_USER: usize = 1000;
/// Updates remembered of a followed device list: servers that work in parallel send them a little out of order.
pub const UPDATES_REMEMBERED: usize = 16;
/// Ids of messages to devices remembered of each other server, so that none is delivered twice: a server repeats what
/// was not acknowledged, which is one transaction, of at most 100.
pub const MESSAGE_IDS_REMEMBERED: u64 = 10_000;
/// The id of a message of another server, bytes. The specification has 32 characters; of more, so that a message is
/// not lost over it.
pub const MESSAGE_ID_BYTES: usize = 512;
/// The contents of one `m.direct_to_device`, bytes: as an event. More recipients are told in several.
pub const REMOTE_MESSAGES_BYTES: usize = 65_536;
/// Signed keys in one request: each costs a check of a signature.
pub const SIGNATURES_AT_ONCE: usize = 1000;
/// A message to a device, bytes: as an event.
pub const TO_DEVICE_MESSAGE_BYTES: usize = 65_536;
/// Acknowledged messages removed by one commit.
pub const TO_DEVICE_REMOVED_AT_ONCE: usize = 1000;
/// Versions of a user's key backup that are not deleted.
pub const BACKUP_VERSIONS: usize = 100;
/// Keys in one version of a backup: all are answered at once when asked for.
pub const BACKUP_KEYS_PER_VERSION: u64 = 500_000;
/// The name of a room, a session or an algorithm in a backup, bytes.
pub const BACKUP_NAME_BYTES: usize = 512;
/// The encrypted part of a dehydrated device, bytes.
pub const DEHYDRATED_BYTES: usize = 256 << 10;
/// Messages of a dehydrated device in one answer.
pub const DEHYDRATED_MESSAGES_AT_ONCE: usize = 100;
/// Users whose presence one commit changes.
pub const PRESENCES_AT_ONCE: usize = 1_000;
