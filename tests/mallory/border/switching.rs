//! Policies that change while events go out and are asked for.

use super::{
    CANARY, Stage, enclaves,
    enclaves::{Enclave, Peer, document},
    mixed_room,
    pulling::pull,
};
use crate::peer::{Mallory, canonical};
use postern_world::Seat;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, Ordering},
};

/// Events that are sent meanwhile, and how often the policy changes at least.
const EVENTS: usize = 120;
const CHANGES: usize = 12;

/// The forms in which events were told: with the word, or without, by id.
type Forms = BTreeMap<String, BTreeSet<String>>;

fn note(forms: &mut Forms, version: &str, value: &Value) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| note(forms, version, value)),
        Value::Object(fields) => {
            if fields.contains_key("hashes") && fields.contains_key("signatures") {
                let mut pdu = value.clone();
                pdu.as_object_mut().unwrap().remove("unsigned");
                let id = crate::room::id_of(version, &pdu);
                forms.entry(id).or_default().insert(canonical(&pdu));
            } else {
                fields.values().for_each(|value| note(forms, version, value));
            }
        }
        _ => {}
    }
}

#[test]
fn attack_48_the_form_of_an_event_never_flips_while_policies_change_under_load() {
    let (here, there) = (Seat::take(), Seat::take());
    let with = |class: &str| document("Company CONFIDENTIAL", &[Peer(&there, class, "")], "");
    let high = Enclave::start(&here, "Company CONFIDENTIAL", &[Peer(&there, "Company INTERNAL", "")], "");
    let mallory = Mallory::at(&there);
    let (alice, eve) = (high.register("alice"), mallory.user("eve"));
    let room = mixed_room(&alice, &eve);
    mallory.join(&high.server, &room, &eve);
    let begin = crate::room::now_ms();
    let (sent_all, changed_enough) = (AtomicBool::new(false), AtomicBool::new(false));
    let (sender, texts) = std::sync::mpsc::channel::<String>();
    let mut answers: Vec<Value> = Vec::new();
    let events = std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let mut events = Vec::new();
            while events.len() < EVENTS || !changed_enough.load(Ordering::Acquire) {
                let event = alice.send_text(&room, &format!("{CANARY} {}", events.len()));
                // Nobody reads any more once all is over.
                let _ = sender.send(event.clone());
                events.push(event);
            }
            sent_all.store(true, Ordering::Release);
            drop(sender);
            events
        });
        scope.spawn(|| {
            let mut changes = 0;
            while changes < CHANGES || !sent_all.load(Ordering::Acquire) {
                let class = if changes % 2 == 0 { "Company CONFIDENTIAL" } else { "Company INTERNAL" };
                high.write("border.toml", &with(class));
                assert!(high.reread().contains("the border was read again"));
                changes += 1;
                changed_enough.store(changes >= CHANGES, Ordering::Release);
            }
        });
        // Each is asked for by all endpoints as soon as it is there, and while others are.
        let mut last = None;
        for event in texts {
            let asked = last.replace(event.clone()).unwrap_or_else(|| event.clone());
            let told = pull(&mallory, &high.server, &room, &asked, &event, begin);
            answers.extend(told.iter().map(|answer| answer.body().clone()));
        }
        sending.join().unwrap()
    });
    // What is sent last comes last, and is sent as what came before.
    let last = events.last().unwrap();
    mallory.until(&room, "the last event comes", |room| room.has(last));
    for event in &events {
        answers.extend(
            pull(&mallory, &high.server, &room, event, last, begin)
                .iter()
                .map(|answer| answer.body().clone()),
        );
    }
    let version = mallory.room(&room).version;
    let mut forms = Forms::new();
    answers.iter().for_each(|answer| note(&mut forms, &version, answer));
    mallory.seen("send").iter().for_each(|asked| note(&mut forms, &version, &asked.json()));
    let flipped: Vec<_> = forms.iter().filter(|(_, forms)| forms.len() > 1).collect();
    assert!(flipped.is_empty(), "{} of {} flipped: {:?}", flipped.len(), forms.len(), flipped.first());
    let whole = events.iter().filter(|event| forms[*event].iter().any(|form| form.contains(CANARY))).count();
    println!("{} events, {whole} of them whole", events.len());
    assert!(whole > 0 && whole < events.len(), "both forms were there: {whole} of {}", events.len());
}

#[test]
fn attack_48_a_form_outlives_a_restart_and_a_stricter_policy() {
    let stage = Stage::new();
    let (redacted, whole) = (stage.say("CONFIDENTIAL", CANARY), stage.say("INTERNAL", "open"));
    let after = stage.settle();
    let before: Vec<Value> = [&redacted, &whole]
        .map(|event| {
            let path = format!("v1/event/{}", postern_world::enc(event));
            stage.get(&path).ok()["pdus"].clone()
        })
        .to_vec();
    let there = Seat { address: stage.mallory.name().parse().unwrap(), ..Seat::take() };
    for class in ["Company CONFIDENTIAL", "Company INTERNAL"] {
        stage.high.write(
            "border.toml",
            &enclaves::document("Company CONFIDENTIAL", &[Peer(&there, class, "")], ""),
        );
        stage.high.server.restart();
        for (event, before) in [&redacted, &whole].iter().zip(&before) {
            let path = format!("v1/event/{}", postern_world::enc(event));
            assert_eq!(&stage.get(&path).ok()["pdus"], before, "{class}");
        }
        for answer in pull(&stage.mallory, &stage.high.server, &stage.room, &redacted, &after, 0) {
            assert!(!answer.describe().contains(CANARY), "{}", answer.describe());
        }
    }
}
