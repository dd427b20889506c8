//! Every text of an event, in each form in which it may be read.

use std::borrow::Cow;

use serde_json::Value;
use unicode_normalization::UnicodeNormalization;

use crate::Verdict;
use crate::characters::unseen;
use crate::html::{self, Html};
use crate::limits::{DEPTH, STRINGS, TEXT_BYTES};

/// A text and where it was found.
#[derive(Debug)]
pub(crate) struct Text<'a> {
    pub(crate) place: String,
    /// As it stands.
    pub(crate) source: Cow<'a, str>,
    /// As HTML, where it may be that.
    pub(crate) html: Option<Html>,
    /// Each of these without disguise, where that is another text.
    folded: Vec<String>,
}

impl<'a> Text<'a> {
    pub(crate) fn new(place: String, source: Cow<'a, str>) -> Self {
        let html = html::likely(&source).then(|| html::read(&source));
        let mut text = Self { place, source, html, folded: Vec::new() };
        text.folded = text.written().filter_map(folded).collect();
        text
    }

    /// All forms in which the text may be read.
    pub(crate) fn forms(&self) -> impl Iterator<Item = &str> {
        self.written().chain(self.folded.iter().map(String::as_str))
    }

    /// The text as it stands, as HTML shows it, and what HTML hides.
    pub(crate) fn written(&self) -> impl Iterator<Item = &str> {
        let html = self.html.iter().flat_map(|html| {
            let shown = (html.shown != self.source).then_some(html.shown.as_str());
            shown.into_iter().chain(html.hidden.iter().map(String::as_str))
        });
        std::iter::once(self.source.as_ref()).chain(html)
    }
}

/// All texts of `content`: strings, numbers and names of fields, at any depth, each with its place. Names come first,
/// since they are what the rest hangs on.
pub(crate) fn of_event<'a>(content: &'a Value, verdict: &mut Verdict) -> Vec<Text<'a>> {
    let mut walk = Walk { texts: Vec::new(), bytes: 0, verdict };
    walk.value(content, &mut String::new(), 0);
    walk.texts
}

struct Walk<'a, 'v> {
    texts: Vec<Text<'a>>,
    bytes: usize,
    verdict: &'v mut Verdict,
}

impl<'a> Walk<'a, '_> {
    fn value(&mut self, value: &'a Value, place: &mut String, depth: usize) {
        if depth > DEPTH {
            self.verdict.add("limit:depth", place, "");
            return;
        }
        match value {
            Value::Null | Value::Bool(_) => {}
            Value::Number(number) => self.text(Cow::Owned(number.to_string()), place),
            Value::String(text) => self.text(Cow::Borrowed(text), place),
            Value::Array(values) => {
                for (index, value) in values.iter().enumerate() {
                    self.below(value, &index.to_string(), place, depth);
                }
            }
            Value::Object(fields) => {
                for (name, value) in fields {
                    if !ordinary_name(name) {
                        self.text(Cow::Borrowed(name), place);
                    }
                    // A name that could be a secret is not shown.
                    self.below(value, if telling_name(name) { name } else { "*" }, place, depth);
                }
            }
        }
    }

    fn below(&mut self, value: &'a Value, step: &str, place: &mut String, depth: usize) {
        let before = place.len();
        place.push('/');
        place.push_str(step);
        self.value(value, place, depth + 1);
        place.truncate(before);
    }

    fn text(&mut self, text: Cow<'a, str>, place: &str) {
        if text.is_empty() {
            return;
        }
        self.bytes = self.bytes.saturating_add(text.len());
        if self.bytes > TEXT_BYTES || self.texts.len() >= STRINGS {
            self.verdict.add("limit:text", place, "");
            return;
        }
        let text = Text::new(place.to_owned(), text);
        if text.html.as_ref().is_some_and(|html| html.cut) {
            self.verdict.add("limit:text", place, "");
        }
        self.texts.push(text);
    }
}

/// Names of fields that can carry nothing: short and of the letters the specification's names are made of.
pub(crate) fn ordinary_name(name: &str) -> bool {
    name.len() <= 20 && name.bytes().all(|b| b.is_ascii_lowercase() || matches!(b, b'_' | b'.'))
}

/// Names of fields that say where a finding is: those of the specification and its proposals, and similar ones.
fn telling_name(name: &str) -> bool {
    name.len() <= 40
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.' | b'-'))
        && name.bytes().filter(u8::is_ascii_digit).count() <= 4
}

/// All texts in one, without anything between: so a secret is found that was cut into pieces.
pub(crate) fn joined(texts: &[Text<'_>]) -> String {
    let mut all = String::with_capacity(texts.iter().map(|text| text.source.len()).sum());
    for text in texts {
        match &text.html {
            Some(html) => all.push_str(&html.shown),
            None => all.push_str(&text.source),
        }
    }
    all
}

/// The text as a reader takes it: compatibility forms are plain letters (NFKC), letters of other scripts that look like
/// ASCII are that (UTS #39), and what is not seen is not there. None where that changes nothing.
fn folded(text: &str) -> Option<String> {
    if text.is_ascii() {
        return None;
    }
    let folded: String = text.nfkc().filter(|c| !unseen(*c)).map(plain).collect();
    (folded != text).then_some(folded)
}

/// The ASCII letter or digit that a character looks like, or the character.
fn plain(c: char) -> char {
    if c.is_ascii() {
        return c;
    }
    let mut buffer = [0; 4];
    let mut like = unicode_security::skeleton(c.encode_utf8(&mut buffer));
    match (like.next(), like.next()) {
        // The table has one letter for all that look like a line.
        (Some('l'), None) if c.is_uppercase() => 'I',
        (Some(like), None) if like.is_ascii() => like,
        _ => c,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn every_text_is_found_at_any_depth() {
        let content = json!({
            "body": "one", "m.new_content": { "body": "two" }, "answers": [{ "m.text": [{ "body": "three" }] }],
            "a/b~c": 4, "odd name!": true, "empty": "", "none": null,
        });
        let mut verdict = Verdict::default();
        let mut found: Vec<_> = of_event(&content, &mut verdict)
            .into_iter()
            .map(|text| (text.place, text.source.into_owned()))
            .collect();
        found.sort();
        let expected = [
            ("", "a/b~c"),
            ("", "odd name!"),
            ("/*", "4"),
            ("/answers/0/m.text/0/body", "three"),
            ("/body", "one"),
            ("/m.new_content/body", "two"),
        ];
        assert_eq!(found, expected.map(|(place, text)| (place.to_owned(), text.to_owned())));
        assert_eq!(verdict, Verdict::default());
    }

    #[test]
    fn what_is_not_looked_at_is_said() {
        let mut deep = json!("secret");
        for _ in 0..DEPTH + 1 {
            deep = json!([deep]);
        }
        let mut verdict = Verdict::default();
        assert!(of_event(&deep, &mut verdict).is_empty());
        assert!(verdict.contains("limit:depth"));

        let mut verdict = Verdict::default();
        of_event(&json!({ "body": "x".repeat(TEXT_BYTES + 1) }), &mut verdict);
        assert!(verdict.contains("limit:text"));
    }

    #[test]
    fn look_alikes_and_unseen_characters_are_folded() {
        for disguised in ["ＡＫＩＡ", "AK\u{200b}IA", "\u{410}\u{39a}\u{406}\u{410}", "A\u{e0041}KIA", "𝐀𝐊𝐈𝐀"]
        {
            assert_eq!(folded(disguised).as_deref(), Some("AKIA"), "{disguised:?}");
        }
        assert_eq!(folded("plain"), None);
        assert_eq!(folded("Grüße"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_folded(text in ".{0,40}") {
            prop_assert!(folded(&text).is_none_or(|folded| !folded.chars().any(unseen)));
        }
    }
}
