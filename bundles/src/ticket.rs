//! Gap tickets: what is missing from a link, short enough to be read out over the telephone or copied by hand where
//! nothing else goes back. At most 200 characters of Crockford's base 32 in groups of five. The checksum finds every
//! error within one character, and every two neighbours exchanged.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::crockford;
use crate::keys::{LinkId, sha256};
use crate::limits;

const VERSION: u8 = 1;
/// Set in the first byte when ranges were put together to make them fit.
const INEXACT: u8 = 0x80;
const CHECKSUM: usize = 4;
const GROUP: usize = 5;
/// As many ranges are told apart before rooms are left out.
const RANGES_BEFORE_ROOMS: usize = 8;

/// Why a ticket is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    #[error("the ticket has a character that no ticket has, or is cut off")]
    Characters,
    #[error("the ticket's checksum does not fit: a character is wrong, missing or exchanged")]
    Checksum,
    #[error("the ticket is of another version")]
    Version,
    #[error("the ticket is malformed")]
    Malformed,
}

/// What a room looks like at the other end: enough to see whether it is the same here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomDigest {
    /// The first eight bytes of the SHA-256 of the room's id.
    pub room: [u8; 8],
    /// The first eight bytes of the SHA-256 of the ids of its forward extremities, sorted, each followed by a line feed.
    pub heads: [u8; 8],
}

impl RoomDigest {
    /// Of a room with these forward extremities, in any order.
    pub fn of<'a>(room: &str, heads: impl IntoIterator<Item = &'a str>) -> Self {
        let first = |text: &str| {
            let mut first = [0; 8];
            first.copy_from_slice(&sha256(&[text.as_bytes()])[..8]);
            first
        };
        let mut heads: Vec<_> = heads.into_iter().collect();
        heads.sort_unstable();
        let lines: String = heads.into_iter().flat_map(|head| [head, "\n"]).collect();
        Self { room: first(room), heads: first(&lines) }
    }
}

/// What is missing from a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    pub link: LinkId,
    pub epoch: u32,
    /// The highest bundle that was seen: everything above it is wanted too.
    pub last: u64,
    /// What is wanted up to it, in order.
    pub missing: Vec<RangeInclusive<u64>>,
    /// Whether only what is wanted is among `missing`. A ticket with too many ranges puts close ones together.
    pub exact: bool,
    /// Some rooms as they are at the receiving end.
    pub rooms: Vec<RoomDigest>,
}

fn put(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push((value & 0x7f) as u8);
}

/// A number as [`put`] wrote it, in its shortest form.
fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return (*byte != 0 || shift == 0).then_some(value);
        }
    }
    None
}

fn take_bytes<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

impl Ticket {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION | if self.exact { 0 } else { INEXACT }];
        bytes.extend_from_slice(&self.link.0);
        put(&mut bytes, self.epoch.into());
        put(&mut bytes, self.last);
        put(&mut bytes, self.missing.len() as u64);
        let mut end = 0;
        for range in &self.missing {
            put(&mut bytes, range.start().saturating_sub(end));
            put(&mut bytes, range.end().saturating_sub(*range.start()));
            end = *range.end();
        }
        for room in &self.rooms {
            bytes.extend_from_slice(&room.room);
            bytes.extend_from_slice(&room.heads);
        }
        bytes
    }

    /// The same in as many bytes as fit: rooms are left out, and ranges that are close are put together.
    pub fn fitted(mut self) -> Self {
        self.rooms.truncate(limits::TICKET_ROOMS);
        while self.bytes().len() + CHECKSUM > limits::TICKET_BYTES {
            if self.missing.len() <= RANGES_BEFORE_ROOMS && self.rooms.pop().is_some() {
                continue;
            }
            let gaps = self.missing.windows(2).enumerate().filter_map(|(at, pair)| match pair {
                [left, right] => Some((right.start().saturating_sub(*left.end()), at)),
                _ => None,
            });
            let Some((_, at)) = gaps.min() else { break };
            let right = self.missing.remove(at + 1);
            if let Some(left) = self.missing.get_mut(at) {
                *left = *left.start()..=*right.end();
            }
            self.exact = false;
        }
        self
    }

    fn of(bytes: &[u8]) -> Option<Self> {
        let (first, mut bytes) = bytes.split_first()?;
        let bytes = &mut bytes;
        let (link, epoch) = (LinkId(take_bytes(bytes)?), u32::try_from(take(bytes)?).ok()?);
        let (last, count) = (take(bytes)?, take(bytes)?);
        let (mut missing, mut end) = (Vec::new(), 0_u64);
        for _ in 0..count {
            let step = take(bytes)?;
            let start = end.checked_add(step).filter(|_| step > 0)?;
            end = start.checked_add(take(bytes)?).filter(|end| *end <= last)?;
            missing.push(start..=end);
        }
        let mut rooms = Vec::new();
        while !bytes.is_empty() {
            rooms.push(RoomDigest { room: take_bytes(bytes)?, heads: take_bytes(bytes)? });
        }
        Some(Self { link, epoch, last, missing, exact: first & INEXACT == 0, rooms })
    }
}

/// As a person copies it. Rooms and ranges that do not fit are handled as in [`Ticket::fitted`].
impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.clone().fitted().bytes();
        let checksum = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&checksum.to_be_bytes());
        for (at, character) in crockford::encode(&bytes).chars().enumerate() {
            if at > 0 && at % GROUP == 0 {
                f.write_str("-")?;
            }
            write!(f, "{character}")?;
        }
        Ok(())
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        // Spaces may be put in; more than that is no ticket.
        if text.len() > limits::TICKET_CHARS * 2 {
            return Err(TicketError::Characters);
        }
        let bytes = crockford::decode(text).ok_or(TicketError::Characters)?;
        let (bytes, checksum) = bytes.split_last_chunk::<CHECKSUM>().ok_or(TicketError::Characters)?;
        if crc32fast::hash(bytes).to_be_bytes() != *checksum {
            return Err(TicketError::Checksum);
        }
        if bytes.first().is_none_or(|first| first & !INEXACT != VERSION) {
            return Err(TicketError::Version);
        }
        Self::of(bytes).ok_or(TicketError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tickets() -> impl Strategy<Value = Ticket> {
        let steps = proptest::collection::vec((2..1_000_000_u64, 0..1_000_u64), 0..40);
        let rooms = proptest::collection::vec(any::<([u8; 8], [u8; 8])>(), 0..6);
        (any::<[u8; 8]>(), 1..u32::MAX, steps, 0..u64::from(u32::MAX), rooms).prop_map(
            |(link, epoch, steps, more, rooms)| {
                let mut end = 0;
                let missing = steps.into_iter().map(|(step, len)| {
                    let start = end + step;
                    end = start + len;
                    start..=end
                });
                let missing: Vec<_> = missing.collect();
                let rooms = rooms.into_iter().map(|(room, heads)| RoomDigest { room, heads }).collect();
                Ticket { link: LinkId(link), epoch, last: end + more, missing, exact: true, rooms }
            },
        )
    }

    proptest! {
        #[test]
        fn a_ticket_is_read_as_it_is_written_and_is_short(ticket in tickets()) {
            let text = ticket.to_string();
            prop_assert!(text.len() <= limits::TICKET_CHARS);
            let read: Ticket = text.parse().unwrap();
            prop_assert_eq!(&read, &ticket.clone().fitted());
            prop_assert_eq!(text.to_lowercase().replace('-', " ").parse(), Ok(read.clone()));
            // What is wanted is among what the ticket asks for.
            let covered = |range: &RangeInclusive<u64>| read.missing.iter().any(|read| read.start() <= range.start() && range.end() <= read.end());
            prop_assert!(ticket.missing.iter().all(covered));
            prop_assert!(!read.exact || read.missing == ticket.missing);
        }

        #[test]
        fn a_wrong_character_is_found(ticket in tickets(), at: proptest::sample::Index, other: proptest::sample::Index) {
            let text = ticket.to_string();
            let mut characters: Vec<char> = text.chars().collect();
            let places: Vec<_> = (0..characters.len()).filter(|at| characters[*at] != '-').collect();
            let at = places[at.index(places.len())];
            let others: Vec<char> = "0123456789ABCDEFGHJKMNPQRSTVWXYZ".chars().filter(|other| *other != characters[at]).collect();
            characters[at] = others[other.index(others.len())];
            let wrong: String = characters.into_iter().collect();
            prop_assert!(wrong.parse::<Ticket>().is_err());
        }

        #[test]
        fn exchanged_neighbours_are_found(ticket in tickets(), at: proptest::sample::Index) {
            let mut characters: Vec<char> = ticket.to_string().chars().filter(|character| *character != '-').collect();
            let at = at.index(characters.len() - 1);
            if characters[at] != characters[at + 1] {
                characters.swap(at, at + 1);
                let wrong: String = characters.into_iter().collect();
                prop_assert!(wrong.parse::<Ticket>().is_err());
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9A-Za-z -]{0,220}") {
            _ = text.parse::<Ticket>();
        }
    }

    #[test]
    fn a_ticket_with_many_gaps_asks_for_no_more_than_it_must() {
        let missing: Vec<_> = (1..=60_u64).map(|n| n * 10..=n * 10 + 1).chain([5_000..=5_000]).collect();
        let ticket = Ticket {
            link: LinkId([9; 8]),
            epoch: 1,
            last: 6_000,
            missing,
            exact: true,
            rooms: vec![RoomDigest::of("!a:b", ["$x"]); 4],
        };
        let read: Ticket = ticket.to_string().parse().unwrap();
        assert!(!read.exact);
        assert_eq!(read.missing.last(), Some(&(5_000..=5_000)));
    }
}
