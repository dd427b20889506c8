//! Dehydrated devices (MSC3814): a device nobody is logged in with, whose keys wait encrypted on the server and whose
//! inbox collects room keys while the user is away everywhere. A later login takes both up.

use crate::{Device, Error, KeyUpload, Users, accounts::to_value, keys::raw, limits};
use postern_graph::{
    Seq, UserNum,
    codec::Json,
    schema::{Dehydrated, Devices},
};
use ruma::UserId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};

/// A user's dehydrated device.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DehydratedDevice {
    /// Its id.
    pub device_id: String,
    /// Its private keys, encrypted by the client.
    pub device_data: Map<String, Value>,
}

fn none() -> Error {
    Error::NotFound("there is no dehydrated device".to_owned())
}

impl Users {
    /// Stores a dehydrated device with its keys; one there was before is removed.
    ///
    /// # Errors
    /// [`Error::MissingParam`] without identity keys, [`Error::InvalidParam`] for an id of another device of the
    /// user and for what [`Users::upload_keys`] refuses; [`Error::TooLarge`].
    pub async fn dehydrate(
        &self,
        user_id: &UserId,
        user: UserNum,
        device: DehydratedDevice,
        display_name: Option<String>,
        keys: KeyUpload,
    ) -> Result<(), Error> {
        if keys.device_keys.is_none() {
            return Err(Error::MissingParam("device_keys is missing".to_owned()));
        }
        if device.device_id.is_empty() || device.device_id.len() > limits::DEVICE_ID_BYTES {
            return Err(Error::InvalidParam("a device id has between 1 and 512 bytes".to_owned()));
        }
        if raw(&device.device_data)?.0.len() > limits::DEHYDRATED_BYTES
            || display_name.as_ref().is_some_and(|name| name.len() > limits::DISPLAY_NAME_BYTES)
        {
            return Err(Error::TooLarge("the dehydrated device is too large".to_owned()));
        }
        let applied = self.apply_dehydrate(user_id, user, &device, display_name, keys)?;
        Ok(self.graph.durable_at(applied).await?)
    }

    fn apply_dehydrate(
        &self,
        user_id: &UserId,
        user: UserNum,
        device: &DehydratedDevice,
        display_name: Option<String>,
        keys: KeyUpload,
    ) -> Result<Seq, Error> {
        let _turn = self.turns.keys.lock();
        let mut commit = self.graph.begin();
        let before = self.stored_dehydrated(user)?.map(|before| before.device_id);
        if let Some(before) = &before {
            // It never logged in: there is no token to revoke.
            self.clear_device(&mut commit, user, before)?;
        }
        let place = (user, device.device_id.clone());
        if before.as_ref() != Some(&device.device_id) && self.graph.has::<Devices>(&place)? {
            return Err(Error::InvalidParam("another device of the user has this id".to_owned()));
        }
        let record = Device {
            device_id: device.device_id.clone(),
            display_name,
            last_seen_ip: None,
            last_seen_ts: None,
        };
        commit.put::<Devices>(&place, &Json(to_value(&record)?));
        commit.put::<Dehydrated>(&(user,), &Json(to_value(device)?));
        self.put_keys(&mut commit, user_id, user, &device.device_id, keys, true)?;
        Ok(self.graph.commit(commit)?)
    }

    fn stored_dehydrated(&self, user: UserNum) -> Result<Option<DehydratedDevice>, Error> {
        let Some(Json(value)) = self.graph.get::<Dehydrated>(&(user,))? else { return Ok(None) };
        serde_json::from_value(value).map(Some).map_err(|error| Error::Internal(error.to_string()))
    }

    /// A user's dehydrated device.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn dehydrated(&self, user: UserNum) -> Result<DehydratedDevice, Error> {
        self.stored_dehydrated(user)?.ok_or_else(none)
    }

    /// Removes a user's dehydrated device and returns its id.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn remove_dehydrated(&self, user: UserNum) -> Result<String, Error> {
        let device = self.dehydrated(user)?.device_id;
        self.remove_devices(user, std::slice::from_ref(&device)).await?;
        Ok(device)
    }

    /// The next messages of the dehydrated device's inbox after a position, and the position to go on from. They stay
    /// there until the device is removed: a client that fails to take the device up may start again.
    ///
    /// # Errors
    /// [`Error::NotFound`] if `device` is not the dehydrated device.
    pub fn dehydrated_messages(
        &self,
        user: UserNum,
        device: &str,
        after: Seq,
    ) -> Result<(Vec<Box<RawValue>>, Seq), Error> {
        if self.dehydrated(user)?.device_id != device {
            return Err(none());
        }
        let now = self.graph.durable();
        let (messages, cut) =
            self.to_device_since(user, device, after, now, limits::DEHYDRATED_MESSAGES_AT_ONCE)?;
        Ok((messages, cut.unwrap_or(now).max(after)))
    }
}
