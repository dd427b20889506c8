//! Patterns of push rules (specification: conditions, `event_match`).
//!
//! Patterns come from users and are held against what others say, so matching takes time in proportion to the text, whatever
//! stands in either.

use memchr::memmem;
use regex::bytes::{Regex, RegexBuilder};

/// Memory for a compiled pattern, and for what matching it keeps, bytes each. What does not fit matches nothing.
const COMPILED_BYTES: usize = 64 << 10;

/// A glob in which `*` stands for any characters and `?` for one; case does not count.
#[derive(Debug)]
pub(crate) enum Pattern {
    /// The value as a whole.
    Whole(String),
    /// Somewhere in the value, between the borders of words.
    Word(String),
    /// With wildcards.
    Glob(Box<Regex>),
    /// Nothing: it cannot be compiled.
    Nothing,
}

impl Pattern {
    /// A pattern for values as a whole, or (`within`) for words within them.
    pub(crate) fn new(pattern: &str, within: bool) -> Self {
        let pattern = pattern.to_lowercase();
        match (pattern.contains(['*', '?']), within) {
            (false, true) => Self::Word(pattern),
            (false, false) => Self::Whole(pattern),
            (true, _) => glob(&pattern, within).map_or(Self::Nothing, |regex| Self::Glob(Box::new(regex))),
        }
    }

    /// Whether a value in lower case is one the pattern is for.
    pub(crate) fn matches(&self, lower: &str) -> bool {
        match self {
            Self::Whole(whole) => whole == lower,
            Self::Word(word) => has_word(lower, word),
            Self::Glob(regex) => regex.is_match(lower.as_bytes()),
            Self::Nothing => false,
        }
    }

    /// Whether it takes as much memory as a compiled one.
    pub(crate) const fn is_compiled(&self) -> bool {
        matches!(self, Self::Glob(_))
    }
}

fn glob(pattern: &str, within: bool) -> Option<Regex> {
    let mut text = String::with_capacity(pattern.len() + 32);
    text.push_str(if within { r"(?:^|(?-u:\W|\b))" } else { "^" });
    let mut begin = 0;
    for (at, wildcard) in pattern.match_indices(['*', '?']) {
        text.push_str(&regex::escape(pattern.get(begin..at)?));
        text.push_str(if wildcard == "*" { ".*" } else { "." });
        begin = at + wildcard.len();
    }
    text.push_str(&regex::escape(pattern.get(begin..)?));
    text.push_str(if within { r"(?:(?-u:\b|\W)|$)" } else { "$" });
    RegexBuilder::new(&text)
        .dot_matches_new_line(true)
        .size_limit(COMPILED_BYTES)
        .dfa_size_limit(COMPILED_BYTES)
        .build()
        .ok()
}

/// Whether `word` stands in `text` so that both its ends are borders of words.
pub(crate) fn has_word(text: &str, word: &str) -> bool {
    if word.is_empty() {
        return text.is_empty();
    }
    let bytes = text.as_bytes();
    let is_border = |at: usize| {
        let of_word =
            |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
        !(of_word(at.checked_sub(1).and_then(|before| bytes.get(before))) && of_word(bytes.get(at)))
    };
    let finder = memmem::Finder::new(word);
    let mut from = 0;
    while let Some(found) = bytes.get(from..).and_then(|rest| finder.find(rest)) {
        let begin = from + found;
        if is_border(begin) && is_border(begin + word.len()) {
            return true;
        }
        // The next may begin within this one, but not with it.
        from = begin + 1;
    }
    false
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, within: bool, value: &str) -> bool {
        Pattern::new(pattern, within).matches(&value.to_lowercase())
    }

    #[test]
    fn a_pattern_for_a_body_is_found_between_the_borders_of_words() {
        for (pattern, value, expected) in [
            // The specification's examples.
            ("lunc?*", "Time for Lunch", true),
            ("lunc?*", "launch", false),
            ("cake", "I like CAKE.", true),
            ("cake", "pancakes", false),
            ("cake*lie", "the cake is a lie", true),
            ("foo*bar", "foobar", true),
            ("@room", "hey @room!", true),
            ("@room", "@rooms", false),
            ("mat", "mat", true),
            ("mat", "x mats mat", true),
            ("mat", "_mat", false),
            ("mat", "m\u{e4}t mat\u{e4}", true),
            ("?at", "a cat sat", true),
            ("?at", "flat", false),
            ("*", "", true),
            ("", "x", false),
            ("c++", "I write C++", true),
            ("\u{3b1}", "\u{391}", true),
        ] {
            assert_eq!(matches(pattern, true, value), expected, "{pattern:?} in {value:?}");
        }
    }

    #[test]
    fn other_patterns_are_for_the_value_as_a_whole() {
        for (pattern, value, expected) in [
            ("m.room.*", "m.room.message", true),
            ("m.room.*", "xm.room.message", false),
            ("m.room.message", "m.room.message", true),
            ("m?room?message", "m.room.message", true),
            ("m?room", "m.room.message", false),
            ("!A:b", "!a:B", true),
            ("*", "any\nthing", true),
            ("", "", true),
        ] {
            assert_eq!(matches(pattern, false, value), expected, "{pattern:?} for {value:?}");
        }
    }

    #[test]
    fn a_pattern_that_grows_beyond_bounds_matches_nothing_and_does_no_harm() {
        assert!(!matches(&"?".repeat(1024 * 64), true, &"a".repeat(1 << 16)));
        // Of the kind that takes exponential time elsewhere.
        let pattern = "*a".repeat(200);
        let _ = matches(&pattern, true, &"a".repeat(60_000));
    }

    #[test]
    fn a_text_full_of_near_misses_takes_neither_long_nor_much_of_the_stack() {
        assert!(!matches("a", true, &"ab ".repeat(20_000)));
        assert!(!matches("aaaa", true, &"a".repeat(60_000)));
    }

    proptest! {
        #[test]
        fn a_word_found_by_hand_is_found(text in "[ab_ .\u{e4}]{0,12}", word in "[ab.]{1,3}") {
            let word_byte = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            let (bytes, size) = (text.as_bytes(), word.len());
            let border = |at: usize| at == 0 || at == bytes.len() || !word_byte(bytes[at - 1]) || !word_byte(bytes[at]);
            let by_hand = (0..bytes.len().saturating_sub(size - 1))
                .any(|at| &bytes[at..at + size] == word.as_bytes() && border(at) && border(at + size));
            prop_assert_eq!(has_word(&text, &word), by_hand);
            // With wildcards that stand for nothing else, the same.
            if by_hand {
                let longer = format!("{word}*");
                prop_assert!(Pattern::new(&longer, true).matches(&text));
            }
        }

        #[test]
        fn globs_match_as_a_plain_matcher_says(value in "[ab]{0,8}", pattern in "[ab*?]{0,6}") {
            fn plain(pattern: &[u8], value: &[u8]) -> bool {
                match pattern.split_first() {
                    None => value.is_empty(),
                    Some((b'*', rest)) => (0..=value.len()).any(|skip| plain(rest, &value[skip..])),
                    Some((b'?', rest)) => !value.is_empty() && plain(rest, &value[1..]),
                    Some((byte, rest)) => value.first() == Some(byte) && plain(rest, &value[1..]),
                }
            }
            prop_assert_eq!(Pattern::new(&pattern, false).matches(&value), plain(pattern.as_bytes(), value.as_bytes()));
        }
    }
}
