//! User-interactive authentication (specification: user-interactive authentication API).

use super::*;

fn challenge(alice: &Client) -> Answer {
    alice.request(Method::POST, "v3/delete_devices", Some(&json!({ "devices": ["X"] })))
}

fn with_auth(alice: &Client, auth: Value) -> Answer {
    alice.post("v3/delete_devices", json!({ "devices": ["X"], "auth": auth }))
}

#[test]
fn a_challenge_has_flows_params_and_a_session() {
    let answer = challenge(&user("alice"));
    assert_eq!(answer.status(), 401);
    assert_eq!(answer["flows"], json!([{ "stages": ["m.login.password"] }]));
    assert!(answer["params"].is_object());
    assert!(answer["session"].is_string());
    assert!(answer.errcode().is_none());
}

#[test]
fn every_challenge_opens_a_session_of_its_own() {
    let alice = user("alice");
    assert_ne!(challenge(&alice)["session"], challenge(&alice)["session"]);
}

#[test]
fn the_password_of_the_user_completes_it() {
    let alice = user("alice");
    let auth = alice.password_auth(&challenge(&alice));
    with_auth(&alice, auth).done();
}

#[test]
fn a_wrong_password_is_told_in_the_challenge() {
    let alice = user("alice");
    let mut auth = alice.password_auth(&challenge(&alice));
    auth["password"] = "wrong".into();
    let session = auth["session"].clone();
    let answer = with_auth(&alice, auth);
    assert_eq!((answer.status(), answer.errcode()), (401, Some("M_FORBIDDEN")));
    assert_eq!(answer["session"], session);
    assert!(answer["flows"].is_array());
}

#[test]
fn after_a_wrong_password_the_right_one_still_completes_it() {
    let alice = user("alice");
    let mut auth = alice.password_auth(&challenge(&alice));
    auth["password"] = "wrong".into();
    assert_eq!(with_auth(&alice, auth.clone()).status(), 401);
    auth["password"] = PASSWORD.into();
    with_auth(&alice, auth).done();
}

#[test]
fn a_stage_that_is_not_asked_for_does_not_help() {
    let alice = user("alice");
    let session = challenge(&alice)["session"].clone();
    let answer = with_auth(&alice, json!({ "type": "m.login.dummy", "session": session }));
    assert_eq!(answer.status(), 401);
    assert!(!array(&answer["completed"]).contains(&json!("m.login.dummy")));
}

#[test]
fn another_users_password_does_not_help() {
    let (alice, bob) = two_users();
    let mut auth = alice.password_auth(&challenge(&alice));
    auth["identifier"]["user"] = bob.id().into();
    assert!(with_auth(&alice, auth).status() >= 400);
}

#[test]
fn a_session_of_one_endpoint_does_not_open_another() {
    let alice = user("alice");
    let session = challenge(&alice)["session"].clone();
    let body = json!({ "auth": { "session": session } });
    assert_eq!(alice.post("v3/account/deactivate", body).status(), 401);
    alice.get("v3/account/whoami").done();
}

#[test]
fn an_unknown_session_is_answered_with_a_challenge() {
    let alice = user("alice");
    let answer = with_auth(&alice, json!({ "session": "made-up" }));
    assert_eq!(answer.status(), 401);
    assert_ne!(answer["session"], "made-up");
}

#[test]
fn a_session_cannot_be_used_twice() {
    let alice = user("alice");
    let auth = alice.password_auth(&challenge(&alice));
    let session = auth["session"].clone();
    with_auth(&alice, auth).done();
    assert_eq!(with_auth(&alice, json!({ "session": session })).status(), 401);
}
