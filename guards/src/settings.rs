//! How the guards are set, and what is wrong with settings that are refused.

use std::path::PathBuf;

use serde::Deserialize;

/// The settings of all guards. What is not set keeps its default, under which every guard is on but antivirus, which
/// needs an address.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    pub secrets: SecretSettings,
    pub patterns: Vec<PatternSettings>,
    pub text: TextSettings,
    pub links: LinkSettings,
    pub unicode: UnicodeSettings,
    pub files: FileSettings,
    pub antivirus: Option<AntivirusSettings>,
}

/// Secrets and credentials, by the shipped rules.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecretSettings {
    pub enabled: bool,
    /// Ids of rules that are not applied, such as `generic-api-key`.
    pub disabled_rules: Vec<String>,
}

impl Default for SecretSettings {
    fn default() -> Self {
        Self { enabled: true, disabled_rules: Vec::new() }
    }
}

/// An expression of the administrator. What it finds is `pattern:NAME`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatternSettings {
    /// Lower-case letters, digits and `-`.
    pub name: String,
    /// In the syntax of the crate `regex`: no look-around and no back-references, so that it takes linear time.
    pub regex: String,
    /// What must hold of the text that was found (of its first group, if it has one).
    #[serde(default)]
    pub checksum: Option<Checksum>,
}

/// A check digit that tells numbers of a kind from other numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Checksum {
    /// Of payment cards: ISO/IEC 7812-1, annex B.
    Luhn,
    /// Of international bank account numbers: ISO 13616, modulo 97.
    Iban,
}

/// The length of text.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TextSettings {
    /// Bytes a single text may have before it is `size:text`.
    pub max_bytes: usize,
}

impl Default for TextSettings {
    fn default() -> Self {
        Self { max_bytes: 32 << 10 }
    }
}

/// Hosts that links may and may not go to.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinkSettings {
    pub enabled: bool,
    /// Hosts, such as `example.org` (itself only), `*.example.org` (all below it), `host-*` is not one: `*` stands
    /// for whole labels. When there are any, other hosts are `link-refused:HOST`.
    pub allow: Vec<String>,
    /// Hosts that are `link-refused:HOST` even where `allow` names them.
    pub deny: Vec<String>,
    /// Schemes that are not `link-scheme:SCHEME`.
    pub schemes: Vec<String>,
    /// Whether `example.org` alone, as clients make links of it too, is one.
    pub bare_hosts: bool,
}

impl Default for LinkSettings {
    fn default() -> Self {
        let schemes = ["http", "https", "mailto", "matrix", "mxc", "tel", "geo"].map(str::to_owned).to_vec();
        Self { enabled: true, allow: Vec::new(), deny: Vec::new(), schemes, bare_hosts: true }
    }
}

/// Characters that are not seen, or not seen as what they are.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UnicodeSettings {
    pub enabled: bool,
}

impl Default for UnicodeSettings {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// Files.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FileSettings {
    /// Bytes a file may have before it is `size:file`. No more than these are read.
    pub max_bytes: u64,
}

impl Default for FileSettings {
    fn default() -> Self {
        Self { max_bytes: 100 << 20 }
    }
}

/// A ClamAV daemon.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AntivirusSettings {
    pub address: AntivirusAddress,
    /// Seconds until it must have accepted a connection, and taken or answered what it was sent last.
    #[serde(default = "default_timeout")]
    pub timeout_seconds: u64,
    /// Files looked at by it at the same time. Others wait, as long as the timeout.
    #[serde(default = "default_at_once")]
    pub at_once: usize,
}

fn default_timeout() -> u64 {
    30
}

fn default_at_once() -> usize {
    4
}

/// Where clamd listens: `tcp://HOST:PORT` or `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum AntivirusAddress {
    /// Host and port.
    Tcp(String),
    /// The path of a socket.
    Unix(PathBuf),
}

impl TryFrom<String> for AntivirusAddress {
    type Error = BadSettings;

    fn try_from(text: String) -> Result<Self, BadSettings> {
        let port = |address: &str| address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        match (text.strip_prefix("tcp://"), text.strip_prefix("unix:")) {
            (Some(address), _) if port(address).is_some() => Ok(Self::Tcp(address.to_owned())),
            (_, Some(path)) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            _ => Err(BadSettings::Address(text)),
        }
    }
}

/// Settings that cannot be used, with what would be right.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum BadSettings {
    #[error("secrets.disabled_rules: no rule has the id {0:?}; docs/guards.md tells where they are listed")]
    NoSuchRule(String),
    #[error("the shipped rule {id:?} cannot be used: {reason}")]
    ShippedRule { id: String, reason: String },
    #[error("patterns: the name {0:?} is not 1 to 64 lower-case letters, digits and hyphens")]
    PatternName(String),
    #[error("patterns: two have the name {0:?}")]
    PatternTwice(String),
    #[error("patterns: {name:?} cannot be used: {reason}")]
    Pattern { name: String, reason: String },
    #[error("patterns: there are {0}; 256 at most can be used")]
    Patterns(usize),
    #[error("links.{list}: {host:?} is not a host such as example.org or *.example.org: {reason}")]
    Host { list: &'static str, host: String, reason: String },
    #[error("links.{list}: there are {count} hosts; 10,000 at most can be used")]
    Hosts { list: &'static str, count: usize },
    #[error("antivirus.address: {0:?} is neither tcp://HOST:PORT nor unix:/PATH")]
    Address(String),
    #[error("antivirus: timeout_seconds and at_once must be at least 1")]
    Antivirus,
}
