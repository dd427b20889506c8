//! What the server says about itself to its operators.

use crate::{Mallory, server_with};
use postern_world::{Link, Method, PASSWORD, enc};
use serde_json::json;

#[test]
fn attack_41_neither_log_nor_metrics_have_tokens_passwords_or_messages() {
    let here = server_with(&[("log.level", "debug")]);
    let mallory = Mallory::new();
    let (alice, eve) = (here.register("alice"), mallory.user("eve"));
    let room = alice.create_room(json!({ "preset": "public_chat", "name": "a confidential name" }));
    mallory.join(&here, &room, &eve);
    alice.send_text(&room, "a confidential message");
    let said = mallory.text(&room, &eve, "a confidential answer");
    mallory.tell(&here, &said);
    crate::until(|| alice.event(&room, &said.id).status() == 200, "it arrives");
    let refreshed = alice.log_in_with(json!({ "refresh_token": true }));
    let wrong = json!({ "type": "m.login.password", "password": "a confidential password",
        "identifier": { "type": "m.id.user", "user": alice.id() } });
    here.anyone().post("v3/login", wrong).refused(403, "M_FORBIDDEN");
    alice
        .with_token("an-unknown-confidential-token")
        .get("v3/account/whoami")
        .refused(401, "M_UNKNOWN_TOKEN");
    let in_query = format!("/_matrix/client/v3/account/whoami?access_token={}", enc(alice.token()));
    let _ = Link::to(&here.address()).send(&Method::GET, &in_query, &[], "").unwrap();
    let openid = alice.post(&format!("v3/user/{}/openid/request_token", alice.id_in_path()), json!({})).ok();
    // What goes wrong is told, and tells no more.
    let rejected = mallory.room(&room);
    let content = json!({ "users": { &eve: 100 }, "note": "a confidential note" });
    let rejected = mallory.seal(&rejected, rejected.draft(&eve, "m.room.power_levels", Some(""), content));
    mallory.tell(&here, &rejected);
    crate::fate(&here, &rejected.id, "is rejected");
    let broken = format!("/_matrix/federation/v1/send/{}", crate::peer::number());
    mallory.ask_text(&here, Method::PUT, &broken, Some("{\"pdus\":[{\"body\":\"a confidential mistake\"]}"));
    let _ = alice
        .loose()
        .post(&format!("v3/rooms/{}/invite", enc(&room)), json!({ "user_id": "a confidential user" }));
    let _ = alice.upload("text/plain", Some("a confidential name.txt"), b"a confidential file");
    let metrics = Link::to(&here.metrics_address()).send(&Method::GET, "/metrics", &[], "").unwrap();
    let metrics = String::from_utf8_lossy(metrics.bytes()).into_owned();
    let openid = openid["access_token"].as_str().unwrap().to_owned();
    let refresh = refreshed.refresh_token().unwrap().to_owned();
    for (place, text) in [("log", here.log()), ("standard output", here.printed()), ("metrics", metrics)] {
        for secret in [alice.token(), refreshed.token(), &refresh, &openid, PASSWORD, "confidential"] {
            let found = text.lines().find(|line| line.contains(secret));
            assert!(found.is_none(), "{secret} stands in the {place}: {}", found.unwrap_or_default());
        }
    }
}
