//! Asking for the keys of users.

use super::{cross_signing::Role, cross_signing::public_key, object};
use crate::{Error, Users, limits};
use postern_graph::{
    UserNum,
    schema::{CrossSigningKeys, DeviceKeys, KeySignatures},
};
use ruma::{OwnedUserId, UserId};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What is wanted: the devices of each user, all of them if none is named.
pub type KeyQuery = BTreeMap<OwnedUserId, Vec<String>>;

/// Keys of users as they were uploaded, with signatures made since (specification: `POST /keys/query`).
#[derive(Debug, Clone, Default, Serialize)]
pub struct QueriedKeys {
    /// Identity keys of devices, with the device's name under `unsigned`.
    pub device_keys: BTreeMap<OwnedUserId, BTreeMap<String, Value>>,
    /// Master keys.
    pub master_keys: BTreeMap<OwnedUserId, Value>,
    /// Self-signing keys.
    pub self_signing_keys: BTreeMap<OwnedUserId, Value>,
    /// User-signing keys: the asking user's own.
    pub user_signing_keys: BTreeMap<OwnedUserId, Value>,
}

/// Checks that a request for keys asks for no more than it may. `devices`: how many are named of each user; none
/// counts as one.
///
/// # Errors
/// [`Error::TooLarge`] beyond [`limits::DEVICES_PER_KEY_REQUEST`].
pub fn check_amount(devices: impl Iterator<Item = usize>) -> Result<(), Error> {
    if devices.map(|devices| devices.max(1)).sum::<usize>() > limits::DEVICES_PER_KEY_REQUEST {
        return Err(Error::TooLarge("keys of too many devices at once".to_owned()));
    }
    Ok(())
}

impl Users {
    /// The keys of local users. `asker` sees, besides what everyone sees, the signatures it made and its own
    /// user-signing key. Users and devices that are unknown are left out.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if keys of too many users or devices are wanted.
    pub fn query_keys(&self, asker: Option<&UserId>, wanted: &KeyQuery) -> Result<QueriedKeys, Error> {
        check_amount(wanted.values().map(Vec::len))?;
        let asking = asker.map(|asker| self.number(asker)).transpose()?.flatten();
        let mut found = QueriedKeys::default();
        for (user_id, devices) in wanted {
            let Some(user) = self.local_number(user_id)? else { continue };
            self.find_keys(&mut found, user_id, user, devices, asking)?;
            if asking == Some(user)
                && let Some(key) = self.cross_signing_key(user, Role::UserSigning)?
            {
                found.user_signing_keys.insert(user_id.clone(), Value::Object(key));
            }
        }
        Ok(found)
    }

    /// Adds the public keys of a user that are here.
    pub(super) fn find_keys(
        &self,
        found: &mut QueriedKeys,
        user_id: &UserId,
        user: UserNum,
        devices: &[String],
        asking: Option<UserNum>,
    ) -> Result<(), Error> {
        found.device_keys.insert(user_id.to_owned(), self.device_keys(user, devices, asking)?);
        if let Some(mut master) = self.cross_signing_key(user, Role::Master)? {
            let name = public_key(&master)?.to_owned();
            self.merge_signatures(&mut master, user, &name, asking)?;
            found.master_keys.insert(user_id.to_owned(), Value::Object(master));
        }
        if let Some(key) = self.cross_signing_key(user, Role::SelfSigning)? {
            found.self_signing_keys.insert(user_id.to_owned(), Value::Object(key));
        }
        Ok(())
    }

    /// Adds the signatures that `asker` made to master keys of users of other servers, as those answered.
    pub fn add_signatures_by(
        &self,
        asker: UserNum,
        master_keys: &mut BTreeMap<OwnedUserId, Value>,
    ) -> Result<(), Error> {
        for (owner, key) in master_keys {
            let (Some(owner), Some(key)) = (self.number(owner)?, key.as_object_mut()) else { continue };
            let Ok(name) = public_key(key).map(str::to_owned) else { continue };
            self.merge_signatures(key, owner, &name, Some(asker))?;
        }
        Ok(())
    }

    fn device_keys(
        &self,
        user: UserNum,
        devices: &[String],
        asking: Option<UserNum>,
    ) -> Result<BTreeMap<String, Value>, Error> {
        let mut stored = Vec::new();
        if devices.is_empty() {
            for entry in self.graph.scan::<DeviceKeys, _>(&(user,)).iter() {
                let ((_, device), keys) = entry?;
                stored.push((device, keys));
            }
        } else {
            for device in devices {
                if let Some(keys) = self.graph.get::<DeviceKeys>(&(user, device.clone()))? {
                    stored.push((device.clone(), keys));
                }
            }
        }
        let mut found = BTreeMap::new();
        for (device, keys) in stored {
            let mut keys = object(&keys)?;
            self.merge_signatures(&mut keys, user, &device, asking)?;
            let name = match self.device(user, &device) {
                Ok(device) => device.display_name,
                Err(Error::NotFound(_)) => None,
                Err(error) => return Err(error),
            };
            if let Some(name) = name {
                keys.insert("unsigned".to_owned(), json!({ "device_display_name": name }));
            }
            found.insert(device, Value::Object(keys));
        }
        Ok(found)
    }

    pub(super) fn cross_signing_key(
        &self,
        user: UserNum,
        role: Role,
    ) -> Result<Option<Map<String, Value>>, Error> {
        self.graph.get::<CrossSigningKeys>(&(user, role as u8))?.map(|key| object(&key)).transpose()
    }

    /// Adds the signatures that `asking` may see: those of the key's owner and those it made itself.
    fn merge_signatures(
        &self,
        key: &mut Map<String, Value>,
        owner: UserNum,
        name: &str,
        asking: Option<UserNum>,
    ) -> Result<(), Error> {
        for signer in [Some(owner), asking.filter(|asking| *asking != owner)].into_iter().flatten() {
            for entry in self.graph.scan::<KeySignatures, _>(&(owner, name.to_owned(), signer)).iter() {
                let ((_, _, _, key_id), signature) = entry?;
                let signer = self.id(signer)?;
                let signatures = key.entry("signatures").or_insert_with(|| json!({}));
                if let Some(signatures) = signatures.as_object_mut() {
                    let by = signatures.entry(signer.as_str()).or_insert_with(|| json!({}));
                    if let Some(by) = by.as_object_mut() {
                        by.insert(key_id, signature.into());
                    }
                }
            }
        }
        Ok(())
    }
}
