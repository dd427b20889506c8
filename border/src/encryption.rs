//! The rules of rooms for end-to-end encryption. A boundary cannot look into what is encrypted: a room says when it is created
//! whether nothing in it is, or all, or all with somebody in it who can tell later what was said.

use crate::{
    Error,
    facts::{AUDITOR, ENCRYPTION, RoomFacts},
    standing::Standing,
};
use postern_policy::decide::Encryption;
use postern_rooms::{CreateRoom, Draft, Error as RoomsError, Rooms};
use ruma::UserId;
use serde_json::{Map, Value, json};

/// The type of what is encrypted.
const ENCRYPTED: &str = "m.room.encrypted";
/// The type of the state that turns encryption on.
const STATE: &str = "m.room.encryption";

/// The rule that the content of a create event says.
pub(crate) fn said_in(content: &Map<String, Value>) -> Option<Encryption> {
    match content.get(ENCRYPTION)?.as_str()? {
        "inspectable" => Some(Encryption::Inspectable),
        "e2ee" => Some(Encryption::E2ee),
        "e2ee_auditor" => Some(Encryption::E2eeAuditor),
        _ => None,
    }
}

/// What clients send in the clear also where everything is encrypted: it says nothing, or servers have to understand it.
fn is_never_encrypted(event_type: &str) -> bool {
    matches!(event_type, "m.reaction" | "m.room.redaction")
        || ["m.call.", "m.rtc.", "m.key.verification."].iter().any(|prefix| event_type.starts_with(prefix))
}

impl RoomFacts {
    /// Why an event does not keep to the rule of its room, if it does not.
    pub(crate) fn against_rule(&self, event_type: &str, is_state: bool) -> Option<&'static str> {
        match self.rule? {
            Encryption::Inspectable => (event_type == STATE || event_type == ENCRYPTED).then_some(
                "nothing in this room is encrypted: what is said in it is looked at when it leaves",
            ),
            Encryption::E2ee | Encryption::E2eeAuditor => {
                (!is_state && event_type != ENCRYPTED && !is_never_encrypted(event_type))
                    .then_some("everything in this room is encrypted")
            }
        }
    }

    /// Lets pass what keeps to the rule of the room, and leaves its auditor where they are.
    pub(crate) fn keeps_to_rule(
        &self,
        rooms: &Rooms,
        sender: &UserId,
        draft: &Draft,
        content: &Map<String, Value>,
    ) -> Result<(), Error> {
        let forbidden = |why: &str| Err(RoomsError::Forbidden(why.to_owned()).into());
        if let Some(why) = self.against_rule(&draft.event_type, draft.state_key.is_some()) {
            return forbidden(why);
        }
        let Some(auditor) = &self.auditor else { return Ok(()) };
        let membership = content.get("membership").and_then(Value::as_str);
        if draft.event_type == "m.room.member"
            && draft.state_key.as_deref() == Some(auditor.as_str())
            && sender != auditor
            && matches!(membership, Some("leave" | "ban"))
        {
            return forbidden("the auditor stays in this room");
        }
        if draft.event_type == ENCRYPTED {
            let joined = match (rooms.room(&self.id)?, rooms.user(auditor)?) {
                (Some(room), Some(user)) => rooms.is_joined(room, user)?,
                _ => false,
            };
            if !joined {
                return forbidden(
                    "the auditor is not in this room: nobody could tell later what is said in it",
                );
            }
        }
        Ok(())
    }
}

/// Gives a room its rule, which is said or that of the enclave, and what follows from it.
pub(crate) fn give_rule(standing: &Standing, request: &mut CreateRoom) -> Result<(), Error> {
    let forbidden = |why: &str| Error::from(RoomsError::Forbidden(why.to_owned()));
    let content = &mut request.creation_content;
    content.remove(AUDITOR);
    if !content.contains_key(ENCRYPTION)
        && let Some(rule) = standing.default_encryption
    {
        content.insert(ENCRYPTION.to_owned(), rule.as_str().into());
    }
    if !content.contains_key(ENCRYPTION) {
        return Ok(());
    }
    let rule = said_in(content)
        .ok_or_else(|| forbidden("io.postern.encryption is inspectable, e2ee or e2ee_auditor"))?;
    let turns_on = request.initial_state.iter().any(|(event_type, _, _)| event_type == STATE);
    match rule {
        Encryption::Inspectable if turns_on => return Err(forbidden("nothing in this room is encrypted")),
        Encryption::Inspectable => return Ok(()),
        Encryption::E2eeAuditor => {
            let auditor = standing.auditor.as_ref();
            let auditor =
                auditor.ok_or_else(|| forbidden("this server has no auditor (border.toml: auditor)"))?;
            content.insert(AUDITOR.to_owned(), auditor.as_str().into());
        }
        Encryption::E2ee => {}
    }
    if !turns_on {
        let algorithm = json!({ "algorithm": "m.megolm.v1.aes-sha2" });
        request.initial_state.push((STATE.to_owned(), String::new(), algorithm));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_servers_have_to_understand_is_never_encrypted_and_the_rest_is() {
        for open in ["m.reaction", "m.room.redaction", "m.call.invite", "m.key.verification.done"] {
            assert!(is_never_encrypted(open), "{open}");
        }
        for said in ["m.room.message", "m.sticker", "m.poll.start", "m.beacon", "io.example.note", ENCRYPTED]
        {
            assert!(!is_never_encrypted(said), "{said}");
        }
    }
}
