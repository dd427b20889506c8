//! The layers a configuration is put together from: defaults, then the file, then the environment, then flags. A
//! later layer wins, key by key.

use crate::{
    declare::SectionInfo,
    error::{Origin, Problem},
    near::nearest,
};
use std::{collections::BTreeMap, fmt, io::Read, path::Path, path::PathBuf};
use toml::de::{DeTable, DeValue};

/// What every environment variable that is a setting begins with.
pub const ENVIRONMENT_PREFIX: &str = "POSTERN__";

/// Largest configuration or secret file, bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Where to take settings from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The configuration file, if there is one.
    pub file: Option<PathBuf>,
    /// Environment variables; those not beginning with [`ENVIRONMENT_PREFIX`] are passed over.
    pub environment: Vec<(String, String)>,
    /// Pairs of key and value from the command line, such as `("server.name", "example.org")`.
    pub flags: Vec<(String, String)>,
}

impl Sources {
    /// The given file and flags, and the environment of this process. Variables that are not Unicode are passed
    /// over, as no setting's name is.
    #[must_use]
    pub fn of_process(file: Option<PathBuf>, flags: Vec<(String, String)>) -> Self {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| {
                let name = name.into_string().ok()?;
                Some((name, value.to_string_lossy().into_owned()))
            })
            .collect();
        Self { file, environment, flags }
    }
}

/// A value as it was written.
#[derive(Debug, Clone)]
pub(crate) enum Raw {
    Toml(toml::Value),
    Text(String),
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Toml(value) => write!(f, "{value}"),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

impl Origin {
    /// The layer's number; higher wins.
    pub(crate) const fn layer(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::File { .. } => 1,
            Self::Environment(_) => 2,
            Self::Flag => 3,
        }
    }
}

/// What was given, by `section.key`.
pub(crate) type Given = BTreeMap<String, (Raw, Origin)>;

/// Puts the layers together; unknown keys and unreadable files are noted in `problems`.
pub(crate) fn gather(sources: &Sources, catalogue: &[SectionInfo], problems: &mut Vec<Problem>) -> Given {
    let known = known_keys(catalogue);
    let mut entries: Vec<(String, String, Raw, Origin)> = Vec::new();
    if let Some(path) = &sources.file {
        match read_file(path) {
            Ok(read) => entries.extend(read),
            Err(problem) => problems.push(problem),
        }
    }
    for (name, value) in &sources.environment {
        if let Some(rest) = name.strip_prefix(ENVIRONMENT_PREFIX) {
            let key = rest.to_lowercase().replace("__", ".");
            let origin = Origin::Environment(name.clone());
            entries.push((key, name.clone(), Raw::Text(value.clone()), origin));
        }
    }
    for (key, value) in &sources.flags {
        entries.push((key.clone(), key.clone(), Raw::Text(value.clone()), Origin::Flag));
    }
    let mut given = Given::new();
    for (key, written, raw, origin) in entries {
        if known.contains(&key) {
            given.insert(key, (raw, origin));
        } else {
            let near = suggestion(&key, &known).map(|near| match &origin {
                Origin::Environment(_) => {
                    format!("{ENVIRONMENT_PREFIX}{}", near.to_uppercase().replace('.', "__"))
                }
                _ => near,
            });
            problems.push(Problem::Unknown { key: written, origin, near });
        }
    }
    given
}

/// All keys, with their sections, and with the `_file` keys of secrets.
fn known_keys(catalogue: &[SectionInfo]) -> Vec<String> {
    let mut known = Vec::new();
    for section in catalogue {
        for key in &section.keys {
            known.push(format!("{}.{}", section.name, key.name));
            if key.secret {
                known.push(format!("{}.{}_file", section.name, key.name));
            }
        }
    }
    known
}

/// A known key that may have been meant: one spelled alike, or the same key of another section.
fn suggestion(key: &str, known: &[String]) -> Option<String> {
    let last = key.rsplit('.').next().unwrap_or(key);
    nearest(key, known.iter().map(String::as_str))
        .or_else(|| known.iter().map(String::as_str).find(|known| known.rsplit('.').next() == Some(last)))
        .map(str::to_owned)
}

type Entries = Vec<(String, String, Raw, Origin)>;

/// Reads a configuration file into `section.key` entries with the lines they stand on.
fn read_file(path: &Path) -> Result<Entries, Problem> {
    let unreadable =
        |error: std::io::Error| Problem::Unreadable { path: path.to_owned(), reason: error.to_string() };
    let not_toml = |error: toml::de::Error| Problem::NotToml {
        path: path.to_owned(),
        reason: error.to_string().trim_end().to_owned(),
    };
    let text = read_bounded(path).map_err(unreadable)?;
    let values: toml::Table = text.parse().map_err(not_toml)?;
    let spans = DeTable::parse(&text).map_err(not_toml)?;
    let line_at = |offset: usize| text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1;
    let origin = |offset: usize| Origin::File { path: path.to_owned(), line: line_at(offset) };
    let mut entries = Vec::new();
    for (section_name, section_spanned) in spans.get_ref() {
        let section = section_name.get_ref().as_ref();
        let Some(value) = values.get(section) else { continue };
        let (Some(table), DeValue::Table(table_spans)) = (value.as_table(), section_spanned.get_ref()) else {
            let at = origin(section_name.span().start);
            entries.push((section.to_owned(), section.to_owned(), Raw::Toml(value.clone()), at));
            continue;
        };
        for key_spanned in table_spans.keys() {
            let key = key_spanned.get_ref().as_ref();
            let Some(value) = table.get(key) else { continue };
            let name = format!("{section}.{key}");
            let at = origin(key_spanned.span().start);
            entries.push((name.clone(), name, Raw::Toml(value.clone()), at));
        }
    }
    Ok(entries)
}

/// Reads a text file, which must not be larger than any sensible one.
pub(crate) fn read_bounded(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let read = std::fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if read as u64 > MAX_FILE_BYTES {
        return Err(std::io::Error::other(format!("is larger than {MAX_FILE_BYTES} bytes")));
    }
    Ok(text)
}
