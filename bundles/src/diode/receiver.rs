//! The receiving end, without its socket: datagrams in, complete bundles in a spool, and an account of what is missing.
//!
//! Blocks that were decoded go to disk at once: `NAME.partial` has the bundle's bytes as far as they came, `NAME.blocks` its
//! length, that of its blocks, and the numbers of the blocks that are in it. After a restart both are taken up again, and only symbols of
//! blocks that were not complete are lost.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use super::blocks::{IncomingBlock, Piece};
use super::ledger::Ledger;
use super::packet::{Authenticator, DiodeKey, Packet, Refused};
use crate::error::Error;
use crate::header::Place;
use crate::keys::LinkId;
use crate::limits;
use crate::spool::{Name, Spool};
use crate::ticket::{RoomDigest, Ticket};

const PARTIAL: &str = "partial";
const BLOCKS: &str = "blocks";
const LEDGER: &str = "received.json";

/// Why the receiver cannot go on: its disk.
#[derive(Debug, thiserror::Error)]
pub enum ReceiverError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{}: {source}", .path.display())]
    Ledger { path: PathBuf, source: serde_json::Error },
    #[error(transparent)]
    Spool(#[from] Error),
}

/// What a datagram did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Dropped, and nothing changed.
    Refused(Refused),
    /// Of a bundle or a block that is complete.
    Known,
    /// Taken in.
    Taken,
    /// It completed a block.
    Block,
    /// It completed a bundle, which lies in the spool now.
    Bundle(Place),
}

/// What happened so far, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    pub datagrams: u64,
    pub refused: u64,
    pub blocks: u64,
    pub bundles: u64,
    /// Blocks and bundles that were given up for want of room.
    pub evicted: u64,
}

/// A bundle of which some blocks are on disk.
#[derive(Debug)]
struct Partial {
    file: File,
    blocks: File,
    total: u64,
    /// Bytes of each block but the last.
    step: u64,
    /// Bytes that are there.
    have: u64,
    /// The blocks that are there, and how their symbols were cut.
    numbers: BTreeMap<u16, Cut>,
    touched: u64,
}

/// The receiving end of a diode.
pub struct Receiver {
    keys: BTreeMap<LinkId, DiodeKey>,
    /// Of epochs that datagrams came of.
    authenticators: HashMap<(LinkId, u32), Authenticator>,
    directory: PathBuf,
    spool: Spool,
    ledger: Ledger,
    blocks: HashMap<(Place, u16), IncomingBlock>,
    /// Bytes of symbols in them.
    held: usize,
    partials: BTreeMap<Place, Partial>,
    most_symbols_bytes: usize,
    most_bundle_bytes: u64,
    statistics: Statistics,
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver")
            .field("directory", &self.directory)
            .field("statistics", &self.statistics)
            .finish_non_exhaustive()
    }
}

impl Receiver {
    /// Takes up what lies in `directory`, which is made if it is not there. Complete bundles go to `spool`, on the same file system.
    ///
    /// # Errors
    /// If the directory cannot be read or written, or the account in it is damaged.
    pub fn new(
        keys: BTreeMap<LinkId, DiodeKey>,
        directory: impl Into<PathBuf>,
        spool: Spool,
    ) -> Result<Self, ReceiverError> {
        let directory = directory.into();
        fs::create_dir_all(&directory)?;
        let path = directory.join(LEDGER);
        let ledger = match fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|source| ReceiverError::Ledger { path, source })?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ledger::default(),
            Err(error) => return Err(error.into()),
        };
        let mut receiver = Self {
            keys,
            authenticators: HashMap::new(),
            directory,
            spool,
            ledger,
            blocks: HashMap::new(),
            held: 0,
            partials: BTreeMap::new(),
            most_symbols_bytes: limits::SYMBOLS_BYTES,
            most_bundle_bytes: limits::PARTIAL_BYTES,
            statistics: Statistics::default(),
        };
        receiver.take_up()?;
        Ok(receiver)
    }

    /// Other bounds: bytes of undecoded symbols in memory, and bytes of one bundle.
    #[must_use]
    pub fn with_bounds(mut self, symbols_bytes: usize, bundle_bytes: u64) -> Self {
        self.most_symbols_bytes = symbols_bytes;
        self.most_bundle_bytes = bundle_bytes.min(limits::PARTIAL_BYTES);
        self
    }

    fn path(&self, place: Place, extension: &str) -> PathBuf {
        self.directory.join(format!("{}.{extension}", Name { place, volume: None }))
    }

    /// Finds partial bundles of an earlier run.
    fn take_up(&mut self) -> Result<(), ReceiverError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            let stem = name.to_str().and_then(|name| name.strip_suffix(BLOCKS)?.strip_suffix('.'));
            names.extend(stem.and_then(|stem| stem.parse::<Name>().ok()));
        }
        for Name { place, .. } in names {
            let known = self.ledger.has(place) || self.spool.has(place);
            match if known {
                None
            } else {
                Partial::open(&self.path(place, PARTIAL), &self.path(place, BLOCKS))?
            } {
                Some(partial) => _ = self.partials.insert(place, partial),
                None => self.remove(place)?,
            }
        }
        // A crash may have come between the last block and the name.
        let complete: Vec<_> = self
            .partials
            .iter()
            .filter(|(_, partial)| partial.is_complete())
            .map(|(place, _)| *place)
            .collect();
        complete.into_iter().try_for_each(|place| self.complete(place))
    }

    /// Takes a datagram in.
    ///
    /// # Errors
    /// Only if the disk fails.
    pub fn datagram(&mut self, datagram: &[u8]) -> Result<Outcome, ReceiverError> {
        self.statistics.datagrams += 1;
        let outcome = match self.authentic(datagram) {
            Ok((packet, symbol)) => self.take(&packet, symbol)?,
            Err(refused) => Outcome::Refused(refused),
        };
        if let Outcome::Refused(_) = outcome {
            self.statistics.refused += 1;
        }
        Ok(outcome)
    }

    fn authentic<'a>(&mut self, datagram: &'a [u8]) -> Result<(Packet, &'a [u8]), Refused> {
        let packet = Packet::read(datagram)?;
        let Place { link, epoch, .. } = packet.place;
        if let Some(authenticator) = self.authenticators.get(&(link, epoch)) {
            return Ok((packet, Packet::open(datagram, authenticator)?));
        }
        let authenticator = self.keys.get(&link).ok_or(Refused::UnknownLink)?.of(link, epoch);
        let symbol = Packet::open(datagram, &authenticator)?;
        // Only of epochs that are authentic, and no more than the ledger has.
        if self.authenticators.len() >= self.keys.len() * limits::EPOCHS {
            self.authenticators.clear();
        }
        self.authenticators.insert((link, epoch), authenticator);
        Ok((packet, symbol))
    }

    fn take(&mut self, packet: &Packet, symbol: &[u8]) -> Result<Outcome, ReceiverError> {
        let place = packet.place;
        if self.ledger.heard(place) {
            self.save()?;
        }
        if self.ledger.has(place) || packet.is_announcement() {
            return Ok(Outcome::Known);
        }
        let cut = Cut::of(packet, symbol);
        if self.partials.get(&place).is_some_and(|partial| partial.numbers.get(&packet.block) == Some(&cut)) {
            return Ok(Outcome::Known);
        }
        let id = (place, packet.block);
        match self.add_symbol(id, packet, symbol) {
            Err(refused) => Ok(Outcome::Refused(refused)),
            Ok(None) => Ok(Outcome::Taken),
            Ok(Some(piece)) => self.store(packet, cut, &piece),
        }
    }

    fn add_symbol(
        &mut self,
        id: (Place, u16),
        packet: &Packet,
        symbol: &[u8],
    ) -> Result<Option<Piece>, Refused> {
        // A sender that was set differently cuts differently: its word now is what counts.
        if self.blocks.get(&id).is_some_and(|block| !block.is_of(packet, symbol)) {
            self.forget(id);
        }
        let block = match self.blocks.entry(id) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(IncomingBlock::new(packet, symbol)?),
        };
        let before = block.held();
        block.touched = self.statistics.datagrams;
        let piece = block.add(packet, symbol);
        self.held += block.held() - before;
        if !matches!(piece, Ok(None)) {
            self.forget(id);
        }
        while self.held > self.most_symbols_bytes {
            let longest = self.blocks.iter().min_by_key(|(_, block)| block.touched).map(|(id, _)| *id);
            let Some(longest) = longest else { break };
            self.forget(longest);
            self.statistics.evicted += 1;
        }
        piece
    }

    fn forget(&mut self, id: (Place, u16)) {
        if let Some(block) = self.blocks.remove(&id) {
            self.held -= block.held();
        }
    }

    fn store(&mut self, packet: &Packet, cut: Cut, piece: &Piece) -> Result<Outcome, ReceiverError> {
        let place = packet.place;
        if piece.total > self.most_bundle_bytes {
            return Ok(Outcome::Refused(Refused::Size));
        }
        let same = |partial: &Partial| partial.total == piece.total && partial.step == piece.step;
        if !self.partials.get(&place).is_some_and(same) {
            self.partials.remove(&place);
            self.make_room_on_disk(piece.total)?;
            let partial = Partial::create(&self.path(place, PARTIAL), &self.path(place, BLOCKS), piece)?;
            self.partials.insert(place, partial);
        }
        let Some(partial) = self.partials.get_mut(&place) else { return Ok(Outcome::Known) };
        partial.touched = self.statistics.datagrams;
        partial.add(packet.block, cut, piece)?;
        self.statistics.blocks += 1;
        if !partial.is_complete() {
            return Ok(Outcome::Block);
        }
        self.complete(place)?;
        Ok(Outcome::Bundle(place))
    }

    fn make_room_on_disk(&mut self, bytes: u64) -> Result<(), ReceiverError> {
        loop {
            let held: u64 = self.partials.values().map(|partial| partial.total).sum();
            if self.partials.len() < limits::PARTIAL_BUNDLES
                && held.saturating_add(bytes) <= limits::PARTIAL_BYTES
            {
                return Ok(());
            }
            let oldest =
                self.partials.iter().min_by_key(|(_, partial)| partial.touched).map(|(place, _)| *place);
            let Some(place) = oldest else { return Ok(()) };
            self.partials.remove(&place);
            self.remove(place)?;
            self.statistics.evicted += 1;
        }
    }

    /// Moves a complete bundle to the spool.
    fn complete(&mut self, place: Place) -> Result<(), ReceiverError> {
        if let Some(partial) = self.partials.remove(&place) {
            partial.file.sync_all()?;
            let to = self.spool.directory().join(Name { place, volume: None }.to_string());
            match crate::spool::publish(&self.path(place, PARTIAL), &to) {
                Ok(()) | Err(Error::Exists(_)) => {}
                Err(error) => return Err(error.into()),
            }
            File::open(self.spool.directory())?.sync_all()?;
        }
        let blocks: Vec<_> = self.blocks.keys().filter(|(other, _)| *other == place).copied().collect();
        blocks.into_iter().for_each(|id| self.forget(id));
        self.ledger.received(place);
        self.save()?;
        self.remove(place)?;
        self.statistics.bundles += 1;
        Ok(())
    }

    fn remove(&self, place: Place) -> io::Result<()> {
        for extension in [PARTIAL, BLOCKS] {
            match fs::remove_file(self.path(place, extension)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn save(&self) -> Result<(), ReceiverError> {
        let path = self.directory.join(LEDGER);
        let next = path.with_extension("json.next");
        let bytes = serde_json::to_vec(&self.ledger)
            .map_err(|source| ReceiverError::Ledger { path: path.clone(), source })?;
        let mut file = File::create(&next)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(next, path)?;
        Ok(())
    }

    /// A bundle that came is of no use, its import found: it is missing, and taken in when it comes again. The
    /// file must be gone from the spool.
    ///
    /// # Errors
    /// If the account cannot be written.
    pub fn want_again(&mut self, place: Place) -> Result<(), ReceiverError> {
        self.ledger.forget(place);
        self.save()
    }

    pub fn statistics(&self) -> Statistics {
        self.statistics
    }

    /// Bytes of undecoded symbols in memory.
    pub fn held(&self) -> usize {
        self.held
    }

    /// What to ask the sender for, by word of mouth. `None` if nothing was heard of the link.
    pub fn ticket(&self, link: LinkId, rooms: Vec<RoomDigest>) -> Option<Ticket> {
        let (epoch, last, missing) = self.ledger.missing(link)?;
        Some(Ticket { link, epoch, last, missing, exact: true, rooms })
    }
}

/// How a block was cut into symbols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cut {
    k: u16,
    symbol_bytes: u16,
}

impl Cut {
    fn of(packet: &Packet, symbol: &[u8]) -> Self {
        Self { k: packet.k, symbol_bytes: u16::try_from(symbol.len()).unwrap_or_default() }
    }
}

impl Partial {
    fn create(file: &Path, blocks: &Path, Piece { total, step, .. }: &Piece) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        let (file, mut blocks) = (options.open(file)?, options.open(blocks)?);
        blocks.write_all(&[total.to_be_bytes(), step.to_be_bytes()].concat())?;
        Ok(Self { file, blocks, total: *total, step: *step, have: 0, numbers: BTreeMap::new(), touched: 0 })
    }

    /// What an earlier run left, if it can be used.
    fn open(file: &Path, blocks: &Path) -> io::Result<Option<Self>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let (Ok(file), mut blocks) = (options.open(file), options.open(blocks)?) else { return Ok(None) };
        let mut bytes = Vec::new();
        (&mut blocks).take(16 + limits::BLOCKS * ENTRY as u64).read_to_end(&mut bytes)?;
        let sizes = || {
            let (total, rest) = bytes.split_first_chunk()?;
            let (step, rest) = rest.split_first_chunk()?;
            Some((u64::from_be_bytes(*total), u64::from_be_bytes(*step), rest))
        };
        let Some((total, step, entries)) = sizes() else { return Ok(None) };
        let mut partial = Self { file, blocks, total, step, have: 0, numbers: BTreeMap::new(), touched: 0 };
        let (entries, torn) = entries.as_chunks::<ENTRY>();
        for entry in entries {
            let [n0, n1, k0, k1, s0, s1] = *entry;
            let number = u16::from_be_bytes([n0, n1]);
            let cut = Cut { k: u16::from_be_bytes([k0, k1]), symbol_bytes: u16::from_be_bytes([s0, s1]) };
            let Some(len) = total.checked_sub(step.saturating_mul(number.into())) else { return Ok(None) };
            if partial.numbers.insert(number, cut).is_none() {
                partial.have += len.min(step);
            }
        }
        // A crash may have torn the last entry.
        let end = bytes.len() as u64 - torn.len() as u64;
        partial.blocks.set_len(end)?;
        partial.blocks.seek(SeekFrom::Start(end))?;
        Ok((partial.have <= partial.total).then_some(partial))
    }

    fn add(&mut self, number: u16, cut: Cut, piece: &Piece) -> io::Result<()> {
        if self.numbers.contains_key(&number) {
            return Ok(());
        }
        self.file.seek(SeekFrom::Start(piece.offset))?;
        self.file.write_all(&piece.bytes)?;
        // The entry says that the bytes are there.
        self.file.sync_data()?;
        self.blocks.write_all(&[number, cut.k, cut.symbol_bytes].map(u16::to_be_bytes).concat())?;
        self.numbers.insert(number, cut);
        self.have += piece.bytes.len() as u64;
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.have >= self.total
    }
}

/// Bytes of an entry in `NAME.blocks`: the block's number, and how its symbols were cut.
const ENTRY: usize = 2 + 2 + 2;
