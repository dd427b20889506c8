//! Where the specification's data contradicts its prose, or itself. Each has its reason.

use jsonschema::ValidationError;

/// An endpoint's path, the side (`request`, `answer` or a parameter's name), how the message begins or what it contains, and
/// why that is no mistake of the server.
type Quirk = (&'static str, &'static str, &'static str, &'static str);

const QUIRKS: &[Quirk] = &[
    (
        "/_matrix/client/v3/voip/turnServer",
        "answer",
        "is a required property",
        "the data knows no server without TURN; clients take an empty object for that, and choke on an empty list",
    ),
    (
        "/_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}",
        "answer",
        "is valid under more than one of the schemas",
        "an event is an object too: `oneOf` content and event should be `anyOf`",
    ),
];

/// Whether a violation is a mistake of the data.
pub(crate) fn is_known(endpoint: &str, side: &str, error: &ValidationError<'_>) -> bool {
    let text = error.to_string();
    QUIRKS.iter().any(|(path, which, part, _)| *path == endpoint && *which == side && text.contains(part))
}
