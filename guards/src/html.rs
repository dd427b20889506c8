//! HTML as a reader sees it, and what it hides from one.
//!
//! It is read as browsers read it (HTML, section 13.2.5, "Tokenization"), as far as text, tags and attributes go. Clients
//! differ in what they make of broken HTML; so the guards also look at the source as it stands.

use crate::limits::HIDDEN_TEXTS;

/// An HTML text taken apart.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Html {
    /// What is shown: entities are decoded; tags are left out, so that `AK<b>IA</b>` is one word, but those that begin
    /// a line are a line break.
    pub(crate) shown: String,
    /// Values of attributes, and comments.
    pub(crate) hidden: Vec<String>,
    /// Of each link: where it goes and the text it has.
    pub(crate) links: Vec<(String, String)>,
    /// More was hidden than is looked at.
    pub(crate) cut: bool,
}

/// Tags that begin a line or a cell.
const BREAKS: [&str; 22] = [
    "blockquote",
    "br",
    "caption",
    "details",
    "div",
    "dd",
    "dt",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "hr",
    "li",
    "ol",
    "p",
    "pre",
    "table",
    "td",
    "tr",
    "ul",
];

/// Whether a text may be HTML with more to it than its source shows.
pub(crate) fn likely(text: &str) -> bool {
    memchr::memchr2(b'<', b'&', text.as_bytes()).is_some()
}

/// Takes `source` apart.
pub(crate) fn read(source: &str) -> Html {
    let mut html = Html::default();
    let mut rest = source;
    let mut open_link: Option<(String, usize)> = None;
    while let Some(at) = memchr::memchr(b'<', rest.as_bytes()) {
        let (text, tag) = rest.split_at(at);
        html.show(text);
        let inner = tag.get(1..).unwrap_or_default();
        let next = inner.bytes().next().unwrap_or(b' ');
        if let Some(comment) = inner.strip_prefix("!--") {
            let (comment, after) = comment.split_once("-->").unwrap_or((comment, ""));
            html.hide(comment.to_owned());
            rest = after;
        } else if next.is_ascii_alphabetic()
            || (next == b'/' && inner.len() > 1)
            || matches!(next, b'!' | b'?')
        {
            let mut tag = Tag { rest: inner };
            let name = tag.name().to_ascii_lowercase();
            let mut target = None;
            while let Some((key, value)) = tag.attribute() {
                let value = htmlize::unescape_attribute(value).into_owned();
                if key.eq_ignore_ascii_case("href") {
                    target.get_or_insert_with(|| value.clone());
                }
                if !value.is_empty() {
                    html.hide(value);
                }
            }
            rest = tag.rest;
            if BREAKS.contains(&name.trim_start_matches('/')) {
                html.shown.push('\n');
            }
            if name == "a" || name == "/a" {
                html.close(open_link.take());
                open_link = target.map(|target| (target, html.shown.len()));
            }
        } else {
            html.shown.push('<');
            rest = inner;
        }
    }
    html.show(rest);
    html.close(open_link);
    html
}

impl Html {
    fn show(&mut self, text: &str) {
        self.shown.push_str(&htmlize::unescape(text));
    }

    fn hide(&mut self, text: String) {
        if self.hidden.len() < HIDDEN_TEXTS {
            self.hidden.push(text);
        } else {
            self.cut = true;
        }
    }

    fn close(&mut self, link: Option<(String, usize)>) {
        let Some((target, from)) = link else { return };
        let text = self.shown.get(from..).unwrap_or_default().trim().to_owned();
        self.links.push((target, text));
    }
}

/// What is left to read of a tag, and of the text after it.
struct Tag<'a> {
    rest: &'a str,
}

impl<'a> Tag<'a> {
    /// Reads until a byte of which `end` holds; all of them are ASCII.
    fn until(&mut self, end: impl Fn(u8) -> bool) -> &'a str {
        let at = self.rest.bytes().position(end).unwrap_or(self.rest.len());
        let (read, rest) = self.rest.split_at(at);
        self.rest = rest;
        read
    }

    fn name(&mut self) -> &'a str {
        let slash = usize::from(self.rest.starts_with('/'));
        let name =
            self.rest.bytes().skip(slash).position(|b| b.is_ascii_whitespace() || b == b'/' || b == b'>');
        let (name, rest) = self.rest.split_at(name.map_or(self.rest.len(), |at| at + slash));
        self.rest = rest;
        name
    }

    /// The next attribute's name and value. None at the end of the tag, which is read too.
    fn attribute(&mut self) -> Option<(&'a str, &'a str)> {
        self.until(|b| !(b.is_ascii_whitespace() || b == b'/'));
        if self.rest.is_empty() {
            return None;
        }
        if let Some(after) = self.rest.strip_prefix('>') {
            self.rest = after;
            return None;
        }
        // The first byte belongs to the name, even if it is `=`.
        let from = self.rest;
        let first = from.chars().next().map_or(0, char::len_utf8);
        self.rest = from.get(first..).unwrap_or_default();
        self.until(|b| b.is_ascii_whitespace() || matches!(b, b'/' | b'>' | b'='));
        let key = from.get(..from.len() - self.rest.len()).unwrap_or_default();
        let after_name = self.rest;
        self.until(|b| !b.is_ascii_whitespace());
        let Some(value) = self.rest.strip_prefix('=') else {
            self.rest = after_name;
            return Some((key, ""));
        };
        self.rest = value;
        self.until(|b| !b.is_ascii_whitespace());
        match self.rest.bytes().next() {
            Some(quote @ (b'"' | b'\'')) => {
                self.rest = self.rest.get(1..).unwrap_or_default();
                let value = self.until(|b| b == quote);
                self.rest = self.rest.get(1..).unwrap_or_default();
                Some((key, value))
            }
            _ => Some((key, self.until(|b| b.is_ascii_whitespace() || b == b'>'))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tags_are_left_out_and_entities_decoded() {
        let html = read("AK<b>I</b>A&amp;&#x202e;&#65<br>next<p class='one two'>third</p>1 < 2");
        assert_eq!(html.shown, "AKIA&\u{202e}A\nnext\nthird\n1 < 2");
        assert_eq!(html.hidden, ["one two"]);
    }

    #[test]
    fn a_link_is_known_with_its_text() {
        let html = read(r#"see <a title=x HREF = "https://evil.example/&amp;a">https://good.example</a>!"#);
        assert_eq!(html.links, [("https://evil.example/&a".to_owned(), "https://good.example".to_owned())]);
        assert_eq!(html.hidden, ["x", "https://evil.example/&a"]);
    }

    #[test]
    fn comments_and_unfinished_tags_are_hidden_text() {
        assert_eq!(read("a<!-- secret -->b").hidden, [" secret "]);
        assert_eq!(read("a<!-- secret").hidden, [" secret"]);
        let html = read("a<img src='mxc://secret");
        assert_eq!(
            (html.shown.as_str(), html.hidden.first().map(String::as_str)),
            ("a", Some("mxc://secret"))
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in r#"([<>/='"&;!a \-]|&#x?[0-9a-f]{0,6};?|é|<a href=|<!--){0,60}"#) {
            let html = read(&text);
            prop_assert!(html.shown.len() <= 4 * text.len());
        }

        #[test]
        fn text_without_markup_is_as_it_was(text in "[^<&\0\r]*") {
            prop_assert_eq!(read(&text).shown, text);
        }
    }
}
