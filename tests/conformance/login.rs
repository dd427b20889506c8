//! Logging in and out, refreshing (specification: login; logout; refreshing access tokens; soft logout).

use super::*;

fn password_login(user: &str, password: &str) -> Value {
    json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": user },
        "password": password,
    })
}

#[test]
fn the_flows_name_password_and_token() {
    let flows = server().anyone().get("v3/login").ok();
    let types = fields(&array(&flows["flows"]), "type");
    assert!(types.contains(&"m.login.password".to_owned()));
    assert!(types.contains(&"m.login.token".to_owned()));
}

#[test]
fn a_user_logs_in_by_full_id() {
    let alice = user("alice");
    let answer = server().anyone().post("v3/login", password_login(alice.id(), PASSWORD)).ok();
    assert_eq!(answer["user_id"], alice.id());
    assert_ne!(answer["device_id"], alice.device());
}

#[test]
fn a_user_logs_in_by_the_part_before_the_colon() {
    let alice = user("alice");
    let answer = server().anyone().post("v3/login", password_login(alice.localpart(), PASSWORD)).ok();
    assert_eq!(answer["user_id"], alice.id());
}

#[test]
fn a_user_logs_in_with_the_deprecated_field_user() {
    let alice = user("alice");
    let body = json!({ "type": "m.login.password", "user": alice.id(), "password": PASSWORD });
    assert_eq!(server().anyone().loose().post("v3/login", body).ok()["user_id"], alice.id());
}

#[test]
fn a_user_logs_in_with_capitals() {
    let alice = user("alice");
    let name = alice.localpart().to_uppercase();
    let answer = server().anyone().post("v3/login", password_login(&name, PASSWORD)).ok();
    assert_eq!(answer["user_id"], alice.id());
    let alice = alice.with_token(&text(&answer["access_token"]));
    assert_eq!(alice.get("v3/account/whoami").ok()["user_id"], alice.id());
}

#[test]
fn a_login_keeps_the_device_it_names() {
    let alice = user("alice");
    assert_eq!(alice.log_in_with(json!({ "device_id": "LAPTOP" })).device(), "LAPTOP");
}

#[test]
fn a_login_names_a_new_device() {
    let alice = user("alice");
    let laptop = alice.log_in_with(json!({ "initial_device_display_name": "the laptop" }));
    let device = laptop.get(&format!("v3/devices/{}", laptop.device())).ok();
    assert_eq!(device["display_name"], "the laptop");
}

#[test]
fn a_login_does_not_rename_a_device_that_is_there() {
    let alice = user("alice");
    let more = |name: &str| json!({ "device_id": "LAPTOP", "initial_device_display_name": name });
    let _ = alice.log_in_with(more("first"));
    let again = alice.log_in_with(more("second"));
    assert_eq!(again.get("v3/devices/LAPTOP").ok()["display_name"], "first");
}

#[test]
fn a_login_on_a_device_that_is_there_ends_its_old_token() {
    let alice = user("alice");
    let first = alice.log_in_with(json!({ "device_id": "LAPTOP" }));
    let second = alice.log_in_with(json!({ "device_id": "LAPTOP" }));
    first.get("v3/account/whoami").refused(401, "M_UNKNOWN_TOKEN");
    assert_eq!(second.get("v3/account/whoami").ok()["device_id"], "LAPTOP");
}

#[test]
fn a_wrong_password_is_refused() {
    let alice = user("alice");
    server().anyone().post("v3/login", password_login(alice.id(), "wrong")).refused(403, "M_FORBIDDEN");
}

#[test]
fn a_user_who_is_not_there_is_refused_as_a_wrong_password_is() {
    let nobody = server().anyone().post("v3/login", password_login("nobody-at-all", PASSWORD));
    nobody.refused(403, "M_FORBIDDEN");
}

#[test]
fn a_user_of_another_server_cannot_log_in() {
    let elsewhere = password_login("@alice:elsewhere.test", PASSWORD);
    server().anyone().post("v3/login", elsewhere).refused(403, "M_FORBIDDEN");
}

#[test]
fn an_unknown_type_of_login_is_refused() {
    let answer = server().anyone().post("v3/login", json!({ "type": "m.login.by_magic" }));
    assert_eq!(answer.status(), 400, "{}", answer.describe());
}

#[test]
fn a_login_without_a_password_is_refused() {
    let alice = user("alice");
    let body =
        json!({ "type": "m.login.password", "identifier": { "type": "m.id.user", "user": alice.id() } });
    assert_eq!(server().anyone().post("v3/login", body).status(), 400);
}

#[test]
fn a_login_by_mail_address_is_refused() {
    let body = json!({
        "type": "m.login.password", "password": PASSWORD,
        "identifier": { "type": "m.id.thirdparty", "medium": "email", "address": "a@here.test" },
    });
    server().anyone().post("v3/login", body).refused(403, "M_FORBIDDEN");
}

#[test]
fn application_services_cannot_log_in_as_there_are_none() {
    let body = json!({
        "type": "m.login.application_service",
        "identifier": { "type": "m.id.user", "user": user("alice").id() },
    });
    server().anyone().with_token("as_token").post("v3/login", body).refused(403, "M_FORBIDDEN");
}

#[test]
fn where_passwords_are_off_they_are_not_offered_and_do_not_work() {
    let server = Server::with(PROGRAM, &[("passwords.enabled", "false")]);
    let alice = server.register("alice");
    let flows = server.anyone().get("v3/login").ok();
    assert!(!fields(&array(&flows["flows"]), "type").contains(&"m.login.password".to_owned()));
    assert!(server.anyone().post("v3/login", password_login(alice.id(), PASSWORD)).status() >= 400);
    assert_eq!(alice.get("v3/capabilities").ok()["capabilities"]["m.change_password"]["enabled"], false);
}

// ---- login tokens

fn login_token(alice: &Client) -> String {
    text(&alice.confirmed(Method::POST, "v1/login/get_token", json!({})).ok()["login_token"])
}

#[test]
fn a_login_token_logs_the_same_user_in() {
    let alice = user("alice");
    let body = json!({ "type": "m.login.token", "token": login_token(&alice) });
    let answer = server().anyone().post("v3/login", body).ok();
    assert_eq!(answer["user_id"], alice.id());
    assert_ne!(answer["device_id"], alice.device());
}

#[test]
fn a_login_token_works_once() {
    let body = json!({ "type": "m.login.token", "token": login_token(&user("alice")) });
    server().anyone().post("v3/login", body.clone()).done();
    server().anyone().post("v3/login", body).refused(403, "M_FORBIDDEN");
}

#[test]
fn a_login_token_nobody_gave_is_refused() {
    let body = json!({ "type": "m.login.token", "token": "made-up" });
    server().anyone().post("v3/login", body).refused(403, "M_FORBIDDEN");
}

#[test]
fn a_login_token_has_to_be_confirmed_by_password() {
    let answer = user("alice").post("v1/login/get_token", json!({}));
    assert_eq!(answer.status(), 401);
    assert_eq!(answer["flows"][0]["stages"], json!(["m.login.password"]));
}

// ---- refreshing

#[test]
fn without_asking_there_is_no_refresh_token_and_no_expiry() {
    let body = password_login(user("alice").id(), PASSWORD);
    let answer = server().anyone().post("v3/login", body).ok();
    assert!(answer.get("refresh_token").is_none());
    assert!(answer.get("expires_in_ms").is_none());
}

#[test]
fn a_refresh_gives_a_new_access_token_for_the_same_device() {
    let phone = user("alice").log_in_with(json!({ "refresh_token": true }));
    let body = json!({ "refresh_token": phone.refresh_token() });
    let answer = server().anyone().post("v3/refresh", body).ok();
    assert!(answer["expires_in_ms"].is_u64());
    let fresh = phone.with_token(&text(&answer["access_token"]));
    assert_ne!(fresh.token(), phone.token());
    assert_eq!(fresh.get("v3/account/whoami").ok()["device_id"], phone.device());
}

#[test]
fn the_old_access_token_ends_with_the_refresh() {
    let phone = user("alice").log_in_with(json!({ "refresh_token": true }));
    let answer = server().anyone().post("v3/refresh", json!({ "refresh_token": phone.refresh_token() })).ok();
    let fresh = phone.with_token(&text(&answer["access_token"]));
    fresh.get("v3/account/whoami").done();
    phone.get("v3/account/whoami").refused(401, "M_UNKNOWN_TOKEN");
}

#[test]
fn a_lost_answer_to_a_refresh_can_be_asked_for_again() {
    let phone = user("alice").log_in_with(json!({ "refresh_token": true }));
    let body = json!({ "refresh_token": phone.refresh_token() });
    server().anyone().post("v3/refresh", body.clone()).done();
    // The old refresh token stays good until the new one, or the new access token, is used.
    let answer = server().anyone().post("v3/refresh", body).ok();
    phone.with_token(&text(&answer["access_token"])).get("v3/account/whoami").done();
}

#[test]
fn a_refresh_token_that_was_followed_by_a_used_one_is_spent() {
    let phone = user("alice").log_in_with(json!({ "refresh_token": true }));
    let body = json!({ "refresh_token": phone.refresh_token() });
    let answer = server().anyone().post("v3/refresh", body.clone()).ok();
    phone.with_token(&text(&answer["access_token"])).get("v3/account/whoami").done();
    let answer = server().anyone().post("v3/refresh", body);
    assert_eq!(answer.status(), 401, "{}", answer.describe());
}

#[test]
fn an_unknown_refresh_token_is_refused() {
    let answer = server().anyone().post("v3/refresh", json!({ "refresh_token": "made-up" }));
    answer.refused(401, "M_UNKNOWN_TOKEN");
}

#[test]
fn an_expired_access_token_logs_out_softly_and_can_be_refreshed() {
    let server = Server::with(PROGRAM, &[("sessions.access_token_lifetime_ms", "10000")]);
    let phone = server.register("alice").log_in_with(json!({ "refresh_token": true }));
    phone.get("v3/account/whoami").done();
    let expired = (0..300).map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        phone.get("v3/account/whoami")
    });
    let answer = expired.into_iter().find(|answer| answer.status() != 200).expect("the token expires");
    assert_eq!(answer.refused(401, "M_UNKNOWN_TOKEN")["soft_logout"], true);
    let answer = phone.post("v3/refresh", json!({ "refresh_token": phone.refresh_token() })).ok();
    let fresh = phone.with_token(&text(&answer["access_token"]));
    assert_eq!(fresh.get("v3/account/whoami").ok()["device_id"], phone.device());
}

#[test]
fn a_refresh_token_is_good_for_as_long_as_its_device() {
    let phone = user("alice").log_in_with(json!({ "refresh_token": true }));
    phone.post("v3/logout", json!({})).done();
    let answer = server().anyone().post("v3/refresh", json!({ "refresh_token": phone.refresh_token() }));
    answer.refused(401, "M_UNKNOWN_TOKEN");
}

// ---- logging out

#[test]
fn a_logout_ends_the_token_and_the_device() {
    let alice = user("alice");
    let phone = alice.log_in_again();
    phone.post("v3/logout", json!({})).done();
    let answer = phone.get("v3/account/whoami").refused(401, "M_UNKNOWN_TOKEN");
    assert_ne!(answer["soft_logout"], true);
    alice.get(&format!("v3/devices/{}", phone.device())).refused(404, "M_NOT_FOUND");
    alice.get("v3/account/whoami").done();
}

#[test]
fn a_logout_of_all_ends_every_device() {
    let alice = user("alice");
    let phone = alice.log_in_again();
    phone.post("v3/logout/all", json!({})).done();
    phone.get("v3/account/whoami").refused(401, "M_UNKNOWN_TOKEN");
    alice.get("v3/account/whoami").refused(401, "M_UNKNOWN_TOKEN");
}

#[test]
fn a_logout_needs_a_good_token() {
    server().anyone().post("v3/logout", json!({})).refused(401, "M_MISSING_TOKEN");
    server().anyone().with_token("nonsense").post("v3/logout", json!({})).refused(401, "M_UNKNOWN_TOKEN");
}

#[test]
fn sessions_live_through_a_restart() {
    let server = Server::start(PROGRAM);
    let alice = server.register("alice");
    let phone = alice.log_in_with(json!({ "refresh_token": true }));
    let gone = alice.log_in_again();
    gone.post("v3/logout", json!({})).done();
    server.restart();
    assert_eq!(alice.get("v3/account/whoami").ok()["device_id"], alice.device());
    gone.get("v3/account/whoami").refused(401, "M_UNKNOWN_TOKEN");
    server.anyone().post("v3/refresh", json!({ "refresh_token": phone.refresh_token() })).done();
}
