//! Transactions that are not answered, and are repeated when the peer may know less.

use super::{CANARY, Stage, enclaves::label};
use crate::{listen::Reply, peer::until};
use postern_world::enc;
use serde_json::json;

impl Stage {
    /// Alice says something that comes in a transaction mallory does not answer as it should.
    fn say_unanswered(&self, text: &str) -> String {
        self.settle();
        self.mallory.always("send", Reply::error(500, "M_UNKNOWN"));
        let said = self.say("INTERNAL", text);
        until(|| self.sent().iter().any(|body| body.contains(text)), "it comes");
        said
    }

    /// The transactions that came.
    fn sent(&self) -> Vec<String> {
        self.mallory.seen("send").iter().map(|asked| asked.json().to_string()).collect()
    }
}

#[test]
fn what_a_peer_did_not_answer_is_not_repeated_when_it_may_not_know_the_room_any_more() {
    let stage = Stage::new();
    let open = stage.alice.create_room(json!({
        "preset": "private_chat", "invite": [stage.eve],
        "creation_content": { "io.postern.label": label("PUBLIC") },
    }));
    stage.mallory.join(&stage.high.server, &open, &stage.eve);
    stage.say_unanswered(CANARY);
    let officer = stage.high.server.anyone().register_by_secret("officer", true);
    let path = format!("/_postern/border/peers/{}", enc(stage.mallory.name()));
    officer.put(&path, json!({ "clearance": "Company PUBLIC" })).done();
    let before = stage.sent().len();
    stage.mallory.be_honest();
    let last = stage.alice.send_text(&open, "and that was all");
    stage.mallory.until(&open, "the last word comes", |room| room.has(&last));
    let since = stage.sent().split_off(before);
    // One may have been under way.
    let again = since.iter().filter(|body| body.contains(&stage.room)).count();
    assert!(again <= 1, "{since:?}");
    assert!(since.iter().skip(1).all(|body| !body.contains(CANARY)), "{since:?}");
}

#[test]
fn what_a_peer_did_not_answer_is_not_repeated_once_it_is_redacted() {
    let stage = Stage::new();
    let said = stage.say_unanswered(CANARY);
    stage.alice.redact(&stage.room, &said);
    let before = stage.sent().len();
    stage.mallory.be_honest();
    stage.settle();
    let since = stage.sent().split_off(before);
    assert!(since.iter().skip(1).all(|body| !body.contains(CANARY)), "{since:?}");
    assert_eq!(stage.told(&said), json!({}));
}
