//! Keys, messages to devices and key backups through the operations of `Users`.
#![allow(clippy::unwrap_used)]

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use postern_graph::{Graph, Seq, Settings as Store, UserNum, log::LogEntry};
use postern_users::{
    BackedUpKey, BackupScope, ClaimedKeys, Cost, CrossSigningUpload, DehydratedDevice, Error, KeyClaim,
    KeyQuery, KeyUpload, NewAccount, RoomKeys, Settings, SignatureUpload, ToDeviceTxn, Users,
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

struct Server {
    users: Arc<Users>,
    graph: Arc<Graph>,
    dir: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        Self::at(tempfile::tempdir().unwrap())
    }

    fn at(dir: tempfile::TempDir) -> Self {
        let graph = Graph::open(&Store { path: dir.path().join("db"), block_cache: 8 << 20 }).unwrap();
        let cost = Cost { memory_kib: 8, iterations: 1, parallelism: 1 };
        let settings = Settings { password_cost: cost, access_token_ms: 60_000 };
        let users = Arc::new(Users::new(graph.clone(), server_name!("h"), settings));
        Self { users, graph, dir }
    }

    fn restart(self) -> Self {
        let Self { users, graph, dir } = self;
        drop((users, graph));
        Self::at(dir)
    }

    /// An account with devices.
    async fn user(&self, name: &str, devices: &[&str]) -> (OwnedUserId, UserNum) {
        let new = NewAccount { localpart: Some(name.to_owned()), password: None, admin: false, guest: false };
        let id = self.users.create_account(new).await.unwrap();
        for device in devices {
            self.users.log_in(&id, Some(device), Some("phone"), false).await.unwrap();
        }
        let number = self.users.number(&id).unwrap().unwrap();
        (id, number)
    }

    fn query(&self, asker: Option<&UserId>, of: &UserId) -> Value {
        let wanted = KeyQuery::from([(of.to_owned(), Vec::new())]);
        serde_json::to_value(self.users.query_keys(asker, &wanted).unwrap()).unwrap()
    }

    async fn claim(&self, user: &UserId, device: &str) -> ClaimedKeys {
        let devices = BTreeMap::from([(device.to_owned(), "signed_curve25519".to_owned())]);
        self.users.claim_keys(&KeyClaim::from([(user.to_owned(), devices)])).await.unwrap()
    }
}

fn map(value: Value) -> Map<String, Value> {
    serde_json::from_value(value).unwrap()
}

fn device_keys(user: &UserId, device: &str, key: &str) -> Map<String, Value> {
    map(json!({
        "user_id": user, "device_id": device, "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
        "keys": { format!("ed25519:{device}"): key }, "signatures": {},
    }))
}

fn only_device_keys(keys: Map<String, Value>) -> KeyUpload {
    KeyUpload { device_keys: Some(keys), ..KeyUpload::default() }
}

fn one_time(ids: &[&str]) -> KeyUpload {
    let keys =
        ids.iter().map(|id| (format!("signed_curve25519:{id}"), json!({ "key": format!("key {id}") })));
    KeyUpload { one_time_keys: keys.collect(), ..KeyUpload::default() }
}

fn fallback(id: &str) -> KeyUpload {
    let key = (format!("signed_curve25519:{id}"), json!({ "key": id, "fallback": true }));
    KeyUpload { fallback_keys: BTreeMap::from([key]), ..KeyUpload::default() }
}

fn claimed_id(claimed: &ClaimedKeys) -> Option<String> {
    claimed.values().next()?.values().next()?.keys().next().cloned()
}

/// A key pair: its public half, and what signs with it.
struct Pair {
    public: String,
    der: Vec<u8>,
}

impl Pair {
    fn new() -> Self {
        let der = Ed25519KeyPair::generate().to_vec();
        let public = Ed25519KeyPair::from_der(&der, String::new()).unwrap().public_key().to_vec();
        Self { public: STANDARD_NO_PAD.encode(public), der }
    }

    /// Adds a signature under `ed25519:<name>`.
    fn sign(&self, object: Map<String, Value>, signer: &UserId, name: &str) -> Map<String, Value> {
        let pair = Ed25519KeyPair::from_der(&self.der, name.to_owned()).unwrap();
        let mut object = try_from_json_map(object).unwrap();
        sign_json(signer.as_str(), &pair, &mut object).unwrap();
        map(serde_json::to_value(object).unwrap())
    }

    fn cross_signing(&self, user: &UserId, usage: &str) -> Map<String, Value> {
        let id = format!("ed25519:{}", self.public);
        map(json!({ "user_id": user, "usage": [usage], "keys": { id: self.public } }))
    }
}

/// The three keys of a user, the master key first.
struct Identity {
    master: Pair,
    own: Pair,
    others: Pair,
}

impl Identity {
    fn new() -> Self {
        Self { master: Pair::new(), own: Pair::new(), others: Pair::new() }
    }

    fn upload(&self, user: &UserId) -> CrossSigningUpload {
        let signed = |pair: &Pair, usage| {
            Some(self.master.sign(pair.cross_signing(user, usage), user, &self.master.public))
        };
        CrossSigningUpload {
            master_key: Some(self.master.cross_signing(user, "master")),
            self_signing_key: signed(&self.own, "self_signing"),
            user_signing_key: signed(&self.others, "user_signing"),
        }
    }
}

// ---- keys of devices -----------------------------------------------------------------------------------------

#[tokio::test]
async fn device_keys_are_returned_as_uploaded_with_the_name_of_the_device() {
    let server = Server::start();
    let (alice, a) = server.user("alice", &["A", "B"]).await;
    let keys = device_keys(&alice, "A", "key");
    server.users.upload_keys(&alice, a, "A", only_device_keys(keys.clone())).await.unwrap();
    let mut shown = keys;
    shown.insert("unsigned".to_owned(), json!({ "device_display_name": "phone" }));
    assert_eq!(server.query(None, &alice)["device_keys"], json!({ "@alice:h": { "A": shown } }));
    let named = |device: &str| KeyQuery::from([(alice.clone(), vec![device.to_owned()])]);
    assert_eq!(server.users.query_keys(None, &named("A")).unwrap().device_keys[&alice].len(), 1);
    assert_eq!(server.users.query_keys(None, &named("B")).unwrap().device_keys[&alice].len(), 0);
}

#[tokio::test]
async fn an_unknown_user_is_left_out_and_one_without_keys_has_none() {
    let server = Server::start();
    let (alice, _) = server.user("alice", &["A"]).await;
    assert_eq!(server.query(None, user_id!("@nobody:h"))["device_keys"], json!({}));
    assert_eq!(server.query(None, user_id!("@alice:elsewhere"))["device_keys"], json!({}));
    assert_eq!(server.query(None, &alice)["device_keys"], json!({ "@alice:h": {} }));
}

#[tokio::test]
async fn keys_that_claim_another_user_or_device_are_refused() {
    let server = Server::start();
    let (alice, a) = server.user("alice", &["A"]).await;
    for keys in [device_keys(user_id!("@bob:h"), "A", "key"), device_keys(&alice, "B", "key")] {
        let refused = server.users.upload_keys(&alice, a, "A", only_device_keys(keys)).await;
        assert!(matches!(refused, Err(Error::InvalidParam(_))), "{refused:?}");
    }
    let gone = server.users.upload_keys(&alice, a, "GONE", one_time(&["1"])).await;
    assert!(matches!(gone, Err(Error::UnknownToken { .. })));
}

#[tokio::test]
async fn an_unchanged_upload_is_no_change() {
    let server = Server::start();
    let (alice, a) = server.user("alice", &["A"]).await;
    let upload = || only_device_keys(device_keys(&alice, "A", "key"));
    server.users.upload_keys(&alice, a, "A", upload()).await.unwrap();
    let then = server.users.last_device_change(a).unwrap();
    server.users.upload_keys(&alice, a, "A", upload()).await.unwrap();
    assert_eq!(server.users.last_device_change(a).unwrap(), then);
    let changed = only_device_keys(device_keys(&alice, "A", "another"));
    server.users.upload_keys(&alice, a, "A", changed).await.unwrap();
    assert!(server.users.last_device_change(a).unwrap() > then);
}

#[tokio::test]
async fn changes_are_found_between_two_tokens_each_user_once() {
    let server = Server::start();
    let (alice, a) = server.user("alice", &["A"]).await;
    let start = server.graph.durable();
    let (_, b) = server.user("bob", &["B", "C"]).await;
    let middle = server.graph.durable();
    let keys = only_device_keys(device_keys(&alice, "A", "key"));
    server.users.upload_keys(&alice, a, "A", keys).await.unwrap();
    let end = server.graph.durable();
    let between = |after, up_to| server.users.device_changes_between(after, up_to).unwrap();
    assert_eq!(between(start, middle), [b]);
    assert_eq!(between(middle, end), [a]);
    assert_eq!(between(end, end), []);
    assert_eq!(between(Seq::ZERO, end), [a, b]);
}

#[tokio::test]
async fn one_time_keys_are_given_out_once_in_the_order_of_upload_then_the_fallback_key() {
    let server = Server::start();
    let (alice, a) = server.user("alice", &["A"]).await;
    server.users.upload_keys(&alice, a, "A", one_time(&["1"])).await.unwrap();
    let counts = server.users.upload_keys(&alice, a, "A", one_time(&["0"])).await.unwrap();
    assert_eq!(counts["signed_curve25519"], 2);
    server.users.upload_keys(&alice, a, "A", fallback("f")).await.unwrap();
    let mut ids = Vec::new();
    for _ in 0..4 {
        assert_eq!(server.users.unused_fallback_key_types(a, "A").unwrap().len(), usize::from(ids.len() < 3));
        ids.push(claimed_id(&server.claim(&alice, "A").await).unwrap());
    }
    let names: Vec<_> = ids.iter().map(|id| id.strip_prefix("signed_curve25519:").unwrap()).collect();
    assert_eq!(names, ["1", "0", "f", "f"]);
    assert_eq!(server.users.key_counts(a, "A").unwrap()["signed_curve25519"], 0);
    server.users.upload_keys(&alice, a, "A", fallback("f")).await.unwrap();
    assert!(server.users.unused_fallback_key_types(a, "A").unwrap().is_empty(), "the same key stays used");
    server.users.upload_keys(&alice, a, "A", fallback("g")).await.unwrap();
    assert_eq!(server.users.unused_fallback_key_types(a, "A").unwrap(), ["signed_curve25519"]);
}

#[tokio::test]
async fn a_device_without_keys_is_missing_from_a_claim() {
    let server = Server::start();
    let (alice, _) = server.user("alice", &["A"]).await;
    assert!(server.claim(&alice, "A").await.is_empty());
    assert!(server.claim(user_id!("@nobody:h"), "A").await.is_empty());
}

#[tokio::test]
async fn the_same_one_time_keys_may_be_uploaded_again_but_no_other_under_their_id() {
    let server = Server::start();
    let (alice, a) = server.user("alice", &["A"]).await;
    server.users.upload_keys(&alice, a, "A", one_time(&["1", "2", "3"])).await.unwrap();
    let counts = server.users.upload_keys(&alice, a, "A", one_time(&["2", "3", "4"])).await.unwrap();
    assert_eq!(counts["signed_curve25519"], 4);
    let mut other = one_time(&["5"]);
    other.one_time_keys.insert("signed_curve25519:1".to_owned(), json!({ "key": "another" }));
    let refused = server.users.upload_keys(&alice, a, "A", other).await;
    assert!(matches!(refused, Err(Error::InvalidParam(_))));
    assert_eq!(server.users.key_counts(a, "A").unwrap()["signed_curve25519"], 4, "all or nothing");
    let mut nameless = KeyUpload::default();
    nameless.one_time_keys.insert("no-algorithm".to_owned(), json!("key"));
    assert!(server.users.upload_keys(&alice, a, "A", nameless).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_claims_never_get_the_same_key() {
    let server = Server::start();
    let (alice, a) = server.user("alice", &["A"]).await;
    let names: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    server.users.upload_keys(&alice, a, "A", one_time(&names)).await.unwrap();
    let claims: Vec<_> = (0..50)
        .map(|_| {
            let (users, alice) = (server.users.clone(), alice.clone());
            tokio::spawn(async move {
                let devices = BTreeMap::from([("A".to_owned(), "signed_curve25519".to_owned())]);
                users.claim_keys(&KeyClaim::from([(alice, devices)])).await.unwrap()
            })
        })
        .collect();
    let mut given = Vec::new();
    for claim in claims {
        given.extend(claimed_id(&claim.await.unwrap()));
    }
    given.sort();
    given.dedup();
    assert_eq!(given.len(), 40);
}

#[tokio::test]
async fn a_removed_device_leaves_no_keys_and_no_messages() {
    let server = Server::start();
    let (alice, a) = server.user("alice", &["A", "B"]).await;
    let mut upload = one_time(&["1"]);
    upload.device_keys = Some(device_keys(&alice, "A", "key"));
    upload.fallback_keys = fallback("f").fallback_keys;
    server.users.upload_keys(&alice, a, "A", upload).await.unwrap();
    server.users.remove_devices(a, &["A".to_owned()]).await.unwrap();
    assert_eq!(server.query(None, &alice)["device_keys"], json!({ "@alice:h": {} }));
    assert!(server.claim(&alice, "A").await.is_empty());
}

// ---- keys of users -------------------------------------------------------------------------------------------

#[tokio::test]
async fn first_cross_signing_keys_and_the_same_again_need_no_confirmation_but_new_ones_do() {
    let server = Server::start();
    let (alice, a) = server.user("alice", &["A"]).await;
    let (identity, other) = (Identity::new(), Identity::new());
    let put = async |identity: &Identity, confirmed| {
        server.users.upload_cross_signing(&alice, a, identity.upload(&alice), confirmed).await.unwrap()
    };
    assert!(put(&identity, false).await);
    let then = server.users.last_device_change(a).unwrap();
    assert!(put(&identity, false).await);
    assert_eq!(server.users.last_device_change(a).unwrap(), then, "the same again is no change");
    assert!(!put(&other, false).await);
    let shown = || server.query(Some(&alice), &alice)["master_keys"]["@alice:h"]["keys"].clone();
    assert!(shown().get(format!("ed25519:{}", identity.master.public)).is_some());
    assert!(put(&other, true).await);
    assert!(shown().get(format!("ed25519:{}", other.master.public)).is_some());
}

#[tokio::test]
async fn a_new_master_key_alone_takes_the_keys_of_the_old_one_away() {
    let server = Server::start();
    let (alice, a) = server.user("alice", &["A"]).await;
    server.users.upload_cross_signing(&alice, a, Identity::new().upload(&alice), false).await.unwrap();
    let master_key = Some(Pair::new().cross_signing(&alice, "master"));
    let upload = CrossSigningUpload { master_key, ..CrossSigningUpload::default() };
    assert!(server.users.upload_cross_signing(&alice, a, upload, true).await.unwrap());
    assert_eq!(server.query(Some(&alice), &alice)["self_signing_keys"], json!({}));
}

#[tokio::test]
async fn cross_signing_keys_have_to_be_signed_by_the_master_key() {
    let server = Server::start();
    let (alice, a) = server.user("alice", &["A"]).await;
    let identity = Identity::new();
    let mut unsigned = identity.upload(&alice);
    unsigned.self_signing_key = Some(identity.own.cross_signing(&alice, "self_signing"));
    let refused = server.users.upload_cross_signing(&alice, a, unsigned, false).await;
    assert!(matches!(refused, Err(Error::InvalidSignature(_))), "{refused:?}");
    let without = CrossSigningUpload { master_key: None, ..identity.upload(&alice) };
    let refused = server.users.upload_cross_signing(&alice, a, without, false).await;
    assert!(matches!(refused, Err(Error::MissingParam(_))), "{refused:?}");
    let master_key = Some(identity.master.cross_signing(user_id!("@bob:h"), "master"));
    let foreign = CrossSigningUpload { master_key, ..CrossSigningUpload::default() };
    let refused = server.users.upload_cross_signing(&alice, a, foreign, false).await;
    assert!(matches!(refused, Err(Error::InvalidParam(_))), "{refused:?}");
}

#[tokio::test]
async fn a_user_signing_key_is_shown_to_its_owner_only() {
    let server = Server::start();
    let (alice, a) = server.user("alice", &["A"]).await;
    let (bob, _) = server.user("bob", &["B"]).await;
    server.users.upload_cross_signing(&alice, a, Identity::new().upload(&alice), false).await.unwrap();
    let own = server.query(Some(&alice), &alice);
    assert!(own["user_signing_keys"].get("@alice:h").is_some());
    for asker in [Some(&*bob), None] {
        let seen = server.query(asker, &alice);
        assert_eq!(seen["user_signing_keys"], json!({}));
        assert!(seen["master_keys"].get("@alice:h").is_some());
        assert!(seen["self_signing_keys"].get("@alice:h").is_some());
    }
}

#[tokio::test]
async fn signatures_of_devices_and_users_are_merged_for_those_who_may_see_them() {
    let server = Server::start();
    let (alice, a) = server.user("alice", &["A"]).await;
    let (bob, b) = server.user("bob", &["B"]).await;
    let (carol, _) = server.user("carol", &["C"]).await;
    let (of_alice, of_bob, device) = (Identity::new(), Identity::new(), Pair::new());
    server.users.upload_cross_signing(&alice, a, of_alice.upload(&alice), false).await.unwrap();
    server.users.upload_cross_signing(&bob, b, of_bob.upload(&bob), false).await.unwrap();
    let keys = device_keys(&alice, "A", &device.public);
    server.users.upload_keys(&alice, a, "A", only_device_keys(keys.clone())).await.unwrap();

    let signed_device = of_alice.own.sign(keys, &alice, &of_alice.own.public);
    let master = of_alice.master.cross_signing(&alice, "master");
    let signed_master = device.sign(master, &alice, "A");
    let bobs_master = of_bob.master.cross_signing(&bob, "master");
    let signed_bob = of_alice.others.sign(bobs_master, &alice, &of_alice.others.public);
    let upload = SignatureUpload::from([
        (
            alice.clone(),
            BTreeMap::from([
                ("A".to_owned(), json!(signed_device)),
                (of_alice.master.public.clone(), json!(signed_master)),
            ]),
        ),
        (bob.clone(), BTreeMap::from([(of_bob.master.public.clone(), json!(signed_bob))])),
    ]);
    let failures = server.users.upload_signatures(&alice, a, &upload).await.unwrap();
    assert!(failures.is_empty(), "{failures:?}");

    let seen = server.query(Some(&carol), &alice);
    let by_alice = &seen["device_keys"]["@alice:h"]["A"]["signatures"]["@alice:h"];
    assert!(by_alice.get(format!("ed25519:{}", of_alice.own.public)).is_some(), "{seen}");
    assert!(seen["master_keys"]["@alice:h"]["signatures"]["@alice:h"].get("ed25519:A").is_some());
    let of_bob_by_alice = |asker: &UserId| {
        server.query(Some(asker), &bob)["master_keys"]["@bob:h"]["signatures"].get("@alice:h").is_some()
    };
    assert!(of_bob_by_alice(&alice));
    assert!(!of_bob_by_alice(&carol));
    assert!(!of_bob_by_alice(&bob));
}

#[tokio::test]
async fn attack_12_a_wrong_signature_fails_alone() {
    let server = Server::start();
    let (alice, a) = server.user("alice", &["A", "B"]).await;
    let identity = Identity::new();
    server.users.upload_cross_signing(&alice, a, identity.upload(&alice), false).await.unwrap();
    let mut signed = BTreeMap::new();
    for device in ["A", "B"] {
        let keys = device_keys(&alice, device, "key");
        server.users.upload_keys(&alice, a, device, only_device_keys(keys.clone())).await.unwrap();
        // The second is signed by a key that is not the self-signing key, though named like it.
        let by = if device == "A" { &identity.own } else { &identity.others };
        signed.insert(device.to_owned(), json!(by.sign(keys, &alice, &identity.own.public)));
    }
    signed.insert("GONE".to_owned(), json!({}));
    let upload = SignatureUpload::from([(alice.clone(), signed)]);
    let failures = server.users.upload_signatures(&alice, a, &upload).await.unwrap();
    assert_eq!(failures[&alice].len(), 2);
    assert!(matches!(failures[&alice]["B"], Error::InvalidSignature(_)));
    assert!(matches!(failures[&alice]["GONE"], Error::NotFound(_)));
    let seen = server.query(None, &alice)["device_keys"]["@alice:h"].clone();
    assert!(seen["A"]["signatures"].get("@alice:h").is_some());
    assert!(seen["B"]["signatures"].get("@alice:h").is_none());
}

// ---- messages to devices -------------------------------------------------------------------------------------

async fn send(server: &Server, to: &UserId, device: &str, content: Value, txn: Option<ToDeviceTxn<'_>>) {
    let messages = BTreeMap::from([(
        to.to_owned(),
        BTreeMap::from([(device.to_owned(), to_raw_value(&content).unwrap())]),
    )]);
    server.users.send_to_device(user_id!("@alice:h"), "my.type", &messages, txn).await.unwrap();
}

fn inbox(server: &Server, user: UserNum, device: &str) -> Vec<Value> {
    let (messages, cut) =
        server.users.to_device_since(user, device, Seq::ZERO, server.graph.durable(), 100).unwrap();
    assert_eq!(cut, None);
    messages.iter().map(|message| serde_json::from_str(message.get()).unwrap()).collect()
}

#[tokio::test]
async fn a_message_reaches_the_devices_it_is_for_and_wakes_them() {
    let server = Server::start();
    let (bob, b) = server.user("bob", &["A", "B"]).await;
    let start = server.graph.durable();
    send(&server, &bob, "A", json!({ "n": 1 }), None).await;
    send(&server, &bob, "*", json!({ "n": 2 }), None).await;
    send(&server, &bob, "UNKNOWN", json!({ "n": 3 }), None).await;
    send(&server, user_id!("@nobody:h"), "*", json!({ "n": 4 }), None).await;
    let message = |n| json!({ "sender": "@alice:h", "type": "my.type", "content": { "n": n } });
    assert_eq!(inbox(&server, b, "A"), [message(1), message(2)]);
    assert_eq!(inbox(&server, b, "B"), [message(2)]);
    let log = server.graph.log_between(start, server.graph.durable()).unwrap();
    let told: Vec<_> = log.iter().flat_map(|(_, record)| &record.entries).collect();
    let entry = |device: &str| LogEntry::ToDevice { user: b, device: device.to_owned() };
    assert_eq!(told, [&entry("A"), &entry("A"), &entry("B")]);
}

#[tokio::test]
async fn a_repeated_transaction_sends_once_also_after_a_restart() {
    let server = Server::start();
    let (_, a) = server.user("alice", &["A"]).await;
    let (bob, b) = server.user("bob", &["B"]).await;
    let txn = Some(ToDeviceTxn { user: a, device: "A", id: "1" });
    send(&server, &bob, "B", json!({}), txn).await;
    send(&server, &bob, "B", json!({}), txn).await;
    let server = server.restart();
    send(&server, &bob, "B", json!({}), txn).await;
    assert_eq!(inbox(&server, b, "B").len(), 1);
    send(&server, &bob, "B", json!({}), Some(ToDeviceTxn { user: a, device: "A", id: "2" })).await;
    assert_eq!(inbox(&server, b, "B").len(), 2);
}

#[tokio::test]
async fn a_message_stays_until_it_is_acknowledged() {
    let server = Server::start();
    let (bob, b) = server.user("bob", &["B"]).await;
    for n in 0..3 {
        send(&server, &bob, "B", json!({ "n": n }), None).await;
    }
    let now = server.graph.durable();
    let (first, cut) = server.users.to_device_since(b, "B", Seq::ZERO, now, 2).unwrap();
    assert_eq!(first.len(), 2);
    let cut = cut.unwrap();
    assert_eq!(inbox(&server, b, "B").len(), 3, "reading takes nothing away");
    server.users.to_device_acknowledge(b, "B", cut).unwrap();
    let (rest, none) = server.users.to_device_since(b, "B", cut, now, 2).unwrap();
    assert_eq!((rest.len(), none), (1, None));
    assert_eq!(inbox(&server, b, "B").len(), 1);
}

// ---- key backups ---------------------------------------------------------------------------------------------

fn room_key(is_verified: bool, first_message_index: u64, forwarded_count: u64) -> BackedUpKey {
    BackedUpKey {
        first_message_index,
        forwarded_count,
        is_verified,
        session_data: map(json!({ "ciphertext": "x" })),
    }
}

fn keys(entries: &[(&str, &str, BackedUpKey)]) -> RoomKeys {
    let mut keys = RoomKeys::new();
    for (room, session, key) in entries {
        keys.entry((*room).to_owned()).or_default().insert((*session).to_owned(), key.clone());
    }
    keys
}

const ALGORITHM: &str = "m.megolm_backup.v1.curve25519-aes-sha2";

#[tokio::test]
async fn a_backed_up_key_gives_way_only_to_a_better_one() {
    let server = Server::start();
    let (_, a) = server.user("alice", &["A"]).await;
    let version = server.users.create_backup(a, ALGORITHM, Map::new()).await.unwrap();
    let steps = [
        (room_key(false, 10, 5), true),
        (room_key(false, 11, 0), false),
        (room_key(false, 10, 5), false),
        (room_key(false, 10, 4), true),
        (room_key(false, 9, 9), true),
        (room_key(true, 20, 9), true),
        (room_key(false, 0, 0), false),
        (room_key(true, 20, 8), true),
    ];
    let mut etag = String::new();
    let mut best = None;
    for (key, replaces) in steps {
        let put = keys(&[("!r:h", "s", key.clone())]);
        let state = server.users.put_backup_keys(a, &version, &put).await.unwrap();
        assert_eq!(state.count, 1);
        assert_eq!(state.etag != etag, replaces, "{key:?}");
        etag = state.etag;
        best = if replaces { Some(key) } else { best };
        let stored = server.users.backup_keys(a, &version, BackupScope::Session("!r:h", "s")).unwrap();
        let stored: BackedUpKey = serde_json::from_str(stored["!r:h"]["s"].get()).unwrap();
        assert_eq!(Some(stored), best);
    }
}

#[tokio::test]
async fn keys_are_read_and_deleted_by_session_room_and_all_together() {
    let server = Server::start();
    let (_, a) = server.user("alice", &["A"]).await;
    let version = server.users.create_backup(a, ALGORITHM, Map::new()).await.unwrap();
    let key = || room_key(true, 0, 0);
    let all = keys(&[("!a:h", "1", key()), ("!a:h", "2", key()), ("!b:h", "1", key()), ("!c:h", "1", key())]);
    assert_eq!(server.users.put_backup_keys(a, &version, &all).await.unwrap().count, 4);
    let rooms = |scope| server.users.backup_keys(a, &version, scope).unwrap();
    assert_eq!(rooms(BackupScope::All).len(), 3);
    assert_eq!(rooms(BackupScope::Room("!a:h"))["!a:h"].len(), 2);
    assert!(rooms(BackupScope::Room("!none:h")).is_empty());
    let delete = async |scope| server.users.delete_backup_keys(a, &version, scope).await.unwrap();
    let state = delete(BackupScope::Session("!a:h", "1")).await;
    assert_eq!(state.count, 3);
    assert_eq!(delete(BackupScope::Session("!a:h", "1")).await, state, "nothing to delete is no change");
    assert_eq!(delete(BackupScope::Room("!a:h")).await.count, 2);
    assert_eq!(delete(BackupScope::All).await.count, 0);
    assert_eq!(server.users.backup(a, None).unwrap().count, 0);
    assert!(rooms(BackupScope::All).is_empty());
}

#[tokio::test]
async fn only_the_current_version_takes_keys() {
    let server = Server::start();
    let (_, a) = server.user("alice", &["A"]).await;
    let put = keys(&[("!a:h", "1", room_key(true, 0, 0))]);
    assert!(matches!(server.users.put_backup_keys(a, "1", &put).await, Err(Error::NotFound(_))));
    let old = server.users.create_backup(a, ALGORITHM, Map::new()).await.unwrap();
    server.users.put_backup_keys(a, &old, &put).await.unwrap();
    let current = server.users.create_backup(a, ALGORITHM, Map::new()).await.unwrap();
    match server.users.put_backup_keys(a, &old, &put).await {
        Err(Error::WrongVersion { current: told }) => assert_eq!(told, current),
        other => panic!("{other:?}"),
    }
    assert!(matches!(server.users.put_backup_keys(a, "77", &put).await, Err(Error::NotFound(_))));
    assert_eq!(server.users.backup_keys(a, &old, BackupScope::All).unwrap().len(), 1, "old ones are read");
}

#[tokio::test]
async fn a_deleted_version_is_gone_and_its_number_is_not_used_again() {
    let server = Server::start();
    let (_, a) = server.user("alice", &["A"]).await;
    let first = server.users.create_backup(a, ALGORITHM, Map::new()).await.unwrap();
    let second = server.users.create_backup(a, ALGORITHM, Map::new()).await.unwrap();
    server.users.delete_backup(a, &second).await.unwrap();
    server.users.delete_backup(a, &second).await.unwrap();
    assert_eq!(server.users.backup(a, None).unwrap().version, first);
    assert!(matches!(server.users.backup(a, Some(&second)), Err(Error::NotFound(_))));
    let third = server.users.create_backup(a, ALGORITHM, Map::new()).await.unwrap();
    assert!(third != first && third != second);
    server.users.delete_backup(a, &second).await.unwrap();
    server.users.delete_backup(a, &first).await.unwrap();
    assert!(matches!(server.users.delete_backup(a, "99").await, Err(Error::NotFound(_))));
    assert_eq!(server.users.backup(a, None).unwrap().version, third);
}

#[tokio::test]
async fn only_the_auth_data_of_a_version_changes() {
    let server = Server::start();
    let (_, a) = server.user("alice", &["A"]).await;
    let version = server.users.create_backup(a, ALGORITHM, map(json!({ "a": 1 }))).await.unwrap();
    server.users.update_backup(a, &version, ALGORITHM, map(json!({ "a": 2 }))).await.unwrap();
    assert_eq!(server.users.backup(a, Some(&version)).unwrap().auth_data["a"], 2);
    let other = server.users.update_backup(a, &version, "m.other", Map::new()).await;
    assert!(matches!(other, Err(Error::InvalidParam(_))));
    assert!(matches!(
        server.users.update_backup(a, "9", ALGORITHM, Map::new()).await,
        Err(Error::NotFound(_))
    ));
}

// ---- dehydrated devices --------------------------------------------------------------------------------------

#[tokio::test]
async fn a_dehydrated_device_collects_messages_until_it_is_removed() {
    let server = Server::start();
    let (alice, a) = server.user("alice", &["A"]).await;
    let put = async |id: &str| {
        let device = DehydratedDevice { device_id: id.to_owned(), device_data: map(json!({ "d": id })) };
        let mut upload = one_time(&["1"]);
        upload.device_keys = Some(device_keys(&alice, id, id));
        server.users.dehydrate(&alice, a, device, None, upload).await
    };
    assert!(matches!(server.users.dehydrated(a), Err(Error::NotFound(_))));
    assert!(matches!(put("A").await, Err(Error::InvalidParam(_))), "the id of a device in use");
    put("D1").await.unwrap();
    put("D2").await.unwrap();
    put("D2").await.unwrap();
    assert_eq!(server.users.dehydrated(a).unwrap().device_id, "D2");
    assert!(server.users.device(a, "D1").is_err());
    assert_eq!(server.users.key_counts(a, "D2").unwrap()["signed_curve25519"], 1);
    send(&server, &alice, "D2", json!({ "room": "key" }), None).await;
    for _ in 0..2 {
        let (messages, next) = server.users.dehydrated_messages(a, "D2", Seq::ZERO).unwrap();
        assert_eq!(messages.len(), 1);
        assert!(server.users.dehydrated_messages(a, "D2", next).unwrap().0.is_empty());
    }
    assert!(server.users.dehydrated_messages(a, "A", Seq::ZERO).is_err());
    assert_eq!(server.users.remove_dehydrated(a).await.unwrap(), "D2");
    assert!(matches!(server.users.dehydrated(a), Err(Error::NotFound(_))));
    assert_eq!(server.users.devices(a).unwrap().len(), 1);
}
