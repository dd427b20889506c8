//! Diodes that lose, repeat and reorder (attack 53), in memory and over real sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::packet::Packet;
use super::*;
use crate::header::Place;
use crate::keys::LinkId;
use crate::spool::{Found, Spool};
use crate::testing::LINK;

const SETTINGS: Settings = Settings {
    symbol_bytes: 512,
    block_symbols: 40,
    repair_percent: 30,
    passes: 2,
    bits_per_second: 40_000_000,
};

fn key() -> DiodeKey {
    DiodeKey::from_bytes([42; 32])
}

fn place(seq: u64) -> Place {
    Place { link: LINK, epoch: 1, seq }
}

/// Some bytes, different for each bundle.
fn content(seq: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rand::Rng::fill_bytes(&mut SmallRng::seed_from_u64(seq), &mut bytes);
    bytes
}

struct World {
    directory: tempfile::TempDir,
    low: Spool,
    high: Spool,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let spool = |name: &str| Spool::new(directory.path().join(name)).unwrap();
        let (low, high) = (spool("low"), spool("high"));
        Self { directory, low, high }
    }

    fn bundle(&self, seq: u64, length: usize) -> Found {
        let files = vec![self.low.put(place(seq), &content(seq, length)[..]).unwrap()];
        Found { place: place(seq), files }
    }

    fn sender(&self, settings: Settings, lengths: &[usize]) -> Sender {
        let mut sender = Sender::new(settings, key());
        for (seq, length) in (1..).zip(lengths) {
            sender.push(self.bundle(seq, *length)).unwrap();
        }
        sender
    }

    fn receiver(&self) -> Receiver {
        Receiver::new(
            BTreeMap::from([(LINK, key())]),
            self.directory.path().join("receiver"),
            self.high.clone(),
        )
        .unwrap()
    }

    /// Which bundles arrived; each must be as it was sent.
    fn arrived(&self, lengths: &[usize]) -> BTreeSet<u64> {
        let found = self.high.list().unwrap();
        for bundle in &found {
            let length = lengths[bundle.place.seq as usize - 1];
            assert_eq!(std::fs::read(&bundle.files[0]).unwrap(), content(bundle.place.seq, length));
        }
        found.iter().map(|bundle| bundle.place.seq).collect()
    }
}

fn datagrams(sender: &mut Sender) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| sender.next_datagram().unwrap()).collect()
}

fn missing(receiver: &Receiver) -> BTreeSet<u64> {
    let ticket = receiver.ticket(LINK, Vec::new()).unwrap();
    let read: crate::Ticket = ticket.to_string().parse().unwrap();
    assert!(read.exact);
    read.missing.into_iter().flatten().collect()
}

/// What a diode does to datagrams: loses them one by one and in bursts, repeats and reorders them.
struct Line {
    rng: SmallRng,
    loss: f64,
    /// Datagrams that are still to be lost in the present burst, and how many are in one.
    burst: usize,
    bursts_of: usize,
    held: Vec<Vec<u8>>,
}

impl Line {
    fn new(seed: u64, loss: f64, bursts_of: usize) -> Self {
        Self { rng: SmallRng::seed_from_u64(seed), loss, burst: 0, bursts_of, held: Vec::new() }
    }

    fn carry(&mut self, datagram: Vec<u8>) -> Vec<Vec<u8>> {
        if self.burst == 0 && self.bursts_of > 0 && self.rng.random_bool(0.000_5) {
            self.burst = self.bursts_of;
        }
        if self.burst > 0 {
            self.burst -= 1;
            return Vec::new();
        }
        if self.rng.random_bool(self.loss) {
            return Vec::new();
        }
        if self.rng.random_bool(0.05) {
            self.held.push(datagram);
            return Vec::new();
        }
        let mut out = vec![datagram.clone()];
        if self.rng.random_bool(0.02) {
            out.push(datagram);
        }
        if self.held.len() > 20 || self.rng.random_bool(0.05) {
            out.append(&mut self.held);
        }
        out
    }
}

#[test]
fn bundles_of_all_lengths_arrive() {
    let world = World::new();
    let lengths = [1, 491, 492, 493, 20_459, 20_460, 20_461, 100_000];
    let (mut sender, mut receiver) =
        (world.sender(Settings { passes: 1, ..SETTINGS }, &lengths), world.receiver());
    for datagram in datagrams(&mut sender) {
        receiver.datagram(&datagram).unwrap();
    }
    assert_eq!(world.arrived(&lengths).len(), lengths.len());
    assert_eq!(missing(&receiver), BTreeSet::new());
    assert_eq!(receiver.held(), 0);
}

#[test]
fn nothing_is_missing_when_repair_exceeds_loss_by_ten_per_cent() {
    for (loss, seed) in [(1, 1), (5, 2), (20, 3)] {
        for bursts_of in [0, 60] {
            let world = World::new();
            let lengths = [70_000; 15];
            // A burst may take all that one pass sends of a block; two more are left then.
            let settings =
                Settings { repair_percent: loss + 10, passes: if bursts_of > 0 { 3 } else { 2 }, ..SETTINGS };
            let (mut sender, mut receiver) = (world.sender(settings, &lengths), world.receiver());
            let mut line = Line::new(seed, f64::from(loss) / 100.0, bursts_of);
            for datagram in datagrams(&mut sender).into_iter().flat_map(|datagram| line.carry(datagram)) {
                receiver.datagram(&datagram).unwrap();
            }
            assert_eq!(
                world.arrived(&lengths).len(),
                lengths.len(),
                "loss {loss} %, bursts of {bursts_of}, seed {seed}"
            );
            assert_eq!(missing(&receiver), BTreeSet::new());
        }
    }
}

#[test]
fn with_too_little_repair_the_ticket_says_exactly_what_is_missing() {
    for (loss, seed) in [(1, 4), (5, 5), (20, 6)] {
        let world = World::new();
        let lengths = [70_000; 15];
        let settings = Settings { repair_percent: 0, passes: 1, ..SETTINGS };
        let (mut sender, mut receiver) = (world.sender(settings, &lengths), world.receiver());
        let mut line = Line::new(seed, f64::from(loss) / 100.0, 60);
        for datagram in datagrams(&mut sender).into_iter().flat_map(|datagram| line.carry(datagram)) {
            receiver.datagram(&datagram).unwrap();
        }
        receiver.datagram(&sender.announcement(place(15))).unwrap();
        let arrived = world.arrived(&lengths);
        assert!(arrived.len() < lengths.len(), "loss {loss} %");
        assert_eq!(
            missing(&receiver),
            (1..=15).filter(|seq| !arrived.contains(seq)).collect(),
            "loss {loss} %"
        );
        // What the ticket asks for is sent again, and that is all it takes.
        let mut again = Sender::new(SETTINGS, key());
        let files = world.low.list().unwrap().into_iter().filter(|found| !arrived.contains(&found.place.seq));
        files.for_each(|found| again.push(found).unwrap());
        for datagram in datagrams(&mut again) {
            receiver.datagram(&datagram).unwrap();
        }
        assert_eq!(missing(&receiver), BTreeSet::new());
    }
}

#[test]
fn any_symbols_of_two_passes_will_do() {
    // Each second datagram is lost: one pass has too few, and no symbol of the second pass was in the first.
    let world = World::new();
    let lengths = [50_000];
    let settings = Settings { repair_percent: 10, ..SETTINGS };
    let (mut sender, mut receiver) = (world.sender(settings, &lengths), world.receiver());
    for datagram in datagrams(&mut sender).into_iter().step_by(2) {
        receiver.datagram(&datagram).unwrap();
    }
    assert_eq!(world.arrived(&lengths).len(), 1);
}

#[test]
fn a_forged_datagram_changes_nothing() {
    let world = World::new();
    let lengths = [30_000];
    let sent = datagrams(&mut world.sender(Settings { passes: 1, repair_percent: 0, ..SETTINGS }, &lengths));
    let mut receiver = world.receiver();
    let other_key = DiodeKey::from_bytes([43; 32]).of(LINK, 1);
    let other_link = Packet { place: Place { link: LinkId([9; 8]), ..place(1) }, block: 0, esi: 0, k: 40 };
    let same_key_other_epoch = key().of(LINK, 2);
    let refused = |receiver: &mut Receiver, datagram: &[u8]| match receiver.datagram(datagram).unwrap() {
        Outcome::Refused(refused) => refused,
        outcome => panic!("{outcome:?}"),
    };
    for datagram in sent {
        let mut changed = datagram.clone();
        changed[100] ^= 1;
        assert_eq!(refused(&mut receiver, &changed), Refused::Forged);
        let packet = Packet::read(&datagram).unwrap();
        assert_eq!(refused(&mut receiver, &packet.encode(&[0; 512], &other_key)), Refused::Forged);
        assert_eq!(refused(&mut receiver, &packet.encode(&[0; 512], &same_key_other_epoch)), Refused::Forged);
        assert_eq!(refused(&mut receiver, &other_link.encode(&[0; 512], &other_key)), Refused::UnknownLink);
        let far = Packet { place: place(1_000_000), ..packet };
        assert_eq!(refused(&mut receiver, &far.encode(&[0; 512], &other_key)), Refused::Forged);
        let mut header = datagram.clone();
        header[20] ^= 1;
        assert_eq!(refused(&mut receiver, &header), Refused::NotOurs);
        for length in [0, 31, 47] {
            assert_eq!(refused(&mut receiver, &datagram[..length]), Refused::NotOurs);
        }
        receiver.datagram(&datagram).unwrap();
    }
    assert_eq!(world.arrived(&lengths).len(), 1);
    assert_eq!(receiver.ticket(LINK, Vec::new()).unwrap().last, 1);
    assert_eq!(receiver.ticket(LinkId([9; 8]), Vec::new()), None);
}

#[test]
fn repeated_datagrams_neither_help_nor_hinder() {
    let world = World::new();
    let lengths = [15_000];
    let sent = datagrams(&mut world.sender(Settings { passes: 1, repair_percent: 0, ..SETTINGS }, &lengths));
    let mut receiver = world.receiver();
    for _ in 0..1_000 {
        receiver.datagram(&sent[0]).unwrap();
    }
    assert_eq!(receiver.held(), 512);
    sent.iter().for_each(|datagram| _ = receiver.datagram(datagram).unwrap());
    assert_eq!(world.arrived(&lengths).len(), 1);
    sent.iter().for_each(|datagram| assert_eq!(receiver.datagram(datagram).unwrap(), Outcome::Known));
}

#[test]
fn memory_is_bounded_and_the_account_is_exact_all_the_same() {
    let world = World::new();
    let lengths = [15_000; 30];
    let settings = Settings { passes: 1, repair_percent: 0, ..SETTINGS };
    let sent = datagrams(&mut world.sender(settings, &lengths));
    let mut receiver = world.receiver().with_bounds(50_000, 1 << 20);
    // Of each bundle all but one symbol, all mixed.
    let (mut first, mut rest) = (Vec::new(), Vec::new());
    for datagram in sent {
        let packet = Packet::read(&datagram).unwrap();
        if packet.esi == 0 { first.push(datagram) } else { rest.push((packet.esi, datagram)) }
    }
    rest.sort_by_key(|(esi, _)| *esi);
    for (_, datagram) in rest {
        receiver.datagram(&datagram).unwrap();
        assert!(receiver.held() <= 50_000);
    }
    assert!(receiver.statistics().evicted > 0);
    first.iter().for_each(|datagram| _ = receiver.datagram(datagram).unwrap());
    let arrived = world.arrived(&lengths);
    assert_eq!(missing(&receiver), (1..=30).filter(|seq| !arrived.contains(seq)).collect());
}

#[test]
fn a_bundle_that_is_too_long_is_refused() {
    let world = World::new();
    let (mut sender, mut receiver) =
        (world.sender(SETTINGS, &[30_000]), world.receiver().with_bounds(1 << 20, 20_000));
    let outcomes: BTreeSet<_> = datagrams(&mut sender)
        .iter()
        .map(|datagram| format!("{:?}", receiver.datagram(datagram).unwrap()))
        .collect();
    assert!(outcomes.contains("Refused(Size)"));
    assert_eq!(world.high.list().unwrap(), []);
}

#[test]
fn a_restarted_receiver_goes_on_with_the_blocks_it_had() {
    let world = World::new();
    let lengths = [200_000, 30_000];
    let sent = datagrams(&mut world.sender(Settings { passes: 1, repair_percent: 0, ..SETTINGS }, &lengths));
    for datagrams in sent.chunks(100) {
        // Blocks have 40 symbols: each run completes some, and leaves one it began.
        let mut receiver = world.receiver();
        datagrams.iter().for_each(|datagram| _ = receiver.datagram(datagram).unwrap());
    }
    let mut receiver = world.receiver();
    let before = missing(&receiver);
    assert!(before.contains(&1));
    let blocks = sent.iter().map(|datagram| receiver.datagram(datagram).unwrap());
    let known = blocks.filter(|outcome| *outcome == Outcome::Known).count();
    assert_eq!(missing(&receiver), BTreeSet::new());
    assert_eq!(world.arrived(&lengths).len(), 2);
    assert!(known >= 5 * 40, "{known} datagrams were of blocks that earlier runs completed");
    assert_eq!(missing(&world.receiver()), BTreeSet::new());
    let left: Vec<_> = std::fs::read_dir(world.directory.path().join("receiver"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["received.json"]);
}

#[test]
fn a_sender_that_is_set_differently_is_understood() {
    let world = World::new();
    let lengths = [100_000];
    let one = datagrams(&mut world.sender(Settings { passes: 1, ..SETTINGS }, &lengths));
    let found = world.low.list().unwrap().remove(0);
    let mut sender =
        Sender::new(Settings { symbol_bytes: 1_024, block_symbols: 30, passes: 1, ..SETTINGS }, key());
    sender.push(found).unwrap();
    let mut receiver = world.receiver();
    one[..one.len() / 2].iter().for_each(|datagram| _ = receiver.datagram(datagram).unwrap());
    datagrams(&mut sender).iter().for_each(|datagram| _ = receiver.datagram(datagram).unwrap());
    assert_eq!(world.arrived(&lengths).len(), 1);
}

#[test]
fn a_keyframe_is_sent_when_nothing_else_is_due() {
    let world = World::new();
    let mut sender = Sender::new(Settings { passes: 1, ..SETTINGS }, key());
    sender.set_keyframe(world.bundle(1, 30_000)).unwrap();
    let next = |sender: &mut Sender| Packet::read(&sender.next_datagram().unwrap().unwrap()).unwrap();
    let first: Vec<_> = (0..500).map(|_| next(&mut sender)).collect();
    assert!(first.iter().all(|packet| packet.place == place(1)));
    let symbols: BTreeSet<_> = first.iter().map(|packet| (packet.block, packet.esi)).collect();
    assert_eq!(symbols.len(), first.len(), "no symbol is sent twice");
    sender.push(world.bundle(2, 1_000)).unwrap();
    assert_eq!(next(&mut sender).place, place(2));
    while sender.waiting() > 0 {
        if next(&mut sender).place == place(1) {
            break;
        }
    }
    assert_eq!(next(&mut sender).place, place(1));
}

#[test]
fn volumes_of_a_bundle_are_sent_as_the_bundle() {
    let world = World::new();
    let outgoing = |spool: &Spool, volume| {
        let mut outgoing = spool.begin(&crate::testing::recipients()).unwrap();
        crate::testing::records(1_000).iter().for_each(|record| outgoing.add(record).unwrap());
        outgoing
            .finish()
            .unwrap()
            .publish(crate::testing::fields(1), Vec::new(), &crate::testing::link_key(), volume)
            .unwrap()
    };
    let (_, files) = outgoing(&world.low, Some(crate::limits::VOLUME_BYTES));
    assert!(files.len() > 2);
    let mut sender = Sender::new(Settings { passes: 1, ..SETTINGS }, key());
    sender.push(world.low.list().unwrap().remove(0)).unwrap();
    let mut receiver = world.receiver();
    datagrams(&mut sender).iter().for_each(|datagram| _ = receiver.datagram(datagram).unwrap());
    let found = world.high.list().unwrap().remove(0);
    assert_eq!(found.files.len(), 1);
    crate::verify_sealed(found.open().unwrap(), &crate::testing::keyring()).unwrap();
}

/// Sender, relay and receiver over loopback sockets. Returns which bundles arrived and which are said to be missing.
fn over_udp(
    settings: Settings,
    loss: f64,
    burst: Duration,
    seed: u64,
    lengths: &[usize],
) -> (BTreeSet<u64>, BTreeSet<u64>) {
    let world = World::new();
    let (mut sender, mut receiver) = (world.sender(settings, lengths), world.receiver());
    let socket = || UdpSocket::bind("127.0.0.1:0").unwrap();
    let (low, relay, high) = (socket(), socket(), socket());
    low.connect(relay.local_addr().unwrap()).unwrap();
    let to = high.local_addr().unwrap();
    relay.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let (sent, quiet) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut line = Line::new(seed, loss, 0);
            let mut buffer = vec![0; 10_000];
            // One burst, while the first pass is under way.
            let start = Instant::now() + Duration::from_millis(100);
            loop {
                match relay.recv(&mut buffer) {
                    Ok(_) if (start..start + burst).contains(&Instant::now()) => {}
                    Ok(length) => line
                        .carry(buffer[..length].to_vec())
                        .iter()
                        .for_each(|datagram| _ = relay.send_to(datagram, to).unwrap()),
                    Err(_) if sent.load(Ordering::Relaxed) => break,
                    Err(_) => {}
                }
            }
            let last = lengths.len() as u64;
            let sender = Sender::new(settings, key());
            relay.send_to(&sender.announcement(place(last)), to).unwrap();
            // What comes of another link is refused: it is the end, behind everything else.
            let end = sender.announcement(Place { link: LinkId([0; 8]), ..place(1) });
            while !quiet.load(Ordering::Relaxed) {
                relay.send_to(&end, to).unwrap();
                std::thread::yield_now();
            }
        });
        scope.spawn(|| {
            send(&mut sender, settings.bits_per_second, &low, &AtomicBool::new(false)).unwrap();
            sent.store(true, Ordering::Relaxed);
        });
        receive(&mut receiver, &high, &quiet, |_, outcome| {
            if outcome == Outcome::Refused(Refused::UnknownLink) {
                quiet.store(true, Ordering::Relaxed);
            }
        })
        .unwrap();
    });
    (world.arrived(lengths), missing(&receiver))
}

#[test]
fn over_udp_nothing_is_missing_when_repair_exceeds_loss_by_ten_per_cent() {
    for (loss, seed) in [(1, 7), (5, 8), (20, 9)] {
        let settings = Settings { repair_percent: loss + 10, passes: 3, ..SETTINGS };
        let (arrived, missing) =
            over_udp(settings, f64::from(loss) / 100.0, Duration::from_millis(200), seed, &[120_000; 24]);
        assert_eq!((arrived.len(), missing), (24, BTreeSet::new()), "loss {loss} %, seed {seed}");
    }
}

#[test]
fn over_udp_with_too_little_repair_the_ticket_says_exactly_what_is_missing() {
    for (loss, seed) in [(5, 10), (20, 11)] {
        let settings = Settings { repair_percent: 0, passes: 1, ..SETTINGS };
        let (arrived, missing) =
            over_udp(settings, f64::from(loss) / 100.0, Duration::from_millis(200), seed, &[60_000; 12]);
        assert!(!missing.is_empty(), "loss {loss} %");
        assert_eq!(
            missing,
            (1..=12).filter(|seq| !arrived.contains(seq)).collect(),
            "loss {loss} %, seed {seed}"
        );
    }
}
