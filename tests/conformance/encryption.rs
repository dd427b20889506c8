//! Messages to devices, keys of devices and users, key backups, dehydrated devices (specification: send-to-device
//! messaging; end-to-end encryption).

use super::*;
use ruma::{
    canonical_json::try_from_json_map,
    signatures::{Ed25519KeyPair, sign_json},
};
use serde_json::Map;

// ---- messages to devices

fn send(from: &Client, to: &Client, device: &str, n: u64) -> Answer {
    let path = format!("v3/sendToDevice/test.message/{}", from.transaction());
    from.put(&path, json!({ "messages": { to.id(): { device: { "n": n } } } }))
}

fn received(answer: &Value) -> Vec<u64> {
    events_of(&answer["to_device"]).iter().filter_map(|event| event["content"]["n"].as_u64()).collect()
}

#[test]
fn a_message_reaches_the_device_with_its_sender() {
    let (alice, bob) = two_users();
    let since = bob.now();
    send(&alice, &bob, bob.device(), 7).done();
    let answer = bob.sync_until(&since, |answer| !received(answer).is_empty());
    let event = events_of(&answer["to_device"])[0].clone();
    assert_eq!(event, json!({ "type": "test.message", "sender": alice.id(), "content": { "n": 7 } }));
}

#[test]
fn a_message_reaches_one_device_or_all() {
    let (alice, bob) = two_users();
    let phone = bob.log_in_again();
    send(&alice, &bob, bob.device(), 1).done();
    send(&alice, &bob, "*", 2).done();
    assert_eq!(received(&bob.sync(None)), [1, 2]);
    assert_eq!(received(&phone.sync(None)), [2]);
}

#[test]
fn messages_stay_until_a_later_token_says_that_they_arrived() {
    let (alice, bob) = two_users();
    let since = bob.now();
    send(&alice, &bob, bob.device(), 1).done();
    let answer = bob.sync(Some(&since));
    assert_eq!(received(&answer), [1]);
    assert_eq!(received(&bob.sync(Some(&since))), [1]);
    let next = text(&answer["next_batch"]);
    assert_eq!(received(&bob.sync(Some(&next))), [0; 0]);
    assert_eq!(received(&bob.sync(None)), [0; 0]);
}

#[test]
fn messages_come_in_order_and_none_is_lost() {
    let (alice, bob) = two_users();
    let mut since = bob.now();
    for n in 0..150 {
        send(&alice, &bob, bob.device(), n).done();
    }
    let mut all = Vec::new();
    for _ in 0..10 {
        let answer = bob.sync(Some(&since));
        all.extend(received(&answer));
        since = text(&answer["next_batch"]);
    }
    assert_eq!(all, (0..150).collect::<Vec<u64>>());
}

#[test]
fn the_same_transaction_sends_once() {
    let (alice, bob) = two_users();
    let body = json!({ "messages": { bob.id(): { bob.device(): { "n": 1 } } } });
    for _ in 0..2 {
        alice.put("v3/sendToDevice/test.message/once", body.clone()).done();
    }
    assert_eq!(received(&bob.sync(None)), [1]);
}

#[test]
fn messages_live_through_a_restart() {
    let server = Server::start(PROGRAM);
    let (alice, bob) = (server.register("alice"), server.register("bob"));
    send(&alice, &bob, bob.device(), 1).done();
    server.kill();
    server.start_again();
    assert_eq!(received(&bob.sync(None)), [1]);
}

// ---- keys of devices

fn device_keys(of: &Client) -> Value {
    let device = of.device();
    json!({
        "user_id": of.id(), "device_id": device,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": { format!("curve25519:{device}"): "curve", format!("ed25519:{device}"): "ed" },
        "signatures": { of.id(): { format!("ed25519:{device}"): "signature" } },
    })
}

fn upload_device_keys(of: &Client) {
    of.post("v3/keys/upload", json!({ "device_keys": device_keys(of) })).done();
}

fn one_time_key(of: &Client, key: &str) -> Value {
    json!({ "key": key, "signatures": { of.id(): { format!("ed25519:{}", of.device()): "signature" } } })
}

fn upload_one_time_keys(of: &Client, ids: &[&str]) -> Value {
    let keys: Map<String, Value> =
        ids.iter().map(|id| (format!("signed_curve25519:{id}"), one_time_key(of, id))).collect();
    of.post("v3/keys/upload", json!({ "one_time_keys": keys })).ok()["one_time_key_counts"].clone()
}

fn query(who: &Client, of: &Client) -> Value {
    who.post("v3/keys/query", json!({ "device_keys": { of.id(): [] } })).ok()
}

fn claim(who: &Client, of: &Client) -> Value {
    let wanted = json!({ "one_time_keys": { of.id(): { of.device(): "signed_curve25519" } } });
    who.post("v3/keys/claim", wanted).ok()["one_time_keys"][of.id()][of.device()].clone()
}

#[test]
fn device_keys_are_found_with_the_devices_name() {
    let (alice, bob) = two_users();
    alice.put(&format!("v3/devices/{}", alice.device()), json!({ "display_name": "phone" })).done();
    upload_device_keys(&alice);
    let found = query(&bob, &alice)["device_keys"][alice.id()][alice.device()].clone();
    assert_eq!(found["keys"], device_keys(&alice)["keys"]);
    assert_eq!(found["unsigned"]["device_display_name"], "phone");
}

#[test]
fn who_has_no_keys_has_none() {
    let (alice, bob) = two_users();
    assert_eq!(query(&bob, &alice)["device_keys"][alice.id()], json!({}));
}

#[test]
fn one_device_is_asked_for_by_name() {
    let (alice, bob) = two_users();
    let phone = alice.log_in_again();
    upload_device_keys(&alice);
    upload_device_keys(&phone);
    let wanted = json!({ "device_keys": { alice.id(): [phone.device()] } });
    let found = bob.post("v3/keys/query", wanted).ok()["device_keys"][alice.id()].clone();
    assert_eq!(found.as_object().unwrap().keys().collect::<Vec<_>>(), [phone.device()]);
}

#[test]
fn keys_of_another_user_or_device_are_refused() {
    let (alice, bob) = two_users();
    for (field, value) in [("user_id", bob.id()), ("device_id", "ANOTHER")] {
        let mut keys = device_keys(&alice);
        keys[field] = value.into();
        let answer = alice.post("v3/keys/upload", json!({ "device_keys": keys }));
        assert!(matches!(answer.status(), 400 | 403), "{}", answer.describe());
    }
}

#[test]
fn a_query_of_a_wrong_shape_is_refused() {
    let alice = user("alice");
    let wanted = json!({ "device_keys": { alice.id(): { "device": true } } });
    alice.post("v3/keys/query", wanted).refused(400, "M_BAD_JSON");
}

#[test]
fn one_time_keys_are_counted_and_claimed_once_each() {
    let (alice, bob) = two_users();
    assert_eq!(upload_one_time_keys(&alice, &["A", "B"]), json!({ "signed_curve25519": 2 }));
    let (first, second) = (claim(&bob, &alice), claim(&bob, &alice));
    assert_eq!(first["signed_curve25519:A"]["key"], "A");
    assert_eq!(second["signed_curve25519:B"]["key"], "B");
    assert!(claim(&bob, &alice).is_null());
}

#[test]
fn the_same_one_time_key_may_be_uploaded_again_but_not_another_by_its_name() {
    let alice = user("alice");
    upload_one_time_keys(&alice, &["A"]);
    assert_eq!(upload_one_time_keys(&alice, &["A"]), json!({ "signed_curve25519": 1 }));
    let other = json!({ "one_time_keys": { "signed_curve25519:A": one_time_key(&alice, "other") } });
    assert_eq!(alice.post("v3/keys/upload", other).status(), 400);
}

#[test]
fn a_fallback_key_is_given_when_no_other_is_left() {
    let (alice, bob) = two_users();
    let mut key = one_time_key(&alice, "F");
    key["fallback"] = true.into();
    alice.post("v3/keys/upload", json!({ "fallback_keys": { "signed_curve25519:F": key } })).done();
    let unused = |alice: &Client| alice.sync(None)["device_unused_fallback_key_types"].clone();
    assert_eq!(unused(&alice), json!(["signed_curve25519"]));
    for _ in 0..2 {
        assert_eq!(claim(&bob, &alice)["signed_curve25519:F"]["key"], "F");
    }
    assert_eq!(unused(&alice), json!([]));
}

#[test]
fn sync_tells_how_many_one_time_keys_are_left() {
    let (alice, bob) = two_users();
    upload_one_time_keys(&alice, &["A", "B"]);
    let since = alice.now();
    claim(&bob, &alice);
    let answer = alice.sync_until(&since, |answer| answer["device_one_time_keys_count"].is_object());
    assert_eq!(answer["device_one_time_keys_count"]["signed_curve25519"], 1);
}

fn changed(answer: &Value, of: &Client) -> bool {
    array(&answer["device_lists"]["changed"]).contains(&json!(of.id()))
}

#[test]
fn new_devices_are_told_to_who_shares_a_room() {
    let (alice, bob, _room) = two_in_a_room();
    let since = alice.now();
    upload_device_keys(&bob.log_in_again());
    let answer = alice.sync_until(&since, |answer| changed(answer, &bob));
    let to = text(&answer["next_batch"]);
    let path = format!("v3/keys/changes?from={}&to={}", enc(&since), enc(&to));
    assert!(array(&alice.get(&path).ok()["changed"]).contains(&json!(bob.id())));
    // A further change after that does not hide this one.
    upload_device_keys(&bob.log_in_again());
    alice.sync_until(&to, |answer| changed(answer, &bob));
    assert!(array(&alice.get(&path).ok()["changed"]).contains(&json!(bob.id())));
}

#[test]
fn who_joins_is_changed_and_whoever_leaves_the_last_room_has_left() {
    let (alice, bob) = two_users();
    let room = alice.create_public_room();
    upload_device_keys(&bob);
    let since = alice.now();
    bob.join(&room);
    let answer = alice.sync_until(&since, |answer| changed(answer, &bob));
    bob.leave(&room);
    alice.sync_until(&text(&answer["next_batch"]), |answer| {
        array(&answer["device_lists"]["left"]).contains(&json!(bob.id()))
    });
}

#[test]
fn strangers_hear_nothing_of_new_devices() {
    let (alice, bob) = two_users();
    let since = alice.now();
    upload_device_keys(&bob);
    alice.send_text(&alice.create_room(json!({})), "x");
    assert!(!changed(&alice.sync(Some(&since)), &bob));
}

#[test]
fn a_logged_out_device_has_no_keys() {
    let (alice, bob) = two_users();
    let phone = alice.log_in_again();
    upload_device_keys(&phone);
    phone.post("v3/logout", json!({})).done();
    assert_eq!(query(&bob, &alice)["device_keys"][alice.id()], json!({}));
}

// ---- cross-signing

/// A key pair; what it signs is signed under its public half.
struct Pair {
    public: String,
    der: Vec<u8>,
}

impl Pair {
    fn new() -> Self {
        let der = Ed25519KeyPair::generate().to_vec();
        let public = Ed25519KeyPair::from_der(&der, String::new()).unwrap().public_key().to_vec();
        Self { public: ruma::serde::Base64::<ruma::serde::base64::Standard, _>::new(public).encode(), der }
    }

    fn sign(&self, who: &Client, object: Value) -> Value {
        let pair = Ed25519KeyPair::from_der(&self.der, self.public.clone()).unwrap();
        let Value::Object(object) = object else { panic!("not an object") };
        let mut object = try_from_json_map(object).unwrap();
        sign_json(who.id(), &pair, &mut object).unwrap();
        serde_json::to_value(object).unwrap()
    }

    fn key(&self, of: &Client, usage: &str) -> Value {
        json!({ "user_id": of.id(), "usage": [usage], "keys": { format!("ed25519:{}", self.public): self.public } })
    }
}

struct Identity {
    master: Pair,
    self_signing: Pair,
}

fn identity(of: &Client) -> (Identity, Value) {
    let (master, self_signing, user_signing) = (Pair::new(), Pair::new(), Pair::new());
    let upload = json!({
        "master_key": master.key(of, "master"),
        "self_signing_key": master.sign(of, self_signing.key(of, "self_signing")),
        "user_signing_key": master.sign(of, user_signing.key(of, "user_signing")),
    });
    (Identity { master, self_signing }, upload)
}

const UPLOAD: &str = "v3/keys/device_signing/upload";

#[test]
fn the_first_identity_needs_no_password_and_another_does() {
    let alice = user("alice");
    alice.post(UPLOAD, identity(&alice).1).done();
    let (_, other) = identity(&alice);
    assert_eq!(alice.post(UPLOAD, other.clone()).status(), 401);
    alice.confirmed(Method::POST, UPLOAD, other).done();
}

#[test]
fn the_same_identity_again_needs_no_password() {
    let alice = user("alice");
    let (_, upload) = identity(&alice);
    alice.post(UPLOAD, upload.clone()).done();
    alice.post(UPLOAD, upload).done();
}

#[test]
fn others_see_master_and_self_signing_key_and_oneself_all_three() {
    let (alice, bob) = two_users();
    alice.post(UPLOAD, identity(&alice).1).done();
    let seen = query(&bob, &alice);
    assert!(seen["master_keys"][alice.id()].is_object() && seen["self_signing_keys"][alice.id()].is_object());
    assert!(seen["user_signing_keys"].get(alice.id()).is_none());
    assert!(query(&alice, &alice)["user_signing_keys"][alice.id()].is_object());
}

#[test]
fn attack_12_a_self_signing_key_the_master_did_not_sign_is_refused() {
    let alice = user("alice");
    let (_, mut upload) = identity(&alice);
    upload["self_signing_key"] = Pair::new().sign(&alice, Pair::new().key(&alice, "self_signing"));
    let answer = alice.post(UPLOAD, upload);
    assert_eq!(answer.status(), 400, "{}", answer.describe());
}

#[test]
fn a_key_of_another_user_is_refused() {
    let (alice, bob) = two_users();
    let answer = alice.post(UPLOAD, identity(&bob).1);
    assert!(matches!(answer.status(), 400 | 403), "{}", answer.describe());
}

#[test]
fn attack_12_a_signature_of_ones_own_device_is_added_and_a_wrong_one_is_told() {
    let alice = user("alice");
    upload_device_keys(&alice);
    let (own, upload) = identity(&alice);
    alice.post(UPLOAD, upload).done();
    let sign = |pair: &Pair| {
        let signed = pair.sign(&alice, device_keys(&alice));
        let body = json!({ alice.id(): { alice.device(): signed } });
        alice.post("v3/keys/signatures/upload", body).ok()["failures"].clone()
    };
    assert_eq!(sign(&own.self_signing), json!({}));
    let keys = query(&alice, &alice)["device_keys"][alice.id()][alice.device()].clone();
    assert!(keys["signatures"][alice.id()].get(format!("ed25519:{}", own.self_signing.public)).is_some());
    assert_ne!(sign(&Pair::new()), json!({}));
    assert!(!own.master.public.is_empty());
}

#[test]
fn a_new_identity_is_told_to_who_shares_a_room() {
    let (alice, bob, _room) = two_in_a_room();
    let since = bob.now();
    alice.post(UPLOAD, identity(&alice).1).done();
    bob.sync_until(&since, |answer| changed(answer, &alice));
}

// ---- key backup

const ALGORITHM: &str = "m.megolm_backup.v1.curve25519-aes-sha2";

fn new_backup(alice: &Client) -> String {
    let body = json!({ "algorithm": ALGORITHM, "auth_data": { "public_key": "key", "signatures": {} } });
    text(&alice.post("v3/room_keys/version", body).ok()["version"])
}

fn backed_up(index: u64, forwarded: u64, verified: bool, what: &str) -> Value {
    json!({
        "first_message_index": index, "forwarded_count": forwarded, "is_verified": verified,
        "session_data": { "ephemeral": "e", "ciphertext": what, "mac": "m" },
    })
}

fn key_path(version: &str) -> String {
    format!("v3/room_keys/keys/%21room%3Ahere.test/session?version={version}")
}

#[test]
fn a_backup_is_made_found_changed_and_deleted() {
    let alice = user("alice");
    alice.get("v3/room_keys/version").refused(404, "M_NOT_FOUND");
    let version = new_backup(&alice);
    let found = alice.get("v3/room_keys/version").ok();
    assert_eq!(
        (&found["version"], &found["algorithm"], &found["count"]),
        (&json!(version), &json!(ALGORITHM), &json!(0))
    );
    let path = format!("v3/room_keys/version/{version}");
    let body = json!({ "algorithm": ALGORITHM, "auth_data": { "public_key": "key", "signatures": { "a": {} } }, "version": version });
    alice.put(&path, body).done();
    assert_eq!(alice.get(&path).ok()["auth_data"]["signatures"], json!({ "a": {} }));
    alice.delete(&path).done();
    alice.get(&path).refused(404, "M_NOT_FOUND");
}

#[test]
fn a_backups_algorithm_cannot_be_changed() {
    let alice = user("alice");
    let version = new_backup(&alice);
    let body = json!({ "algorithm": "test.other", "auth_data": {}, "version": version });
    let answer = alice.loose().put(&format!("v3/room_keys/version/{version}"), body);
    answer.refused(400, "M_INVALID_PARAM");
}

#[test]
fn keys_are_put_in_and_taken_out_at_every_level() {
    let alice = user("alice");
    let version = new_backup(&alice);
    let told = alice.put(&key_path(&version), backed_up(0, 0, true, "c")).ok();
    assert_eq!(told["count"], 1);
    assert_eq!(alice.get(&key_path(&version)).ok()["session_data"]["ciphertext"], "c");
    let room = format!("v3/room_keys/keys/%21room%3Ahere.test?version={version}");
    assert!(alice.get(&room).ok()["sessions"].get("session").is_some());
    let all = alice.get(&format!("v3/room_keys/keys?version={version}")).ok();
    assert!(all["rooms"]["!room:here.test"]["sessions"].get("session").is_some());
    let gone = alice.delete(&key_path(&version)).ok();
    assert_eq!(gone["count"], 0);
    assert_ne!(gone["etag"], told["etag"]);
    alice.get(&key_path(&version)).refused(404, "M_NOT_FOUND");
}

#[test]
fn a_better_key_replaces_a_worse_one_and_not_the_other_way_round() {
    for (better, worse) in
        [((10, 5, true), (0, 0, false)), ((0, 9, false), (1, 0, false)), ((5, 1, false), (5, 2, false))]
    {
        let alice = user("alice");
        let version = new_backup(&alice);
        let put = |(index, forwarded, verified): (u64, u64, bool), what: &str| {
            alice.put(&key_path(&version), backed_up(index, forwarded, verified, what)).done();
        };
        put(worse, "worse");
        put(better, "better");
        put(worse, "worse");
        assert_eq!(alice.get(&key_path(&version)).ok()["session_data"]["ciphertext"], "better", "{better:?}");
    }
}

#[test]
fn keys_go_into_the_newest_backup_only() {
    let alice = user("alice");
    let (old, new) = (new_backup(&alice), new_backup(&alice));
    let answer = alice.put(&key_path(&old), backed_up(0, 0, true, "c"));
    assert_eq!(answer.refused(403, "M_WRONG_ROOM_KEYS_VERSION")["current_version"], new);
}

// ---- dehydrated devices (MSC3814)

const DEHYDRATED: &str = "unstable/org.matrix.msc3814.v1/dehydrated_device";

#[test]
fn a_dehydrated_device_takes_messages_until_it_is_woken() {
    let (alice, bob) = two_users();
    alice.get(DEHYDRATED).refused(404, "M_NOT_FOUND");
    let mut keys = device_keys(&alice);
    keys["device_id"] = "SLEEPER".into();
    let body = json!({
        "device_id": "SLEEPER", "device_data": { "algorithm": "test.algorithm", "pickle": "p" }, "device_keys": keys,
    });
    alice.put(DEHYDRATED, body).done();
    let found = alice.get(DEHYDRATED).ok();
    assert_eq!((&found["device_id"], &found["device_data"]["pickle"]), (&json!("SLEEPER"), &json!("p")));
    send(&bob, &alice, "SLEEPER", 3).done();
    let events = alice.post(&format!("{DEHYDRATED}/SLEEPER/events"), json!({})).ok();
    assert_eq!(events["events"][0]["content"]["n"], 3);
    alice.delete(DEHYDRATED).done();
    alice.get(DEHYDRATED).refused(404, "M_NOT_FOUND");
}
