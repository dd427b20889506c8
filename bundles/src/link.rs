//! Which bundle of a link may be imported next. A link is a chain: each bundle has a sequence number and the hash of
//! the one before it. This is the state of the receiving end, a value that the caller keeps beside what it imports.
//!
//! Each bundle is *offered* when it arrives. What may be imported, [`Link::ready`] says, one after the other; when the records
//! of one are stored, [`Link::imported`] moves on, and the caller stores the new state together with them.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::ceremony::{Ceremony, CeremonyError};
use crate::header::{BundleKind, Header, Place};
use crate::keys::{Hash, LinkId, PublicKey, hex};
use crate::limits;
use crate::reader::Keyring;
use crate::ticket::{RoomDigest, Ticket};

/// What the state machine has to know of a bundle whose signatures were verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    pub place: Place,
    pub hash: Hash,
    pub prev: Hash,
    pub keyframe: bool,
    pub not_after: Option<u64>,
}

impl Arrival {
    /// Of a bundle with this header and hash ([`crate::Cover::hash`]).
    pub fn of(header: &Header, hash: Hash) -> Self {
        let fields = &header.fields;
        Self {
            place: fields.place,
            hash,
            prev: fields.prev_sha256,
            keyframe: fields.kind == BundleKind::Keyframe,
            not_after: fields.not_after,
        }
    }
}

/// Two bundles for one place, or one that does not continue the chain: the other side's key is used by two who
/// do not know of one another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    pub place: Place,
    /// The hash that was known, or that the chain asks for.
    #[serde(with = "hex_hash")]
    pub known: Hash,
    /// The one that came.
    #[serde(with = "hex_hash")]
    pub found: Hash,
}

impl std::fmt::Display for Fork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} is known, {} came", self.place, hex(&self.known), hex(&self.found))
    }
}

/// What became of a bundle that was offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offered {
    /// It may be imported: [`Link::ready`] says when.
    Ready,
    /// It waits for earlier ones.
    Parked {
        /// Which these are.
        missing: Vec<RangeInclusive<u64>>,
    },
    /// It was imported, or waits already.
    Duplicate,
    /// It was imported so long ago that its hash is forgotten; nothing is done.
    Old,
    /// The link has forked, and is frozen from now on.
    Forked(Fork),
    /// Refused: the link is frozen since this.
    Frozen(Fork),
    /// Refused: it was not to be imported after this time.
    Expired { not_after: u64 },
    /// Refused: it is of another link.
    OtherLink(LinkId),
    /// Refused: it is of an epoch that is over.
    OldEpoch { epoch: u32, current: u32 },
    /// Refused: its epoch was not opened by a ceremony.
    UnknownEpoch { epoch: u32, current: u32 },
    /// Refused: as many wait as can.
    Full,
}

/// A bundle to be imported now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    pub place: Place,
    pub hash: Hash,
    /// Bundles that are passed over with it: it is, or is followed by, a keyframe.
    pub passed_over: Option<RangeInclusive<u64>>,
    /// It is one that was passed over before.
    pub late: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Parked {
    #[serde(with = "hex_hash")]
    hash: Hash,
    #[serde(with = "hex_hash")]
    prev: Hash,
    keyframe: bool,
    /// Milliseconds since the epoch.
    arrived: u64,
}

/// What is done about a gap when a keyframe is behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gaps {
    /// Nothing: the missing ones are asked for, and all wait. For links with a way back.
    Wait,
    /// It is passed over: the keyframe has everything that matters. For links without a way back.
    PassOver,
}

/// The receiving end of a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    link: LinkId,
    epoch: u32,
    /// The key of each epoch up to this one.
    keys: BTreeMap<u32, PublicKey>,
    /// Those that may open an epoch, and how many of them it takes.
    roots: Vec<PublicKey>,
    threshold: usize,
    gaps: Gaps,
    /// The last bundle of this epoch that was imported in order; 0 before the first.
    last: u64,
    /// Its hash, or what the first one continues.
    #[serde(with = "hex_hash")]
    last_hash: Hash,
    /// The last ones imported.
    remembered: VecDeque<Remembered>,
    parked: BTreeMap<u64, Parked>,
    /// Passed over, and not come since. In order, apart from one another.
    passed_over: Vec<RangeInclusive<u64>>,
    frozen: Option<Fork>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    seq: u64,
    #[serde(with = "hex_hash")]
    hash: Hash,
    #[serde(with = "hex_hash")]
    prev: Hash,
}

/// Who may open an epoch of a link, agreed on when the link is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    pub keys: Vec<PublicKey>,
    /// How many of them it takes.
    pub threshold: usize,
}

impl Link {
    /// A link of which nothing has arrived. Its first bundle continues zeros.
    pub fn new(link: LinkId, key: PublicKey, roots: Roots, gaps: Gaps) -> Self {
        Self {
            link,
            epoch: 1,
            keys: BTreeMap::from([(1, key)]),
            roots: roots.keys,
            threshold: roots.threshold,
            gaps,
            last: 0,
            last_hash: Hash::default(),
            remembered: VecDeque::new(),
            parked: BTreeMap::new(),
            passed_over: Vec::new(),
            frozen: None,
        }
    }

    pub fn id(&self) -> LinkId {
        self.link
    }

    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The last bundle of this epoch that was imported in order; 0 before the first.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Why nothing is accepted any more, if so.
    pub fn frozen(&self) -> Option<&Fork> {
        self.frozen.as_ref()
    }

    /// Whether this bundle was imported or waits, as far as that is remembered.
    pub fn knows(&self, seq: u64, hash: &Hash) -> bool {
        let is_passed_over = self.passed_over.iter().any(|range| range.contains(&seq));
        match self.known(seq) {
            Some(known) => known == *hash,
            None => seq <= self.last && !is_passed_over,
        }
    }

    /// The keys to verify bundles of this link with: of all epochs, so that an old bundle is told from a forged one.
    pub fn add_to(&self, keyring: &mut Keyring) {
        self.keys.iter().for_each(|(epoch, key)| keyring.add(self.link, *epoch, *key));
    }

    /// Which bundles of this epoch are missing, up to the last one known of.
    pub fn missing(&self) -> Vec<RangeInclusive<u64>> {
        let late = self.parked.range(..=self.last).map(|(seq, _)| *seq);
        let mut missing = late.fold(self.passed_over.clone(), without);
        let mut next = self.last + 1;
        for seq in self.parked.range(next..).map(|(seq, _)| *seq) {
            if seq > next {
                missing.push(next..=seq - 1);
            }
            next = seq.saturating_add(1);
        }
        missing
    }

    /// Those of them that others wait for. The rest was passed over: a keyframe stood for it.
    pub fn needed(&self) -> Vec<RangeInclusive<u64>> {
        let mut needed = self.missing();
        needed.retain(|range| *range.start() > self.last);
        needed
    }

    /// What to ask the other side for, by word of mouth.
    pub fn ticket(&self, rooms: Vec<RoomDigest>) -> Ticket {
        let highest = self.parked.last_key_value().map_or(0, |(seq, _)| *seq).max(self.last);
        Ticket {
            link: self.link,
            epoch: self.epoch,
            last: highest,
            missing: self.missing(),
            exact: true,
            rooms,
        }
    }

    fn place(&self, seq: u64) -> Place {
        Place { link: self.link, epoch: self.epoch, seq }
    }

    fn fork(&mut self, seq: u64, known: Hash, found: Hash) -> Offered {
        let fork = Fork { place: self.place(seq), known, found };
        self.frozen = Some(fork.clone());
        Offered::Forked(fork)
    }

    /// Takes note of a bundle that arrived at `now` (milliseconds since the epoch), with its signatures verified.
    /// `expired` is the operator's word that it may be imported though its time is over.
    pub fn offer(&mut self, arrival: &Arrival, now: u64, expired: bool) -> Offered {
        let Place { link, epoch, seq } = arrival.place;
        if link != self.link {
            return Offered::OtherLink(link);
        }
        if let Some(fork) = &self.frozen {
            return Offered::Frozen(fork.clone());
        }
        if epoch != self.epoch {
            let current = self.epoch;
            return if epoch < current {
                Offered::OldEpoch { epoch, current }
            } else {
                Offered::UnknownEpoch { epoch, current }
            };
        }
        if let Some(known) = self.known(seq) {
            return if known == arrival.hash {
                Offered::Duplicate
            } else {
                self.fork(seq, known, arrival.hash)
            };
        }
        let late = self.passed_over.iter().any(|range| range.contains(&seq));
        if seq <= self.last && !late {
            return Offered::Old;
        }
        if let Some((known, found)) = self.broken_chain(arrival) {
            return self.fork(seq, known, found);
        }
        if let Some(not_after) = arrival.not_after.filter(|not_after| *not_after < now && !expired) {
            return Offered::Expired { not_after };
        }
        let next = seq == self.last + 1;
        // What lets others go on always has a place.
        let relieves = next || self.gaps == Gaps::PassOver && arrival.keyframe;
        if self.parked.len() >= limits::PARKED && !relieves {
            return Offered::Full;
        }
        let Arrival { hash, prev, keyframe, .. } = *arrival;
        self.parked.insert(seq, Parked { hash, prev, keyframe, arrived: now });
        match self.ready() {
            Some(_) if late || next || self.is_passed_to(seq) => Offered::Ready,
            _ => Offered::Parked { missing: self.missing() },
        }
    }

    /// Hash and predecessor of a bundle that is there, or was there not long ago.
    fn remembered(&self, seq: u64) -> Option<(Hash, Hash)> {
        let parked = self.parked.get(&seq).map(|parked| (parked.hash, parked.prev));
        parked.or_else(|| {
            self.remembered.iter().find(|other| other.seq == seq).map(|other| (other.hash, other.prev))
        })
    }

    fn known(&self, seq: u64) -> Option<Hash> {
        self.remembered(seq).map(|(hash, _)| hash)
    }

    /// Where this bundle breaks the chain: it does not continue the one before it, or the one behind it does not continue it.
    fn broken_chain(&self, arrival: &Arrival) -> Option<(Hash, Hash)> {
        let seq = arrival.place.seq;
        let before =
            if seq == self.last + 1 { Some(self.last_hash) } else { self.known(seq.saturating_sub(1)) };
        let behind = seq.checked_add(1).and_then(|behind| self.remembered(behind)).map(|(_, prev)| prev);
        let continues = before.filter(|before| *before != arrival.prev).map(|before| (before, arrival.prev));
        continues.or(behind.filter(|behind| *behind != arrival.hash).map(|behind| (behind, arrival.hash)))
    }

    /// Whether everything up to `seq` is there or may be passed over.
    fn is_passed_to(&self, seq: u64) -> bool {
        let contiguous =
            (self.last + 1..=seq).take(limits::PARKED + 1).all(|seq| self.parked.contains_key(&seq));
        contiguous
            || self.gaps == Gaps::PassOver && self.parked.range(seq..).any(|(_, parked)| parked.keyframe)
    }

    /// The bundle to import now, if there is one. The same answer is given until [`Link::imported`] is called for it.
    pub fn ready(&self) -> Option<Ready> {
        if self.frozen.is_some() {
            return None;
        }
        let (seq, parked) = self.parked.first_key_value()?;
        let (place, hash) = (self.place(*seq), parked.hash);
        if *seq <= self.last {
            return Some(Ready { place, hash, passed_over: None, late: true });
        }
        let next = self.last + 1;
        let keyframe = self.gaps == Gaps::PassOver && self.parked.values().any(|parked| parked.keyframe);
        match *seq == next {
            true => Some(Ready { place, hash, passed_over: None, late: false }),
            false if keyframe => Some(Ready { place, hash, passed_over: Some(next..=seq - 1), late: false }),
            false => None,
        }
    }

    /// The bundle that [`Link::ready`] named was imported. If it is another one, nothing happens and the answer is `false`.
    pub fn imported(&mut self, ready: &Ready) -> bool {
        let seq = ready.place.seq;
        if self.ready().as_ref() != Some(ready) {
            return false;
        }
        let Some(Parked { hash, prev, .. }) = self.parked.remove(&seq) else { return false };
        self.remembered.push_back(Remembered { seq, hash, prev });
        if self.remembered.len() > limits::REMEMBERED {
            self.remembered.pop_front();
        }
        if ready.late {
            self.passed_over = without(std::mem::take(&mut self.passed_over), seq);
            return true;
        }
        if let Some(range) = &ready.passed_over {
            self.passed_over.push(range.clone());
            if self.passed_over.len() > limits::GAPS {
                self.passed_over.remove(0);
            }
        }
        (self.last, self.last_hash) = (seq, hash);
        true
    }

    /// Forgets what has waited too long at `now`; who has the files may remove them.
    pub fn drop_old(&mut self, now: u64) -> Vec<Place> {
        let old = |parked: &Parked| parked.arrived.saturating_add(limits::PARKED_MS) < now;
        let due = self.ready().map(|ready| ready.place.seq);
        let seqs: Vec<u64> = self
            .parked
            .iter()
            .filter(|(seq, parked)| old(parked) && due != Some(**seq))
            .map(|(seq, _)| *seq)
            .collect();
        seqs.into_iter()
            .map(|seq| {
                self.parked.remove(&seq);
                self.place(seq)
            })
            .collect()
    }

    /// Opens the next epoch. This also ends a freeze: the roots have decided. Bundles that wait are dropped. Returns what of the
    /// epoch before never came.
    ///
    /// # Errors
    /// If the ceremony is of another link or epoch, or not signed by the link's key and enough of its roots; or if it names
    /// another last bundle than the one imported.
    pub fn open_epoch(&mut self, ceremony: &[u8]) -> Result<Vec<RangeInclusive<u64>>, CeremonyError> {
        let current = self.keys.get(&self.epoch).ok_or(CeremonyError::OtherEpoch)?;
        let (ceremony, hash) = Ceremony::verify(ceremony, current, &self.roots, self.threshold)?;
        if ceremony.link != self.link {
            return Err(CeremonyError::OtherLink(ceremony.link));
        }
        if ceremony.epoch.checked_sub(1) != Some(self.epoch) {
            return Err(CeremonyError::OtherEpoch);
        }
        let last = ceremony.last;
        let known = if last == self.last { Some(self.last_hash) } else { self.known(last) };
        let contradicts = last < self.last || known.is_some_and(|known| known != ceremony.last_hash);
        if contradicts && self.frozen.is_none() {
            return Err(CeremonyError::OtherHistory { last });
        }
        let mut missing = self.passed_over.clone();
        if last > self.last {
            missing.push(self.last + 1..=last);
        }
        self.epoch = ceremony.epoch;
        self.keys.insert(ceremony.epoch, ceremony.key);
        if let Some(roots) = ceremony.roots {
            (self.roots, self.threshold) = (roots.keys, roots.threshold);
        }
        (self.last, self.last_hash) = (0, hash);
        self.remembered.clear();
        self.parked.clear();
        self.passed_over.clear();
        self.frozen = None;
        Ok(missing)
    }
}

/// The sending end of a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outbound {
    link: LinkId,
    epoch: u32,
    last: u64,
    #[serde(with = "hex_hash")]
    last_hash: Hash,
}

impl Outbound {
    /// A link that nothing was sent over.
    pub fn new(link: LinkId) -> Self {
        Self { link, epoch: 1, last: 0, last_hash: Hash::default() }
    }

    /// The place of the next bundle, and what it continues.
    pub fn next(&self) -> (Place, Hash) {
        (Place { link: self.link, epoch: self.epoch, seq: self.last + 1 }, self.last_hash)
    }

    /// The bundle at [`Outbound::next`] was made, and has this hash.
    pub fn made(&mut self, hash: Hash) {
        (self.last, self.last_hash) = (self.last + 1, hash);
    }

    /// The ceremony that ends the present epoch, to be signed by its key and the roots.
    pub fn ceremony(&self, key: PublicKey, created: u64, roots: Option<Roots>) -> Ceremony {
        let Self { link, epoch, last, last_hash } = *self;
        Ceremony { link, epoch: epoch + 1, key, last, last_hash, created, roots }
    }

    /// Begins the epoch that `ceremony` opens.
    pub fn begin_epoch(&mut self, ceremony: &Ceremony) {
        (self.epoch, self.last, self.last_hash) = (ceremony.epoch, 0, ceremony.hash());
    }
}

/// `ranges` without `seq`.
pub(crate) fn without(ranges: Vec<RangeInclusive<u64>>, seq: u64) -> Vec<RangeInclusive<u64>> {
    let parts = ranges.into_iter().flat_map(|range| {
        if !range.contains(&seq) {
            return [Some(range), None];
        }
        let before = (*range.start() < seq).then(|| *range.start()..=seq - 1);
        let behind = (seq < *range.end()).then(|| seq + 1..=*range.end());
        [before, behind]
    });
    parts.flatten().collect()
}

/// Hashes as hexadecimal digits.
mod hex_hash {
    use super::Hash;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(hash: &Hash, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&crate::keys::hex(hash))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Hash, D::Error> {
        let text = String::deserialize(deserializer)?;
        crate::keys::from_hex(&text).ok_or_else(|| D::Error::custom("not 64 hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests;
