//! What a peer is due while it cannot be sent anything.

use crate::enclaves::{Enclave, Peer, content, label, together};
use postern_world::{Client, Link, Method, Seat, Server, enc};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Two enclaves that are cleared for all, an officer of the first, somebody of each in a room of the first.
struct Scene {
    high: Enclave,
    low: Enclave,
    officer: Client,
    alice: Client,
    bob: Client,
    room: String,
}

impl Scene {
    fn new() -> Self {
        let (here, there) = (Seat::take(), Seat::take());
        let [high, low] = [(&here, &there), (&there, &here)].map(|(own, other)| {
            Enclave::start(own, "Company CONFIDENTIAL", &[Peer(other, "Company CONFIDENTIAL", "")], "")
        });
        let (alice, bob, room) = together(&high, &low);
        let officer = high.server.anyone().register_by_secret("officer", true);
        let scene = Self { high, low, officer, alice, bob, room };
        let (since, hello) = (scene.bob.now(), scene.alice.send_text(&scene.room, "hello"));
        scene.bob.sync_until_event(&since, &scene.room, &hello);
        scene
    }

    /// Writes what the peer may.
    fn write(&self, entry: Value) {
        let path = format!("/_postern/border/peers/{}", enc(self.low.server.name()));
        self.officer.put(&path, entry).done();
    }

    /// The form in which the peer got an event, as the ledger says.
    fn form(&self, event: &str) -> Value {
        let disclosed = self.officer.get(&format!("/_postern/border/disclosures/event/{}", enc(event))).ok();
        disclosed["servers"][self.low.server.name()]["whole"].clone()
    }
}

/// How many transactions of a server did not reach another.
fn unreached(server: &Server) -> u64 {
    let metrics = Link::to(&server.metrics_address()).send(&Method::GET, "/metrics", &[], "").unwrap();
    let text = String::from_utf8(metrics.bytes().to_vec()).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("postern_outbox_transactions_total{result=\"unreachable\"} "));
    line.map_or(0, |count| count.parse().unwrap())
}

#[track_caller]
fn until(mut so: impl FnMut() -> bool, what: &str) {
    for _ in 0..1_200 {
        if so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("this does not come: {what}");
}

#[test]
fn what_never_left_goes_to_a_peer_as_it_is_cleared_when_it_is_back() {
    let scene = Scene::new();
    scene.low.server.kill();
    let plan = scene.alice.send_text(&scene.room, "the plan");
    until(|| unreached(&scene.high.server) > 0, "the peer is not reached");
    until(|| scene.form(&plan).is_null(), "it is not in the ledger");
    scene.write(json!({ "clearance": "Company INTERNAL" }));
    scene.low.server.start_again();
    scene.bob.send(
        &scene.room,
        "m.room.message",
        json!({ "msgtype": "m.text", "body": "back again", "io.postern.label": label("INTERNAL") }),
    );
    until(|| scene.bob.event(&scene.room, &plan).status() == 200, "it comes");
    assert_eq!(content(&scene.bob, &scene.room, &plan), json!({}));
    assert_eq!(scene.form(&plan), false);
}

#[test]
fn what_a_peer_with_hours_is_due_at_others_waits_for_them() {
    let scene = Scene::new();
    let days = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 86_400;
    // The first day was a Thursday; three days from now it is neither yet, nor in a moment.
    let other = (days + 3 + 3) % 7 + 1;
    let hours = json!([{ "days": [other], "from": 0, "to": 24 }]);
    scene.write(json!({ "clearance": "Company CONFIDENTIAL", "hours": hours }));
    let said = scene.alice.send_text(&scene.room, "while they sleep");
    let to_bob = json!({ "messages": { scene.bob.id(): { "*": { "body": "and a key" } } } });
    scene.alice.put("v3/sendToDevice/org.example.key/1", to_bob).done();
    let profile = format!("/_matrix/client/v3/profile/{}", scene.bob.id_in_path());
    let refused = scene.alice.get(&profile).refused(403, "M_FORBIDDEN");
    assert!(refused["error"].to_string().contains("at other hours"), "{refused}");
    assert!(scene.form(&said).is_null(), "nothing is decided yet");
    assert_eq!(scene.bob.event(&scene.room, &said).status(), 404);
    scene.write(json!({ "clearance": "Company CONFIDENTIAL" }));
    let mut seen = String::new();
    until(
        || {
            seen = scene.bob.sync(None).to_string();
            seen.contains("while they sleep") && seen.contains("and a key")
        },
        "what waited comes",
    );
    assert_eq!(scene.form(&said), true);
}
