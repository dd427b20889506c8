//! Messages to devices (specification: send-to-device messaging).
//!
//! A message waits in its device's inbox until the device says, by syncing on from a later token, that it has it: it is
//! delivered at least once. An inbox is not cut short, because a lost message is a lost room key; it goes with its
//! device.

use crate::{Error, Users, keys::raw, limits, users::now_ms};
use postern_graph::{
    Commit, Seq, UserNum,
    codec::Raw,
    log::LogEntry,
    schema::{Devices, ToDevice, Transactions},
};
use ruma::{OwnedUserId, UserId};
use serde_json::{json, value::RawValue};
use std::collections::BTreeMap;

/// The contents to send: by user, and device or `*` for all devices of the user.
pub type DeviceMessages = BTreeMap<OwnedUserId, BTreeMap<String, Box<RawValue>>>;

/// Stands for all devices of a user.
const ALL_DEVICES: &str = "*";

/// The transaction a client sends messages with: what it repeats when it got no answer.
#[derive(Debug, Clone, Copy)]
pub struct ToDeviceTxn<'a> {
    /// Whose.
    pub user: UserNum,
    /// The device that chose it.
    pub device: &'a str,
    /// What it chose.
    pub id: &'a str,
}

impl Users {
    /// Sends messages of a type to devices of local users; users and devices that are unknown are passed over. With a
    /// transaction, a repetition sends nothing, also after a restart.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for a message over [`limits::TO_DEVICE_MESSAGE_BYTES`] or more than
    /// [`limits::DEVICES_PER_KEY_REQUEST`] devices.
    pub async fn send_to_device(
        &self,
        sender: &UserId,
        event_type: &str,
        messages: &DeviceMessages,
        txn: Option<ToDeviceTxn<'_>>,
    ) -> Result<(), Error> {
        let applied = self.apply_to_device(sender, event_type, messages, txn)?;
        Ok(self.graph.durable_at(applied).await?)
    }

    fn apply_to_device(
        &self,
        sender: &UserId,
        event_type: &str,
        messages: &DeviceMessages,
        txn: Option<ToDeviceTxn<'_>>,
    ) -> Result<Seq, Error> {
        let _turn = self.turns.to_device.lock();
        let mut commit = self.graph.begin();
        // A device gets one message of a transaction at most, so all can stand at the same place.
        let seq = commit.take_seq();
        if let Some(txn) = txn {
            let scope = format!("to_device {} {event_type} {}", event_type.len(), txn.id);
            let key = (txn.user, txn.device.to_owned(), scope);
            if self.graph.has::<Transactions>(&key)? {
                return Ok(self.graph.applied());
            }
            commit.put::<Transactions>(&key, &(now_ms(), Raw::default()));
        }
        let mut count = 0;
        for (user_id, contents) in messages {
            let Some(user) = self.local_number(user_id)? else { continue };
            for (device, content) in self.addressed(user, contents)? {
                count += 1;
                if count > limits::DEVICES_PER_KEY_REQUEST {
                    return Err(Error::TooLarge("a message to too many devices".to_owned()));
                }
                let message = raw(&json!({ "sender": sender, "type": event_type, "content": content }))?;
                put_message(&mut commit, user, &device, seq, message)?;
            }
        }
        Ok(self.graph.commit(commit)?)
    }

    /// The devices of a user that are addressed, with their content; one's own goes before the one for all.
    fn addressed<'a>(
        &self,
        user: UserNum,
        contents: &'a BTreeMap<String, Box<RawValue>>,
    ) -> Result<BTreeMap<String, &'a RawValue>, Error> {
        let mut addressed = BTreeMap::new();
        if let Some(content) = contents.get(ALL_DEVICES) {
            for device in self.devices(user)? {
                addressed.insert(device.device_id, &**content);
            }
        }
        for (device, content) in contents {
            if device != ALL_DEVICES && self.graph.has::<Devices>(&(user, device.clone()))? {
                addressed.insert(device.clone(), content);
            }
        }
        Ok(addressed)
    }

    /// The messages in a device's inbox that arrived in `(after, up_to]`, at most `limit`, in order. If there are
    /// more, where the returned ones end: the next read goes on after it.
    pub fn to_device_since(
        &self,
        user: UserNum,
        device: &str,
        after: Seq,
        up_to: Seq,
        limit: usize,
    ) -> Result<(Vec<Box<RawValue>>, Option<Seq>), Error> {
        let inbox = (user, device.to_owned());
        let mut messages = Vec::new();
        let mut last = after;
        let range = self.graph.scan::<ToDevice, _>(&inbox);
        for entry in
            range.after(&(user, inbox.1.clone(), after)).up_to(&(user, inbox.1.clone(), up_to)).iter()
        {
            let ((_, _, seq), Raw(text)) = entry?;
            if messages.len() >= limit {
                return Ok((messages, Some(last)));
            }
            let message = String::from_utf8(text).map_err(|error| error.to_string());
            let message =
                message.and_then(|text| RawValue::from_string(text).map_err(|error| error.to_string()));
            messages.push(message.map_err(|error| Error::Internal(format!("a stored message: {error}")))?);
            last = seq;
        }
        Ok((messages, None))
    }

    /// Removes the messages up to and at `up_to` from a device's inbox: the device has them. Not waited for: if it is
    /// lost in a crash, the device is told again.
    pub fn to_device_acknowledge(&self, user: UserNum, device: &str, up_to: Seq) -> Result<(), Error> {
        let inbox = (user, device.to_owned());
        loop {
            let mut commit = self.graph.begin();
            let mut count = 0;
            let range = self.graph.scan::<ToDevice, _>(&inbox).up_to(&(user, inbox.1.clone(), up_to));
            for entry in range.iter().take(limits::TO_DEVICE_REMOVED_AT_ONCE) {
                commit.delete::<ToDevice>(&entry?.0);
                count += 1;
            }
            if count > 0 {
                self.graph.commit(commit)?;
            }
            if count < limits::TO_DEVICE_REMOVED_AT_ONCE {
                return Ok(());
            }
        }
    }
}

fn put_message(
    commit: &mut Commit,
    user: UserNum,
    device: &str,
    seq: Seq,
    message: Raw,
) -> Result<(), Error> {
    if message.0.len() > limits::TO_DEVICE_MESSAGE_BYTES {
        return Err(Error::TooLarge("a message to a device is too large".to_owned()));
    }
    commit.put::<ToDevice>(&(user, device.to_owned(), seq), &message);
    commit.log(LogEntry::ToDevice { user, device: device.to_owned() });
    Ok(())
}
