//! Claiming one-time keys.

use super::query::check_amount;
use crate::{Error, Users};
use postern_graph::{
    Commit, NameKind, Seq, UserNum,
    codec::Raw,
    log::LogEntry,
    schema::{FallbackKeys, OneTimeKeys},
};
use ruma::{OwnedUserId, UserId};
use serde_json::Value;
use std::collections::BTreeMap;

/// What is wanted: an algorithm by user and device.
pub type KeyClaim = BTreeMap<OwnedUserId, BTreeMap<String, String>>;

/// What was given: by user and device, the key by its id.
pub type ClaimedKeys = BTreeMap<OwnedUserId, BTreeMap<String, BTreeMap<String, Value>>>;

impl Users {
    /// Claims a key of each device (specification: `POST /keys/claim`): the one-time key uploaded first, or else the
    /// fallback key. A one-time key is given out at most once, whoever asks at the same time, and only when it is
    /// durable that it is gone. Users and devices that are unknown or have no key are left out.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if keys of too many devices are wanted.
    pub async fn claim_keys(&self, wanted: &KeyClaim) -> Result<ClaimedKeys, Error> {
        check_amount(wanted.values().map(BTreeMap::len))?;
        let (claimed, applied) = self.apply_claim(wanted)?;
        self.graph.durable_at(applied).await?;
        Ok(claimed)
    }

    fn apply_claim(&self, wanted: &KeyClaim) -> Result<(ClaimedKeys, Seq), Error> {
        let _turn = self.turns.keys.lock();
        let mut commit = self.graph.begin();
        let mut claimed = ClaimedKeys::new();
        for (user_id, devices) in wanted {
            let Some(user) = self.local_number(user_id)? else { continue };
            for (device, algorithm) in devices {
                if let Some((id, key)) = self.take_key(&mut commit, user, device, algorithm)? {
                    claimed
                        .entry(user_id.clone())
                        .or_default()
                        .insert(device.clone(), BTreeMap::from([(id, key)]));
                }
            }
        }
        let applied = if commit.is_empty() { self.graph.applied() } else { self.graph.commit(commit)? };
        Ok((claimed, applied))
    }

    fn take_key(
        &self,
        commit: &mut Commit,
        user: UserNum,
        device: &str,
        algorithm: &str,
    ) -> Result<Option<(String, Value)>, Error> {
        let place = (user, device.to_owned(), algorithm.to_owned());
        let (name, key) = if let Some((key, value)) = self.graph.scan::<OneTimeKeys, _>(&place).first()? {
            commit.delete::<OneTimeKeys>(&key);
            commit.log(LogEntry::KeyCounts { user, device: device.to_owned() });
            (key.4, value)
        } else {
            let Some((used, name, key)) = self.graph.get::<FallbackKeys>(&place)? else { return Ok(None) };
            if !used {
                commit.put::<FallbackKeys>(&place, &(true, name.clone(), key.clone()));
                commit.log(LogEntry::KeyCounts { user, device: device.to_owned() });
            }
            (name, key)
        };
        Ok(Some((format!("{algorithm}:{name}"), parsed(&key)?)))
    }

    /// The number of a user of this server, if there is such a user.
    pub(crate) fn local_number(&self, user: &UserId) -> Result<Option<UserNum>, Error> {
        if user.server_name() != self.server_name() {
            return Ok(None);
        }
        Ok(self.graph.number(NameKind::User, user.as_str())?.map(UserNum))
    }
}

fn parsed(Raw(bytes): &Raw) -> Result<Value, Error> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::Internal(format!("a stored key is damaged: {error}")))
}
