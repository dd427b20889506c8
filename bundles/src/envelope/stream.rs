//! The payload of an age envelope: chunks, each sealed under its number and whether it is the last.

use std::io::{self, Read, Write};

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};

use super::Error;

/// Bytes of a chunk that is not the last.
pub const CHUNK: usize = 64 << 10;
const TAG: usize = 16;

/// The length of `plain` bytes when sealed, without the head.
pub fn sealed_len(plain: u64) -> u64 {
    plain + plain.div_ceil(CHUNK as u64).max(1) * TAG as u64
}

fn nonce(chunk: u64, last: bool) -> Nonce {
    let mut nonce = [0; 12];
    nonce[3..11].copy_from_slice(&chunk.to_be_bytes());
    nonce[11] = u8::from(last);
    Nonce::assume_unique_for_key(nonce)
}

/// Seals what is written to it. Without [`Sealer::finish`] it cannot be opened.
pub struct Sealer<W> {
    out: W,
    key: LessSafeKey,
    chunk: u64,
    held: Vec<u8>,
}

impl<W> std::fmt::Debug for Sealer<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("chunk", &self.chunk).finish_non_exhaustive()
    }
}

impl<W: Write> Sealer<W> {
    pub(super) fn new(out: W, key: LessSafeKey) -> Self {
        Self { out, key, chunk: 0, held: Vec::with_capacity(CHUNK + TAG) }
    }

    fn seal(&mut self, last: bool) -> io::Result<()> {
        let nonce = nonce(self.chunk, last);
        let sealed = self.key.seal_in_place_append_tag(nonce, Aad::empty(), &mut self.held);
        sealed.map_err(|_| io::Error::other("a chunk cannot be sealed"))?;
        self.out.write_all(&self.held)?;
        self.held.clear();
        self.chunk += 1;
        Ok(())
    }

    /// Writes the last chunk, and returns what everything was written to.
    ///
    /// # Errors
    /// What it reports.
    pub fn finish(mut self) -> io::Result<W> {
        self.seal(true)?;
        Ok(self.out)
    }
}

impl<W: Write> Write for Sealer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.held.len() == CHUNK {
            self.seal(false)?;
        }
        let take = bytes.len().min(CHUNK - self.held.len());
        self.held.extend_from_slice(&bytes[..take]);
        Ok(take)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens what [`Sealer`] sealed, chunk by chunk: nothing comes out that was altered. After an error in one chunk, the
/// following ones can be read.
pub struct Opener<R> {
    from: R,
    key: LessSafeKey,
    /// The number of the next chunk.
    chunk: u64,
    held: Vec<u8>,
    /// How much of `held` was handed out.
    taken: usize,
    /// A byte that was read to see whether anything follows.
    ahead: Option<u8>,
    ended: bool,
}

impl<R> std::fmt::Debug for Opener<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opener").field("chunk", &self.chunk).finish_non_exhaustive()
    }
}

impl<R: Read> Opener<R> {
    pub(super) fn new(from: R, key: LessSafeKey) -> Self {
        Self { from, key, chunk: 0, held: Vec::new(), taken: 0, ahead: None, ended: false }
    }

    /// Reads the next chunk as it lies there, and says whether it is the last.
    fn raw(&mut self) -> Result<bool, Error> {
        self.held.clear();
        self.taken = 0;
        self.held.extend(self.ahead.take());
        let wanted = CHUNK + TAG - self.held.len();
        (&mut self.from).take(wanted as u64).read_to_end(&mut self.held)?;
        let mut next = Vec::new();
        (&mut self.from).take(1).read_to_end(&mut next)?;
        self.ahead = next.first().copied();
        Ok(self.ahead.is_none())
    }

    fn next(&mut self) -> Result<(), Error> {
        let last = self.raw()?;
        let chunk = self.chunk;
        self.chunk += 1;
        self.ended = last;
        if self.held.len() < TAG || self.held.len() == TAG && chunk > 0 {
            self.held.clear();
            return Err(Error::Truncated);
        }
        match self.key.open_in_place(nonce(chunk, last), Aad::empty(), &mut self.held) {
            Ok(plain) => {
                let length = plain.len();
                self.held.truncate(length);
                Ok(())
            }
            Err(_) => {
                self.held.clear();
                Err(Error::Damaged { chunk })
            }
        }
    }

    /// Reads some bytes; none at the end.
    ///
    /// # Errors
    /// If the next chunk was altered or cut off.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        while self.taken == self.held.len() {
            if self.ended {
                return Ok(0);
            }
            self.next()?;
        }
        let rest = self.held.get(self.taken..).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(rest) {
            *to = *from;
        }
        self.taken += read;
        Ok(read)
    }

    /// Fills `buffer`.
    ///
    /// # Errors
    /// As [`Opener::read`], and if the end comes first.
    pub fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), Error> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.read(rest)? {
                0 => return Err(Error::Truncated),
                read => filled += read,
            }
        }
        Ok(())
    }

    /// Goes on at byte `at` of what is sealed, which lies ahead. Chunks in between are not opened.
    ///
    /// # Errors
    /// If the chunk that byte is in was altered or cut off.
    pub fn skip_to(&mut self, at: u64) -> Result<(), Error> {
        let (chunk, within) = (at / CHUNK as u64, (at % CHUNK as u64) as usize);
        let in_hand = !self.held.is_empty() && self.chunk == chunk + 1;
        if !in_hand {
            if self.chunk > chunk {
                // It was read, and could not be opened.
                return Err(Error::Damaged { chunk });
            }
            while self.chunk < chunk && !self.ended {
                self.ended = self.raw()?;
                self.chunk += 1;
                self.held.clear();
            }
            if self.ended {
                return Err(Error::Truncated);
            }
            self.next()?;
        }
        if within > self.held.len() {
            return Err(Error::Truncated);
        }
        self.taken = within;
        Ok(())
    }

    /// Whether nothing follows what was read last.
    pub fn is_at_end(&self) -> bool {
        self.ended
    }

    /// What is read from.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.from
    }

    /// Nothing may follow.
    ///
    /// # Errors
    /// If something does, or the last chunk was altered or cut off.
    pub fn end(&mut self) -> Result<(), Error> {
        match self.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(Error::Malformed("something follows what should be the end")),
        }
    }
}

impl<R: Read> Read for Opener<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Opener::read(self, buffer).map_err(|error| match error {
            Error::Io(error) => error,
            other => io::Error::other(other),
        })
    }
}
