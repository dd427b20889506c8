//! Forks, gaps and lies about the past: what a hostile server does to make a room's state something else.

use crate::{
    Mallory, Scene, fate,
    listen::Reply,
    peer::until,
    room::{Pdu, Room},
    shared, try_join,
};
use postern_world::Server;
use serde_json::{Value, json};

fn text(body: &str) -> Value {
    json!({ "msgtype": "m.text", "body": body })
}

fn member(membership: &str) -> Value {
    json!({ "membership": membership })
}

/// Takes events in at the hostile server, and sends them.
fn tell_all(mallory: &Mallory, server: &Server, room: &str, pdus: &[Pdu]) {
    for some in pdus.chunks(50) {
        let said = mallory.transact(server, &some.iter().collect::<Vec<_>>(), &[]).ok();
        for pdu in some {
            assert_eq!(said["pdus"][&pdu.id], json!({}), "{said}");
            mallory.change_room(room, |room| room.add(pdu));
        }
    }
}

impl Scene {
    /// An event of the hostile server's on top of these, not kept.
    fn on<'a>(
        &self,
        prev: impl IntoIterator<Item = &'a String> + Clone,
        sender: &str,
        kind: &str,
        key: Option<&str>,
        content: Value,
    ) -> Pdu {
        let room = self.mallory.room(&self.room);
        self.mallory.seal(&room, room.draft_on(prev, sender, kind, key, content))
    }

    fn head(&self) -> Vec<String> {
        self.mallory.room(&self.room).ends.into_iter().collect()
    }
}

#[test]
fn attack_21_a_rejected_event_does_not_come_into_the_state_by_a_fork() {
    for version in ["6", "10", "12"] {
        let scene = Scene::of_version(version);
        let Scene { here, mallory, alice, eve, room } = &scene;
        let head = scene.head();
        let power = json!({ "users": { alice.id(): 100, eve: 100 } });
        let rejected = scene.on(&head, eve, "m.room.power_levels", Some(""), power);
        mallory.tell(here, &rejected);
        fate(here, &rejected.id, "is rejected");
        // Followed on as if it were state, alone and beside the room's end.
        mallory.change_room(room, |room| room.keep(&rejected));
        for prev in [vec![rejected.id.clone()], [head.clone(), vec![rejected.id.clone()]].concat()] {
            let after = scene.on(&prev, eve, "m.room.message", None, text("after"));
            mallory.transact(here, &[&after], &[]).done();
            mallory.change_room(room, |room| room.keep(&after));
            let merge = scene.on(
                &[head.clone(), vec![after.id.clone()]].concat(),
                eve,
                "m.room.message",
                None,
                text("merge"),
            );
            mallory.transact(here, &[&merge], &[]).done();
        }
        scene.settle();
        let levels = alice.state(room, "m.room.power_levels", "").ok();
        assert!(levels["users"][eve].is_null(), "version {version}: {levels}");
        let topic = scene.on(&scene.head(), eve, "m.room.topic", Some(""), json!({ "topic": "x" }));
        mallory.tell(here, &topic);
        fate(here, &topic.id, "is rejected");
    }
}

#[test]
fn attack_21_a_rejected_event_does_not_come_into_the_state_by_a_gap() {
    let scene = Scene::new();
    let Scene { here, mallory, alice, eve, room } = &scene;
    let power = json!({ "users": { alice.id(): 100, eve: 100 } });
    let rejected = scene.on(&scene.head(), eve, "m.room.power_levels", Some(""), power);
    mallory.tell(here, &rejected);
    fate(here, &rejected.id, "is rejected");
    // Two events, of which the first is withheld: the state before it is told, with the rejected one in it.
    let (_withheld, second) = (mallory.text(room, eve, "withheld"), mallory.text(room, eve, "second"));
    let mut state = mallory.room(room).state();
    state.insert(("m.room.power_levels".to_owned(), String::new()), rejected.id.clone());
    let ids: Vec<&String> = state.values().collect();
    mallory.always("state_ids", Reply::json(&json!({ "pdu_ids": ids, "auth_chain_ids": [] })));
    let known = second.json.clone();
    mallory.on("get_missing_events", move |_| Some(Reply::json(&json!({ "events": [known] }))));
    let last = mallory.text(room, eve, "last");
    mallory.tell(here, &last);
    until(|| alice.event(room, &last.id).status() == 200, "what follows on a gap is taken");
    assert!(!mallory.seen("state_ids").is_empty());
    mallory.be_honest();
    let levels = alice.state(room, "m.room.power_levels", "").ok();
    assert!(levels["users"][eve].is_null(), "{levels}");
    let topic = scene.on(&scene.head(), eve, "m.room.topic", Some(""), json!({ "topic": "x" }));
    mallory.tell(here, &topic);
    fate(here, &topic.id, "is rejected");
    alice.set_state(room, "m.room.name", "", json!({ "name": "alice's still" }));
}

#[test]
fn attack_23_who_is_banned_does_not_come_back_by_following_on_the_past() {
    for version in ["6", "10", "11", "12"] {
        let scene = Scene::of_version(version);
        let Scene { here, mallory, alice, eve, room } = &scene;
        let past = scene.head();
        alice.about_member(room, "ban", eve).done();
        mallory.until(room, "the ban arrives", |room| room.membership(eve) == "ban");
        let (message, name, again) = (
            scene.on(&past, eve, "m.room.message", None, text("from the past")),
            scene.on(
                &past,
                eve,
                "m.room.member",
                Some(eve),
                json!({ "membership": "join", "displayname": "E" }),
            ),
            scene.on(&past, eve, "m.room.member", Some(eve), member("leave")),
        );
        for pdu in [&message, &name, &again] {
            mallory.tell(here, pdu);
            fate(here, &pdu.id, "is soft-failed");
            assert_ne!(alice.state(room, "m.room.member", eve).ok()["membership"], "join");
        }
        // Nor when somebody who is in the room follows on both.
        let fay = mallory.user("fay");
        mallory.join(here, room, &fay);
        for pdu in [&message, &name, &again] {
            mallory.change_room(room, |room| room.keep(pdu));
        }
        let both = [scene.head(), vec![message.id.clone(), name.id.clone(), again.id.clone()]].concat();
        let merge = scene.on(&both, &fay, "m.room.message", None, text("merge"));
        mallory.tell(here, &merge);
        until(|| alice.event(room, &merge.id).status() == 200, "the merge is taken");
        assert_eq!(alice.state(room, "m.room.member", eve).ok()["membership"], "ban", "version {version}");
        assert_eq!(alice.event(room, &message.id).status(), 404, "version {version}");
        let history = alice.messages(room, "dir=b&limit=100").to_string();
        assert!(!history.contains("from the past"), "version {version}: {history}");
        assert!(mallory.try_join(here, room, eve).status() >= 400);
    }
}

#[test]
fn attack_23_who_is_banned_does_not_come_back_by_lying_about_the_state() {
    let scene = Scene::new();
    let Scene { here, mallory, alice, eve, room } = &scene;
    let past = mallory.room(room).state();
    alice.about_member(room, "ban", eve).done();
    mallory.until(room, "the ban arrives", |room| room.membership(eve) == "ban");
    let kept = mallory.room(room);
    // A gap, before which the state is said to be the one without the ban.
    let lies: Vec<&String> = past.values().collect();
    mallory.always("state_ids", Reply::json(&json!({ "pdu_ids": lies, "auth_chain_ids": [] })));
    let draft = |prev: Vec<String>, body: &str| {
        let mut draft = kept.draft(eve, "m.room.message", None, text(body));
        let old = kept.draft_on(&kept.ends, eve, "m.room.message", None, text(body));
        let mut auth = old["auth_events"].as_array().unwrap().clone();
        auth.retain(|id| *id != kept.state_id("m.room.member", eve).as_str());
        auth.push(past[&("m.room.member".to_owned(), eve.clone())].as_str().into());
        draft["auth_events"] = auth.into();
        draft["prev_events"] = kept.references(&prev);
        mallory.seal(&kept, draft)
    };
    let first = draft(vec!["$nobody-has-this".to_owned()], "first");
    let second = draft(vec![first.id.clone()], "second");
    mallory.change_room(room, |room| room.keep(&first));
    let known = first.json.clone();
    mallory.on("get_missing_events", move |_| Some(Reply::json(&json!({ "events": [known] }))));
    mallory.tell(here, &second);
    until(
        || {
            here.log().lines().any(|line| {
                line.contains(&second.id)
                    && (line.contains("soft-failed") || line.contains("dropped") || line.contains("rejected"))
            })
        },
        "the event is not accepted",
    );
    for pdu in [&first, &second] {
        assert_eq!(alice.event(room, &pdu.id).status(), 404);
    }
    assert_eq!(alice.state(room, "m.room.member", eve).ok()["membership"], "ban");
}

#[test]
fn attack_23_a_fork_from_before_does_not_take_power_back() {
    // Eve had power, and lost it; she goes on as if she had not.
    for version in ["6", "10", "11", "12"] {
        let scene = Scene::of_version(version);
        let Scene { here, mallory, alice, eve, room } = &scene;
        alice.change_power_levels(room, |levels| {
            levels["users"][eve] = 50.into();
            levels["events"]["m.room.power_levels"] = 50.into();
        });
        mallory
            .until(room, "eve has power", |room| room.content("m.room.power_levels", "")["users"][eve] == 50);
        let past = scene.head();
        alice.change_power_levels(room, |levels| levels["users"][eve] = 0.into());
        mallory
            .until(room, "eve has none", |room| room.content("m.room.power_levels", "")["users"][eve] == 0);
        let mut levels = mallory.room(room).content("m.room.power_levels", "");
        levels["users"][eve] = 50.into();
        levels["users"][mallory.user("fay")] = 50.into();
        let topic = scene.on(&past, eve, "m.room.topic", Some(""), json!({ "topic": "from the past" }));
        let power = scene.on(&past, eve, "m.room.power_levels", Some(""), levels);
        for pdu in [&topic, &power] {
            mallory.tell(here, pdu);
            fate(here, &pdu.id, "is soft-failed");
            mallory.change_room(room, |room| room.keep(pdu));
        }
        let merge = scene.on(
            &[scene.head(), vec![topic.id, power.id]].concat(),
            eve,
            "m.room.message",
            None,
            text("merge"),
        );
        mallory.tell(here, &merge);
        until(|| alice.event(room, &merge.id).status() == 200, "the merge is taken");
        let levels = alice.state(room, "m.room.power_levels", "").ok();
        assert_eq!(levels["users"][eve], 0, "version {version}: {levels}");
        assert_eq!(alice.state(room, "m.room.topic", "").status(), 404, "version {version}");
    }
}

/// What happens, as `docs/attacks.toml` says: nobody is shown the back-dated event, and it does nothing here, until
/// somebody in the room follows on it. Then the algorithm of room versions before 12 puts it into effect.
#[test]
fn attack_24_back_dated_state_by_who_gave_up_power_is_soft_failed() {
    let (here, mallory) = (shared(), Mallory::new());
    let (eve, alice) = (mallory.user("eve"), here.register("alice"));
    let room = mallory.create_room(&eve, "11");
    try_join(&alice, &room, &mallory).done();
    let past: Vec<String> = mallory.room(&room).ends.into_iter().collect();
    // Eve, who made the room, hands it over.
    let before_that = crate::room::now_ms();
    std::thread::sleep(std::time::Duration::from_millis(5));
    let power = json!({ "users": { alice.id(): 100, &eve: 0 } });
    let handed = mallory.make(&room, &eve, "m.room.power_levels", Some(""), power);
    mallory.tell(here, &handed);
    until(|| alice.event(&room, &handed.id).status() == 200, "the room is handed over");
    // And acts as if that had come later.
    let kept = mallory.room(&room);
    let rule = json!({ "join_rule": "invite" });
    let mut draft = kept.draft_on(&past, &eve, "m.room.join_rules", Some(""), rule);
    draft["origin_server_ts"] = before_that.into();
    let closed = mallory.seal(&kept, draft);
    mallory.tell(here, &closed);
    fate(here, &closed.id, "is soft-failed");
    let join_rule = || alice.state(&room, "m.room.join_rules", "").ok()["join_rule"].clone();
    assert_eq!(join_rule(), "public");
    assert_eq!(alice.event(&room, &closed.id).status(), 404);
    let since = alice.now();
    let said = alice.send_text(&room, "nothing follows on it here");
    assert_eq!(join_rule(), "public");
    // Somebody in the room, it may be she herself, follows on it and on what is.
    mallory.until(&room, "alice is heard", |room| room.has(&said));
    mallory.change_room(&room, |room| room.keep(&closed));
    let kept = mallory.room(&room);
    let prev: Vec<String> = kept.ends.iter().cloned().chain([closed.id.clone()]).collect();
    let merge = mallory.seal(&kept, kept.draft_on(&prev, &eve, "m.room.message", None, text("merge")));
    mallory.tell(here, &merge);
    alice.sync_until_event(&since, &room, &merge.id);
    assert_eq!(join_rule(), "invite", "the algorithm takes it for as old as it says");
    // Who has the power sets it right.
    alice.set_state(&room, "m.room.join_rules", "", json!({ "join_rule": "public" }));
    assert_eq!(join_rule(), "public");
}

#[test]
fn attack_28_two_hundred_ends_of_a_room_are_followed_on_and_others_do_not_wait() {
    let scene = Scene::new();
    let Scene { here, mallory, alice, eve, room } = &scene;
    let past = scene.head();
    let ends: Vec<Pdu> =
        (0..200).map(|n| scene.on(&past, eve, "m.room.message", None, text(&format!("end {n}")))).collect();
    tell_all(mallory, here, room, &ends);
    // Meanwhile others talk.
    let bob = here.register("bob");
    let elsewhere = bob.create_public_room();
    for n in 0..20 {
        bob.send_text(&elsewhere, &n.to_string());
    }
    until(|| alice.event(room, &ends[199].id).status() == 200, "all ends are taken");
    let said = alice.send_text(room, "on all of them");
    mallory.until(room, "alice is heard", |room| room.has(&said));
    let prev = mallory.room(room).event(&said).unwrap()["prev_events"].as_array().unwrap().len();
    assert!(prev <= 20, "{prev}");
    for n in 0..12 {
        alice.send_text(room, &format!("fewer and fewer ends {n}"));
    }
    mallory.until(room, "the ends are few", |room| room.ends.len() <= 20);
    scene.settle();
}

#[test]
fn many_ends_of_a_room_in_which_nobody_talks_are_joined_by_what_nobody_sees() {
    let scene = Scene::new();
    let Scene { here, mallory, alice, eve, room } = &scene;
    let past = scene.head();
    let ends: Vec<Pdu> =
        (0..30).map(|n| scene.on(&past, eve, "m.room.message", None, text(&format!("end {n}")))).collect();
    tell_all(mallory, here, room, &ends);
    mallory.until(room, "the ends are joined", |room| {
        ends.iter().filter(|end| room.ends.contains(&end.id)).count() < 10
    });
    let history = alice.messages(room, "dir=b&limit=100").to_string();
    assert!(history.contains("end 29") && !history.contains("dummy"), "{history}");
    let shown = alice.sync(None).to_string();
    assert!(shown.contains(room.as_str()) && !shown.contains("dummy"));
}

#[test]
fn attack_28_a_fork_of_twenty_with_state_each_is_resolved() {
    for version in ["10", "12"] {
        let scene = Scene::of_version(version);
        let Scene { here, mallory, alice, eve, room } = &scene;
        alice.change_power_levels(room, |levels| levels["users"][eve] = 50.into());
        mallory
            .until(room, "eve has power", |room| room.content("m.room.power_levels", "")["users"][eve] == 50);
        let past = scene.head();
        let mut all = Vec::new();
        for n in 0..20 {
            let mut prev = past.clone();
            for (kind, key) in [("m.room.topic", ""), ("m.room.name", ""), ("x", "a"), ("x", &n.to_string())]
            {
                let pdu = scene.on(
                    &prev,
                    eve,
                    kind,
                    Some(key),
                    json!({ "topic": n.to_string(), "name": n.to_string() }),
                );
                mallory.change_room(room, |room| room.add(&pdu));
                prev = vec![pdu.id.clone()];
                all.push(pdu);
            }
        }
        for some in all.chunks(50) {
            mallory.transact(here, &some.iter().collect::<Vec<_>>(), &[]).done();
        }
        scene.settle();
        let state = alice.all_state(room);
        assert_eq!(state.iter().filter(|event| event["type"] == "x").count(), 21, "version {version}");
        assert_eq!(state.iter().filter(|event| event["type"] == "m.room.topic").count(), 1);
        alice.set_state(room, "m.room.topic", "", json!({ "topic": "one" }));
    }
}

/// Events that each rest on the one before: an auth chain of this length.
fn long_chain(mallory: &Mallory, room: &str, length: usize) {
    let eve = mallory.user("eve");
    mallory.change_room(room, |room: &mut Room| {
        for n in 0..length {
            let content = json!({ "membership": "join", "displayname": n.to_string() });
            let pdu = mallory.seal(room, room.draft(&eve, "m.room.member", Some(&eve), content));
            room.add(&pdu);
        }
    });
}

#[test]
fn attack_28_a_room_with_an_auth_chain_of_five_thousand_is_joined_and_others_do_not_wait() {
    let (here, mallory) = (shared(), Mallory::new());
    let room = mallory.create_room(&mallory.user("eve"), "10");
    long_chain(&mallory, &room, 5_000);
    let (alice, bob) = (here.register("alice"), here.register("bob"));
    let elsewhere = bob.create_public_room();
    let sent = std::thread::scope(|scope| {
        let joining = scope.spawn(|| try_join(&alice, &room, &mallory));
        let mut sent = 0;
        while !joining.is_finished() {
            bob.send_text(&elsewhere, "meanwhile");
            sent += 1;
        }
        joining.join().unwrap().done();
        sent
    });
    assert!(sent > 0, "others have to be answered while the room is joined");
    mallory.say(here, &alice, &room, &mallory.user("eve"));
    alice.send_text(&room, "it goes on");
}

#[test]
fn attack_28_of_five_thousand_withheld_events_a_bounded_number_is_fetched() {
    let scene = Scene::new();
    let Scene { here, mallory, alice, eve, room } = &scene;
    mallory.change_room(room, |room: &mut Room| {
        for n in 0..5_000 {
            let pdu = mallory.seal(room, room.draft(eve, "m.room.message", None, text(&n.to_string())));
            room.add(&pdu);
        }
    });
    mallory.say(here, alice, room, eve);
    let asked = |endpoint: &str| mallory.seen(endpoint).len();
    assert!(asked("get_missing_events") <= 20, "{}", asked("get_missing_events"));
    assert!(asked("event") <= 50, "{}", asked("event"));
    let history = alice.messages(room, "dir=b&limit=100")["chunk"].as_array().unwrap().len();
    assert!(history > 20, "the rest is fetched when somebody looks: {history}");
}

/// An event that follows on twenty events which nobody has.
fn on_nothing(mallory: &Mallory, room: &Room, sender: &str, n: usize) -> Pdu {
    let mut draft = room.draft(sender, "m.room.message", None, text(&format!("on nothing {n}")));
    let nothing: Vec<String> = (0..20).map(|m| format!("${:0>42}x", n * 100 + m)).collect();
    draft["prev_events"] = room.references(&nothing);
    mallory.seal(room, draft)
}

#[test]
fn attack_28_a_past_full_of_gaps_makes_no_storm_of_questions() {
    let scene = Scene::new();
    let Scene { here, mallory, alice, eve, room } = &scene;
    let other = Mallory::new();
    other.join(here, room, &other.user("bob"));
    // What is missing before one event is twenty events, each on twenty that nobody has.
    let kept = mallory.room(room);
    let told: Vec<Value> = (0..20).map(|n| on_nothing(mallory, &kept, eve, n).json).collect();
    mallory.always("get_missing_events", Reply::json(&json!({ "events": told })));
    let last = on_nothing(mallory, &kept, eve, 99);
    mallory.tell(here, &last);
    fate(here, &last.id, "dropped");
    let asked = |who: &Mallory| {
        ["state_ids", "state", "event", "event_auth"]
            .iter()
            .map(|endpoint| who.seen(endpoint).len())
            .sum::<usize>()
    };
    println!("{} questions to the hostile server, {} to another", asked(mallory), asked(&other));
    assert!(asked(mallory) <= 100 && asked(&other) <= 100);
    scene.settle();
    assert_eq!(alice.event(room, &last.id).status(), 404);
}

#[test]
fn attack_28_a_history_full_of_gaps_makes_no_storm_of_questions() {
    let (here, mallory) = (shared(), Mallory::new());
    let (eve, alice) = (mallory.user("eve"), here.register("alice"));
    let room = mallory.create_room(&eve, "10");
    mallory.text(&room, &eve, "the past");
    try_join(&alice, &room, &mallory).done();
    let kept = mallory.room(&room);
    let mut told: Vec<Value> = (0..99).map(|n| on_nothing(&mallory, &kept, &eve, n).json).collect();
    let join = kept.event(&kept.state_id("m.room.member", alice.id())).unwrap();
    let before = join["prev_events"][0].as_str().unwrap();
    told.push(kept.event(before).unwrap().clone());
    mallory.always("backfill", Reply::json(&json!({ "pdus": told })));
    let page = alice.messages(&room, "dir=b&limit=50").to_string();
    let asked = ["state_ids", "state", "event", "event_auth"]
        .iter()
        .map(|endpoint| mallory.seen(endpoint).len())
        .sum::<usize>();
    println!("{asked} questions");
    assert!(asked <= 100, "{asked} questions");
    mallory.be_honest();
    let again = alice.messages(&room, "dir=b&limit=50").to_string();
    assert!(page.contains("the past") || again.contains("the past"), "{again}");
}
