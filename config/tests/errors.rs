//! What is wrong is said with the key, the value, where it stands, and what would be right.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use postern_config::{Config, Sources};

fn complaint(flags: &[(&str, &str)]) -> String {
    Config::with(flags.iter().copied()).unwrap_err().to_string()
}

fn complaint_about_file(text: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("postern.toml");
    std::fs::write(&path, text).unwrap();
    let problems = Config::load(&Sources { file: Some(path), ..Sources::default() }).unwrap_err();
    problems.to_string().replace(&directory.path().display().to_string(), "DIR")
}

#[test]
fn a_value_that_does_not_fit() {
    assert_eq!(
        complaint(&[("log.format", "xml")]),
        r#"log.format = "xml" (command line): must be one of "human", "json""#
    );
    assert_eq!(
        complaint_about_file("[limits]\n\nmax_connections = \"many\"\n"),
        r#"limits.max_connections = "many" (DIR/postern.toml:3): must be a whole number from 1 to 1000000"#
    );
    assert_eq!(
        complaint_about_file("[limits]\nmax_connections = -1\n"),
        "limits.max_connections = -1 (DIR/postern.toml:2): must be a whole number from 1 to 1000000"
    );
    for (key, value) in [
        ("server.name", "ex ample.org"),
        ("server.name", "example.org:"),
        ("server.name", "[::1"),
        ("server.public_base_url", "example.org"),
        ("server.public_base_url", "ftp://example.org"),
        ("listeners.client", "localhost:8008"),
        ("listeners.trusted_proxies", "10.0.0.0/33"),
        ("rooms.default_version", "13"),
        ("registration.guests", "yes"),
        ("rate_limits.login_per_second", "0"),
        ("rate_limits.login_per_second", "NaN"),
        ("log.level", "loud"),
        ("log.level", "info,=debug"),
    ] {
        let said = complaint(&[(key, value)]);
        assert!(said.starts_with(&format!("{key} = {value:?} (command line): must be ")), "{said}");
    }
}

#[test]
fn an_unknown_key_or_section_with_what_may_have_been_meant() {
    assert_eq!(
        complaint_about_file("[server]\nnmae = \"x\"\n"),
        "unknown key server.nmae (DIR/postern.toml:2); did you mean server.name?"
    );
    assert_eq!(
        complaint_about_file("[sever]\nname = \"x\"\n"),
        "unknown key sever.name (DIR/postern.toml:2); did you mean server.name?"
    );
    assert_eq!(
        complaint(&[("server.default_version", "12")]),
        "unknown key server.default_version (command line); did you mean rooms.default_version?"
    );
    assert_eq!(
        complaint_about_file("quux = 1\n"),
        "unknown key quux (DIR/postern.toml:1); `postern config sample` lists all keys"
    );
    let environment = vec![("POSTERN__SERVER__NAEM".to_owned(), "x".to_owned())];
    assert_eq!(
        Config::load(&Sources { environment, ..Sources::default() }).unwrap_err().to_string(),
        "unknown key POSTERN__SERVER__NAEM (environment variable POSTERN__SERVER__NAEM); \
         did you mean POSTERN__SERVER__NAME?"
    );
}

#[test]
fn a_section_that_is_not_a_table() {
    assert!(complaint_about_file("server = 3\n").starts_with("unknown key server (DIR/postern.toml:1)"));
}

#[test]
fn a_file_that_is_missing_or_not_toml() {
    let sources = Sources { file: Some("/nonexistent/postern.toml".into()), ..Sources::default() };
    let said = Config::load(&sources).unwrap_err().to_string();
    assert!(said.starts_with("cannot read the configuration file /nonexistent/postern.toml: "), "{said}");
    let said = complaint_about_file("[server\n");
    assert!(said.starts_with("DIR/postern.toml is not valid TOML: ") && said.contains("line 1"), "{said}");
    let said = complaint_about_file("[log]\nlevel = \"info\"\nlevel = \"warn\"\n");
    assert!(said.contains("duplicate key"), "{said}");
}

#[test]
fn settings_that_do_not_fit_together() {
    let said = complaint(&[("listeners.client_tls", "0.0.0.0:8448")]);
    assert!(said.contains("an address with TLS needs a certificate and its key"), "{said}");
    let said = complaint(&[("listeners.tls_key_file", "key.pem")]);
    assert!(said.contains("a certificate and its key belong together"), "{said}");
    let said = complaint(&[("listeners.client", "")]);
    assert!(said.contains("clients need at least one address"), "{said}");
    let said = complaint(&[("listeners.metrics", "127.0.0.1:8008")]);
    assert!(said.contains("127.0.0.1:8008 is given more than once"), "{said}");
    let said =
        complaint(&[("passwords.argon2_memory_kibibytes", "8"), ("passwords.argon2_parallelism", "2")]);
    assert!(said.contains("at least 8 kibibytes for each lane"), "{said}");
    let said = complaint(&[("registration.token", "a"), ("registration.token_file", "b")]);
    assert!(said.contains("registration.token, registration.token_file: both are given"), "{said}");
}

#[test]
fn a_secret_that_cannot_be_read_and_one_that_does_not_fit_without_showing_it() {
    let said = complaint(&[("registration.token_file", "/nonexistent/token")]);
    assert!(said.contains("registration.token_file = \"/nonexistent/token\""), "{said}");
    let said = complaint_about_file("[registration]\ntoken = 12345\n");
    assert!(said.contains("token = (redacted)") && !said.contains("12345"), "{said}");
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let said = complaint(&[("log.format", "xml"), ("server.nmae", "x"), ("rooms.default_version", "0")]);
    assert_eq!(said.lines().count(), 3, "{said}");
}
