//! Backups of room keys (specification: server-side key backups).
//!
//! A user has versions of a backup; the newest is the current one and the only one that takes keys. Its record counts
//! the keys and the changes (`etag`), and changes with them in one commit. Version numbers are never used twice: the
//! highest one leaves a mark behind when it is deleted.

use crate::{Error, Users, accounts::to_value, keys::raw, limits};
use postern_graph::{
    Commit, Seq, UserNum,
    codec::{Json, Raw},
    schema::{BackupKeys, BackupVersions},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};
use std::collections::BTreeMap;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Stored {
    algorithm: String,
    auth_data: Map<String, Value>,
    etag: u64,
    count: u64,
    #[serde(default)]
    deleted: bool,
}

/// A version of a backup.
#[derive(Debug, Clone, Serialize)]
pub struct BackupVersion {
    /// Its name.
    pub version: String,
    /// How it is encrypted.
    pub algorithm: String,
    /// What the algorithm needs.
    pub auth_data: Map<String, Value>,
    /// Changes whenever a key does.
    pub etag: String,
    /// How many keys it has.
    pub count: u64,
}

/// What a change of keys leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackupState {
    /// Changes whenever a key does.
    pub etag: String,
    /// How many keys there are.
    pub count: u64,
}

/// A backed up key of a session. Only `session_data` is secret, and encrypted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackedUpKey {
    /// The first message it decrypts.
    pub first_message_index: u64,
    /// How often it was forwarded.
    pub forwarded_count: u64,
    /// Whether the device it came from was verified.
    pub is_verified: bool,
    /// The key.
    pub session_data: Map<String, Value>,
}

impl BackedUpKey {
    /// Whether it is to replace `other` (specification: server behaviour of key backups).
    fn is_better_than(&self, other: &Self) -> bool {
        let rank = |key: &Self| (!key.is_verified, key.first_message_index, key.forwarded_count);
        rank(self) < rank(other)
    }
}

/// Keys to store: by room and session.
pub type RoomKeys = BTreeMap<String, BTreeMap<String, BackedUpKey>>;

/// Stored keys: by room and session, as JSON text.
pub type StoredRoomKeys = BTreeMap<String, BTreeMap<String, Box<RawValue>>>;

/// Which keys of a backup are meant.
#[derive(Debug, Clone, Copy)]
pub enum BackupScope<'a> {
    /// All.
    All,
    /// Those of a room.
    Room(&'a str),
    /// The one of a session of a room.
    Session(&'a str, &'a str),
}

fn no_backup() -> Error {
    Error::NotFound("there is no such backup".to_owned())
}

impl Stored {
    fn shown(self, version: u64) -> BackupVersion {
        BackupVersion {
            version: version.to_string(),
            algorithm: self.algorithm,
            auth_data: self.auth_data,
            etag: self.etag.to_string(),
            count: self.count,
        }
    }

    fn state(&self) -> BackupState {
        BackupState { etag: self.etag.to_string(), count: self.count }
    }
}

impl Users {
    /// Makes a new version of a user's backup, the current one from then on, and returns its name.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for too large `auth_data` or too many versions.
    pub async fn create_backup(
        &self,
        user: UserNum,
        algorithm: &str,
        auth_data: Map<String, Value>,
    ) -> Result<String, Error> {
        let (version, applied) = self.apply_create_backup(user, algorithm, auth_data)?;
        self.graph.durable_at(applied).await?;
        Ok(version.to_string())
    }

    fn apply_create_backup(
        &self,
        user: UserNum,
        algorithm: &str,
        auth_data: Map<String, Value>,
    ) -> Result<(u64, Seq), Error> {
        check_auth_data(algorithm, &auth_data)?;
        let _turn = self.turns.backup.lock();
        let mut commit = self.graph.begin();
        let mut highest = 0;
        let mut count = 0;
        for entry in self.graph.scan::<BackupVersions, _>(&(user,)).iter() {
            let (key, stored) = entry?;
            highest = key.1;
            if parsed(stored)?.deleted {
                commit.delete::<BackupVersions>(&key);
            } else {
                count += 1;
            }
        }
        if count >= limits::BACKUP_VERSIONS {
            return Err(Error::TooLarge("too many backups: delete old ones".to_owned()));
        }
        let version = highest + 1;
        let stored = Stored { algorithm: algorithm.to_owned(), auth_data, ..Stored::default() };
        put_version(&mut commit, user, version, &stored)?;
        Ok((version, self.graph.commit(commit)?))
    }

    /// A version of a user's backup; the current one if none is named.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn backup(&self, user: UserNum, version: Option<&str>) -> Result<BackupVersion, Error> {
        let (version, stored) = match version {
            Some(version) => self.stored_backup(user, version)?,
            None => self.current_backup(user)?.ok_or_else(no_backup)?,
        };
        Ok(stored.shown(version))
    }

    fn stored_backup(&self, user: UserNum, version: &str) -> Result<(u64, Stored), Error> {
        let version = version.parse().map_err(|_| no_backup())?;
        let stored = self.graph.get::<BackupVersions>(&(user, version))?.ok_or_else(no_backup)?;
        let stored = parsed(stored)?;
        if stored.deleted { Err(no_backup()) } else { Ok((version, stored)) }
    }

    fn current_backup(&self, user: UserNum) -> Result<Option<(u64, Stored)>, Error> {
        for entry in self.graph.scan::<BackupVersions, _>(&(user,)).reverse().iter() {
            let ((_, version), stored) = entry?;
            let stored = parsed(stored)?;
            if !stored.deleted {
                return Ok(Some((version, stored)));
            }
        }
        Ok(None)
    }

    /// Changes the `auth_data` of a version, which is all that may change.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::InvalidParam`] for another algorithm.
    pub async fn update_backup(
        &self,
        user: UserNum,
        version: &str,
        algorithm: &str,
        auth_data: Map<String, Value>,
    ) -> Result<(), Error> {
        let applied = self.apply_update_backup(user, version, algorithm, auth_data)?;
        Ok(self.graph.durable_at(applied).await?)
    }

    fn apply_update_backup(
        &self,
        user: UserNum,
        version: &str,
        algorithm: &str,
        auth_data: Map<String, Value>,
    ) -> Result<Seq, Error> {
        check_auth_data(algorithm, &auth_data)?;
        let _turn = self.turns.backup.lock();
        let (version, mut stored) = self.stored_backup(user, version)?;
        if stored.algorithm != algorithm {
            return Err(Error::InvalidParam("the algorithm of a backup cannot change".to_owned()));
        }
        stored.auth_data = auth_data;
        let mut commit = self.graph.begin();
        put_version(&mut commit, user, version, &stored)?;
        Ok(self.graph.commit(commit)?)
    }

    /// Deletes a version with its keys. One that was deleted before is fine.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there never was such a version.
    pub async fn delete_backup(&self, user: UserNum, version: &str) -> Result<(), Error> {
        let applied = self.apply_delete_backup(user, version)?;
        Ok(self.graph.durable_at(applied).await?)
    }

    fn apply_delete_backup(&self, user: UserNum, version: &str) -> Result<Seq, Error> {
        let version: u64 = version.parse().map_err(|_| no_backup())?;
        let _turn = self.turns.backup.lock();
        let highest = self.graph.scan::<BackupVersions, _>(&(user,)).reverse().first()?;
        let highest = highest.map_or(0, |((_, version), _)| version);
        if version == 0 || version > highest {
            return Err(no_backup());
        }
        let mut commit = self.graph.begin();
        commit.delete_all::<BackupKeys, _>(&(user, version));
        if version == highest {
            put_version(&mut commit, user, version, &Stored { deleted: true, ..Stored::default() })?;
        } else {
            commit.delete::<BackupVersions>(&(user, version));
        }
        Ok(self.graph.commit(commit)?)
    }

    /// Stores keys in the current version. A key that is there gives way only to a better one.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::WrongVersion`] if `version` is not the current one; [`Error::TooLarge`].
    pub async fn put_backup_keys(
        &self,
        user: UserNum,
        version: &str,
        keys: &RoomKeys,
    ) -> Result<BackupState, Error> {
        let (state, applied) = self.apply_put_keys(user, version, keys)?;
        self.graph.durable_at(applied).await?;
        Ok(state)
    }

    fn apply_put_keys(
        &self,
        user: UserNum,
        version: &str,
        keys: &RoomKeys,
    ) -> Result<(BackupState, Seq), Error> {
        let _turn = self.turns.backup.lock();
        let (current, mut stored) = self.current_backup(user)?.ok_or_else(no_backup)?;
        if version != current.to_string() {
            self.stored_backup(user, version)?;
            return Err(Error::WrongVersion { current: current.to_string() });
        }
        let mut commit = self.graph.begin();
        for (room, sessions) in keys {
            if room.len() > limits::BACKUP_NAME_BYTES {
                return Err(Error::InvalidParam("a room id is too long".to_owned()));
            }
            for (session, key) in sessions {
                if session.len() > limits::BACKUP_NAME_BYTES {
                    return Err(Error::InvalidParam("a session id is too long".to_owned()));
                }
                let place = (user, current, room.clone(), session.clone());
                match self.graph.get::<BackupKeys>(&place)? {
                    Some(Raw(bytes)) => {
                        let there: BackedUpKey = serde_json::from_slice(&bytes)
                            .map_err(|error| Error::Internal(format!("a stored key is damaged: {error}")))?;
                        if !key.is_better_than(&there) {
                            continue;
                        }
                    }
                    None => stored.count += 1,
                }
                let text = raw(key)?;
                if text.0.len() > limits::KEY_OBJECT_BYTES {
                    return Err(Error::TooLarge("a key is too large".to_owned()));
                }
                commit.put::<BackupKeys>(&place, &text);
            }
        }
        if stored.count > limits::BACKUP_KEYS_PER_VERSION {
            return Err(Error::TooLarge("the backup has too many keys".to_owned()));
        }
        if commit.is_empty() {
            return Ok((stored.state(), self.graph.applied()));
        }
        stored.etag += 1;
        put_version(&mut commit, user, current, &stored)?;
        Ok((stored.state(), self.graph.commit(commit)?))
    }

    /// The keys of a version, all or those of a room or session.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such version.
    pub fn backup_keys(
        &self,
        user: UserNum,
        version: &str,
        scope: BackupScope<'_>,
    ) -> Result<StoredRoomKeys, Error> {
        let (version, _) = self.stored_backup(user, version)?;
        let mut found = StoredRoomKeys::new();
        let mut add = |room: String, session: String, Raw(bytes): Raw| -> Result<(), Error> {
            let text = String::from_utf8(bytes).map_err(|error| error.to_string());
            let text = text.and_then(|text| RawValue::from_string(text).map_err(|error| error.to_string()));
            let text = text.map_err(|error| Error::Internal(format!("a stored key is damaged: {error}")))?;
            found.entry(room).or_default().insert(session, text);
            Ok(())
        };
        match scope {
            BackupScope::All => {
                for entry in self.graph.scan::<BackupKeys, _>(&(user, version)).iter() {
                    let ((_, _, room, session), key) = entry?;
                    add(room, session, key)?;
                }
            }
            BackupScope::Room(room) => {
                for entry in self.graph.scan::<BackupKeys, _>(&(user, version, room.to_owned())).iter() {
                    let ((_, _, room, session), key) = entry?;
                    add(room, session, key)?;
                }
            }
            BackupScope::Session(room, session) => {
                let place = (user, version, room.to_owned(), session.to_owned());
                if let Some(key) = self.graph.get::<BackupKeys>(&place)? {
                    add(place.2, place.3, key)?;
                }
            }
        }
        Ok(found)
    }

    /// Deletes keys of a version.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such version.
    pub async fn delete_backup_keys(
        &self,
        user: UserNum,
        version: &str,
        scope: BackupScope<'_>,
    ) -> Result<BackupState, Error> {
        let (state, applied) = self.apply_delete_keys(user, version, scope)?;
        self.graph.durable_at(applied).await?;
        Ok(state)
    }

    fn apply_delete_keys(
        &self,
        user: UserNum,
        version: &str,
        scope: BackupScope<'_>,
    ) -> Result<(BackupState, Seq), Error> {
        let _turn = self.turns.backup.lock();
        let (version, mut stored) = self.stored_backup(user, version)?;
        let mut commit = self.graph.begin();
        let removed = match scope {
            BackupScope::All => {
                commit.delete_all::<BackupKeys, _>(&(user, version));
                stored.count
            }
            BackupScope::Room(room) => {
                let prefix = (user, version, room.to_owned());
                commit.delete_all::<BackupKeys, _>(&prefix);
                let mut count = 0;
                for entry in self.graph.scan::<BackupKeys, _>(&prefix).iter() {
                    entry?;
                    count += 1;
                }
                count
            }
            BackupScope::Session(room, session) => {
                let place = (user, version, room.to_owned(), session.to_owned());
                commit.delete::<BackupKeys>(&place);
                u64::from(self.graph.has::<BackupKeys>(&place)?)
            }
        };
        if removed == 0 {
            return Ok((stored.state(), self.graph.applied()));
        }
        stored.count = stored.count.saturating_sub(removed);
        stored.etag += 1;
        put_version(&mut commit, user, version, &stored)?;
        Ok((stored.state(), self.graph.commit(commit)?))
    }
}

fn check_auth_data(algorithm: &str, auth_data: &Map<String, Value>) -> Result<(), Error> {
    if algorithm.len() > limits::BACKUP_NAME_BYTES || raw(auth_data)?.0.len() > limits::KEY_OBJECT_BYTES {
        return Err(Error::TooLarge("the description of the backup is too large".to_owned()));
    }
    Ok(())
}

fn parsed(Json(value): Json<Value>) -> Result<Stored, Error> {
    serde_json::from_value(value).map_err(|error| Error::Internal(error.to_string()))
}

fn put_version(commit: &mut Commit, user: UserNum, version: u64, stored: &Stored) -> Result<(), Error> {
    commit.put::<BackupVersions>(&(user, version), &Json(to_value(stored)?));
    Ok(())
}
