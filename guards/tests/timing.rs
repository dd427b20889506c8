//! What looking costs, printed: `scripts/cargo.sh test -p postern-guards --test timing -- --nocapture`. Numbers that
//! mean something need optimised code: add `--config 'profile.dev.package."*".opt-level=3' --config
//! 'profile.dev.package.postern-guards.opt-level=3'`.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use postern_guards::{Guards, Settings};
use serde_json::json;

/// Much more than any machine needs, also without optimisation: that nothing is quadratic.
const FAR_TOO_LONG: Duration = Duration::from_secs(20);

const TALK: &str = "Shall we meet at noon? The room next to the kitchen is free, and Anna brings what we need for the \
    talk about the new tokens of the access system. I have the key; call me if you are late. See you there! ";

#[test]
fn looking_takes_time_in_proportion() {
    let begin = Instant::now();
    let guards = Guards::new(&Settings::default()).unwrap();
    println!("{:>10.1?} to make the guards ready, once", begin.elapsed());
    let html = |text: &str| format!("<p>{}</p>", text.replace("the", "<b>the</b>"));
    let long = TALK.repeat(300);
    let cases = [
        ("message of 200 bytes", json!({ "msgtype": "m.text", "body": TALK })),
        (
            "message of 200 bytes with HTML",
            json!({ "msgtype": "m.text", "body": TALK, "formatted_body": html(TALK) }),
        ),
        ("message of 60 kB", json!({ "msgtype": "m.text", "body": long })),
        (
            "message of 60 kB that is not ASCII",
            json!({ "msgtype": "m.text", "body": long.replace('e', "é") }),
        ),
        ("60 kB of links", json!({ "body": "https://a.example/b ".repeat(3_000) })),
        ("60 kB of assignments", json!({ "body": "api_key=abc, ".repeat(4_600) })),
        ("60 kB of tags", json!({ "formatted_body": "<a b=c>".repeat(8_500) })),
        ("60 kB of slashes", json!({ "body": "://".repeat(20_000) })),
        ("60 kB of one letter", json!({ "body": "a".repeat(60_000) })),
    ];
    for (name, content) in cases {
        let first = Instant::now();
        guards.inspect_event(&content, "m.room.message");
        let first = first.elapsed();
        let rounds =
            u32::try_from((Duration::from_millis(200).as_nanos() / first.as_nanos().max(1)).clamp(1, 10_000));
        let rounds = rounds.unwrap();
        let begin = Instant::now();
        for _ in 0..rounds {
            guards.inspect_event(&content, "m.room.message");
        }
        println!("{:>10.1?} {name}", begin.elapsed() / rounds);
        assert!(first < FAR_TOO_LONG, "{name} took {first:?}");
    }
}
