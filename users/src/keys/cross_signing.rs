//! Cross-signing keys: a user's master key, and the keys it vouches for.

use super::{raw, signed::is_signed};
use crate::{Error, Users, limits};
use postern_graph::{
    Seq, UserNum,
    schema::{CrossSigningKeys, Devices, KeySignatures},
};
use ruma::UserId;
use serde_json::{Map, Value};

/// What a cross-signing key is for; the number is the one it is stored under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Master = 0,
    SelfSigning = 1,
    UserSigning = 2,
}

impl Role {
    const ALL: [Self; 3] = [Self::Master, Self::SelfSigning, Self::UserSigning];

    /// The specification's word under `usage`.
    const fn usage(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::SelfSigning => "self_signing",
            Self::UserSigning => "user_signing",
        }
    }
}

/// What a user uploads (specification: `POST /keys/device_signing/upload`).
#[derive(Debug, Clone, Default)]
pub struct CrossSigningUpload {
    /// The master key.
    pub master_key: Option<Map<String, Value>>,
    /// The key that signs the user's own devices.
    pub self_signing_key: Option<Map<String, Value>>,
    /// The key that signs other users' master keys.
    pub user_signing_key: Option<Map<String, Value>>,
}

/// The public half of a cross-signing key: its one key, whose id is `ed25519:` and itself.
pub(super) fn public_key(key: &Map<String, Value>) -> Result<&str, Error> {
    let keys = key.get("keys").and_then(Value::as_object).filter(|keys| keys.len() == 1);
    let only = keys.and_then(|keys| keys.iter().next());
    only.and_then(|(id, value)| {
        let value = value.as_str()?;
        (id.strip_prefix("ed25519:") == Some(value) && !value.is_empty()).then_some(value)
    })
    .ok_or_else(|| {
        Error::InvalidParam(
            "a cross-signing key has one key, named ed25519:<public key>, whose value is the public key"
                .to_owned(),
        )
    })
}

impl Users {
    /// Stores cross-signing keys. False, and nothing stored, if the user has to confirm it first (with the password)
    /// and `confirmed` does not say so: whenever there is a master key already and a key is not the one there is.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] for what is no key of this user and role, [`Error::MissingParam`] without a master
    /// key, [`Error::InvalidSignature`] if the master key did not sign a key, [`Error::Forbidden`] for a key named
    /// like a device.
    pub async fn upload_cross_signing(
        &self,
        user_id: &UserId,
        user: UserNum,
        upload: CrossSigningUpload,
        confirmed: bool,
    ) -> Result<bool, Error> {
        let Some(applied) = self.apply_cross_signing(user_id, user, upload, confirmed)? else {
            return Ok(false);
        };
        self.graph.durable_at(applied).await?;
        Ok(true)
    }

    fn apply_cross_signing(
        &self,
        user_id: &UserId,
        user: UserNum,
        upload: CrossSigningUpload,
        confirmed: bool,
    ) -> Result<Option<Seq>, Error> {
        let uploaded = [upload.master_key, upload.self_signing_key, upload.user_signing_key];
        for (role, key) in Role::ALL.into_iter().zip(&uploaded) {
            if let Some(key) = key {
                check(key, role, user_id)?;
            }
        }
        let _turn = self.turns.keys.lock();
        let stored_master = self.cross_signing_key(user, Role::Master)?;
        let [master, others @ ..] = &uploaded;
        let signing = master.as_ref().or(stored_master.as_ref()).ok_or_else(|| {
            Error::MissingParam("there is no master key: upload it first, or with the others".to_owned())
        })?;
        let signing = public_key(signing)?;
        for key in others.iter().flatten() {
            if !is_signed(key, user_id.as_str(), &format!("ed25519:{signing}"), signing) {
                return Err(Error::InvalidSignature("the key is not signed by the master key".to_owned()));
            }
        }
        let old_master = stored_master.as_ref().map(public_key).transpose()?;
        let new_master = old_master != Some(signing);
        let mut commit = self.graph.begin();
        let mut new_keys = false;
        for (role, key) in Role::ALL.into_iter().zip(&uploaded) {
            let place = (user, role as u8);
            let stored = self.cross_signing_key(user, role)?;
            let Some(key) = key else {
                // What the old master key vouched for, the new one does not.
                if new_master && stored.is_some() {
                    commit.delete::<CrossSigningKeys>(&place);
                }
                continue;
            };
            let name = public_key(key)?;
            if stored.as_ref().map(public_key).transpose()? != Some(name) {
                new_keys = true;
                if self.graph.has::<Devices>(&(user, name.to_owned()))? {
                    return Err(Error::Forbidden("a device has the name of this key".to_owned()));
                }
            }
            if stored.as_ref() != Some(key) {
                commit.put::<CrossSigningKeys>(&place, &raw(key)?);
            }
        }
        if stored_master.is_some() && new_keys && !confirmed {
            return Ok(None);
        }
        if commit.is_empty() {
            return Ok(Some(self.graph.applied()));
        }
        if let Some(old) = old_master.filter(|_| new_master) {
            commit.delete_all::<KeySignatures, _>(&(user, old.to_owned()));
        }
        self.devices_changed(&mut commit, user)?;
        Ok(Some(self.graph.commit(commit)?))
    }
}

/// Checks that a key is one of this user and role.
pub(super) fn check(key: &Map<String, Value>, role: Role, user_id: &UserId) -> Result<(), Error> {
    if key.get("user_id").and_then(Value::as_str) != Some(user_id.as_str()) {
        return Err(Error::InvalidParam("user_id in a key is not the uploading user's".to_owned()));
    }
    let usage = key.get("usage").and_then(Value::as_array);
    if !usage.is_some_and(|usage| usage.iter().any(|word| word == role.usage())) {
        return Err(Error::InvalidParam(format!("the usage of the key is not {}", role.usage())));
    }
    if raw(key)?.0.len() > limits::KEY_OBJECT_BYTES {
        return Err(Error::TooLarge("the key is too large".to_owned()));
    }
    public_key(key).map(|_| ())
}
