//! An orderly end: SIGTERM.

use crate::{
    PROGRAM,
    crowd::Crowd,
    healthy,
    history::{contains, messages},
    pause, random,
    sender::{Sender, ask},
};
use postern_world::{Method, Server, enc};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

/// Far longer than an orderly end may take: the server must not wait for these.
const WAIT_MS: u64 = 110_000;

#[test]
fn a_server_that_is_asked_to_stop_answers_those_who_wait_and_loses_nothing() {
    let mut random = random("ending");
    let server = Server::start(PROGRAM);
    let crowd = Crowd::on(&server, 4, 2);
    // These hear of nothing: they are in no room.
    let waiting: Vec<_> = (0..20).map(|n| server.register(&format!("idle{n}"))).collect();
    let senders: Vec<Sender<'_>> =
        crowd.senders.iter().map(|client| Sender::new(client.clone(), &crowd.rooms, &[])).collect();
    let stop = AtomicBool::new(false);

    thread::scope(|scope| {
        let polls: Vec<_> = waiting
            .iter()
            .map(|client| {
                let since = client.now();
                let path = format!("/_matrix/client/v3/sync?timeout={WAIT_MS}&since={}", enc(&since));
                scope.spawn(move || ask(client, &Method::GET, &path, None))
            })
            .collect();
        let sending: Vec<_> = senders
            .iter()
            .map(|sender| {
                let (random, stop) = (StdRng::seed_from_u64(random.random()), &stop);
                scope.spawn(move || sender.run(random, stop))
            })
            .collect();
        // Whoever never ends a request does not keep the server from ending.
        let mut half = TcpStream::connect(server.address()).unwrap();
        half.write_all(b"PUT /_matrix/client/v3/profile/x/displayname HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
            .unwrap();
        pause(1_000);
        assert!(server.terminate().success());
        for poll in polls {
            let answer = poll.join().unwrap().expect("who waits is answered");
            assert_eq!(answer.status(), 200, "{}", answer.describe());
        }
        // What was not answered is asked for again, and done once.
        server.start_again();
        pause(200);
        stop.store(true, Ordering::Relaxed);
        sending.into_iter().for_each(|thread| thread.join().expect("a sender goes on"));
    });

    let histories: Vec<_> = crowd.rooms.iter().map(|room| messages(&crowd.senders[0], room)).collect();
    let mut told = 0;
    for sender in &senders {
        let messages = sender.told.lock().unwrap();
        contains(&histories, &messages);
        told += messages.len();
    }
    assert_eq!(histories.iter().map(Vec::len).sum::<usize>(), told);
    assert!(server.log().lines().all(|line| !line.contains("ERROR")), "{}", server.log());
    server.terminate();
    healthy(&server);
}

#[test]
fn a_request_in_progress_is_answered_when_the_server_is_asked_to_stop() {
    let server = Server::start(PROGRAM);
    let alice = server.register("slow");
    let mut stream = TcpStream::connect(server.address()).unwrap();
    let head = format!(
        "PUT /_matrix/client/v3/profile/{}/displayname HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
         content-length: 23\r\n\r\n{{\"displayname\":",
        alice.id_in_path(),
        alice.token()
    );
    stream.write_all(head.as_bytes()).unwrap();
    pause(200);
    thread::scope(|scope| {
        let ending = scope.spawn(|| server.terminate());
        pause(500);
        stream.write_all(b"\"slow\"} ").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
        assert!(ending.join().unwrap().success());
    });
    server.start_again();
    let path = format!("/_matrix/client/v3/profile/{}", alice.id_in_path());
    let profile = ask(&alice, &Method::GET, &path, None).expect("an answer");
    assert_eq!(profile.body()["displayname"], "slow");
}
