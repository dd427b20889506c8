//! Devices (specification: device management).

use super::*;

fn path(of: &Client) -> String {
    format!("v3/devices/{}", of.device())
}

#[test]
fn a_user_lists_all_devices() {
    let alice = user("alice");
    let phone = alice.log_in_again();
    let devices = array(&alice.get("v3/devices").ok()["devices"]);
    let mut ids = fields(&devices, "device_id");
    ids.sort();
    let mut expected = [alice.device().to_owned(), phone.device().to_owned()];
    expected.sort();
    assert_eq!(ids, expected);
}

#[test]
fn a_device_tells_when_and_from_where_it_was_seen() {
    let alice = user("alice");
    alice.get("v3/account/whoami").done();
    let device = alice.get(&path(&alice)).ok();
    assert_eq!(device["device_id"], alice.device());
    assert_eq!(device["last_seen_ip"], "127.0.0.1");
    assert!(device["last_seen_ts"].is_u64());
}

#[test]
fn a_device_that_is_not_there_is_not_found() {
    let alice = user("alice");
    alice.get("v3/devices/NONE").refused(404, "M_NOT_FOUND");
    alice.put("v3/devices/NONE", json!({ "display_name": "x" })).refused(404, "M_NOT_FOUND");
}

#[test]
fn a_device_of_another_user_is_not_found() {
    let (alice, bob) = two_users();
    alice.get(&path(&bob)).refused(404, "M_NOT_FOUND");
}

#[test]
fn a_device_is_renamed() {
    let alice = user("alice");
    alice.put(&path(&alice), json!({ "display_name": "kitchen" })).done();
    assert_eq!(alice.get(&path(&alice)).ok()["display_name"], "kitchen");
}

#[test]
fn a_device_is_renamed_by_another_of_the_same_user() {
    let alice = user("alice");
    let phone = alice.log_in_again();
    phone.put(&path(&alice), json!({ "display_name": "cellar" })).done();
    assert_eq!(alice.get(&path(&alice)).ok()["display_name"], "cellar");
}

#[test]
fn an_update_without_a_name_leaves_the_name() {
    let alice = user("alice");
    alice.put(&path(&alice), json!({ "display_name": "kitchen" })).done();
    alice.put(&path(&alice), json!({})).done();
    assert_eq!(alice.get(&path(&alice)).ok()["display_name"], "kitchen");
}

#[test]
fn a_deleted_device_has_no_session() {
    let alice = user("alice");
    let phone = alice.log_in_again();
    alice.confirmed(Method::DELETE, &path(&phone), json!({})).done();
    phone.get("v3/account/whoami").refused(401, "M_UNKNOWN_TOKEN");
    alice.get(&path(&phone)).refused(404, "M_NOT_FOUND");
}

#[test]
fn a_device_is_not_deleted_without_the_password() {
    let alice = user("alice");
    let phone = alice.log_in_again();
    assert_eq!(alice.request(Method::DELETE, &path(&phone), Some(&json!({}))).status(), 401);
    phone.get("v3/account/whoami").done();
}

#[test]
fn a_device_is_not_deleted_by_another_user() {
    let (alice, bob) = two_users();
    let challenge = bob.request(Method::DELETE, &path(&alice), Some(&json!({})));
    let auth = alice.password_auth(&challenge);
    assert!(bob.request(Method::DELETE, &path(&alice), Some(&json!({ "auth": auth }))).status() >= 400);
    alice.get("v3/account/whoami").done();
}

#[test]
fn several_devices_are_deleted_at_once() {
    let alice = user("alice");
    let (phone, tablet) = (alice.log_in_again(), alice.log_in_again());
    let body = json!({ "devices": [phone.device(), tablet.device()] });
    alice.confirmed(Method::POST, "v3/delete_devices", body).done();
    assert_eq!(fields(&array(&alice.get("v3/devices").ok()["devices"]), "device_id"), [alice.device()]);
    phone.get("v3/account/whoami").refused(401, "M_UNKNOWN_TOKEN");
    tablet.get("v3/account/whoami").refused(401, "M_UNKNOWN_TOKEN");
}

#[test]
fn the_own_device_may_be_deleted_too() {
    let alice = user("alice");
    alice.confirmed(Method::DELETE, &path(&alice), json!({})).done();
    alice.get("v3/account/whoami").refused(401, "M_UNKNOWN_TOKEN");
}
