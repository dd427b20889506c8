//! What is asked: may this principal do that with this resource, under these circumstances?
//!
//! A caller builds a [`Question`] from what it has at hand. Its serde form is stable: it stands in recorded questions
//! (see [`Recorded`](super::Recorded)) and in files of cases, where what is left out is `false`, empty, `0`, or what
//! the field says. An unknown field is an error.

use super::limits::MOST_NAMES;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fmt, sync::Arc};

/// One question to the policies.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    pub principal: Principal,
    pub action: Action,
    pub resource: Resource,
    #[serde(default)]
    pub context: Context,
}

/// Who asks, or who it is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Principal {
    User(Arc<User>),
    Server(Arc<Server>),
    Appservice(Arc<Appservice>),
    Link(Arc<Link>),
}

/// What it is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    Room(Arc<Room>),
    Event(Arc<Event>),
    Media(Arc<Media>),
    Space(Arc<Space>),
    /// A profile, devices and their keys, messages to devices.
    User(Arc<User>),
    /// This server, for `admin.*`.
    Server(Arc<Server>),
}

/// Text that stands for one of the values of an enum: in policies, in JSON and in TOML.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$case_doc:meta])* $case:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name { $($(#[$case_doc])* #[serde(rename = $word)] $case,)+ }

        impl $name {
            /// Every one, in the order of the schema.
            pub const ALL: &[Self] = &[$(Self::$case),+];

            /// As it stands in policies.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$case => $word,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// What is to be done. Which principals and resources go with it is in the schema.
    Action {
        Create = "create",
        Join = "join",
        Invite = "invite",
        /// A local user or bridge sends a message event, or uploads a file.
        Send = "send",
        /// A local user or bridge sets state.
        State = "state",
        /// Through the client API, or a server through one of the reading endpoints of federation.
        Read = "read",
        /// Leaves this server for the principal.
        Release = "release",
        /// Comes in from the principal.
        Admit = "admit",
        /// Goes on below its label, as a new event.
        Downgrade = "downgrade",
        /// Leaves in an export.
        Export = "export",
        AdminPeers = "admin.peers",
        AdminLedger = "admin.ledger",
        AdminQuarantine = "admin.quarantine",
        AdminPolicy = "admin.policy",
        AdminRooms = "admin.rooms",
        AdminUsers = "admin.users",
        AdminMedia = "admin.media",
        AdminBundles = "admin.bundles",
        AdminServer = "admin.server",
    }
}

impl Action {
    /// What goes to someone, or comes from someone, and so is never allowed unless their clearance dominates.
    pub const RAILED: &[Self] =
        &[Self::Release, Self::Admit, Self::Read, Self::Join, Self::Invite, Self::Export];
}

words! {
    /// What sort of thing an event is, whatever its type.
    Kind {
        Message = "message",
        /// A message with a file.
        Media = "media",
        Edit = "edit",
        Reaction = "reaction",
        Redaction = "redaction",
        Encrypted = "encrypted",
        State = "state",
        Other = "other",
    }
}

words! {
    /// What a room says of end-to-end encryption.
    Encryption {
        /// None: guards see what is said.
        Inspectable = "inspectable",
        E2ee = "e2ee",
        /// With a device of the enclave among the members that holds the keys.
        E2eeAuditor = "e2ee_auditor",
    }
}

words! {
    /// How far a device is trusted.
    Trust {
        Unverified = "unverified",
        Verified = "verified",
        Managed = "managed",
    }
}

words! {
    /// Which way it goes, seen from this server.
    Direction {
        In = "in",
        Out = "out",
        Within = "within",
    }
}

words! {
    /// The way out or in that asks.
    Door {
        Client = "client",
        Sync = "sync",
        Search = "search",
        Directory = "directory",
        Hierarchy = "hierarchy",
        Profile = "profile",
        Push = "push",
        Media = "media",
        Keys = "keys",
        Edu = "edu",
        Transaction = "transaction",
        Backfill = "backfill",
        MissingEvents = "missing_events",
        Event = "event",
        State = "state",
        StateIds = "state_ids",
        EventAuth = "event_auth",
        Timestamp = "timestamp",
        Join = "join",
        Leave = "leave",
        Invite = "invite",
        Knock = "knock",
        PolicyServer = "policy_server",
        Appservice = "appservice",
        Bundle = "bundle",
        Diode = "diode",
        Mirror = "mirror",
        Export = "export",
        Admin = "admin",
    }
}

/// Another server, or this one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    pub name: String,
    /// Is it this one?
    #[serde(default, skip_serializing_if = "is_false")]
    pub local: bool,
    /// In the peer table, and in good standing there.
    #[serde(default, skip_serializing_if = "is_false")]
    pub accredited: bool,
    /// What the peer table puts it in.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub federations: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clearance: Option<String>,
    /// How it is reached, where that has a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Arc<Link>>,
}

/// A way between enclaves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    pub name: String,
    #[serde(default, skip_serializing_if = "is_false")]
    pub accredited: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clearance: Option<String>,
}

/// A user of this server or of another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// `@localpart:server`.
    pub id: String,
    pub server: Arc<Server>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub admin: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub guest: bool,
    /// As this server gives them: a user of another server has none here.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub roles: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clearance: Option<String>,
    /// Of the device that asks, where one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Trust>,
}

/// A bridge or bot that is registered here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Appservice {
    pub id: String,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub roles: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clearance: Option<String>,
}

/// A space, as what rooms lie in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Space {
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// A room.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Room {
    pub id: String,
    /// The policy its label is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The label as text; none where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Of its classification: 0 is the lowest, and that of a room without a label.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rank: u32,
    #[serde(default = "inspectable", skip_serializing_if = "is_inspectable")]
    pub encryption: Encryption,
    /// `m.federate` of its create event; `true` where it is left out.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub federate: bool,
    /// Anyone may join.
    #[serde(default, skip_serializing_if = "is_false")]
    pub public: bool,
    /// It was made as a direct chat.
    #[serde(default, skip_serializing_if = "is_false")]
    pub direct: bool,
    /// How many servers are in it, this one included.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub servers: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space: Option<Arc<Space>>,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            id: String::new(),
            policy: None,
            label: None,
            rank: 0,
            encryption: Encryption::Inspectable,
            federate: true,
            public: false,
            direct: false,
            servers: 0,
            space: None,
        }
    }
}

/// An event, or one that is about to be.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Empty before it has one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// As in the event: `m.room.message`.
    pub r#type: String,
    pub kind: Kind,
    pub room: Arc<Room>,
    pub sender: Arc<User>,
    /// Its own, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub has_media: bool,
    /// As it is sent, in bytes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub size: u32,
}

/// A file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Media {
    /// `mxc://server/id`.
    pub id: String,
    /// As it is declared.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub r#type: String,
    /// In bytes; what is above the range of `i64` counts as its greatest value.
    #[serde(default, skip_serializing_if = "is_zero_long")]
    pub size: u64,
    /// Where an event refers to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<Arc<Room>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// The circumstances. The default allows nothing that the rail guards: `dominates` is `false`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Context {
    /// Does the clearance in effect (of user, device, server and link) dominate the label?
    pub dominates: bool,
    /// The same of who sent it.
    #[serde(skip_serializing_if = "is_false")]
    pub sender_dominates: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub encrypted: bool,
    /// What the guards found, `class:detail` each. Policies see the classes too.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub guard: BTreeSet<String>,
    /// When, in milliseconds since the epoch. Policies see the hour and the weekday, both in UTC: a decision is good
    /// for the hour it was made in.
    #[serde(skip_serializing_if = "is_zero_long")]
    pub at: u64,
    pub via: Door,
    pub direction: Direction,
    /// Who is invited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Arc<User>>,
    /// Who confirmed, where a second person did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub second_person: Option<Arc<User>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Default for Context {
    fn default() -> Self {
        Self {
            dominates: false,
            sender_dominates: false,
            encrypted: false,
            guard: BTreeSet::new(),
            at: 0,
            via: Door::Client,
            direction: Direction::Within,
            target: None,
            second_person: None,
            reason: None,
        }
    }
}

impl Context {
    /// Of [`Self::at`], in UTC: 0 to 23.
    pub const fn hour(&self) -> u8 {
        (self.at / 3_600_000 % 24) as u8
    }

    /// Of [`Self::at`], in UTC: 1 is Monday, 7 is Sunday.
    pub const fn weekday(&self) -> u8 {
        // The epoch was a Thursday.
        ((self.at / 86_400_000 + 3) % 7 + 1) as u8
    }
}

impl User {
    /// What stands before the first colon of the id, without the `@`.
    pub fn localpart(&self) -> &str {
        let id = self.id.strip_prefix('@').unwrap_or(&self.id);
        id.split_once(':').map_or(id, |(localpart, _)| localpart)
    }
}

impl Question {
    /// Are its sets within bounds? Text is bounded by what it was read from.
    pub(super) fn is_bounded(&self) -> bool {
        let user =
            |user: &User| user.roles.len() <= MOST_NAMES && user.server.federations.len() <= MOST_NAMES;
        let principal = match &self.principal {
            Principal::User(asks) => user(asks),
            Principal::Server(server) => server.federations.len() <= MOST_NAMES,
            Principal::Appservice(appservice) => appservice.roles.len() <= MOST_NAMES,
            Principal::Link(_) => true,
        };
        let resource = match &self.resource {
            Resource::Event(event) => user(&event.sender),
            Resource::User(asked) => user(asked),
            Resource::Server(server) => server.federations.len() <= MOST_NAMES,
            Resource::Room(_) | Resource::Media(_) | Resource::Space(_) => true,
        };
        let others = [&self.context.target, &self.context.second_person];
        principal
            && resource
            && self.context.guard.len() <= MOST_NAMES
            && others.into_iter().flatten().all(|other| user(other))
    }
}

impl Principal {
    /// The name of its type in the schema.
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::User(_) => "User",
            Self::Server(_) => "Server",
            Self::Appservice(_) => "Appservice",
            Self::Link(_) => "Link",
        }
    }

    /// What tells it apart from others of its type.
    pub fn id(&self) -> &str {
        match self {
            Self::User(user) => &user.id,
            Self::Server(server) => &server.name,
            Self::Appservice(appservice) => &appservice.id,
            Self::Link(link) => &link.name,
        }
    }
}

impl Resource {
    /// The name of its type in the schema.
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Room(_) => "Room",
            Self::Event(_) => "Event",
            Self::Media(_) => "Media",
            Self::Space(_) => "Space",
            Self::User(_) => "User",
            Self::Server(_) => "Server",
        }
    }

    /// What tells it apart from others of its type; empty for an event that has no id yet.
    pub fn id(&self) -> &str {
        match self {
            Self::Room(room) => &room.id,
            Self::Event(event) => &event.id,
            Self::Media(media) => &media.id,
            Self::Space(space) => &space.id,
            Self::User(user) => &user.id,
            Self::Server(server) => &server.name,
        }
    }
}

/// One line: who, what, of what.
impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { principal, action, resource, context } = self;
        write!(f, "{} {:?} {action} {}", principal.type_name(), principal.id(), resource.type_name())?;
        match resource {
            Resource::Event(event) => {
                write!(f, " {:?} ({}, {}) in {:?}", event.id, event.r#type, event.kind, event.room.id)?
            }
            other => write!(f, " {:?}", other.id())?,
        }
        write!(f, " via {}", context.via)
    }
}

fn inspectable() -> Encryption {
    Encryption::Inspectable
}

fn is_inspectable(encryption: &Encryption) -> bool {
    *encryption == Encryption::Inspectable
}

fn yes() -> bool {
    true
}

fn is_true(value: &bool) -> bool {
    *value
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

fn is_zero_long(value: &u64) -> bool {
    *value == 0
}
