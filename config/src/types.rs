//! Kinds of values that are particular to a homeserver.

use crate::value::written_as_text;
use std::fmt;

/// The name of this server, the part of its users' ids after the colon: a host name or an IP address, with an
/// optional port ([appendices, "Server Name"](https://spec.matrix.org/v1.19/appendices/#server-name)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerName(String);

impl ServerName {
    /// Longest name, bytes: leaves room for a local part within the 255 bytes of a user id.
    const MAX_LENGTH: usize = 230;

    /// The name, if it is one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text.len() > Self::MAX_LENGTH {
            return None;
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']')?;
                address.parse::<std::net::Ipv6Addr>().ok()?;
                (None, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
            }
            None => match text.split_once(':') {
                Some((host, port)) => (Some(host), Some(port)),
                None => (Some(text), None),
            },
        };
        let host_fits = host.is_none_or(|host| {
            !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
        });
        let port_fits = port.is_none_or(|port| {
            !port.is_empty() && port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit())
        });
        (host_fits && port_fits).then(|| Self(text.to_owned()))
    }

    /// `localhost`, for trying the server out.
    #[must_use]
    pub fn localhost() -> Self {
        Self("localhost".to_owned())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

written_as_text!(
    ServerName,
    "a host name or IP address with an optional port, such as \"example.org\"",
    ServerName::parse,
    |name| name.0.clone()
);

/// Names of servers: as in server ACLs, `*` stands for any number of characters and `?` for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerPattern(String);

impl ServerPattern {
    /// The pattern, if a server name can match it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"-.:[]*?".contains(&b);
        let length = 1..=ServerName::MAX_LENGTH;
        (length.contains(&text.len()) && text.bytes().all(fits)).then(|| Self(text.to_ascii_lowercase()))
    }

    /// Whether it names this server: the name as a whole, or without its port.
    #[must_use]
    pub fn matches(&self, server: &str) -> bool {
        let server = server.to_ascii_lowercase();
        let host = match server.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !host.is_empty() => host,
            _ => server.as_str(),
        };
        globbed(self.0.as_bytes(), server.as_bytes()) || globbed(self.0.as_bytes(), host.as_bytes())
    }
}

/// Whether `text` is what `pattern` says. On a mismatch only the latest `*` takes one character more, so that the time
/// is bounded by the product of both lengths.
fn globbed(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(&byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&wanted) if wanted == b'?' || wanted == byte => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((at, taken)) = star else { return false };
                star = Some((at, taken + 1));
                p = at + 1;
                t = taken + 1;
            }
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

written_as_text!(
    ServerPattern,
    "the name of a server, in which * and ? may stand for other characters, such as \"*.example.org\"",
    ServerPattern::parse,
    |pattern| pattern.0.clone()
);

/// The public half of a signing key of a server, Ed25519.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey(String);

impl PublicKey {
    /// Characters of base64 that 32 bytes are, without padding.
    const LENGTH: usize = 43;

    fn parse(text: &str) -> Option<Self> {
        let text = text.trim_end_matches('=');
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
        (text.len() == Self::LENGTH && text.bytes().all(fits)).then(|| Self(text.to_owned()))
    }

    /// The key in base64 without padding, as servers publish it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

written_as_text!(PublicKey, "a public Ed25519 key: 43 characters of base64", PublicKey::parse, |key| key
    .0
    .clone());

/// A room version of the specification, 1 to 12.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomVersion(&'static str);

impl RoomVersion {
    const ALL: [&'static str; 12] = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"];

    /// The version which the specification gives as default for new rooms.
    pub const DEFAULT: Self = Self("12");

    /// The version as it stands in `m.room.create`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

written_as_text!(
    RoomVersion,
    "a room version as a text, \"1\" to \"12\"",
    |text| RoomVersion::ALL.into_iter().find(|version| *version == text).map(RoomVersion),
    |version| version.0.to_owned()
);

/// What is logged: a level, or levels for parts of the program, as `tracing` writes them
/// (`info,postern_client=debug`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    const LEVELS: [&'static str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

    /// The filter, if each part is a level or `target=level`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let target_fits = |target: &str| {
            !target.is_empty() && target.bytes().all(|b| b.is_ascii_alphanumeric() || b"_:-.".contains(&b))
        };
        let fits = |part: &str| match part.split_once('=') {
            Some((target, level)) => target_fits(target) && Self::LEVELS.contains(&level),
            None => Self::LEVELS.contains(&part),
        };
        text.split(',').all(fits).then(|| Self(text.to_owned()))
    }

    /// Level `info` for everything.
    #[must_use]
    pub fn info() -> Self {
        Self("info".to_owned())
    }

    /// The filter as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

written_as_text!(
    LogFilter,
    "off, error, warn, info, debug or trace, or parts of it such as \"info,postern_client=debug\"",
    LogFilter::parse,
    |filter| filter.0.clone()
);

/// Declares an enum whose variants are written as one word each.
macro_rules! one_of {
    (
        $(#[$meta:meta])*
        $Name:ident { $( $(#[$variant_meta:meta])* $Variant:ident = $word:literal, )+ }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $Name { $( $(#[$variant_meta])* $Variant, )+ }

        impl $Name {
            /// The word for it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$Variant => $word, )+ }
            }
        }

        written_as_text!(
            $Name,
            format!("one of {}", [$( concat!("\"", $word, "\"") ),+].join(", ")),
            |text| match text { $( $word => Some($Name::$Variant), )+ _ => None },
            |value| value.as_str().to_owned()
        );
    };
}

one_of! {
    /// Who may make an account through the client-server API.
    RegistrationMode {
        /// Nobody; administrators make accounts.
        Closed = "closed",
        /// Whoever has a registration token.
        Token = "token",
        /// Anyone, without any proof.
        Open = "open",
    }
}

one_of! {
    /// How log lines look.
    LogFormat {
        /// For people: one line, with colours on a terminal.
        Human = "human",
        /// For machines: one JSON object a line.
        Json = "json",
    }
}

one_of! {
    /// Which new rooms are encrypted though their creator did not ask for it.
    EncryptByDefault {
        /// None.
        Off = "off",
        /// Rooms that only invited people can join.
        Private = "private",
        /// All.
        All = "all",
    }
}

one_of! {
    /// What push gateways are told of an event.
    PushContent {
        /// All that the specification has.
        Full = "full",
        /// The ids of event and room.
        EventIdOnly = "event_id_only",
    }
}

one_of! {
    /// Who may do something.
    Who {
        /// Every user.
        Anyone = "anyone",
        /// Administrators of the server only.
        Administrators = "administrators",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, server: &str) -> bool {
        ServerPattern::parse(pattern).unwrap().matches(server)
    }

    #[test]
    fn a_public_key_is_32_bytes_in_base64() {
        let key = "XGX0JRS2Af3be3knz2fBiRbApjm2Dh61gXDJA8kcJNI";
        assert_eq!(PublicKey::parse(key).unwrap().as_str(), key);
        assert_eq!(PublicKey::parse(&format!("{key}=")).unwrap().as_str(), key);
        assert!(PublicKey::parse(&key[1..]).is_none() && PublicKey::parse(&format!("{key}A")).is_none());
        assert!(PublicKey::parse(&key.replace('X', "-")).is_none());
    }

    #[test]
    fn a_pattern_is_held_against_the_whole_name_with_and_without_its_port() {
        assert!(matches("*", "a.example.org"));
        assert!(matches("*.example.org", "a.b.EXAMPLE.org:8448"));
        assert!(matches("a.example.org:8448", "a.example.org:8448"));
        assert!(matches("a?.example.*", "a1.example.org"));
        assert!(matches("[::1]", "[::1]:8448") && matches("[::1]", "[::1]"));
        assert!(!matches("*.example.org", "example.org"));
        assert!(!matches("example.org", "example.org.evil.test"));
        assert!(!matches("a.example.org:8448", "a.example.org:443"));
        assert!(!matches("a?.example.org", "a.example.org"));
        assert!(!matches("*a*a*a*a*a*b", &"a".repeat(200)));
    }
}
