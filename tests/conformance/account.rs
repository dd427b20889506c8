//! Account management: who am I, password, deactivation, third-party identifiers (specification: account management;
//! current account information; adding account administrative contact information).

use super::*;

fn can_log_in(alice: &Client, password: &str) -> bool {
    let body = json!({
        "type": "m.login.password", "password": password,
        "identifier": { "type": "m.id.user", "user": alice.id() },
    });
    server().anyone().post("v3/login", body).status() == 200
}

#[test]
fn whoami_names_user_and_device() {
    let alice = user("alice");
    let answer = alice.get("v3/account/whoami").ok();
    assert_eq!(answer, json!({ "user_id": alice.id(), "device_id": alice.device() }));
}

#[test]
fn the_new_password_works_and_the_old_does_not() {
    let alice = user("alice");
    let body = json!({ "new_password": "another long password" });
    alice.confirmed(Method::POST, "v3/account/password", body).done();
    assert!(!can_log_in(&alice, PASSWORD));
    assert!(can_log_in(&alice, "another long password"));
}

#[test]
fn a_changed_password_ends_other_sessions_but_not_this_one() {
    let alice = user("alice");
    let other = alice.log_in_again();
    let body = json!({ "new_password": "another long password" });
    alice.confirmed(Method::POST, "v3/account/password", body).done();
    alice.get("v3/account/whoami").done();
    other.get("v3/account/whoami").refused(401, "M_UNKNOWN_TOKEN");
}

#[test]
fn a_changed_password_can_keep_other_sessions() {
    let alice = user("alice");
    let other = alice.log_in_again();
    let body = json!({ "new_password": "another long password", "logout_devices": false });
    alice.confirmed(Method::POST, "v3/account/password", body).done();
    other.get("v3/account/whoami").done();
}

#[test]
fn a_changed_password_removes_the_pushers_of_other_sessions() {
    let alice = user("alice");
    let other = alice.log_in_again();
    let pusher = |key: &str| {
        json!({
            "pushkey": key, "kind": "http", "app_id": "test.app", "app_display_name": "app", "lang": "en",
            "device_display_name": "device", "data": { "url": "https://push.test/_matrix/push/v1/notify" },
        })
    };
    alice.post("v3/pushers/set", pusher("mine")).done();
    other.post("v3/pushers/set", pusher("other")).done();
    let body = json!({ "new_password": "another long password" });
    alice.confirmed(Method::POST, "v3/account/password", body).done();
    assert_eq!(fields(&array(&alice.get("v3/pushers").ok()["pushers"]), "pushkey"), ["mine"]);
}

#[test]
fn a_weak_new_password_is_refused() {
    user("alice")
        .post("v3/account/password", json!({ "new_password": "short" }))
        .refused(400, "M_WEAK_PASSWORD");
}

#[test]
fn a_password_is_not_changed_with_a_wrong_old_one() {
    let alice = user("alice");
    let mut body = json!({ "new_password": "another long password" });
    let challenge = alice.post("v3/account/password", body.clone());
    body["auth"] = alice.password_auth(&challenge);
    body["auth"]["password"] = "wrong".into();
    assert_eq!(alice.post("v3/account/password", body).status(), 401);
    assert!(can_log_in(&alice, PASSWORD));
}

#[test]
fn deactivation_asks_for_the_password() {
    let answer = user("alice").post("v3/account/deactivate", json!({}));
    assert_eq!(answer.status(), 401);
    assert_eq!(answer["flows"][0]["stages"], json!(["m.login.password"]));
}

#[test]
fn deactivation_with_a_wrong_password_does_nothing() {
    let alice = user("alice");
    let challenge = alice.post("v3/account/deactivate", json!({}));
    let mut auth = alice.password_auth(&challenge);
    auth["password"] = "wrong".into();
    assert_eq!(alice.post("v3/account/deactivate", json!({ "auth": auth })).status(), 401);
    assert!(can_log_in(&alice, PASSWORD));
}

#[test]
fn a_deactivated_user_cannot_log_in_and_has_no_session() {
    let alice = user("alice");
    let answer = alice.confirmed(Method::POST, "v3/account/deactivate", json!({})).ok();
    assert!(answer["id_server_unbind_result"].is_string());
    alice.get("v3/account/whoami").refused(401, "M_UNKNOWN_TOKEN");
    assert!(!can_log_in(&alice, PASSWORD));
}

#[test]
fn a_deactivated_users_name_cannot_be_registered_again() {
    let alice = user("alice");
    alice.confirmed(Method::POST, "v3/account/deactivate", json!({})).done();
    let body = json!({
        "username": alice.localpart(), "password": PASSWORD, "auth": { "type": "m.login.dummy" },
    });
    server().anyone().post("v3/register", body).refused(400, "M_USER_IN_USE");
}

#[test]
fn a_deactivated_user_leaves_all_rooms() {
    let (alice, bob, room) = two_in_a_room();
    bob.confirmed(Method::POST, "v3/account/deactivate", json!({})).done();
    assert_eq!(alice.membership_of(&room, &bob), "leave");
}

#[test]
fn a_deactivated_user_is_not_found_in_the_directory() {
    let (alice, bob, _room) = two_in_a_room();
    bob.confirmed(Method::POST, "v3/account/deactivate", json!({})).done();
    let found = alice.post("v3/user_directory/search", json!({ "search_term": bob.localpart() })).ok();
    assert!(array(&found["results"]).is_empty(), "{found}");
}

#[test]
fn there_are_no_third_party_identifiers() {
    assert_eq!(user("alice").get("v3/account/3pid").ok(), json!({ "threepids": [] }));
}

#[test]
fn an_openid_token_is_given_for_oneself_only() {
    let (alice, bob) = two_users();
    let path = |of: &Client| format!("v3/user/{}/openid/request_token", of.id_in_path());
    let token = alice.post(&path(&alice), json!({})).ok();
    assert_eq!(token["matrix_server_name"], "here.test");
    assert_eq!(token["token_type"], "Bearer");
    alice.post(&path(&bob), json!({})).refused(403, "M_FORBIDDEN");
}

#[test]
fn an_openid_token_is_no_access_token() {
    let alice = user("alice");
    let path = format!("v3/user/{}/openid/request_token", alice.id_in_path());
    let token = text(&alice.post(&path, json!({})).ok()["access_token"]);
    alice.with_token(&token).get("v3/account/whoami").refused(401, "M_UNKNOWN_TOKEN");
}
