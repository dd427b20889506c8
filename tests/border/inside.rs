//! Who inside an enclave may know what.

use crate::enclaves::{Enclave, content, label};
use postern_world::{Seat, enc};
use serde_json::json;

#[test]
fn users_read_up_to_their_own_clearance() {
    let more = "[[user]]\nid = \"@officer*\"\nclearance = \"Company CONFIDENTIAL\"\n";
    let enclave = Enclave::start(&Seat::take(), "Company INTERNAL", &[], more);
    let (officer, clerk) = (enclave.register("officer"), enclave.register("clerk"));
    let room = officer.create_room(json!({
        "preset": "private_chat",
        "creation_content": { "io.postern.label": label("CONFIDENTIAL"), "io.postern.floor": label("INTERNAL") },
        "invite": [clerk.id()],
        "name": "canary in the name",
    }));
    clerk.join(&room);
    let since = clerk.now();
    let secret = officer.send_text(&room, "the canary sings");
    let open = officer.send(
        &room,
        "m.room.message",
        json!({ "msgtype": "m.text", "body": "lunch at noon", "io.postern.label": label("INTERNAL") }),
    );
    let seen = clerk.sync_until_event(&since, &room, &open);
    assert!(!seen.to_string().contains("canary"), "{seen}");
    assert!(!clerk.sync(None).to_string().contains("canary"));
    assert_eq!(clerk.event(&room, &secret).status(), 404);
    assert_eq!(content(&clerk, &room, &open)["body"], "lunch at noon");
    let name = clerk.state(&room, "m.room.name", "");
    assert!(!name.body().to_string().contains("canary"), "{}", name.describe());
    assert!(!clerk.messages(&room, "dir=b&limit=100").to_string().contains("canary"));
    let search = json!({ "search_categories": { "room_events": { "search_term": "canary" } } });
    assert!(!clerk.post("/_matrix/client/v3/search", search).body().to_string().contains("sings"));
    // Nor is a name guessed at.
    let list = |who: &postern_world::Client| {
        let filters = json!({ "room_name_like": "canary" });
        let list =
            json!({ "ranges": [[0, 9]], "timeline_limit": 0, "required_state": [], "filters": filters });
        let body = json!({ "lists": { "rooms": list } });
        who.post("unstable/org.matrix.simplified_msc3575/sync?timeout=0", body).ok()["lists"]["rooms"]["count"]
            .clone()
    };
    assert_eq!((list(&officer), list(&clerk)), (json!(1), json!(0)));
    // Who is not cleared for what they want to say does not say it.
    clerk
        .try_send(&room, "m.room.message", json!({ "msgtype": "m.text", "body": "at the room's label" }))
        .refused(403, "M_FORBIDDEN");
    let own = json!({ "msgtype": "m.text", "body": "hm", "io.postern.label": label("INTERNAL") });
    clerk.send(&room, "m.room.message", own);
}

#[test]
fn a_room_is_entered_by_who_is_cleared_for_it() {
    let more = "[[user]]\nid = \"@officer*\"\nclearance = \"Company CONFIDENTIAL\"\n";
    let enclave = Enclave::start(&Seat::take(), "Company INTERNAL", &[], more);
    let (officer, clerk) = (enclave.register("officer"), enclave.register("clerk"));
    let above = json!({ "creation_content": { "io.postern.label": label("CONFIDENTIAL") } });
    clerk.post("/_matrix/client/v3/createRoom", above.clone()).refused(403, "M_FORBIDDEN");
    let room = officer.create_room(json!({
        "preset": "public_chat",
        "visibility": "public",
        "name": "canary",
        "creation_content": above["creation_content"],
    }));
    // It looks like none.
    clerk.try_join(&room).refused(404, "M_NOT_FOUND");
    let invite = json!({ "user_id": clerk.id() });
    officer
        .post(&format!("/_matrix/client/v3/rooms/{}/invite", enc(&room)), invite)
        .refused(403, "M_FORBIDDEN");
    assert!(!clerk.get("/_matrix/client/v3/publicRooms").body().to_string().contains("canary"));
    assert!(officer.get("/_matrix/client/v3/publicRooms").body().to_string().contains("canary"));
    let hierarchy = clerk.get(&format!("/_matrix/client/v1/rooms/{}/hierarchy", enc(&room)));
    assert_eq!(hierarchy.status(), 403, "{}", hierarchy.describe());
}

#[test]
fn what_is_wrong_in_the_borders_directory_is_told_and_changes_nothing() {
    let enclave = Enclave::start(&Seat::take(), "Company CONFIDENTIAL", &[], "");
    let alice = enclave.register("alice");
    let request = json!({ "creation_content": { "io.postern.label": label("CONFIDENTIAL") } });
    let room = alice.create_room(request.clone());
    enclave.write("border.toml", "default_clearance = \"Company SECRET\"\nnonsense = 1\n");
    assert!(enclave.reread().contains("nonsense"));
    enclave.write("border.toml", "default_clearance = \"Company SECRET\"\n");
    let log = enclave.reread();
    assert!(log.contains("default_clearance") && log.contains("SECRET"), "{log}");
    alice.send_text(&room, "still here");
    enclave.write("policies/none.cedar", "forbid (principal, action == Action::\"send\", resource");
    enclave.write("border.toml", "default_clearance = \"Company CONFIDENTIAL\"\n");
    assert!(enclave.reread().contains("none.cedar"));
    alice.send_text(&room, "still here");
    enclave.write(
        "policies/none.cedar",
        "@id(\"quiet\") @reason(\"quiet hours\")\nforbid (principal, action == Action::\"send\", resource);",
    );
    assert!(enclave.reread().contains("the border was read again"));
    let refused = alice.try_send(&room, "m.room.message", json!({ "msgtype": "m.text", "body": "no" }));
    assert!(refused.refused(403, "M_FORBIDDEN")["error"].to_string().contains("quiet hours (quiet)"));
    enclave.write("border.toml", "default_clearance = \"Company INTERNAL\"\n");
    enclave.reread();
    alice.post("/_matrix/client/v3/createRoom", request).refused(403, "M_FORBIDDEN");
}

#[test]
fn a_policy_on_joining_holds_however_somebody_joins() {
    let enclave = Enclave::start(&Seat::take(), "Company INTERNAL", &[], "");
    let policy = "@id(\"no-temps\") forbid (principal is User, action == Action::\"join\", resource)\n\
                  when { principal.localpart like \"temp*\" };";
    enclave.write("policies/temps.cedar", policy);
    assert!(enclave.reread().contains("the border was read again"));
    let (officer, temp) = (enclave.register("officer"), enclave.register("temp"));
    let room = officer.create_public_room();
    let joins = |how: postern_world::Answer| {
        assert_ne!(how.status(), 200, "{}", how.describe());
        assert!(
            temp.get("/_matrix/client/v3/joined_rooms").ok()["joined_rooms"].as_array().unwrap().is_empty()
        );
    };
    joins(temp.try_join(&room));
    let member = json!({ "membership": "join" });
    joins(temp.try_set_state(&room, "m.room.member", temp.id(), member.clone()));
    joins(temp.try_knock(&room, ""));
}
