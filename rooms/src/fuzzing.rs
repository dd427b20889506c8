//! What must hold of any bytes at all. The fuzz targets call this, and tests with their seeds (see `fuzz/`).
#![allow(clippy::unwrap_used, clippy::panic)]

#[cfg(test)]
#[path = "../../fuzz/seeds.rs"]
mod seeds;

use crate::{
    Event, Relation, pdu,
    power::{Action, PowerLevels},
    version::{SUPPORTED, Version, version},
    view::TimelineToken,
};
use postern_graph::{EventNum, Pos, RoomNum, Root, TypeNum, UserNum, event::EventRecord};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedEventId, OwnedRoomId,
    canonical_json::redact_in_place,
    state_res::{
        Event as _, auth_types_for_event, check_pdu_format, check_state_dependent_auth_rules,
        check_state_independent_auth_rules,
    },
};
use std::sync::Arc;

/// What is taken for canonical JSON is written in one way only, and read back as what it was.
pub fn canonical_json(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<CanonicalJsonValue>(bytes) else { return };
    let written = serde_json::to_string(&value).unwrap();
    let again: CanonicalJsonValue = serde_json::from_str(&written).unwrap();
    assert_eq!(again, value);
    assert_eq!(serde_json::to_string(&again).unwrap(), written);
    // The same value as any JSON parser reads: no number was rounded on the way.
    let plain: serde_json::Value = serde_json::from_slice(bytes).unwrap();
    assert_eq!(serde_json::Value::from(value), plain);
}

/// A PDU has a form and an id or an error; redacting it twice is redacting it once, and keeps its id. The first byte,
/// modulo 12, is the room version (`0` gives version 1, `;` gives version 12); the rest is JSON.
pub fn pdu(bytes: &[u8]) {
    let Some((first, json)) = bytes.split_first() else { return };
    let version = version(SUPPORTED[usize::from(*first) % SUPPORTED.len()]).unwrap();
    let Ok(object) = serde_json::from_slice::<CanonicalJsonObject>(json) else { return };
    let rules = &version.rules;
    let well_formed = check_pdu_format(&object, &rules.event_format).is_ok();
    let id = pdu::event_id(&object, rules);
    let mut redacted = object.clone();
    if redact_in_place(&mut redacted, &rules.redaction, None).is_ok() {
        let mut twice = redacted.clone();
        redact_in_place(&mut twice, &rules.redaction, None).unwrap();
        assert_eq!(twice, redacted);
        if let Ok(id) = &id {
            assert_eq!(&pdu::event_id(&redacted, rules).unwrap(), id);
        }
        read(&version, id.as_ref().ok(), &redacted, well_formed);
    }
    read(&version, id.as_ref().ok(), &object, well_formed);
}

/// Reads an event as rooms do.
fn read(version: &Arc<Version>, id: Option<&OwnedEventId>, pdu: &CanonicalJsonObject, well_formed: bool) {
    let json = serde_json::to_string(pdu).unwrap().into_boxed_str();
    let id = id.cloned().unwrap_or_else(|| OwnedEventId::try_from("$none").unwrap());
    let room = OwnedRoomId::try_from("!room:example.org").unwrap();
    let record = EventRecord {
        room: RoomNum(1),
        pos: Pos(1),
        depth: 1,
        origin_ts: 0,
        sender: UserNum(1),
        kind: TypeNum(1),
        state_key: None,
        flags: 0,
        redacted_by: None,
        state_before: Root::EMPTY,
        state_after: Root::EMPTY,
    };
    let Ok(event) = Event::from_parts(EventNum(1), id, room, record, json) else { return };
    let _ = (event.prev_events().count(), event.auth_events().count(), event.membership());
    let _ = (event.redacts(), Relation::of(&event), event.content_text("body"));
    let event = Arc::new(event);
    if let Ok(levels) = PowerLevels::of(version, Some(event.clone()), Some(event.clone())) {
        let _ = levels.level(event.sender());
        let _ = levels.may_send(event.sender(), event.kind(), true);
        let _ = levels.may(event.sender(), Action::Redact);
    }
    // Only what is well-formed comes to be authorized.
    if well_formed {
        let rules = &version.rules.authorization;
        let _ = auth_types_for_event(event.kind(), event.sender(), event.state_key(), event.content(), rules);
        let known = event.clone();
        let _ = check_state_independent_auth_rules(rules, &*event, |_| Some(known.clone()));
        let _ = check_state_independent_auth_rules(rules, &*event, |_| None::<Arc<Event>>);
        // In a room whose whole state is this event.
        let _ = check_state_dependent_auth_rules(rules, &*event, |_, _| Some(known.clone()));
        let _ = check_state_dependent_auth_rules(rules, &*event, |_, _| None::<Arc<Event>>);
        assert!(!event.rejected());
    }
}

/// A place in a timeline is read back as it was written.
pub fn timeline_token(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = TimelineToken::parse_time(text);
    let Ok(token) = text.parse::<TimelineToken>() else { return };
    assert_eq!(token.to_string().parse::<TimelineToken>().unwrap(), token);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_json_is_written_in_one_way_only() {
        seeds::near("canonical_json", canonical_json);
    }

    #[test]
    fn a_pdu_is_read_or_refused_and_keeps_its_id_when_redacted() {
        seeds::near("pdu", pdu);
    }

    #[test]
    fn a_place_in_a_timeline_is_read_back_or_refused() {
        seeds::near("tokens", timeline_token);
    }
}
