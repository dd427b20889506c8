//! Characters that are not seen, or not seen as what they are: they carry text past a reader, or make text look like
//! other text (Unicode Technical Standard #39; Unicode Standard Annex #9 on bidirectional text).

use unicode_normalization::char::is_combining_mark;
use unicode_script::{Script, UnicodeScript};

use crate::Verdict;

/// Combining marks on one letter. No script needs more; more are a way to write over other lines.
const MARKS: usize = 8;

/// Looks at every character of `text`.
pub(crate) fn inspect(text: &str, place: &str, verdict: &mut Verdict) {
    if text.bytes().all(|b| (b' '..=b'~').contains(&b) || matches!(b, b'\t' | b'\n' | b'\r')) {
        return;
    }
    let mut characters = text.char_indices().peekable();
    let mut before: Option<char> = None;
    let mut marks = 0;
    while let Some((at, c)) = characters.next() {
        let after = characters.peek().map(|(_, c)| *c);
        marks = if is_combining_mark(c) { marks + 1 } else { 0 };
        let kind = match c {
            '\t' | '\n' | '\r' => None,
            c if c.is_control() => Some("unicode:control"),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => Some("unicode:bidi"),
            '\u{200e}' | '\u{200f}' | '\u{61c}' => Some("unicode:bidi-mark"),
            '\u{200c}' | '\u{200d}' if joins(before, after) => None,
            '\u{1f3f4}' => {
                // A flag of a region is a black flag and tags.
                let rest = text.get(at + c.len_utf8()..).unwrap_or_default();
                for _ in 0..flag_tags(rest) {
                    characters.next();
                }
                None
            }
            '\u{e0000}'..='\u{e007f}' => Some("unicode:tag"),
            c if variation(c) => {
                // One says how a letter or an emoji is drawn. Several, or ones that nothing has, say something else.
                let odd = before.is_none_or(|b| b.is_ascii_alphabetic() || b.is_whitespace() || variation(b));
                odd.then_some("unicode:variation")
            }
            c if unseen(c) => Some("unicode:zero-width"),
            '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..='\u{10ffff}' => Some("unicode:private-use"),
            _ if marks > MARKS => Some("unicode:stacked-marks"),
            _ => None,
        };
        if let Some(kind) = kind {
            verdict.add(kind, place, &format!("U+{:04X}", u32::from(c)));
        }
        before = Some(c);
    }
    // The word itself is not shown: it may be a secret.
    if let Some(alike) = text.split(|c: char| !c.is_alphanumeric()).find_map(mixed) {
        verdict.add("unicode:mixed-script", place, &format!("U+{:04X}", u32::from(alike)));
    }
}

/// Whether nothing is drawn for a character: format characters and fillers that Unicode calls default-ignorable.
pub(crate) fn unseen(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

fn variation(c: char) -> bool {
    matches!(c, '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}')
}

/// Whether a joiner or non-joiner has a use between these: in scripts whose letters join, and in emoji.
fn joins(before: Option<char>, after: Option<char>) -> bool {
    let joined = |c: char| match c.script() {
        Script::Latin
        | Script::Greek
        | Script::Cyrillic
        | Script::Han
        | Script::Hiragana
        | Script::Katakana => false,
        Script::Hangul | Script::Armenian | Script::Georgian | Script::Hebrew => false,
        Script::Common => u32::from(c) >= 0x2190,
        // Marks, and the selector that makes a symbol an emoji.
        Script::Inherited => !matches!(c, '\u{200c}' | '\u{200d}'),
        _ => true,
    };
    before.is_some_and(joined)
        && after.is_some_and(|c| joined(c) || c.is_whitespace() || c.is_ascii_punctuation())
}

/// How many tags follow a black flag and name a region (Unicode Technical Standard #51, annex C). None do if there is
/// more or less than a region's name.
fn flag_tags(after: &str) -> usize {
    let tags = after
        .chars()
        .take(8)
        .take_while(|c| matches!(c, '\u{e0030}'..='\u{e0039}' | '\u{e0061}'..='\u{e007a}'));
    let tags = tags.count();
    if (3..=6).contains(&tags) && after.chars().nth(tags) == Some('\u{e007f}') { tags + 1 } else { 0 }
}

/// The letter that is out of place in a word of scripts that look alike: Latin with Cyrillic, Greek, Armenian or
/// Cherokee.
fn mixed(word: &str) -> Option<char> {
    if word.is_ascii() {
        return None;
    }
    let (mut latin, mut alike) = (false, None);
    for c in word.chars() {
        match c.script() {
            Script::Latin => latin = true,
            Script::Cyrillic | Script::Greek | Script::Armenian | Script::Cherokee => {
                alike.get_or_insert(c);
            }
            _ => {}
        }
    }
    alike.filter(|_| latin)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(text: &str) -> Vec<String> {
        let mut verdict = Verdict::default();
        inspect(text, "/body", &mut verdict);
        verdict.findings().iter().map(|finding| format!("{} {}", finding.id, finding.excerpt)).collect()
    }

    #[test]
    fn what_is_not_seen_is_found() {
        for (text, expected) in [
            ("photo\u{202e}gpj.exe", "unicode:bidi U+202E"),
            ("a\u{200f}b", "unicode:bidi-mark U+200F"),
            ("pass\u{200b}word", "unicode:zero-width U+200B"),
            ("pass\u{200d}word", "unicode:zero-width U+200D"),
            ("soft\u{ad}hyphen", "unicode:zero-width U+00AD"),
            ("hi\u{e0068}\u{e0069}", "unicode:tag U+E0068"),
            ("🏴\u{e0068}\u{e0069}", "unicode:tag U+E0068"),
            ("😀\u{e0100}\u{e0101}\u{e0102}", "unicode:variation U+E0101"),
            ("a\u{fe0f}", "unicode:variation U+FE0F"),
            ("bell\u{7}", "unicode:control U+0007"),
            ("\u{e000}", "unicode:private-use U+E000"),
            ("pаypal", "unicode:mixed-script U+0430"),
        ] {
            assert_eq!(found(text), [expected], "{text:?}");
        }
        assert_eq!(found(&format!("z{}", "\u{301}".repeat(9))), ["unicode:stacked-marks U+0301"]);
    }

    #[test]
    fn ordinary_text_of_many_scripts_is_left_alone() {
        for text in [
            "plain\ttext\r\n",
            "Größe, naïve, Łódź, Việt Nam",
            "Привет, мир! שלום עולם مرحبا بالعالم",
            "می\u{200c}خواهم",
            "क्\u{200d}ष श्री",
            "日本語とEnglishとカタカナ",
            "👩\u{200d}👩\u{200d}👧 ❤\u{fe0f}\u{200d}🔥 🏳\u{fe0f}\u{200d}🌈 👍🏽",
            "🏴\u{e0067}\u{e0062}\u{e0073}\u{e0063}\u{e0074}\u{e007f}",
            "1\u{fe0f}\u{20e3} ©\u{fe0f}",
            "5 µm, Ωmega",
        ] {
            if text.contains("Ωmega") {
                assert_eq!(found(text), ["unicode:mixed-script U+03A9"]);
            } else {
                assert_eq!(found(text), Vec::<String>::new(), "{text:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_text_is_looked_at(text in ".{0,80}") {
            found(&text);
        }

        #[test]
        fn a_hidden_message_is_found_in_any_ascii_text(cover in "[ -~]{1,40}", hidden in "[a-z]{2,20}") {
            let hidden: String = hidden.chars().filter_map(|c| char::from_u32(0xe0000 + u32::from(c))).collect();
            let found = found(&(cover + &hidden));
            prop_assert!(found.iter().any(|finding| finding.starts_with("unicode:tag")), "{found:?}");
        }
    }
}
