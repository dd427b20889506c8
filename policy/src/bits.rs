//! Sets of small numbers.

use smallvec::SmallVec;

/// A set of small numbers, of any size; up to 256 without an allocation. Without trailing zero words, so that equal
/// sets are equal values.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Bits(SmallVec<[u64; 4]>);

impl Bits {
    pub(crate) fn insert(&mut self, bit: usize) {
        let word = bit / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        if let Some(word) = self.0.get_mut(word) {
            *word |= 1 << (bit % 64);
        }
    }

    pub(crate) fn has(&self, bit: usize) -> bool {
        self.0.get(bit / 64).is_some_and(|word| word & (1 << (bit % 64)) != 0)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn is_subset(&self, of: &Self) -> bool {
        self.0.len() <= of.0.len() && self.0.iter().zip(&of.0).all(|(mine, theirs)| mine & !theirs == 0)
    }

    pub(crate) fn meets(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).any(|(mine, theirs)| mine & theirs != 0)
    }

    pub(crate) fn union(&self, other: &Self) -> Self {
        let (longer, shorter) = if self.0.len() >= other.0.len() { (self, other) } else { (other, self) };
        let mut all = longer.clone();
        for (word, more) in all.0.iter_mut().zip(&shorter.0) {
            *word |= more;
        }
        all
    }

    pub(crate) fn intersection(&self, other: &Self) -> Self {
        let mut common: SmallVec<_> =
            self.0.iter().zip(&other.0).map(|(mine, theirs)| mine & theirs).collect();
        while common.last() == Some(&0) {
            common.pop();
        }
        Self(common)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().flat_map(|(at, &word)| {
            (0..64).filter(move |bit| word & (1 << bit) != 0).map(move |bit| at * 64 + bit)
        })
    }
}

impl FromIterator<usize> for Bits {
    fn from_iter<I: IntoIterator<Item = usize>>(bits: I) -> Self {
        let mut set = Self::default();
        bits.into_iter().for_each(|bit| set.insert(bit));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn bits_are_a_set(a in proptest::collection::btree_set(0usize..400, 0..20), b in proptest::collection::btree_set(0usize..400, 0..20)) {
            let (x, y): (Bits, Bits) = (a.iter().copied().collect(), b.iter().copied().collect());
            prop_assert_eq!(x.iter().collect::<BTreeSet<_>>(), a.clone());
            prop_assert_eq!(x.union(&y), a.union(&b).copied().collect::<Bits>());
            prop_assert_eq!(x.intersection(&y), a.intersection(&b).copied().collect::<Bits>());
            prop_assert_eq!(x.is_subset(&y), a.is_subset(&b));
            prop_assert_eq!(x.meets(&y), !a.is_disjoint(&b));
            prop_assert_eq!(x.is_empty(), a.is_empty());
            prop_assert!(a.iter().all(|&bit| x.has(bit)));
        }
    }
}
