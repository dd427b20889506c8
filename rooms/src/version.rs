//! Room versions.

use crate::Error;
use ruma::{RoomVersionId, room_version_rules::RoomVersionRules};
use std::sync::{Arc, OnceLock};

/// The room versions that rooms can be created in and joined with.
pub const SUPPORTED: [&str; 12] = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"];
/// What the specification says new rooms get.
pub const DEFAULT: &str = "12";

/// A room version with its rules.
#[derive(Debug, Clone)]
pub struct Version {
    /// Its name.
    pub id: RoomVersionId,
    /// Its rules.
    pub rules: RoomVersionRules,
}

/// The rules of room version `name`.
///
/// # Errors
/// [`Error::UnsupportedVersion`] if it is none of [`SUPPORTED`].
pub fn version(name: &str) -> Result<Arc<Version>, Error> {
    static ALL: OnceLock<Vec<Arc<Version>>> = OnceLock::new();
    ALL.get_or_init(|| {
        SUPPORTED
            .iter()
            .filter_map(|name| {
                let id = RoomVersionId::try_from(*name).ok()?;
                let rules = id.rules()?;
                Some(Arc::new(Version { id, rules }))
            })
            .collect()
    })
    .iter()
    .find(|version| version.id.as_str() == name)
    .cloned()
    .ok_or_else(|| Error::UnsupportedVersion(name.to_owned()))
}
