//! Where the rules of a room carry something into its state that the border did not let in.

use super::{CANARY, Stage, enclaves::label};
use crate::peer::{fate, until};
use postern_world::Client;
use serde_json::{Value, json};

/// Mallory names the room at a label for which it is not accredited. Nobody is shown that; but what it says next follows on it.
fn overrule(more: &str) -> (Stage, Client, String) {
    let stage = Stage::with("", more);
    let officer = stage.high.server.anyone().register_by_secret("officer", true);
    let mut levels = stage.alice.state(&stage.room, "m.room.power_levels", "").ok();
    levels["events"]["m.room.name"] = 0.into();
    stage.alice.set_state(&stage.room, "m.room.power_levels", "", levels);
    stage.settle();
    let content = json!({ "name": CANARY, "io.postern.label": label("CONFIDENTIAL") });
    let named = stage.mallory.make(&stage.room, &stage.eve, "m.room.name", Some(""), content);
    stage.mallory.tell(&stage.high.server, &named);
    fate(&stage.high.server, &named.id, "is not accredited for it");
    assert!(overruled(&officer).is_empty(), "it is no state yet");
    stage.hear();
    fate(&stage.high.server, &named.id, "an event that was not let in is state of its room");
    (stage, officer, named.id)
}

/// The alarms, as the records say.
fn overruled(officer: &Client) -> Vec<Value> {
    let refusals = officer.get("/_postern/border/refusals").ok();
    let all = refusals["refusals"].as_array().unwrap().iter();
    all.filter(|one| one["action"] == "overruled").cloned().collect()
}

#[test]
fn state_that_was_not_let_in_and_counts_by_the_rules_of_the_room_raises_the_alarm() {
    let (stage, officer, named) = overrule("");
    until(|| !overruled(&officer).is_empty(), "the alarm is in the records");
    let alarm = &overruled(&officer)[0];
    assert_eq!((&alarm["who"], &alarm["what"]), (&json!(stage.eve), &json!(named)));
    assert!(alarm["why"].to_string().contains("is not accredited for it"), "{alarm}");
    // The peer stays, if nobody said otherwise.
    stage.hear();
    let peers = officer.get("/_postern/border/peers").ok();
    assert_eq!(peers[0]["name"], stage.mallory.name());
}

#[test]
fn a_peer_whose_state_overruled_the_border_is_removed_where_the_settings_say_so() {
    let (stage, officer, _) = overrule("when_overruled = \"remove_peer\"");
    until(|| officer.get("/_postern/border/peers").ok() == json!([]), "the peer is removed");
    let refused = stage.mallory.transact(&stage.high.server, &[], &[]);
    assert_eq!(refused.status(), 403, "{}", refused.describe());
    // Nor is it one after a restart, though it stands in the file.
    stage.high.server.kill();
    stage.high.server.start_again();
    assert_eq!(officer.get("/_postern/border/peers").ok(), json!([]));
}
