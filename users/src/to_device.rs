//! Messages to devices (specification: send-to-device messaging).
//!
//! A message waits in its device's inbox until the device says, by syncing on from a later token, that it has it: it is
//! delivered at least once. An inbox is not cut short, because a lost message is a lost room key; it goes with its
//! device.
//!
//! Messages to devices of other servers are kept as what their servers will be sent, until federation takes them over
//! into the queues of these servers.

use crate::{Error, Users, keys::raw, limits, secrets::random_name, users::now_ms};
use postern_graph::{
    Commit, Seq, UserNum,
    codec::Raw,
    log::LogEntry,
    schema::{Devices, RemoteToDevice, SeenMessageOrder, SeenMessages, ToDevice, Transactions},
};
use ruma::{CanonicalJsonValue, OwnedUserId, ServerName, UserId};
use serde::Serialize;
use serde_json::{Value, json, value::RawValue};
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

/// A message another server sends to devices of this one (specification: `m.direct_to_device`).
#[derive(Debug, Clone, Default)]
pub struct RemoteMessage {
    /// Who sends it, as the other server says.
    pub sender: String,
    /// The message's type.
    pub event_type: String,
    /// What the other server repeats if it got no answer.
    pub message_id: String,
    /// The contents: by user, and device or `*`.
    pub messages: BTreeMap<String, BTreeMap<String, Value>>,
}

/// The characters of a message id: 150 random bits.
const MESSAGE_ID: usize = 32;

/// What one user of another server is sent: contents by device.
type RemoteContents<'a> = BTreeMap<&'a UserId, &'a BTreeMap<String, Box<RawValue>>>;

impl Users {
    /// Sends messages of a type to devices; local users and devices that are unknown are passed over. With a
    /// transaction, a repetition sends nothing, also after a restart. What is for devices of other servers lies in
    /// `schema::RemoteToDevice` from the same commit on.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for a message over [`limits::TO_DEVICE_MESSAGE_BYTES`] or more than
    /// [`limits::DEVICES_PER_KEY_REQUEST`] devices; [`Error::InvalidParam`] for a message to another server that is no
    /// canonical JSON, which servers cannot send each other.
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
        let mut remote: BTreeMap<&ServerName, RemoteContents<'_>> = BTreeMap::new();
        for (user_id, contents) in messages {
            if user_id.server_name() != self.server_name() {
                count += contents.len();
                remote.entry(user_id.server_name()).or_default().insert(user_id, contents);
                continue;
            }
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
        if count > limits::DEVICES_PER_KEY_REQUEST {
            return Err(Error::TooLarge("a message to too many devices".to_owned()));
        }
        for (server, users) in remote {
            for content in direct_to_device(sender, event_type, &users)? {
                let id = content.message_id.clone();
                commit.put::<RemoteToDevice>(&(seq, server.to_string(), id), &raw(&content)?);
            }
        }
        Ok(self.graph.commit(commit)?)
    }

    /// Takes a message another server sends to devices of this one. One that came before is not delivered again; on
    /// return it is durable. Users and devices that are unknown, and contents that are too large, are passed over.
    pub async fn receive_to_device(&self, origin: &ServerName, message: &RemoteMessage) -> Result<(), Error> {
        let applied = self.apply_received(origin, message)?;
        Ok(self.graph.durable_at(applied).await?)
    }

    fn apply_received(&self, origin: &ServerName, message: &RemoteMessage) -> Result<Seq, Error> {
        let RemoteMessage { sender, event_type, message_id, messages } = message;
        if message_id.is_empty() || message_id.len() > limits::MESSAGE_ID_BYTES {
            tracing::warn!(%origin, "a message to devices has no usable id; it is dropped");
            return Ok(self.graph.applied());
        }
        let _turn = self.turns.to_device.lock();
        let mut commit = self.graph.begin();
        let seq = commit.take_seq();
        if !self.remember(&mut commit, origin, message_id)? {
            return Ok(self.graph.applied());
        }
        let mut count = 0;
        for (user_id, contents) in messages {
            let Ok(user_id) = <&UserId>::try_from(user_id.as_str()) else { continue };
            let Some(user) = self.local_number(user_id)? else { continue };
            for (device, content) in self.addressed(user, contents)? {
                count += 1;
                if count > limits::DEVICES_PER_KEY_REQUEST {
                    tracing::warn!(%origin, "a message is for too many devices; some do not get it");
                    return Ok(self.graph.commit(commit)?);
                }
                let message = raw(&json!({ "sender": sender, "type": event_type, "content": content }))?;
                match put_message(&mut commit, user, &device, seq, message) {
                    Err(Error::TooLarge(why)) => tracing::warn!(%origin, why, "a message is dropped"),
                    other => other?,
                }
            }
        }
        Ok(self.graph.commit(commit)?)
    }

    /// Notes the id of a message of another server, and forgets the oldest. False if it was noted before.
    fn remember(&self, commit: &mut Commit, origin: &ServerName, id: &str) -> Result<bool, Error> {
        let server = origin.as_str().to_owned();
        if self.graph.has::<SeenMessages>(&(server.clone(), id.to_owned()))? {
            return Ok(false);
        }
        let last = self.graph.scan::<SeenMessageOrder, _>(&(server.clone(),)).reverse().first()?;
        let number = last.map_or(0, |((_, number), _)| number + 1);
        commit.put::<SeenMessages>(&(server.clone(), id.to_owned()), &number);
        commit.put::<SeenMessageOrder>(&(server.clone(), number), &id.to_owned());
        if let Some(oldest) = number.checked_sub(limits::MESSAGE_IDS_REMEMBERED)
            && let Some(id) = self.graph.get::<SeenMessageOrder>(&(server.clone(), oldest))?
        {
            commit.delete::<SeenMessages>(&(server.clone(), id));
            commit.delete::<SeenMessageOrder>(&(server, oldest));
        }
        Ok(true)
    }

    /// The devices of a user that are addressed, with their content; one's own goes before the one for all.
    fn addressed<'a, C>(
        &self,
        user: UserNum,
        contents: &'a BTreeMap<String, C>,
    ) -> Result<BTreeMap<String, &'a C>, Error> {
        let mut addressed = BTreeMap::new();
        if let Some(content) = contents.get(ALL_DEVICES) {
            for device in self.devices(user)? {
                addressed.insert(device.device_id, content);
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

/// The content of an `m.direct_to_device`.
#[derive(Debug, Serialize)]
struct DirectToDevice<'a> {
    sender: &'a UserId,
    r#type: &'a str,
    message_id: String,
    messages: BTreeMap<&'a UserId, BTreeMap<&'a str, &'a RawValue>>,
}

/// What a server is sent for these recipients: as many as it takes for none to be larger than it may be.
fn direct_to_device<'a>(
    sender: &'a UserId,
    event_type: &'a str,
    users: &RemoteContents<'a>,
) -> Result<Vec<DirectToDevice<'a>>, Error> {
    let begin = || DirectToDevice {
        sender,
        r#type: event_type,
        message_id: random_name(MESSAGE_ID),
        messages: BTreeMap::new(),
    };
    let mut contents = Vec::new();
    let (mut content, mut size) = (begin(), 0);
    for (user, devices) in users {
        for (device, message) in *devices {
            let length = message.get().len();
            if length > limits::TO_DEVICE_MESSAGE_BYTES {
                return Err(Error::TooLarge("a message to a device is too large".to_owned()));
            }
            serde_json::from_str::<CanonicalJsonValue>(message.get()).map_err(|error| {
                Error::InvalidParam(format!("a message to another server is no canonical JSON: {error}"))
            })?;
            let length = length + user.as_str().len() + device.len();
            if size > 0 && size + length > limits::REMOTE_MESSAGES_BYTES {
                contents.push(std::mem::replace(&mut content, begin()));
                size = 0;
            }
            size += length;
            content.messages.entry(user).or_default().insert(device, message);
        }
    }
    if size > 0 {
        contents.push(content);
    }
    Ok(contents)
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
