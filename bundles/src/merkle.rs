//! The Merkle tree of RFC 6962 section 2.1 over the records of a bundle.

use crate::keys::{Hash, sha256};

/// The hash of a record.
pub fn leaf(record: &[u8]) -> Hash {
    sha256(&[&[0], record])
}

fn node(left: &Hash, right: &Hash) -> Hash {
    sha256(&[&[1], left, right])
}

/// Computes a root without keeping the leaves: at most 64 hashes.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// Roots of full subtrees, largest first.
    full: Vec<Hash>,
    leaves: u64,
}

impl Tree {
    /// Adds the next leaf.
    pub fn add(&mut self, leaf: Hash) {
        let (mut hash, mut size) = (leaf, self.leaves);
        while size & 1 == 1 {
            let Some(left) = self.full.pop() else { break };
            hash = node(&left, &hash);
            size >>= 1;
        }
        self.full.push(hash);
        self.leaves += 1;
    }

    /// How many leaves there are.
    pub fn leaves(&self) -> u64 {
        self.leaves
    }

    /// The root; of no leaves it is the hash of nothing.
    pub fn root(&self) -> Hash {
        let right_to_left = self.full.iter().rev().copied();
        right_to_left.reduce(|right, left| node(&left, &right)).unwrap_or_else(|| sha256(&[]))
    }
}

/// The root of all `leaves`.
pub fn root(leaves: &[Hash]) -> Hash {
    let mut tree = Tree::default();
    leaves.iter().for_each(|leaf| tree.add(*leaf));
    tree.root()
}

/// The largest power of two below `size`, which is at least two.
fn split(size: usize) -> usize {
    1 << (usize::BITS - 1 - (size - 1).leading_zeros())
}

/// The audit path of leaf `at` (RFC 6962 section 2.1.1): with it, and the root that was signed, one record is evidence
/// without the others. `None` if there is no such leaf.
pub fn proof(leaves: &[Hash], at: usize) -> Option<Vec<Hash>> {
    if at >= leaves.len() {
        return None;
    }
    let (mut rest, mut at, mut path) = (leaves, at, Vec::new());
    while rest.len() > 1 {
        let (left, right) = rest.split_at(split(rest.len()));
        if at < left.len() {
            path.push(root(right));
            rest = left;
        } else {
            path.push(root(left));
            at -= left.len();
            rest = right;
        }
    }
    path.reverse();
    Some(path)
}

/// Whether `leaf` is leaf `at` of the `size` below `root`, by its audit path (RFC 9162 section 2.1.3.2).
pub fn proves(root: &Hash, size: u64, at: u64, leaf: Hash, path: &[Hash]) -> bool {
    if at >= size {
        return false;
    }
    let (mut at, mut last, mut hash) = (at, size - 1, leaf);
    for other in path {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            hash = node(other, &hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node(&hash, other);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::hex;

    /// The tree of the reference implementation's tests of Certificate Transparency.
    fn inputs() -> Vec<Hash> {
        let inputs: [&[u8]; 8] = [
            b"",
            b"\x00",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
        ];
        inputs.map(leaf).to_vec()
    }

    #[test]
    fn roots_are_those_of_certificate_transparency() {
        let leaves = inputs();
        assert_eq!(hex(&root(&[])), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(
            hex(&root(&leaves[..1])),
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
        );
        assert_eq!(
            hex(&root(&leaves[..3])),
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"
        );
        assert_eq!(hex(&root(&leaves)), "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328");
    }

    #[test]
    fn each_leaf_is_proved_and_no_other() {
        for size in 1..40_usize {
            let leaves: Vec<_> = (0..size).map(|n| leaf(&n.to_be_bytes())).collect();
            let root = root(&leaves);
            for at in 0..size {
                let path = proof(&leaves, at).unwrap();
                for (other, leaf) in leaves.iter().enumerate() {
                    let proved = proves(&root, size as u64, at as u64, *leaf, &path);
                    assert_eq!(proved, other == at, "leaf {other} at {at} of {size}");
                }
                assert!(!proves(&root, size as u64, size as u64, leaves[at], &path));
            }
        }
    }
}
