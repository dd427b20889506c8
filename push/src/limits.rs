//! Bounds on what push keeps, and why.

/// Unread notifications kept for a user in a room; a higher count is not told.
pub const UNREAD: usize = 500;
/// Notifications kept for a user, the newest.
pub const NOTIFICATIONS: usize = 1_000;
/// So many more are there before the oldest go, so that they go together.
pub const SLACK: usize = 100;
/// The most that a badge says, so that counting ends.
pub const BADGE: usize = 1_000;
/// Events looked at that were not followed yet, when counts are asked for.
pub const LOOK_BACK: usize = 500;
/// Push rules in memory, in users; a pattern with wildcards weighs as much as a user.
pub const RULES_IN_MEMORY: u64 = 10_000;
/// Users whose rules are expected to be there.
pub const USERS_IN_MEMORY: usize = 5_000;
/// Events kept in the form that rules are held against, some KiB each.
pub const SUBJECTS_IN_MEMORY: usize = 256;
/// Rooms whose local members are kept in memory.
pub const ROOMS_IN_MEMORY: usize = 1_024;
/// Users and rooms of which it is remembered how much is kept, about 40 bytes each.
pub const LENGTHS_IN_MEMORY: usize = 50_000;
/// Members looked at before others get their turn.
pub const MEMBERS_AT_ONCE: usize = 128;
/// Members whose notifications go into one commit.
pub const MEMBERS_A_COMMIT: usize = 1_000;
/// Events a relation is followed over to find the thread an event is in.
pub const RELATED: usize = 3;
/// What a push gateway is due at most; older notifications are dropped, as the device has newer ones.
pub const DUE: usize = 100;
/// Requests to push gateways at a time, about 64 KiB each at most.
pub const REQUESTS: usize = 64;
/// Of these to gateways that failed the last time: they must not keep others waiting.
pub const FAILING_REQUESTS: usize = 16;
/// Of those that did not fail, requests for the pushers of one user at a time: where their gateways are is theirs to say, and how slow these are.
pub const REQUESTS_OF_USER: usize = 4;
/// The answer of a push gateway, bytes: a list of push keys, of which one is asked about.
pub const ANSWER_BYTES: usize = 64 << 10;
/// Notifications in one answer.
pub const PAGE: usize = 100;
