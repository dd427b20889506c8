//! Where the rules of a room carry something into its state that the border did not let in.

use super::{CANARY, Stage, enclaves::label};
use crate::peer::{fate, until};
use serde_json::json;

#[test]
fn a_peer_whose_state_counts_though_it_was_not_let_in_is_removed_where_the_settings_say_so() {
    let stage = Stage::with("", "when_overruled = \"remove_peer\"");
    let officer = stage.high.server.anyone().register_by_secret("officer", true);
    let peers = || officer.get("/_postern/border/peers").ok();
    stage.alice.change_power_levels(&stage.room, |levels| levels["events"]["m.room.name"] = json!(0));
    stage.settle();
    let content = json!({ "name": CANARY, "io.postern.label": label("CONFIDENTIAL") });
    let named = stage.mallory.make(&stage.room, &stage.eve, "m.room.name", Some(""), content);
    stage.mallory.tell(&stage.high.server, &named);
    fate(&stage.high.server, &named.id, "is not accredited for it");
    // Kept out for good, it counts all the same once something follows on it.
    let quarantined = format!("/_postern/border/quarantine/{}", postern_world::enc(&named.id));
    officer.delete(&quarantined).done();
    assert_eq!(peers()[0]["name"], stage.mallory.name());
    stage.hear();
    fate(&stage.high.server, &named.id, "a state event that was not let in counts in its room");
    until(|| peers() == json!([]), "the peer is removed");
    let refused = stage.mallory.transact(&stage.high.server, &[], &[]);
    assert_eq!(refused.status(), 403, "{}", refused.describe());
    // Nor is it one after a restart, though it stands in the file.
    stage.high.server.kill();
    stage.high.server.start_again();
    assert_eq!(peers(), json!([]));
}
