//! Where settings come from, and which layer wins.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use postern_config::{Config, LogFormat, Origin, REDACTED, RegistrationMode, Secret, Sources};
use proptest::prelude::*;
use std::path::PathBuf;

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn without_any_source_the_defaults_hold() {
    let loaded = Config::load(&Sources::default()).unwrap();
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.config.server.name.as_str(), "localhost");
    assert_eq!(loaded.config.listeners.client, ["127.0.0.1:8008".parse().unwrap()]);
    assert_eq!(loaded.config.rooms.default_version.as_str(), "12");
    assert_eq!(loaded.origin("server.name"), &Origin::Default);
}

#[test]
fn flags_win_over_the_environment_and_the_environment_over_the_file() {
    let files = Files::new();
    let file = files.write(
        "postern.toml",
        "[server]\nname = \"file.example\"\n[log]\nlevel = \"debug\"\nformat = \"json\"\n[database]\ncache_mebibytes = 64\n",
    );
    let loaded = Config::load(&Sources {
        file: Some(file),
        environment: pairs(&[
            ("POSTERN__SERVER__NAME", "environment.example"),
            ("POSTERN__LOG__LEVEL", "warn"),
            ("PATH", "/bin"),
        ]),
        flags: pairs(&[("server.name", "flag.example")]),
    })
    .unwrap();
    assert_eq!(loaded.config.server.name.as_str(), "flag.example");
    assert_eq!(loaded.config.log.level.as_str(), "warn");
    assert_eq!(loaded.config.log.format, LogFormat::Json);
    assert_eq!(loaded.config.database.cache_mebibytes, 64);
    assert_eq!(loaded.origin("server.name"), &Origin::Flag);
    assert_eq!(loaded.origin("log.level"), &Origin::Environment("POSTERN__LOG__LEVEL".to_owned()));
    assert!(loaded.show().contains("postern.toml:5"), "the origin names file and line:\n{}", loaded.show());
}

#[test]
fn a_list_is_an_array_or_items_with_commas_in_text() {
    for text in ["127.0.0.1:1, [::1]:2", "[\"127.0.0.1:1\", \"[::1]:2\"]"] {
        let config = Config::with([("listeners.client", text)]).unwrap();
        assert_eq!(config.listeners.client, ["127.0.0.1:1".parse().unwrap(), "[::1]:2".parse().unwrap()]);
    }
    let config = Config::with([("listeners.client", "[::1]:2")]).unwrap();
    assert_eq!(config.listeners.client, ["[::1]:2".parse().unwrap()], "a bracket may begin an address");
    let config = Config::with([("listeners.trusted_proxies", "10.0.0.0/8,192.0.2.1")]).unwrap();
    assert_eq!(config.listeners.trusted_proxies.len(), 2);
}

#[test]
fn an_empty_variable_unsets_what_the_file_set() {
    let files = Files::new();
    let file = files.write("postern.toml", "[server]\npublic_base_url = \"https://example.org\"\n");
    let environment = pairs(&[("POSTERN__SERVER__PUBLIC_BASE_URL", "")]);
    let config = Config::load(&Sources { file: Some(file), environment, flags: vec![] }).unwrap().config;
    assert_eq!(config.server.public_base_url, None);
}

#[test]
fn a_secret_is_read_from_a_file_without_its_last_newline() {
    let files = Files::new();
    let secret = files.write("secret", "open sesame\n");
    let flags = vec![("registration.shared_secret_file".to_owned(), secret.display().to_string())];
    let loaded = Config::load(&Sources { flags, ..Sources::default() }).unwrap();
    assert_eq!(loaded.config.registration.shared_secret, Some(Secret::new("open sesame")));
    assert_eq!(loaded.origin("registration.shared_secret"), &Origin::Flag);
}

#[test]
fn a_secrets_file_of_a_later_layer_wins_over_a_secret_of_an_earlier_one() {
    let files = Files::new();
    let file = files.write("postern.toml", "[registration]\ntoken = \"first\"\n");
    let secret = files.write("secret", "second");
    let environment = vec![("POSTERN__REGISTRATION__TOKEN_FILE".to_owned(), secret.display().to_string())];
    let load = |flags| {
        let sources = Sources { file: Some(file.clone()), environment: environment.clone(), flags };
        Config::load(&sources).unwrap().config.registration.token.unwrap()
    };
    assert!(load(vec![]).matches("second"));
    assert!(load(pairs(&[("registration.token", "third")])).matches("third"));
}

#[test]
fn secrets_are_never_printed() {
    let loaded = Config::load(&Sources {
        flags: pairs(&[("registration.shared_secret", "open sesame"), ("registration.token", "ticket")]),
        ..Sources::default()
    })
    .unwrap();
    let shown = format!("{}{loaded:?}{:#?}", loaded.show(), loaded.config);
    assert!(!shown.contains("sesame") && !shown.contains("ticket"));
    assert!(loaded.show().contains(&format!("shared_secret = \"{REDACTED}\" # command line")));
    assert_eq!(format!("{}", Secret::new("open sesame")), REDACTED);
}

#[test]
fn what_is_shown_can_be_read_back() {
    let files = Files::new();
    let flags = pairs(&[("server.name", "example.org"), ("registration.mode", "open")]);
    let loaded = Config::load(&Sources { flags, ..Sources::default() }).unwrap();
    let file = files.write("shown.toml", &loaded.show());
    let again = Config::load(&Sources { file: Some(file), ..Sources::default() }).unwrap();
    assert_eq!(again.config, loaded.config);
    assert_eq!(again.config.registration.mode, RegistrationMode::Open);
}

proptest! {
    #[test]
    fn a_number_in_its_range_is_taken_from_any_layer_and_one_outside_from_none(number in 0_u64..3_000_000) {
        let files = Files::new();
        let sources = [
            Sources {
                file: Some(files.write("f.toml", &format!("[limits]\nmax_connections = {number}\n"))),
                ..Sources::default()
            },
            Sources {
                environment: pairs(&[("POSTERN__LIMITS__MAX_CONNECTIONS", &number.to_string())]),
                ..Sources::default()
            },
            Sources { flags: pairs(&[("limits.max_connections", &number.to_string())]), ..Sources::default() },
        ];
        for source in sources {
            match Config::load(&source) {
                Ok(loaded) => prop_assert_eq!(loaded.config.limits.max_connections as u64, number),
                Err(problems) => {
                    prop_assert!(number == 0 || number > 1_000_000);
                    prop_assert!(problems.to_string().contains("from 1 to 1000000"));
                }
            }
        }
    }

    #[test]
    fn no_file_variable_or_flag_makes_loading_panic(
        text in "\\PC{0,80}",
        key in "(server|log|listeners|registration)\\.[a-z_]{1,20}",
        value in "\\PC{0,40}",
    ) {
        let files = Files::new();
        let file = Some(files.write("f.toml", &text));
        let environment = vec![(format!("POSTERN__{}", key.to_uppercase().replace('.', "__")), value.clone())];
        let _ = Config::load(&Sources { file, environment, flags: vec![(key, value)] });
    }
}
