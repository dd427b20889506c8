//! Ranges of a family, in order.

use crate::{
    codec::{Bytes, Decode, PrefixOf},
    error::Error,
    schema::{Family, Kind},
    store::Graph,
};
use rocksdb::{DBRawIteratorWithThreadMode, ReadOptions};
use std::marker::PhantomData;

/// A range being described: everything below a prefix, unless narrowed.
#[derive(Debug)]
pub struct Range<'g, F: Family> {
    graph: &'g Graph,
    lower: Vec<u8>,
    upper: Option<Vec<u8>>,
    prefix_len: usize,
    reverse: bool,
    family: PhantomData<F>,
}

/// The first key after all that begin with `prefix`; none if there is none.
fn after_all(mut prefix: Vec<u8>) -> Option<Vec<u8>> {
    while let Some(last) = prefix.pop() {
        if last != u8::MAX {
            prefix.push(last + 1);
            return Some(prefix);
        }
    }
    None
}

impl<'g, F: Family> Range<'g, F> {
    pub(crate) fn new(graph: &'g Graph, prefix: Vec<u8>) -> Self {
        let upper = after_all(prefix.clone());
        Self { graph, prefix_len: prefix.len(), lower: prefix, upper, reverse: false, family: PhantomData }
    }

    /// Only keys equal to or above `key` (a whole key or its beginning).
    #[must_use]
    pub fn from<P: PrefixOf<F::Key>>(mut self, key: &P) -> Self {
        self.lower = self.lower.max(Bytes::of(key).data);
        self
    }

    /// Only keys above `key` and all that begin with it.
    #[must_use]
    pub fn after<P: PrefixOf<F::Key>>(mut self, key: &P) -> Self {
        if let Some(next) = after_all(Bytes::of(key).data) {
            self.lower = self.lower.max(next);
        }
        self
    }

    /// Only keys below `key`.
    #[must_use]
    pub fn below<P: PrefixOf<F::Key>>(self, key: &P) -> Self {
        self.cut(Some(Bytes::of(key).data))
    }

    /// Only keys below or equal to `key`, or beginning with it.
    #[must_use]
    pub fn up_to<P: PrefixOf<F::Key>>(self, key: &P) -> Self {
        self.cut(after_all(Bytes::of(key).data))
    }

    fn cut(mut self, end: Option<Vec<u8>>) -> Self {
        if let Some(end) = end {
            self.upper = Some(self.upper.map_or(end.clone(), |upper| upper.min(end)));
        }
        self
    }

    /// From the highest key down.
    #[must_use]
    pub const fn reverse(mut self) -> Self {
        self.reverse = true;
        self
    }

    /// Starts reading. Each item is a key with its value.
    #[must_use]
    pub fn iter(self) -> Scan<'g, F> {
        let mut options = ReadOptions::default();
        // The prefix filter only serves ranges that lie below one whole prefix.
        match F::KIND {
            Kind::Scan(n) if self.prefix_len >= n => options.set_prefix_same_as_start(true),
            _ => options.set_total_order_seek(true),
        }
        let empty = self.upper.as_ref().is_some_and(|upper| *upper <= self.lower);
        options.set_iterate_lower_bound(self.lower.clone());
        if let Some(upper) = self.upper.clone() {
            options.set_iterate_upper_bound(upper);
        }
        let inner = (!empty).then(|| {
            let mut inner = self.graph.raw_iterator::<F>(options);
            if self.reverse {
                // With prefix_same_as_start a seek has to name a key of the prefix.
                match &self.upper {
                    Some(upper) if matches!(F::KIND, Kind::Scan(n) if self.prefix_len >= n) => {
                        let mut last = self.lower[..self.prefix_len.min(self.lower.len())].to_vec();
                        last.extend([u8::MAX; 64]);
                        inner.seek_for_prev(last.min(upper.clone()));
                    }
                    _ => inner.seek_to_last(),
                }
            } else {
                inner.seek(&self.lower);
            }
            inner
        });
        Scan { inner, reverse: self.reverse, family: PhantomData }
    }

    /// The first entry of the range (the last, if reversed).
    pub fn first(self) -> Result<Option<Entry<F>>, Error> {
        self.iter().next().transpose()
    }
}

/// A key with its value.
pub type Entry<F> = (<F as Family>::Key, <F as Family>::Value);

/// A range being read.
pub struct Scan<'g, F: Family> {
    inner: Option<DBRawIteratorWithThreadMode<'g, rocksdb::DBWithThreadMode<rocksdb::SingleThreaded>>>,
    reverse: bool,
    family: PhantomData<F>,
}

impl<F: Family> std::fmt::Debug for Scan<'_, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scan({})", F::NAME)
    }
}

impl<F: Family> Iterator for Scan<'_, F> {
    type Item = Result<Entry<F>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let inner = self.inner.as_mut()?;
        let Some((key, value)) = inner.item() else {
            let status = inner.status();
            self.inner = None;
            return status.err().map(|e| Err(e.into()));
        };
        let item = F::Key::whole(key)
            .and_then(|key| Ok((key, F::Value::whole(value)?)))
            .map_err(|damaged| Error::damaged::<F>(damaged));
        if item.is_err() {
            self.inner = None;
        } else if self.reverse {
            inner.prev();
        } else {
            inner.next();
        }
        Some(item)
    }
}
