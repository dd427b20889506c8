//! Every setting of Postern, in one typed structure.
//!
//! Settings are declared once, in [`sections`]: name, kind, documentation, default, rule. They are read from layers
//! (defaults, a TOML file, environment variables `POSTERN__SECTION__KEY`, flags), each winning over the one before.
//! Whatever is wrong is collected and reported together, each with the key, the value and what would be right; an
//! unknown key is an error. Secrets are of type [`Secret`], which does not print.
//!
//! ```
//! let config = postern_config::Config::with([("server.name", "example.org")])?;
//! assert_eq!(config.server.name.as_str(), "example.org");
//! # Ok::<(), postern_config::Problems>(())
//! ```

mod check;
mod declare;
mod error;
mod layers;
mod near;
mod print;
mod secret;
mod sections;
mod types;
mod value;

pub use declare::{KeyInfo, SectionInfo};
pub use error::{Origin, Problem, Problems};
pub use layers::{ENVIRONMENT_PREFIX, Sources};
pub use print::{manual, sample};
pub use secret::{REDACTED, Secret};
pub use sections::*;
pub use types::{
    EncryptByDefault, LogFilter, LogFormat, PublicKey, PushContent, RegistrationMode, RoomVersion,
    ServerName, ServerPattern, Who,
};

use std::collections::BTreeMap;

/// A configuration, and where its values came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    origins: BTreeMap<String, Origin>,
}

impl Loaded {
    /// Where the value of `key` (`section.key`) came from.
    #[must_use]
    pub fn origin(&self, key: &str) -> &Origin {
        let own = self.origins.get(key).unwrap_or(&Origin::Default);
        let file = self.origins.get(&format!("{key}_file")).unwrap_or(&Origin::Default);
        if file.layer() > own.layer() { file } else { own }
    }

    /// What is in force, as a configuration file with remarks on origins; secrets are redacted.
    #[must_use]
    pub fn show(&self) -> String {
        print::show(self)
    }
}

impl Config {
    /// Puts a configuration together from its layers.
    ///
    /// # Errors
    /// All that is wrong with it: unreadable files, unknown keys, values that do not fit, settings that do not fit
    /// together.
    pub fn load(sources: &Sources) -> Result<Loaded, Problems> {
        let mut problems = Vec::new();
        let given = layers::gather(sources, &Self::catalogue(), &mut problems);
        let mut reader = declare::Reader { given, problems };
        let config = Self::read(&mut reader);
        let mut problems = reader.problems;
        check::together(&config, &mut problems);
        if problems.is_empty() {
            let origins = reader.given.into_iter().map(|(key, (_, origin))| (key, origin)).collect();
            Ok(Loaded { config, origins })
        } else {
            Err(Problems(problems))
        }
    }

    /// The defaults with some keys set, as flags would: for tests and tools.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn with<K: Into<String>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, Problems> {
        let flags = pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        Self::load(&Sources { flags, ..Sources::default() }).map(|loaded| loaded.config)
    }
}
