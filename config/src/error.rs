//! What is wrong with a configuration, said so that it can be put right.

use std::{fmt, path::PathBuf};

/// Where a value came from; later kinds win over earlier ones.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The configuration file, at this line (1 is the first).
    File {
        /// The file.
        path: PathBuf,
        /// The line of the key.
        line: usize,
    },
    /// An environment variable of this name.
    Environment(String),
    /// A flag of the command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag => f.write_str("command line"),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The configuration file cannot be read.
    #[error("cannot read the configuration file {}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// The configuration file is not TOML.
    #[error("{} is not valid TOML: {reason}", path.display())]
    NotToml {
        /// The file.
        path: PathBuf,
        /// What the parser says, with line and column.
        reason: String,
    },
    /// There is no such key.
    #[error("unknown key {key} ({origin}){}", hint(near.as_deref()))]
    Unknown {
        /// The key as it was written.
        key: String,
        /// Where it stands.
        origin: Origin,
        /// A key that exists and is spelled alike.
        near: Option<String>,
    },
    /// The value does not fit.
    #[error("{key} = {value} ({origin}): must be {expected}")]
    Invalid {
        /// The key.
        key: String,
        /// The value, or "(redacted)".
        value: String,
        /// Where it stands.
        origin: Origin,
        /// What would be right.
        expected: String,
    },
    /// A secret's file cannot be used.
    #[error("{key} = {path:?} ({origin}): {reason}; must be a readable file that holds the secret")]
    SecretFile {
        /// The key, which ends in `_file`.
        key: String,
        /// The file.
        path: String,
        /// Where the key stands.
        origin: Origin,
        /// What the system says.
        reason: String,
    },
    /// Two settings that exclude or require each other.
    #[error("{keys}: {reason}")]
    Conflict {
        /// The keys, separated by commas.
        keys: String,
        /// What is wrong and what would be right.
        reason: String,
    },
}

fn hint(near: Option<&str>) -> String {
    near.map_or_else(
        || "; `postern config sample` lists all keys".to_owned(),
        |near| format!("; did you mean {near}?"),
    )
}

/// Everything that is wrong with a configuration; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
