//! What can go wrong with rooms.

/// An error of an operation on rooms. What each becomes on the wire is decided by the API that called.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rules of the room, or who may see it, say no.
    #[error("{0}")]
    Forbidden(String),
    /// The room, event, alias or user is not there, or not for the one who asks.
    #[error("{0}")]
    NotFound(String),
    /// JSON that may not stand in an event: a float, an integer out of range, no object.
    #[error("{0}")]
    BadJson(String),
    /// A parameter that makes no sense.
    #[error("{0}")]
    InvalidParam(String),
    /// The event would be larger than the specification allows (65,536 bytes, or a field of 255).
    #[error("{0}")]
    TooLarge(String),
    /// A room version this server does not have.
    #[error("room version {0:?} is not supported")]
    UnsupportedVersion(String),
    /// The room is of a version that the asking server does not have.
    #[error("the room is of version {0}")]
    IncompatibleVersion(String),
    /// Whether the user may join can only be told by a server that is in one of the rooms the join rules name.
    #[error("{0}")]
    UnableToAuthorise(String),
    /// The user may join, but nobody on this server can let them in.
    #[error("{0}")]
    UnableToGrant(String),
    /// The state asked for at creation contradicts itself.
    #[error("{0}")]
    InvalidRoomState(String),
    /// The alias is taken.
    #[error("the alias {0} is taken")]
    AliasInUse(String),
    /// The alias does not point where it is said to.
    #[error("{0}")]
    BadAlias(String),
    /// The same annotation of the same event, a second time.
    #[error("you have said this about this event already")]
    DuplicateAnnotation,
    /// A relation that may not be made.
    #[error("{0}")]
    BadRelation(String),
    /// The operation makes no sense in the present state (unbanning who is not banned).
    #[error("{0}")]
    BadState(String),
    /// The server's own keys or signatures failed.
    #[error("the event could not be signed: {0}")]
    Signing(String),
    /// The state of a forked room could not be resolved within the bounds.
    #[error("the state of the room cannot be resolved: {0}")]
    Unresolvable(String),
    /// A PDU from elsewhere names events that are not here, as previous or as authorizing ones.
    #[error("{} events are missing, among them {}", .0.len(), .0.first().map_or("none", |id| id.as_str()))]
    MissingEvents(Vec<ruma::OwnedEventId>),
    /// The state of the room is not whole here yet, and what was asked for needs it.
    #[error("not all of the state of this room is known to this server yet")]
    PartialState,
    /// A PDU from elsewhere fails the checks of its signatures or hashes.
    #[error("{0}")]
    Unverified(String),
    /// The store failed.
    #[error(transparent)]
    Graph(#[from] postern_graph::Error),
}

impl Error {
    pub(crate) fn forbidden(why: impl Into<String>) -> Self {
        Self::Forbidden(why.into())
    }

    pub(crate) fn not_found(what: impl Into<String>) -> Self {
        Self::NotFound(what.into())
    }
}
