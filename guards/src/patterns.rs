//! Expressions of the administrator.

use regex::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};

use crate::limits::{
    EXPRESSION_CACHE_BYTES, MATCHES_OF_RULE, PATTERN_BYTES, PATTERN_NAME_BYTES, PATTERN_PROGRAM_BYTES,
    PATTERNS, PATTERNS_PROGRAM_BYTES,
};
use crate::settings::{BadSettings, Checksum, PatternSettings};
use crate::verdict::masked;
use crate::{Text, Verdict};

#[derive(Debug)]
pub(crate) struct Patterns {
    /// Which of them are in a text at all, in one pass.
    set: RegexSet,
    patterns: Vec<Pattern>,
}

#[derive(Debug)]
struct Pattern {
    finding: String,
    regex: Regex,
    checksum: Option<Checksum>,
}

impl Patterns {
    pub(crate) fn new(settings: &[PatternSettings]) -> Result<Self, BadSettings> {
        if settings.len() > PATTERNS {
            return Err(BadSettings::Patterns(settings.len()));
        }
        let mut patterns: Vec<Pattern> = Vec::with_capacity(settings.len());
        for setting in settings {
            let pattern = Pattern::new(setting)?;
            if patterns.iter().any(|other| other.finding == pattern.finding) {
                return Err(BadSettings::PatternTwice(setting.name.clone()));
            }
            patterns.push(pattern);
        }
        let set = RegexSetBuilder::new(patterns.iter().map(|pattern| pattern.regex.as_str()))
            .size_limit(PATTERNS_PROGRAM_BYTES)
            .dfa_size_limit(EXPRESSION_CACHE_BYTES)
            .build()
            .map_err(|error| BadSettings::Pattern {
                name: "all of them together".to_owned(),
                reason: error.to_string(),
            })?;
        Ok(Self { set, patterns })
    }

    pub(crate) fn inspect(&self, text: &str, place: &str, verdict: &mut Verdict) {
        if self.patterns.is_empty() {
            return;
        }
        for at in self.set.matches(text) {
            let Some(pattern) = self.patterns.get(at) else { continue };
            if let Some(found) = pattern.find(text) {
                verdict.add(&pattern.finding, place, &masked(found));
            }
        }
    }

    /// Looks at all forms of a text.
    pub(crate) fn inspect_text(&self, text: &Text<'_>, verdict: &mut Verdict) {
        for form in text.forms() {
            self.inspect(form, &text.place, verdict);
        }
    }
}

impl Pattern {
    fn new(setting: &PatternSettings) -> Result<Self, BadSettings> {
        let PatternSettings { name, regex, checksum } = setting;
        let named = (1..=PATTERN_NAME_BYTES).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !named {
            return Err(BadSettings::PatternName(name.clone()));
        }
        let refused = |reason: String| BadSettings::Pattern { name: name.clone(), reason };
        if regex.len() > PATTERN_BYTES {
            return Err(refused(format!("it has {} bytes; {PATTERN_BYTES} are allowed", regex.len())));
        }
        let regex = RegexBuilder::new(regex)
            .size_limit(PATTERN_PROGRAM_BYTES)
            .dfa_size_limit(EXPRESSION_CACHE_BYTES)
            .build()
            .map_err(|error| refused(error.to_string()))?;
        if regex.is_match("") {
            return Err(refused("it is found in empty text, so in every text".to_owned()));
        }
        Ok(Self { finding: format!("pattern:{name}"), regex, checksum: *checksum })
    }

    /// The first text that is found and has the checksum.
    fn find<'t>(&self, text: &'t str) -> Option<&'t str> {
        let Some(checksum) = self.checksum else {
            return self.regex.find(text).map(|found| found.as_str());
        };
        self.regex
            .captures_iter(text)
            .take(MATCHES_OF_RULE)
            .filter_map(|groups| groups.iter().skip(1).flatten().next().or(groups.get(0)))
            .map(|found| found.as_str())
            .find(|found| match checksum {
                Checksum::Luhn => luhn(found),
                Checksum::Iban => iban(found),
            })
    }
}

/// Whether the digits of `text` end with the check digit of ISO/IEC 7812-1, annex B. Payment cards have 12 to 19.
fn luhn(text: &str) -> bool {
    let digits = text.chars().filter_map(|c| c.to_digit(10));
    let (mut count, mut sum) = (0, 0);
    for digit in digits.rev() {
        sum += match (count % 2, digit * 2) {
            (0, _) => digit,
            (_, double @ 0..=9) => double,
            (_, double) => double - 9,
        };
        count += 1;
        if count > 19 {
            return false;
        }
    }
    count >= 12 && sum % 10 == 0
}

/// Whether the letters and digits of `text` are an IBAN: two letters and two digits, 15 to 34 characters, and 1 modulo
/// 97 (ISO 13616, by way of ISO/IEC 7064 MOD 97-10).
fn iban(text: &str) -> bool {
    let mut characters: Vec<u32> = Vec::with_capacity(34);
    for c in text.chars().filter(char::is_ascii_alphanumeric) {
        if characters.len() == 34 {
            return false;
        }
        characters.extend(c.to_digit(36));
    }
    let [a, b, c, d, rest @ ..] = characters.as_slice() else { return false };
    if characters.len() < 15 || *a < 10 || *b < 10 || *c > 9 || *d > 9 {
        return false;
    }
    let remainder = rest.iter().chain([a, b, c, d]).fold(0, |remainder, value| {
        let shift = if *value > 9 { 100 } else { 10 };
        (remainder * shift + value) % 97
    });
    remainder == 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(name: &str, regex: &str, checksum: Option<Checksum>) -> PatternSettings {
        PatternSettings { name: name.to_owned(), regex: regex.to_owned(), checksum }
    }

    fn found(patterns: &[PatternSettings], text: &str) -> Vec<String> {
        let mut verdict = Verdict::default();
        Patterns::new(patterns).unwrap().inspect(text, "/body", &mut verdict);
        verdict.findings().iter().map(|finding| format!("{} {}", finding.id, finding.excerpt)).collect()
    }

    #[test]
    fn a_card_number_is_told_from_other_numbers() {
        let card = [pattern("card", r"\b(?:\d[ -]?){12,19}\b", Some(Checksum::Luhn))];
        assert_eq!(found(&card, "pay with 4111 1111 1111 1111 today"), ["pattern:card 4111****"]);
        assert_eq!(found(&card, "order 4111 1111 1111 1112"), Vec::<String>::new());
        assert_eq!(found(&card, "order 4111111111111112, card 5500005555555559"), ["pattern:card 5500****"]);
    }

    #[test]
    fn an_iban_is_told_from_other_text() {
        let iban = [pattern("iban", r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}\b", Some(Checksum::Iban))];
        assert_eq!(found(&iban, "to GB82 WEST 1234 5698 7654 32"), ["pattern:iban GB82****"]);
        assert_eq!(found(&iban, "to GB82WEST12345698765433"), Vec::<String>::new());
    }

    #[test]
    fn a_bad_expression_is_refused_with_its_name_and_reason() {
        let refused =
            |name: &str, regex: &str| Patterns::new(&[pattern(name, regex, None)]).unwrap_err().to_string();
        assert!(refused("a", "(").contains("patterns: \"a\" cannot be used: regex parse error"));
        assert!(refused("a", r"(?=x)").contains("look-around"));
        assert!(refused("a", r"\w{1000}{1000}").contains("size limit"));
        assert!(refused("a", "x*").contains("empty text"));
        assert!(refused("a", &"x".repeat(PATTERN_BYTES + 1)).contains("4096 are allowed"));
        assert!(refused("A b", "x").contains("name"));
        let twice = [pattern("a", "x", None), pattern("a", "y", None)];
        assert_eq!(Patterns::new(&twice).unwrap_err(), BadSettings::PatternTwice("a".to_owned()));
        let many: Vec<_> = (0..=PATTERNS).map(|n| pattern(&format!("p{n}"), "x", None)).collect();
        assert_eq!(Patterns::new(&many).unwrap_err(), BadSettings::Patterns(PATTERNS + 1));
    }

    proptest! {
        #[test]
        fn one_wrong_digit_breaks_the_checksum(digits in "[0-9]{11,18}", at in 0_usize..12, by in 1_u8..10) {
            let card = (0..10).map(|check| format!("{digits}{check}")).find(|card| luhn(card)).unwrap();
            let mut wrong = card.into_bytes();
            wrong[at] = b'0' + (wrong[at] - b'0' + by) % 10;
            prop_assert!(!luhn(std::str::from_utf8(&wrong).unwrap()));
        }

        #[test]
        fn any_text_has_a_checksum_or_not(text in ".{0,60}") {
            let _ = (luhn(&text), iban(&text));
        }
    }
}
