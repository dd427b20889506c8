//! What must hold of any bytes at all. The fuzz targets call this, and tests with their seeds (see `fuzz/`).
#![allow(clippy::unwrap_used, clippy::panic)]

#[cfg(test)]
#[path = "../../fuzz/seeds.rs"]
mod seeds;

use crate::{
    Directory, Error, Wrong,
    files::FileLabel,
    policy_room::Published,
    settings::Document,
    standing::{Standing, pin_of},
    table::Tables,
};
use base64::{Engine, prelude::BASE64_STANDARD as BASE64};
use postern_policy::decide::{Base, Bundle, Sources};
use ruma::{room_id, server_name};
use serde_json::{Map, Value};
use std::sync::LazyLock;

fn load(directory: Directory) -> Result<Standing, Error> {
    Standing::load(server_name!("here.example"), directory, &Tables::default(), None, None)
}

static STANDING: LazyLock<Standing> = LazyLock::new(|| load(Directory::none()).unwrap());

/// `border.toml` says how things stand, or is refused with all that is wrong. Whom it does not name gets nothing, and what it
/// pins is pinned.
pub fn border_toml(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(document) = toml::from_str::<Document>(text) else { return };
    let Ok(keys) = document.policies.keys() else { return };
    let sources = Sources { base: document.base.unwrap_or(Base::Peers), keys, ..Sources::default() };
    let named = document.peer.clone();
    let directory = Directory { document, sources, ..Directory::none() };
    match load(directory) {
        Ok(standing) => {
            let stranger = standing.peer(server_name!("stranger.example"));
            let is_named = named.iter().any(|entry| entry.name == "stranger.example");
            assert_eq!(stranger.is_known, is_named);
            assert!(is_named || *stranger.clearance == standing.policies.uncleared());
            for entry in named {
                assert_eq!(standing.peer(&entry.name).pins.len(), entry.tls_pins.len());
            }
        }
        Err(Error::Wrong(Wrong(wrong))) => assert!(!wrong.is_empty()),
        Err(error) => panic!("{error}"),
    }
}

/// The content of the policy room's state is a bundle or not, whatever else every event may say, and nobody's keys make it
/// count.
pub fn policy_room(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let room = room_id!("!room:here.example");
    let Ok(published) = Published::of(room, text) else { return };
    let mut content: Map<String, Value> = serde_json::from_str(text).unwrap();
    content.insert("io.postern.label".to_owned(), "Company INTERNAL".into());
    let labelled = Published::of(room, &Value::Object(content).to_string()).unwrap();
    assert_eq!(labelled.json(), published.json());
    if let Ok(bundle) = Bundle::parse(published.json().as_bytes()) {
        let again = Bundle::parse(labelled.json().as_bytes()).unwrap();
        assert_eq!(again.digest(), bundle.digest());
    }
    assert!(Sources::default().load(&[published.handed()], None).is_err());
}

/// Text is a digest of a key or an error; the digest is written as it is read, in either form.
pub fn tls_pin(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Some(pin) = pin_of(text) else { return };
    let written = BASE64.encode(pin);
    assert!(text.ends_with(&written));
    assert_eq!(pin_of(&format!("sha256//{written}")), Some(pin));
}

/// What is said as the label of a file is a label or an error; it is kept such that it is the same label when it is read. What is
/// kept and is no label is above all.
pub fn file_label(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(label) = FileLabel::said(&STANDING, text) {
        let kept = FileLabel::kept(&STANDING, label.to_canonical_json());
        assert_eq!(kept.held, STANDING.resolve(Some(&label)));
        assert!(!kept.text.is_empty());
        assert_eq!(FileLabel::said(&STANDING, &kept.text).unwrap(), label, "{}", kept.text);
    }
    let kept = FileLabel::kept(&STANDING, text.to_owned());
    if let Ok(held) = &kept.held {
        assert!(held.is_unlabelled() || !STANDING.policies.uncleared().dominates(held));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_border_is_set_up_or_refused() {
        seeds::near("border_toml", border_toml);
    }

    #[test]
    fn a_policy_room_says_a_bundle_or_nothing() {
        seeds::near("policy_room", policy_room);
    }

    #[test]
    fn a_pin_is_a_digest_or_nothing() {
        seeds::near("tls_pin", tls_pin);
    }

    #[test]
    fn a_file_has_a_label_that_is_read_back_or_none() {
        seeds::near("file_label", file_label);
    }
}
