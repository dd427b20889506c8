//! Devices and the tokens that speak for them.

use crate::{
    Error, Users,
    accounts::to_value,
    limits,
    secrets::{TokenHash, hash_token, new_token, random_name},
    users::now_ms,
};
use postern_graph::{
    Commit, NameKind, UserNum,
    codec::Json,
    log::LogEntry,
    schema::{
        AccessTokens, Dehydrated, DeviceChanges, DeviceKeys, DeviceTokens, DeviceVersions, Devices,
        FallbackKeys, KeySignatures, OneTimeKeys, RefreshTokens, ToDevice,
    },
};
use quick_cache::sync::Cache;
use ruma::{OwnedUserId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Who speaks: what an access token stands for.
#[derive(Debug, Clone)]
pub struct Session {
    /// The user.
    pub user_id: OwnedUserId,
    /// The user's number.
    pub user: UserNum,
    /// The device.
    pub device_id: String,
    /// Whether it is a guest.
    pub is_guest: bool,
    /// Whether it may use the admin API.
    pub is_admin: bool,
    /// When the token expires, milliseconds since the epoch.
    pub expires: Option<u64>,
    /// The token's hash, so that this very session can be ended.
    pub token: TokenHash,
}

/// A device as the client API shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Device {
    /// Its id.
    pub device_id: String,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// From where it was last seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen_ip: Option<String>,
    /// When, milliseconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen_ts: Option<u64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct StoredAccess {
    user: UserNum,
    device: String,
    expires: Option<u64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct StoredRefresh {
    user: UserNum,
    device: String,
    /// Set once it was used: it works until its successor, or the access token that came with that, is used, so
    /// that a lost answer costs no session.
    replaced_by: Option<TokenHash>,
}

/// The tokens of a login.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// The device.
    pub device_id: String,
    /// The access token.
    pub access_token: String,
    /// The refresh token, if the client can refresh.
    pub refresh_token: Option<String>,
    /// How long the access token works, milliseconds.
    pub expires_in_ms: Option<u64>,
}

/// Sessions in memory. A session is only put there if none was revoked while it was read.
#[derive(Debug)]
pub(crate) struct Sessions {
    cache: Cache<TokenHash, Arc<Session>>,
    revocations: AtomicU64,
    seen: dashmap::DashMap<TokenHash, u64>,
}

impl Sessions {
    pub(crate) fn new() -> Self {
        Self {
            cache: Cache::new(limits::SESSIONS_IN_MEMORY),
            revocations: AtomicU64::new(0),
            seen: dashmap::DashMap::new(),
        }
    }

    fn forget(&self, token: &TokenHash) {
        self.revocations.fetch_add(1, Ordering::SeqCst);
        self.cache.remove(token);
        self.seen.remove(token);
    }

    pub(crate) fn forget_all(&self) {
        self.revocations.fetch_add(1, Ordering::SeqCst);
        self.cache.clear();
    }
}

impl Users {
    /// Who an access token stands for.
    ///
    /// # Errors
    /// [`Error::UnknownToken`].
    pub fn session(&self, token: &str) -> Result<Arc<Session>, Error> {
        let hash = hash_token(token);
        let session = match self.sessions.cache.get(&hash) {
            Some(session) => session,
            None => {
                let before = self.sessions.revocations.load(Ordering::SeqCst);
                let session = Arc::new(self.load_session(hash)?);
                self.sessions.cache.insert(hash, session.clone());
                if self.sessions.revocations.load(Ordering::SeqCst) != before {
                    self.sessions.cache.remove(&hash);
                }
                session
            }
        };
        match session.expires {
            Some(at) if at <= now_ms() => Err(Error::UnknownToken { soft: true }),
            _ => Ok(session),
        }
    }

    fn load_session(&self, token: TokenHash) -> Result<Session, Error> {
        let unknown = Error::UnknownToken { soft: false };
        let Some(Json(value)) = self.graph.get::<AccessTokens>(&(token,))? else { return Err(unknown) };
        let stored: StoredAccess = from_value(value)?;
        let Some(account) = self.account_of(stored.user)? else { return Err(unknown) };
        if account.deactivated {
            return Err(unknown);
        }
        Ok(Session {
            user_id: self.id(stored.user)?,
            user: stored.user,
            device_id: stored.device,
            is_guest: account.guest,
            is_admin: account.admin,
            expires: stored.expires,
            token,
        })
    }

    /// Logs a user in on a device (a new one, or one the user has: its former tokens stop working).
    pub async fn log_in(
        &self,
        user: &UserId,
        device_id: Option<&str>,
        display_name: Option<&str>,
        refreshable: bool,
    ) -> Result<Tokens, Error> {
        let device = match device_id {
            Some(id) if id.is_empty() || id.len() > limits::DEVICE_ID_BYTES => {
                return Err(Error::InvalidParam("a device id has between 1 and 512 bytes".to_owned()));
            }
            Some(id) => id.to_owned(),
            None => random_name(10),
        };
        let mut commit = self.graph.begin();
        let number = UserNum(self.graph.intern(NameKind::User, user.as_str(), &mut commit)?);
        let key = (number, device.clone());
        let revoked = self.drop_tokens(&mut commit, number, &device)?;
        self.clear_pushers(&mut commit, number, &device)?;
        let known = self.graph.get::<Devices>(&key)?;
        let mut record: Device = match known {
            Some(Json(value)) => from_value(value)?,
            None => {
                self.devices_changed(&mut commit, number)?;
                Device {
                    device_id: device.clone(),
                    display_name: None,
                    last_seen_ip: None,
                    last_seen_ts: None,
                }
            }
        };
        if record.display_name.is_none() {
            record.display_name = display_name.map(|name| clip(name, limits::DISPLAY_NAME_BYTES));
        }
        commit.put::<Devices>(&key, &Json(to_value(&record)?));
        let tokens = self.issue(&mut commit, number, &device, refreshable)?;
        self.graph.commit_durably(commit).await?;
        for token in revoked {
            self.sessions.forget(&token);
        }
        Ok(tokens)
    }

    fn issue(
        &self,
        commit: &mut Commit,
        user: UserNum,
        device: &str,
        refreshable: bool,
    ) -> Result<Tokens, Error> {
        let access = new_token("pst");
        let expires_in_ms = refreshable.then_some(self.settings.access_token_ms);
        let stored = StoredAccess {
            user,
            device: device.to_owned(),
            expires: expires_in_ms.map(|life| now_ms().saturating_add(life)),
        };
        let hash = hash_token(&access);
        commit.put::<AccessTokens>(&(hash,), &Json(to_value(&stored)?));
        commit.put::<DeviceTokens>(&(user, device.to_owned(), hash), &0);
        let refresh = refreshable.then(|| new_token("psr"));
        if let Some(refresh) = &refresh {
            let hash = hash_token(refresh);
            let stored = StoredRefresh { user, device: device.to_owned(), replaced_by: None };
            commit.put::<RefreshTokens>(&(hash,), &Json(to_value(&stored)?));
            commit.put::<DeviceTokens>(&(user, device.to_owned(), hash), &1);
        }
        Ok(Tokens {
            device_id: device.to_owned(),
            access_token: access,
            refresh_token: refresh,
            expires_in_ms,
        })
    }

    /// Exchanges a refresh token for new tokens. The old one works until the new one is used.
    ///
    /// # Errors
    /// [`Error::UnknownToken`].
    pub async fn refresh(&self, refresh_token: &str) -> Result<Tokens, Error> {
        let _turn = self.account_turn.lock().await;
        let hash = hash_token(refresh_token);
        let unknown = || Error::UnknownToken { soft: false };
        let Json(value) = self.graph.get::<RefreshTokens>(&(hash,))?.ok_or_else(unknown)?;
        let mut stored: StoredRefresh = from_value(value)?;
        let mut commit = self.graph.begin();
        let mut revoked = Vec::new();
        // Whatever this device had besides the token being used is superseded.
        for entry in self.graph.scan::<DeviceTokens, _>(&(stored.user, stored.device.clone())).iter() {
            let ((user, device, token), kind) = entry?;
            if token == hash {
                continue;
            }
            commit.delete::<DeviceTokens>(&(user, device, token));
            if kind == 0 {
                commit.delete::<AccessTokens>(&(token,));
                revoked.push(token);
            } else {
                commit.delete::<RefreshTokens>(&(token,));
            }
        }
        let tokens = self.issue(&mut commit, stored.user, &stored.device, true)?;
        stored.replaced_by = tokens.refresh_token.as_deref().map(hash_token);
        commit.put::<RefreshTokens>(&(hash,), &Json(to_value(&stored)?));
        self.graph.commit_durably(commit).await?;
        for token in revoked {
            self.sessions.forget(&token);
        }
        Ok(tokens)
    }

    fn drop_tokens(&self, commit: &mut Commit, user: UserNum, device: &str) -> Result<Vec<TokenHash>, Error> {
        let mut revoked = Vec::new();
        for entry in self.graph.scan::<DeviceTokens, _>(&(user, device.to_owned())).iter() {
            let ((user, device, token), kind) = entry?;
            commit.delete::<DeviceTokens>(&(user, device, token));
            if kind == 0 {
                commit.delete::<AccessTokens>(&(token,));
                revoked.push(token);
            } else {
                commit.delete::<RefreshTokens>(&(token,));
            }
        }
        Ok(revoked)
    }

    /// Notes that a user's devices or keys changed, for those who share rooms with the user. Only the last change of a
    /// user is kept: whoever missed one before it hears of this one.
    pub(crate) fn devices_changed(&self, commit: &mut Commit, user: UserNum) -> Result<(), Error> {
        if let Some(before) = self.graph.get::<DeviceVersions>(&(user,))? {
            commit.delete::<DeviceChanges>(&(before, user));
        }
        let seq = commit.take_seq();
        commit.put::<DeviceChanges>(&(seq, user), &());
        commit.put::<DeviceVersions>(&(user,), &seq);
        commit.log(LogEntry::DeviceList { user });
        Ok(())
    }

    /// The devices of a user.
    pub fn devices(&self, user: UserNum) -> Result<Vec<Device>, Error> {
        self.graph.scan::<Devices, _>(&(user,)).iter().map(|entry| from_value(entry?.1.0)).collect()
    }

    /// One device.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn device(&self, user: UserNum, device: &str) -> Result<Device, Error> {
        match self.graph.get::<Devices>(&(user, device.to_owned()))? {
            Some(Json(value)) => from_value(value),
            None => Err(Error::NotFound("no such device".to_owned())),
        }
    }

    /// Renames a device.
    pub async fn rename_device(&self, user: UserNum, device: &str, name: Option<&str>) -> Result<(), Error> {
        let mut record = self.device(user, device)?;
        if let Some(name) = name {
            if name.len() > limits::DISPLAY_NAME_BYTES {
                return Err(Error::TooLarge("the name of the device is too long".to_owned()));
            }
            record.display_name = Some(name.to_owned());
        }
        let mut commit = self.graph.begin();
        commit.put::<Devices>(&(user, device.to_owned()), &Json(to_value(&record)?));
        self.devices_changed(&mut commit, user)?;
        self.graph.commit_durably(commit).await?;
        Ok(())
    }

    /// Adds the removal of a device and all that is its to a commit. The sessions of the returned tokens are to be
    /// forgotten once it is applied.
    pub(crate) fn clear_device(
        &self,
        commit: &mut Commit,
        user: UserNum,
        device: &str,
    ) -> Result<Vec<TokenHash>, Error> {
        let revoked = self.drop_tokens(commit, user, device)?;
        let key = (user, device.to_owned());
        commit.delete::<Devices>(&key);
        commit.delete::<DeviceKeys>(&key);
        commit.delete_all::<OneTimeKeys, _>(&key);
        commit.delete_all::<FallbackKeys, _>(&key);
        commit.delete_all::<KeySignatures, _>(&key);
        commit.delete_all::<ToDevice, _>(&key);
        if let Some(Json(dehydrated)) = self.graph.get::<Dehydrated>(&(user,))?
            && dehydrated.get("device_id").and_then(Value::as_str) == Some(device)
        {
            commit.delete::<Dehydrated>(&(user,));
        }
        self.clear_pushers(commit, user, device)?;
        Ok(revoked)
    }

    /// Removes devices with their tokens, keys, messages and pushers. Those that are not there are passed over.
    pub async fn remove_devices(&self, user: UserNum, devices: &[String]) -> Result<(), Error> {
        let mut commit = self.graph.begin();
        let mut revoked = Vec::new();
        for device in devices {
            revoked.extend(self.clear_device(&mut commit, user, device)?);
        }
        self.devices_changed(&mut commit, user)?;
        self.graph.commit_durably(commit).await?;
        for token in revoked {
            self.sessions.forget(&token);
        }
        Ok(())
    }

    /// Removes all devices of a user, but for one.
    pub async fn remove_all_devices(&self, user: UserNum, but: Option<&str>) -> Result<(), Error> {
        let devices: Vec<String> = self
            .devices(user)?
            .into_iter()
            .map(|device| device.device_id)
            .filter(|device| Some(device.as_str()) != but)
            .collect();
        if devices.is_empty() {
            return Ok(());
        }
        self.remove_devices(user, &devices).await
    }

    /// Notes that a device was used; written at most once a minute, and not waited for.
    pub fn seen(&self, session: &Session, ip: Option<String>) -> Result<(), Error> {
        let now = now_ms();
        let last = self.sessions.seen.get(&session.token).map_or(0, |at| *at);
        if now.saturating_sub(last) < limits::LAST_SEEN_EVERY_MS {
            return Ok(());
        }
        if self.sessions.seen.len() > limits::SESSIONS_IN_MEMORY {
            self.sessions.seen.clear();
        }
        self.sessions.seen.insert(session.token, now);
        let Ok(mut record) = self.device(session.user, &session.device_id) else { return Ok(()) };
        record.last_seen_ts = Some(now);
        record.last_seen_ip = ip.or(record.last_seen_ip);
        let mut commit = self.graph.begin();
        commit.put::<Devices>(&(session.user, session.device_id.clone()), &Json(to_value(&record)?));
        if last == 0 {
            self.drop_replaced(&mut commit, session)?;
        }
        self.graph.commit(commit)?;
        Ok(())
    }

    /// With the first use of an access token it is known that the answer to the refresh arrived: the refresh token it
    /// was got with is spent (specification: refreshing access tokens).
    fn drop_replaced(&self, commit: &mut Commit, session: &Session) -> Result<(), Error> {
        let device = (session.user, session.device_id.clone());
        for entry in self.graph.scan::<DeviceTokens, _>(&device).iter() {
            let ((user, device, token), kind) = entry?;
            if kind == 0 {
                continue;
            }
            let Some(Json(value)) = self.graph.get::<RefreshTokens>(&(token,))? else { continue };
            if from_value::<StoredRefresh>(value)?.replaced_by.is_some() {
                commit.delete::<RefreshTokens>(&(token,));
                commit.delete::<DeviceTokens>(&(user, device, token));
            }
        }
        Ok(())
    }
}

fn clip(text: &str, bytes: usize) -> String {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

fn from_value<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, Error> {
    serde_json::from_value(value).map_err(|error| Error::Internal(error.to_string()))
}
