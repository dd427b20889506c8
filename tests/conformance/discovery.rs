//! API versions, server discovery, capabilities, API standards (specification: API standards; server discovery;
//! capabilities negotiation; web browser clients).

use super::*;

#[test]
fn versions_are_told_without_a_token() {
    let versions = server().anyone().get("versions").ok();
    assert!(array(&versions["versions"]).contains(&json!("v1.11")));
    assert!(versions["unstable_features"].is_object());
}

#[test]
fn versions_are_told_with_a_token_too() {
    assert_eq!(user("alice").get("versions").status(), 200);
}

#[test]
fn capabilities_need_a_token() {
    server().anyone().get("v3/capabilities").refused(401, "M_MISSING_TOKEN");
}

#[test]
fn capabilities_name_room_versions_and_their_default() {
    let capabilities = user("alice").get("v3/capabilities").ok();
    let versions = &capabilities["capabilities"]["m.room_versions"];
    let default = text(&versions["default"]);
    assert_eq!(versions["available"][&default], "stable");
    for version in 1..=12 {
        assert_eq!(versions["available"][version.to_string()], "stable", "{version}");
    }
}

#[test]
fn capabilities_say_that_passwords_and_profiles_can_be_changed() {
    let capabilities = user("alice").get("v3/capabilities").ok();
    for name in ["m.change_password", "m.set_displayname", "m.set_avatar_url", "m.profile_fields"] {
        assert_eq!(capabilities["capabilities"][name]["enabled"], true, "{name}");
    }
    assert_eq!(capabilities["capabilities"]["m.3pid_changes"]["enabled"], false);
}

#[test]
fn well_known_is_absent_while_the_server_has_no_public_address() {
    server().anyone().get("/.well-known/matrix/client").refused(404, "M_NOT_FOUND");
    server().anyone().get("/.well-known/matrix/support").refused(404, "M_NOT_FOUND");
}

#[test]
fn well_known_tells_the_public_address_and_whom_to_ask() {
    let server = Server::with(
        PROGRAM,
        &[
            ("server.public_base_url", "https://matrix.here.test"),
            ("server.support_email", "help@here.test"),
            ("server.support_page", "https://help.here.test/"),
        ],
    );
    let anyone = server.anyone();
    let answer = anyone.get("/.well-known/matrix/client");
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.ok()["m.homeserver"]["base_url"], "https://matrix.here.test");
    let support = anyone.get("/.well-known/matrix/support").ok();
    assert_eq!(support["contacts"][0]["email_address"], "help@here.test");
    assert_eq!(support["support_page"], "https://help.here.test/");
}

#[test]
fn a_login_answer_repeats_the_well_known_address() {
    let server = Server::with(PROGRAM, &[("server.public_base_url", "https://matrix.here.test")]);
    let alice = server.register("alice");
    let body = json!({
        "type": "m.login.password", "password": PASSWORD,
        "identifier": { "type": "m.id.user", "user": alice.id() },
    });
    let answer = server.anyone().post("v3/login", body).ok();
    assert_eq!(answer["well_known"]["m.homeserver"]["base_url"], "https://matrix.here.test");
}

#[test]
fn an_unknown_endpoint_is_unrecognized() {
    for path in ["v3/no_such_thing", "v99/sync", "/_matrix/nothing", "/nothing/at/all"] {
        server().anyone().get(path).refused(404, "M_UNRECOGNIZED");
    }
}

#[test]
fn a_wrong_method_is_unrecognized() {
    let alice = user("alice");
    for (method, path) in [
        (Method::PUT, "v3/sync"),
        (Method::DELETE, "v3/login"),
        (Method::GET, "v3/createRoom"),
        (Method::POST, "v3/account/whoami"),
        (Method::PATCH, "v3/profile/@a:here.test/displayname"),
    ] {
        alice.request(method, path, None).refused(405, "M_UNRECOGNIZED");
    }
}

#[test]
fn browsers_of_any_origin_may_ask() {
    let origin = [("origin", "https://app.example.org")];
    let answer = server().anyone().send_bytes(Method::GET, "versions", &origin, "");
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
}

#[test]
fn a_browser_that_asks_first_is_told_what_it_may_do() {
    let headers = [
        ("origin", "https://app.example.org"),
        ("access-control-request-method", "PUT"),
        ("access-control-request-headers", "authorization,content-type"),
    ];
    let path = "/_matrix/client/v3/rooms/!a:b/send/m.room.message/1";
    let answer = server().anyone().link().send(&Method::OPTIONS, path, &headers, "").unwrap();
    assert_eq!(answer.status(), 200);
    let methods = answer.header("access-control-allow-methods").unwrap().to_owned();
    for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS"] {
        assert!(methods.contains(method), "{methods}");
    }
    let allowed = answer.header("access-control-allow-headers").unwrap().to_lowercase();
    for header in ["x-requested-with", "content-type", "authorization"] {
        assert!(allowed.contains(header), "{allowed}");
    }
}

#[test]
fn errors_carry_the_headers_for_browsers_too() {
    let origin = [("origin", "https://app.example.org")];
    let answer = server().anyone().send_bytes(Method::GET, "v3/account/whoami", &origin, "");
    assert_eq!((answer.status(), answer.header("access-control-allow-origin")), (401, Some("*")));
}

#[test]
fn answers_are_json_and_say_so() {
    let answer = server().anyone().get("versions");
    assert!(answer.header("content-type").unwrap().starts_with("application/json"));
}

#[test]
fn a_request_without_a_token_misses_it() {
    server().anyone().get("v3/sync").refused(401, "M_MISSING_TOKEN");
}

#[test]
fn a_request_with_a_wrong_token_is_told_that_it_is_unknown() {
    server().anyone().with_token("nonsense").get("v3/sync").refused(401, "M_UNKNOWN_TOKEN");
}

#[test]
fn a_token_may_stand_in_the_query() {
    let alice = user("alice");
    let whoami = alice.without_token().get(&format!("v3/account/whoami?access_token={}", alice.token()));
    assert_eq!(whoami.ok()["user_id"], alice.id());
}

#[test]
fn old_clients_find_the_r0_paths() {
    let alice = user("alice");
    assert_eq!(alice.get("r0/account/whoami").ok()["user_id"], alice.id());
    assert!(alice.get("r0/sync").ok()["next_batch"].is_string());
}

#[test]
fn a_body_that_is_not_json_is_told_apart_from_one_of_a_wrong_shape() {
    let alice = user("alice");
    let broken = alice.send_bytes(Method::POST, "v3/createRoom", &[], "{\"name\": ");
    broken.refused(400, "M_NOT_JSON");
    alice.post("v3/createRoom", json!({ "name": 5 })).refused(400, "M_BAD_JSON");
}

#[test]
fn turn_servers_and_third_party_networks_are_told_to_be_none() {
    let alice = user("alice");
    assert_eq!(alice.get("v3/thirdparty/protocols").ok(), json!({}));
    assert_eq!(alice.loose().get("v3/voip/turnServer").status(), 200);
}
