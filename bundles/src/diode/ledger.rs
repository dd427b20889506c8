//! Which bundles of which links came over a diode.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::header::Place;
use crate::keys::LinkId;
use crate::limits;
use crate::link::without;

/// Of one epoch of one link.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Epoch {
    /// The highest bundle that anything was heard of.
    highest: u64,
    /// What came, in order, apart from one another.
    received: Vec<RangeInclusive<u64>>,
    /// Up to here nothing is reported any more.
    floor: u64,
}

impl Epoch {
    fn has(&self, seq: u64) -> bool {
        seq <= self.floor || self.received.iter().any(|range| range.contains(&seq))
    }

    fn add(&mut self, seq: u64) {
        self.highest = self.highest.max(seq);
        if self.has(seq) {
            return;
        }
        let at = self.received.partition_point(|range| *range.end() < seq);
        self.received.insert(at, seq..=seq);
        let mut joined: Vec<RangeInclusive<u64>> = Vec::with_capacity(self.received.len());
        for range in std::mem::take(&mut self.received) {
            match joined.last_mut().filter(|last| last.end().saturating_add(1) == *range.start()) {
                Some(last) => *last = *last.start()..=*range.end(),
                None => joined.push(range),
            }
        }
        if joined.len() > limits::RECEIVED_RANGES {
            self.floor = *joined.remove(0).end();
        }
        self.received = joined;
    }

    fn missing(&self) -> Vec<RangeInclusive<u64>> {
        let mut missing = Vec::new();
        let mut next = self.floor + 1;
        for range in &self.received {
            if next < *range.start() {
                missing.push(next..=*range.start() - 1);
            }
            next = next.max(range.end().saturating_add(1));
        }
        if next <= self.highest {
            missing.push(next..=self.highest);
        }
        missing
    }
}

/// Which bundles of which links came.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ledger(BTreeMap<LinkId, BTreeMap<u32, Epoch>>);

impl Ledger {
    fn epoch(&mut self, place: Place) -> &mut Epoch {
        let epochs = self.0.entry(place.link).or_default();
        epochs.entry(place.epoch).or_default();
        while epochs.len() > limits::EPOCHS && epochs.keys().next() != Some(&place.epoch) {
            epochs.pop_first();
        }
        epochs.entry(place.epoch).or_default()
    }

    /// Something of this bundle was heard. Says whether that is news.
    pub fn heard(&mut self, place: Place) -> bool {
        let epoch = self.epoch(place);
        let news = place.seq > epoch.highest;
        epoch.highest = epoch.highest.max(place.seq);
        news
    }

    pub fn received(&mut self, place: Place) {
        self.epoch(place).add(place.seq);
    }

    /// What came is of no use: it is missing again.
    pub fn forget(&mut self, place: Place) {
        let epoch = self.epoch(place);
        epoch.received = without(std::mem::take(&mut epoch.received), place.seq);
    }

    pub fn has(&self, place: Place) -> bool {
        let epoch = self.0.get(&place.link).and_then(|epochs| epochs.get(&place.epoch));
        epoch.is_some_and(|epoch| epoch.has(place.seq))
    }

    /// The last epoch of a link, the highest bundle of it that was heard of, and what is missing up to there.
    pub fn missing(&self, link: LinkId) -> Option<(u32, u64, Vec<RangeInclusive<u64>>)> {
        let (number, epoch) = self.0.get(&link)?.last_key_value()?;
        Some((*number, epoch.highest, epoch.missing()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place(seq: u64) -> Place {
        Place { link: LinkId([1; 8]), epoch: 1, seq }
    }

    proptest! {
        #[test]
        fn what_did_not_come_is_missing(received in proptest::collection::vec(1..200_u64, 0..150), highest in 1..220_u64) {
            let mut ledger = Ledger::default();
            received.iter().for_each(|seq| ledger.received(place(*seq)));
            ledger.heard(place(highest));
            let (_, last, missing) = ledger.missing(place(1).link).unwrap();
            prop_assert_eq!(last, received.iter().copied().max().unwrap_or(0).max(highest));
            let expected: Vec<u64> = (1..=last).filter(|seq| !received.contains(seq)).collect();
            prop_assert_eq!(missing.into_iter().flatten().collect::<Vec<_>>(), expected);
            prop_assert!((1..=last).all(|seq| ledger.has(place(seq)) == received.contains(&seq)));
        }
    }

    #[test]
    fn what_is_forgotten_is_missing_again() {
        let mut ledger = Ledger::default();
        (1..=5).for_each(|seq| ledger.received(place(seq)));
        ledger.forget(place(3));
        assert_eq!(ledger.missing(place(1).link), Some((1, 5, vec![3..=3])));
    }

    #[test]
    fn it_does_not_grow_without_end() {
        let mut ledger = Ledger::default();
        for seq in 1..=2 * limits::RECEIVED_RANGES as u64 + 20 {
            ledger.received(place(seq * 2));
        }
        let (_, _, missing) = ledger.missing(place(1).link).unwrap();
        assert!(missing.len() <= limits::RECEIVED_RANGES);
        for epoch in 2..20 {
            ledger.received(Place { epoch, ..place(1) });
        }
        assert!(!ledger.has(place(2)));
    }
}
