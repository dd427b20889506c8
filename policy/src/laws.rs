//! The laws of `lattice.rs`, over labels and clearances of two policies that are partly equivalent.

use std::sync::OnceLock;

use proptest::{collection::vec, prelude::*, sample::subsequence};

use crate::{
    Clearance, Label, Policies, Resolved, ResolvedClearance, TagType,
    clearance::{ALL, Grant},
    spif::Spif,
};

const NORTH: &str = r#"
name = "North"
classes = [{ name = "LOW", rank = 1 }, { name = "MIDDLE", rank = 5 }, { name = "HIGH", rank = 7 }]
tags = [
  { name = "Code", type = "RESTRICTIVE", values = ["A", "B", "C"] },
  { name = "Project", type = "RESTRICTIVE", values = ["X", "Y"] },
  { name = "Nation", type = "PERMISSIVE", values = ["N1", "N2", "N3", { name = "PAIR", members = ["N1", "N2"] }] },
  { name = "Role", type = "PERMISSIVE", values = ["R1", "R2"] },
  { name = "Note", type = "INFORMATIVE", values = ["I1", "I2"] },
]
[[equivalences]]
policy = "South"
access = true
requires = ["Nation"]
classes = { LOW = "OPEN", MIDDLE = "SHUT", HIGH = "SHUT" }
tags = { Nation = "People", Code = "Key" }
values = { Nation = { N1 = "P1", PAIR = "P2" }, Code = { A = "K1" } }
discard = [{ tag = "Code", value = "B" }]
"#;

const SOUTH: &str = r#"
name = "South"
classes = [{ name = "OPEN", rank = 0 }, { name = "SHUT", rank = 1 }]
tags = [
  { name = "Key", type = "RESTRICTIVE", values = ["K1", "K2"] },
  { name = "People", type = "PERMISSIVE", values = ["P1", "P2", "P3"] },
]
[[equivalences]]
policy = "North"
access = true
classes = { OPEN = "LOW", SHUT = "HIGH" }
tags = { People = "Nation" }
values = { People = { P1 = "N1", P2 = "N2" } }
"#;

fn policies() -> &'static Policies {
    static POLICIES: OnceLock<Policies> = OnceLock::new();
    POLICIES.get_or_init(|| {
        Policies::new(vec![Spif::from_toml(NORTH).unwrap(), Spif::from_toml(SOUTH).unwrap()]).unwrap()
    })
}

/// A label of one policy: half of the tags are missing, so that many labels are comparable.
fn one_label(spif: &'static Spif) -> impl Strategy<Value = Label> {
    let class = 0..spif.classes.len();
    let tags: Vec<_> =
        spif.tags.iter().map(|tag| (any::<bool>(), subsequence(&tag.values, 0..=tag.values.len()))).collect();
    (class, tags, prop::bool::weighted(0.1)).prop_map(|(class, tags, only)| {
        let mut label = Label::new(&spif.name, &spif.classes[class].name).unwrap();
        for (tag, (there, values)) in spif.tags.iter().zip(tags) {
            if there {
                label =
                    label.with(&tag.name, tag.kind, values.iter().map(|value| value.name.as_str())).unwrap();
            }
        }
        label.for_originator_only(only)
    })
}

fn spif(name: &str) -> &'static Spif {
    policies().spif(name).unwrap()
}

/// Labels with and without an equivalent one, of those that resolve; sometimes none at all.
fn label() -> impl Strategy<Value = Option<Label>> {
    let both = (one_label(spif("North")), one_label(spif("South")));
    let labels = (both, 0..9).prop_filter_map("an equivalent label is too low", |((north, south), which)| {
        let label = match which {
            0 => return Some(None),
            1..=3 => north,
            4..=5 => south,
            6..=7 => north.with_alternative(south).unwrap(),
            _ => south.with_alternative(north).unwrap(),
        };
        policies().resolve(&label).is_ok().then_some(Some(label))
    });
    labels.no_shrink()
}

fn resolved() -> impl Strategy<Value = Resolved> {
    label().prop_map(|label| policies().resolve_if_any(label.as_ref()).unwrap())
}

/// A grant that holds at most so many values of each permissive tag.
fn grant(spif: &'static Spif, most: usize) -> impl Strategy<Value = Grant> {
    let held: Vec<_> = spif
        .tags
        .iter()
        .map(|tag| {
            let most = if tag.kind == TagType::Permissive { most } else { usize::MAX };
            subsequence(&tag.values, 0..=tag.values.len().min(most))
        })
        .collect();
    (0..spif.classes.len(), held).prop_map(|(class, held)| {
        let mut grant = Grant::new(&spif.name, &spif.classes[class].name).unwrap();
        for (tag, values) in spif.tags.iter().zip(held) {
            grant = grant.holding(&tag.name, values.iter().map(|value| value.name.as_str())).unwrap();
        }
        grant
    })
}

fn of_grants(grants: impl IntoIterator<Item = Grant>) -> ResolvedClearance {
    let clearance = grants.into_iter().fold(Clearance::none(), |all, grant| all.with(grant).unwrap());
    policies().resolve_clearance(&clearance).unwrap()
}

fn cleared() -> impl Strategy<Value = ResolvedClearance> {
    let grants =
        (proptest::option::of(grant(spif("North"), 9)), proptest::option::of(grant(spif("South"), 9)));
    grants.prop_map(|(north, south)| of_grants(north.into_iter().chain(south)))
}

fn one_policy(most: usize) -> impl Strategy<Value = ResolvedClearance> {
    grant(spif("North"), most).prop_map(|grant| of_grants([grant]))
}

/// Equal up to informative values.
fn same_access(a: &Resolved, b: &Resolved) -> bool {
    let plain = |label: &Resolved| {
        let mut label = label.clone();
        label.forms.iter_mut().flatten().for_each(|form| form.informative = Default::default());
        label
    };
    plain(a) == plain(b)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn at_most_is_an_order_up_to_informative_values(a in resolved(), b in resolved(), c in resolved()) {
        prop_assert!(a.at_most(&a));
        prop_assert!(policies().unlabelled().at_most(&a));
        prop_assert!(!(a.at_most(&b) && b.at_most(&c)) || a.at_most(&c));
        prop_assert_eq!(a.at_most(&b) && b.at_most(&a), same_access(&a, &b));
        // Random labels are seldom ordered, these are.
        let (ab, abc) = (a.join(&b), a.join(&b).join(&c));
        prop_assert!(a.at_most(&ab) && ab.at_most(&abc) && a.at_most(&abc));
    }

    #[test]
    fn join_is_the_least_upper_bound(a in resolved(), b in resolved(), c in resolved()) {
        prop_assert_eq!(a.join(&b).join(&c), a.join(&b.join(&c)));
        prop_assert_eq!(a.join(&b), b.join(&a));
        prop_assert_eq!(a.join(&a), a.clone());
        prop_assert_eq!(a.join(&policies().unlabelled()), a.clone());
        let bound = a.join(&c);
        prop_assert_eq!(a.at_most(&c) && b.at_most(&c), a.join(&b).at_most(&c));
        prop_assert_eq!(a.at_most(&bound) && b.at_most(&bound), a.join(&b).at_most(&bound));
        prop_assert_eq!(a.at_most(&b), same_access(&a.join(&b), &b));
    }

    #[test]
    fn meet_is_associative_commutative_and_idempotent(c in cleared(), d in cleared(), e in cleared()) {
        prop_assert_eq!(c.meet(&d).meet(&e), c.meet(&d.meet(&e)));
        prop_assert_eq!(c.meet(&d), d.meet(&c));
        prop_assert_eq!(c.meet(&c), c.clone());
    }

    #[test]
    fn what_is_released_at_a_label_is_released_at_a_lower_one(a in resolved(), b in resolved(), c in cleared()) {
        let b = a.join(&b);
        prop_assert!(!c.dominates(&b) || c.dominates(&a));
    }

    #[test]
    fn who_may_see_what_is_made_of_two_may_see_both(a in resolved(), b in resolved(), c in cleared(), one in one_policy(1)) {
        prop_assert!(!c.dominates(&a.join(&b)) || c.dominates(&a) && c.dominates(&b));
        prop_assert_eq!(one.dominates(&a.join(&b)), one.dominates(&a) && one.dominates(&b));
    }

    #[test]
    fn what_two_holders_together_may_see_each_of_them_may_see(
        l in resolved(), c in cleared(), d in cleared(), one in one_policy(9), class in 0usize..3, codes in vec(any::<bool>(), 3),
    ) {
        prop_assert!(!c.meet(&d).dominates(&l) || c.dominates(&l) && d.dominates(&l));
        let north = spif("North");
        let codes = ["A", "B", "C"].into_iter().zip(codes).filter(|(_, held)| *held).map(|(code, _)| code);
        let all = Grant::new("North", &north.classes[class].name).unwrap();
        let all = all.holding("Nation", [ALL]).unwrap().holding("Role", [ALL]).unwrap().holding("Code", codes).unwrap();
        let all = of_grants([all]);
        prop_assert_eq!(all.meet(&one).dominates(&l), all.dominates(&l) && one.dominates(&l));
    }

    #[test]
    fn what_is_for_its_originator_only_nobody_dominates(a in one_label(spif("North")), c in cleared()) {
        let label = policies().resolve(&a.for_originator_only(true)).unwrap();
        prop_assert!(label.is_originator_only());
        prop_assert!(!c.dominates(&label));
        let explained = policies().explain(&c, &label);
        prop_assert!(!explained.holds());
    }

    #[test]
    fn an_explanation_agrees_with_the_decision(a in label(), b in label(), c in cleared()) {
        let (x, y) = (policies().resolve_if_any(a.as_ref()).unwrap(), policies().resolve_if_any(b.as_ref()).unwrap());
        prop_assert_eq!(policies().explain(&c, &x).holds(), c.dominates(&x));
        prop_assert_ne!(policies().explain(&c, &x), crate::Dominance::Fails(Vec::new()));
        let at_most = policies().label_at_most(a.as_ref(), b.as_ref()).unwrap();
        prop_assert_eq!(at_most.holds(), x.at_most(&y));
        prop_assert_ne!(at_most, crate::Dominance::Fails(Vec::new()));
    }

    #[test]
    fn a_label_is_written_back_from_what_it_resolves_to(a in label()) {
        if let Some(label) = a {
            let resolved = policies().resolve(&label).unwrap();
            prop_assert_eq!(policies().resolve(&policies().label_of(&resolved).unwrap()).unwrap(), resolved);
        }
    }

    #[test]
    fn a_joined_label_lets_nobody_in_whom_its_parts_kept_out(a in label(), b in label(), c in cleared()) {
        let labels: Vec<Label> = a.into_iter().chain(b).collect();
        if let Ok(Some(joined)) = policies().join(&labels) {
            let joined = policies().resolve(&joined).unwrap();
            let each = labels.iter().all(|label| c.dominates(&policies().resolve(label).unwrap()));
            prop_assert!(!c.dominates(&joined) || each);
        }
    }

    #[test]
    fn a_label_is_read_back_from_its_text_and_its_json(a in label()) {
        if let Some(label) = a {
            let text = policies().format_label(&label).unwrap();
            prop_assert_eq!(&policies().parse_label(&text).unwrap(), &label, "{}", text);
            prop_assert_eq!(Label::from_json(&label.to_json()).unwrap(), label);
        }
    }
}

/// `cargo test -p postern-policy --release -- --ignored --nocapture`: what a decision costs.
#[test]
#[ignore = "prints a time"]
fn a_decision_takes_nanoseconds() {
    let policies = Policies::presets().unwrap();
    let label = policies.parse_label("US TOP SECRET//SI, TK//ORCON//REL TO USA, FVEY").unwrap();
    let holder =
        policies.parse_clearance("US TOP SECRET//SI, TK, HCS//REL TO USA; NATO SECRET//ATOMAL").unwrap();
    let (resolved, cleared) =
        (policies.resolve(&label).unwrap(), policies.resolve_clearance(&holder).unwrap());
    let time = |what: &str, rounds: u32, work: &dyn Fn()| {
        let start = std::time::Instant::now();
        (0..rounds).for_each(|_| work());
        println!("{what}: {:?}", start.elapsed() / rounds);
    };
    time("dominates", 1_000_000, &|| {
        assert!(std::hint::black_box(&cleared).dominates(std::hint::black_box(&resolved)))
    });
    time("join", 1_000_000, &|| drop(std::hint::black_box(&resolved).join(std::hint::black_box(&resolved))));
    time("meet", 1_000_000, &|| drop(std::hint::black_box(&cleared).meet(std::hint::black_box(&cleared))));
    time("resolve a label", 10_000, &|| drop(policies.resolve(&label).unwrap()));
    time("resolve a clearance", 10_000, &|| drop(policies.resolve_clearance(&holder).unwrap()));
}
