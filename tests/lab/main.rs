//! Servers on hosts of their own, with TLS, over a network that fails: packets are lost and late, some hosts do not hear
//! others, cables are out, servers are killed. People go on writing and changing state meanwhile. When the network is well again
//! all servers come to the same state and the same events, by themselves, and nothing is missing that a client was told is there.
//!
//! `tests/lab/run.sh` runs this inside namespaces of its own. Faults follow from a seed, which is printed: `POSTERN_SEED` sets
//! it, `POSTERN_LAB_SECONDS` how long there are faults. What people do is drawn from the seed too, but when they get to it
//! depends on the servers. `POSTERN_LAB_LOG` is what the servers tell in their logs, which `POSTERN_KEEP` keeps.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod agreement;
mod faults;
mod people;

use faults::Fault;
use people::Person;
use postern_world::{Network, Server};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_postern");
/// People on each server.
const PEOPLE: usize = 2;

/// What is run.
struct Plan {
    name: &'static str,
    servers: usize,
    rooms: usize,
    seconds: u64,
}

#[test]
fn two_servers_agree_after_faults() {
    carry_out(&Plan { name: "two", servers: 2, rooms: 2, seconds: 20 });
}

#[test]
fn five_servers_agree_after_faults() {
    carry_out(&Plan { name: "five", servers: 5, rooms: 3, seconds: 75 });
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

fn pause(milliseconds: u64) {
    thread::sleep(Duration::from_millis(milliseconds));
}

fn carry_out(plan: &Plan) {
    let seed = number("POSTERN_SEED").unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let seconds = number("POSTERN_LAB_SECONDS").unwrap_or(plan.seconds);
    println!("{}: POSTERN_SEED={seed} POSTERN_LAB_SECONDS={seconds}", plan.name);
    let mut random = StdRng::seed_from_u64(seed);
    let network = Network::of(plan.servers);
    network.heal();
    let level = std::env::var("POSTERN_LAB_LOG").unwrap_or_else(|_| "warn".to_owned());
    let settings = [
        ("log.level", level.as_str()),
        ("federation.request_timeout_ms", "5000"),
        ("federation.connect_timeout_ms", "2000"),
    ];
    let servers: Vec<Server> =
        (0..plan.servers).map(|host| Server::on_host(PROGRAM, &network, host, &settings)).collect();
    let (people, rooms) = people::gather(&servers, PEOPLE, plan.rooms);

    let stop = AtomicBool::new(false);
    let begin = Instant::now();
    thread::scope(|scope| {
        let mut seed = || StdRng::seed_from_u64(random.random());
        let mut faults = seed();
        let busy: Vec<_> = people
            .iter()
            .map(|person| {
                let (random, rooms, stop) = (seed(), &rooms, &stop);
                scope.spawn(move || person.live(rooms, random, stop))
            })
            .collect();
        while begin.elapsed() < Duration::from_secs(seconds) && busy.iter().all(|each| !each.is_finished()) {
            let fault = Fault::draw(&mut faults, plan.servers);
            println!("{:6.1} s: {fault}", begin.elapsed().as_secs_f64());
            fault.happen(&network, &servers);
            if fault.heals {
                network.heal();
            }
        }
        println!("{:6.1} s: all is well", begin.elapsed().as_secs_f64());
        network.heal();
        stop.store(true, Ordering::Relaxed);
        busy.into_iter().for_each(|each| each.join().expect("people go on"));
    });

    let told: usize = people.iter().map(Person::told).sum();
    println!("{:6.1} s: {told} events were acknowledged", begin.elapsed().as_secs_f64());
    assert!(told > 20, "only {told} events were sent: too few to show anything");
    agreement::reached(&people, &rooms);
    println!("{:6.1} s: all agree", begin.elapsed().as_secs_f64());
    for server in &servers {
        let log = server.log();
        assert!(!log.contains("panicked"), "{log}");
        server.terminate();
        let doctor = server.run(&["doctor"]);
        assert!(doctor.status.success(), "the doctor says: {}", String::from_utf8_lossy(&doctor.stdout));
    }
}
