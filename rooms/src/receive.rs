//! Events made elsewhere: what they have to pass before they are part of a room.
//!
//! <https://spec.matrix.org/latest/server-server-api/#checks-performed-on-receipt-of-a-pdu>

use crate::{Error, Event, authorize::Verdict, batch::Batch, limits, rooms::Rooms, version::Version};
use postern_graph::{
    EventNum, NameKind, Pos, Root,
    event::{EventLinks, flags},
    schema::Timeline,
};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, OwnedEventId, OwnedServerName, OwnedServerSigningKeyId,
    OwnedUserId, RoomId,
    canonical_json::redact_in_place,
    signatures::{
        PublicKeyMap, Verified as Signed, required_server_signatures_to_verify_event, verify_event,
    },
    state_res::check_pdu_format,
};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// A PDU whose format, size, hash and signatures were checked: the first two of the checks on receipt.
#[derive(Debug, Clone)]
pub struct Verified {
    id: OwnedEventId,
    json: String,
    version: String,
    /// The content it was told with is not what its hash is of, and is gone.
    is_copy: bool,
    /// Why the room's policy server does not recommend it.
    not_recommended: Option<String>,
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
        let is_copy = signed == Signed::Signatures;
        if is_copy {
            redact_in_place(&mut pdu, &rules.redaction, None)
                .map_err(|error| Error::BadJson(error.to_string()))?;
        }
        // Not signed, and of no meaning to others.
        pdu.remove("unsigned");
        let id = crate::pdu::event_id(&pdu, rules)?;
        let json = serde_json::to_string(&CanonicalJsonValue::Object(pdu))
            .map_err(|error| Error::BadJson(error.to_string()))?;
        if json.len() > limits::PDU_BYTES {
            return Err(Error::TooLarge(format!("the event is larger than {} bytes", limits::PDU_BYTES)));
        }
        Ok(Self { id, json, version: version.id.to_string(), is_copy, not_recommended: None })
    }

    /// An event that was built and signed here.
    pub(crate) fn own(id: OwnedEventId, json: String, version: &Version) -> Self {
        Self { id, json, version: version.id.to_string(), is_copy: false, not_recommended: None }
    }

    /// An event that was checked before it was stored.
    pub(crate) const fn from_store(id: OwnedEventId, json: String, version: String, is_copy: bool) -> Self {
        Self { id, json, version, is_copy, not_recommended: None }
    }

    /// The same event with one more signature.
    pub(crate) fn signed_further(self, json: String) -> Self {
        Self { json, ..self }
    }

    /// The event, which is to be soft-failed for this reason.
    pub(crate) fn not_recommended(self, why: String) -> Self {
        Self { not_recommended: Some(why), ..self }
    }

    /// Why the policy server of its room does not recommend it, if it was asked and does not.
    #[must_use]
    pub fn why_not_recommended(&self) -> Option<&str> {
        self.not_recommended.as_deref()
    }

    /// The servers that have to have signed a PDU, and the keys they signed it with.
    ///
    /// # Errors
    /// [`Error::BadJson`] if it does not say who sent it.
    pub fn signers(
        version: &Version,
        pdu: &CanonicalJsonObject,
    ) -> Result<BTreeMap<OwnedServerName, BTreeSet<OwnedServerSigningKeyId>>, Error> {
        let servers = required_server_signatures_to_verify_event(pdu, &version.rules.signatures)
            .map_err(|error| Error::BadJson(error.to_string()))?;
        let signatures = pdu.get("signatures").and_then(CanonicalJsonValue::as_object);
        Ok(servers
            .into_iter()
            .map(|server| {
                let of_server = signatures.and_then(|all| all.get(server.as_str()));
                let keys = of_server
                    .and_then(CanonicalJsonValue::as_object)
                    .into_iter()
                    .flat_map(|keys| keys.keys())
                    // It is none of the keys by which the server signs events.
                    .filter(|key| key.as_str() != crate::policy::KEY)
                    .filter_map(|key| OwnedServerSigningKeyId::try_from(key.as_str()).ok())
                    .take(limits::KEYS_OF_A_SIGNER)
                    .collect();
                (server, keys)
            })
            .collect())
    }

    /// The room version it was checked for.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Whether it was told without its content: as its redacted copy, or with another content.
    #[must_use]
    pub const fn is_copy(&self) -> bool {
        self.is_copy
    }

    /// The server of its sender; nothing if it does not say.
    #[must_use]
    pub fn sent_by(&self) -> Option<OwnedServerName> {
        #[derive(Deserialize)]
        struct Sent {
            sender: OwnedUserId,
        }
        Some(serde_json::from_str::<Sent>(&self.json).ok()?.sender.server_name().to_owned())
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

/// The state after a previous event that is not here, as another server told it.
#[derive(Debug, Clone)]
pub struct Gap {
    /// The previous event.
    pub prev: OwnedEventId,
    /// The state before it. Its events were given to [`Rooms::add_outliers`], and the previous event too.
    pub state: Vec<OwnedEventId>,
}

impl Rooms {
    /// Takes an event made elsewhere into a room. Its authorizing events are here; its previous events are, or `gaps`
    /// says what the state was after those that are not.
    ///
    /// # Errors
    /// [`Error::MissingEvents`] if events are missing, [`Error::BadJson`] if it is of another room or room version.
    pub async fn receive(&self, room: &RoomId, pdu: Verified, gaps: &[Gap]) -> Result<Received, Error> {
        let room = self.known_room(room)?;
        let (received, seq) = {
            let _lane = self.lane(room).await;
            let mut batch = self.batch(room)?;
            match batch.receive(pdu, gaps)? {
                Received::Known if batch.rewritten.is_empty() => (Received::Known, self.graph.applied()),
                received => (received, batch.commit()?),
            }
        };
        self.durable(seq).await?;
        Ok(received)
    }

    /// Takes events from before what is here into a room's history, oldest first. They change nothing about the room
    /// now. Those that cannot be placed are passed over. How many were taken.
    ///
    /// # Errors
    /// The store's.
    pub async fn add_history(
        &self,
        room: &RoomId,
        pdus: Vec<Verified>,
        gaps: &[Gap],
    ) -> Result<usize, Error> {
        let room = self.known_room(room)?;
        let (taken, seq) = {
            let _lane = self.lane(room).await;
            let mut batch = self.batch(room)?;
            let oldest = self.graph.scan::<Timeline, _>(&(room,)).first()?.map(|((_, pos), _)| pos);
            let count = i64::try_from(pdus.len()).unwrap_or(i64::MAX);
            let end = oldest.map_or(Pos::BACKFILL, |pos| Pos(pos.0.min(Pos::BACKFILL.0)));
            let mut pos = Pos(end.0.saturating_sub(count));
            let mut taken = 0;
            for pdu in pdus {
                match batch.receive_history(pdu, gaps, pos) {
                    Ok(true) => taken += 1,
                    Ok(false) => {}
                    Err(error @ (Error::Graph(_) | Error::Signing(_))) => return Err(error),
                    Err(error) => tracing::debug!(%error, "an event of the past is passed over"),
                }
                pos = Pos(pos.0 + 1);
            }
            let is_changed = taken > 0 || !batch.rewritten.is_empty();
            (taken, if is_changed { batch.commit()? } else { self.graph.applied() })
        };
        self.durable(seq).await?;
        Ok(taken)
    }
}

impl Batch<'_> {
    pub(crate) fn receive(&mut self, pdu: Verified, gaps: &[Gap]) -> Result<Received, Error> {
        if self.is_known(&pdu)? {
            return Ok(Received::Known);
        }
        let pos = Pos::at(self.commit.take_seq());
        let not_recommended = pdu.not_recommended.clone();
        let (mut event, links, before) = self.standing(pdu, gaps, pos)?;
        if !gaps.is_empty() {
            event.record.flags |= flags::AFTER_GAP;
        }
        self.settle(event, links, before, not_recommended)
    }

    /// Judges an event and places it. One that is not recommended, for the reason given, is soft-failed.
    fn settle(
        &mut self,
        mut event: Event,
        links: EventLinks,
        before: Root,
        not_recommended: Option<String>,
    ) -> Result<Received, Error> {
        let received = match (self.judge(&event, before)?, not_recommended) {
            (Received::Accepted, Some(why)) => Received::SoftFailed(why),
            (Received::Accepted, None) => match self.quarantined(&event)? {
                Some(why) => Received::SoftFailed(why),
                None => Received::Accepted,
            },
            (received, _) => received,
        };
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

    /// Takes an event that follows on exactly what the room ends with, as most do. Nothing if it does not: it has to be received
    /// with what this batch has added committed.
    ///
    /// # Errors
    /// As [`Rooms::receive`]. The batch has nothing of the event then, unless the error is the store's.
    pub(crate) fn receive_next(&mut self, pdu: Verified) -> Result<Option<Received>, Error> {
        if self.is_known(&pdu)? {
            return Ok(Some(Received::Known));
        }
        let pos = Pos::at(self.commit.take_seq());
        let not_recommended = pdu.not_recommended.clone();
        let event = self.met_as_told(pdu, pos)?;
        if !event.says_room(self.room_id()) {
            return Err(Error::BadJson(format!("the event {} is of another room", event.id)));
        }
        let links = self.links(&event)?;
        let ends = &self.head.extremities;
        if links.prev.len() != ends.len() || !links.prev.iter().all(|num| ends.contains(num)) {
            return Ok(None);
        }
        self.settle(event, links, self.head.state, not_recommended).map(Some)
    }

    /// Why the gate does not let an event in, which is then in quarantine.
    fn quarantined(&mut self, event: &Event) -> Result<Option<String>, Error> {
        let Some(gate) = self.rooms.gate() else { return Ok(None) };
        if self.rooms.is_local(event.sender()) {
            return Ok(None);
        }
        let why = gate.admitted(self.rooms, event)?;
        if let Some(why) = &why {
            tracing::warn!(event = %event.id, room = %event.room_id, why, "an event is not let in");
            self.quarantine(event.num, event.sender().server_name(), why);
        }
        Ok(why)
    }

    /// Whether it was taken; not if it is known.
    fn receive_history(&mut self, pdu: Verified, gaps: &[Gap], pos: Pos) -> Result<bool, Error> {
        if self.is_known(&pdu)? {
            return Ok(false);
        }
        let (mut event, links, before) = self.standing(pdu, gaps, pos)?;
        if let Err(why) = self.standing_allowed(&event, before)? {
            tracing::info!(event = %event.id, why, "an event of the past is rejected");
            event.record.flags |= flags::REJECTED;
        } else if self.quarantined(&event)?.is_some() {
            event.record.flags |= flags::SOFT_FAILED;
        }
        self.set_states(&mut event, before)?;
        let event = self.keep(event, &links)?;
        if event.record.is_visible() {
            self.apply_effects(&event)?;
        }
        Ok(true)
    }

    /// Whether an event is known. If that was without its content, which is told now, it is whole from then on.
    fn is_known(&mut self, pdu: &Verified) -> Result<bool, Error> {
        if pdu.version != self.version.id.as_str() {
            return Err(Error::BadJson(format!("the event was checked for room version {}", pdu.version)));
        }
        let is_known = self.event_by_id(&pdu.id)?.is_some_and(|event| !event.record.has(flags::OUTLIER));
        if is_known {
            self.fill_in(pdu)?;
        }
        Ok(is_known)
    }

    /// An event with its edges and the state before it.
    fn standing(
        &mut self,
        pdu: Verified,
        gaps: &[Gap],
        pos: Pos,
    ) -> Result<(Event, EventLinks, Root), Error> {
        let event = self.met_as_told(pdu, pos)?;
        if !event.says_room(self.room_id()) {
            return Err(Error::BadJson(format!("the event {} is of another room", event.id)));
        }
        if gaps.is_empty() {
            let links = self.links(&event)?;
            let before = self.state_before(&links.prev)?;
            return Ok((event, links, before));
        }
        let (mut prev, missing) = self.prev_links(&event)?;
        let mut roots = Vec::with_capacity(prev.len() + missing.len());
        for num in &prev {
            roots.push(self.event(*num)?.record.state_after);
        }
        for id in &missing {
            let Some(gap) = gaps.iter().find(|gap| gap.prev == *id) else {
                return Err(Error::MissingEvents(missing.clone()));
            };
            roots.push(self.state_after_gap(gap)?);
        }
        let auth = self.auth_links(&event)?;
        let before = self.resolve(roots)?;
        // Their edges are kept, for when they come.
        for id in &missing {
            prev.push(EventNum(self.rooms.graph.intern(NameKind::Event, id.as_str(), &mut self.commit)?));
        }
        Ok((event, EventLinks { prev, auth }, before))
    }

    fn state_after_gap(&mut self, gap: &Gap) -> Result<Root, Error> {
        let mut entries = Vec::with_capacity(gap.state.len() + 1);
        for id in gap.state.iter().chain([&gap.prev]) {
            let Some(event) = self.event_by_id(id)? else { continue };
            if let Some(key) = event.record.state_key
                && event.record.room == self.room
                && !event.record.has(flags::REJECTED)
            {
                entries.push((key, event.num));
            }
        }
        // Of two for a key the later stands, which is the previous event itself.
        let entries: BTreeMap<_, _> = entries.into_iter().collect();
        Ok(self.rooms.graph.state_build(&mut self.commit, entries.into_iter().collect()))
    }

    /// Authorization, three times: by the events it names, by the state before it, by the current state.
    fn judge(&self, event: &Event, before: Root) -> Result<Received, Error> {
        if let Err(why) = self.standing_allowed(event, before)? {
            return Ok(Received::Rejected(why));
        }
        if before != self.head.state
            && let Err(why) = self.allowed_in(self.head.state, event)?
        {
            return Ok(Received::SoftFailed(why));
        }
        Ok(Received::Accepted)
    }

    /// Whether it is allowed where it stands: by the events it names, and by the state before it.
    fn standing_allowed(&self, event: &Event, before: Root) -> Result<Verdict, Error> {
        match self.allowed_apart(event)? {
            Ok(()) => self.allowed_in(before, event),
            refused => Ok(refused),
        }
    }

    /// Whether it is allowed by the events it names alone.
    pub(crate) fn allowed_apart(&self, event: &Event) -> Result<Verdict, Error> {
        match self.well_authorized(event)? {
            Ok(()) => self.allowed_by_named(event),
            refused => Ok(refused),
        }
    }
}
