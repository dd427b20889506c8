//! Device lists of users of other servers: copies of what their servers say.
//!
//! A list is *followed* while the user shares a room with a local user, whose server is then sent each change
//! (`m.device_list_update`). Updates form a sequence: one that follows on what is not known shows that another was lost,
//! and the copy is not *fresh* any more until all of it has been asked for again. Who decides when to ask, and whether a
//! room is shared, is federation's; here lies what is stored.
//!
//! Keys stand in the same families as those of local users. Nothing here trusts them: clients check them, as with keys
//! of local users.

use super::{
    QueriedKeys,
    cross_signing::{Role, check, public_key},
    raw,
    signed::is_signed,
};
use crate::{Error, Users, limits};
use postern_graph::{
    Commit, Seq, UserNum,
    schema::{CrossSigningKeys, DeviceKeys, FollowedUsers, KeySignatures},
};
use ruma::{UserId, canonical_json::try_from_json_map};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// How far the copy of a followed device list is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    /// Whether it is up to date.
    pub fresh: bool,
    /// The last updates it took, the newest first; empty if it was never told its place in the sequence.
    pub updates: Vec<u64>,
}

/// The public keys of a user of another server, as far as they are usable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RemoteKeys {
    /// Identity keys by device, with the device's name under `unsigned`.
    pub devices: BTreeMap<String, Map<String, Value>>,
    /// The master key.
    pub master_key: Option<Map<String, Value>>,
    /// The self-signing key.
    pub self_signing_key: Option<Map<String, Value>>,
}

/// A change of one device (specification: `m.device_list_update`).
#[derive(Debug, Clone, Default)]
pub struct DeviceUpdate {
    /// The device.
    pub device_id: String,
    /// The update's place in the sequence.
    pub stream_id: u64,
    /// What it follows on.
    pub prev_id: Vec<u64>,
    /// Whether the device is gone.
    pub deleted: bool,
    /// Its identity keys, if it has any.
    pub keys: Option<Value>,
    /// Its name.
    pub display_name: Option<String>,
}

/// What became of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Updated {
    /// It was known.
    Known,
    /// The list is not followed: nothing is kept, clients are told to ask.
    NotFollowed,
    /// The copy took it.
    Applied,
    /// The copy is not fresh (any more): all of it has to be asked for.
    Stale,
}

/// Identity keys that are what the specification says of keys of this device: an object of known form, which names user
/// and device, is canonical JSON, and is not too large.
fn device_keys(user: &UserId, device: &str, keys: Value) -> Option<Map<String, Value>> {
    #[derive(Deserialize)]
    struct Form {
        user_id: String,
        device_id: String,
        #[serde(rename = "algorithms")]
        _algorithms: Vec<String>,
        #[serde(rename = "keys")]
        _keys: BTreeMap<String, String>,
        #[serde(default, rename = "signatures")]
        _signatures: BTreeMap<String, BTreeMap<String, String>>,
    }
    let Value::Object(mut keys) = keys else { return None };
    let name = keys.remove("unsigned");
    let name = name.as_ref().and_then(|unsigned| unsigned.get("device_display_name")).and_then(Value::as_str);
    let name = name.filter(|name| name.len() <= limits::DISPLAY_NAME_BYTES).map(str::to_owned);
    let form = Form::deserialize(&keys).ok()?;
    let right = form.user_id == user.as_str()
        && form.device_id == device
        && !device.is_empty()
        && device.len() <= limits::DEVICE_ID_BYTES
        && raw(&keys).is_ok_and(|text| text.0.len() <= limits::KEY_OBJECT_BYTES)
        && try_from_json_map(keys.clone()).is_ok();
    if let Some(name) = name {
        keys.insert("unsigned".to_owned(), json!({ "device_display_name": name }));
    }
    right.then_some(keys)
}

/// A cross-signing key that is one of this user and role.
fn user_key(user: &UserId, role: Role, key: Option<Value>) -> Option<Map<String, Value>> {
    let Some(Value::Object(key)) = key else { return None };
    (check(&key, role, user).is_ok() && try_from_json_map(key.clone()).is_ok()).then_some(key)
}

/// Whether the master key signed another key of the user.
fn vouched_for(user: &UserId, master: &Map<String, Value>, key: &Map<String, Value>) -> bool {
    public_key(master).is_ok_and(|public| is_signed(key, user.as_str(), &format!("ed25519:{public}"), public))
}

impl RemoteKeys {
    /// Of what another server answered, that which can be keys of `user`. The rest is left out: keys that name another
    /// user or device, are not of the form of keys or too large, a self-signing key the master key did not sign, and
    /// devices beyond [`limits::DEVICES_PER_REMOTE_USER`].
    #[must_use]
    pub fn checked(
        user: &UserId,
        devices: BTreeMap<String, Value>,
        master_key: Option<Value>,
        self_signing_key: Option<Value>,
    ) -> Self {
        let master_key = user_key(user, Role::Master, master_key);
        let self_signing_key = user_key(user, Role::SelfSigning, self_signing_key)
            .filter(|key| master_key.as_ref().is_some_and(|master| vouched_for(user, master, key)));
        let usable = devices.into_iter().filter_map(|(device, keys)| {
            let keys = device_keys(user, &device, keys)?;
            Some((device, keys))
        });
        let devices = usable.take(limits::DEVICES_PER_REMOTE_USER).collect();
        Self { devices, master_key, self_signing_key }
    }

    /// Adds them to an answer: the named devices, all if none is named.
    pub fn add_to(self, found: &mut QueriedKeys, user: &UserId, devices: &[String]) {
        let wanted = |device: &String| devices.is_empty() || devices.contains(device);
        let keys = self.devices.into_iter().filter(|(device, _)| wanted(device));
        let keys = keys.map(|(device, keys)| (device, Value::Object(keys))).collect();
        found.device_keys.insert(user.to_owned(), keys);
        found.master_keys.extend(self.master_key.map(|key| (user.to_owned(), Value::Object(key))));
        found
            .self_signing_keys
            .extend(self.self_signing_key.map(|key| (user.to_owned(), Value::Object(key))));
    }
}

impl Users {
    /// How far the copy of a device list is; nothing if the list is not followed.
    pub fn followed(&self, user: UserNum) -> Result<Option<Followed>, Error> {
        let stored = self.graph.get::<FollowedUsers>(&(user,))?;
        Ok(stored.map(|(fresh, updates)| Followed { fresh, updates }))
    }

    /// Adds the copy's keys of a user of another server to an answer: the named devices, all if none is named.
    pub fn find_copied_keys(
        &self,
        found: &mut QueriedKeys,
        user_id: &UserId,
        user: UserNum,
        devices: &[String],
    ) -> Result<(), Error> {
        self.find_keys(found, user_id, user, devices, None)
    }

    /// Follows a device list from `keys` on, all that the user's server has now, as of update `stream_id` if it said
    /// so. `last_change` is what [`Users::last_device_change`] said before the server was asked: if there was a change
    /// since, the answer may be from before it, and is not taken. Local users are told if the copy becomes another.
    /// The result is when it is applied; nothing if it was not taken.
    pub fn follow_keys(
        &self,
        user: UserNum,
        keys: &RemoteKeys,
        stream_id: Option<u64>,
        last_change: Option<Seq>,
    ) -> Result<Option<Seq>, Error> {
        let _turn = self.turns.keys.lock();
        if self.last_device_change(user)? != last_change {
            return Ok(None);
        }
        let known = self.followed(user)?.is_some();
        let mut commit = self.graph.begin();
        let mut changed = false;
        let mut gone = Vec::new();
        for entry in self.graph.scan::<DeviceKeys, _>(&(user,)).iter() {
            let ((_, device), stored) = entry?;
            match keys.devices.get(&device) {
                Some(keys) if raw(keys)? == stored => {}
                Some(_) => changed = true,
                None => gone.push(device),
            }
        }
        for device in gone {
            changed = true;
            commit.delete::<DeviceKeys>(&(user, device));
        }
        for (device, keys) in &keys.devices {
            let place = (user, device.clone());
            changed |= !self.graph.has::<DeviceKeys>(&place)?;
            commit.put::<DeviceKeys>(&place, &raw(keys)?);
        }
        changed |= self.put_user_keys(
            &mut commit,
            user,
            [keys.master_key.as_ref(), keys.self_signing_key.as_ref()],
        )?;
        commit.put::<FollowedUsers>(&(user,), &(true, stream_id.into_iter().collect()));
        if changed && known {
            self.devices_changed(&mut commit, user)?;
        }
        Ok(Some(self.graph.commit(commit)?))
    }

    /// Puts master and self-signing key in the place of those there are. Whether they are others.
    fn put_user_keys(
        &self,
        commit: &mut Commit,
        user: UserNum,
        [master, self_signing]: [Option<&Map<String, Value>>; 2],
    ) -> Result<bool, Error> {
        let mut changed = false;
        for (role, key) in [(Role::Master, master), (Role::SelfSigning, self_signing)] {
            let stored = self.cross_signing_key(user, role)?;
            if stored.as_ref() == key {
                continue;
            }
            changed = true;
            let place = (user, role as u8);
            match key {
                Some(key) => commit.put::<CrossSigningKeys>(&place, &raw(key)?),
                None => commit.delete::<CrossSigningKeys>(&place),
            }
            if let Some(old) = stored.as_ref().and_then(|old| public_key(old).ok())
                && key.and_then(|key| public_key(key).ok()) != Some(old)
            {
                // They were for a key that is no more.
                commit.delete_all::<KeySignatures, _>(&(user, old.to_owned()));
            }
        }
        Ok(changed)
    }

    /// Takes a change of one device of a user of another server. Local users are told, whatever becomes of it.
    /// The second part of the result is when it is applied.
    pub fn update_device(
        &self,
        user_id: &UserId,
        user: UserNum,
        update: DeviceUpdate,
    ) -> Result<(Updated, Seq), Error> {
        let _turn = self.turns.keys.lock();
        let mut commit = self.graph.begin();
        let updated = match self.followed(user)? {
            None => Updated::NotFollowed,
            Some(followed) if followed.updates.contains(&update.stream_id) => {
                return Ok((Updated::Known, self.graph.applied()));
            }
            Some(followed) if self.take_update(&mut commit, user_id, user, &followed, &update)? => {
                let mut updates = followed.updates;
                updates.insert(0, update.stream_id);
                updates.truncate(limits::UPDATES_REMEMBERED);
                commit.put::<FollowedUsers>(&(user,), &(true, updates));
                Updated::Applied
            }
            Some(followed) => {
                commit.put::<FollowedUsers>(&(user,), &(false, followed.updates));
                Updated::Stale
            }
        };
        self.devices_changed(&mut commit, user)?;
        Ok((updated, self.graph.commit(commit)?))
    }

    /// Whether an update can be applied to the copy. If not, nothing is added to the commit.
    fn take_update(
        &self,
        commit: &mut Commit,
        user_id: &UserId,
        user: UserNum,
        followed: &Followed,
        update: &DeviceUpdate,
    ) -> Result<bool, Error> {
        // The first of a sequence may follow on nothing, and says nothing of what there is besides.
        let in_sequence =
            !update.prev_id.is_empty() && update.prev_id.iter().all(|prev| followed.updates.contains(prev));
        if !followed.fresh || !in_sequence {
            return Ok(false);
        }
        let place = (user, update.device_id.clone());
        let Some(keys) = update.keys.clone().filter(|_| !update.deleted) else {
            commit.delete::<DeviceKeys>(&place);
            return Ok(true);
        };
        let Some(mut keys) = device_keys(user_id, &update.device_id, keys) else { return Ok(false) };
        let name = update.display_name.as_ref();
        if let Some(name) = name.filter(|name| name.len() <= limits::DISPLAY_NAME_BYTES) {
            keys.insert("unsigned".to_owned(), json!({ "device_display_name": name }));
        }
        let known = self.graph.has::<DeviceKeys>(&place)?;
        let devices = || self.graph.scan::<DeviceKeys, _>(&(user,)).iter().count();
        if !known && devices() >= limits::DEVICES_PER_REMOTE_USER {
            return Ok(false);
        }
        commit.put::<DeviceKeys>(&place, &raw(&keys)?);
        Ok(true)
    }

    /// Takes new cross-signing keys of a user of another server (specification: `m.signing_key_update`). Local users are
    /// told, whatever becomes of it.
    pub fn update_signing_keys(
        &self,
        user_id: &UserId,
        user: UserNum,
        master_key: Option<Value>,
        self_signing_key: Option<Value>,
    ) -> Result<(Updated, Seq), Error> {
        let _turn = self.turns.keys.lock();
        let mut commit = self.graph.begin();
        let updated = match self.followed(user)? {
            None => Updated::NotFollowed,
            Some(followed) => {
                let said = [master_key.is_some(), self_signing_key.is_some()];
                let old_master = self.cross_signing_key(user, Role::Master)?;
                let master = if said[0] { user_key(user_id, Role::Master, master_key) } else { old_master };
                let self_signing = if said[1] {
                    user_key(user_id, Role::SelfSigning, self_signing_key)
                } else {
                    self.cross_signing_key(user, Role::SelfSigning)?
                };
                let vouched = |key: &Map<String, Value>| {
                    master.as_ref().is_some_and(|master| vouched_for(user_id, master, key))
                };
                // What was there before the master key was replaced goes; what comes without one is not taken.
                let kept = self_signing.filter(vouched);
                let usable = (!said[0] || master.is_some()) && (!said[1] || kept.is_some());
                if followed.fresh && usable {
                    self.put_user_keys(&mut commit, user, [master.as_ref(), kept.as_ref()])?;
                    Updated::Applied
                } else {
                    commit.put::<FollowedUsers>(&(user,), &(false, followed.updates));
                    Updated::Stale
                }
            }
        };
        self.devices_changed(&mut commit, user)?;
        Ok((updated, self.graph.commit(commit)?))
    }

    /// The copy may have missed something: it is asked for again before it is used.
    pub fn doubt_keys(&self, user: UserNum) -> Result<(), Error> {
        let _turn = self.turns.keys.lock();
        if let Some(followed) = self.followed(user)?.filter(|followed| followed.fresh) {
            let mut commit = self.graph.begin();
            commit.put::<FollowedUsers>(&(user,), &(false, followed.updates));
            self.graph.commit(commit)?;
        }
        Ok(())
    }

    /// Stops following a device list: the copy is removed. Signatures that local users made stay.
    pub fn unfollow_keys(&self, user: UserNum) -> Result<(), Error> {
        let _turn = self.turns.keys.lock();
        if self.followed(user)?.is_some() {
            let mut commit = self.graph.begin();
            commit.delete::<FollowedUsers>(&(user,));
            commit.delete_all::<DeviceKeys, _>(&(user,));
            commit.delete_all::<CrossSigningKeys, _>(&(user,));
            self.graph.commit(commit)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ruma::user_id;

    fn keys(user: &str, device: &str) -> Value {
        json!({
            "user_id": user,
            "device_id": device,
            "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
            "keys": { format!("ed25519:{device}"): "lEuiRJBit0IG6nUf5pUzWTUEsRVVe/HJkoKuEww9ULI" },
            "signatures": { user: { format!("ed25519:{device}"): "dSO80A01XiigH3uBiDVx" } },
        })
    }

    #[test]
    fn only_what_can_be_keys_of_the_user_is_taken_of_an_answer() {
        let alice = user_id!("@alice:example.com");
        let mut fraction = keys(alice.as_str(), "FRACTION");
        fraction["extra"] = json!(1.5);
        let mut large = keys(alice.as_str(), "LARGE");
        large["extra"] = "x".repeat(limits::KEY_OBJECT_BYTES).into();
        let mut named = keys(alice.as_str(), "NAMED");
        named["unsigned"] = json!({ "device_display_name": "phone", "other": 1 });
        let devices = BTreeMap::from([
            ("JLAFKJWSCS".to_owned(), keys(alice.as_str(), "JLAFKJWSCS")),
            ("OTHERUSER".to_owned(), keys("@bob:example.com", "OTHERUSER")),
            ("OTHERDEVICE".to_owned(), keys(alice.as_str(), "JLAFKJWSCS")),
            ("NULL".to_owned(), Value::Null),
            ("TEXT".to_owned(), json!({ "user_id": alice, "device_id": "TEXT", "keys": "none" })),
            ("FRACTION".to_owned(), fraction),
            ("LARGE".to_owned(), large),
            ("NAMED".to_owned(), named),
        ]);
        let master =
            json!({ "user_id": "@bob:example.com", "usage": ["master"], "keys": { "ed25519:k": "k" } });
        let unsigned = json!({ "user_id": alice, "usage": ["self_signing"], "keys": { "ed25519:k": "k" } });
        let taken = RemoteKeys::checked(alice, devices, Some(master), Some(unsigned));
        assert_eq!(taken.devices.keys().collect::<Vec<_>>(), ["JLAFKJWSCS", "NAMED"]);
        assert_eq!(taken.devices["NAMED"]["unsigned"], json!({ "device_display_name": "phone" }));
        assert_eq!((taken.master_key, taken.self_signing_key), (None, None));
    }

    #[test]
    fn no_more_devices_are_taken_than_a_user_can_have() {
        let alice = user_id!("@alice:example.com");
        let devices = (0..limits::DEVICES_PER_REMOTE_USER + 5).map(|n| {
            let device = format!("D{n}");
            (device.clone(), keys(alice.as_str(), &device))
        });
        let taken = RemoteKeys::checked(alice, devices.collect(), None, None);
        assert_eq!(taken.devices.len(), limits::DEVICES_PER_REMOTE_USER);
    }
}
