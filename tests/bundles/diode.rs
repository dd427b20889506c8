//! Enclaves with a line between them that goes one way: bundles over UDP, some of which is lost.

use crate::{
    PROGRAM,
    enclaves::{Pair, Says},
    sharing::bodies,
};
use postern_bundles::{command::LinkFile, spool::Spool};
use serde_json::json;
use std::{
    fs,
    net::UdpSocket,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// A line that loses so many datagrams of a hundred, the same ones each time.
struct Line {
    address: String,
    stop: Arc<AtomicBool>,
    relay: Option<JoinHandle<(u64, u64)>>,
}

impl Line {
    fn losing(percent: u64, to: &str) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let address = socket.local_addr().unwrap().to_string();
        let (to, stop) = (to.to_owned(), Arc::new(AtomicBool::new(false)));
        let stopped = stop.clone();
        let relay = thread::spawn(move || {
            let (mut came, mut lost, mut random) = (0, 0, 0x9e37_79b9_7f4a_7c15_u64);
            let mut datagram = vec![0; 65_536];
            while !stopped.load(Ordering::Relaxed) {
                let Ok(length) = socket.recv(&mut datagram) else { continue };
                came += 1;
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                if random % 100 < percent {
                    lost += 1;
                } else {
                    // Nobody listens yet: that is loss, too.
                    let _ = socket.send_to(&datagram[..length], &to);
                }
            }
            (came, lost)
        });
        Self { address, stop, relay: Some(relay) }
    }

    /// How many datagrams came, and how many of these were lost.
    fn end(&mut self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.relay.take().unwrap().join().unwrap()
    }
}

/// The receiving end, ended with the test.
struct Receiving(Child);

impl Drop for Receiving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> String {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// A diode from `a` to `b`, with nothing back.
struct Diode {
    pair: Pair,
    secret: PathBuf,
    spool: PathBuf,
    receiving: Option<Receiving>,
    listens: String,
}

impl Diode {
    fn new() -> Self {
        let of_a = Says { into: false, ..Says::default() };
        let of_b = Says { out: false, in_lines: "remove = true", ..Says::default() };
        let pair = Pair::saying(&of_a, &of_b);
        let to = pair.a.directory.path().display().to_string();
        let made = pair.a.server.run(&["bundle", "keygen", "diode", "--to", &to, "--name", "line"]);
        assert!(made.status.success());
        let secret = pair.a.path("line.diode.secret");
        // What `b` imports is not what `a` put out: it has to come over the line.
        let spool = pair.media.path().join("received");
        let document = fs::read_to_string(pair.b.path("border.toml")).unwrap();
        let document = document
            .replace(&pair.media.path().join("ab").display().to_string(), &spool.display().to_string());
        fs::write(pair.b.path("border.toml"), document).unwrap();
        pair.b.server.restart();
        Self { pair, secret, spool, receiving: None, listens: free_port() }
    }

    fn command(&self, what: &str, spool: &PathBuf, more: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .args(["bundle", what, "--spool"])
            .arg(spool)
            .arg("--link")
            .arg(self.pair.a.path("ab.link.json"));
        command.arg("--secret").arg(&self.secret).args(more).stdout(Stdio::null());
        command
    }

    fn receive(&mut self) {
        let partial = self.pair.media.path().join("partial").display().to_string();
        let more = ["--listen", &self.listens, "--partial", &partial];
        self.receiving = Some(Receiving(self.command("receive-diode", &self.spool, &more).spawn().unwrap()));
        // It is there when its address is taken.
        let started = Instant::now();
        while UdpSocket::bind(&self.listens).is_ok() {
            assert!(started.elapsed() < Duration::from_secs(20), "the receiver does not start");
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn send(&self, line: &Line, percent: u64) {
        let repair = (percent + 10).to_string();
        let more =
            ["--to", &line.address, "--once", "--repair-percent", &repair, "--bits-per-second", "40000000"];
        let sent = self.command("send-diode", &self.pair.media.path().join("ab"), &more).status().unwrap();
        assert!(sent.success());
    }

    /// Waits until so many bundles lie in the receiver's spool.
    fn arrived(&self, wanted: usize) {
        let started = Instant::now();
        loop {
            let there = Spool::new(&self.spool).unwrap().list().unwrap().len();
            if there >= wanted {
                return;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "{there} of {wanted} bundles came");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn crosses_with_a_loss_of(percent: u64) {
    let mut diode = Diode::new();
    let (alice, bob) = (diode.pair.a.register("alice"), diode.pair.b.register("bob"));
    let room =
        alice.create_room(json!({ "preset": "private_chat", "name": "Weather", "invite": [bob.id()] }));
    let mut exported = 0;
    diode.pair.a.export();
    exported += 1;
    diode.receive();
    let mut line = Line::losing(percent, &diode.listens);
    diode.send(&line, percent);
    diode.arrived(exported);
    assert_eq!(diode.pair.b.import()["bundles"].as_array().unwrap().len(), 1);
    bob.join(&room);
    for file in diode.pair.files("ab") {
        fs::remove_file(file).unwrap();
    }
    let mut said = Vec::new();
    for n in 0..10 {
        said.push(format!("report {n}"));
        let noise: String =
            (0..20_000_u64).map(|at| char::from(b'a' + ((at * at * 31 + n * 7) % 26) as u8)).collect();
        alice.send(
            &room,
            "m.room.message",
            json!({ "msgtype": "m.text", "body": format!("report {n}"), "noise": noise }),
        );
        diode.pair.a.export();
    }
    let file = alice.upload("application/octet-stream", None, &vec![7; 900_000]);
    alice.send(&room, "m.room.message", json!({ "msgtype": "m.file", "body": "chart", "url": file }));
    said.push("chart".to_owned());
    diode.pair.a.export();
    diode.send(&line, percent);
    diode.arrived(11);
    let import = diode.pair.b.import();
    assert_eq!((&import["missing"], &import["refused"]), (&json!([]), &json!([])), "{import:#}");
    assert_eq!(import["bundles"].as_array().unwrap().len(), 11, "{import:#}");
    assert_eq!(bodies(&bob, &room), said);
    let (came, lost) = line.end();
    println!("{percent} %: {lost} of {came} datagrams were lost");
    assert!(lost * 100 >= came * percent / 2, "{lost} of {came}");
    // What was taken over is not kept twice, and nothing waits.
    assert!(Spool::new(&diode.spool).unwrap().list().unwrap().is_empty());
}

#[test]
fn attack_53_everything_crosses_a_diode_that_loses_1_percent() {
    crosses_with_a_loss_of(1);
}

#[test]
fn attack_53_everything_crosses_a_diode_that_loses_5_percent() {
    crosses_with_a_loss_of(5);
}

#[test]
fn attack_53_everything_crosses_a_diode_that_loses_20_percent() {
    crosses_with_a_loss_of(20);
}

#[test]
fn attack_53_what_a_diode_lost_is_known_and_healed_by_the_next_keyframe() {
    let mut diode = Diode::new();
    let (alice, bob) = (diode.pair.a.register("alice"), diode.pair.b.register("bob"));
    let room = alice.create_room(json!({ "preset": "private_chat", "invite": [bob.id()] }));
    diode.pair.a.export();
    diode.receive();
    let mut line = Line::losing(0, &diode.listens);
    diode.send(&line, 0);
    diode.arrived(1);
    diode.pair.b.import();
    bob.join(&room);
    alice.send_text(&room, "lost");
    diode.pair.a.export();
    // The line is dead for this one.
    for file in diode.pair.files("ab") {
        fs::remove_file(file).unwrap();
    }
    alice.send_text(&room, "behind it");
    diode.pair.a.export();
    diode.send(&line, 0);
    diode.arrived(1);
    let import = diode.pair.b.import();
    assert_eq!(import["missing"], json!([[2, 2]]), "{import:#}");
    let ticket = import["ticket"].as_str().unwrap();
    assert!(ticket.len() <= 200);
    assert_eq!(bodies(&bob, &room), [""; 0]);
    diode.pair.a.done(&["export", "courier", "--keyframe"]);
    diode.send(&line, 0);
    diode.arrived(1);
    let import = diode.pair.b.import();
    assert_eq!(import["missing"], json!([]), "{import:#}");
    assert_eq!(bodies(&bob, &room), ["lost", "behind it"]);
    line.end();
    let link: LinkFile =
        serde_json::from_str(&fs::read_to_string(diode.pair.a.path("ab.link.json")).unwrap()).unwrap();
    assert_eq!(link.epoch, 1);
}
