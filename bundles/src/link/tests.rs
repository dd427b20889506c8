use super::*;
use crate::keys::{SecretKey, sha256};
use proptest::prelude::*;

const LINK: LinkId = LinkId([7; 8]);
const NOW: u64 = 1_700_000_000_000;

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn roots() -> Roots {
    Roots { keys: [11, 12, 13].map(|seed| key(seed).public()).to_vec(), threshold: 2 }
}

fn link(gaps: Gaps) -> Link {
    Link::new(LINK, key(1).public(), roots(), gaps)
}

fn hash(seq: u64) -> Hash {
    if seq == 0 { Hash::default() } else { sha256(&[&seq.to_be_bytes()]) }
}

fn arrival(seq: u64) -> Arrival {
    let place = Place { link: LINK, epoch: 1, seq };
    Arrival { place, hash: hash(seq), prev: hash(seq - 1), keyframe: false, not_after: None }
}

fn keyframe(seq: u64) -> Arrival {
    Arrival { keyframe: true, ..arrival(seq) }
}

/// Imports whatever is ready.
fn import(link: &mut Link) -> Vec<u64> {
    let mut imported = Vec::new();
    while let Some(ready) = link.ready() {
        assert!(link.imported(&ready));
        imported.push(ready.place.seq);
    }
    imported
}

fn offer(link: &mut Link, arrival: &Arrival) -> Offered {
    link.offer(arrival, NOW, false)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_order_with_any_repetitions_is_imported_once_and_in_order(
        mut order in Just((1..=60_u64).collect::<Vec<_>>()).prop_shuffle(),
        repeated in proptest::collection::vec(1..=60_u64, 0..60),
        crashes in proptest::collection::vec(any::<bool>(), 120),
    ) {
        for (at, seq) in repeated.into_iter().enumerate() {
            order.insert(at * 2 % order.len(), seq);
        }
        let (mut link, mut imported) = (link(Gaps::Wait), Vec::new());
        for (seq, crash) in order.into_iter().zip(crashes) {
            let offered = offer(&mut link, &arrival(seq));
            prop_assert!(matches!(offered, Offered::Ready | Offered::Parked { .. } | Offered::Duplicate), "{offered:?}");
            imported.extend(import(&mut link));
            if crash {
                link = serde_json::from_str(&serde_json::to_string(&link).unwrap()).unwrap();
            }
        }
        prop_assert_eq!(imported, (1..=60).collect::<Vec<_>>());
        prop_assert_eq!(link.missing(), vec![]);
    }

    #[test]
    fn what_is_said_to_be_missing_is_exactly_that(arrived in proptest::collection::btree_set(1..100_u64, 1..60), keyframes: bool) {
        let mut link = link(if keyframes { Gaps::PassOver } else { Gaps::Wait });
        let mut imported = Vec::new();
        for seq in &arrived {
            let arrival = if seq % 10 == 0 { keyframe(*seq) } else { arrival(*seq) };
            offer(&mut link, &arrival);
            imported.extend(import(&mut link));
        }
        let last = *arrived.last().unwrap();
        let expected: Vec<u64> = (1..=last).filter(|seq| !arrived.contains(seq)).collect();
        prop_assert_eq!(link.missing().into_iter().flatten().collect::<Vec<_>>(), expected);
        prop_assert!(imported.is_sorted());
    }
}

#[test]
fn bundles_wait_for_earlier_ones() {
    let mut link = link(Gaps::Wait);
    assert_eq!(offer(&mut link, &arrival(1)), Offered::Ready);
    assert_eq!(import(&mut link), [1]);
    assert_eq!(offer(&mut link, &arrival(4)), Offered::Parked { missing: vec![2..=3] });
    assert_eq!(import(&mut link), [0; 0]);
    assert_eq!(offer(&mut link, &arrival(3)), Offered::Parked { missing: vec![2..=2] });
    assert_eq!(offer(&mut link, &arrival(2)), Offered::Ready);
    assert_eq!(import(&mut link), [2, 3, 4]);
}

#[test]
fn a_repetition_does_nothing() {
    let mut link = link(Gaps::Wait);
    for seq in 1..=300 {
        offer(&mut link, &arrival(seq));
        import(&mut link);
    }
    let before = link.clone();
    assert_eq!(offer(&mut link, &arrival(299)), Offered::Duplicate);
    assert_eq!(offer(&mut link, &arrival(3)), Offered::Old);
    assert_eq!(link, before);
}

#[test]
fn another_bundle_for_the_same_place_freezes_the_link() {
    for parked in [false, true] {
        let mut link = link(Gaps::Wait);
        let place = if parked { 5 } else { 1 };
        offer(&mut link, &arrival(place));
        import(&mut link);
        let other = Arrival { hash: [9; 32], ..arrival(place) };
        let fork = Fork { place: other.place, known: hash(place), found: [9; 32] };
        assert_eq!(offer(&mut link, &other), Offered::Forked(fork.clone()));
        assert_eq!(offer(&mut link, &arrival(2)), Offered::Frozen(fork));
        assert_eq!(link.ready(), None);
    }
}

#[test]
fn a_bundle_that_does_not_continue_the_chain_freezes_the_link() {
    let mut next = link(Gaps::Wait);
    assert!(matches!(offer(&mut next, &Arrival { prev: [9; 32], ..arrival(1) }), Offered::Forked(_)));
    let mut before = link(Gaps::Wait);
    offer(&mut before, &arrival(3));
    assert!(matches!(offer(&mut before, &Arrival { hash: [9; 32], ..arrival(2) }), Offered::Forked(_)));
    let mut behind = link(Gaps::Wait);
    offer(&mut behind, &arrival(2));
    assert!(matches!(offer(&mut behind, &Arrival { prev: [9; 32], ..arrival(3) }), Offered::Forked(_)));
}

#[test]
fn what_has_expired_is_refused_unless_the_operator_says_otherwise() {
    let mut link = link(Gaps::Wait);
    let expired = Arrival { not_after: Some(NOW - 1), ..arrival(1) };
    assert_eq!(link.offer(&expired, NOW, false), Offered::Expired { not_after: NOW - 1 });
    assert_eq!(link.ready(), None);
    assert_eq!(link.offer(&expired, NOW, true), Offered::Ready);
}

#[test]
fn no_more_wait_than_there_is_room_for_and_the_one_that_is_due_still_comes_in() {
    let mut link = link(Gaps::Wait);
    let last = limits::PARKED as u64 + 1;
    for seq in 2..=last {
        assert!(matches!(offer(&mut link, &arrival(seq)), Offered::Parked { .. }));
    }
    assert_eq!(offer(&mut link, &arrival(last + 1)), Offered::Full);
    assert_eq!(offer(&mut link, &arrival(1)), Offered::Ready);
    assert_eq!(import(&mut link).len() as u64, last);
}

#[test]
fn what_waited_for_thirty_days_is_dropped_and_missing_again() {
    let mut link = link(Gaps::Wait);
    offer(&mut link, &arrival(3));
    assert_eq!(link.drop_old(NOW + limits::PARKED_MS), []);
    assert_eq!(link.drop_old(NOW + limits::PARKED_MS + 1), [arrival(3).place]);
    offer(&mut link, &arrival(4));
    assert_eq!(link.missing(), [1..=3]);
}

#[test]
fn without_a_way_back_a_keyframe_ends_a_gap() {
    let mut link = link(Gaps::PassOver);
    offer(&mut link, &arrival(1));
    import(&mut link);
    // Bundles of thirty days are lost but for two.
    assert!(matches!(offer(&mut link, &arrival(20)), Offered::Parked { .. }));
    assert_eq!(offer(&mut link, &keyframe(31)), Offered::Ready);
    assert_eq!(link.ready().map(|ready| ready.passed_over), Some(Some(2..=19)));
    assert_eq!(import(&mut link), [20, 31]);
    assert_eq!(link.missing(), [2..=19, 21..=30]);
    // What was found late is imported, and no longer missing.
    assert_eq!(offer(&mut link, &arrival(10)), Offered::Ready);
    assert!(link.ready().is_some_and(|ready| ready.late));
    assert_eq!(import(&mut link), [10]);
    assert_eq!(link.missing(), [2..=9, 11..=19, 21..=30]);
    assert_eq!(offer(&mut link, &arrival(10)), Offered::Duplicate);
    // It must continue the chain all the same.
    assert!(matches!(offer(&mut link, &Arrival { hash: [9; 32], ..arrival(30) }), Offered::Forked(_)));
}

#[test]
fn with_a_way_back_a_keyframe_waits() {
    let mut link = link(Gaps::Wait);
    assert_eq!(offer(&mut link, &keyframe(3)), Offered::Parked { missing: vec![1..=2] });
    assert_eq!(link.ready(), None);
}

#[test]
fn a_keyframe_comes_in_though_nothing_else_may_wait() {
    let mut link = link(Gaps::PassOver);
    for seq in 2..=limits::PARKED as u64 + 1 {
        offer(&mut link, &arrival(seq));
    }
    assert_eq!(offer(&mut link, &keyframe(5_000)), Offered::Ready);
    assert_eq!(import(&mut link).len(), limits::PARKED + 1);
}

fn ceremony(outbound: &Outbound, signers: &[u8]) -> Vec<u8> {
    let ceremony = outbound.ceremony(key(2).public(), NOW, None);
    let signatures: Vec<_> = signers.iter().map(|seed| ceremony.signature(&key(*seed))).collect();
    ceremony.signed(&signatures)
}

fn outbound(made: u64) -> Outbound {
    let mut outbound = Outbound::new(LINK);
    (1..=made).for_each(|seq| outbound.made(hash(seq)));
    outbound
}

#[test]
fn an_epoch_is_opened_by_the_old_key_and_enough_roots() {
    let mut link = link(Gaps::Wait);
    for seq in 1..=2 {
        offer(&mut link, &arrival(seq));
        import(&mut link);
    }
    let outbound = outbound(2);
    assert_eq!(link.open_epoch(&ceremony(&outbound, &[11, 12])), Err(CeremonyError::NotByLink));
    for signers in [&[1][..], &[1, 11], &[1, 11, 11], &[1, 11, 99]] {
        assert_eq!(
            link.open_epoch(&ceremony(&outbound, signers)),
            Err(CeremonyError::TooFewRoots { found: signers.len().min(2) - 1, wanted: 2 })
        );
    }
    assert_eq!(link.epoch(), 1);
    let opens = ceremony(&outbound, &[1, 11, 13]);
    assert_eq!(link.open_epoch(&opens), Ok(vec![]));
    assert_eq!(link.epoch(), 2);
    // Not twice, and bundles of the old epoch are over.
    assert!(link.open_epoch(&opens).is_err());
    assert_eq!(offer(&mut link, &arrival(3)), Offered::OldEpoch { epoch: 1, current: 2 });
    let place = Place { link: LINK, epoch: 2, seq: 1 };
    let first = Arrival { place, prev: Ceremony::unverified(&opens).unwrap().hash(), ..arrival(1) };
    assert_eq!(offer(&mut link, &first), Offered::Ready);
}

#[test]
fn bundles_of_an_epoch_that_nobody_opened_are_refused() {
    let mut link = link(Gaps::Wait);
    let place = Place { link: LINK, epoch: 2, seq: 1 };
    assert_eq!(
        offer(&mut link, &Arrival { place, ..arrival(1) }),
        Offered::UnknownEpoch { epoch: 2, current: 1 }
    );
    let place = Place { link: LinkId([1; 8]), epoch: 1, seq: 1 };
    assert_eq!(offer(&mut link, &Arrival { place, ..arrival(1) }), Offered::OtherLink(place.link));
}

#[test]
fn a_ceremony_says_what_was_the_last_bundle() {
    let mut link = link(Gaps::Wait);
    offer(&mut link, &arrival(1));
    import(&mut link);
    // The one that made the ceremony sent more: that is missing for good.
    let mut ahead = link.clone();
    assert_eq!(ahead.open_epoch(&ceremony(&outbound(4), &[1, 11, 12])), Ok(vec![2..=4]));
    // Or it sent something else.
    let mut other = Outbound::new(LINK);
    other.made([9; 32]);
    assert_eq!(
        link.open_epoch(&ceremony(&other, &[1, 11, 12])),
        Err(CeremonyError::OtherHistory { last: 1 })
    );
    assert_eq!(
        link.open_epoch(&ceremony(&outbound(0), &[1, 11, 12])),
        Err(CeremonyError::OtherHistory { last: 0 })
    );
}

#[test]
fn a_ceremony_ends_a_freeze() {
    let mut link = link(Gaps::Wait);
    offer(&mut link, &arrival(1));
    import(&mut link);
    offer(&mut link, &Arrival { hash: [9; 32], ..arrival(1) });
    assert!(link.frozen().is_some());
    assert_eq!(link.open_epoch(&ceremony(&outbound(1), &[1, 11, 12])), Ok(vec![]));
    assert_eq!(link.frozen(), None);
}
