//! What is generated from the declarations, and committed. After a change of a setting:
//! run these tests once with `POSTERN_UPDATE_GENERATED=1`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use postern_config::{Config, Sources, manual, sample};

fn committed(path: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("POSTERN_UPDATE_GENERATED").is_some() {
        let text = if path.ends_with("postern.toml") { sample() } else { manual() };
        std::fs::write(&path, text).unwrap();
    }
    std::fs::read_to_string(path).unwrap()
}

fn load(text: &str) -> Config {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("postern.toml");
    std::fs::write(&path, text).unwrap();
    Config::load(&Sources { file: Some(path), ..Sources::default() }).unwrap().config
}

#[test]
fn the_committed_sample_is_what_is_generated() {
    assert_eq!(committed("postern.toml"), sample());
}

#[test]
fn the_committed_manual_is_what_is_generated() {
    assert_eq!(committed("../docs/configuration.md"), manual());
}

#[test]
fn the_sample_as_it_is_changes_nothing() {
    assert_eq!(load(&sample()), Config::default());
}

#[test]
fn a_default_of_the_sample_without_its_comment_sign_changes_nothing_and_an_example_is_valid() {
    let defaults: Vec<String> = Config::catalogue()
        .iter()
        .flat_map(|section| {
            section.keys.iter().filter(|key| key.default.is_some()).map(|key| key.name.to_owned())
        })
        .collect();
    let uncommented: Vec<String> = sample()
        .lines()
        .map(|line| {
            match line.strip_prefix('#').and_then(|rest| rest.split_once(" = ").map(|pair| (rest, pair.0))) {
                Some((rest, key)) if defaults.iter().any(|name| name == key) => rest.to_owned(),
                _ => line.to_owned(),
            }
        })
        .collect();
    assert_eq!(load(&uncommented.join("\n")), Config::default());
    for section in Config::catalogue() {
        for key in section.keys {
            let Some(example) = key.example else { continue };
            let text = format!("[{}]\n{} = {example}\n", section.name, key.name);
            if ["tls_", "client_", "federation_tls"].iter().any(|name| key.name.starts_with(name)) {
                continue; // Not valid one without the other.
            }
            assert_ne!(load(&text), Config::default(), "{}.{}", section.name, key.name);
        }
    }
}

#[test]
fn every_key_is_documented_by_whole_sentences() {
    for section in Config::catalogue() {
        assert!(!section.doc.is_empty());
        for key in section.keys {
            let text = key.doc.join("");
            assert!(
                text.trim_end().ends_with('.') && text.len() > 10,
                "{}.{}: {text}",
                section.name,
                key.name
            );
        }
    }
}
