//! PDUs as JSON: ids, hashes, strictness.

use crate::Error;
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedEventId, room_version_rules::RoomVersionRules,
    signatures::reference_hash,
};

/// The id of a complete PDU: its reference hash, or (room versions 1 and 2) what it says.
pub fn event_id(pdu: &CanonicalJsonObject, rules: &RoomVersionRules) -> Result<OwnedEventId, Error> {
    let id = if rules.event_format.require_event_id {
        pdu.get("event_id")
            .and_then(CanonicalJsonValue::as_str)
            .ok_or_else(|| Error::BadJson("the event has no id".to_owned()))?
            .to_owned()
    } else {
        format!("${}", reference_hash(pdu, rules).map_err(|error| Error::BadJson(error.to_string()))?)
    };
    OwnedEventId::try_from(id).map_err(|error| Error::BadJson(error.to_string()))
}
