//! Events made elsewhere: what they have to pass before they are part of a room.
//!
//! <https://spec.matrix.org/latest/server-server-api/#checks-performed-on-receipt-of-a-pdu>

use crate::{Error, Event, batch::Batch, limits, rooms::Rooms, version::Version};
use postern_graph::event::flags;
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, OwnedEventId, RoomId,
    canonical_json::redact_in_place,
    signatures::{PublicKeyMap, Verified as Signed, verify_event},
    state_res::check_pdu_format,
};

/// A PDU whose format, size, hash and signatures were checked: the first two of the checks on receipt.
#[derive(Debug, Clone)]
pub struct Verified {
    id: OwnedEventId,
    json: String,
    version: String,
}

impl Verified {
    /// Checks a PDU of a room of `version` against the signing keys of the servers that have to have signed it. One
    /// whose content hash does not match is taken in its redacted form, as the specification says.
    ///
    /// # Errors
    /// [`Error::BadJson`], [`Error::TooLarge`] if it is no PDU; [`Error::Unverified`] if a signature is missing or
    /// wrong. Such an event is dropped.
    pub fn check(
        version: &Version,
        mut pdu: CanonicalJsonObject,
        keys: &PublicKeyMap,
    ) -> Result<Self, Error> {
        let rules = &version.rules;
        check_pdu_format(&pdu, &rules.event_format).map_err(Error::BadJson)?;
        let signed = verify_event(keys, &pdu, rules).map_err(|error| Error::Unverified(error.to_string()))?;
        if signed == Signed::Signatures {
            redact_in_place(&mut pdu, &rules.redaction, None)
                .map_err(|error| Error::BadJson(error.to_string()))?;
        }
        let id = crate::pdu::event_id(&pdu, rules)?;
        let json = serde_json::to_string(&CanonicalJsonValue::Object(pdu))
            .map_err(|error| Error::BadJson(error.to_string()))?;
        if json.len() > limits::PDU_BYTES {
            return Err(Error::TooLarge(format!("the event is larger than {} bytes", limits::PDU_BYTES)));
        }
        Ok(Self { id, json, version: version.id.to_string() })
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &EventId {
        &self.id
    }

    /// The PDU as it will be stored.
    #[must_use]
    pub fn json(&self) -> &str {
        &self.json
    }
}

/// What became of a received event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// It is part of the room.
    Accepted,
    /// It was here before.
    Known,
    /// Allowed where it stands, but not by the current state, for this reason: kept, not shown, not followed on.
    SoftFailed(String),
    /// Not allowed, for this reason: kept, so that what follows on it can be judged; never shown, never state.
    Rejected(String),
}

impl Rooms {
    /// Takes an event made elsewhere into a room, whose previous and authorizing events are here.
    ///
    /// # Errors
    /// [`Error::MissingEvents`] if they are not, [`Error::BadJson`] if it is of another room or room version.
    pub async fn receive(&self, room: &RoomId, pdu: Verified) -> Result<Received, Error> {
        let room = self.known_room(room)?;
        let (received, seq) = {
            let _lane = self.lane(room).await;
            let mut batch = self.batch(room)?;
            match batch.receive(pdu)? {
                Received::Known => (Received::Known, self.graph.applied()),
                received => (received, batch.commit()?),
            }
        };
        self.durable(seq).await?;
        Ok(received)
    }
}

impl Batch<'_> {
    pub(crate) fn receive(&mut self, pdu: Verified) -> Result<Received, Error> {
        if pdu.version != self.version.id.as_str() {
            return Err(Error::BadJson(format!("the event was checked for room version {}", pdu.version)));
        }
        if self.event_by_id(&pdu.id)?.is_some() {
            return Ok(Received::Known);
        }
        let mut event = self.met(pdu.id, pdu.json)?;
        if !event.says_room(self.room_id()) {
            return Err(Error::BadJson(format!("the event {} is of another room", event.id)));
        }
        let links = self.links(&event)?;
        let before = self.state_before(&links.prev)?;
        let received = self.judge(&event, before)?;
        match &received {
            Received::Rejected(why) => {
                tracing::info!(event = %event.id, why, "an event is rejected");
                event.record.flags |= flags::REJECTED;
            }
            Received::SoftFailed(why) => {
                tracing::info!(event = %event.id, why, "an event is soft-failed");
                event.record.flags |= flags::SOFT_FAILED;
            }
            Received::Accepted | Received::Known => {}
        }
        self.place(event, links, before)?;
        Ok(received)
    }

    /// Authorization, three times: by the events it names, by the state before it, by the current state.
    fn judge(&self, event: &Event, before: postern_graph::Root) -> Result<Received, Error> {
        let by_names = match self.well_authorized(event)? {
            Ok(()) => self.allowed_by_named(event)?,
            refused => refused,
        };
        let standing = match by_names {
            Ok(()) => self.allowed_in(before, event)?,
            refused => refused,
        };
        if let Err(why) = standing {
            return Ok(Received::Rejected(why));
        }
        if before != self.head.state
            && let Err(why) = self.allowed_in(self.head.state, event)?
        {
            return Ok(Received::SoftFailed(why));
        }
        Ok(Received::Accepted)
    }
}
