//! What must hold of any bytes at all. The fuzz targets call this, and a test with their seeds (see `fuzz/`).
#![allow(clippy::unwrap_used, clippy::panic)]

#[cfg(test)]
#[path = "../../fuzz/seeds.rs"]
pub(crate) mod seeds;

use std::sync::OnceLock;

use crate::{Clearance, Label, Policies, spif::Spif};

fn policies() -> &'static Policies {
    static PRESETS: OnceLock<Policies> = OnceLock::new();
    PRESETS.get_or_init(|| Policies::presets().unwrap())
}

/// JSON is a label or an error. A label is written as it is read, in one way; what it means under the policies that come with the
/// program has a marking and a text, which is read back, and it is at most itself. So it is with clearances.
pub fn label(bytes: &[u8]) {
    let Ok(json) = serde_json::from_slice(bytes) else { return };
    if let Ok(label) = Label::from_json(&json) {
        let written = label.to_canonical_json();
        let again = Label::from_json(&serde_json::from_str(&written).unwrap()).unwrap();
        assert_eq!(again, label);
        assert_eq!(again.to_canonical_json(), written);
        if let Ok(resolved) = policies().resolve(&label) {
            assert!(resolved.at_most(&resolved));
            assert_eq!(resolved.join(&resolved), resolved);
            let marking = policies().marking(&label).unwrap();
            assert!(!marking.text.is_empty());
            policies().check(&label).unwrap();
            assert_eq!(policies().resolve(&policies().label_of(&resolved).unwrap()).unwrap(), resolved);
        }
    }
    if let Ok(clearance) = Clearance::from_json(&json) {
        assert_eq!(Clearance::from_json(&clearance.to_json()).unwrap(), clearance);
        if let Ok(resolved) = policies().resolve_clearance(&clearance) {
            assert_eq!(resolved.meet(&resolved), resolved);
            assert!(resolved.dominates(&policies().unlabelled()));
        }
    }
}

/// Text is a label or an error, and what was read is read the same from the text that is written for it. So it is with
/// clearances.
pub fn label_text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(label) = policies().parse_label(text) {
        let written = policies().format_label(&label).unwrap();
        assert_eq!(policies().parse_label(&written).unwrap(), label, "{written}");
    }
    if let Ok(clearance) = policies().parse_clearance(text) {
        let written = policies().format_clearance(&clearance).unwrap();
        assert_eq!(policies().parse_clearance(&written).unwrap(), clearance, "{written}");
    }
}

/// XML, TOML and JSON are a policy that can be loaded, or an error. What was read is written and read back the same, and
/// every label of one value has a marking and a text that is read back.
pub fn spif(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let read = [Spif::from_xml(text).map(|import| import.spif), Spif::from_toml(text), Spif::from_json(text)];
    for spif in read.into_iter().flatten() {
        assert_eq!(Spif::from_toml(&spif.to_toml().unwrap()).unwrap(), spif);
        assert_eq!(Spif::from_json(&serde_json::to_string(&spif).unwrap()).unwrap(), spif);
        // Its equivalences may name what another policy lacks; there is no other here.
        let Ok(alone) = Policies::new(vec![spif.clone()]) else { continue };
        for class in spif.classes.iter().take(8) {
            for tag in spif.tags.iter().take(8) {
                for value in tag.values.iter().take(8) {
                    let label = Label::new(&spif.name, &class.name).unwrap();
                    let label = label.with(&tag.name, tag.kind, [value.name.as_str()]).unwrap();
                    let written = alone.format_label(&label).unwrap();
                    assert_eq!(alone.parse_label(&written).unwrap(), label, "{written}");
                    alone.marking(&label).unwrap();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_policies_near_the_seeds_are_read_or_refused() {
        seeds::near("label", label);
        seeds::near("label_text", label_text);
        seeds::near("spif", spif);
    }
}
