//! What a device and those who share rooms with its user need to hear of: counts and changes.

use super::ONE_TIME_ALGORITHM;
use crate::{Error, Users};
use postern_graph::{
    Seq, UserNum,
    schema::{DeviceChanges, DeviceVersions, FallbackKeys, OneTimeKeys},
};
use std::collections::{BTreeMap, BTreeSet};

impl Users {
    /// How many one-time keys of a device are left, by algorithm (`device_one_time_keys_count` of `/sync`). The
    /// algorithm all clients use is always there, with 0 if none is left.
    pub fn key_counts(&self, user: UserNum, device: &str) -> Result<BTreeMap<String, u64>, Error> {
        let mut counts = BTreeMap::from([(ONE_TIME_ALGORITHM.to_owned(), 0)]);
        for entry in self.graph.scan::<OneTimeKeys, _>(&(user, device.to_owned())).iter() {
            let ((_, _, algorithm, _, _), _) = entry?;
            *counts.entry(algorithm).or_default() += 1;
        }
        Ok(counts)
    }

    /// The algorithms for which a device has a fallback key nobody was given yet
    /// (`device_unused_fallback_key_types` of `/sync`).
    pub fn unused_fallback_key_types(&self, user: UserNum, device: &str) -> Result<Vec<String>, Error> {
        let mut unused = Vec::new();
        for entry in self.graph.scan::<FallbackKeys, _>(&(user, device.to_owned())).iter() {
            let ((_, _, algorithm), (used, _, _)) = entry?;
            if !used {
                unused.push(algorithm);
            }
        }
        Ok(unused)
    }

    /// The users whose devices or keys changed in `(after, up_to]`, each once. Only the last change of a user is
    /// kept, so there are at most as many as there are users; one who changed again after `up_to` is left to the
    /// range that has that change.
    pub fn device_changes_between(&self, after: Seq, up_to: Seq) -> Result<Vec<UserNum>, Error> {
        let mut users = BTreeSet::new();
        for entry in self.graph.scan::<DeviceChanges, _>(&()).after(&(after,)).up_to(&(up_to,)).iter() {
            let ((_, user), ()) = entry?;
            users.insert(user);
        }
        Ok(users.into_iter().collect())
    }

    /// When a user's devices or keys last changed.
    pub fn last_device_change(&self, user: UserNum) -> Result<Option<Seq>, Error> {
        Ok(self.graph.get::<DeviceVersions>(&(user,))?)
    }
}
