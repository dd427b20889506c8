//! Everything that is stored: every family with its key, its value, how it is read, and who writes it.
//!
//! A family is a type; its key and value types are part of it, so the wrong key does not compile. The kinds:
//! `Point` families are only read by whole key (bloom filter over whole keys, hash index in the blocks); `Scan(n)`
//! families are ranged over below their first `n` bytes (bloom filter over these too); `Small` ones are small and
//! read any way; `Blob` values are large and live in blob files.

use crate::{
    codec::{Decode, Encode, Json, Raw},
    event::{EventLinks, EventRecord, Membership, PartialRoom, RoomHead, RoomRecord},
    ids::{ChainNum, EventNum, Pos, RoomNum, Root, Seq, ServerNum, UserNum},
    log::LogRecord,
};
use serde_json::Value;

/// How a family is read, and so how RocksDB is set up for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Read by whole key only.
    Point,
    /// Ranged over below a prefix of this many bytes.
    Scan(usize),
    /// Little data, read any way.
    Small,
    /// Large values.
    Blob,
}

/// One family of the store: a name, a key type and a value type.
pub trait Family: 'static {
    /// The column family's name.
    const NAME: &'static str;
    /// How it is read.
    const KIND: Kind;
    /// Its keys.
    type Key: Encode + Decode;
    /// Its values.
    type Value: Encode + Decode;
}

/// Does something with every family; see [`visit_all`].
pub trait Visit {
    /// Does it with one.
    fn visit<F: Family>(&mut self);
}

macro_rules! families {
    ($($(#[$doc:meta])* $name:ident = $text:literal : $key:ty => $value:ty, $kind:expr;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy)]
            pub struct $name;
            impl Family for $name {
                const NAME: &'static str = $text;
                const KIND: Kind = $kind;
                type Key = $key;
                type Value = $value;
            }
        )*
        /// Every family: name and kind.
        pub const ALL: &[(&str, Kind)] = &[$(($text, $kind)),*];

        /// Shows every family to `visitor`, in the order they stand here.
        pub fn visit_all<V: Visit>(visitor: &mut V) {
            $(visitor.visit::<$name>();)*
        }

        /// Checks the encoding of every family's keys and values; a type without samples does not compile here.
        #[cfg(test)]
        pub(crate) fn check_encodings() {
            $(crate::encodings::check::<$name>();)*
        }
    };
}

/// The version of everything below. It goes up when stored data written before can no longer be read as is.
pub const VERSION: u64 = 1;

families! {
    // ---- the store itself ------------------------------------------------------------------------------------
    /// Facts about the database: `schema`, `server_name`, `created`. Written at creation.
    Meta = "meta": (String,) => Raw, Kind::Small;
    /// The log: what each commit did. Written by every commit, under its last sequence number.
    Log = "log": (Seq,) => LogRecord, Kind::Small;
    /// Up to where each follower has worked. Written by followers.
    Cursors = "cursor": (String,) => Seq, Kind::Small;
    /// Name to number, by kind of name (`intern::Kind`). Written by whoever meets a name first.
    Numbers = "number": (u8, String) => u64, Kind::Point;
    /// Number to name.
    Names = "name": (u8, u64) => String, Kind::Point;

    // ---- events ----------------------------------------------------------------------------------------------
    /// The fixed facts of an event. Written by rooms, again when it is redacted.
    EventRecords = "event": (EventNum,) => EventRecord, Kind::Point;
    /// The canonical JSON of an event as it was made or received; the redacted form once it is redacted.
    EventJson = "event_json": (EventNum,) => Raw, Kind::Point;
    /// (when redacted, the JSON before), kept for the configured time for compliance only.
    EventOriginals = "event_original": (EventNum,) => (u64, Raw), Kind::Point;
    /// The previous and the authorizing events.
    Links = "event_link": (EventNum,) => EventLinks, Kind::Point;
    /// The events that name the first as a previous event.
    Children = "event_child": (EventNum, EventNum) => (), Kind::Scan(8);
    /// Chain cover: the chain an event of the auth graph is on, its place there (from 1), and its rank (above that of
    /// all its auth events). Written by rooms for events that can authorize others.
    Chains = "chain": (EventNum,) => (ChainNum, u64, u64), Kind::Point;
    /// Chain cover: from (chain, place, other chain) one reaches that place on the other; with the rank at the start.
    ChainLinks = "chain_link": (ChainNum, u64, ChainNum) => (u64, u64), Kind::Scan(8);
    /// Chain cover: the highest place taken on a chain.
    ChainTips = "chain_tip": (ChainNum,) => u64, Kind::Point;
    /// Chain cover, the other way: what stands at a place of a chain.
    ChainEvents = "chain_event": (ChainNum, u64) => EventNum, Kind::Scan(8);

    // ---- rooms -----------------------------------------------------------------------------------------------
    /// What never changes about a room: version, creation event. Written once.
    Rooms = "room": (RoomNum,) => Json<RoomRecord>, Kind::Small;
    /// Where a room is: forward extremities, current state, depth. Written with every event.
    Heads = "room_head": (RoomNum,) => RoomHead, Kind::Small;
    /// The room's events in the order they arrived. Written by rooms.
    Timeline = "timeline": (RoomNum, Pos) => EventNum, Kind::Scan(8);
    /// The current state from a position on, where it changed.
    StateAt = "state_at": (RoomNum, Pos) => Root, Kind::Scan(8);
    /// Nodes of the persistent state maps, by content.
    StateNodes = "state_node": (Root,) => Raw, Kind::Point;
    /// The current state, flat: (room, type, state key).
    CurrentState = "current_state": (RoomNum, String, String) => EventNum, Kind::Scan(8);
    /// A user's present membership of a room. Written with current state.
    Memberships = "membership": (UserNum, RoomNum) => Membership, Kind::Scan(8);
    /// The other way: the users of a room by kind of membership (`event::MembershipKind`).
    Members = "member": (RoomNum, u8, UserNum) => EventNum, Kind::Scan(8);
    /// What a user was shown of a room this server is not in, when invited or knocking: a JSON array of stripped events.
    InviteStates = "invite_state": (UserNum, RoomNum) => Raw, Kind::Scan(8);
    /// The servers of a room, from its joined users: how many users each has there, and since when it has any. Written
    /// with memberships.
    RoomServers = "room_server": (RoomNum, String) => (u64, Pos), Kind::Scan(8);
    /// Rooms whose state is not whole here yet. Written when one is joined, removed when the rest of its state has come.
    PartialRooms = "partial_room": (RoomNum,) => Json<PartialRoom>, Kind::Small;
    /// Since when the state of a room is whole that was joined before it was. Written when the rest of it has come.
    WholeSince = "whole_since": (RoomNum,) => Pos, Kind::Small;
    /// Rooms a user has forgotten: up to where.
    Forgotten = "forgotten": (UserNum, RoomNum) => Pos, Kind::Scan(8);
    /// The events that relate to one: (parent, relation type, where the child stands).
    Relations = "relation": (EventNum, String, Pos) => EventNum, Kind::Scan(8);
    /// The threads of a room by their latest reply: (room, where that stands, thread root).
    Threads = "thread": (RoomNum, Pos, EventNum) => (), Kind::Scan(8);
    /// A thread: (where its latest reply stands, how many replies).
    ThreadTips = "thread_tip": (EventNum,) => (Pos, u64), Kind::Point;
    /// A redaction that came before the event it redacts: (room, event id).
    PendingRedactions = "pending_redaction": (RoomNum, String) => EventNum, Kind::Small;
    /// Further redactions of the same event, by others than the first: (room, event id, redaction).
    FurtherRedactions = "further_redaction": (RoomNum, String, EventNum) => (), Kind::Small;
    /// Room aliases: the room and who made the alias.
    Aliases = "alias": (String,) => (RoomNum, UserNum), Kind::Small;
    /// The aliases of a room on this server.
    RoomAliases = "room_alias": (RoomNum, String) => (), Kind::Small;
    /// Rooms in the public directory.
    Published = "published": (RoomNum,) => (), Kind::Small;
    /// Requests with a transaction id: (user, device or token name, scope and id) to (when, result). The answer to a repetition.
    Transactions = "transaction": (UserNum, String, String) => (u64, Raw), Kind::Scan(8);
    /// The transaction an event was sent with: (device, transaction id), shown to that device alone.
    EventTransactions = "event_transaction": (EventNum,) => (String, String), Kind::Point;
    /// Events to be sent later (MSC4140): (user, delay id).
    Delayed = "delayed": (UserNum, String) => Json<Value>, Kind::Small;

    // ---- federation ------------------------------------------------------------------------------------------
    /// Signing keys of other servers: (server, key id). Written by federation.
    ServerKeys = "server_key": (String, String) => Json<Value>, Kind::Small;
    /// Events that other servers have sent, until they are taken into their rooms. Written by rooms.
    Staged = "staged_pdu": (RoomNum, Seq) => Raw, Kind::Scan(8);
    /// Transactions of other servers that were taken: (server, transaction id) to when, milliseconds since the epoch.
    ReceivedTransactions = "received_transaction": (String, String) => u64, Kind::Small;
    /// Events of other servers' users that this server has let into a room, and passes on. Written by rooms, removed
    /// by the outbox once they are queued.
    Relayed = "relayed": (EventNum,) => (), Kind::Point;

    // ---- what users say about rooms --------------------------------------------------------------------------
    /// Read receipts: (room, user, kind: 0 public, 1 private, thread or "") to (since when it stands, content).
    Receipts = "receipt": (RoomNum, UserNum, u8, String) => (Seq, Json<crate::event::Receipt>), Kind::Scan(8);
    /// Receipts of a room by when they changed; an entry whose `Seq` is not the receipt's own is outdated.
    ReceiptLog = "receipt_log": (RoomNum, Seq) => (UserNum, u8, String), Kind::Scan(8);
    /// Account data: (user, room or NONE, type) to (when it changed, content). Deleted entries keep `{}`.
    AccountData = "account_data": (UserNum, RoomNum, String) => (Seq, Raw), Kind::Scan(8);
    /// Account data of a user by when it changed; outdated entries as in `ReceiptLog`.
    AccountDataLog = "account_data_log": (UserNum, Seq) => (RoomNum, String), Kind::Scan(8);
    /// What a user was notified of and has not read: (user, room, where it stands) to (1 highlighted, 2 a call; the root
    /// of its thread or ""). Bounded for each user and room. Written by push, beside the log.
    Unread = "unread": (UserNum, RoomNum, Pos) => (u8, String), Kind::Scan(8);

    // ---- accounts (users/) -----------------------------------------------------------------------------------
    /// Accounts of this server. Written by users.
    Accounts = "account": (UserNum,) => Json<Value>, Kind::Small;
    /// Profiles, of local users and cached ones of remote users.
    Profiles = "profile": (UserNum,) => Json<Value>, Kind::Small;
    /// Devices: (user, device id).
    Devices = "device": (UserNum, String) => Json<Value>, Kind::Scan(8);
    /// Access tokens, by SHA-256 of the token.
    AccessTokens = "access_token": ([u8; 32],) => Json<Value>, Kind::Point;
    /// Refresh tokens, likewise.
    RefreshTokens = "refresh_token": ([u8; 32],) => Json<Value>, Kind::Point;
    /// The tokens of a device: (user, device id, hash) to 0 access, 1 refresh.
    DeviceTokens = "device_token": (UserNum, String, [u8; 32]) => u8, Kind::Scan(8);
    /// Login tokens (`m.login.token`), OpenID tokens and other short-lived secrets: (kind, hash) to (expiry in ms, what it stands for).
    ShortTokens = "short_token": (String, [u8; 32]) => (u64, Json<Value>), Kind::Small;
    /// Tokens that allow registration.
    RegistrationTokens = "registration_token": (String,) => Json<Value>, Kind::Small;
    /// Sync filters: (user, number).
    Filters = "filter": (UserNum, u64) => Raw, Kind::Small;
    /// Third-party identifiers bound to accounts: (medium, address).
    ThreePids = "threepid": (String, String) => UserNum, Kind::Small;
    /// Presence: (when it changed, content).
    Presence = "presence": (UserNum,) => (Seq, Json<Value>), Kind::Small;
    /// Pushers: (user, app id, push key).
    Pushers = "pusher": (UserNum, String, String) => Json<Value>, Kind::Small;
    /// The other way: whose pushers have an app id and a push key.
    PusherKeys = "pusher_key": (String, String, UserNum) => (), Kind::Small;

    // ---- push (push/) ------------------------------------------------------------------------------------------
    /// What a user was notified of: (user, where it stands) to (room, event, highlighted, the rule's actions as JSON).
    /// The newest of each user; written by push, beside the log.
    Notifications = "notification": (UserNum, Pos) => (RoomNum, EventNum, bool, Raw), Kind::Scan(8);
    /// What push gateways are due: (user, app id, push key, where the event stands; for the counts alone, before all) to
    /// (room, event, when it was queued, ms, the rule's actions as JSON). Written by push, beside the log.
    PushDue = "push_due": (UserNum, String, String, Pos) => (RoomNum, EventNum, u64, Raw), Kind::Scan(8);

    // ---- keys and device messages (users/) -------------------------------------------------------------------
    /// Identity keys of devices: (user, device id).
    DeviceKeys = "device_key": (UserNum, String) => Raw, Kind::Scan(8);
    /// One-time keys: (user, device id, algorithm, order of upload, key id).
    OneTimeKeys = "one_time_key": (UserNum, String, String, Seq, String) => Raw, Kind::Scan(8);
    /// Fallback keys: (user, device id, algorithm) to (used, key id, key).
    FallbackKeys = "fallback_key": (UserNum, String, String) => (bool, String, Raw), Kind::Scan(8);
    /// Cross-signing keys: (user, 0 master, 1 self-signing, 2 user-signing).
    CrossSigningKeys = "cross_signing": (UserNum, u8) => Raw, Kind::Small;
    /// Signatures uploaded by others than the key's owner: (owner, key or device id, signer, signing key id).
    KeySignatures = "key_signature": (UserNum, String, UserNum, String) => String, Kind::Scan(8);
    /// Whose devices or keys changed, in order.
    DeviceChanges = "device_change": (Seq, UserNum) => (), Kind::Small;
    /// The last change of each user's devices: its `Seq`.
    DeviceVersions = "device_version": (UserNum,) => Seq, Kind::Small;
    /// Users of other servers whose device list is followed: whether the copy here is up to date, and the last updates
    /// (`stream_id`) it took, the newest first. Their keys stand in `DeviceKeys` and `CrossSigningKeys`.
    FollowedUsers = "followed_user": (UserNum,) => (bool, Vec<u64>), Kind::Small;
    /// Messages to devices: (user, device id, order).
    ToDevice = "to_device": (UserNum, String, Seq) => Raw, Kind::Scan(8);
    /// Messages to devices of other servers until federation takes them over: (order, server name, message id) to the
    /// content of an `m.direct_to_device`.
    RemoteToDevice = "remote_to_device": (Seq, String, String) => Raw, Kind::Small;
    /// Messages to devices that other servers sent: (server name, message id) to its number among those of the server.
    SeenMessages = "seen_message": (String, String) => u64, Kind::Point;
    /// The other way, for forgetting the oldest.
    SeenMessageOrder = "seen_message_order": (String, u64) => String, Kind::Small;
    /// Versions of a user's key backup.
    BackupVersions = "backup_version": (UserNum, u64) => Json<Value>, Kind::Small;
    /// Backed up room keys: (user, version, room id, session id).
    BackupKeys = "backup_key": (UserNum, u64, String, String) => Raw, Kind::Scan(8);
    /// Dehydrated devices (MSC3814).
    Dehydrated = "dehydrated": (UserNum,) => Json<Value>, Kind::Small;

    // ---- what other servers are due (federation/) ----------------------------------------------------------------
    /// Events a server has not been sent yet: (server, the event's place in the log) to (event, when it was queued in
    /// ms). Written by the outbox.
    OutboxEvents = "outbox_event": (ServerNum, Seq) => (EventNum, u64), Kind::Scan(8);
    /// EDUs a server has not been sent yet: (server, order) to (its kind, EDU). Written by whoever has some.
    OutboxEdus = "outbox_edu": (ServerNum, Seq, u32) => (String, Raw), Kind::Scan(8);
    /// The latest of a server's EDUs of a kind: of `OutboxEdus`, one that is not the latest of its kind is outdated.
    OutboxLatest = "outbox_latest": (ServerNum, String) => (Seq, u32), Kind::Scan(8);
    /// The transaction a server is being sent, until it has answered: (transaction id, body).
    OutboxTransactions = "outbox_transaction": (ServerNum,) => (String, Raw), Kind::Small;
    /// What other servers were last told of a local user's devices: (user, device id, or "" for the cross-signing keys)
    /// to the SHA-256 of it.
    ToldKeys = "told_key": (UserNum, String) => [u8; 32], Kind::Scan(8);
    /// The last update (`stream_id`) of a local user's device list.
    ToldUpdates = "told_update": (UserNum,) => u64, Kind::Small;
    /// Which servers are told of a local user's devices, and the last update each was sent.
    ToldServers = "told_server": (UserNum, String) => u64, Kind::Scan(8);

    // ---- links by hand (federation/) -------------------------------------------------------------------------
    /// How far a link that is carried by hand has come, both ways; by its name.
    CarriedLinks = "carried_link": (String,) => Json<Value>, Kind::Small;
    /// Which events a server by hand was told of: 1 as what authorizes others, 2 in its place in the timeline.
    CarriedTold = "carried_told": (ServerNum, EventNum) => u8, Kind::Scan(8);
    /// What was brought from a server by hand to answer with in its place, and what it was told last: (server, what, name).
    CarriedAnswers = "carried_answer": (String, String, String) => Raw, Kind::Small;

    // ---- the border (border/) --------------------------------------------------------------------------------
    /// Which server got which event: (form: 0 redacted, 1 whole; the decision; when, ms). Written before it leaves.
    Disclosures = "disclosure": (EventNum, ServerNum) => (u8, u64, u64), Kind::Scan(8);
    /// The same by server: written with it, so that what a server got is found without looking through all.
    DisclosuresTo = "disclosure_to": (ServerNum, EventNum) => (), Kind::Scan(8);
    /// Decisions, each once: what was asked, what was decided and why; by the first 64 bits of the SHA-256 of these.
    Decisions = "decision": (u64,) => Json<Value>, Kind::Point;
    /// What was refused: (when, ms; a number) to who wanted to do what, and why not. Bounded; the oldest go.
    Refusals = "refusal": (u64, u64) => Json<Value>, Kind::Small;
    /// Events of other servers that were not let in: kept, not shown, until somebody lets them in.
    Quarantine = "quarantine": (EventNum,) => Json<Value>, Kind::Small;
    /// The clearances that administrators gave: (0 user, 1 device; name).
    Clearances = "clearance": (u8, String) => Json<Value>, Kind::Small;
    /// The servers that administrators wrote into the table of peers, or crossed out of it.
    PeerTable = "peer": (String,) => Json<Value>, Kind::Small;
    /// Requests to say again at a lower label what was said at a higher: by id.
    Downgrades = "downgrade": (String,) => Json<Value>, Kind::Small;
    /// What came where it should not have come, and what was done about it: by id.
    Spills = "spill": (String,) => Json<Value>, Kind::Small;
    /// The events that show a file: (`server/id`, event). Written by rooms.
    MediaReferences = "media_reference": (String, EventNum) => (), Kind::Small;

    // ---- media (media/) --------------------------------------------------------------------------------------
    /// Media: (server name, media id). Under an empty server name: ids and uploads whose file is not there yet. Written
    /// by media.
    Media = "media": (String, String) => Json<Value>, Kind::Small;
    /// The bytes of media: (server name, media id, rendition: "" or `WxH-method`, chunk number).
    MediaChunks = "media_chunk": (String, String, String, u32) => Raw, Kind::Blob;
    /// State of the server as a whole: signing keys, server-wide settings; by name. Secrets: never logged, never exported.
    ServerState = "server_state": (String,) => Raw, Kind::Small;
}
