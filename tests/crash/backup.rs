//! Backups of a server under load.

use crate::{
    PROGRAM,
    crowd::Crowd,
    healthy,
    history::{contains, messages},
    pause, random,
    sender::{Sender, Told},
};
use postern_world::{Server, timeline};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    process::Output,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

const BACKUPS: usize = 3;

#[track_caller]
fn succeeds(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// Makes the data of `server` anew from backup `number`.
#[track_caller]
fn restore(server: &Server, dir: &str, number: usize) {
    succeeds(&server.run(&["backup", "restore", dir, "--number", &number.to_string()]));
}

#[test]
fn a_backup_taken_under_load_has_all_that_was_acknowledged_before_it() {
    let mut random = random("backup");
    let server = Server::start(PROGRAM);
    let crowd = Crowd::on(&server, 4, 2);
    let senders: Vec<Sender<'_>> =
        crowd.senders.iter().map(|client| Sender::new(client.clone(), &crowd.rooms, &[])).collect();
    let stop = AtomicBool::new(false);
    let dir = server.directory().join("backups");
    let dir = dir.to_str().unwrap();

    let before: Vec<Vec<Vec<Told>>> = thread::scope(|scope| {
        let sending: Vec<_> = senders
            .iter()
            .map(|sender| {
                let (random, stop) = (StdRng::seed_from_u64(random.random()), &stop);
                scope.spawn(move || sender.run(random, stop))
            })
            .collect();
        let before = (0..BACKUPS)
            .map(|_| {
                pause(random.random_range(100..=800));
                let told = senders.iter().map(|sender| sender.told.lock().unwrap().clone()).collect();
                succeeds(&server.run(&["backup", "create", dir]));
                told
            })
            .collect();
        stop.store(true, Ordering::Relaxed);
        sending.into_iter().for_each(|thread| thread.join().expect("a sender goes on"));
        before
    });
    succeeds(&server.run(&["backup", "verify", dir]));
    assert_eq!(succeeds(&server.run(&["backup", "list", dir])).lines().count(), BACKUPS);
    let now: Vec<_> = crowd.rooms.iter().map(|room| messages(&crowd.senders[0], room)).collect();

    for (n, told) in before.iter().enumerate() {
        let restored = Server::prepare(PROGRAM, &[]);
        restore(&restored, dir, n + 1);
        restored.start_again();
        let reader = restored.anyone().with_token(crowd.senders[0].token());
        let then: Vec<_> = crowd.rooms.iter().map(|room| messages(&reader, room)).collect();
        for told in told {
            contains(&then, told);
        }
        // It is the server as it was at one moment: no hole anywhere.
        for (now, then) in now.iter().zip(&then) {
            assert!(now.starts_with(then));
        }
        restored.terminate();
        healthy(&restored);
    }
}

#[test]
fn a_client_that_knows_more_than_the_restored_server_hears_of_what_happens_from_then_on() {
    let server = Server::start(PROGRAM);
    let alice = server.register("alice");
    let bob = server.register("bob");
    let room = alice.create_room_with(&[&bob]);
    let dir = server.directory().join("backups");
    succeeds(&server.run(&["backup", "create", dir.to_str().unwrap()]));
    for n in 0..20 {
        alice.send_text(&room, &format!("lost {n}"));
    }
    let since = bob.now();

    let restored = Server::prepare(PROGRAM, &[]);
    restore(&restored, dir.to_str().unwrap(), 1);
    restored.start_again();
    let alice = restored.anyone().with_token(alice.token());
    let bob = restored.anyone().with_token(bob.token());
    let event = alice.send_text(&room, "after");
    let answer = bob.sync_until_event(&since, &room, &event);
    assert!(timeline(&answer, &room).iter().all(|event| event["content"]["body"] != "lost 1"));
}
