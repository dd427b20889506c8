//! `docs/attacks.toml`, the table of attacks, is held against the tests there are.

use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    attack: Vec<Attack>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Attack {
    number: u8,
    what: String,
    seen: Vec<String>,
    note: Option<String>,
    missing: Option<String>,
    tests: Vec<String>,
}

/// The names of all tests below a directory.
fn tests_below(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            tests_below(&path, found);
        } else if name.ends_with(".rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let mut is_test = false;
            for line in text.lines().map(str::trim) {
                if line.starts_with("#[") {
                    is_test = is_test || line.starts_with("#[test") || line.starts_with("#[tokio::test");
                    continue;
                }
                let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
                // Property tests are named within a macro.
                if let Some(name) = function.and_then(|rest| rest.split(['(', '<']).next())
                    && (is_test || text.contains("proptest! {"))
                {
                    found.insert(name.to_owned());
                }
                is_test = is_test && line.starts_with("//");
            }
        }
    }
}

/// The numbers an `attack_` test has in its name.
fn numbers(name: &str) -> Vec<u8> {
    let words = name.strip_prefix("attack_").unwrap_or_default().split('_');
    words
        .take_while(|word| *word == "and" || word.parse::<u8>().is_ok())
        .filter_map(|word| word.parse().ok())
        .collect()
}

#[test]
fn the_table_of_attacks_names_every_test_of_an_attack_and_none_that_is_not_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = std::fs::read_to_string(root.join("docs/attacks.toml")).unwrap();
    let table: Table = toml::from_str(&table).unwrap();
    let mut there = BTreeSet::new();
    tests_below(root, &mut there);
    let mut named: BTreeMap<u8, BTreeSet<&str>> = BTreeMap::new();
    for attack in &table.attack {
        let Attack { number, what, seen, note, missing, tests } = attack;
        assert!(
            !what.is_empty() && note.as_deref() != Some("") && !seen.iter().any(String::is_empty),
            "{number}"
        );
        assert_eq!(missing.is_some(), tests.is_empty(), "{number}: what has no test says why");
        for test in tests {
            assert!(there.contains(test), "{number}: there is no test {test}");
            assert!(numbers(test).is_empty() || numbers(test).contains(number), "{number}: {test}");
        }
        if let Some(why) = missing {
            println!("attack {number} is not tested: {why}");
        } else {
            assert!(
                tests.iter().any(|test| numbers(test).contains(number)),
                "{number} has no test of its own"
            );
        }
        let before = named.insert(*number, tests.iter().map(String::as_str).collect());
        assert!(before.is_none(), "{number} stands there twice");
    }
    let all: Vec<u8> = (1..=62).collect();
    assert_eq!(named.keys().copied().collect::<Vec<_>>(), all);
    for test in there.iter().filter(|name| name.starts_with("attack_")) {
        for number in numbers(test) {
            assert!(named[&number].contains(test.as_str()), "{test} does not stand under {number}");
        }
        assert!(!numbers(test).is_empty(), "{test} has no number");
    }
}
