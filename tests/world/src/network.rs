//! A network in which servers have hosts of their own, and whose faults are made: packets that are lost, that are late,
//! that do not pass between some hosts at all.
//!
//! Each host is a Linux network namespace on one bridge. Clients of the tests reach a host by a line of their own, which has no
//! faults. What a host receives passes a filter at its port of the bridge: a program of classic BPF, which drops packets by
//! their sender or at random. Lateness comes from netem; where the kernel has none, from a line with little bandwidth.
//!
//! All of this is made inside a network namespace that the test runs in already (see `tests/lab/run.sh`), and
//! goes with it.

use std::{
    fmt::Write,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::{Command, Output},
};

/// Set by whoever runs the tests inside namespaces that may be changed.
pub const INSIDE: &str = "POSTERN_LAB_INSIDE";

/// The name of the bridge.
const BRIDGE: &str = "lab";
/// Where servers speak to each other.
const FEDERATION_PORT: u16 = 8448;
/// Where clients speak to them.
const CLIENT_PORT: u16 = 8008;
/// Where their metrics are.
const METRICS_PORT: u16 = 9000;

/// What is wrong with what a host receives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    /// Hosts whose packets do not come through.
    pub deaf_to: Vec<usize>,
    /// Packets of a thousand that are lost.
    pub loss_permille: u32,
    /// How late packets are, milliseconds.
    pub delay_ms: u32,
    /// The cable is out: nothing goes either way.
    pub down: bool,
}

/// Hosts on a bridge.
#[derive(Debug)]
pub struct Network {
    hosts: usize,
    netem: bool,
}

impl Network {
    /// Makes a network of so many hosts.
    ///
    /// # Panics
    /// It cannot be made, or this is not a namespace of its own.
    #[must_use]
    pub fn of(hosts: usize) -> Self {
        assert!(
            std::env::var_os(INSIDE).is_some(),
            "this test runs in namespaces of its own: tests/lab/run.sh"
        );
        // What an earlier test of this program left.
        let _ = attempt(&format!("ip link del {BRIDGE}"));
        run(&format!("ip link add {BRIDGE} type bridge"));
        run(&format!("ip link set {BRIDGE} up"));
        for host in 0..hosts {
            let (name, address, control) = (name(host), address(host), control(host));
            let _ = attempt(&format!("ip netns del {name}"));
            run(&format!("ip netns add {name}"));
            run(&format!("ip link add port{host} type veth peer name eth0 netns {name}"));
            run(&format!("ip link set port{host} master {BRIDGE} up"));
            run(&format!("tc qdisc add dev port{host} clsact"));
            run(&format!("ip -n {name} addr add {address}/24 dev eth0"));
            run(&format!("ip link add control{host} type veth peer name eth1 netns {name}"));
            run(&format!("ip addr add 10.67.{host}.1/24 dev control{host}"));
            run(&format!("ip link set control{host} up"));
            run(&format!("ip -n {name} addr add {control}/24 dev eth1"));
            for link in ["lo", "eth0", "eth1"] {
                run(&format!("ip -n {name} link set {link} up"));
            }
        }
        let netem = attempt("tc qdisc replace dev port0 root netem delay 1ms").status.success();
        if netem {
            run("tc qdisc del dev port0 root");
        } else {
            eprintln!("this kernel has no netem: lines are made late by little bandwidth instead");
        }
        Self { hosts, netem }
    }

    /// How many hosts there are.
    #[must_use]
    pub const fn hosts(&self) -> usize {
        self.hosts
    }

    /// What is wrong with the line to a host, from now on.
    ///
    /// # Panics
    /// The system refuses.
    pub fn set(&self, host: usize, line: &Line) {
        let (program, length) = program(line);
        run_with(
            &format!("tc filter replace dev port{host} egress pref 1 handle 1 bpf da bytecode"),
            &format!("{length},{program}"),
        );
        // Nothing may be there yet.
        let _ = attempt(&format!("tc qdisc del dev port{host} root"));
        if line.delay_ms > 0 && self.netem {
            run(&format!(
                "tc qdisc add dev port{host} root netem delay {}ms {}ms",
                line.delay_ms,
                line.delay_ms / 3
            ));
        } else if line.delay_ms > 0 {
            // A full packet of 1500 bytes takes the time the delay would have been.
            let bits = 12_000_000 / u64::from(line.delay_ms);
            run(&format!("tc qdisc add dev port{host} root tbf rate {bits}bit burst 3200b latency 2s"));
        }
        run(&format!("ip link set port{host} {}", if line.down { "down" } else { "up" }));
    }

    /// Everything is well again.
    pub fn heal(&self) {
        for host in 0..self.hosts {
            self.set(host, &Line::default());
        }
    }
}

/// Where a host's server is for other servers; its name.
pub(crate) fn federation_address(host: usize) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(address(host)), FEDERATION_PORT)
}

/// Where a host's server is for clients, and where its metrics are.
pub(crate) fn client_addresses(host: usize) -> (SocketAddr, SocketAddr) {
    let control = IpAddr::V4(control(host));
    (SocketAddr::new(control, CLIENT_PORT), SocketAddr::new(control, METRICS_PORT))
}

/// What to put before a command for it to run on a host.
pub(crate) fn on(host: usize) -> Vec<String> {
    ["ip", "netns", "exec", &name(host)].map(str::to_owned).to_vec()
}

fn name(host: usize) -> String {
    format!("host{host}")
}

fn address(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 66, 0, 1 + u8::try_from(host).expect("few hosts"))
}

fn control(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 67, u8::try_from(host).expect("few hosts"), 2)
}

/// The filter of a line, and its length in instructions. Only IPv4 is filtered: hosts go on finding each other's links.
fn program(line: &Line) -> (String, usize) {
    // Instructions are code, jump if true, jump if false, operand.
    const LOAD_HALF: u32 = 0x28;
    const LOAD: u32 = 0x20;
    const JUMP_EQUAL: u32 = 0x15;
    const JUMP_NOT_BELOW: u32 = 0x35;
    const RETURN: u32 = 0x06;
    const IPV4: u32 = 0x0800;
    // Offsets into the frame; the last is no offset, but a random number.
    const PROTOCOL: u32 = 12;
    const SENDER: u32 = 26;
    const RANDOM: u32 = 0xffff_f038;
    const PASS: u32 = 0;
    const DROP: u32 = 2;
    let checks = line.deaf_to.len();
    // Behind the checks come the draw (two instructions), then PASS, then DROP.
    let to_end = |from: usize, end: usize| end - from - 1;
    let (pass, drop) = (checks + 5, checks + 6);
    let mut all =
        vec![(LOAD_HALF, 0, 0, PROTOCOL), (JUMP_EQUAL, 0, to_end(1, pass), IPV4), (LOAD, 0, 0, SENDER)];
    for host in &line.deaf_to {
        all.push((JUMP_EQUAL, to_end(all.len(), drop), 0, u32::from(address(*host))));
    }
    let threshold = u32::MAX / 1000 * line.loss_permille.min(1000);
    all.push((LOAD, 0, 0, RANDOM));
    all.push((JUMP_NOT_BELOW, to_end(all.len(), pass), to_end(all.len(), drop), threshold));
    all.push((RETURN, 0, 0, PASS));
    all.push((RETURN, 0, 0, DROP));
    let mut text = String::new();
    for (at, (code, yes, no, operand)) in all.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        write!(text, "{comma}{code} {yes} {no} {operand}").expect("a string takes all");
    }
    (text, all.len())
}

fn attempt(command: &str) -> Output {
    let mut words = command.split_whitespace();
    let mut made = Command::new(words.next().expect("a command"));
    made.args(words).output().unwrap_or_else(|error| panic!("{command}: {error}"))
}

fn run(command: &str) {
    succeeded(command, &attempt(command));
}

/// Runs a command with one more argument, which may have spaces.
fn run_with(command: &str, argument: &str) {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().expect("a command")).args(words).arg(argument).output();
    succeeded(command, &output.unwrap_or_else(|error| panic!("{command}: {error}")));
}

fn succeeded(command: &str, output: &Output) {
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}
