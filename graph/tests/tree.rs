//! State maps against a plain map, under random operations.
#![allow(clippy::unwrap_used)]

use postern_graph::{EventNum, Graph, Root, Settings, StateKeyNum, tree::Change};
use proptest::prelude::*;
use std::{collections::BTreeMap, sync::Arc};

type Plain = BTreeMap<StateKeyNum, EventNum>;

fn open(dir: &tempfile::TempDir) -> Arc<Graph> {
    Graph::open(&Settings { path: dir.path().join("db"), block_cache: 8 << 20 }).unwrap()
}

#[derive(Debug, Clone)]
enum Step {
    Set(u64, u64),
    Remove(u64),
    /// Goes on from an earlier version.
    Back(prop::sample::Index),
    /// Stores what there is.
    Commit,
    /// Sets many keys at once.
    Many(u64, u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = || prop_oneof![1..60_u64, 1..u64::MAX];
    prop::collection::vec(
        prop_oneof![
            8 => (key(), 1..5_u64).prop_map(|(key, event)| Step::Set(key, event)),
            6 => key().prop_map(Step::Remove),
            1 => any::<prop::sample::Index>().prop_map(Step::Back),
            1 => Just(Step::Commit),
            1 => (1..500_u64, 1..200_u64).prop_map(|(from, count)| Step::Many(from, count)),
        ],
        1..80,
    )
}

fn plain_diff(before: &Plain, after: &Plain) -> Vec<Change> {
    let mut keys: Vec<_> = before.keys().chain(after.keys()).copied().collect();
    keys.sort_unstable();
    keys.dedup();
    keys.into_iter()
        .map(|key| Change { key, before: before.get(&key).copied(), after: after.get(&key).copied() })
        .filter(|change| change.before != change.after)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_state_map_is_a_map(steps in steps(), pairs in prop::collection::vec(any::<[prop::sample::Index; 2]>(), 20)) {
        let dir = tempfile::tempdir().unwrap();
        let graph = open(&dir);
        let mut commit = graph.begin();
        let (mut root, mut plain) = (Root::EMPTY, Plain::new());
        let mut versions = vec![(root, plain.clone())];
        for step in steps {
            match step {
                Step::Set(key, event) => {
                    let (key, event) = (StateKeyNum(key), EventNum(event));
                    root = graph.state_set(&mut commit, root, key, Some(event)).unwrap();
                    plain.insert(key, event);
                }
                Step::Remove(key) => {
                    root = graph.state_set(&mut commit, root, StateKeyNum(key), None).unwrap();
                    plain.remove(&StateKeyNum(key));
                }
                Step::Back(index) => (root, plain) = index.get(&versions).clone(),
                Step::Commit => {
                    graph.commit(std::mem::replace(&mut commit, graph.begin())).unwrap();
                }
                Step::Many(from, count) => {
                    plain.extend((from..from + count).map(|key| (StateKeyNum(key), EventNum(7))));
                    for key in from..from + count {
                        root = graph.state_set(&mut commit, root, StateKeyNum(key), Some(EventNum(7))).unwrap();
                    }
                }
            }
            // The shape depends on the content alone.
            let built = graph.state_build(&mut commit, plain.iter().map(|(k, e)| (*k, *e)).collect());
            prop_assert_eq!(built, root);
            versions.push((root, plain.clone()));
        }
        for [a, b] in &pairs {
            let ((a, before), (b, after)) = (a.get(&versions), b.get(&versions));
            let mut diff = graph.state_diff_in(&commit, *a, *b).unwrap();
            diff.sort_unstable();
            prop_assert_eq!(diff, plain_diff(before, after));
            prop_assert_eq!(a == b, before == after);
        }
        graph.commit(commit).unwrap();
        drop(graph);
        // Again from the disk alone.
        let graph = open(&dir);
        for (root, plain) in &versions {
            let mut entries = graph.state_entries(*root).unwrap();
            entries.sort_unstable();
            prop_assert_eq!(entries, plain.iter().map(|(k, e)| (*k, *e)).collect::<Vec<_>>());
            prop_assert_eq!(graph.state_len(*root).unwrap(), plain.len() as u64);
            for key in (1..80).map(StateKeyNum) {
                prop_assert_eq!(graph.state_get(*root, key).unwrap(), plain.get(&key).copied());
            }
        }
        for [a, b] in &pairs {
            let ((a, before), (b, after)) = (a.get(&versions), b.get(&versions));
            let mut diff = graph.state_diff(*a, *b).unwrap();
            diff.sort_unstable();
            prop_assert_eq!(diff, plain_diff(before, after));
        }
    }
}
