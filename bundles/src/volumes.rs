//! A bundle in several files, for media that hold no large ones. The first volume begins as a bundle does. Each further
//! one begins with `MFBV`, the SHA-256 of magic and cover of its bundle, and its number (32 bits, from 2 on); then the bundle's
//! bytes go on.

use std::io::{self, Read, Write};

use crate::error::{Error, Part};
use crate::keys::{Hash, sha256};
use crate::limits;
use crate::writer::MAGIC;

const VOLUME_MAGIC: &[u8; 4] = b"MFBV";
/// Bytes at the beginning of a further volume.
pub const VOLUME_FRONT: usize = 4 + 32 + 4;

/// The hash of magic and cover at the beginning of a bundle.
pub(crate) fn cover_hash(front: &[u8]) -> Option<Hash> {
    let length = front.get(4..8)?.try_into().ok().map(u32::from_be_bytes)?;
    let length = usize::try_from(length).ok().filter(|length| *length <= limits::COVER_BYTES)?;
    front.get(..8 + length).map(|cover| sha256(&[cover]))
}

fn volume_front(cover: &Hash, number: u32) -> Vec<u8> {
    [&VOLUME_MAGIC[..], cover, &number.to_be_bytes()].concat()
}

/// How many volumes of at most `most` bytes a bundle of `len` bytes takes.
///
/// # Errors
/// If volumes of that size are too small, or there would be too many.
pub fn volumes(len: u64, most: u64) -> Result<u32, Error> {
    if most < limits::VOLUME_BYTES {
        return Err(Error::VolumeSize(most));
    }
    let further = len.saturating_sub(most).div_ceil(most - VOLUME_FRONT as u64);
    let most = u64::from(limits::VOLUMES);
    u32::try_from(further + 1).ok().filter(|count| u64::from(*count) <= most).ok_or(Error::TooMuch {
        part: Part::Volume,
        what: "a number",
        found: further + 1,
        most,
    })
}

/// Writes a bundle as volumes of at most `most` bytes; `next` opens the file of each number.
///
/// # Errors
/// As [`volumes`], and what reading, opening and writing report.
pub fn split<W: Write>(
    front: &[u8],
    body: impl Read,
    len: u64,
    most: u64,
    mut next: impl FnMut(u32) -> Result<W, Error>,
) -> Result<Vec<W>, Error> {
    let cover = cover_hash(front).ok_or(Error::NotABundle)?;
    let mut whole = front.chain(body);
    let mut written = Vec::new();
    for number in 1..=volumes(len, most)? {
        let mut file = next(number)?;
        let front = if number == 1 { Vec::new() } else { volume_front(&cover, number) };
        file.write_all(&front)?;
        io::copy(&mut (&mut whole).take(most - front.len() as u64), &mut file)?;
        written.push(file);
    }
    Ok(written)
}

/// The bytes of a bundle, from its volumes in order.
#[derive(Debug)]
pub struct Joined<R> {
    volumes: std::vec::IntoIter<R>,
    current: Option<R>,
    number: u32,
    /// The beginning of the first volume, until the cover is complete.
    front: Vec<u8>,
    cover: Option<Hash>,
}

impl<R: Read> Joined<R> {
    /// `volumes` in the order of their numbers. If some are missing at the end, what is there is read up to where it ends.
    pub fn new(volumes: Vec<R>) -> Self {
        Self { volumes: volumes.into_iter(), current: None, number: 0, front: Vec::new(), cover: None }
    }

    fn open_next(&mut self) -> io::Result<bool> {
        let Some(mut volume) = self.volumes.next() else { return Ok(false) };
        self.number += 1;
        if self.number > 1 {
            let mut front = [0; VOLUME_FRONT];
            volume.read_exact(&mut front)?;
            let [m, f, b, v, rest @ ..] = front;
            let (cover, number) = rest.split_at(32);
            let found = number.try_into().map_or(0, u32::from_be_bytes);
            if [m, f, b, v] != *VOLUME_MAGIC || self.cover.is_none_or(|ours| ours != cover) {
                return Err(io::Error::other(Error::Altered(Part::Volume)));
            }
            if found != self.number {
                return Err(io::Error::other(Error::Volume { wanted: self.number, found }));
            }
        }
        self.current = Some(volume);
        Ok(true)
    }
}

impl<R: Read> Read for Joined<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if let Some(volume) = &mut self.current {
                let read = volume.read(buffer)?;
                if read > 0 {
                    if self.cover.is_none() && self.front.len() < 8 + limits::COVER_BYTES {
                        self.front.extend_from_slice(buffer.get(..read).unwrap_or_default());
                        self.cover = cover_hash(&self.front);
                    }
                    return Ok(read);
                }
            }
            if !self.open_next()? {
                return Ok(0);
            }
        }
    }
}

/// What a volume's first bytes say: the number it has, 1 for the beginning of a bundle.
pub fn number(front: &[u8]) -> Option<u32> {
    if front.starts_with(MAGIC) {
        return Some(1);
    }
    let number = front.strip_prefix(&VOLUME_MAGIC[..])?.get(32..36)?;
    number.try_into().ok().map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle() -> (Vec<u8>, Vec<u8>) {
        let front = [&MAGIC[..], &5_u32.to_be_bytes(), b"cover and head"].concat();
        (front, (0..300_000_u32).map(|at| at as u8).collect())
    }

    fn volumes_of(most: u64) -> Vec<Vec<u8>> {
        let (front, body) = bundle();
        let len = (front.len() + body.len()) as u64;
        split(&front, &body[..], len, most, |_| Ok(Vec::new())).unwrap()
    }

    fn joined(volumes: &[Vec<u8>]) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        Joined::new(volumes.iter().map(|volume| &volume[..]).collect()).read_to_end(&mut all)?;
        Ok(all)
    }

    #[test]
    fn volumes_are_joined_to_the_bundle_they_were_split_from() {
        let (front, body) = bundle();
        for most in [limits::VOLUME_BYTES, 100_000, 300_022, 1 << 20] {
            let volumes = volumes_of(most);
            assert!(volumes.iter().all(|volume| volume.len() as u64 <= most && !volume.is_empty()));
            assert_eq!(joined(&volumes).unwrap(), [&front[..], &body].concat());
            let numbers: Vec<_> = volumes.iter().map(|volume| number(volume).unwrap() as usize).collect();
            assert_eq!(numbers, (1..=volumes.len()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn volumes_of_another_bundle_or_in_another_order_are_refused() {
        let mut volumes = volumes_of(100_000);
        volumes.swap(1, 2);
        assert!(joined(&volumes).is_err());
        volumes.swap(1, 2);
        volumes[1][5] ^= 1;
        assert!(joined(&volumes).is_err());
    }

    #[test]
    fn a_missing_last_volume_is_an_early_end() {
        let mut volumes = volumes_of(100_000);
        volumes.pop();
        let (front, body) = bundle();
        let all = [&front[..], &body].concat();
        let read = joined(&volumes).unwrap();
        assert!(read.len() < all.len() && all.starts_with(&read));
    }
}
