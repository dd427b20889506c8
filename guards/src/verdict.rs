//! What the guards found.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::limits::{CLASSES, EXCERPT_BYTES, FINDINGS_OF_CLASS, ID_BYTES, PLACE_BYTES};

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Class and name, such as `secret:aws-access-token` or `unicode:bidi`. `docs/guards.md` lists them.
    pub id: String,
    /// Where: a JSON pointer (RFC 6901) into the content, empty for what concerns all of it; of files `name`, `type`,
    /// `size` or `content`. A field whose name is unusual is `*` in it: the name may be a secret.
    #[serde(rename = "where")]
    pub place: String,
    /// A few characters that help a person to find it. Never the secret: that is masked.
    pub excerpt: String,
}

/// Everything that was found in an event or a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    findings: Vec<Finding>,
    classes: BTreeSet<String>,
}

impl Verdict {
    /// What was found, for the audit record. At most 32 of each class.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// For policies: the ids of all findings and their classes (`secret` beside `secret:aws-access-token`), sorted.
    pub fn classes(&self) -> &BTreeSet<String> {
        &self.classes
    }

    /// Whether a class or an id is among what was found.
    pub fn contains(&self, class: &str) -> bool {
        self.classes.contains(class)
    }

    /// Adds a finding, once for each id and place. What no longer fits is said as `limit:findings`.
    pub(crate) fn add(&mut self, id: &str, place: &str, excerpt: &str) {
        let id = beginning(id, ID_BYTES);
        let place = beginning(place, PLACE_BYTES);
        let class = class_of(id);
        let mut of_class = 0;
        for other in &self.findings {
            if other.id == id && other.place == place {
                return;
            }
            of_class += usize::from(class_of(&other.id) == class);
        }
        let kept = of_class < FINDINGS_OF_CLASS;
        if kept {
            self.findings.push(Finding {
                id: id.to_owned(),
                place: place.to_owned(),
                excerpt: beginning(excerpt, EXCERPT_BYTES).to_owned(),
            });
        }
        let class = class.to_owned();
        let known = self.know(&class) & self.know(id);
        if !(kept && known) && class != "limit" {
            self.add("limit:findings", "", "");
        }
    }

    /// Puts a name among the classes. False where there is no room: the last places are kept for `limit:…`.
    fn know(&mut self, name: &str) -> bool {
        let room = self.classes.len() < CLASSES || class_of(name) == "limit";
        if room && !self.classes.contains(name) {
            self.classes.insert(name.to_owned());
        }
        room || self.classes.contains(name)
    }
}

fn class_of(id: &str) -> &str {
    id.split_once(':').map_or(id, |(class, _)| class)
}

/// As much of `text` as fits into `bytes`, in whole characters.
fn beginning(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or_default()
}

/// A secret as it may be shown: its first characters, four at most and a quarter at most, and asterisks that do not
/// say how long it is.
pub(crate) fn masked(secret: &str) -> String {
    let shown = secret.chars().count() / 4;
    let mut masked: String = secret.chars().filter(|c| !c.is_control()).take(shown.min(4)).collect();
    masked.push_str("****");
    masked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_known_by_its_id_and_its_class() {
        let mut verdict = Verdict::default();
        verdict.add("secret:github-pat", "/body", "ghp_****");
        verdict.add("secret:github-pat", "/body", "ghp_****");
        verdict.add("encrypted", "", "");
        assert_eq!(verdict.findings().len(), 2);
        assert_eq!(
            verdict.classes().iter().map(String::as_str).collect::<Vec<_>>(),
            ["encrypted", "secret", "secret:github-pat"]
        );
        let json = serde_json::to_value(&verdict).unwrap();
        assert_eq!(json["findings"][0]["where"], "/body");
    }

    #[test]
    fn many_findings_are_bounded_and_leave_room_for_other_classes() {
        let mut verdict = Verdict::default();
        for number in 0..10_000 {
            verdict.add(&format!("link:host{number}.example"), "/body", "");
        }
        verdict.add("secret:github-pat", "/body", "ghp_****");
        assert!(verdict.contains("limit:findings") && verdict.contains("limit"));
        assert!(verdict.findings().iter().any(|finding| finding.id == "secret:github-pat"));
        assert!(verdict.classes().len() <= CLASSES + 2);
    }

    #[test]
    fn a_masked_secret_shows_a_quarter_at_most() {
        assert_eq!(masked("AKIAQYLPMN5HFIQR7XYA"), "AKIA****");
        assert_eq!(masked("hunter2"), "h****");
        assert_eq!(masked("abc"), "****");
        assert_eq!(masked("äöüäöüäöü"), "äö****");
    }
}
