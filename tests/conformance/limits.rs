//! Rate limits (specification: rate limiting).

use super::*;

/// Does something until it is refused; what it is refused with.
fn until_refused(mut what: impl FnMut() -> Answer) -> Answer {
    (0..100).map(|_| what()).find(|answer| answer.status() == 429).expect("a limit")
}

fn limited(key: &str) -> Server {
    let burst = format!("rate_limits.{key}_burst");
    let rate = format!("rate_limits.{key}_per_second");
    Server::with(PROGRAM, &[("rate_limits.enabled", "true"), (&burst, "3"), (&rate, "0.01")])
}

#[test]
fn too_many_messages_are_refused_with_the_time_to_wait() {
    let server = limited("message");
    let alice = server.register("alice");
    let room = alice.create_room(json!({}));
    let answer = until_refused(|| alice.try_send(&room, "test.event", json!({})));
    assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    assert!(answer.refused(429, "M_LIMIT_EXCEEDED")["retry_after_ms"].as_u64().unwrap() > 0);
    // The limit is one user's.
    let bob = server.register("bob");
    bob.send_text(&bob.create_room(json!({})), "unhindered");
}

#[test]
fn too_many_attempts_to_log_in_are_refused_though_the_password_is_right() {
    let server = limited("login");
    let alice = server.register("alice");
    let body = json!({
        "type": "m.login.password", "password": "wrong",
        "identifier": { "type": "m.id.user", "user": alice.id() },
    });
    until_refused(|| server.anyone().post("v3/login", body.clone())).refused(429, "M_LIMIT_EXCEEDED");
}

#[test]
fn too_many_registrations_invitations_and_rooms_are_refused() {
    let server = limited("registration");
    let body = json!({ "password": PASSWORD, "auth": { "type": "m.login.dummy" } });
    until_refused(|| server.anyone().post("v3/register", body.clone())).refused(429, "M_LIMIT_EXCEEDED");
    let server = limited("join");
    let alice = server.register("alice");
    until_refused(|| alice.post("v3/createRoom", json!({}))).refused(429, "M_LIMIT_EXCEEDED");
    let server = limited("invite");
    let (alice, bob) = (server.register("alice"), server.register("bob"));
    let room = alice.create_room(json!({}));
    let answer = until_refused(|| {
        let answer = alice.about_member(&room, "invite", bob.id());
        let _ = alice.about_member(&room, "kick", bob.id());
        answer
    });
    answer.refused(429, "M_LIMIT_EXCEEDED");
}
