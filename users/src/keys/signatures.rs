//! Signatures made after a key was uploaded: of devices by the self-signing key, of the master key by devices, and of
//! other users' master keys by the user-signing key.

use super::{
    cross_signing::{Role, public_key},
    object,
    signed::{is_signed, signature},
    upload::same_but_signatures,
};
use crate::{Error, Users, limits};
use postern_graph::{
    Commit, Seq, UserNum,
    schema::{DeviceKeys, KeySignatures},
};
use ruma::{OwnedUserId, UserId};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// What is signed: by user, and device or master key, the object with the new signatures.
pub type SignatureUpload = BTreeMap<OwnedUserId, BTreeMap<String, Value>>;

/// What was not accepted, and why.
pub type SignatureFailures = BTreeMap<OwnedUserId, BTreeMap<String, Error>>;

impl Users {
    /// Stores signatures of `user` (specification: `POST /keys/signatures/upload`). Each object stands for itself:
    /// what is wrong with one is returned and does not keep the others from being stored.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for too many at once; the store's.
    pub async fn upload_signatures(
        &self,
        user_id: &UserId,
        user: UserNum,
        upload: &SignatureUpload,
    ) -> Result<SignatureFailures, Error> {
        if upload.values().map(BTreeMap::len).sum::<usize>() > limits::SIGNATURES_AT_ONCE {
            return Err(Error::TooLarge("too many signed keys at once".to_owned()));
        }
        let (failures, applied) = self.apply_signatures(user_id, user, upload)?;
        self.graph.durable_at(applied).await?;
        Ok(failures)
    }

    fn apply_signatures(
        &self,
        user_id: &UserId,
        user: UserNum,
        upload: &SignatureUpload,
    ) -> Result<(SignatureFailures, Seq), Error> {
        let _turn = self.turns.keys.lock();
        let mut commit = self.graph.begin();
        let mut failures = SignatureFailures::new();
        let mut changed = BTreeSet::new();
        for (owner_id, keys) in upload {
            for (name, signed) in keys {
                let outcome = if owner_id == user_id {
                    self.sign_own(&mut commit, user_id, user, name, signed).map(|()| user)
                } else {
                    self.sign_other(&mut commit, user_id, user, owner_id, name, signed)
                };
                match outcome {
                    Ok(owner) => {
                        changed.insert(owner);
                    }
                    Err(Error::Graph(error)) => return Err(error.into()),
                    Err(error) => {
                        failures.entry(owner_id.clone()).or_default().insert(name.clone(), error);
                    }
                }
            }
        }
        if commit.is_empty() {
            return Ok((failures, self.graph.applied()));
        }
        // Whoever may see the signature has to ask for the key again; the signer's other devices above all.
        for owner in changed {
            self.devices_changed(&mut commit, owner)?;
        }
        Ok((failures, self.graph.commit(commit)?))
    }

    /// A signature of one's own device, or of one's own master key.
    fn sign_own(
        &self,
        commit: &mut Commit,
        user_id: &UserId,
        user: UserNum,
        name: &str,
        signed: &Value,
    ) -> Result<(), Error> {
        let signed = an_object(signed)?;
        let signers = if let Some(stored) = self.graph.get::<DeviceKeys>(&(user, name.to_owned()))? {
            matches(&object(&stored)?, signed)?;
            let key = self.cross_signing_key(user, Role::SelfSigning)?;
            let key = key.ok_or_else(|| Error::NotFound("there is no self-signing key".to_owned()))?;
            let key = public_key(&key)?;
            vec![(format!("ed25519:{key}"), key.to_owned())]
        } else {
            let master = self.cross_signing_key(user, Role::Master)?;
            let master = master.filter(|master| public_key(master).is_ok_and(|key| key == name));
            matches(&master.ok_or_else(|| no_such_key(name))?, signed)?;
            self.device_signers(user_id, user, signed)?
        };
        let mut valid = false;
        for (key_id, key) in signers {
            if is_signed(signed, user_id.as_str(), &key_id, &key) {
                valid = true;
                put(commit, (user, name, user, &key_id), signed, user_id);
            }
        }
        if valid { Ok(()) } else { Err(invalid()) }
    }

    /// The devices of a user that say they signed something, with their keys.
    fn device_signers(
        &self,
        user_id: &UserId,
        user: UserNum,
        signed: &Map<String, Value>,
    ) -> Result<Vec<(String, String)>, Error> {
        let mut signers = Vec::new();
        let claimed = signed.get("signatures").and_then(|all| all.get(user_id.as_str()));
        for key_id in claimed.and_then(Value::as_object).into_iter().flat_map(Map::keys) {
            let Some(device) = key_id.strip_prefix("ed25519:") else { continue };
            let Some(stored) = self.graph.get::<DeviceKeys>(&(user, device.to_owned()))? else { continue };
            let stored = object(&stored)?;
            if let Some(key) = stored.get("keys").and_then(|keys| keys.get(key_id)).and_then(Value::as_str) {
                signers.push((key_id.clone(), key.to_owned()));
            }
        }
        Ok(signers)
    }

    /// A signature of another user's master key. Returns that user.
    fn sign_other(
        &self,
        commit: &mut Commit,
        user_id: &UserId,
        user: UserNum,
        owner_id: &UserId,
        name: &str,
        signed: &Value,
    ) -> Result<UserNum, Error> {
        let signed = an_object(signed)?;
        let owner = self.number(owner_id)?.ok_or_else(|| no_such_key(name))?;
        let master = self.cross_signing_key(owner, Role::Master)?;
        let master = master.filter(|master| public_key(master).is_ok_and(|key| key == name));
        matches(&master.ok_or_else(|| no_such_key(name))?, signed)?;
        let key = self.cross_signing_key(user, Role::UserSigning)?;
        let key = key.ok_or_else(|| Error::NotFound("there is no user-signing key".to_owned()))?;
        let key = public_key(&key)?;
        let key_id = format!("ed25519:{key}");
        if !is_signed(signed, user_id.as_str(), &key_id, key) {
            return Err(invalid());
        }
        put(commit, (owner, name, user, &key_id), signed, user_id);
        Ok(owner)
    }
}

/// Stores the signature `(owner, key, signer, signing key id)` of an object.
fn put(
    commit: &mut Commit,
    (owner, name, signer, key_id): (UserNum, &str, UserNum, &str),
    signed: &Map<String, Value>,
    signer_id: &UserId,
) {
    if let Some(signature) = signature(signed, signer_id.as_str(), key_id) {
        let key = (owner, name.to_owned(), signer, key_id.to_owned());
        commit.put::<KeySignatures>(&key, &signature.to_owned());
    }
}

fn matches(stored: &Map<String, Value>, signed: &Map<String, Value>) -> Result<(), Error> {
    if same_but_signatures(stored, signed) {
        Ok(())
    } else {
        Err(Error::InvalidParam("what is signed is not the key that was uploaded".to_owned()))
    }
}

fn an_object(signed: &Value) -> Result<&Map<String, Value>, Error> {
    signed.as_object().ok_or_else(|| Error::InvalidParam("a signed key is an object".to_owned()))
}

fn no_such_key(name: &str) -> Error {
    Error::NotFound(format!("there is no device or master key {name}"))
}

fn invalid() -> Error {
    Error::InvalidSignature("there is no valid signature by a key that may sign this".to_owned())
}
