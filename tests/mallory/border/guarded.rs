//! Content that would slip past the guards.

use super::{CANARY, Stage, label, message};
use postern_world::enc;
use serde_json::{Value, json};

const POLICY: &str = r#"
@id("clean") @reason("a guard found what may not leave")
forbid (principal is Server, action == Action::"release", resource)
when { context.guard.contains("unicode") || context.guard.contains("pattern") || context.guard.contains("size") ||
       context.guard.contains("secret") || context.guard.contains("link-refused") };
"#;

fn stage() -> Stage {
    let more = "[[guards.patterns]]\nname = \"canary\"\nregex = \"canary-7f3a9c\"\n[guards.text]\nmax_bytes = 2000\n[guards.links]\ndeny = [\"*.evil.test\", \"evil.test\"]\n";
    let stage = Stage::with("", more);
    stage.high.write("policies/clean.cedar", POLICY);
    assert!(stage.high.reread().contains("the border was read again"));
    stage
}

#[test]
fn attack_54_covert_channels_oversize_and_markup_do_not_leave() {
    let stage = stage();
    let html = |formatted: &str| json!({ "format": "org.matrix.custom.html", "formatted_body": formatted });
    let bad: Vec<(&str, Value)> = vec![
        ("right to left", message("INTERNAL", "see \u{202E}fdp.exe\u{202C} here", json!({}))),
        ("isolates", message("INTERNAL", "a\u{2066}b\u{2069}c", json!({}))),
        ("homoglyphs", message("INTERNAL", "p\u{0430}ssw\u{043E}rd list", json!({}))),
        ("zero width", message("INTERNAL", "h\u{200B}e\u{200C}l\u{200B}l\u{FEFF}o", json!({}))),
        ("tags", message("INTERNAL", "hi\u{E0068}\u{E0069}\u{E0064}\u{E0065}", json!({}))),
        ("selectors", message("INTERNAL", "hi\u{FE01}\u{FE02}\u{E0100}\u{E0101}", json!({}))),
        ("marks", message("INTERNAL", &format!("a{}", "\u{0301}".repeat(40)), json!({}))),
        ("controls", message("INTERNAL", "a\u{0007}b\u{0085}c", json!({}))),
        ("oversize", message("INTERNAL", &"x".repeat(4000), json!({}))),
        ("plain", message("INTERNAL", CANARY, json!({}))),
        ("script", message("INTERNAL", "x", html("<script>canary-7f3a9c</script>"))),
        ("not shown", message("INTERNAL", "x", html("<span style=\"display:none\">canary-7f3a9c</span>"))),
        ("a comment", message("INTERNAL", "x", html("a<!-- canary-7f3a9c -->b"))),
        ("an attribute", message("INTERNAL", "x", html("<img alt=\"canary-7f3a9c\">"))),
        ("tags within", message("INTERNAL", "x", html("can<b>ary</b>-7f<i>3a</i>9c"))),
        ("entities", message("INTERNAL", "x", html("&#99;anary&#x2d;7f3a9c"))),
        ("wide letters", message("INTERNAL", "\u{FF43}\u{FF41}nary-7f3a9c", json!({}))),
        ("a body that is markup", message("INTERNAL", "can<b></b>ary-7f3a9c", json!({}))),
        ("two texts", message("INTERNAL", "canary-", json!({ "filename": "7f3a9c" }))),
        ("a field's name", message("INTERNAL", "x", json!({ "canary-7f3a9c": 1 }))),
        ("link", message("INTERNAL", "x", html("<a href=\"https://a.evil.test/?q\">here</a>"))),
        ("encoded", message("INTERNAL", "x", html("a&#x202E;b&#8203;c"))),
        (
            "in another key",
            message("INTERNAL", "x", json!({ "org.example": { "deep": ["h\u{200B}\u{200C}i"] } })),
        ),
        ("a key's name", message("INTERNAL", "x", json!({ "h\u{200B}\u{200C}i": 1 }))),
        (
            "in an edit",
            message("INTERNAL", "x", json!({ "m.new_content": { "body": "h\u{200B}\u{200C}i" } })),
        ),
    ];
    let mut sent = Vec::new();
    for (what, content) in bad {
        sent.push((what, stage.alice.send(&stage.room, "m.room.message", content)));
    }
    let name = json!({ "name": "h\u{200B}\u{200C}i", "io.postern.label": label("INTERNAL") });
    sent.push(("a name", stage.alice.set_state(&stage.room, "m.room.name", "", name)));
    let parent = stage.say("INTERNAL", "fine");
    let reaction = json!({
        "m.relates_to": { "rel_type": "m.annotation", "event_id": parent, "key": "\u{200B}\u{200C}" },
        "io.postern.label": label("INTERNAL"),
    });
    sent.push(("a reaction", stage.alice.send(&stage.room, "m.reaction", reaction)));
    stage.settle();
    for (what, event) in sent {
        assert_eq!(stage.told(&event), json!({}), "{what}");
    }
    // What looks like it and is in order passes.
    for fine in ["שלום עולם", "Привет, мир", "👩‍👩‍👧‍👦 and 🏴󠁧󠁢󠁳󠁣󠁴󠁿", "naïve façade", "नमस्ते"]
    {
        let event = stage.say("INTERNAL", fine);
        stage.mallory.until(&stage.room, "it comes", |room| room.has(&event));
        assert_eq!(stage.told(&event)["body"], fine);
    }
}

#[test]
fn attack_54_what_is_never_redacted_is_not_said_at_all() {
    let stage = stage();
    let hidden = "h\u{200B}e\u{200C}\u{200B}y";
    let name = json!({ "membership": "join", "displayname": hidden });
    for (kind, key, content) in [
        ("m.room.member", stage.alice.id(), name),
        ("m.room.tombstone", "", json!({ "body": hidden, "replacement_room": "!x:y" })),
        ("m.room.power_levels", "", {
            let mut levels = stage.alice.state(&stage.room, "m.room.power_levels", "").ok();
            levels["org.example.note"] = hidden.into();
            levels
        }),
    ] {
        stage.alice.try_set_state(&stage.room, kind, key, content).refused(403, "M_FORBIDDEN");
    }
    // A profile's name reaches rooms as a membership: there it stays as it was.
    let path = format!("v3/profile/{}/displayname", enc(stage.alice.id()));
    let _ = stage.alice.put(&path, json!({ "displayname": hidden }));
    stage.settle();
    assert!(!stage.mallory.heard().contains('\u{200B}'), "{CANARY}");
    // Without findings all goes as ever.
    let name = json!({ "membership": "join", "displayname": "Alice" });
    stage.alice.set_state(&stage.room, "m.room.member", stage.alice.id(), name);
}
