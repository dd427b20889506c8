//! Which servers may take part in a room (specification: server access control lists).
//!
//! <https://spec.matrix.org/latest/client-server-api/#mroomserver_acl>

use crate::{Error, Event, rooms::Rooms};
use postern_graph::{EventNum, RoomNum, Root};
use ruma::ServerName;
use serde_json::Value;
use std::{collections::HashSet, sync::Arc};

const KIND: &str = "m.room.server_acl";

/// An `m.room.server_acl`, ready to be asked.
#[derive(Debug, Default)]
pub(crate) struct Acl {
    /// Whether servers named by an address may be allowed.
    ip_literals: bool,
    allow: Patterns,
    deny: Patterns,
}

/// Names and globs, in lower case. What is no glob is looked up: lists of thousands of plain names are common.
#[derive(Debug, Default)]
struct Patterns {
    names: HashSet<String>,
    globs: Vec<String>,
}

impl Patterns {
    fn of(list: Option<&Value>) -> Self {
        let mut patterns = Self::default();
        for text in list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            let text = text.to_ascii_lowercase();
            if text.contains(['*', '?']) {
                patterns.globs.push(text);
            } else {
                patterns.names.insert(text);
            }
        }
        patterns
    }

    fn match_any(&self, host: &Host) -> bool {
        self.names.contains(host.name.as_str()) || self.globs.iter().any(|glob| host.matches(glob))
    }
}

impl Acl {
    /// From the content of the event: what is missing or of another type has its default.
    fn of(content: &Value) -> Self {
        Self {
            ip_literals: content.get("allow_ip_literals").and_then(Value::as_bool).unwrap_or(true),
            allow: Patterns::of(content.get("allow")),
            deny: Patterns::of(content.get("deny")),
        }
    }

    fn allows(&self, server: &ServerName) -> bool {
        if !self.ip_literals && server.is_ip_literal() {
            return false;
        }
        // A port says nothing about whose server it is.
        let Some(host) = Host::of(server.host()) else { return false };
        !self.deny.match_any(&host) && self.allow.match_any(&host)
    }
}

/// The longest host name that is looked at, bytes: that of a server name in a user id.
const HOST: usize = 255;
/// Places in a host name: before each byte, and after the last.
const WORDS: usize = (HOST + 1) / 64;

/// A set of places in a host name.
type Places = [u64; WORDS];

/// A host name, ready to be matched with many globs.
///
/// A glob is matched by going through it once with the set of all places in the name at which its rest might begin:
/// a few operations for each of its bytes, whatever the glob. Nothing is tried again, so that no glob is slow.
struct Host {
    name: String,
    /// For each byte: where it stands in the name.
    at: Vec<(u8, Places)>,
}

impl Host {
    /// Nothing if it is too long to be one.
    fn of(host: &str) -> Option<Self> {
        let name = host.to_ascii_lowercase();
        if name.len() > HOST {
            return None;
        }
        let mut at: Vec<(u8, Places)> = Vec::new();
        for (place, byte) in name.bytes().enumerate() {
            let bit = 1_u64 << (place % 64);
            match at.iter_mut().find(|(known, _)| *known == byte) {
                Some((_, places)) => places[place / 64] |= bit,
                None => {
                    let mut places = [0; WORDS];
                    places[place / 64] |= bit;
                    at.push((byte, places));
                }
            }
        }
        Some(Self { name, at })
    }

    fn matches(&self, glob: &str) -> bool {
        let mut places = [0; WORDS];
        places[0] = 1;
        for byte in glob.bytes() {
            match byte {
                b'*' => fill_up(&mut places),
                b'?' => step(&mut places),
                _ => {
                    let Some((_, at)) = self.at.iter().find(|(known, _)| *known == byte) else {
                        return false;
                    };
                    for (word, at) in places.iter_mut().zip(at) {
                        *word &= at;
                    }
                    step(&mut places);
                }
            }
            if places == [0; WORDS] {
                return false;
            }
        }
        let end = self.name.len();
        places[end / 64] & (1 << (end % 64)) != 0
    }
}

/// Every place moves one on.
fn step(places: &mut Places) {
    let mut carry = 0;
    for word in places {
        let next = *word >> 63;
        *word = (*word << 1) | carry;
        carry = next;
    }
}

/// From each place on, every place.
fn fill_up(places: &mut Places) {
    let mut begun = false;
    for word in places {
        if begun {
            *word = u64::MAX;
        } else if *word != 0 {
            *word = u64::MAX << word.trailing_zeros();
            begun = true;
        }
    }
}

impl Rooms {
    /// Whether the current access control list of a room lets a server take part; without a list every server may.
    pub fn server_allowed(&self, room: RoomNum, server: &ServerName) -> Result<bool, Error> {
        Ok(match self.state(room, KIND, "")? {
            Some(event) => self.acl(&event).allows(server),
            None => true,
        })
    }

    /// The same by the list in a state map.
    pub fn server_allowed_in(&self, root: Root, server: &ServerName) -> Result<bool, Error> {
        Ok(match self.state_in(root, KIND, "")? {
            Some(event) => self.acl(&event).allows(server),
            None => true,
        })
    }

    fn acl(&self, event: &Event) -> Arc<Acl> {
        // A redaction takes the lists away, which is another list.
        let key: (EventNum, bool) = (event.num, event.record.redacted_by.is_some());
        if let Some(acl) = self.acls.get(&key) {
            return acl;
        }
        let acl = Arc::new(Acl::of(&event.content_as().unwrap_or_default()));
        self.acls.insert(key, acl.clone());
        acl
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn allows(content: &Value, server: &str) -> bool {
        Acl::of(content).allows(<&ServerName>::try_from(server).unwrap())
    }

    #[test]
    fn the_example_of_the_specification() {
        let acl = json!({ "allow": ["*"], "allow_ip_literals": false, "deny": ["*.evil.com", "evil.com"] });
        for server in ["good.com", "notevil.com", "evil.com.org", "evil.com.evil.org:8448"] {
            assert!(allows(&acl, server), "{server}");
        }
        for server in [
            "evil.com",
            "evil.com:8448",
            "evil.com:1234",
            "EVIL.com",
            "a.evil.com",
            "a.b.Evil.Com:1",
            "1.2.3.4",
            "1.2.3.4:8448",
            "[::1]",
            "[1234:5678::abcd]:5678",
        ] {
            assert!(!allows(&acl, server), "{server}");
        }
    }

    #[test]
    fn who_is_not_allowed_is_denied() {
        for acl in [json!({}), json!({ "allow": [] }), json!({ "allow": "*" }), json!({ "allow": [1, null] })]
        {
            assert!(!allows(&acl, "good.com"), "{acl}");
        }
        assert!(allows(&json!({ "allow": ["good.*"] }), "good.com"));
        assert!(!allows(&json!({ "allow": ["good.*"] }), "bad.com"));
        assert!(!allows(&json!({ "allow": ["good.com"], "deny": ["*"] }), "good.com"));
    }

    #[test]
    fn addresses_are_allowed_unless_it_says_false() {
        for literals in [json!(true), json!("false"), json!(0), Value::Null] {
            let acl = json!({ "allow": ["*"], "allow_ip_literals": literals });
            assert!(allows(&acl, "1.2.3.4"), "{acl}");
            assert!(allows(&acl, "[::1]:80"), "{acl}");
        }
        assert!(!allows(&json!({ "allow": ["*"], "deny": ["1.1.1.1"] }), "1.1.1.1:8000"));
        // Not four numbers of an address: a name.
        assert!(allows(&json!({ "allow": ["*"], "allow_ip_literals": false }), "1.2.3.4.com"));
    }

    #[test]
    fn a_question_mark_is_exactly_one_character_and_a_star_any_number() {
        for (glob, host, matches) in [
            ("matrix.?rg", "matrix.org", true),
            ("matrix.?rg", "matrix.rg", false),
            ("???", "abc", true),
            ("???", "ab", false),
            ("???", "abcd", false),
            ("*", "a", true),
            ("a*", "a", true),
            ("*a*", "bab", true),
            ("*a", "ab", false),
            ("a**b", "ab", true),
            ("a?*c", "abc", true),
            ("a?*c", "ac", false),
            ("a.b", "a-b", false),
            ("", "a", false),
            ("ä*", "a", false),
            ("[a-z]*", "b", false),
        ] {
            assert_eq!(Host::of(host).unwrap().matches(glob), matches, "{glob} {host}");
        }
        let long = format!("{}.com", "a".repeat(HOST - 4));
        assert!(Host::of(&long).unwrap().matches("*.com"));
        assert!(Host::of(&long).unwrap().matches(&"?".repeat(HOST)));
        assert!(!Host::of(&long).unwrap().matches(&"?".repeat(HOST + 1)));
        assert!(Host::of(&format!("a{long}")).is_none());
    }

    #[test]
    fn no_glob_is_slow() {
        let host = Host::of(&"a".repeat(HOST)).unwrap();
        let glob = format!("{}b", "a*".repeat(30_000));
        let begun = std::time::Instant::now();
        assert!(!host.matches(&glob));
        assert!(begun.elapsed() < std::time::Duration::from_secs(1));
    }

    /// The definition, as slow as it may be.
    fn matches(glob: &[u8], host: &[u8]) -> bool {
        match glob.split_first() {
            None => host.is_empty(),
            Some((b'*', rest)) => (0..=host.len()).any(|at| matches(rest, &host[at..])),
            Some((byte, rest)) => host
                .split_first()
                .is_some_and(|(head, tail)| (*byte == b'?' || byte == head) && matches(rest, tail)),
        }
    }

    proptest! {
        #[test]
        fn globs_match_as_they_are_defined(glob in "[ab?*.]{0,8}", host in "[ab.]{1,10}") {
            prop_assert_eq!(Host::of(&host).unwrap().matches(&glob), matches(glob.as_bytes(), host.as_bytes()));
        }

        #[test]
        fn so_do_long_ones(glob in "[a?*]{0,6}", head in 60..70_usize, tail in "[ab]{0,5}") {
            let host = format!("{}{tail}", "a".repeat(head));
            prop_assert_eq!(Host::of(&host).unwrap().matches(&glob), matches(glob.as_bytes(), host.as_bytes()));
        }
    }
}
