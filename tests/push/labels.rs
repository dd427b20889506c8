//! What push gateways are told where rooms are labelled.

use crate::{
    SETTINGS,
    enclaves::{Enclave, label},
    gateway::Gateway,
    pusher, set_pusher,
};
use postern_world::{Client, Seat};
use serde_json::{Value, json};

const WORD: &str = "kingfisher";

fn enclave(more: &str) -> Enclave {
    Enclave::start_with(&Seat::take(), "Company CONFIDENTIAL", &[], more, &SETTINGS)
}

/// Two people with a room that has a name and, if given, a label.
fn room(enclave: &Enclave, class: Option<&str>) -> (Client, Client, String) {
    let (alice, bob) = (enclave.register("alice"), enclave.register("bob"));
    let mut request = json!({ "preset": "private_chat", "name": WORD, "invite": [bob.id()] });
    if let Some(class) = class {
        request["creation_content"] = json!({ "io.postern.label": label(class) });
    }
    let room = alice.create_room(request);
    bob.join(&room);
    (alice, bob, room)
}

/// What a gateway hears of a message with the word.
fn told(gateway: &Gateway, (alice, bob, room): &(Client, Client, String)) -> Value {
    set_pusher(bob, pusher(bob.id(), &gateway.url()));
    gateway.until_event(&alice.send_text(room, WORD))
}

#[test]
fn of_labelled_rooms_gateways_are_told_ids_and_nothing_more() {
    let gateway = Gateway::start();
    let enclave = enclave("");
    let open = told(&gateway, &room(&enclave, None));
    assert!(open["content"]["body"] == WORD && open["room_name"] == WORD, "{open}");
    for class in ["INTERNAL", "CONFIDENTIAL"] {
        let place = room(&enclave, Some(class));
        let labelled = told(&gateway, &place);
        assert!(
            !labelled.to_string().contains(WORD) && !labelled.to_string().contains("alice"),
            "{labelled}"
        );
        assert_eq!((&labelled["room_id"], &labelled["counts"]), (&json!(place.2), &json!({ "unread": 1 })));
    }
}

#[test]
fn an_officer_says_up_to_what_gateways_are_told() {
    let gateway = Gateway::start();
    let enclave = enclave("[push]\ncontent = \"Company INTERNAL\"\nevent_ids = \"Company INTERNAL\"\n");
    let internal = told(&gateway, &room(&enclave, Some("INTERNAL")));
    assert_eq!(internal["content"]["body"], WORD);
    let (alice, bob, confidential) = room(&enclave, Some("CONFIDENTIAL"));
    let open = alice.create_room(json!({ "preset": "private_chat", "invite": [bob.id()] }));
    bob.join(&open);
    set_pusher(&bob, pusher("key", &gateway.url()));
    alice.send_text(&confidential, WORD);
    gateway.until_event(&alice.send_text(&open, "open"));
    assert!(gateway.heard().iter().all(|heard| heard["room_id"] != confidential.as_str()));
    // It is unread all the same.
    let counts = bob.sync(None)["rooms"]["join"][&confidential]["unread_notifications"].clone();
    assert_eq!(counts["notification_count"], 1);
}

#[test]
fn a_device_that_is_not_cleared_is_not_told() {
    let gateway = Gateway::start();
    let enclave = enclave("[[device]]\nid = \"PHONE\"\nclearance = \"Company INTERNAL\"\n");
    let (alice, bob, confidential) = room(&enclave, Some("CONFIDENTIAL"));
    let phone = bob.log_in_with(json!({ "device_id": "PHONE" }));
    set_pusher(&phone, pusher("phone", &gateway.url()));
    set_pusher(&bob, pusher("desk", &gateway.url()));
    let internal = alice.create_room(json!({
        "preset": "private_chat",
        "creation_content": { "io.postern.label": label("INTERNAL") },
        "invite": [bob.id()],
    }));
    bob.join(&internal);
    alice.send_text(&confidential, WORD);
    let low = alice.send_text(&internal, "low");
    for key in ["phone", "desk"] {
        gateway.until(|heard| heard["event_id"] == low.as_str() && heard["devices"][0]["pushkey"] == key);
    }
    let heard = gateway.heard();
    let of_confidential = heard.iter().filter(|heard| heard["room_id"] == confidential.as_str());
    let keys: Vec<&Value> = of_confidential.map(|heard| &heard["devices"][0]["pushkey"]).collect();
    assert_eq!(keys, ["desk"]);
}

#[test]
fn who_is_not_cleared_for_a_message_is_not_notified_of_it() {
    let gateway = Gateway::start();
    let enclave = enclave("[[user]]\nid = \"@clerk*\"\nclearance = \"Company INTERNAL\"\n");
    let (officer, clerk) = (enclave.register("officer"), enclave.register("clerk"));
    let room = crate::enclaves::mixed_room(&officer, &clerk);
    clerk.join(&room);
    set_pusher(&clerk, pusher("key", &gateway.url()));
    officer.send_text(&room, WORD);
    let low = json!({ "msgtype": "m.text", "body": "low", "io.postern.label": label("INTERNAL") });
    let low = officer.send(&room, "m.room.message", low);
    let told = gateway.until_event(&low);
    assert_eq!(told["counts"], json!({ "unread": 1 }));
    assert!(!Value::from(gateway.heard()).to_string().contains(WORD));
    let listed = clerk.get("v3/notifications").ok();
    assert!(!listed.to_string().contains(WORD), "{listed}");
}
