//! Pushers: where users want to be told of what they are to be notified of (specification: push notifications).

use crate::{Error, Users, accounts::to_value, limits};
use postern_graph::{
    Commit, UserNum,
    codec::Json,
    schema::{PushDue, PusherKeys, Pushers},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A pusher.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pusher {
    /// Where the app is reached, as its push gateway understands it.
    pub pushkey: String,
    /// The app.
    pub app_id: String,
    /// `http`.
    pub kind: String,
    /// The app's name.
    pub app_display_name: String,
    /// The device's name.
    pub device_display_name: String,
    /// Which rules are meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile_tag: Option<String>,
    /// The language of what is shown.
    pub lang: String,
    /// `url`, `format`, and whatever else the gateway is to get.
    #[serde(default)]
    pub data: Map<String, Value>,
    /// The device whose session set it: it goes with that.
    #[serde(default)]
    pub device_id: String,
    /// When the push key was set, seconds since the epoch.
    #[serde(default)]
    pub since: u64,
}

impl Pusher {
    /// The format its gateway wants: `event_id_only`, or all that can be told.
    #[must_use]
    pub fn wants_ids_only(&self) -> bool {
        self.data.get("format").and_then(Value::as_str) == Some("event_id_only")
    }
}

impl Users {
    /// A user's pushers.
    pub fn pushers(&self, user: UserNum) -> Result<Vec<Pusher>, Error> {
        self.graph.scan::<Pushers, _>(&(user,)).iter().map(|entry| pusher(entry?.1)).collect()
    }

    /// One of them.
    pub fn pusher(&self, user: UserNum, app_id: &str, pushkey: &str) -> Result<Option<Pusher>, Error> {
        self.graph.get::<Pushers>(&(user, app_id.to_owned(), pushkey.to_owned()))?.map(pusher).transpose()
    }

    /// Sets a pusher. Unless `append`, other users' pushers with its app id and push key go: the device is now this user's.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for one that is too large, [`Error::InvalidParam`] if the user has `most` already.
    pub async fn set_pusher(
        &self,
        user: UserNum,
        pusher: Pusher,
        append: bool,
        most: usize,
    ) -> Result<(), Error> {
        let value = to_value(&pusher)?;
        if value.to_string().len() > limits::PUSHER_BYTES {
            return Err(Error::TooLarge("the pusher is too large".to_owned()));
        }
        let _turn = self.account_turn.lock().await;
        let (app_id, pushkey) = (pusher.app_id, pusher.pushkey);
        let mut commit = self.graph.begin();
        if !append {
            for entry in self.graph.scan::<PusherKeys, _>(&(app_id.clone(), pushkey.clone())).iter() {
                let ((app_id, pushkey, other), ()) = entry?;
                if other != user {
                    clear_pusher(&mut commit, (other, app_id, pushkey));
                }
            }
        }
        let key = (user, app_id.clone(), pushkey.clone());
        let is_new = !self.graph.has::<Pushers>(&key)?;
        if is_new && self.graph.scan::<Pushers, _>(&(user,)).iter().take(most).count() == most {
            return Err(Error::InvalidParam(format!("an account has {most} pushers at most")));
        }
        commit.put::<Pushers>(&key, &Json(value));
        commit.put::<PusherKeys>(&(app_id, pushkey, user), &());
        self.graph.commit_durably(commit).await?;
        Ok(())
    }

    /// Removes a pusher, if it is there.
    pub async fn remove_pusher(&self, user: UserNum, app_id: &str, pushkey: &str) -> Result<(), Error> {
        let _turn = self.account_turn.lock().await;
        let mut commit = self.graph.begin();
        clear_pusher(&mut commit, (user, app_id.to_owned(), pushkey.to_owned()));
        self.graph.commit_durably(commit).await?;
        Ok(())
    }

    /// Adds the removal of the pushers that a device set to a commit: its session is over.
    pub(crate) fn clear_pushers(
        &self,
        commit: &mut Commit,
        user: UserNum,
        device: &str,
    ) -> Result<(), Error> {
        for pusher in self.pushers(user)?.into_iter().filter(|pusher| pusher.device_id == device) {
            clear_pusher(commit, (user, pusher.app_id, pusher.pushkey));
        }
        Ok(())
    }
}

/// Adds the removal of a pusher, and of what its gateway is due, to a commit.
fn clear_pusher(commit: &mut Commit, (user, app_id, pushkey): (UserNum, String, String)) {
    commit.delete::<PusherKeys>(&(app_id.clone(), pushkey.clone(), user));
    let key = (user, app_id, pushkey);
    commit.delete_all::<PushDue, _>(&key);
    commit.delete::<Pushers>(&key);
}

fn pusher(Json(value): Json<Value>) -> Result<Pusher, Error> {
    serde_json::from_value(value).map_err(|error| Error::Internal(error.to_string()))
}
