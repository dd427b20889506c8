//! Accounts of this server: creating, logging in with a password, deactivating.

use crate::{Error, Users, passwords::PasswordHash, secrets::new_token, users::now_ms};
use postern_graph::{
    NameKind, UserNum,
    codec::{Json, Raw},
    schema::{Accounts, Profiles, RegistrationTokens, ServerState},
};
use ruma::{OwnedUserId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A stored account.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Account {
    /// When it was created, milliseconds since the epoch.
    pub created: u64,
    pub(crate) password: Option<PasswordHash>,
    /// Whether it may use the admin API.
    #[serde(default)]
    pub admin: bool,
    /// Whether it is a guest's.
    #[serde(default)]
    pub guest: bool,
    /// Whether it is gone for good.
    #[serde(default)]
    pub deactivated: bool,
}

/// An account to create.
#[derive(Debug, Clone, Default)]
pub struct NewAccount {
    /// The localpart; one is made up if there is none.
    pub localpart: Option<String>,
    /// The password, if it is to log in with one.
    pub password: Option<String>,
    /// Whether it may use the admin API.
    pub admin: bool,
    /// Whether it is a guest's.
    pub guest: bool,
}

/// A registration token that was printed at the first start: its account becomes an admin.
const FIRST_ADMIN: &str = "first_admin_token";

/// A token that allows registering.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RegistrationToken {
    /// How often it may still be used; without end if not set.
    pub uses_left: Option<u64>,
    /// When it stops working, milliseconds since the epoch.
    pub expires: Option<u64>,
    /// Whether the account becomes an admin.
    #[serde(default)]
    pub admin: bool,
}

impl Users {
    /// Whether there is an account of this id that is not deactivated.
    pub fn is_active(&self, user: &UserId) -> Result<bool, Error> {
        let Some(number) = self.local_number(user)? else { return Ok(false) };
        Ok(self.account_of(number)?.is_some_and(|account| !account.deactivated))
    }

    /// The user id of a localpart or full id of this server.
    ///
    /// # Errors
    /// [`Error::InvalidUsername`] if it is none, or of another server.
    pub fn local_id(&self, name: &str) -> Result<OwnedUserId, Error> {
        let invalid = |why: &str| Error::InvalidUsername(why.to_owned());
        let id = if name.starts_with('@') {
            UserId::parse(name).map_err(|error| invalid(&error.to_string()))?
        } else {
            UserId::parse(format!("@{name}:{}", self.server_name()))
                .map_err(|error| invalid(&error.to_string()))?
        };
        if id.server_name() != self.server_name() {
            return Err(invalid("the user id is of another server"));
        }
        Ok(id)
    }

    /// Whether a localpart may be registered.
    ///
    /// # Errors
    /// [`Error::InvalidUsername`] or [`Error::UserInUse`].
    pub fn check_available(&self, localpart: &str) -> Result<OwnedUserId, Error> {
        let lower = localpart.to_lowercase();
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._=-/+".contains(c);
        if lower.is_empty() || !lower.chars().all(plain) {
            return Err(Error::InvalidUsername(
                "a username may contain only the characters a-z, 0-9 and ._=-/+".to_owned(),
            ));
        }
        let id = self.local_id(&lower)?;
        if id.as_str().len() > 255 {
            return Err(Error::InvalidUsername("the username is too long".to_owned()));
        }
        match self.account(&id)? {
            Some(_) => Err(Error::UserInUse),
            None => Ok(id),
        }
    }

    /// The account of a user.
    pub fn account(&self, user: &UserId) -> Result<Option<Account>, Error> {
        let Some(number) = self.number(user)? else { return Ok(None) };
        self.account_of(number)
    }

    pub(crate) fn account_of(&self, user: UserNum) -> Result<Option<Account>, Error> {
        let Some(Json(value)) = self.graph.get::<Accounts>(&(user,))? else { return Ok(None) };
        serde_json::from_value(value).map(Some).map_err(|error| Error::Internal(error.to_string()))
    }

    /// Creates an account.
    ///
    /// # Errors
    /// [`Error::UserInUse`], [`Error::InvalidUsername`].
    pub async fn create_account(&self, new: NewAccount) -> Result<OwnedUserId, Error> {
        let password = match &new.password {
            Some(password) => Some(self.passwords.hash(password).await?),
            None => None,
        };
        // Two requests for one name: the second has to see the first's account.
        let _turn = self.account_turn.lock().await;
        let id = match &new.localpart {
            Some(localpart) => self.check_available(localpart)?,
            None => self.check_available(&self.free_localpart())?,
        };
        let account =
            Account { created: now_ms(), password, admin: new.admin, guest: new.guest, deactivated: false };
        let mut commit = self.graph.begin();
        let user = UserNum(self.graph.intern(NameKind::User, id.as_str(), &mut commit)?);
        commit.put::<Accounts>(&(user,), &Json(to_value(&account)?));
        if !new.guest {
            commit.put::<Profiles>(&(user,), &Json(json!({ "displayname": id.localpart() })));
        }
        self.graph.commit_durably(commit).await?;
        Ok(id)
    }

    fn free_localpart(&self) -> String {
        format!("{:x}", rand::random::<u64>())
    }

    /// Checks a password.
    ///
    /// # Errors
    /// [`Error::Forbidden`] if user or password are wrong; [`Error::Deactivated`] if the account is.
    pub async fn check_password(&self, user: &UserId, password: &str) -> Result<(), Error> {
        let account = self.account(user)?;
        let stored = account.as_ref().and_then(|account| account.password.as_ref());
        let right = self.passwords.check(password, stored).await?;
        match account {
            Some(account) if account.deactivated => Err(Error::Deactivated),
            Some(_) if right => Ok(()),
            _ => Err(Error::Forbidden("wrong user or password".to_owned())),
        }
    }

    /// Sets a password.
    pub async fn set_password(&self, user: &UserId, password: &str) -> Result<(), Error> {
        let hash = self.passwords.hash(password).await?;
        self.change_account(user, |account| account.password = Some(hash)).await
    }

    /// Makes an account an admin's, or not.
    pub async fn set_admin(&self, user: &UserId, admin: bool) -> Result<(), Error> {
        self.change_account(user, |account| account.admin = admin).await
    }

    async fn change_account(&self, user: &UserId, change: impl FnOnce(&mut Account)) -> Result<(), Error> {
        let _turn = self.account_turn.lock().await;
        let number = self.number(user)?.ok_or_else(|| Error::NotFound("no such user".to_owned()))?;
        let mut account =
            self.account_of(number)?.ok_or_else(|| Error::NotFound("no such user".to_owned()))?;
        change(&mut account);
        let mut commit = self.graph.begin();
        commit.put::<Accounts>(&(number,), &Json(to_value(&account)?));
        self.graph.commit_durably(commit).await?;
        self.sessions.forget_all();
        Ok(())
    }

    /// Deactivates an account for good: no login, no devices, no password; with `erase`, no profile.
    pub async fn deactivate(&self, user: &UserId, erase: bool) -> Result<(), Error> {
        let number = self.number(user)?.ok_or_else(|| Error::NotFound("no such user".to_owned()))?;
        self.remove_all_devices(number, None).await?;
        self.change_account(user, |account| {
            account.deactivated = true;
            account.password = None;
        })
        .await?;
        if erase {
            let mut commit = self.graph.begin();
            commit.delete::<Profiles>(&(number,));
            self.graph.commit_durably(commit).await?;
        }
        Ok(())
    }

    // ---- registration tokens ---------------------------------------------------------------------------------

    /// A one-time token for the first admin: made when there is no account yet, the same until it is used.
    pub async fn first_admin_token(&self) -> Result<Option<String>, Error> {
        if self.graph.scan::<Accounts, _>(&()).first()?.is_some() {
            return Ok(None);
        }
        if let Some(Raw(token)) = self.graph.get::<ServerState>(&(FIRST_ADMIN.to_owned(),))? {
            return Ok(String::from_utf8(token).ok());
        }
        let token = new_token("first");
        let mut commit = self.graph.begin();
        commit.put::<ServerState>(&(FIRST_ADMIN.to_owned(),), &Raw(token.clone().into_bytes()));
        let stored = RegistrationToken { uses_left: Some(1), expires: None, admin: true };
        commit.put::<RegistrationTokens>(&(token.clone(),), &Json(to_value(&stored)?));
        self.graph.commit_durably(commit).await?;
        Ok(Some(token))
    }

    /// A registration token that can be used now.
    pub fn registration_token(&self, token: &str) -> Result<Option<RegistrationToken>, Error> {
        let Some(Json(value)) = self.graph.get::<RegistrationTokens>(&(token.to_owned(),))? else {
            return Ok(None);
        };
        let stored: RegistrationToken =
            serde_json::from_value(value).map_err(|error| Error::Internal(error.to_string()))?;
        let usable = stored.uses_left != Some(0) && stored.expires.is_none_or(|at| at > now_ms());
        Ok(usable.then_some(stored))
    }

    /// Uses a registration token up (once). Nothing if it cannot be used.
    pub async fn use_registration_token(&self, token: &str) -> Result<Option<RegistrationToken>, Error> {
        let _turn = self.account_turn.lock().await;
        let Some(mut stored) = self.registration_token(token)? else { return Ok(None) };
        stored.uses_left = stored.uses_left.map(|uses| uses.saturating_sub(1));
        let mut commit = self.graph.begin();
        commit.put::<RegistrationTokens>(&(token.to_owned(),), &Json(to_value(&stored)?));
        if stored.admin {
            commit.delete::<ServerState>(&(FIRST_ADMIN.to_owned(),));
        }
        self.graph.commit_durably(commit).await?;
        Ok(Some(stored))
    }
}

pub(crate) fn to_value(record: &impl Serialize) -> Result<Value, Error> {
    serde_json::to_value(record).map_err(|error| Error::Internal(error.to_string()))
}
