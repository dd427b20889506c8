//! Every key and value of every family: what is written is read back, keys keep their order, none is another's
//! beginning, and damaged bytes are an error and nothing worse.
#![allow(clippy::unwrap_used)]

use crate::{
    codec::{Bytes, Decode, Encode, Json, Raw},
    event::{
        EventLinks, EventRecord, Membership, MembershipKind, PartialRoom, Receipt, RoomHead, RoomRecord,
    },
    ids::{ChainNum, EventNum, Pos, RoomNum, Root, Seq, ServerNum, StateKeyNum, TypeNum, UserNum},
    log::{LogEntry, LogRecord},
    schema::{self, Family},
};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::Value;
use std::{cmp::Ordering, fmt::Debug};

/// A type with values to try.
pub(crate) trait Sample: Encode + Decode + Debug + PartialEq + 'static {
    fn sample() -> BoxedStrategy<Self>;
}

/// A part of a key: how it is ordered.
pub(crate) trait Ordered: Sample {
    fn order(&self, other: &Self) -> Ordering;
}

fn in_order<T: Ord>(a: &T, b: &T) -> Ordering {
    a.cmp(b)
}

macro_rules! samples {
    ($($type:ty: $strategy:expr;)*) => {$(
        impl Sample for $type {
            fn sample() -> BoxedStrategy<Self> { $strategy.boxed() }
        }
    )*};
}
macro_rules! ordered {
    ($($type:ty),*) => {$(
        impl Ordered for $type {
            fn order(&self, other: &Self) -> Ordering { in_order(self, other) }
        }
    )*};
}

/// Numbers close to each other, close to the ends, and anywhere.
fn number() -> BoxedStrategy<u64> {
    prop_oneof![0..4_u64, 250..260_u64, any::<u64>(), Just(u64::MAX)].boxed()
}

fn text() -> BoxedStrategy<String> {
    prop_oneof![Just(String::new()), "[ab]{0,3}", "\\PC{0,12}", "[\\x00-\\x7f]{0,6}"].boxed()
}

fn json() -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((text(), inner), 0..4).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
    .boxed()
}

fn pair<A: Sample, B: Sample>() -> BoxedStrategy<(A, B)> {
    (A::sample(), B::sample()).boxed()
}

samples! {
    u8: any::<u8>();
    u32: prop_oneof![0..4_u32, any::<u32>()];
    u64: number();
    bool: any::<bool>();
    (): Just(());
    Vec<u64>: vec(number(), 0..5);
    [u8; 32]: any::<[u8; 32]>();
    String: text();
    Raw: vec(any::<u8>(), 0..40).prop_map(Raw);
    Json<Value>: json().prop_map(Json);
    EventNum: number().prop_map(EventNum);
    RoomNum: number().prop_map(RoomNum);
    UserNum: number().prop_map(UserNum);
    TypeNum: number().prop_map(TypeNum);
    ServerNum: number().prop_map(ServerNum);
    ChainNum: number().prop_map(ChainNum);
    // Zero stands for none.
    StateKeyNum: (1..=u64::MAX).prop_map(StateKeyNum);
    Root: any::<[u8; 16]>().prop_map(Root);
    // The greatest are placeholders, which only a commit can write.
    Seq: number().prop_map(|n| Seq(n >> 1));
    Pos: prop_oneof![0..4_i64, 0..i64::MAX, i64::MIN..=Pos::BACKFILL.0].prop_map(Pos);
    Option<EventNum>: prop::option::of((1..=u64::MAX).prop_map(EventNum));
    Option<StateKeyNum>: prop::option::of(StateKeyNum::sample());
    MembershipKind: prop::sample::select(MembershipKind::ALL.to_vec());
    EventLinks: (vec(EventNum::sample(), 0..5), vec(EventNum::sample(), 0..5))
        .prop_map(|(prev, auth)| EventLinks { prev, auth });
    Membership: (MembershipKind::sample(), EventNum::sample(), Pos::sample(), UserNum::sample())
        .prop_map(|(kind, event, since, sender)| Membership { kind, event, since, sender });
    RoomHead: (Root::sample(), vec(EventNum::sample(), 0..5), number(), prop::option::of(Pos::sample()))
        .prop_map(|(state, extremities, depth, latest)| RoomHead { state, extremities, depth, latest });
    EventRecord: (
        (RoomNum::sample(), Pos::sample(), number(), number(), UserNum::sample(), TypeNum::sample()),
        (Option::<StateKeyNum>::sample(), any::<u8>(), Option::<EventNum>::sample()),
        (Root::sample(), prop::option::of(Root::sample())),
    )
        .prop_map(|((room, pos, depth, origin_ts, sender, kind), (state_key, flags, redacted_by), roots)| {
            let (state_before, state_after) = (roots.0, roots.1.unwrap_or(roots.0));
            EventRecord {
                room, pos, depth, origin_ts, sender, kind, state_key, flags, redacted_by, state_before, state_after,
            }
        });
    Json<RoomRecord>: (text(), prop::option::of(EventNum::sample()), prop::option::of(text()), any::<bool>())
        .prop_map(|(version, create, room_type, federate)| {
            Json(RoomRecord { version, create, room_type, federate })
        });
    Json<PartialRoom>: (EventNum::sample(), vec(text(), 0..4), text(), any::<bool>()).prop_map(
        |(join, servers, told_by, given_up)| Json(PartialRoom { join, servers, told_by, given_up })
    );
    Json<Receipt>: (text(), Pos::sample(), number())
        .prop_map(|(event_id, pos, ts)| Json(Receipt { event_id, pos, ts }));
    LogRecord: vec(entry(), 0..6).prop_map(|entries| LogRecord { entries });
}

fn entry() -> BoxedStrategy<LogEntry> {
    let ids = || (RoomNum::sample(), UserNum::sample());
    prop_oneof![
        (ids(), EventNum::sample(), Pos::sample(), Option::<StateKeyNum>::sample()).prop_map(
            |((room, sender), event, pos, state_key)| LogEntry::Event { room, event, pos, sender, state_key }
        ),
        ids().prop_map(|(room, user)| LogEntry::Membership { user, room }),
        (ids(), any::<bool>()).prop_map(|((room, user), private)| LogEntry::Receipt { room, user, private }),
        ids().prop_map(|(room, user)| LogEntry::AccountData { user, room }),
        (UserNum::sample(), text()).prop_map(|(user, device)| LogEntry::ToDevice { user, device }),
        UserNum::sample().prop_map(|user| LogEntry::DeviceList { user }),
        (UserNum::sample(), text()).prop_map(|(user, device)| LogEntry::KeyCounts { user, device }),
        UserNum::sample().prop_map(|user| LogEntry::Presence { user }),
        UserNum::sample().prop_map(|user| LogEntry::Profile { user }),
        RoomNum::sample().prop_map(|room| LogEntry::RoomState { room }),
        ServerNum::sample().prop_map(|server| LogEntry::Outbox { server }),
    ]
    .boxed()
}

ordered!(u8, u32, u64, [u8; 32], EventNum, RoomNum, UserNum, ServerNum, ChainNum, Seq, Pos, Root);

/// Text is ordered by its bytes, except that the end of a text comes after everything.
impl Ordered for String {
    fn order(&self, other: &Self) -> Ordering {
        let ended = |text: &Self| -> Vec<u16> { text.bytes().map(u16::from).chain([u16::MAX]).collect() };
        ended(self).cmp(&ended(other))
    }
}

macro_rules! tuples {
    ($($name:ident $n:tt),+) => {
        impl<$($name: Sample),+> Sample for ($($name,)+) {
            fn sample() -> BoxedStrategy<Self> { ($($name::sample(),)+).boxed() }
        }
        impl<$($name: Ordered),+> Ordered for ($($name,)+) {
            fn order(&self, other: &Self) -> Ordering {
                Ordering::Equal$(.then_with(|| self.$n.order(&other.$n)))+
            }
        }
    };
}
tuples!(A 0);
tuples!(A 0, B 1);
tuples!(A 0, B 1, C 2);
tuples!(A 0, B 1, C 2, D 3);
tuples!(A 0, B 1, C 2, D 3, E 4);

/// Checks keys and values of one family.
pub(crate) fn check<F: Family>()
where
    F::Key: Ordered,
    F::Value: Sample,
{
    let mut runner = TestRunner::new(Config { cases: 100, failure_persistence: None, ..Config::default() });
    let keys = runner.run(&pair::<F::Key, F::Key>(), |(a, b)| {
        let (left, right) = (read_back(&a)?, read_back(&b)?);
        prop_assert_eq!(left.cmp(&right), a.order(&b), "{:?} and {:?}", a, b);
        prop_assert!(left == right || !right.starts_with(&left), "{:?} is where {:?} begins", a, b);
        Ok(())
    });
    let values = runner.run(&(F::Value::sample(), vec(any::<u8>(), 0..64)), |(value, noise)| {
        let bytes = read_back(&value)?;
        // Cut short, or anything at all: an error or a value, and an end.
        for end in 0..bytes.len() {
            let _ = F::Value::whole(&bytes[..end]);
        }
        let _ = F::Value::whole(&noise);
        let _ = F::Key::whole(&noise);
        Ok(())
    });
    for result in [keys.map_err(|e| e.to_string()), values.map_err(|e| e.to_string())] {
        assert!(result.is_ok(), "family {}: {}", F::NAME, result.unwrap_err());
    }
}

fn read_back<T: Sample>(value: &T) -> Result<Vec<u8>, TestCaseError> {
    let bytes = Bytes::of(value);
    prop_assert!(bytes.stamps.is_empty(), "{:?} is taken for a placeholder", value);
    let back =
        T::whole(&bytes.data).map_err(|damaged| TestCaseError::fail(format!("{value:?}: {damaged}")))?;
    prop_assert_eq!(&back, value);
    Ok(bytes.data)
}

#[test]
fn every_family_reads_back_what_it_writes_and_keeps_its_keys_in_order() {
    schema::check_encodings();
}

#[test]
fn no_two_families_share_a_name() {
    let names: std::collections::BTreeSet<_> = schema::ALL.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), schema::ALL.len());
}
