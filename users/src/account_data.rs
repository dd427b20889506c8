//! What users keep about themselves: account data, filters, profile, presence, short-lived tokens.

use crate::{
    Error, Users,
    accounts::to_value,
    limits,
    secrets::{hash_token, new_token},
    users::now_ms,
};
use postern_graph::{
    NameKind, RoomNum, Seq, UserNum,
    codec::{Json, Raw},
    log::LogEntry,
    schema::{AccountData, AccountDataLog, Filters, Presence, Profiles, ShortTokens},
};
use ruma::{OwnedUserId, UserId};
use serde_json::{Map, Value};
use std::collections::HashSet;

/// A piece of account data: its type, and its content as JSON text.
pub type TypedContent = (String, String);

/// A user found, with the profile.
pub type FoundUser = (OwnedUserId, Map<String, Value>);

impl Users {
    // ---- account data ----------------------------------------------------------------------------------------

    /// Sets account data of a type, for a room or (`RoomNum::NONE`) globally.
    pub async fn set_account_data(
        &self,
        user: UserNum,
        room: RoomNum,
        data_type: &str,
        content: &str,
    ) -> Result<(), Error> {
        if content.len() > limits::ACCOUNT_DATA_BYTES || data_type.len() > 255 {
            return Err(Error::TooLarge("the account data is too large".to_owned()));
        }
        let mut commit = self.graph.begin();
        let seq = commit.take_seq();
        let key = (user, room, data_type.to_owned());
        if let Some((before, _)) = self.graph.get::<AccountData>(&key)? {
            commit.delete::<AccountDataLog>(&(user, before));
        }
        commit.put::<AccountData>(&key, &(seq, Raw(content.as_bytes().to_vec())));
        commit.put::<AccountDataLog>(&(user, seq), &(room, data_type.to_owned()));
        commit.log(LogEntry::AccountData { user, room });
        self.graph.commit_durably(commit).await?;
        Ok(())
    }

    /// Account data of a type, as JSON text.
    pub fn account_data(
        &self,
        user: UserNum,
        room: RoomNum,
        data_type: &str,
    ) -> Result<Option<String>, Error> {
        let stored = self.graph.get::<AccountData>(&(user, room, data_type.to_owned()))?;
        Ok(stored.and_then(|(_, Raw(content))| String::from_utf8(content).ok()))
    }

    /// When account data of a type last changed; zero if it is not set.
    pub(crate) fn account_data_version(
        &self,
        user: UserNum,
        room: RoomNum,
        data_type: &str,
    ) -> Result<Seq, Error> {
        let stored = self.graph.get::<AccountData>(&(user, room, data_type.to_owned()))?;
        Ok(stored.map_or(Seq::ZERO, |(seq, _)| seq))
    }

    /// All account data of a room, or the global one.
    pub fn all_account_data(&self, user: UserNum, room: RoomNum) -> Result<Vec<TypedContent>, Error> {
        let mut all = Vec::new();
        for entry in self.graph.scan::<AccountData, _>(&(user, room)).iter() {
            let ((_, _, data_type), (_, Raw(content))) = entry?;
            if let Ok(content) = String::from_utf8(content) {
                all.push((data_type, content));
            }
        }
        Ok(all)
    }

    /// Account data that changed in `(after, up_to]`: room or `NONE`, and what.
    pub fn account_data_since(
        &self,
        user: UserNum,
        after: Seq,
        up_to: Seq,
    ) -> Result<Vec<(RoomNum, TypedContent)>, Error> {
        let mut changed = Vec::new();
        for entry in
            self.graph.scan::<AccountDataLog, _>(&(user,)).after(&(user, after)).up_to(&(user, up_to)).iter()
        {
            let ((_, seq), (room, data_type)) = entry?;
            if let Some((at, Raw(content))) =
                self.graph.get::<AccountData>(&(user, room, data_type.clone()))?
                && at == seq
                && let Ok(content) = String::from_utf8(content)
            {
                changed.push((room, (data_type, content)));
            }
        }
        Ok(changed)
    }

    // ---- filters ---------------------------------------------------------------------------------------------

    /// Stores a filter and returns its id; the same filter keeps its id.
    pub async fn add_filter(&self, user: UserNum, filter: &str) -> Result<String, Error> {
        if filter.len() > limits::ACCOUNT_DATA_BYTES {
            return Err(Error::TooLarge("the filter is too large".to_owned()));
        }
        let _turn = self.account_turn.lock().await;
        let mut next = 0;
        for entry in self.graph.scan::<Filters, _>(&(user,)).iter() {
            let ((_, id), Raw(stored)) = entry?;
            if stored == filter.as_bytes() {
                return Ok(id.to_string());
            }
            next = id + 1;
        }
        if next >= limits::FILTERS_PER_USER {
            return Err(Error::TooLarge("too many filters".to_owned()));
        }
        let mut commit = self.graph.begin();
        commit.put::<Filters>(&(user, next), &Raw(filter.as_bytes().to_vec()));
        self.graph.commit_durably(commit).await?;
        Ok(next.to_string())
    }

    /// A stored filter, as JSON text.
    pub fn filter(&self, user: UserNum, id: &str) -> Result<Option<String>, Error> {
        let Ok(id) = id.parse() else { return Ok(None) };
        let stored = self.graph.get::<Filters>(&(user, id))?;
        Ok(stored.and_then(|Raw(filter)| String::from_utf8(filter).ok()))
    }

    // ---- profile ---------------------------------------------------------------------------------------------

    /// A user's profile, as far as this server knows it.
    pub fn profile(&self, user: &UserId) -> Result<Option<Map<String, Value>>, Error> {
        let Some(number) = self.number(user)? else { return Ok(None) };
        match self.graph.get::<Profiles>(&(number,))? {
            Some(Json(Value::Object(profile))) => Ok(Some(profile)),
            _ => Ok(self.account_of(number)?.filter(|account| !account.deactivated).map(|_| Map::new())),
        }
    }

    /// Sets a field of a profile; null removes it.
    ///
    /// # Errors
    /// [`Error::ProfileTooLarge`], [`Error::KeyTooLarge`].
    pub async fn set_profile(&self, user: UserNum, field: &str, value: Value) -> Result<(), Error> {
        if field.is_empty() {
            return Err(Error::InvalidParam("a profile field has a name".to_owned()));
        }
        if field.len() > limits::PROFILE_KEY_BYTES {
            return Err(Error::KeyTooLarge);
        }
        let _turn = self.account_turn.lock().await;
        let mut profile = match self.graph.get::<Profiles>(&(user,))? {
            Some(Json(Value::Object(profile))) => profile,
            _ => Map::new(),
        };
        if value.is_null() {
            profile.remove(field);
        } else {
            profile.insert(field.to_owned(), value);
        }
        if Value::Object(profile.clone()).to_string().len() > limits::PROFILE_BYTES {
            return Err(Error::ProfileTooLarge);
        }
        let mut commit = self.graph.begin();
        commit.put::<Profiles>(&(user,), &Json(Value::Object(profile)));
        commit.log(LogEntry::Profile { user });
        self.graph.commit_durably(commit).await?;
        Ok(())
    }

    /// Local users whose name or id contains `term`, and whose number is in `among` if given; at most `limit`.
    pub fn search(
        &self,
        term: &str,
        among: Option<&HashSet<UserNum>>,
        limit: usize,
    ) -> Result<Vec<FoundUser>, Error> {
        let term = term.to_lowercase();
        let term = term.trim_start_matches('@');
        let mut found = Vec::new();
        for entry in self.graph.scan::<Profiles, _>(&()).iter() {
            let ((user,), Json(profile)) = entry?;
            if among.is_some_and(|among| !among.contains(&user)) {
                continue;
            }
            let Value::Object(profile) = profile else { continue };
            let id = self.id(user)?;
            let name = profile.get("displayname").and_then(Value::as_str).unwrap_or_default();
            let matches = name.to_lowercase().contains(term) || id.as_str().to_lowercase().contains(term);
            if !matches || self.account_of(user)?.is_some_and(|account| account.deactivated) {
                continue;
            }
            found.push((id, profile));
            if found.len() == limit {
                break;
            }
        }
        Ok(found)
    }

    /// Whom a user wants to hear nothing from (specification: ignoring users).
    pub fn ignored(&self, user: UserNum) -> Result<HashSet<OwnedUserId>, Error> {
        let stored = self.account_data(user, RoomNum::NONE, "m.ignored_user_list")?;
        let content: Value = stored.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        let ignored = content.get("ignored_users").and_then(Value::as_object);
        Ok(ignored.into_iter().flatten().filter_map(|(user, _)| UserId::parse(user).ok()).collect())
    }

    // ---- presence --------------------------------------------------------------------------------------------

    /// Sets a user's presence.
    pub async fn set_presence(&self, user: UserNum, presence: Value) -> Result<(), Error> {
        let mut commit = self.graph.begin();
        let seq = commit.take_seq();
        commit.put::<Presence>(&(user,), &(seq, Json(presence)));
        commit.log(LogEntry::Presence { user });
        self.graph.commit_durably(commit).await?;
        Ok(())
    }

    /// Sets the presence of several users, each named once; at most [`limits::PRESENCES_AT_ONCE`].
    ///
    /// # Errors
    /// [`Error::TooLarge`] beyond that.
    pub async fn set_presences(&self, presences: Vec<(UserNum, Value)>) -> Result<(), Error> {
        if presences.len() > limits::PRESENCES_AT_ONCE {
            return Err(Error::TooLarge("too many users' presence at once".to_owned()));
        }
        if presences.is_empty() {
            return Ok(());
        }
        let mut commit = self.graph.begin();
        let seq = commit.take_seq();
        for (user, presence) in presences {
            commit.put::<Presence>(&(user,), &(seq, Json(presence)));
            commit.log(LogEntry::Presence { user });
        }
        self.graph.commit_durably(commit).await?;
        Ok(())
    }

    /// A user's presence, and since when it is so.
    pub fn presence(&self, user: UserNum) -> Result<Option<(Seq, Value)>, Error> {
        Ok(self.graph.get::<Presence>(&(user,))?.map(|(seq, Json(presence))| (seq, presence)))
    }

    // ---- short-lived tokens ----------------------------------------------------------------------------------

    /// A token of a kind (`login`, `openid`) for a user that works for `life_ms`.
    pub async fn short_token(&self, kind: &str, user: &UserId, life_ms: u64) -> Result<String, Error> {
        let token = new_token(kind);
        let mut commit = self.graph.begin();
        let key = (kind.to_owned(), hash_token(&token));
        commit.put::<ShortTokens>(&key, &(now_ms().saturating_add(life_ms), Json(to_value(&user)?)));
        // Whatever has run out goes with it, so that they do not pile up.
        for entry in self.graph.scan::<ShortTokens, _>(&(kind.to_owned(),)).iter().take(100) {
            let (key, (expires, _)) = entry?;
            if expires < now_ms() {
                commit.delete::<ShortTokens>(&key);
            }
        }
        self.graph.commit_durably(commit).await?;
        Ok(token)
    }

    /// Who such a token stands for; with `once` it works no more after that.
    pub async fn redeem(
        &self,
        kind: &str,
        token: &str,
        once: bool,
    ) -> Result<Option<ruma::OwnedUserId>, Error> {
        let _turn = self.account_turn.lock().await;
        let key = (kind.to_owned(), hash_token(token));
        let Some((expires, Json(user))) = self.graph.get::<ShortTokens>(&key)? else { return Ok(None) };
        if once {
            let mut commit = self.graph.begin();
            commit.delete::<ShortTokens>(&key);
            self.graph.commit_durably(commit).await?;
        }
        Ok((expires > now_ms()).then(|| serde_json::from_value(user).ok()).flatten())
    }

    /// The number of a user, given one if need be (for records about users who have none yet).
    pub async fn intern(&self, user: &UserId) -> Result<UserNum, Error> {
        if let Some(number) = self.number(user)? {
            return Ok(number);
        }
        let mut commit = self.graph.begin();
        let number = UserNum(self.graph.intern(NameKind::User, user.as_str(), &mut commit)?);
        self.graph.commit_durably(commit).await?;
        Ok(number)
    }
}
