//! What whoever runs the server sees: health, metrics, the command line, start and stop.

use super::*;
use postern_world::Link;

#[test]
fn a_working_server_says_that_it_lives_and_is_ready() {
    let link = server().link();
    for (path, status) in [("live", "live"), ("ready", "ready")] {
        let answer = link.send(&Method::GET, &format!("/_postern/health/{path}"), &[], "").unwrap();
        assert_eq!(answer.ok(), json!({ "status": status }));
    }
}

#[test]
fn metrics_are_on_their_own_listener_in_the_format_of_prometheus() {
    server().anyone().get("versions").done();
    let metrics = Link::to(&server().metrics_address()).send(&Method::GET, "/metrics", &[], "").unwrap();
    assert_eq!(metrics.status(), 200);
    let text = String::from_utf8(metrics.bytes().to_vec()).unwrap();
    assert!(text.contains("# TYPE postern_"), "{text}");
    assert!(text.contains("postern_connections"), "{text}");
}

#[test]
fn clients_do_not_reach_the_metrics() {
    server().anyone().get("/metrics").refused(404, "M_UNRECOGNIZED");
}

#[test]
fn the_listener_of_metrics_has_nothing_else() {
    let link = Link::to(&server().metrics_address());
    let answer = link.send(&Method::GET, "/_matrix/client/versions", &[], "").unwrap();
    assert_eq!(answer.status(), 404);
}

#[test]
fn a_server_that_is_asked_to_end_answers_who_waits_and_ends_well() {
    let server = Server::start(PROGRAM);
    let alice = server.register("alice");
    let since = alice.now();
    let waiting = std::thread::spawn(move || alice.sync_with(&format!("timeout=60000&since={since}")));
    let _ = server.register("bob").sync(None);
    let status = server.terminate();
    assert!(status.success(), "{status}");
    // The waiting sync was answered, or the connection closed before it began to wait.
    let _ = waiting.join();
}

#[test]
fn a_second_server_on_the_same_data_is_refused() {
    let server = Server::start(PROGRAM);
    let output = server.run(&["serve"]);
    assert!(!output.status.success());
    server.register("alice").get("v3/account/whoami").done();
}

#[test]
fn the_doctor_finds_nothing_after_ordinary_use() {
    let server = Server::start(PROGRAM);
    let (alice, bob) = (server.register("alice"), server.register("bob"));
    let room = alice.create_room_with(&[&bob]);
    let event = bob.send_text(&room, "hello");
    alice.redact(&room, &event);
    bob.leave(&room);
    assert!(server.terminate().success());
    let output = server.run(&["doctor"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn a_wrong_setting_is_named_with_what_would_be_right() {
    let server = Server::prepare(PROGRAM, &[("limits.max_connections", "many")]);
    let output = server.run(&["config", "check"]);
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("limits.max_connections") && said.contains("many"), "{said}");
}

#[test]
fn an_unknown_setting_is_refused_with_the_one_that_may_have_been_meant() {
    let server = Server::prepare(PROGRAM, &[("server.nmae", "x")]);
    let output = server.run(&["config", "check"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("server.name"));
}

#[test]
fn the_shown_configuration_has_no_secret() {
    let server = Server::prepare(PROGRAM, &[]);
    let output = server.run(&["config", "show"]);
    assert!(output.status.success());
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("shared_secret") && !said.contains(postern_world::SHARED_SECRET), "{said}");
}

#[test]
fn a_backup_of_the_running_server_brings_back_everything_up_to_then() {
    let server = Server::start(PROGRAM);
    let alice = server.register("alice");
    let room = alice.create_public_room();
    let kept = alice.send_text(&room, "kept");
    let backups = server.directory().join("backups");
    let output = server.run(&["backup", "create", backups.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lost = alice.send_text(&room, "after the backup");
    let output = server.run(&["backup", "verify", backups.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));

    server.terminate();
    std::fs::remove_dir_all(server.directory().join("graph")).unwrap();
    let output = server.run(&["backup", "restore", backups.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    server.start_again();
    alice.event(&room, &kept).done();
    alice.event(&room, &lost).refused(404, "M_NOT_FOUND");
}
