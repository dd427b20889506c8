//! Uploading the keys of a device.

use super::{object, raw, split_key_id};
use crate::{Error, Users, limits};
use postern_graph::{
    Commit, Seq, UserNum,
    log::LogEntry,
    schema::{DeviceKeys, Devices, FallbackKeys, KeySignatures, OneTimeKeys},
};
use ruma::UserId;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap, HashSet};

/// What a device uploads (specification: `POST /keys/upload`).
#[derive(Debug, Clone, Default)]
pub struct KeyUpload {
    /// Its identity keys.
    pub device_keys: Option<Map<String, Value>>,
    /// One-time keys by `<algorithm>:<id>`.
    pub one_time_keys: BTreeMap<String, Value>,
    /// Fallback keys likewise, at most one for each algorithm.
    pub fallback_keys: BTreeMap<String, Value>,
}

/// Whether two signed objects say the same, whoever signed them.
pub(super) fn same_but_signatures(a: &Map<String, Value>, b: &Map<String, Value>) -> bool {
    let said = |(name, _): &(&String, &Value)| !matches!(name.as_str(), "signatures" | "unsigned");
    a.iter().filter(said).count() == b.iter().filter(said).count()
        && a.iter().filter(said).all(|(name, value)| b.get(name) == Some(value))
}

impl Users {
    /// Stores what a device uploads and returns how many one-time keys it has by algorithm. What is there already
    /// in the same form is passed over, so that a repeated upload changes nothing.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] for identity keys of another user or device, a one-time key whose id stands for
    /// another key already, a key id without algorithm, two fallback keys of an algorithm; [`Error::TooLarge`];
    /// [`Error::UnknownToken`] if the device is gone.
    pub async fn upload_keys(
        &self,
        user_id: &UserId,
        user: UserNum,
        device: &str,
        upload: KeyUpload,
    ) -> Result<BTreeMap<String, u64>, Error> {
        let applied = self.apply_upload(user_id, user, device, upload)?;
        self.graph.durable_at(applied).await?;
        self.key_counts(user, device)
    }

    fn apply_upload(
        &self,
        user_id: &UserId,
        user: UserNum,
        device: &str,
        upload: KeyUpload,
    ) -> Result<Seq, Error> {
        let _turn = self.turns.keys.lock();
        if !self.graph.has::<Devices>(&(user, device.to_owned()))? {
            return Err(Error::UnknownToken { soft: false });
        }
        let mut commit = self.graph.begin();
        self.put_keys(&mut commit, user_id, user, device, upload, false)?;
        if commit.is_empty() { Ok(self.graph.applied()) } else { Ok(self.graph.commit(commit)?) }
    }

    /// Adds keys to a commit. A `fresh` device has nothing stored that counts. The caller has the turn.
    pub(crate) fn put_keys(
        &self,
        commit: &mut Commit,
        user_id: &UserId,
        user: UserNum,
        device: &str,
        upload: KeyUpload,
        fresh: bool,
    ) -> Result<(), Error> {
        if let Some(keys) = upload.device_keys {
            self.put_device_keys(commit, user_id, user, device, keys, fresh)?;
        }
        let added = self.put_one_time_keys(commit, user, device, &upload.one_time_keys, fresh)?;
        let replaced = self.put_fallback_keys(commit, user, device, &upload.fallback_keys, fresh)?;
        if added || replaced {
            commit.log(LogEntry::KeyCounts { user, device: device.to_owned() });
        }
        Ok(())
    }

    fn put_device_keys(
        &self,
        commit: &mut Commit,
        user_id: &UserId,
        user: UserNum,
        device: &str,
        mut keys: Map<String, Value>,
        fresh: bool,
    ) -> Result<(), Error> {
        keys.remove("unsigned");
        let names = |field, expected| keys.get(field).and_then(Value::as_str) == Some(expected);
        if !names("user_id", user_id.as_str()) {
            return Err(Error::InvalidParam("user_id in device_keys is not the uploading user's".to_owned()));
        }
        if !names("device_id", device) {
            return Err(Error::InvalidParam("device_id in device_keys is not the device's".to_owned()));
        }
        let key = (user, device.to_owned());
        let before = self.graph.get::<DeviceKeys>(&key)?.filter(|_| !fresh);
        if let Some(before) = &before {
            let before = object(before)?;
            if before == keys {
                return Ok(());
            }
            if !same_but_signatures(&before, &keys) {
                // They were for what the device was before.
                commit.delete_all::<KeySignatures, _>(&key);
            }
        }
        commit.put::<DeviceKeys>(&key, &bounded(&keys)?);
        self.devices_changed(commit, user)
    }

    /// Whether any was new.
    fn put_one_time_keys(
        &self,
        commit: &mut Commit,
        user: UserNum,
        device: &str,
        keys: &BTreeMap<String, Value>,
        fresh: bool,
    ) -> Result<bool, Error> {
        if keys.is_empty() {
            return Ok(false);
        }
        let mut stored = HashMap::new();
        if !fresh {
            for entry in self.graph.scan::<OneTimeKeys, _>(&(user, device.to_owned())).iter() {
                let ((_, _, algorithm, _, name), key) = entry?;
                stored.insert((algorithm, name), key);
            }
        }
        let seq = commit.take_seq();
        let mut total = stored.len();
        for (id, value) in keys {
            let (algorithm, name) = split_key_id(id)?;
            let (algorithm, name) = (algorithm.to_owned(), name.to_owned());
            if let Some(known) = stored.get(&(algorithm.clone(), name.clone())) {
                let known: Value = serde_json::from_slice(&known.0)
                    .map_err(|error| Error::Internal(format!("a stored key is damaged: {error}")))?;
                if known == *value {
                    continue;
                }
                return Err(Error::InvalidParam(format!("One time key {id} already exists as another key")));
            }
            check_key(id, value)?;
            commit.put::<OneTimeKeys>(&(user, device.to_owned(), algorithm, seq, name), &bounded(value)?);
            total += 1;
        }
        if total > limits::ONE_TIME_KEYS_PER_DEVICE {
            return Err(Error::TooLarge("the device has too many one-time keys".to_owned()));
        }
        Ok(total > stored.len())
    }

    /// Whether any was new.
    fn put_fallback_keys(
        &self,
        commit: &mut Commit,
        user: UserNum,
        device: &str,
        keys: &BTreeMap<String, Value>,
        fresh: bool,
    ) -> Result<bool, Error> {
        let mut seen = HashSet::new();
        let mut replaced = false;
        for (id, value) in keys {
            let (algorithm, name) = split_key_id(id)?;
            if !seen.insert(algorithm) {
                return Err(Error::InvalidParam(format!("more than one fallback key for {algorithm}")));
            }
            if seen.len() > limits::FALLBACK_ALGORITHMS {
                return Err(Error::TooLarge("fallback keys for too many algorithms".to_owned()));
            }
            check_key(id, value)?;
            let key = (user, device.to_owned(), algorithm.to_owned());
            let stored = self.graph.get::<FallbackKeys>(&key)?.filter(|_| !fresh);
            let new = bounded(value)?;
            // The same key again is as used as it was.
            if stored.is_some_and(|(_, known, text)| known == name && text == new) {
                continue;
            }
            commit.put::<FallbackKeys>(&key, &(false, name.to_owned(), new));
            replaced = true;
        }
        Ok(replaced)
    }
}

/// A one-time or fallback key is text, or an object with the key (specification: key algorithms).
fn check_key(id: &str, value: &Value) -> Result<(), Error> {
    if value.is_string() || value.get("key").is_some_and(Value::is_string) {
        Ok(())
    } else {
        Err(Error::InvalidParam(format!("{id} is no key: neither text nor an object with a key")))
    }
}

fn bounded<T: serde::Serialize>(value: &T) -> Result<postern_graph::codec::Raw, Error> {
    let text = raw(value)?;
    if text.0.len() > limits::KEY_OBJECT_BYTES {
        return Err(Error::TooLarge("the key is too large".to_owned()));
    }
    Ok(text)
}
