//! What goes wrong, drawn at random.

use crate::pause;
use postern_world::{Network, Server, network::Line};
use rand::{RngExt, rngs::StdRng};
use std::fmt;

/// How long a fault lasts, milliseconds.
const LASTS_MS: std::ops::RangeInclusive<u64> = 300..=4_000;
/// How long a killed server stays away, milliseconds.
const AWAY_MS: std::ops::RangeInclusive<u64> = 0..=2_000;

#[derive(Debug)]
enum Kind {
    /// Nothing, for a while.
    Rest,
    /// Two groups do not hear each other.
    Partition(Vec<usize>),
    /// One host hears nothing of another, which hears it.
    OneWay { deaf: usize, to: usize },
    /// The line to a host is bad.
    Line(usize, Line),
    /// Servers are killed and come back.
    Kill(Vec<usize>, u64),
}

/// Something that goes wrong.
#[derive(Debug)]
pub struct Fault {
    kind: Kind,
    lasts_ms: u64,
    /// Whether the network is well again at its end; if not, what comes next is worse for it.
    pub heals: bool,
}

impl Fault {
    pub fn draw(random: &mut StdRng, hosts: usize) -> Self {
        let one = random.random_range(0..hosts);
        let another = (one + random.random_range(1..hosts)) % hosts;
        let some = |random: &mut StdRng| -> Vec<usize> {
            let mut some: Vec<usize> = (0..hosts).filter(|_| random.random_bool(0.4)).collect();
            if some.is_empty() {
                some.push(one);
            }
            some
        };
        let side = |random: &mut StdRng| {
            let mut side = some(random);
            if side.len() == hosts {
                side.retain(|host| *host != one);
            }
            side
        };
        let kind = match random.random_range(0..12) {
            0 => Kind::Rest,
            1..=3 => Kind::Partition(side(random)),
            4 => Kind::OneWay { deaf: one, to: another },
            5 | 6 => {
                let loss_permille = random.random_range(20..=400);
                Kind::Line(one, Line { loss_permille, ..Line::default() })
            }
            7 | 8 => {
                let delay_ms = random.random_range(5..=150);
                Kind::Line(one, Line { delay_ms, ..Line::default() })
            }
            9 => Kind::Line(one, Line { down: true, ..Line::default() }),
            _ => Kind::Kill(some(random), random.random_range(AWAY_MS)),
        };
        Self { kind, lasts_ms: random.random_range(LASTS_MS), heals: random.random_bool(0.7) }
    }

    /// Lets it happen and lasts.
    pub fn happen(&self, network: &Network, servers: &[Server]) {
        match &self.kind {
            Kind::Rest => {}
            Kind::Partition(group) => {
                for host in 0..servers.len() {
                    let side = group.contains(&host);
                    let deaf_to = (0..servers.len()).filter(|other| group.contains(other) != side).collect();
                    network.set(host, &Line { deaf_to, ..Line::default() });
                }
            }
            Kind::OneWay { deaf, to } => {
                network.set(*deaf, &Line { deaf_to: vec![*to], ..Line::default() });
            }
            Kind::Line(host, line) => network.set(*host, line),
            Kind::Kill(group, away_ms) => {
                group.iter().for_each(|host| servers[*host].kill());
                pause(*away_ms);
                group.iter().for_each(|host| servers[*host].start_again());
            }
        }
        pause(self.lasts_ms);
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Rest => write!(f, "rest"),
            Kind::Partition(group) => write!(f, "{group:?} and the others do not hear each other"),
            Kind::OneWay { deaf, to } => write!(f, "{deaf} does not hear {to}"),
            Kind::Line(host, Line { down: true, .. }) => write!(f, "the cable of {host} is out"),
            Kind::Line(host, Line { loss_permille: 0, delay_ms, .. }) => {
                write!(f, "what {host} gets is late by {delay_ms} ms")
            }
            Kind::Line(host, Line { loss_permille, .. }) => {
                write!(f, "{loss_permille} of 1000 packets to {host} are lost")
            }
            Kind::Kill(group, away_ms) => write!(f, "{group:?} are killed, and back after {away_ms} ms"),
        }?;
        write!(f, ", for {} ms{}", self.lasts_ms, if self.heals { "" } else { ", and stays" })
    }
}
