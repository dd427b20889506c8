//! Keys of end-to-end encryption between servers (specification: end-to-end encryption): others ask for keys of local
//! users, local users for keys of others.

use crate::{
    Error, Federation, PeerError,
    devices::told_keys,
    origin::{Body, Origin},
};
use axum::{Json, Router, extract::State, routing::post};
use postern_graph::{Seq, UserNum};
use postern_users::{ClaimedKeys, KeyClaim, KeyQuery, QueriedKeys, RemoteKeys, check_amount};
use postern_web::{Answer, ApiError};
use ruma::{OwnedUserId, ServerName, UserId};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const QUERY: &str = "/_matrix/federation/v1/user/keys/query";
const CLAIM: &str = "/_matrix/federation/v1/user/keys/claim";

/// A one-time key in an answer, bytes: more is no key.
const KEY_BYTES: usize = 65_536;

pub fn routes() -> Router<Federation> {
    Router::new().route(QUERY, post(query)).route(CLAIM, post(claim))
}

#[derive(Debug, Deserialize)]
pub(crate) struct Query {
    device_keys: KeyQuery,
}

/// `POST /user/keys/query`. Of users here anybody's keys are told, as those of users one shares no room with have to be known
/// before one invites them to an encrypted room; the list of devices as such is not.
pub(crate) async fn query(
    State(federation): State<Federation>,
    Origin(origin): Origin,
    Body(request): Body<Query>,
) -> Answer {
    check_amount(request.device_keys.values().map(Vec::len))?;
    let mut found = QueriedKeys::default();
    tracing::debug!(%origin, users = request.device_keys.len(), "keys are asked for");
    for (user, devices) in &request.device_keys {
        if federation.0.users.is_active(user)? {
            told_keys(&federation, user)?.add_to(&mut found, user, devices);
        }
    }
    federation.0.graph.durable_at(federation.0.graph.applied()).await?;
    Ok(Json(json!({
        "device_keys": found.device_keys,
        "master_keys": found.master_keys,
        "self_signing_keys": found.self_signing_keys,
    })))
}

#[derive(Debug, Deserialize)]
struct Claim {
    one_time_keys: KeyClaim,
}

/// `POST /user/keys/claim`.
async fn claim(
    State(federation): State<Federation>,
    Origin(origin): Origin,
    Body(request): Body<Claim>,
) -> Answer {
    check_amount(request.one_time_keys.values().map(BTreeMap::len))?;
    let mut wanted = KeyClaim::new();
    for (user, devices) in request.one_time_keys {
        if federation.may_know_devices(&origin, &user)? {
            wanted.insert(user, devices);
        }
    }
    let claimed = federation.0.users.claim_keys(&wanted).await?;
    Ok(Json(json!({ "one_time_keys": claimed })))
}

/// What another server answers. Of each user what cannot be read is passed over, so that it spoils nothing else.
#[derive(Debug, Default, Deserialize)]
struct Queried {
    #[serde(default, deserialize_with = "or_nothing")]
    device_keys: BTreeMap<String, Value>,
    #[serde(default, deserialize_with = "or_nothing")]
    master_keys: BTreeMap<String, Value>,
    #[serde(default, deserialize_with = "or_nothing")]
    self_signing_keys: BTreeMap<String, Value>,
}

/// Reads `null` as an empty map: servers written in Go say it so.
fn or_nothing<'de, D: Deserializer<'de>>(value: D) -> Result<BTreeMap<String, Value>, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or_default())
}

fn queried(answer: Value) -> Result<Queried, Error> {
    serde_json::from_value(answer).map_err(|error| PeerError::BadAnswer(error.to_string()).into())
}

/// A user whose device list is followed from the answer on, and when it last changed before the question.
type Following = BTreeMap<OwnedUserId, (UserNum, Option<Seq>)>;

/// Asks a server for keys of its users, for those of whom no fresh copy is here. The body and the answer are those of
/// `POST /user/keys/query`; if the server cannot be asked and some keys are here, it is named under `failures`.
pub(crate) async fn query_keys(
    federation: &Federation,
    server: &ServerName,
    request: Value,
) -> Result<Value, ApiError> {
    let Query { device_keys: mut wanted } =
        serde_json::from_value(request).map_err(|error| ApiError::bad_json(error.to_string()))?;
    wanted.retain(|user, _| user.server_name() == server);
    let mut found = QueriedKeys::default();
    let (mut ask, mut following) = (KeyQuery::new(), Following::new());
    for (user, devices) in &wanted {
        match here(federation, &mut found, user, devices)? {
            Copy::Fresh => {}
            Copy::ToFollow(number, changed) => {
                // All devices, so that the answer can be kept.
                ask.insert(user.clone(), Vec::new());
                following.insert(user.clone(), (number, changed));
            }
            Copy::NotKept => {
                ask.insert(user.clone(), devices.clone());
            }
        }
    }
    let mut failures = json!({});
    if !ask.is_empty() {
        let answer = match federation.0.rooms.is_by_hand(server) {
            true => federation.brought_keys(server, ask.keys()).and_then(queried),
            false => federation
                .0
                .peers
                .post(server, QUERY, &json!({ "device_keys": ask }))
                .await
                .map_err(Error::from),
        };
        match answer {
            Ok(answer) => take(federation, &mut found, &wanted, ask, &following, answer)?,
            Err(error) if found.device_keys.is_empty() => return Err(error.into()),
            Err(error) => {
                let error = ApiError::from(error);
                failures[server.as_str()] = json!({ "errcode": error.errcode(), "error": error.message() });
            }
        }
    }
    Ok(json!({
        "device_keys": found.device_keys,
        "master_keys": found.master_keys,
        "self_signing_keys": found.self_signing_keys,
        "failures": failures,
    }))
}

/// What is here of a user's keys.
enum Copy {
    /// All, and it was added to the answer.
    Fresh,
    /// Nothing that may be used; what is answered is to be kept. With what `Users::follow_keys` has to know.
    ToFollow(UserNum, Option<Seq>),
    /// Nothing, and nothing is kept: the user's server tells this one of no changes.
    NotKept,
}

fn here(
    federation: &Federation,
    found: &mut QueriedKeys,
    user: &UserId,
    devices: &[String],
) -> Result<Copy, Error> {
    let users = &federation.0.users;
    let Some(number) = federation.met(user)? else { return Ok(Copy::NotKept) };
    if users.followed(number)?.is_some_and(|followed| followed.fresh) {
        users.find_copied_keys(found, user, number, devices)?;
        return Ok(Copy::Fresh);
    }
    Ok(Copy::ToFollow(number, users.last_device_change(number)?))
}

/// Takes what a server answered: of the users that were asked for, what can be their keys.
fn take(
    federation: &Federation,
    found: &mut QueriedKeys,
    wanted: &KeyQuery,
    asked: KeyQuery,
    following: &Following,
    mut answer: Queried,
) -> Result<(), Error> {
    for user in asked.into_keys() {
        // Whoever is not in the answer has nothing to be kept: perhaps the server does not know of the shared room yet.
        let Some(devices) = answer.device_keys.remove(user.as_str()) else { continue };
        let Ok(devices) = serde_json::from_value(devices) else { continue };
        let keys = RemoteKeys::checked(
            &user,
            devices,
            answer.master_keys.remove(user.as_str()),
            answer.self_signing_keys.remove(user.as_str()),
        );
        if let Some((number, changed)) = following.get(&user) {
            federation.0.users.follow_keys(*number, &keys, None, *changed)?;
            // Between the question and now the last shared room may have been left, which was then noticed in vain.
            if federation.met(&user)?.is_none() {
                federation.0.users.unfollow_keys(*number)?;
            }
        }
        keys.add_to(found, &user, wanted.get(&user).map_or(&[], Vec::as_slice));
    }
    Ok(())
}

#[derive(Debug, Deserialize)]
pub(crate) struct Claimed {
    #[serde(default, deserialize_with = "or_nothing")]
    pub(crate) one_time_keys: BTreeMap<String, Value>,
}

/// Claims keys of users of a server. The body and the answer are those of `POST /user/keys/claim`.
pub(crate) async fn claim_keys(
    federation: &Federation,
    server: &ServerName,
    request: Value,
) -> Result<Value, ApiError> {
    let Claim { one_time_keys: mut wanted } =
        serde_json::from_value(request).map_err(|error| ApiError::bad_json(error.to_string()))?;
    wanted.retain(|user, _| user.server_name() == server);
    let asked = json!({ "one_time_keys": wanted });
    let answer: Claimed = match wanted.is_empty() {
        true => Claimed { one_time_keys: BTreeMap::new() },
        false if federation.0.rooms.is_by_hand(server) => {
            Claimed { one_time_keys: federation.brought_one_time_keys(server, &wanted).await? }
        }
        false => federation.0.peers.post(server, CLAIM, &asked).await?,
    };
    Ok(json!({ "one_time_keys": claimed_of(wanted, answer) }))
}

/// Of an answer: for each device that was asked for one key, of the algorithm that was asked for.
fn claimed_of(wanted: KeyClaim, mut answer: Claimed) -> ClaimedKeys {
    let mut claimed = ClaimedKeys::new();
    for (user, devices) in wanted {
        let Some(mut answered) = answer.one_time_keys.remove(user.as_str()) else { continue };
        for (device, algorithm) in devices {
            let Some(Value::Object(keys)) = answered.get_mut(&device).map(Value::take) else { continue };
            let key = keys.into_iter().find(|(id, key)| {
                id.split_once(':').is_some_and(|(kind, name)| kind == algorithm && !name.is_empty())
                    && (key.is_string() || key.get("key").is_some_and(Value::is_string))
                    && key.to_string().len() <= KEY_BYTES
            });
            if let Some((id, key)) = key {
                let devices = claimed.entry(user.clone()).or_default();
                devices.insert(device, BTreeMap::from([(id, key)]));
            }
        }
    }
    claimed
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn of_claimed_keys_only_what_was_asked_for_is_taken() {
        let wanted: KeyClaim = serde_json::from_value(json!({
            "@alice:example.com": { "JLAFKJWSCS": "signed_curve25519", "OTHER": "signed_curve25519" },
            "@bob:example.com": { "BOB": "signed_curve25519" },
        }))
        .unwrap();
        let key = json!({ "key": "zKbLg+NrIjpnagy+pIY6uPL4ZwEG2v+8F9lmgsnlZzs", "signatures": {} });
        let answer: Claimed = serde_json::from_value(json!({ "one_time_keys": {
            "@alice:example.com": {
                "JLAFKJWSCS": { "curve25519:AAAAHg": "x", "signed_curve25519:AAAAHg": key, "signed_curve25519:B": key },
                "OTHER": { "signed_curve25519:AAAAHg": { "signatures": {} } },
                "STRANGE": { "signed_curve25519:AAAAHg": key },
            },
            "@bob:example.com": "none",
            "@carl:example.com": { "CARL": { "signed_curve25519:AAAAHg": key } },
        }}))
        .unwrap();
        assert_eq!(
            serde_json::to_value(claimed_of(wanted, answer)).unwrap(),
            json!({ "@alice:example.com": { "JLAFKJWSCS": { "signed_curve25519:AAAAHg": key } } })
        );
    }

    #[test]
    fn maps_that_are_null_are_empty() {
        let answer: Queried = serde_json::from_value(json!({
            "device_keys": { "@bob:other": { "PHONE": {} } },
            "master_keys": null,
        }))
        .unwrap();
        assert_eq!(answer.device_keys.len(), 1);
        assert!(answer.master_keys.is_empty() && answer.self_signing_keys.is_empty());
        let nothing = json!({ "device_keys": null, "self_signing_keys": null, "failures": null });
        assert!(queried(nothing).unwrap().device_keys.is_empty());
        let nothing = json!({ "one_time_keys": null, "failures": null });
        let claimed: Claimed = serde_json::from_value(nothing).unwrap();
        assert!(claimed.one_time_keys.is_empty());
    }
}
