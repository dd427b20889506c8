//! SIGKILL, again and again, while clients send and listen.

use crate::{
    PROGRAM,
    crowd::Crowd,
    healthy,
    history::{contains, messages},
    listener::listen,
    pause, random,
    sender::Sender,
};
use postern_world::Server;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

const USERS: usize = 8;
const ROOMS: usize = 3;
const KILLS: usize = 20;
/// The longest time between a start and a kill, milliseconds.
const LIFE_MS: u64 = 600;

#[test]
fn what_was_acknowledged_is_there_once_and_told_once_though_the_server_is_killed_twenty_times() {
    let mut random = random("kills");
    let server = Server::start(PROGRAM);
    let crowd = Crowd::on(&server, USERS, ROOMS);
    let senders: Vec<Sender<'_>> = crowd
        .senders
        .iter()
        .map(|client| Sender::new(client.clone(), &crowd.rooms, &crowd.devices))
        .collect();
    let (stop, finished) = (AtomicBool::new(false), AtomicBool::new(false));

    let heard = thread::scope(|scope| {
        let mut seed = || StdRng::seed_from_u64(random.random());
        let sending: Vec<_> = senders
            .iter()
            .map(|sender| {
                let (random, stop) = (seed(), &stop);
                scope.spawn(move || sender.run(random, stop))
            })
            .collect();
        let listening: Vec<_> = crowd
            .listeners
            .iter()
            .zip(&crowd.since)
            .map(|(client, since)| {
                let (random, rooms, finished) = (seed(), &crowd.rooms, &finished);
                scope.spawn(move || listen(client, rooms, since.clone(), random, finished))
            })
            .collect();
        // Whoever fails is noticed at the end; the others must not wait for ever meanwhile.
        let ended = || sending.iter().any(|thread| thread.is_finished());
        for _ in 0..KILLS {
            pause(random.random_range(0..=LIFE_MS));
            server.kill();
            pause(random.random_range(0..=50));
            server.start_again();
            if ended() {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        let sent: Vec<_> = sending.into_iter().map(thread::ScopedJoinHandle::join).collect();
        finished.store(true, Ordering::Relaxed);
        let heard: Vec<_> = listening.into_iter().map(thread::ScopedJoinHandle::join).collect();
        sent.into_iter().for_each(|sent| sent.expect("a sender goes on"));
        heard.into_iter().map(|heard| heard.expect("a listener goes on")).collect::<Vec<_>>()
    });

    // Every room has what was acknowledged, and nothing else.
    let histories: Vec<_> = crowd.rooms.iter().map(|room| messages(&crowd.senders[0], room)).collect();
    let mut told = 0;
    for sender in &senders {
        let messages = sender.told.lock().unwrap();
        contains(&histories, &messages);
        told += messages.len();
    }
    assert_eq!(histories.iter().map(Vec::len).sum::<usize>(), told, "a message was stored that nobody sent");
    assert!(told > 100, "only {told} messages were sent: the test is too short to show anything");

    // Whoever listened was told the same, in the same order.
    for heard in &heard {
        for (history, messages) in histories.iter().zip(&heard.messages) {
            assert!(history.iter().map(|(id, _)| id).eq(messages), "a listener missed something");
        }
    }

    // Messages to devices came, those of one sender in the order they were sent.
    for (device, heard) in heard.iter().enumerate() {
        let mut notes = 0;
        for sender in &senders {
            let name = format!("{} ", sender.client.localpart());
            let sent = sender.to_devices.lock().unwrap();
            let sent: Vec<&String> =
                sent.iter().filter(|(to, _)| *to == device).map(|(_, note)| note).collect();
            let got: Vec<&String> = heard.notes.iter().filter(|note| note.starts_with(&name)).collect();
            assert_eq!(got, sent, "to device {device}");
            notes += sent.len();
        }
        assert_eq!(heard.notes.len(), notes, "device {device} got what nobody sent");
    }

    // A request that is repeated much later still gets its first answer.
    for sender in &senders {
        let last = sender.told.lock().unwrap().last().expect("everybody sent something").clone();
        assert_eq!(sender.message(last.room, &last.body), last.event);
    }
    let again: Vec<_> = crowd.rooms.iter().map(|room| messages(&crowd.senders[0], room)).collect();
    assert_eq!(again, histories);
    assert!(!server.log().contains("panicked"), "{}", server.log());

    server.terminate();
    healthy(&server);
}
