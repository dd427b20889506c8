//! Copies of device lists of other servers, and messages to and from their devices.
#![allow(clippy::unwrap_used)]

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use postern_graph::{
    Graph, NameKind, Seq, Settings as Store, UserNum,
    codec::Raw,
    schema::{RemoteToDevice, SeenMessageOrder, SeenMessages},
};
use postern_users::{
    Cost, DeviceUpdate, Error, NewAccount, QueriedKeys, RemoteKeys, RemoteMessage, Settings, Updated, Users,
    limits,
};
use ruma::{
    OwnedUserId, UserId,
    canonical_json::try_from_json_map,
    server_name,
    signatures::{Ed25519KeyPair, sign_json},
    user_id,
};
use serde_json::{Map, Value, json, value::to_raw_value};
use std::{collections::BTreeMap, sync::Arc};

fn bob() -> &'static UserId {
    user_id!("@bob:other")
}

struct Server {
    users: Users,
    graph: Arc<Graph>,
    bob: UserNum,
    _dir: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let graph = Graph::open(&Store { path: dir.path().join("db"), block_cache: 8 << 20 }).unwrap();
        let cost = Cost { memory_kib: 8, iterations: 1, parallelism: 1 };
        let settings = Settings { password_cost: cost, access_token_ms: 60_000 };
        let users = Users::new(graph.clone(), server_name!("h"), settings);
        let mut commit = graph.begin();
        let bob = UserNum(graph.intern(NameKind::User, bob().as_str(), &mut commit).unwrap());
        graph.commit(commit).unwrap();
        Self { users, graph, bob, _dir: dir }
    }

    fn follow(&self, keys: &RemoteKeys, stream_id: Option<u64>) -> bool {
        let last = self.users.last_device_change(self.bob).unwrap();
        self.users.follow_keys(self.bob, keys, stream_id, last).unwrap().is_some()
    }

    fn copy(&self) -> QueriedKeys {
        let mut found = QueriedKeys::default();
        self.users.find_copied_keys(&mut found, bob(), self.bob, &[]).unwrap();
        found
    }

    fn devices(&self) -> Vec<String> {
        self.copy().device_keys[bob()].keys().cloned().collect()
    }

    fn updated(&self, device: &str, stream_id: u64, prev_id: &[u64]) -> Updated {
        let update = DeviceUpdate {
            device_id: device.to_owned(),
            stream_id,
            prev_id: prev_id.to_vec(),
            keys: Some(device_keys(device)),
            ..DeviceUpdate::default()
        };
        self.users.update_device(bob(), self.bob, update).unwrap().0
    }

    fn fresh(&self) -> Option<bool> {
        self.users.followed(self.bob).unwrap().map(|followed| followed.fresh)
    }
}

fn device_keys(device: &str) -> Value {
    json!({
        "user_id": bob(), "device_id": device, "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
        "keys": { format!("ed25519:{device}"): "key" }, "signatures": {},
    })
}

fn keys(devices: &[&str]) -> RemoteKeys {
    let devices = devices.iter().map(|device| ((*device).to_owned(), device_keys(device)));
    RemoteKeys::checked(bob(), devices.collect(), None, None)
}

struct Pair(Vec<u8>);

impl Pair {
    fn new() -> Self {
        Self(Ed25519KeyPair::generate().to_vec())
    }

    fn public(&self) -> String {
        let pair = Ed25519KeyPair::from_der(&self.0, String::new()).unwrap();
        STANDARD_NO_PAD.encode(pair.public_key())
    }

    fn key(&self, usage: &str) -> Map<String, Value> {
        let public = self.public();
        let key =
            json!({ "user_id": bob(), "usage": [usage], "keys": { format!("ed25519:{public}"): public } });
        serde_json::from_value(key).unwrap()
    }

    fn signed(&self, key: Map<String, Value>) -> Value {
        let pair = Ed25519KeyPair::from_der(&self.0, self.public()).unwrap();
        let mut key = try_from_json_map(key).unwrap();
        sign_json(bob().as_str(), &pair, &mut key).unwrap();
        serde_json::to_value(key).unwrap()
    }
}

#[test]
fn a_copy_takes_updates_in_sequence_also_a_little_out_of_order() {
    let server = Server::start();
    assert_eq!(server.updated("A", 2, &[1]), Updated::NotFollowed);
    assert!(server.follow(&keys(&["A", "B"]), Some(5)));
    assert_eq!(server.updated("C", 6, &[5]), Updated::Applied);
    assert_eq!(server.updated("D", 7, &[5]), Updated::Applied);
    assert_eq!(server.updated("E", 8, &[6, 7]), Updated::Applied);
    assert_eq!(server.updated("E", 8, &[6, 7]), Updated::Known);
    assert_eq!(server.devices(), ["A", "B", "C", "D", "E"]);
    assert_eq!(server.updated("F", 10, &[9]), Updated::Stale);
    assert_eq!(server.updated("F", 11, &[8]), Updated::Stale);
    assert_eq!(server.fresh(), Some(false));
    assert!(server.follow(&keys(&["A", "F"]), Some(11)));
    assert_eq!((server.fresh(), server.devices()), (Some(true), vec!["A".to_owned(), "F".to_owned()]));
    assert_eq!(server.updated("G", 12, &[]), Updated::Stale, "what begins anew says nothing of the rest");
}

#[test]
fn an_answer_from_before_a_change_is_not_taken() {
    let server = Server::start();
    assert!(server.follow(&keys(&["A"]), Some(5)));
    let before = server.users.last_device_change(server.bob).unwrap();
    assert_eq!(server.updated("B", 6, &[5]), Updated::Applied);
    assert_eq!(server.users.follow_keys(server.bob, &keys(&["A"]), Some(5), before).unwrap(), None);
    assert_eq!(server.devices(), ["A", "B"]);
}

#[test]
fn a_copy_that_becomes_another_is_told_and_one_that_stays_the_same_is_not() {
    let server = Server::start();
    let change = || server.users.last_device_change(server.bob).unwrap();
    assert!(server.follow(&keys(&["A"]), None));
    assert_eq!(change(), None);
    server.users.doubt_keys(server.bob).unwrap();
    assert_eq!(server.fresh(), Some(false));
    assert!(server.follow(&keys(&["A"]), Some(1)));
    assert_eq!(change(), None);
    assert!(server.follow(&keys(&["B"]), Some(2)));
    assert!(change().is_some());
    server.users.unfollow_keys(server.bob).unwrap();
    assert_eq!((server.fresh(), server.devices().len()), (None, 0));
}

#[test]
fn invalid_keys_in_an_update_make_the_copy_doubtful() {
    let server = Server::start();
    assert!(server.follow(&keys(&["A"]), Some(5)));
    let update = DeviceUpdate {
        device_id: "B".to_owned(),
        stream_id: 6,
        prev_id: vec![5],
        keys: Some(device_keys("OTHER")),
        ..DeviceUpdate::default()
    };
    assert_eq!(server.users.update_device(bob(), server.bob, update).unwrap().0, Updated::Stale);
    assert_eq!(server.devices(), ["A"]);
}

#[test]
fn attack_12_signing_keys_are_taken_if_the_master_key_vouches_for_them() {
    let server = Server::start();
    let (master, own, forged) = (Pair::new(), Pair::new(), Pair::new());
    let master_key = Value::Object(master.key("master"));
    let own_key = master.signed(own.key("self_signing"));
    let update = |master: Option<&Value>, own: Option<&Value>| {
        let users = &server.users;
        users.update_signing_keys(bob(), server.bob, master.cloned(), own.cloned()).unwrap().0
    };
    assert_eq!(update(Some(&master_key), Some(&own_key)), Updated::NotFollowed);
    assert!(server.follow(&keys(&["A"]), Some(5)));
    assert_eq!(update(Some(&master_key), Some(&own_key)), Updated::Applied);
    let copy = server.copy();
    assert_eq!((&copy.master_keys[bob()], &copy.self_signing_keys[bob()]), (&master_key, &own_key));
    // A new master key alone: what the old one vouched for goes.
    let second = Value::Object(Pair::new().key("master"));
    assert_eq!(update(Some(&second), None), Updated::Applied);
    let copy = server.copy();
    assert_eq!((&copy.master_keys[bob()], copy.self_signing_keys.len()), (&second, 0));
    assert_eq!(update(None, Some(&forged.signed(own.key("self_signing")))), Updated::Stale);
    assert_eq!(server.fresh(), Some(false));
}

fn to(
    users: &[(&str, &str, Value)],
) -> BTreeMap<OwnedUserId, BTreeMap<String, Box<serde_json::value::RawValue>>> {
    let mut messages: BTreeMap<OwnedUserId, BTreeMap<_, _>> = BTreeMap::new();
    for (user, device, content) in users {
        let devices = messages.entry(UserId::parse(*user).unwrap()).or_default();
        devices.insert((*device).to_owned(), to_raw_value(content).unwrap());
    }
    messages
}

fn outgoing(server: &Server) -> Vec<(String, Value)> {
    let entries = server.graph.scan::<RemoteToDevice, _>(&()).iter().map(Result::unwrap);
    entries.map(|((_, name, _), Raw(text))| (name, serde_json::from_slice(&text).unwrap())).collect()
}

#[tokio::test]
async fn messages_for_other_servers_wait_for_each_server_in_pieces_of_bounded_size() {
    let server = Server::start();
    let long = "x".repeat(40_000);
    let messages = to(&[
        ("@bob:other", "A", json!({ "n": 1 })),
        ("@bob:other", "B", json!({ "long": long })),
        ("@carl:other", "*", json!({ "long": long })),
        ("@dora:third", "D", json!({ "n": 2 })),
    ]);
    server.users.send_to_device(user_id!("@alice:h"), "my.type", &messages, None).await.unwrap();
    let sent = outgoing(&server);
    let mut ids: Vec<&str> =
        sent.iter().map(|(_, content)| content["message_id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 3);
    let servers: Vec<&str> = sent.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(servers, ["other", "other", "third"]);
    assert_eq!(sent[2].1["messages"], json!({ "@dora:third": { "D": { "n": 2 } } }));
    let recipients: usize =
        sent.iter().map(|(_, content)| content["messages"].as_object().unwrap().len()).sum();
    assert_eq!(recipients, 3);
}

#[tokio::test]
async fn what_servers_cannot_send_each_other_is_refused_as_a_whole() {
    let server = Server::start();
    let messages = to(&[("@bob:other", "A", json!({ "n": 1 })), ("@dora:third", "D", json!({ "n": 1.5 }))]);
    let error = server.users.send_to_device(user_id!("@alice:h"), "t", &messages, None).await.unwrap_err();
    assert!(matches!(error, Error::InvalidParam(_)), "{error}");
    assert!(outgoing(&server).is_empty());
}

#[tokio::test]
async fn ids_of_messages_of_another_server_are_remembered_up_to_a_bound() {
    let server = Server::start();
    let alice = server
        .users
        .create_account(NewAccount { localpart: Some("alice".to_owned()), ..NewAccount::default() })
        .await
        .unwrap();
    server.users.log_in(&alice, Some("A"), None, false).await.unwrap();
    let message = |id: &str| RemoteMessage {
        sender: bob().to_string(),
        event_type: "t".to_owned(),
        message_id: id.to_owned(),
        messages: BTreeMap::from([(
            alice.to_string(),
            BTreeMap::from([
                ("A".to_owned(), json!({ "id": id })),
                ("*".to_owned(), json!("for the others")),
            ]),
        )]),
    };
    let other = server_name!("other");
    // As if almost as many as are remembered had come.
    let mut commit = server.graph.begin();
    for n in 0..2 {
        commit.put::<SeenMessages>(&("other".to_owned(), format!("old{n}")), &n);
        commit.put::<SeenMessageOrder>(&("other".to_owned(), n), &format!("old{n}"));
    }
    let last = limits::MESSAGE_IDS_REMEMBERED - 1;
    commit.put::<SeenMessageOrder>(&("other".to_owned(), last), &"last".to_owned());
    server.graph.commit(commit).unwrap();
    for id in ["one", "old1", "one", ""] {
        server.users.receive_to_device(other, &message(id)).await.unwrap();
    }
    server.users.receive_to_device(server_name!("third"), &message("one")).await.unwrap();
    let user = server.users.number(&alice).unwrap().unwrap();
    let (inbox, _) = server.users.to_device_since(user, "A", Seq::ZERO, server.graph.durable(), 100).unwrap();
    assert_eq!(inbox.len(), 2, "once from each server");
    assert!(inbox[0].get().contains(r#"{"id":"one"}"#));
    assert!(!server.graph.has::<SeenMessages>(&("other".to_owned(), "old0".to_owned())).unwrap());
    assert!(server.graph.has::<SeenMessages>(&("other".to_owned(), "old1".to_owned())).unwrap());
}
