//! Links: where they go, whether that is allowed, and whether they look as if they went elsewhere.

use linkify::{LinkFinder, LinkKind};
use unicode_security::MixedScript;
use url::{Host, Url};

use crate::limits::{HOSTS, LINK_BYTES, LINKS};
use crate::settings::{BadSettings, LinkSettings};
use crate::{Text, Verdict};

#[derive(Debug)]
pub(crate) struct Links {
    allow: Vec<HostPattern>,
    deny: Vec<HostPattern>,
    schemes: Vec<String>,
    bare_hosts: bool,
    /// Links in HTML may be relative: to nothing, in a message.
    base: Url,
}

/// A host, each label of which is itself or `*`.
#[derive(Debug)]
struct HostPattern {
    /// From the last to the first.
    labels: Vec<Option<String>>,
    /// Whether it begins with `*`, which stands for one label or more.
    below: bool,
}

/// A scheme that anybody uses, bytes.
const SCHEME_BYTES: usize = 32;

/// A host that is in no link: names below `invalid` exist nowhere (RFC 6761, section 6.4).
const NOWHERE: &str = "relative.invalid";

impl Links {
    pub(crate) fn new(settings: &LinkSettings) -> Result<Option<Self>, BadSettings> {
        if !settings.enabled {
            return Ok(None);
        }
        let nowhere = |error: url::ParseError| BadSettings::Host {
            list: "allow",
            host: NOWHERE.to_owned(),
            reason: error.to_string(),
        };
        Ok(Some(Self {
            allow: hosts("allow", &settings.allow)?,
            deny: hosts("deny", &settings.deny)?,
            schemes: settings.schemes.iter().map(|scheme| scheme.to_ascii_lowercase()).collect(),
            bare_hosts: settings.bare_hosts,
            base: Url::parse(&format!("https://{NOWHERE}/")).map_err(nowhere)?,
        }))
    }

    /// Looks at all links of a text: those that are written out, and those of HTML.
    pub(crate) fn inspect_text(&self, text: &Text<'_>, verdict: &mut Verdict) {
        let mut left = LINKS;
        for form in text.forms() {
            self.written(form, &text.place, &mut left, verdict);
        }
        for (target, shown) in text.html.iter().flat_map(|html| &html.links) {
            if left == 0 {
                break;
            }
            left -= 1;
            let Ok(target) = self.base.join(target.trim()) else { continue };
            self.link(&target, &text.place, verdict);
            self.compare(&target, shown, &text.place, verdict);
        }
        if left == 0 {
            verdict.add("limit:links", &text.place, "");
        }
    }

    /// Links that are written out in `text`.
    fn written(&self, text: &str, place: &str, left: &mut usize, verdict: &mut Verdict) {
        // Without a dot or a colon there are none.
        if memchr::memchr2(b'.', b':', text.as_bytes()).is_none() {
            return;
        }
        self.with_scheme(text, place, left, verdict);
        for link in self.finder().links(text) {
            if *left == 0 {
                return;
            }
            *left -= 1;
            if let Some(url) = parsed(link.as_str()).filter(|_| !file_name(link.as_str())) {
                self.link(&url, place, verdict);
            }
        }
    }

    /// Links with a scheme and two slashes, however odd their host is: browsers take addresses written as one number,
    /// which `linkify` leaves alone.
    fn with_scheme(&self, text: &str, place: &str, left: &mut usize, verdict: &mut Verdict) {
        for at in memchr::memmem::find_iter(text.as_bytes(), "://") {
            let (before, after) = text.split_at(at);
            let letters = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
            let scheme = before.len() - before.bytes().rev().take_while(letters).take(SCHEME_BYTES).count();
            let after = after.get(..after.floor_char_boundary(LINK_BYTES)).unwrap_or_default();
            let end = after.find(|c: char| c.is_whitespace() || matches!(c, '<' | '>' | '"'));
            let link = text.get(scheme..at + end.unwrap_or(after.len())).unwrap_or_default();
            let link = link.trim_end_matches(|c: char| c.is_ascii_punctuation() && c != '/');
            if *left == 0 {
                return;
            }
            *left -= 1;
            let Ok(url) = Url::parse(link) else { continue };
            self.link(&url, place, verdict);
        }
    }

    fn finder(&self) -> LinkFinder {
        let mut finder = LinkFinder::new();
        finder.kinds(&[LinkKind::Url]).url_must_have_scheme(!self.bare_hosts);
        finder
    }

    fn link(&self, url: &Url, place: &str, verdict: &mut Verdict) {
        let scheme = url.scheme();
        if !self.schemes.iter().any(|known| known == scheme) {
            verdict.add(&format!("link-scheme:{scheme}"), place, "");
        }
        let host = match url.host() {
            None => return,
            Some(Host::Domain(NOWHERE)) => return,
            Some(host) => host.to_string().trim_end_matches('.').to_ascii_lowercase(),
        };
        if host.is_empty() {
            return;
        }
        verdict.add(&format!("link:{host}"), place, &host);
        let refused = self.deny.iter().any(|pattern| pattern.matches(&host))
            || !(self.allow.is_empty() || self.allow.iter().any(|pattern| pattern.matches(&host)));
        if refused {
            verdict.add(&format!("link-refused:{host}"), place, &host);
        }
        if !url.username().is_empty() || url.password().is_some() {
            verdict.add("link-deceptive:user-info", place, &host);
        }
        if let Some(kind) = look_alike(&host) {
            verdict.add(kind, place, &host);
        }
    }

    /// Whether the text of a link is itself a link, to another host.
    fn compare(&self, target: &Url, shown: &str, place: &str, verdict: &mut Verdict) {
        let mut finder = LinkFinder::new();
        finder.kinds(&[LinkKind::Url]).url_must_have_scheme(false);
        let shown = finder.links(shown).find_map(|link| parsed(link.as_str()));
        let Some(shown) = shown else { return };
        if let (Some(says), Some(goes)) = (shown.host_str(), target.host_str())
            && says.trim_start_matches("www.") != goes.trim_start_matches("www.")
        {
            verdict.add("link-deceptive:text", place, &format!("{says} goes to {goes}"));
        }
    }
}

/// A link as it is written: with a scheme, or a host without one.
fn parsed(link: &str) -> Option<Url> {
    if link.contains(':')
        && let Ok(url) = Url::parse(link)
        && (url.has_host() || !link.contains('.'))
    {
        return Some(url);
    }
    Url::parse(&format!("https://{link}")).ok()
}

/// Whether what looks like a host is a file's name, since no host ends like this. Endings that both may have, such as
/// `.zip` and `.com`, are hosts: clients make links of them.
fn file_name(link: &str) -> bool {
    let ending = link.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    !link.contains(['/', ':']) && FILE_ENDINGS.contains(&ending.as_str())
}

const FILE_ENDINGS: [&str; 40] = [
    "7z", "avi", "bin", "bmp", "conf", "cpp", "csv", "dll", "doc", "docx", "exe", "gif", "gz", "htm", "html",
    "ini", "java", "jpeg", "jpg", "js", "json", "log", "mp3", "mp4", "odt", "ogg", "pdf", "png", "ppt",
    "pptx", "rar", "svg", "tar", "toml", "txt", "wav", "webp", "xls", "xlsx", "xml",
];

/// Whether a host's name is not what it seems to be.
fn look_alike(host: &str) -> Option<&'static str> {
    if !host.contains("xn--") {
        return None;
    }
    let (name, readable) = idna::domain_to_unicode(host);
    if readable.is_err() {
        return Some("link-deceptive:malformed");
    }
    for label in name.split('.').filter(|label| !label.is_ascii()) {
        if !label.is_single_script() {
            return Some("link-deceptive:mixed-script");
        }
        if unicode_security::skeleton(label).all(|c| c.is_ascii()) {
            return Some("link-deceptive:look-alike");
        }
    }
    None
}

fn hosts(list: &'static str, hosts: &[String]) -> Result<Vec<HostPattern>, BadSettings> {
    if hosts.len() > HOSTS {
        return Err(BadSettings::Hosts { list, count: hosts.len() });
    }
    let pattern = |host: &String| {
        HostPattern::new(host).map_err(|reason| BadSettings::Host { list, host: host.clone(), reason })
    };
    hosts.iter().map(pattern).collect()
}

impl HostPattern {
    fn new(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self { labels: Vec::new(), below: true });
        }
        // A label that is `*` is put aside, since no host has one.
        let plain = text.replace('*', "any-label");
        let host = match Host::parse(&plain).map_err(|error| error.to_string())? {
            Host::Domain(host) => host,
            address => return Self::address(text, &address.to_string()),
        };
        let mut labels = Vec::new();
        for (label, given) in host.trim_end_matches('.').split('.').zip(text.split('.')) {
            labels.push(match given {
                "*" => None,
                given if given.contains('*') => return Err("an asterisk stands for a whole label".to_owned()),
                _ => Some(label.to_ascii_lowercase()),
            });
        }
        let below = labels.first().is_some_and(Option::is_none);
        if below {
            labels.remove(0);
        }
        labels.reverse();
        Ok(Self { labels, below })
    }

    fn address(text: &str, address: &str) -> Result<Self, String> {
        if text.contains('*') {
            return Err("an address has no labels".to_owned());
        }
        let mut labels: Vec<_> = address.split('.').map(|label| Some(label.to_owned())).collect();
        labels.reverse();
        Ok(Self { labels, below: false })
    }

    fn matches(&self, host: &str) -> bool {
        let mut labels = host.rsplit('.');
        for pattern in &self.labels {
            match (labels.next(), pattern) {
                (None, _) => return false,
                (Some(label), Some(pattern)) if label != pattern => return false,
                _ => {}
            }
        }
        labels.next().is_some() == self.below
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use proptest::prelude::*;

    use super::*;

    fn settings(allow: &[&str], deny: &[&str]) -> LinkSettings {
        let owned = |hosts: &[&str]| hosts.iter().map(|host| (*host).to_owned()).collect();
        LinkSettings { allow: owned(allow), deny: owned(deny), ..LinkSettings::default() }
    }

    fn found_with(settings: &LinkSettings, text: &str) -> Vec<String> {
        let mut verdict = Verdict::default();
        let text = Text::new("/body".to_owned(), Cow::Borrowed(text));
        Links::new(settings).unwrap().unwrap().inspect_text(&text, &mut verdict);
        verdict.findings().iter().map(|finding| finding.id.clone()).collect()
    }

    fn found(text: &str) -> Vec<String> {
        found_with(&LinkSettings::default(), text)
    }

    #[test]
    fn every_link_is_found_by_its_host() {
        for (text, expected) in [
            ("see https://Example.ORG./path, it is good", "link:example.org"),
            ("see example.org/path", "link:example.org"),
            ("http://2130706433/ is http://0x7f.1", "link:127.0.0.1"),
            ("http://[::1]:8008/", "link:[::1]"),
            ("https://münchen.example", "link:xn--mnchen-3ya.example"),
            ("<a href='//example.org'>here</a>", "link:example.org"),
            ("<a href='https:\\\\example.org'>here</a>", "link:example.org"),
            ("<a href=' ht&#x74;ps://example.org'>here</a>", "link:example.org"),
            ("h\u{200b}ttps://example.org", "link:example.org"),
            ("ｈｔｔｐｓ://ｅｘａｍｐｌｅ.ｏｒｇ", "link:example.org"),
        ] {
            assert!(found(text).contains(&expected.to_owned()), "{text:?}: {:?}", found(text));
        }
        assert_eq!(found("no link: 1.5, e.g. this one"), Vec::<String>::new());
        assert_eq!(found("<a href='#below'>below</a> <a href='/'>top</a>"), Vec::<String>::new());
    }

    #[test]
    fn hosts_are_allowed_and_denied_by_whole_labels() {
        let settings =
            settings(&["example.org", "*.example.org", "a.*.test", "192.0.2.1"], &["bad.example.org"]);
        for (host, refused) in [
            ("example.org", false),
            ("a.example.org", false),
            ("a.b.example.org", false),
            ("bad.example.org", true),
            ("notexample.org", true),
            ("example.org.evil.test", true),
            ("a.b.test", false),
            ("a.b.c.test", true),
            ("x.a.b.test", true),
            ("192.0.2.1", false),
            ("192.0.2.2", true),
        ] {
            let found = found_with(&settings, &format!("https://{host}/"));
            assert_eq!(found.contains(&format!("link-refused:{host}")), refused, "{host}: {found:?}");
        }
        for bad in ["a*b.example", "", "exa mple", "192.0.*.1"] {
            let error = Links::new(&settings_of(bad)).map(|_| ()).unwrap_err();
            assert!(error.to_string().contains("links.deny"), "{error}");
        }
    }

    fn settings_of(deny: &str) -> LinkSettings {
        settings(&[], &[deny])
    }

    #[test]
    fn a_host_in_other_scripts_is_denied_under_its_own_name() {
        let settings = settings(&[], &["münchen.example"]);
        let found = found_with(&settings, "https://xn--mnchen-3ya.example/");
        assert!(found.contains(&"link-refused:xn--mnchen-3ya.example".to_owned()));
    }

    #[test]
    fn a_link_that_looks_like_another_is_found() {
        for (text, expected) in [
            ("https://good.example@evil.example/", "link-deceptive:user-info"),
            ("https://аррӏе.com/", "link-deceptive:look-alike"),
            ("https://pаypal.com/", "link-deceptive:mixed-script"),
            ("<a href='https://evil.example'>https://good.example/login</a>", "link-deceptive:text"),
            ("<a href='https://evil.example'>good.example</a>", "link-deceptive:text"),
        ] {
            assert!(found(text).contains(&expected.to_owned()), "{text:?}: {:?}", found(text));
        }
        for text in [
            "https://例え.テスト/",
            "https://münchen.example/",
            "<a href='https://www.good.example/a'>good.example</a>",
            "<a href='https://good.example'>our site</a>",
        ] {
            assert!(
                !found(text).iter().any(|id| id.starts_with("link-deceptive")),
                "{text:?}: {:?}",
                found(text)
            );
        }
    }

    #[test]
    fn a_scheme_that_is_not_listed_is_found() {
        assert_eq!(found("<a href='javascript:alert(1)'>x</a>"), ["link-scheme:javascript"]);
        assert_eq!(found("<a href='data:text/html,x'>x</a>"), ["link-scheme:data"]);
        assert!(found("file://server/share").contains(&"link-scheme:file".to_owned()));
        assert_eq!(found("<a href='mailto:a@example.org'>x</a>"), Vec::<String>::new());
    }

    #[test]
    fn links_are_bounded() {
        assert!(found(&"https://a.example ".repeat(LINKS + 1)).contains(&"limit:links".to_owned()));
    }

    proptest! {
        #[test]
        fn any_text_is_looked_at(text in r#"(https?:|[/\\@.<>"' ]|xn--|a href=|[a-z0-9]|é|а){0,60}"#) {
            found(&text);
        }

        #[test]
        fn a_pattern_below_a_host_matches_all_below_and_not_itself(sub in "[a-z]{1,5}(\\.[a-z]{1,5}){0,3}") {
            let pattern = HostPattern::new("*.example.org").unwrap();
            let below = format!("{sub}.example.org");
            let joined = format!("{sub}example.org");
            prop_assert!(pattern.matches(&below));
            prop_assert!(!pattern.matches("example.org"));
            prop_assert!(!HostPattern::new("example.org").unwrap().matches(&joined));
        }
    }
}
