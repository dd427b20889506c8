//! What is found in whole events and files, as an administrator sets it up.
#![allow(clippy::unwrap_used)]

use postern_guards::{BadSettings, File, Guards, Settings, Verdict};
use proptest::prelude::*;
use serde_json::{Value, json};

fn guards(settings: &str) -> Guards {
    Guards::new(&toml::from_str::<Settings>(settings).unwrap()).unwrap()
}

fn inspected(content: Value) -> Verdict {
    guards("").inspect_event(&content, "m.room.message")
}

fn places(verdict: &Verdict, id: &str) -> Vec<String> {
    verdict
        .findings()
        .iter()
        .filter(|finding| finding.id == id)
        .map(|finding| finding.place.clone())
        .collect()
}

/// Put together here, so that scanners of this repository find none.
fn key() -> String {
    ["AKIA", "QYLPMN5HFIQR7XYA"].concat()
}

const AWS: &str = "secret:aws-access-token";

#[test]
fn a_secret_is_found_wherever_an_event_has_text() {
    let key = key();
    for (content, place) in [
        (json!({ "msgtype": "m.text", "body": format!("it is {key}") }), "/body"),
        (json!({ "formatted_body": format!("<p>{key}</p>") }), "/formatted_body"),
        (json!({ "formatted_body": format!("<img alt='{key}'>") }), "/formatted_body"),
        (json!({ "formatted_body": format!("hello<!-- {key} -->") }), "/formatted_body"),
        (json!({ "formatted_body": "AKIA<b>QYLP</b>MN5HFIQR7XYA" }), "/formatted_body"),
        (json!({ "formatted_body": "&#65;KIAQYLPMN5HFIQR7XYA" }), "/formatted_body"),
        (json!({ "m.new_content": { "body": key } }), "/m.new_content/body"),
        (json!({ "filename": format!("{key}.txt") }), "/filename"),
        (json!({ "topic": key }), "/topic"),
        (json!({ "name": key }), "/name"),
        (json!({ "m.relates_to": { "rel_type": "m.annotation", "key": key } }), "/m.relates_to/key"),
        (
            json!({ "m.poll": { "question": { "m.text": [{ "body": key }] } } }),
            "/m.poll/question/m.text/0/body",
        ),
        (json!({ "m.poll": { "answers": [{ "m.id": key }] } }), "/m.poll/answers/0/m.id"),
        (json!({ key.clone(): true }), ""),
        (json!({ "AKIA-QYLPMN5HFIQR7XYA": { "body": key } }), "/*/body"),
        (json!({ "body": "AKIA\u{200b}QYLPMN5HFIQR7XYA" }), "/body"),
        (json!({ "body": "ＡＫＩＡQYLPMN5HFIQR7XYA" }), "/body"),
        (json!({ "body": "\u{410}\u{39a}IAQYLPMN5HFIQR7XYA" }), "/body"),
        (json!({ "pieces": ["the key AKIAQYL", "PMN5HFIQ", "R7XYA is it"] }), ""),
    ] {
        let verdict = inspected(content.clone());
        assert_eq!(places(&verdict, AWS), [place], "{content}: {verdict:?}");
        assert!(verdict.contains("secret") && verdict.contains(AWS));
        let said = serde_json::to_string(&verdict).unwrap();
        assert!(!said.contains("QYLPMN5HFIQR7XYA"), "{said}");
    }
}

proptest! {
    #[test]
    fn a_secret_is_found_at_any_place_and_never_shown(
        steps in proptest::collection::vec(proptest::option::of("[a-z.]{1,12}"), 0..20),
        before in "[ a-zäß,.!<>&\n]{0,30}",
        after in "[ ,.!\n][ a-zäß,.!<>&\n]{0,30}",
    ) {
        let mut content = json!(format!("{before} {}{after}", key()));
        for step in &steps {
            content = match step {
                Some(name) => json!({ name.as_str(): content, "other": 1 }),
                None => json!(["first", content]),
            };
        }
        let verdict = inspected(json!({ "body": content }));
        prop_assert!(verdict.contains(AWS), "{verdict:?}");
        prop_assert!(!serde_json::to_string(&verdict).unwrap().contains(&key()[4..]));
    }
}

#[test]
fn an_ordinary_message_has_no_findings() {
    for content in [
        json!({ "msgtype": "m.text", "body": "Shall we meet at noon? I have the key to the room." }),
        json!({
            "msgtype": "m.text", "body": "> <@a:example.org> hello\n\nyes", "format": "org.matrix.custom.html",
            "formatted_body": "<b>yes</b>", "m.mentions": { "user_ids": ["@a:example.org"] },
            "m.relates_to": { "m.in_reply_to": { "event_id": "$Rqnc-F-dvnEYJTyHq_iKxU2bZ1CI92-kuZq3a5lr5Zg" } },
        }),
        json!({ "membership": "join", "displayname": "Zoë", "avatar_url": "mxc://hs1/SEsfnsuifSDFSSEF" }),
        json!({ "creator": "@a:hs1", "room_version": "12", "m.federate": true }),
    ] {
        let verdict = inspected(content.clone());
        let other: Vec<_> =
            verdict.findings().iter().filter(|finding| !finding.id.starts_with("link:")).collect();
        assert!(other.is_empty(), "{content}: {other:?}");
    }
}

#[test]
fn an_encrypted_event_is_that_and_nothing_else() {
    let verdict =
        guards("").inspect_event(&json!({ "ciphertext": key(), "body": key() }), "m.room.encrypted");
    assert_eq!(verdict.classes().iter().collect::<Vec<_>>(), ["encrypted"]);
    assert_eq!(verdict.findings().len(), 1);
}

#[test]
fn a_type_and_a_state_key_are_text_too() {
    let verdict = guards("").inspect_event(&json!({}), &format!("org.example.{}", key().to_lowercase()));
    assert!(!verdict.contains("secret"));
    assert!(guards("").inspect_event(&json!({}), &key()).contains(AWS));
    assert_eq!(places(&guards("").inspect_text(&key(), "state_key"), AWS), ["state_key"]);
}

#[test]
fn settings_are_read_as_they_are_documented() {
    let documented = include_str!("../../docs/guards.md");
    let examples: Vec<&str> =
        documented.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!examples.is_empty());
    for example in &examples {
        Guards::new(&toml::from_str::<Settings>(example).unwrap()).unwrap();
    }
    let guards = guards(examples[0]);
    let verdict = guards.inspect_event(
        &json!({ "body": "pay with 4111 1111 1111 1111 at https://shop.evil.test" }),
        "m.room.message",
    );
    for id in ["pattern:card", "pattern", "link-refused:shop.evil.test", "link-refused", "link"] {
        assert!(verdict.contains(id), "{id}: {verdict:?}");
    }
}

#[test]
fn settings_that_cannot_be_used_are_refused() {
    let refused = |settings: &str| match toml::from_str::<Settings>(settings) {
        Ok(settings) => Guards::new(&settings).map(|_| ()).unwrap_err().to_string(),
        Err(error) => error.to_string(),
    };
    assert!(refused("[secret]").contains("unknown field `secret`"));
    assert!(refused("[antivirus]\naddress = 'http://localhost'").contains("tcp://HOST:PORT"));
    assert!(refused("[antivirus]\naddress = 'tcp://localhost:3310'\nat_once = 0").contains("at least 1"));
    assert_eq!(
        refused("[secrets]\ndisabled_rules = ['x']"),
        BadSettings::NoSuchRule("x".to_owned()).to_string()
    );
}

#[tokio::test]
async fn a_file_is_looked_at_by_name_kind_size_and_text() {
    let guards = guards("[files]\nmax_bytes = 200_000");
    let file = File { name: Some("notes\u{202e}txt.sh"), media_type: Some("image/png"), size: Some(20) };
    let text = format!("#!/bin/sh\nexport KEY={}\n", key());
    let verdict = guards.inspect_file(&file, text.as_bytes()).await.unwrap();
    for id in ["unicode:bidi", "filetype:script", "filetype-mismatch", "size:mismatch", AWS] {
        assert!(verdict.contains(id), "{id}: {verdict:?}");
    }

    let large = guards.inspect_file(&File::default(), tokio::io::repeat(b'x')).await.unwrap();
    assert!(large.contains("size:file"));
    let declared = File { size: Some(1 << 40), ..File::default() };
    assert!(guards.inspect_file(&declared, b"".as_slice()).await.unwrap().contains("size:file"));
}

#[test]
fn guards_are_cheap_to_clone_and_usable_by_many() {
    fn shared<T: Clone + Send + Sync + 'static>(_: &T) {}
    shared(&guards(""));
}
