//! The sending end, without its socket: which datagram comes next.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader};
use std::time::{Duration, Instant};

use super::blocks::{EncodedBlock, Settings};
use super::packet::{Authenticator, DiodeKey, Packet};
use crate::header::Place;
use crate::limits;
use crate::spool::Found;
use crate::volumes::Joined;

/// A bundle that is being sent.
struct Job {
    bundle: Found,
    total: u64,
    pass: u32,
    key: Authenticator,
    /// Where the next block begins, and what it is read from.
    offset: u64,
    from: Option<BufReader<Joined<File>>>,
    due: VecDeque<Vec<u8>>,
}

/// Decides what goes over a diode next: bundles in the order they were pushed, pass after pass, and the last keyframe when
/// nothing else is due.
pub struct Sender {
    settings: Settings,
    key: DiodeKey,
    queue: VecDeque<Job>,
    keyframe: Option<Job>,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("waiting", &self.queue.len()).finish_non_exhaustive()
    }
}

impl Sender {
    pub fn new(settings: Settings, key: DiodeKey) -> Self {
        Self { settings: settings.bounded(), key, queue: VecDeque::new(), keyframe: None }
    }

    fn job(&self, bundle: Found) -> io::Result<Job> {
        let mut total = 0;
        for (number, file) in bundle.files.iter().enumerate() {
            let front = if number == 0 { 0 } else { crate::volumes::VOLUME_FRONT as u64 };
            total += std::fs::metadata(file)?.len().saturating_sub(front);
        }
        if total == 0 || total > self.settings.most_bytes() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a bundle of a length that these settings cannot send",
            ));
        }
        let key = self.key.of(bundle.place.link, bundle.place.epoch);
        Ok(Job { bundle, total, pass: 0, key, offset: 0, from: None, due: VecDeque::new() })
    }

    /// Sends a bundle as often as is set. Its files must stay until then; a bundle whose files are gone is left out.
    ///
    /// # Errors
    /// If its files cannot be looked at, it is longer than can be sent, or too many wait.
    pub fn push(&mut self, bundle: Found) -> io::Result<()> {
        if self.queue.len() >= limits::SEND_QUEUE {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "too many bundles wait to be sent"));
        }
        let job = self.job(bundle)?;
        self.queue.push_back(job);
        Ok(())
    }

    /// Sends a keyframe over and over whenever nothing else is due, instead of the one before.
    ///
    /// # Errors
    /// As [`Sender::push`].
    pub fn set_keyframe(&mut self, bundle: Found) -> io::Result<()> {
        self.keyframe = Some(self.job(bundle)?);
        Ok(())
    }

    /// Bundles that are not sent as often as is set yet.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// The next datagram; `None` if nothing is due.
    ///
    /// # Errors
    /// If a bundle cannot be read; it is left out from then on.
    pub fn next_datagram(&mut self) -> io::Result<Option<Vec<u8>>> {
        let settings = self.settings;
        while let Some(mut job) = self.queue.pop_front() {
            match job.next(&settings)? {
                Some(datagram) => {
                    self.queue.push_front(job);
                    return Ok(Some(datagram));
                }
                // The others come first: so a burst that lasts does not meet both passes.
                None if job.pass < u32::from(settings.passes) => self.queue.push_back(job),
                None => {}
            }
        }
        let Some(mut job) = self.keyframe.take() else { return Ok(None) };
        // One pass may have ended just now; a bundle has at least one block.
        for _ in 0..2 {
            if let Some(datagram) = job.next(&settings)? {
                self.keyframe = Some(job);
                return Ok(Some(datagram));
            }
        }
        Ok(None)
    }

    /// Says how far a link has come, for when nothing else is sent: the receiver then knows that the last ones are missing.
    pub fn announcement(&self, place: Place) -> Vec<u8> {
        Packet::announcement(place).encode(&[], &self.key.of(place.link, place.epoch))
    }
}

impl Job {
    /// The next datagram of this pass; `None` at its end, and then the next pass begins.
    fn next(&mut self, settings: &Settings) -> io::Result<Option<Vec<u8>>> {
        if self.due.is_empty() {
            if self.offset >= self.total {
                self.pass += 1;
                self.offset = 0;
                self.from = None;
                return Ok(None);
            }
            self.encode(settings)?;
        }
        Ok(self.due.pop_front())
    }

    fn encode(&mut self, settings: &Settings) -> io::Result<()> {
        let from = match &mut self.from {
            Some(from) => from,
            None => self.from.insert(BufReader::new(self.bundle.open()?)),
        };
        let block = EncodedBlock::read(from, self.offset, self.total, settings)?;
        self.offset = self.offset.saturating_add(settings.block_bytes() as u64);
        let symbols = block.symbols(self.pass, settings.repair_percent).into_iter().map(|symbol| {
            let (id, bytes) = symbol.split();
            let packet = Packet {
                place: self.bundle.place,
                block: block.number,
                esi: id.encoding_symbol_id(),
                k: block.k,
            };
            packet.encode(&bytes, &self.key)
        });
        self.due.extend(symbols);
        Ok(())
    }
}

/// Spreads datagrams evenly: how long to wait before the next one.
#[derive(Debug)]
pub struct Pacer {
    bits_per_second: u64,
    /// When the line is free again.
    free: Instant,
}

/// How far the line may lag behind and catch up at once.
const SLACK: Duration = Duration::from_millis(2);
/// Bytes a datagram has on the line beside its own: UDP, IPv6, Ethernet with preamble and gap.
const OVERHEAD: u64 = 8 + 40 + 38;

impl Pacer {
    pub fn new(bits_per_second: u64, now: Instant) -> Self {
        Self { bits_per_second: bits_per_second.max(1_000), free: now }
    }

    /// How long to wait at `now` before a datagram of `bytes` is sent.
    pub fn wait(&mut self, bytes: usize, now: Instant) -> Duration {
        let start = self.free.max(now.checked_sub(SLACK).unwrap_or(now));
        let bits = (bytes as u64 + OVERHEAD) * 8;
        self.free = start + Duration::from_nanos(bits.saturating_mul(1_000_000_000) / self.bits_per_second);
        start.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_not_sent_more_than_it_takes() {
        let start = Instant::now();
        let mut pacer = Pacer::new(8_000_000, start);
        let mut now = start;
        for _ in 0..1_000 {
            now += pacer.wait(1_000 - OVERHEAD as usize, now);
        }
        let took = now.duration_since(start);
        assert!((Duration::from_millis(995)..=Duration::from_millis(1_001)).contains(&took), "{took:?}");
    }

    #[test]
    fn a_pause_is_not_made_up_for() {
        let start = Instant::now();
        let mut pacer = Pacer::new(8_000_000, start);
        let later = start + Duration::from_secs(10);
        let waits: Vec<_> = (0..10).map(|_| pacer.wait(1_000 - OVERHEAD as usize, later)).collect();
        assert_eq!(waits[0], Duration::ZERO);
        assert!(waits[9] >= Duration::from_millis(6));
    }
}
