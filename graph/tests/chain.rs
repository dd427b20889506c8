//! The chain cover against the plain definition, on random auth graphs.
#![allow(clippy::unwrap_used)]

use postern_graph::{EventNum, Graph, Settings, event::EventLinks, ids::StateKeyNum, schema::Links};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

fn open(dir: &tempfile::TempDir) -> Arc<Graph> {
    Graph::open(&Settings { path: dir.path().join("db"), block_cache: 8 << 20 }).unwrap()
}

type Auth = BTreeMap<EventNum, Vec<EventNum>>;

/// The events and everything in their auth chains, as the specification defines it.
fn closure(auth: &Auth, events: &[EventNum]) -> BTreeSet<EventNum> {
    let mut seen = BTreeSet::new();
    let mut waiting = events.to_vec();
    while let Some(event) = waiting.pop() {
        if seen.insert(event) {
            waiting.extend(&auth[&event]);
        }
    }
    seen
}

fn plain_difference(auth: &Auth, sets: &[Vec<EventNum>]) -> Vec<EventNum> {
    let chains: Vec<_> = sets.iter().map(|set| closure(auth, set)).collect();
    let any: BTreeSet<_> = chains.iter().flatten().copied().collect();
    any.into_iter().filter(|event| !chains.iter().all(|chain| chain.contains(event))).collect()
}

/// A graph of up to 60 events; each names up to four earlier ones, mostly recent.
fn auth_graph() -> impl Strategy<Value = Auth> {
    prop::collection::vec(prop::collection::vec((0.0..1.0_f64, any::<bool>()), 0..5), 1..60).prop_map(
        |events| {
            let mut auth = Auth::new();
            for (n, picks) in events.into_iter().enumerate() {
                let named: BTreeSet<u64> = picks
                    .into_iter()
                    .filter(|_| n > 0)
                    .map(|(pick, recent)| {
                        let width = if recent { n.min(6) } else { n };
                        (n - 1 - (pick * width as f64) as usize) as u64 + 1
                    })
                    .collect();
                auth.insert(EventNum(n as u64 + 1), named.into_iter().map(EventNum).collect());
            }
            auth
        },
    )
}

fn store_links(graph: &Graph, auth: &Auth) {
    let mut commit = graph.begin();
    for (event, auth) in auth {
        commit.put::<Links>(&(*event,), &EventLinks { prev: Vec::new(), auth: auth.clone() });
    }
    graph.commit(commit).unwrap();
}

fn pick(auth: &Auth, at: &[prop::sample::Index]) -> Vec<EventNum> {
    at.iter().map(|index| EventNum(index.index(auth.len()) as u64 + 1)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_cover_agrees_with_the_definition(
        auth in auth_graph(),
        // How many events each commit adds, and whether an event is left out of the cover.
        per_commit in 1_usize..20,
        left_out in prop::collection::vec(prop::bool::weighted(0.2), 60),
        sets in prop::collection::vec(
            prop::collection::vec(
                prop::collection::vec(any::<prop::sample::Index>(), 0..6), 0..4), 1..12),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let graph = open(&dir);
        store_links(&graph, &auth);
        let mut commit = graph.begin();
        for (n, (event, named)) in auth.iter().enumerate() {
            if left_out[n] {
                continue;
            }
            graph.chain_add(&mut commit, *event, named).unwrap();
            graph.chain_add(&mut commit, *event, named).unwrap();
            if n % per_commit == 0 {
                graph.commit(std::mem::replace(&mut commit, graph.begin())).unwrap();
            }
        }
        // Once with the last events only in the commit, once with everything stored.
        let sets: Vec<Vec<Vec<EventNum>>> =
            sets.iter().map(|sets| sets.iter().map(|set| pick(&auth, set)).collect()).collect();
        for sets in &sets {
            prop_assert_eq!(
                graph.auth_difference_in(&commit, sets).unwrap(), plain_difference(&auth, sets));
        }
        graph.commit(commit).unwrap();
        for sets in &sets {
            prop_assert_eq!(graph.auth_difference(sets).unwrap(), plain_difference(&auth, sets));
        }
        for of in auth.keys() {
            let chain = closure(&auth, &auth[of]);
            for candidate in auth.keys() {
                prop_assert_eq!(graph.in_auth_chain(*of, *candidate).unwrap(), chain.contains(candidate));
            }
        }
    }

    #[test]
    fn with_the_conflicted_events_the_difference_of_states_is_exact(
        auth in auth_graph(),
        states in prop::collection::vec(
            prop::collection::btree_map(1_u64..12, any::<prop::sample::Index>(), 0..12), 1..4),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let graph = open(&dir);
        store_links(&graph, &auth);
        let mut commit = graph.begin();
        let mut roots = Vec::new();
        let mut sets = Vec::new();
        for state in &states {
            let entries: Vec<_> = state
                .iter()
                .map(|(key, at)| (StateKeyNum(*key), EventNum(at.index(auth.len()) as u64 + 1)))
                .collect();
            sets.push(entries.iter().map(|(_, event)| *event).collect::<Vec<_>>());
            roots.push(graph.state_build(&mut commit, entries));
        }
        // In conflict: the keys at which not all states have the same event.
        let at = |state: usize, key: u64| {
            states[state].get(&key).map(|at| EventNum(at.index(auth.len()) as u64 + 1))
        };
        let conflicted: BTreeSet<EventNum> = (1..12)
            .filter(|key| (1..states.len()).any(|state| at(state, *key) != at(0, *key)))
            .flat_map(|key| (0..states.len()).filter_map(move |state| at(state, key)))
            .collect();
        let found: BTreeSet<_> =
            graph.auth_difference_of_states(&commit, &roots).unwrap().into_iter().collect();
        let plain: BTreeSet<_> = plain_difference(&auth, &sets).into_iter().collect();
        prop_assert_eq!(&found | &conflicted, &plain | &conflicted);
    }
}

#[test]
fn an_event_whose_auth_events_are_unknown_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let graph = open(&dir);
    let mut commit = graph.begin();
    let error = graph.chain_add(&mut commit, EventNum(2), &[EventNum(1)]).unwrap_err();
    assert!(error.to_string().contains("auth events of event 1 is missing"), "{error}");
    assert!(commit.is_empty());
}

#[test]
fn what_sets_share_is_not_walked_however_long_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let graph = open(&dir);
    let mut commit = graph.begin();
    // A create event, and two thousand power levels each by a member of its own.
    graph.chain_add(&mut commit, EventNum(1), &[]).unwrap();
    let mut power = EventNum(1);
    for n in 0..2000 {
        let member = EventNum(2 * n + 2);
        graph.chain_add(&mut commit, member, &[EventNum(1), power]).unwrap();
        let next = EventNum(2 * n + 3);
        graph.chain_add(&mut commit, next, &[EventNum(1), power, member]).unwrap();
        power = next;
    }
    graph.commit(commit).unwrap();
    let started = std::time::Instant::now();
    for _ in 0..100 {
        let difference = graph.auth_difference(&[vec![power], vec![EventNum(power.0 - 2)]]).unwrap();
        assert_eq!(difference, [EventNum(power.0 - 1), power]);
    }
    // Four thousand events a hundred times over would take far longer than this, on any machine.
    assert!(started.elapsed() < std::time::Duration::from_secs(1), "{:?}", started.elapsed());
}
