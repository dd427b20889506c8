//! What must hold of any bytes at all. The fuzz target calls this, and a test with its seeds (see `fuzz/`).
#![allow(clippy::unwrap_used, clippy::panic)]

#[cfg(test)]
#[path = "../../fuzz/seeds.rs"]
mod seeds;

use std::sync::LazyLock;

use crate::files::Content;
use crate::limits::{CLASSES, EXCERPT_BYTES, FINDINGS_OF_CLASS, ID_BYTES, PLACE_BYTES};
use crate::{File, Guards, LinkSettings, PatternSettings, Settings, Verdict};

static GUARDS: LazyLock<Guards> = LazyLock::new(|| {
    let pattern = |name: &str, regex: &str, checksum| PatternSettings {
        name: name.to_owned(),
        regex: regex.to_owned(),
        checksum,
    };
    let settings = Settings {
        patterns: vec![
            pattern("card", r"(?:\d[ -]?){12,19}", Some(crate::Checksum::Luhn)),
            pattern("iban", r"[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}", Some(crate::Checksum::Iban)),
        ],
        links: LinkSettings { allow: vec!["*.example.org".to_owned()], ..LinkSettings::default() },
        ..Settings::default()
    };
    Guards::new(&settings).unwrap()
});

/// Bytes are an event's content, a text and a file: each has a bounded verdict that shows no secret, and looking again
/// finds the same.
pub fn guards(bytes: &[u8]) {
    if let Ok(content) = serde_json::from_slice(bytes) {
        let verdict = GUARDS.inspect_event(&content, "m.room.message");
        check(&verdict);
        assert_eq!(verdict, GUARDS.inspect_event(&content, "m.room.message"));
    }
    let text = String::from_utf8_lossy(bytes);
    check(&GUARDS.inspect_text(&text, "/body"));

    let mut content = Content::default();
    content.take(bytes);
    let file = File { name: Some(&text), media_type: Some(&text), size: Some(bytes.len() as u64) };
    check(&GUARDS.judge_file(&file, &content, false));
}

fn check(verdict: &Verdict) {
    assert!(verdict.classes().len() <= CLASSES + 8);
    for finding in verdict.findings() {
        assert!(finding.id.len() <= ID_BYTES && finding.place.len() <= PLACE_BYTES);
        assert!(finding.excerpt.len() <= EXCERPT_BYTES);
        let class = finding.id.split(':').next().unwrap();
        assert!(verdict.contains(class));
        let of_class = verdict.findings().iter().filter(|other| other.id.split(':').next() == Some(class));
        assert!(of_class.count() <= FINDINGS_OF_CLASS);
        if matches!(class, "secret" | "pattern") {
            assert!(finding.excerpt.is_empty() || finding.excerpt.chars().count() <= 8, "{finding:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_have_a_bounded_verdict() {
        seeds::near("guards", guards);
    }
}
