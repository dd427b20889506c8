//! What a server by hand would answer: what was brought of it.

use super::{
    contents::ONE_TIME_KEYS,
    state::{KeyCounts, keep},
};
use crate::{Error, Federation};
use postern_users::KeyClaim;
use ruma::{OwnedUserId, ServerName};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// When fewer one-time keys of a device are left, more are asked for.
const FEW: u32 = ONE_TIME_KEYS / 2;
/// What stands in place of a key that was used: it is not used again when it is brought again.
const USED: &[u8] = b"used";

fn parsed(bytes: &[u8]) -> Option<Value> {
    serde_json::from_slice(bytes).ok()
}

impl Federation {
    /// The answer to `POST /user/keys/query`, as far as it was brought.
    pub(crate) fn brought_keys<'u>(
        &self,
        server: &ServerName,
        users: impl Iterator<Item = &'u OwnedUserId>,
    ) -> Result<Value, Error> {
        let mut answer = json!({ "device_keys": {}, "master_keys": {}, "self_signing_keys": {} });
        for user in users {
            let Some(keys) = self.kept(server, "keys", user.as_str())?.as_deref().and_then(parsed) else {
                continue;
            };
            for part in ["device_keys", "master_keys", "self_signing_keys"] {
                if let Some(of_user) = keys.get(part).and_then(|keys| keys.get(user.as_str())) {
                    answer[part][user.as_str()] = of_user.clone();
                }
            }
        }
        Ok(answer)
    }

    /// The answer to `POST /user/keys/claim`: a key that was brought, once; then the fallback key.
    pub(crate) async fn brought_one_time_keys(
        &self,
        server: &ServerName,
        wanted: &KeyClaim,
    ) -> Result<BTreeMap<String, Value>, Error> {
        // One at a time: two would get the same key.
        let _turn = self.turn_of(&format!("keys of {server}")).await;
        let mut answer: BTreeMap<String, Value> = BTreeMap::new();
        let mut commit = self.0.graph.begin();
        for (user, devices) in wanted {
            for device in devices.keys() {
                let mut found = None;
                for (name, key) in self.all_kept(server, &format!("one_time {user} {device}"))? {
                    let Some(key) = Some(key).filter(|key| key != USED).as_deref().and_then(parsed) else {
                        continue;
                    };
                    let is_fallback = key.get("fallback") == Some(&true.into());
                    if found.is_none() || !is_fallback {
                        found = Some((name, key, is_fallback));
                    }
                    if !is_fallback {
                        break;
                    }
                }
                let Some((name, key, is_fallback)) = found else { continue };
                if !is_fallback {
                    keep(&mut commit, server, &format!("one_time {user} {device}"), &name, USED.to_vec());
                }
                let of_user = answer.entry(user.to_string()).or_insert_with(|| Map::new().into());
                of_user[device.as_str()] = json!({ name: key });
            }
        }
        if !commit.is_empty() {
            self.0.graph.commit_beside_log_durably(commit).await?;
        }
        Ok(answer)
    }

    /// Keeps one-time keys that were brought; those that are known stay as they are.
    pub(super) fn keep_one_time_keys(
        &self,
        commit: &mut postern_graph::Commit,
        server: &ServerName,
        keys: &BTreeMap<OwnedUserId, BTreeMap<String, BTreeMap<String, Value>>>,
    ) -> Result<(), Error> {
        for (user, devices) in keys.iter().filter(|(user, _)| user.server_name() == server) {
            for (device, keys) in devices {
                for (id, key) in keys.iter().take(2 * ONE_TIME_KEYS as usize) {
                    let what = format!("one_time {user} {device}");
                    if self.kept(server, &what, id)?.is_none() {
                        keep(commit, server, &what, id, key.to_string().into_bytes());
                    }
                }
                keep(commit, server, "one_time_of", &format!("{user} {device}"), Vec::new());
            }
        }
        Ok(())
    }

    /// Devices of a server of which few one-time keys are left, and how many more are wanted.
    pub(super) fn used_up(&self, server: &ServerName) -> Result<KeyCounts, Error> {
        let mut wanted = KeyCounts::new();
        for (name, _) in self.all_kept(server, "one_time_of")? {
            let Some((user, device)) = name.split_once(' ') else { continue };
            let all = self.all_kept(server, &format!("one_time {user} {device}"))?;
            let used = all.iter().filter(|(_, key)| key == USED).count();
            let left = u32::try_from(all.len() - used).unwrap_or(u32::MAX);
            // Who never had any has none to give.
            if left < FEW && used > 0 {
                wanted.entry(user.to_owned()).or_default().insert(device.to_owned(), ONE_TIME_KEYS - left);
            }
        }
        Ok(wanted)
    }
}
