//! Account registration (specification: account registration), and Synapse's endpoint for tools that make accounts.

use super::*;
use postern_world::{SHARED_SECRET, secret};

fn fresh(name: &str) -> String {
    format!("{name}{}", user("n").localpart().trim_start_matches("n-"))
}

fn request(name: &str) -> Value {
    json!({ "username": name, "password": PASSWORD, "auth": { "type": "m.login.dummy" } })
}

#[test]
fn registration_without_auth_tells_the_flows() {
    let body = json!({ "username": fresh("flows"), "password": PASSWORD });
    let answer = server().anyone().post("v3/register", body);
    assert_eq!(answer.status(), 401);
    assert_eq!(answer["flows"][0]["stages"], json!(["m.login.dummy"]));
    assert!(answer["session"].is_string());
}

#[test]
fn registration_gives_a_user_a_device_and_a_token() {
    let name = fresh("carol");
    let answer = server().anyone().post("v3/register", request(&name)).ok();
    assert_eq!(answer["user_id"], format!("@{name}:here.test"));
    let carol = server().anyone().with_token(&text(&answer["access_token"]));
    let whoami = carol.get("v3/account/whoami").ok();
    assert_eq!(whoami["user_id"], answer["user_id"]);
    assert_eq!(whoami["device_id"], answer["device_id"]);
}

#[test]
fn registration_can_name_the_device() {
    let mut body = request(&fresh("carol"));
    body["device_id"] = "PHONE".into();
    body["initial_device_display_name"] = "Carol's phone".into();
    let answer = server().anyone().post("v3/register", body).ok();
    assert_eq!(answer["device_id"], "PHONE");
    let carol = server().anyone().with_token(&text(&answer["access_token"]));
    assert_eq!(carol.get("v3/devices/PHONE").ok()["display_name"], "Carol's phone");
}

#[test]
fn registration_can_leave_out_the_login() {
    let mut body = request(&fresh("carol"));
    body["inhibit_login"] = true.into();
    let answer = server().anyone().post("v3/register", body).ok();
    assert!(answer["user_id"].is_string());
    assert!(answer.get("access_token").is_none());
    assert!(answer.get("device_id").is_none());
}

#[test]
fn registration_can_give_a_refresh_token() {
    let mut body = request(&fresh("carol"));
    body["refresh_token"] = true.into();
    let answer = server().anyone().post("v3/register", body).ok();
    assert!(answer["refresh_token"].is_string());
    assert!(answer["expires_in_ms"].is_u64());
}

#[test]
fn registration_without_a_name_makes_one_up() {
    let body = json!({ "password": PASSWORD, "auth": { "type": "m.login.dummy" } });
    let answer = server().anyone().post("v3/register", body).ok();
    assert!(text(&answer["user_id"]).starts_with('@'));
}

#[test]
fn a_name_in_use_is_refused() {
    let alice = user("alice");
    server().anyone().post("v3/register", request(alice.localpart())).refused(400, "M_USER_IN_USE");
}

#[test]
fn a_name_in_use_is_refused_before_anything_is_asked_for() {
    let alice = user("alice");
    let body = json!({ "username": alice.localpart(), "password": PASSWORD });
    server().anyone().post("v3/register", body).refused(400, "M_USER_IN_USE");
}

#[test]
fn capitals_in_names_are_made_small() {
    let name = fresh("Carol");
    let answer = server().anyone().post("v3/register", request(&name)).ok();
    assert_eq!(answer["user_id"], format!("@{}:here.test", name.to_lowercase()));
}

#[test]
fn names_may_have_the_signs_of_the_grammar() {
    for sign in ["q", "3", ".", "_", "=", "-", "/", "+"] {
        let name = fresh(&format!("chars{sign}"));
        let answer = server().anyone().post("v3/register", request(&name)).ok();
        assert_eq!(answer["user_id"], format!("@{name}:here.test"));
    }
}

#[test]
fn names_may_not_have_other_signs() {
    for sign in ["!", "\"", ":", "?", "\\", "@", "[", "]", "{", "|", "}", "£", "é", "\n", "'", " "] {
        let body = request(&format!("carol{sign}x"));
        server().anyone().post("v3/register", body).refused(400, "M_INVALID_USERNAME");
    }
}

#[test]
fn a_name_that_makes_an_id_too_long_is_refused() {
    server().anyone().post("v3/register", request(&"x".repeat(250))).refused(400, "M_INVALID_USERNAME");
}

#[test]
fn a_short_password_is_weak() {
    let mut body = request(&fresh("carol"));
    body["password"] = "short".into();
    server().anyone().post("v3/register", body).refused(400, "M_WEAK_PASSWORD");
}

#[test]
fn a_password_may_have_any_letters() {
    let name = fresh("carol");
    let mut body = request(&name);
    body["password"] = "übergroße Ωmega 密码 🔑".into();
    server().anyone().post("v3/register", body).done();
    let login = json!({
        "type": "m.login.password", "password": "übergroße Ωmega 密码 🔑",
        "identifier": { "type": "m.id.user", "user": name },
    });
    server().anyone().post("v3/login", login).done();
}

#[test]
fn an_unknown_kind_of_account_is_refused() {
    let answer = server().anyone().loose().post("v3/register?kind=robot", request(&fresh("carol")));
    answer.refused(400, "M_UNRECOGNIZED");
}

#[test]
fn a_free_name_is_available() {
    let answer = server().anyone().get(&format!("v3/register/available?username={}", fresh("free")));
    assert_eq!(answer.ok()["available"], true);
}

#[test]
fn a_name_in_use_is_not_available() {
    let path = format!("v3/register/available?username={}", user("alice").localpart());
    server().anyone().get(&path).refused(400, "M_USER_IN_USE");
}

#[test]
fn an_impossible_name_is_not_available() {
    server().anyone().get("v3/register/available?username=foo%3Abar").refused(400, "M_INVALID_USERNAME");
}

#[test]
fn a_deactivated_users_name_is_not_available() {
    let alice = user("alice");
    alice.confirmed(Method::POST, "v3/account/deactivate", json!({})).done();
    let path = format!("v3/register/available?username={}", alice.localpart());
    server().anyone().get(&path).refused(400, "M_USER_IN_USE");
}

#[test]
fn application_services_cannot_register_as_there_are_none() {
    let mut body = request(&fresh("bridge"));
    body["type"] = "m.login.application_service".into();
    body["auth"] = json!({ "type": "m.login.application_service" });
    let answer = server().anyone().with_token("as_token").loose().post("v3/register", body);
    assert!(answer.status() >= 400, "{}", answer.describe());
}

// ---- by token, and the first administrator

fn by_token(token: &str, session: &Value) -> Value {
    json!({ "type": "m.login.registration_token", "token": token, "session": session })
}

#[test]
fn with_a_registration_token_people_register_and_without_they_do_not() {
    let server =
        Server::with(PROGRAM, &[("registration.mode", "token"), ("registration.token", "open sesame")]);
    let anyone = server.anyone();
    let mut body = json!({ "username": "carol", "password": PASSWORD });
    let challenge = anyone.post("v3/register", body.clone());
    assert_eq!(challenge.status(), 401);
    assert_eq!(challenge["flows"][0]["stages"], json!(["m.login.registration_token"]));

    body["auth"] = json!({ "type": "m.login.dummy", "session": challenge["session"] });
    assert_eq!(anyone.post("v3/register", body.clone()).status(), 401);
    body["auth"] = by_token("wrong", &challenge["session"]);
    assert_eq!(anyone.post("v3/register", body.clone()).status(), 401);
    body["auth"] = by_token("open sesame", &challenge["session"]);
    assert_eq!(anyone.post("v3/register", body).ok()["user_id"], "@carol:here.test");
}

#[test]
fn a_registration_token_can_be_checked_beforehand() {
    let server = Server::with(PROGRAM, &[("registration.mode", "token"), ("registration.token", "sesame")]);
    let check = |token: &str| {
        let path = format!("v1/register/m.login.registration_token/validity?token={token}");
        server.anyone().get(&path).ok()["valid"].clone()
    };
    assert_eq!(check("sesame"), true);
    assert_eq!(check("simsim"), false);
}

#[test]
fn nobody_registers_where_registration_is_closed() {
    let server = Server::with(PROGRAM, &[("registration.mode", "closed")]);
    let root = server.anyone().register_by_secret("root", true);
    assert!(root.id().starts_with("@root"));
    server.anyone().post("v3/register", request("carol")).refused(403, "M_FORBIDDEN");
}

/// The token that a server without accounts prints, soon after it is ready.
fn printed_token(server: &Server) -> String {
    for _ in 0..500 {
        let printed = server.printed();
        if let Some((_, after)) = printed.split_once("works once:\n")
            && let Some((token, _)) = after.split_once('\n')
        {
            return token.trim().to_owned();
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("no token in {:?}", server.printed());
}

#[test]
fn the_first_start_prints_a_token_that_makes_one_account_and_no_second() {
    let server = Server::with(PROGRAM, &[("registration.mode", "token")]);
    let token = printed_token(&server);
    let anyone = server.anyone();
    let mut body = json!({ "username": "root", "password": PASSWORD });
    let challenge = anyone.post("v3/register", body.clone());
    body["auth"] = by_token(&token, &challenge["session"]);
    assert_eq!(anyone.post("v3/register", body).ok()["user_id"], "@root:here.test");

    let mut body = json!({ "username": "second", "password": PASSWORD });
    let challenge = anyone.post("v3/register", body.clone());
    body["auth"] = by_token(&token, &challenge["session"]);
    assert_eq!(anyone.post("v3/register", body).status(), 401);
}

#[test]
fn the_first_administrator_registers_also_where_registration_is_closed() {
    let server = Server::with(PROGRAM, &[("registration.mode", "closed")]);
    let token = printed_token(&server);
    let mut body = json!({ "username": "root", "password": PASSWORD });
    let challenge = server.anyone().post("v3/register", body.clone());
    assert_eq!(challenge.status(), 401);
    body["auth"] = by_token(&token, &challenge["session"]);
    server.anyone().post("v3/register", body).done();
}

#[test]
fn a_server_with_accounts_prints_no_token() {
    let server = Server::start(PROGRAM);
    printed_token(&server);
    let _ = server.register("alice");
    server.restart();
    server.terminate();
    assert_eq!(server.printed().matches("registration token").count(), 1);
}

// ---- Synapse's endpoint

#[test]
fn tools_register_users_by_the_shared_secret() {
    let carol = server().anyone().register_by_secret("carol", false);
    assert_eq!(carol.get("v3/account/whoami").ok()["user_id"], carol.id());
    assert!(carol.log_in_again().id() == carol.id());
}

#[test]
fn tools_register_administrators_by_the_shared_secret() {
    let root = server().anyone().register_by_secret("root", true);
    let alice = user("alice");
    // What an administrator may do and others may not: to change another's profile.
    let path = format!("v3/profile/{}/displayname", alice.id_in_path());
    root.put(&path, json!({ "displayname": "renamed" })).done();
    user("bob").put(&path, json!({ "displayname": "no" })).refused(403, "M_FORBIDDEN");
}

#[test]
fn a_wrong_mac_is_refused() {
    let anyone = server().anyone();
    let nonce = text(&anyone.get("/_synapse/admin/v1/register").ok()["nonce"]);
    let body = secret::request("another secret", &nonce, &fresh("carol"), PASSWORD, false);
    anyone.post("/_synapse/admin/v1/register", body).refused(403, "M_FORBIDDEN");
}

#[test]
fn a_mac_for_a_user_does_not_make_an_administrator() {
    let anyone = server().anyone();
    let nonce = text(&anyone.get("/_synapse/admin/v1/register").ok()["nonce"]);
    let mut body = secret::request(SHARED_SECRET, &nonce, &fresh("carol"), PASSWORD, false);
    body["admin"] = true.into();
    anyone.post("/_synapse/admin/v1/register", body).refused(403, "M_FORBIDDEN");
}

#[test]
fn a_nonce_can_be_used_once() {
    let anyone = server().anyone();
    let nonce = text(&anyone.get("/_synapse/admin/v1/register").ok()["nonce"]);
    let body = |name: &str| secret::request(SHARED_SECRET, &nonce, name, PASSWORD, false);
    anyone.post("/_synapse/admin/v1/register", body(&fresh("carol"))).done();
    let again = anyone.post("/_synapse/admin/v1/register", body(&fresh("carol")));
    assert_eq!(again.status(), 400, "{}", again.describe());
}

#[test]
fn a_nonce_that_was_never_given_is_refused() {
    let body = secret::request(SHARED_SECRET, "made up", &fresh("carol"), PASSWORD, false);
    assert_eq!(server().anyone().post("/_synapse/admin/v1/register", body).status(), 400);
}

#[test]
fn the_shared_secret_makes_capitals_small_and_refuses_other_signs() {
    let anyone = server().anyone();
    let nonce = || text(&anyone.get("/_synapse/admin/v1/register").ok()["nonce"]);
    let name = fresh("Dave");
    let body = secret::request(SHARED_SECRET, &nonce(), &name, PASSWORD, false);
    let answer = anyone.post("/_synapse/admin/v1/register", body).ok();
    assert_eq!(answer["user_id"], format!("@{}:here.test", name.to_lowercase()));
    let body = secret::request(SHARED_SECRET, &nonce(), "da:ve", PASSWORD, false);
    anyone.post("/_synapse/admin/v1/register", body).refused(400, "M_INVALID_USERNAME");
}

#[test]
fn without_a_shared_secret_the_endpoint_is_not_there() {
    let server = Server::with(PROGRAM, &[("registration.shared_secret", "")]);
    server.anyone().get("/_synapse/admin/v1/register").refused(404, "M_UNRECOGNIZED");
    let body = secret::request("", "nonce", "carol", PASSWORD, true);
    server.anyone().post("/_synapse/admin/v1/register", body).refused(404, "M_UNRECOGNIZED");
}
