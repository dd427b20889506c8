//! The policies that come with the program.

use super::{Problems, Spif};

/// A policy that comes with the program.
#[derive(Debug, Clone, Copy)]
pub struct Preset {
    /// The name by which it is asked for in a configuration.
    pub id: &'static str,
    /// The policy file.
    pub toml: &'static str,
}

/// The policies that come with the program. Their sources are listed in `docs/labels.md`.
pub const PRESETS: [Preset; 6] = [
    Preset { id: "company", toml: include_str!("../../spif/company.toml") },
    Preset { id: "us", toml: include_str!("../../spif/us.toml") },
    Preset { id: "nato", toml: include_str!("../../spif/nato.toml") },
    Preset { id: "uk", toml: include_str!("../../spif/uk.toml") },
    Preset { id: "canada", toml: include_str!("../../spif/canada.toml") },
    Preset { id: "australia", toml: include_str!("../../spif/australia.toml") },
];

impl Preset {
    /// Reads it.
    ///
    /// # Errors
    /// Never; a test reads them all.
    pub fn read(&self) -> Result<Spif, Problems> {
        Spif::from_toml(self.toml)
    }
}
