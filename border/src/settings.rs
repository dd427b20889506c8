//! What the security officer writes: a directory with `border.toml`, security policies in `spif/`, Cedar policies in
//! `policies/`. `docs/border.md` is for whoever writes these.

use crate::{by_hand::CarriedEntry, limits};
use postern_policy::{
    decide::{self, Base, Encryption, Keys, Sources},
    spif::Spif,
};
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId};
use serde::Deserialize;
use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
};
use utoipa::ToSchema;

/// The file in the directory that says who is who.
pub const FILE: &str = "border.toml";

/// All that is wrong with what the officer wrote, each with where it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wrong(pub Vec<String>);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the border is not set up right:")?;
        self.0.iter().try_for_each(|one| write!(f, "\n  {one}"))
    }
}

impl std::error::Error for Wrong {}

/// `border.toml`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Document {
    /// What crosses the border before any policy says more.
    pub base: Option<Base>,
    /// The label of rooms that are created without one, as text.
    pub default_label: Option<String>,
    /// The same for rooms created with a preset (`private_chat`, `trusted_private_chat`, `public_chat`), before that.
    pub preset_labels: std::collections::BTreeMap<String, String>,
    /// The rule for end-to-end encryption of rooms that are created without one: `inspectable`, `e2ee` or `e2ee_auditor`.
    pub default_encryption: Option<Encryption>,
    /// The user of this server who is in every room created here whose rule is `e2ee_auditor`.
    pub auditor: Option<OwnedUserId>,
    /// The clearance of local users who have none of their own, as text.
    pub default_clearance: Option<String>,
    /// Whether the topics of labelled rooms begin with the label's marking.
    pub topic_marking: bool,
    /// Whether this server is the policy server of labelled rooms that are created here and that other servers may be in.
    pub policy_server: bool,
    /// For how many days rulings and refusals are kept; without, [`limits::RULINGS_DAYS`]. What was disclosed is kept for as long as the events.
    pub rulings_days: Option<u32>,
    /// What follows when an event that was not let in is state of its room nevertheless.
    pub when_overruled: WhenOverruled,
    /// Whether policies have to be signed, and by whom: the names and public keys of officers.
    pub policies: PolicySettings,
    /// What is looked for in content before it leaves.
    pub guards: Option<postern_guards::Settings>,
    /// What push gateways are told of what is labelled.
    pub push: PushEntry,
    /// The other servers.
    pub peer: Vec<PeerEntry>,
    /// The ways to them.
    pub link: Vec<LinkEntry>,
    /// Users of this server.
    pub user: Vec<UserEntry>,
    /// Their devices.
    pub device: Vec<DeviceEntry>,
}

/// What follows, beside the alarm, when an event of a peer that was not let in is state of its room nevertheless.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenOverruled {
    /// Nothing.
    #[default]
    Alarm,
    /// The peer is taken out of the table of peers.
    RemovePeer,
}

/// How policies come.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicySettings {
    /// Only policies in a signed bundle count.
    pub require_signed: bool,
    /// Whose signature is good: key id (`ed25519:name`) to ed25519 public key, unpadded base64.
    pub keys: std::collections::BTreeMap<String, String>,
    /// How many of them have to sign; one at least.
    pub signatures_needed: usize,
    /// The room whose state may hold a signed bundle, too.
    pub room: Option<OwnedRoomId>,
    /// The base under which the candidate is asked; without, that of the policies that count.
    pub candidate_base: Option<Base>,
}

/// What push gateways are told. They belong to whoever makes the apps, and lie outside of the enclave more often than not.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PushEntry {
    /// Up to what they are told what is said, as text; without, what has no label.
    pub content: Option<String>,
    /// Up to what they are told that something was said, by its id and that of its room, as text; without, everything.
    pub event_ids: Option<String>,
}

impl PolicySettings {
    /// The keys of which it takes some; what is wrong with them, if they are none.
    pub(crate) fn keys(&self) -> Result<Keys, String> {
        let given = self.keys.iter().map(|(id, key)| (id.as_str(), key.as_str()));
        Keys::new(given, self.signatures_needed).map_err(|error| format!("{FILE}: policies.keys: {error}"))
    }
}

/// Another server.
#[derive(Debug, Clone, Deserialize, serde::Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PeerEntry {
    /// Its name.
    #[schema(value_type = String)]
    pub name: OwnedServerName,
    /// Whether policies count it as accredited. One that is not is known, and may be spoken with where policies say so.
    #[serde(default = "yes")]
    pub accredited: bool,
    /// Up to what it may see, as text; without, what has no label.
    #[serde(default)]
    pub clearance: Option<String>,
    /// Up to what its events are believed, as text; without, up to its clearance.
    #[serde(default)]
    pub accreditation: Option<String>,
    /// Names of what it belongs to, for policies.
    #[serde(default)]
    pub federations: BTreeSet<String>,
    /// The link by which it is reached: its clearance bounds the server's.
    #[serde(default)]
    pub link: Option<String>,
    /// The only rooms it may be in; without, all that its clearance allows.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    pub rooms: Option<BTreeSet<OwnedRoomId>>,
    /// The label of its events that say none, as text; without, that of the room.
    #[serde(default)]
    pub default_label: Option<String>,
    /// Digests of the public keys (SHA-256 of the `SubjectPublicKeyInfo`, base64) of which its certificates have to have one, both
    /// where it is reached and where it comes from; without, any will do that is for its name.
    #[serde(default)]
    pub tls_pins: Vec<String>,
    /// When it is spoken with, UTC; without, always.
    #[serde(default)]
    pub hours: Vec<Hours>,
    /// Requests a second that it may make for long; without, no bound of its own.
    #[serde(default)]
    pub requests_per_second: Option<u32>,
}

const fn yes() -> bool {
    true
}

/// A stretch of the week.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, serde::Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Hours {
    /// 1 is Monday, 7 is Sunday.
    pub days: BTreeSet<u8>,
    /// The first hour, 0 to 23.
    pub from: u8,
    /// The hour it ends before, 1 to 24.
    pub to: u8,
}

impl Hours {
    /// Whether a time, milliseconds since the epoch, is in it.
    #[must_use]
    pub fn contains(&self, at: u64) -> bool {
        let hour = at / 3_600_000 % 24;
        // The epoch was a Thursday.
        let day = (at / 86_400_000 + 3) % 7 + 1;
        self.days.iter().any(|one| u64::from(*one) == day)
            && (u64::from(self.from)..u64::from(self.to)).contains(&hour)
    }
}

/// A way to other servers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkEntry {
    /// What peers call it by.
    pub name: String,
    /// What may go over it, as text.
    pub clearance: String,
    /// Whether policies count it as accredited.
    #[serde(default = "yes")]
    pub accredited: bool,
    /// How it is carried by hand or over a diode; without, it is the network.
    #[serde(default)]
    pub carried: Option<CarriedEntry>,
}

/// Users of this server.
#[derive(Debug, Clone, Deserialize, serde::Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserEntry {
    /// A user's id, or a pattern with `*`. Of several that fit, the first counts.
    pub id: String,
    /// Up to what they may see, as text.
    #[serde(default)]
    pub clearance: Option<String>,
    /// What they are, for policies.
    #[serde(default)]
    pub roles: BTreeSet<String>,
}

/// Devices of users of this server.
#[derive(Debug, Clone, Deserialize, serde::Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceEntry {
    /// A device's id, or a pattern with `*`.
    pub id: String,
    /// Whose: a user's id, or a pattern with `*`.
    #[serde(default = "anyone")]
    pub user: String,
    /// Up to what may be seen on it, as text.
    pub clearance: String,
}

fn anyone() -> String {
    "*".to_owned()
}

/// What stands in a border's directory, read; nothing of it is understood yet.
#[derive(Debug)]
pub struct Directory {
    /// Where it is.
    pub path: Option<PathBuf>,
    /// `border.toml`.
    pub document: Document,
    /// The security policies of `spif/`, in the order of their files.
    pub spifs: Vec<Spif>,
    /// Where the Cedar policies come from.
    pub sources: Sources,
    /// Where those come from that are asked beside them and decide nothing, if there are any.
    pub candidate: Option<Sources>,
}

/// The directory of the candidate, in that of the policies.
const CANDIDATE: &str = "candidate";

impl Directory {
    /// Without a directory: nothing is labelled by itself, and what has no label crosses the border as everywhere in
    /// Matrix.
    #[must_use]
    pub fn none() -> Self {
        let sources = Sources { base: Base::Open, ..Sources::default() };
        Self { path: None, document: Document::default(), spifs: Vec::new(), sources, candidate: None }
    }

    /// Reads a directory.
    ///
    /// # Errors
    /// [`Wrong`] with all that cannot be read.
    pub fn read(path: &Path) -> Result<Self, Wrong> {
        let mut wrong = Vec::new();
        let document = match read_bounded(&path.join(FILE)) {
            Ok(text) => toml::from_str::<Document>(&text).map_err(|error| format!("{FILE}: {error}")),
            Err(error) => Err(error),
        };
        let document = document.unwrap_or_else(|error| {
            wrong.push(error);
            Document::default()
        });
        let spifs = read_spifs(&path.join("spif"), &mut wrong);
        let keys = document.policies.keys().unwrap_or_else(|error| {
            wrong.push(error);
            Keys::default()
        });
        let policies = path.join("policies");
        let base = document.base.unwrap_or(Base::Peers);
        let candidate = policies.join(CANDIDATE);
        let candidate = candidate.is_dir().then(|| Sources {
            base: document.policies.candidate_base.unwrap_or(base),
            directory: Some(candidate),
            keys: keys.clone(),
            // It decides nothing.
            require_signed: false,
        });
        let sources = Sources {
            base,
            directory: policies.is_dir().then_some(policies),
            keys,
            require_signed: document.policies.require_signed,
        };
        let path = Some(path.to_owned());
        if wrong.is_empty() {
            Ok(Self { path, document, spifs, sources, candidate })
        } else {
            Err(Wrong(wrong))
        }
    }
}

fn read_bounded(path: &Path) -> Result<String, String> {
    let named = |error: &dyn fmt::Display| format!("{}: {error}", path.display());
    let size = std::fs::metadata(path).map_err(|error| named(&error))?.len();
    if size > limits::FILE_BYTES {
        return Err(named(&format_args!("is larger than {} bytes", limits::FILE_BYTES)));
    }
    std::fs::read_to_string(path).map_err(|error| named(&error))
}

/// The security policies of a directory; none if it is not there.
fn read_spifs(path: &Path, wrong: &mut Vec<String>) -> Vec<Spif> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            wrong.push(format!("{}: {error}", path.display()));
            return Vec::new();
        }
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<PathBuf>, _>>();
    let mut files = paths.unwrap_or_else(|error| {
        wrong.push(format!("{}: {error}", path.display()));
        Vec::new()
    });
    let ending =
        |file: &Path| file.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_owned();
    files.retain(|file| matches!(ending(file).as_str(), "toml" | "json" | "xml"));
    files.sort();
    if files.len() > limits::SPIF_FILES {
        // Which of them count would be an accident.
        wrong.push(format!("{}: more than {} security policies", path.display(), limits::SPIF_FILES));
        return Vec::new();
    }
    let mut spifs = Vec::new();
    for file in &files {
        let text = match read_bounded(file) {
            Ok(text) => text,
            Err(error) => {
                wrong.push(error);
                continue;
            }
        };
        let read = match ending(file).as_str() {
            "toml" => Spif::from_toml(&text),
            "json" => Spif::from_json(&text),
            _ => Spif::from_xml(&text).map(|import| import.spif),
        };
        match read {
            Ok(spif) => spifs.push(spif),
            Err(problems) => {
                wrong.extend(problems.0.iter().map(|problem| format!("{}: {problem}", file.display())));
            }
        }
    }
    spifs
}

impl From<decide::Refused> for Wrong {
    fn from(refused: decide::Refused) -> Self {
        Self(refused.0.iter().map(ToString::to_string).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_security_policies_than_are_read_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let spif = directory.path().join("spif");
        std::fs::create_dir(&spif).unwrap();
        std::fs::write(directory.path().join(FILE), "").unwrap();
        std::fs::write(spif.join("README.md"), "no security policy").unwrap();
        for number in 0..=limits::SPIF_FILES {
            let text = format!("name = \"P{number}\"\nclasses = [{{ name = \"A\", rank = 0 }}]");
            std::fs::write(spif.join(format!("{number}.toml")), text).unwrap();
        }
        let wrong = Directory::read(directory.path()).unwrap_err();
        assert!(wrong.to_string().contains("more than 64 security policies"), "{wrong}");
        std::fs::remove_file(spif.join("0.toml")).unwrap();
        assert_eq!(Directory::read(directory.path()).unwrap().spifs.len(), limits::SPIF_FILES);
    }
}
