//! What must hold of any bytes at all. The fuzz targets call this, and tests with their seeds (see `fuzz/`).
#![allow(clippy::unwrap_used, clippy::panic)]

#[cfg(test)]
#[path = "../../fuzz/seeds.rs"]
mod seeds;

use crate::rules::{Pattern, Rules, Scene, Subject};
use postern_users::default_push_rules;
use ruma::user_id;
use std::convert::Infallible;

/// A room whose members' names are whatever was given.
struct Anywhere<'n>(&'n str);

impl Scene for Anywhere<'_> {
    type Error = Infallible;

    fn room_id(&self) -> &str {
        self.0
    }

    fn members(&self) -> Result<u64, Infallible> {
        Ok(2)
    }

    fn sender_may_notify(&self, _: &str) -> Result<bool, Infallible> {
        Ok(true)
    }

    fn display_name(&self) -> Result<Option<String>, Infallible> {
        Ok(Some(self.0.to_owned()))
    }
}

/// A pattern, up to the first end of a line, and an event that it is held against: the pattern finds itself, and rules come to a verdict.
pub fn push_rules(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (pattern, event) = text.split_once('\n').unwrap_or((text, "{}"));
    let lower = pattern.to_lowercase();
    let (whole, within) = (Pattern::new(pattern, false), Pattern::new(pattern, true));
    if !pattern.contains(['*', '?']) {
        assert!(whole.matches(&lower) && within.matches(&lower));
        assert!(!within.matches(&format!("x{lower}x")) || !lower.is_ascii() || !is_word(&lower));
    }
    let Ok(subject) = Subject::new(event) else { return };
    if let Some(body) = subject.body() {
        // What is all of it is also somewhere in it.
        assert!(!whole.matches(body) || within.matches(body));
    }
    let rules = Rules::new(&default_push_rules(user_id!("@alice:here.test")));
    let Ok(verdict) = rules.verdict(&subject, &Anywhere(pattern));
    if let Some(verdict) = verdict {
        assert!(verdict.notify || verdict.actions.as_ref() == "[]");
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_come_to_a_verdict_whatever_stands_in_pattern_and_event() {
        seeds::near("push_rules", push_rules);
    }
}
