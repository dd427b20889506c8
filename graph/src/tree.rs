//! Persistent state maps: immutable, content-addressed hash tries from (type, state key) to event.
//!
//! A map is named by its root ([`Root`], a hash of its content). Keys are spread by a mixed hash of their number; a
//! subtree of up to [`LEAF`] entries is one sorted leaf, a larger one branches 16 ways on the next four bits of the
//! hash. This shape depends on the content alone, never on the order of the changes: equal maps have equal roots,
//! one change rewrites one path (O(log n)), and comparing two maps skips every subtree they share (O(difference)).

use crate::{
    codec::{Bytes, Damaged, Decode, Encode, Raw, take},
    commit::Commit,
    error::Error,
    ids::{EventNum, Root, StateKeyNum},
    schema::StateNodes,
    store::Graph,
};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, sync::Arc};

/// Entries of a leaf at most.
const LEAF: usize = 16;
/// Ways a branch goes.
const WAYS: usize = 16;
/// The deepest branch: 64 bits of hash, four at a time. Numbers are mixed one to one, so no two keys share all of them.
const MAX_DEPTH: u32 = 16;

/// One node of a state map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// Entries sorted by key.
    Leaf(Vec<(StateKeyNum, EventNum)>),
    /// Subtrees, and the number of entries below.
    Branch(Box<[Option<Root>; WAYS]>, u64),
}

impl Encode for Node {
    fn encode(&self, out: &mut Bytes) {
        match self {
            Self::Leaf(entries) => {
                0_u8.encode(out);
                for entry in entries {
                    entry.encode(out);
                }
            }
            Self::Branch(ways, count) => {
                1_u8.encode(out);
                count.encode(out);
                let present =
                    (0..WAYS).filter(|way| ways[*way].is_some()).fold(0_u16, |bits, way| bits | 1 << way);
                present.encode(out);
                for root in ways.iter().flatten() {
                    root.encode(out);
                }
            }
        }
    }
}

impl Decode for Node {
    fn decode(input: &mut &[u8]) -> Result<Self, Damaged> {
        match u8::decode(input)? {
            0 => {
                let mut entries = Vec::with_capacity(input.len() / 16);
                while !input.is_empty() {
                    let mut entry = take(input, 16)?;
                    entries.push(Decode::decode(&mut entry)?);
                }
                Ok(Self::Leaf(entries))
            }
            1 => {
                let count = u64::decode(input)?;
                let present = u16::decode(input)?;
                let mut ways: Box<[Option<Root>; WAYS]> = Box::default();
                for (way, root) in ways.iter_mut().enumerate() {
                    if present & (1 << way) != 0 {
                        *root = Some(Root::decode(input)?);
                    }
                }
                Ok(Self::Branch(ways, count))
            }
            other => Err(Damaged(format!("{other} is no kind of state node"))),
        }
    }
}

/// Spreads consecutive numbers over all bits; one to one (the finalizer of splitmix64).
const fn mix(key: StateKeyNum) -> u64 {
    let mut x = key.0;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

const fn way(key: StateKeyNum, depth: u32) -> usize {
    ((mix(key) >> (60 - 4 * depth)) & 0xF) as usize
}

/// A difference of two maps at one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Where.
    pub key: StateKeyNum,
    /// What the first map has there.
    pub before: Option<EventNum>,
    /// What the second map has there.
    pub after: Option<EventNum>,
}

/// Reads and grows state maps: over the graph, and over the nodes of a commit being built.
#[derive(Debug, Clone, Copy)]
struct Maps<'a> {
    graph: &'a Graph,
    commit: Option<&'a Commit>,
}

impl Maps<'_> {
    fn node(&self, root: Root) -> Result<Arc<Node>, Error> {
        if root == Root::EMPTY {
            return Ok(Arc::new(Node::Leaf(Vec::new())));
        }
        if let Some(node) = self.commit.and_then(|commit| commit.nodes.get(&root)) {
            return Ok(node.clone());
        }
        self.graph.state_node(root)
    }

    fn count(&self, root: Root) -> Result<u64, Error> {
        Ok(match &*self.node(root)? {
            Node::Leaf(entries) => entries.len() as u64,
            Node::Branch(_, count) => *count,
        })
    }

    fn collect(&self, root: Root, out: &mut Vec<(StateKeyNum, EventNum)>) -> Result<(), Error> {
        match &*self.node(root)? {
            Node::Leaf(entries) => out.extend(entries),
            Node::Branch(ways, _) => {
                for root in ways.iter().flatten() {
                    self.collect(*root, out)?;
                }
            }
        }
        Ok(())
    }

    fn get(&self, mut root: Root, key: StateKeyNum) -> Result<Option<EventNum>, Error> {
        for depth in 0..=MAX_DEPTH {
            match &*self.node(root)? {
                Node::Leaf(entries) => {
                    return Ok(entries
                        .binary_search_by_key(&key, |entry| entry.0)
                        .ok()
                        .map(|at| entries[at].1));
                }
                Node::Branch(ways, _) => match ways[way(key, depth)] {
                    Some(next) => root = next,
                    None => return Ok(None),
                },
            }
        }
        Err(Error::Missing("the leaf of a state map".to_owned()))
    }

    fn diff(&self, a: Root, b: Root, out: &mut Vec<Change>) -> Result<(), Error> {
        if a == b {
            return Ok(());
        }
        match (&*self.node(a)?, &*self.node(b)?) {
            (Node::Branch(left, _), Node::Branch(right, _)) => {
                for (a, b) in left.iter().zip(right.iter()) {
                    self.diff(a.unwrap_or(Root::EMPTY), b.unwrap_or(Root::EMPTY), out)?;
                }
            }
            // At most one of the two is larger than a leaf here, and only because the other lacks most of it.
            _ => {
                let mut merged: BTreeMap<StateKeyNum, (Option<EventNum>, Option<EventNum>)> = BTreeMap::new();
                let mut entries = Vec::new();
                self.collect(a, &mut entries)?;
                for (key, event) in entries.drain(..) {
                    merged.entry(key).or_default().0 = Some(event);
                }
                self.collect(b, &mut entries)?;
                for (key, event) in entries.drain(..) {
                    merged.entry(key).or_default().1 = Some(event);
                }
                out.extend(
                    merged
                        .into_iter()
                        .filter(|(_, (before, after))| before != after)
                        .map(|(key, (before, after))| Change { key, before, after }),
                );
            }
        }
        Ok(())
    }
}

/// The name of a node with these bytes.
pub(crate) fn root_of(bytes: &[u8]) -> Root {
    let digest = Sha256::digest(bytes);
    let mut name = [0; 16];
    name.copy_from_slice(&digest[..16]);
    Root(name)
}

fn store(commit: &mut Commit, node: Node) -> Root {
    if matches!(&node, Node::Leaf(entries) if entries.is_empty()) {
        return Root::EMPTY;
    }
    let bytes = Bytes::of(&node).data;
    let root = root_of(&bytes);
    if commit.nodes.insert(root, Arc::new(node)).is_none() {
        commit.put::<StateNodes>(&(root,), &Raw(bytes));
    }
    root
}

/// Builds the subtree for entries that share their first `depth` steps.
fn build(commit: &mut Commit, mut entries: Vec<(StateKeyNum, EventNum)>, depth: u32) -> Root {
    if entries.len() <= LEAF {
        entries.sort_unstable();
        return store(commit, Node::Leaf(entries));
    }
    let count = entries.len() as u64;
    let mut parts: [Vec<_>; WAYS] = Default::default();
    for entry in entries {
        parts[way(entry.0, depth)].push(entry);
    }
    let mut ways: Box<[Option<Root>; WAYS]> = Box::default();
    for (slot, part) in ways.iter_mut().zip(parts) {
        if !part.is_empty() {
            *slot = Some(build(commit, part, depth + 1));
        }
    }
    store(commit, Node::Branch(ways, count))
}

fn change(
    graph: &Graph,
    commit: &mut Commit,
    root: Root,
    key: StateKeyNum,
    event: Option<EventNum>,
    depth: u32,
) -> Result<Root, Error> {
    let node = Maps { graph, commit: Some(commit) }.node(root)?;
    match &*node {
        Node::Leaf(entries) => {
            let mut entries = entries.clone();
            match (entries.binary_search_by_key(&key, |entry| entry.0), event) {
                (Ok(at), Some(event)) if entries[at].1 == event => return Ok(root),
                (Ok(at), Some(event)) => entries[at].1 = event,
                (Ok(at), None) => {
                    entries.remove(at);
                }
                (Err(at), Some(event)) => entries.insert(at, (key, event)),
                (Err(_), None) => return Ok(root),
            }
            Ok(build(commit, entries, depth))
        }
        Node::Branch(ways, count) => {
            let slot = way(key, depth);
            let below = ways[slot].unwrap_or(Root::EMPTY);
            let before = Maps { graph, commit: Some(commit) }.count(below)?;
            let changed = change(graph, commit, below, key, event, depth + 1)?;
            if changed == below {
                return Ok(root);
            }
            let after = Maps { graph, commit: Some(commit) }.count(changed)?;
            let count = count + after - before;
            let mut ways = ways.clone();
            ways[slot] = (changed != Root::EMPTY).then_some(changed);
            if count <= LEAF as u64 {
                // Small enough to be a leaf again: the shape must not remember that it was larger.
                let mut entries = Vec::new();
                let maps = Maps { graph, commit: Some(commit) };
                for root in ways.iter().flatten() {
                    maps.collect(*root, &mut entries)?;
                }
                return Ok(build(commit, entries, depth));
            }
            Ok(store(commit, Node::Branch(ways, count)))
        }
    }
}

impl Graph {
    /// The event at `key` in the map `root`.
    pub fn state_get(&self, root: Root, key: StateKeyNum) -> Result<Option<EventNum>, Error> {
        Maps { graph: self, commit: None }.get(root, key)
    }

    /// The same, seeing what `commit` has built so far.
    pub fn state_get_in(
        &self,
        commit: &Commit,
        root: Root,
        key: StateKeyNum,
    ) -> Result<Option<EventNum>, Error> {
        Maps { graph: self, commit: Some(commit) }.get(root, key)
    }

    /// The map `root` with `key` set to `event` (or without `key`). O(log n).
    pub fn state_set(
        &self,
        commit: &mut Commit,
        root: Root,
        key: StateKeyNum,
        event: Option<EventNum>,
    ) -> Result<Root, Error> {
        change(self, commit, root, key, event, 0)
    }

    /// A map of these entries (no key twice).
    pub fn state_build(&self, commit: &mut Commit, entries: Vec<(StateKeyNum, EventNum)>) -> Root {
        build(commit, entries, 0)
    }

    /// Everything in the map, in no particular order.
    pub fn state_entries(&self, root: Root) -> Result<Vec<(StateKeyNum, EventNum)>, Error> {
        let mut out = Vec::new();
        Maps { graph: self, commit: None }.collect(root, &mut out)?;
        Ok(out)
    }

    /// The same, seeing what `commit` has built so far.
    pub fn state_entries_in(
        &self,
        commit: &Commit,
        root: Root,
    ) -> Result<Vec<(StateKeyNum, EventNum)>, Error> {
        let mut out = Vec::new();
        Maps { graph: self, commit: Some(commit) }.collect(root, &mut out)?;
        Ok(out)
    }

    /// How many entries the map has.
    pub fn state_len(&self, root: Root) -> Result<u64, Error> {
        Maps { graph: self, commit: None }.count(root)
    }

    /// Where two maps differ. O(difference).
    pub fn state_diff(&self, before: Root, after: Root) -> Result<Vec<Change>, Error> {
        let mut out = Vec::new();
        Maps { graph: self, commit: None }.diff(before, after, &mut out)?;
        Ok(out)
    }

    /// Where two maps differ, seeing what `commit` has built so far.
    pub fn state_diff_in(&self, commit: &Commit, before: Root, after: Root) -> Result<Vec<Change>, Error> {
        let mut out = Vec::new();
        Maps { graph: self, commit: Some(commit) }.diff(before, after, &mut out)?;
        Ok(out)
    }
}
