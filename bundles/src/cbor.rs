//! The part of CBOR that bundles use: unsigned integers, byte strings, texts, arrays and null, in the one form RFC 8949
//! section 4.2.1 calls deterministic. Whatever could be written otherwise is refused, so that equal meaning is equal bytes.

/// Why bytes are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("at byte {at}: {what}")]
pub struct Malformed {
    /// Where, from the beginning of what was read.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}

const UINT: u8 = 0;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const NULL: u8 = 0xf6;

/// Reads values one after the other; never allocates by itself.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes read so far.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Whether everything was read.
    pub fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub fn wrong(&self, what: &'static str) -> Malformed {
        Malformed { at: self.at, what }
    }

    /// The next `count` bytes, whatever they are.
    pub fn raw(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let raw = rest.get(..count).ok_or(self.wrong("ends too early"))?;
        self.at += count;
        Ok(raw)
    }

    fn head(&mut self, major: u8, what: &'static str) -> Result<u64, Malformed> {
        let start = self.clone();
        let [first] = *self.raw(1)? else { return Err(start.wrong(what)) };
        if first >> 5 != major {
            return Err(start.wrong(what));
        }
        let (width, least) = match first & 0x1f {
            small @ 0..24 => return Ok(u64::from(small)),
            24 => (1, 24),
            25 => (2, 1 << 8),
            26 => (4, 1 << 16),
            27 => (8, 1 << 32),
            _ => return Err(start.wrong("a length that is not definite")),
        };
        let value = self.raw(width)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
        if value < least { Err(start.wrong("a number that is not in its shortest form")) } else { Ok(value) }
    }

    pub fn uint(&mut self) -> Result<u64, Malformed> {
        self.head(UINT, "not an unsigned integer")
    }

    /// An unsigned integer that fits 32 bits.
    pub fn uint32(&mut self) -> Result<u32, Malformed> {
        let start = self.clone();
        u32::try_from(self.uint()?).map_err(|_| start.wrong("a number beyond 32 bits"))
    }

    fn string(&mut self, major: u8, most: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        let start = self.clone();
        let length = self.head(major, what)?;
        match usize::try_from(length) {
            Ok(length) if length <= most => self.raw(length),
            _ => Err(start.wrong("a string that is too long")),
        }
    }

    /// At most `most` bytes.
    pub fn bytes(&mut self, most: usize) -> Result<&'a [u8], Malformed> {
        self.string(BYTES, most, "not a byte string")
    }

    /// Exactly `N` bytes.
    pub fn array_of_bytes<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let start = self.clone();
        self.bytes(N)?.try_into().map_err(|_| start.wrong("a byte string of another length"))
    }

    /// At most `most` bytes of UTF-8.
    pub fn text(&mut self, most: usize) -> Result<String, Malformed> {
        let start = self.clone();
        let bytes = self.string(TEXT, most, "not a text")?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| start.wrong("a text that is not UTF-8"))
    }

    /// The head of an array of at most `most` items.
    pub fn array(&mut self, most: u64) -> Result<u64, Malformed> {
        let start = self.clone();
        let length = self.head(ARRAY, "not an array")?;
        if length > most { Err(start.wrong("an array that is too long")) } else { Ok(length) }
    }

    /// The head of an array of exactly `length` items.
    pub fn tuple(&mut self, length: u64) -> Result<(), Malformed> {
        let start = self.clone();
        if self.array(length)? == length { Ok(()) } else { Err(start.wrong("an array of another length")) }
    }

    /// A whole array of at most `most` items.
    pub fn list<T>(
        &mut self,
        most: u64,
        item: impl Fn(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let length = self.array(most)?;
        (0..length).map(|_| item(self)).collect()
    }

    /// Null, or a value.
    pub fn option<T>(
        &mut self,
        value: impl FnOnce(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        if self.bytes.get(self.at) == Some(&NULL) {
            self.at += 1;
            return Ok(None);
        }
        value(self).map(Some)
    }

    /// Nothing may follow.
    pub fn end(&self) -> Result<(), Malformed> {
        if self.is_empty() { Ok(()) } else { Err(self.wrong("something follows")) }
    }
}

/// Writes values one after the other.
#[derive(Debug, Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    fn head(&mut self, major: u8, value: u64) -> &mut Self {
        let bytes = value.to_be_bytes();
        let (info, width) = match value {
            0..24 => (value.to_le_bytes()[0], 0),
            24..0x100 => (24, 1),
            0x100..0x1_0000 => (25, 2),
            0x1_0000..0x1_0000_0000 => (26, 4),
            _ => (27, 8),
        };
        self.0.push(major << 5 | info);
        self.0.extend_from_slice(&bytes[8 - width..]);
        self
    }

    pub fn uint(&mut self, value: u64) -> &mut Self {
        self.head(UINT, value)
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.head(BYTES, bytes.len() as u64).raw(bytes)
    }

    pub fn text(&mut self, text: &str) -> &mut Self {
        self.head(TEXT, text.len() as u64).raw(text.as_bytes())
    }

    pub fn array(&mut self, length: usize) -> &mut Self {
        self.head(ARRAY, length as u64)
    }

    pub fn list<'a, T: 'a>(
        &mut self,
        items: impl ExactSizeIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T),
    ) -> &mut Self {
        self.array(items.len());
        items.for_each(|item| write(self, item));
        self
    }

    pub fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) -> &mut Self {
        match value {
            None => self.0.push(NULL),
            Some(value) => write(self, value),
        }
        self
    }

    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_examples_of_rfc_8949_are_written_and_read() {
        let examples: [(u64, &[u8]); 9] = [
            (0, &[0x00]),
            (23, &[0x17]),
            (24, &[0x18, 0x18]),
            (100, &[0x18, 0x64]),
            (1_000, &[0x19, 0x03, 0xe8]),
            (1_000_000, &[0x1a, 0x00, 0x0f, 0x42, 0x40]),
            (1_000_000_000_000, &[0x1b, 0, 0, 0, 0xe8, 0xd4, 0xa5, 0x10, 0]),
            (u64::from(u32::MAX), &[0x1a, 0xff, 0xff, 0xff, 0xff]),
            (u64::MAX, &[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ];
        for (value, bytes) in examples {
            let mut writer = Writer::default();
            assert_eq!(writer.uint(value).0, bytes);
            assert_eq!(Reader::new(bytes).uint(), Ok(value));
        }
        assert_eq!(Writer::default().text("IETF").0, b"\x64IETF");
        assert_eq!(Writer::default().bytes(&[1, 2, 3, 4]).0, [0x44, 1, 2, 3, 4]);
    }

    #[test]
    fn what_could_be_written_otherwise_is_refused() {
        for bytes in [
            &[0x18, 0x17][..],
            &[0x19, 0x00, 0xff],
            &[0x1a, 0, 0, 0xff, 0xff],
            &[0x1b, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
            &[0x1f],
        ] {
            assert!(Reader::new(bytes).uint().is_err(), "{bytes:02x?}");
        }
        assert!(Reader::new(&[0x9f, 0xff]).array(10).is_err());
        assert!(Reader::new(&[0x5f, 0xff]).bytes(10).is_err());
        assert!(Reader::new(b"\x62\xff\xfe").text(10).is_err());
    }

    #[test]
    fn a_length_beyond_the_end_or_the_bound_is_refused() {
        assert!(
            Reader::new(&[0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).bytes(usize::MAX).is_err()
        );
        assert!(Reader::new(b"\x45hello").bytes(4).is_err());
        assert!(Reader::new(&[0x85]).array(4).is_err());
        assert!(Reader::new(&[0x83]).tuple(2).is_err());
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..16)) {
            let mut reader = Reader::new(&bytes);
            if let Ok(value) = reader.uint() {
                let mut writer = Writer::default();
                prop_assert_eq!(&writer.uint(value).0[..], &bytes[..reader.at()]);
            }
        }
    }
}
