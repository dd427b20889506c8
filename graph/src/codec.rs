//! How keys and values become bytes, and back.
//!
//! Integers are big-endian so that ranges scan in order; text inside a key ends with `0xFF` (a byte UTF-8 never
//! contains), so that a key's parts can be told apart without lengths. A [`Seq`] that is only known when its commit
//! is applied is written as a placeholder whose position is remembered ([`Bytes::stamps`]) and filled in then.

use crate::ids::Seq;
use serde::{Serialize, de::DeserializeOwned};
use smallvec::SmallVec;

/// The byte that ends a text inside a key; it occurs in no UTF-8.
const TEXT_END: u8 = 0xFF;

/// Bytes being written: a key or a value, with the places where a [`Seq`] is still to be filled in.
#[derive(Debug, Default, Clone)]
pub struct Bytes {
    pub(crate) data: Vec<u8>,
    /// (position, slot of the commit) of every sequence number known only when the commit is applied.
    pub(crate) stamps: SmallVec<[(u32, u16); 2]>,
}

impl Bytes {
    /// The encoded form of `value` alone.
    pub fn of<E: Encode + ?Sized>(value: &E) -> Self {
        let mut out = Self::default();
        value.encode(&mut out);
        out
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.data.extend_from_slice(bytes);
    }
}

/// Stored bytes that are not what their family says they are: the database is damaged.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[error("stored bytes are damaged: {0}")]
pub struct Damaged(pub String);

/// Turns a value into its stored bytes.
pub trait Encode {
    /// Appends the bytes of `self` to `out`.
    fn encode(&self, out: &mut Bytes);
}

/// Reads a value from its stored bytes.
pub trait Decode: Sized {
    /// Takes the bytes of one value from the front of `input`.
    fn decode(input: &mut &[u8]) -> Result<Self, Damaged>;

    /// Reads a value that fills `bytes` entirely.
    fn whole(mut bytes: &[u8]) -> Result<Self, Damaged> {
        let value = Self::decode(&mut bytes)?;
        if bytes.is_empty() { Ok(value) } else { Err(Damaged(format!("{} bytes too many", bytes.len()))) }
    }
}

pub(crate) fn take<'a>(input: &mut &'a [u8], n: usize) -> Result<&'a [u8], Damaged> {
    let (head, tail) = input
        .split_at_checked(n)
        .ok_or_else(|| Damaged(format!("{n} bytes wanted, {} there", input.len())))?;
    *input = tail;
    Ok(head)
}

fn take_array<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], Damaged> {
    let (head, tail) = input
        .split_first_chunk::<N>()
        .ok_or_else(|| Damaged(format!("{N} bytes wanted, {} there", input.len())))?;
    *input = tail;
    Ok(*head)
}

macro_rules! integers {
    ($($int:ty),*) => {$(
        impl Encode for $int {
            fn encode(&self, out: &mut Bytes) { out.raw(&self.to_be_bytes()); }
        }
        impl Decode for $int {
            fn decode(input: &mut &[u8]) -> Result<Self, Damaged> { Ok(<$int>::from_be_bytes(take_array(input)?)) }
        }
    )*};
}
integers!(u8, u16, u32, u64);

/// Signed numbers keep their order: the sign bit is flipped.
impl Encode for i64 {
    fn encode(&self, out: &mut Bytes) {
        out.raw(&(self.cast_unsigned() ^ (1 << 63)).to_be_bytes());
    }
}
impl Decode for i64 {
    fn decode(input: &mut &[u8]) -> Result<Self, Damaged> {
        Ok((u64::decode(input)? ^ (1 << 63)).cast_signed())
    }
}

impl<const N: usize> Encode for [u8; N] {
    fn encode(&self, out: &mut Bytes) {
        out.raw(self);
    }
}
impl<const N: usize> Decode for [u8; N] {
    fn decode(input: &mut &[u8]) -> Result<Self, Damaged> {
        take_array(input)
    }
}

impl Encode for str {
    fn encode(&self, out: &mut Bytes) {
        out.raw(self.as_bytes());
        out.data.push(TEXT_END);
    }
}
impl Encode for String {
    fn encode(&self, out: &mut Bytes) {
        self.as_str().encode(out);
    }
}
impl Decode for String {
    fn decode(input: &mut &[u8]) -> Result<Self, Damaged> {
        let end = input
            .iter()
            .position(|b| *b == TEXT_END)
            .ok_or_else(|| Damaged("text without end".to_owned()))?;
        let text = take(input, end)?;
        take(input, 1)?;
        String::from_utf8(text.to_vec()).map_err(|e| Damaged(e.to_string()))
    }
}

impl Encode for () {
    fn encode(&self, _: &mut Bytes) {}
}
impl Decode for () {
    fn decode(_: &mut &[u8]) -> Result<Self, Damaged> {
        Ok(())
    }
}

impl Encode for bool {
    fn encode(&self, out: &mut Bytes) {
        u8::from(*self).encode(out);
    }
}
impl Decode for bool {
    fn decode(input: &mut &[u8]) -> Result<Self, Damaged> {
        match u8::decode(input)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Damaged(format!("{other} is neither true nor false"))),
        }
    }
}

impl<T: Encode> Encode for Option<T> {
    fn encode(&self, out: &mut Bytes) {
        self.is_some().encode(out);
        if let Some(value) = self {
            value.encode(out);
        }
    }
}
impl<T: Decode> Decode for Option<T> {
    fn decode(input: &mut &[u8]) -> Result<Self, Damaged> {
        Ok(if bool::decode(input)? { Some(T::decode(input)?) } else { None })
    }
}

impl<T: Encode> Encode for Vec<T> {
    fn encode(&self, out: &mut Bytes) {
        u32::try_from(self.len()).unwrap_or(u32::MAX).encode(out);
        for item in self {
            item.encode(out);
        }
    }
}
impl<T: Decode> Decode for Vec<T> {
    fn decode(input: &mut &[u8]) -> Result<Self, Damaged> {
        let count = u32::decode(input)?;
        // One allocation is bounded by what is really there, whatever the count claims.
        let mut items = Vec::with_capacity(usize::try_from(count).unwrap_or(0).min(input.len()));
        for _ in 0..count {
            items.push(T::decode(input)?);
        }
        Ok(items)
    }
}

/// All bytes that remain: only as a value or as the last part of one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Raw(pub Vec<u8>);

impl Encode for Raw {
    fn encode(&self, out: &mut Bytes) {
        out.raw(&self.0);
    }
}
impl Decode for Raw {
    fn decode(input: &mut &[u8]) -> Result<Self, Damaged> {
        Ok(Self(std::mem::take(input).to_vec()))
    }
}

/// A value kept as JSON: records that grow fields over time. Fields added later need a serde default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Json<T>(pub T);

impl<T: Serialize> Encode for Json<T> {
    fn encode(&self, out: &mut Bytes) {
        // Only maps with keys that are no text can fail here, and no record has one.
        if let Err(error) = serde_json::to_writer(&mut out.data, &self.0) {
            tracing::error!(%error, "a record could not be written as JSON");
        }
    }
}
impl<T: DeserializeOwned> Decode for Json<T> {
    fn decode(input: &mut &[u8]) -> Result<Self, Damaged> {
        serde_json::from_slice(std::mem::take(input)).map(Json).map_err(|e| Damaged(e.to_string()))
    }
}

impl Encode for Seq {
    fn encode(&self, out: &mut Bytes) {
        if let Some(slot) = self.pending_slot() {
            out.stamps.push((u32::try_from(out.data.len()).unwrap_or(u32::MAX), slot));
        }
        self.0.encode(out);
    }
}
impl Decode for Seq {
    fn decode(input: &mut &[u8]) -> Result<Self, Damaged> {
        u64::decode(input).map(Seq)
    }
}

/// A beginning of a key of type `K`: what a scan can ask for.
pub trait PrefixOf<K>: Encode {}

impl<K> PrefixOf<K> for () {}

macro_rules! tuples {
    ($($name:ident $n:tt),+) => {
        impl<$($name: Encode),+> Encode for ($($name,)+) {
            fn encode(&self, out: &mut Bytes) { $(self.$n.encode(out);)+ }
        }
        impl<$($name: Decode),+> Decode for ($($name,)+) {
            fn decode(input: &mut &[u8]) -> Result<Self, Damaged> { Ok(($($name::decode(input)?,)+)) }
        }
    };
}
tuples!(A 0);
tuples!(A 0, B 1);
tuples!(A 0, B 1, C 2);
tuples!(A 0, B 1, C 2, D 3);
tuples!(A 0, B 1, C 2, D 3, E 4);

impl<A: Encode> PrefixOf<(A,)> for (A,) {}
impl<A: Encode, B> PrefixOf<(A, B)> for (A,) {}
impl<A: Encode, B: Encode> PrefixOf<(A, B)> for (A, B) {}
impl<A: Encode, B, C> PrefixOf<(A, B, C)> for (A,) {}
impl<A: Encode, B: Encode, C> PrefixOf<(A, B, C)> for (A, B) {}
impl<A: Encode, B: Encode, C: Encode> PrefixOf<(A, B, C)> for (A, B, C) {}
impl<A: Encode, B, C, D> PrefixOf<(A, B, C, D)> for (A,) {}
impl<A: Encode, B: Encode, C, D> PrefixOf<(A, B, C, D)> for (A, B) {}
impl<A: Encode, B: Encode, C: Encode, D> PrefixOf<(A, B, C, D)> for (A, B, C) {}
impl<A: Encode, B: Encode, C: Encode, D: Encode> PrefixOf<(A, B, C, D)> for (A, B, C, D) {}
impl<A: Encode, B, C, D, E> PrefixOf<(A, B, C, D, E)> for (A,) {}
impl<A: Encode, B: Encode, C, D, E> PrefixOf<(A, B, C, D, E)> for (A, B) {}
impl<A: Encode, B: Encode, C: Encode, D, E> PrefixOf<(A, B, C, D, E)> for (A, B, C) {}
impl<A: Encode, B: Encode, C: Encode, D: Encode, E> PrefixOf<(A, B, C, D, E)> for (A, B, C, D) {}
impl<A: Encode, B: Encode, C: Encode, D: Encode, E: Encode> PrefixOf<(A, B, C, D, E)> for (A, B, C, D, E) {}
