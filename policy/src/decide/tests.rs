//! What is decided, by which policies.

use super::{samples::*, *};
use cedar_policy::PolicySet;
use cedar_policy_core::{
    ast,
    authorizer::{Authorizer, Decision as CedarDecision},
    entities::{Entities, TCComputation},
    extensions::Extensions,
    validator::CoreSchema,
};
use proptest::prelude::*;
use std::{sync::Arc, time::Instant};

const BASES: [Base; 3] = [Base::Closed, Base::Peers, Base::Open];

fn stranger() -> Server {
    server("stranger.example")
}

fn labelled() -> Room {
    Room { policy: Some("NATO".into()), label: Some("NATO SECRET".into()), rank: 3, ..room() }
}

#[test]
fn the_bases_are_valid_without_warnings() {
    for base in BASES {
        assert_eq!(check(base, &[]), []);
    }
}

#[test]
fn one_enclave_works_under_every_base() {
    for set in BASES.map(|base| set(base, "")) {
        let (anna, ben) = (user("anna", &[]), user("ben", &[]));
        for action in [Action::Create, Action::Join, Action::Read] {
            assert!(set.answer(&ask(anna.clone(), action, labelled())).allowed, "{action}");
        }
        for action in [Action::Send, Action::State, Action::Read] {
            assert!(set.answer(&ask(anna.clone(), action, event(Kind::Message))).allowed, "{action}");
        }
        let mut invite = ask(anna.clone(), Action::Invite, labelled());
        assert!(!set.answer(&invite).allowed, "nobody is invited");
        invite.context.target = Some(Arc::new(ben));
        assert_eq!(set.answer(&invite).rules.first().map(String::as_str), Some("base-invite"));
        assert!(!set.answer(&ask(anna.clone(), Action::AdminPeers, (*hq()).clone())).allowed);
        let admin = User { admin: true, ..anna.clone() };
        assert!(set.answer(&ask(admin.clone(), Action::AdminPeers, (*hq()).clone())).allowed);
        assert!(set.answer(&ask(admin, Action::Export, labelled())).allowed);
        assert!(!set.answer(&ask(anna, Action::Downgrade, event(Kind::Message))).allowed);
        let bridge = Appservice { id: "irc".into(), ..Appservice::default() };
        assert!(set.answer(&ask(bridge, Action::Release, event(Kind::Message))).allowed);
    }
}

#[test]
fn what_crosses_the_boundary_is_as_the_base_says() {
    let plain = event(Kind::Message);
    let secret = Event { room: Arc::new(labelled()), ..event(Kind::Message) };
    let marked = Event { label: Some("SECRET".into()), ..event(Kind::Message) };
    //                                          closed, peers, open
    let expected = [
        (partner(), plain.clone(), [false, true, true]),
        (partner(), secret.clone(), [false, true, true]),
        (stranger(), plain, [false, false, true]),
        (stranger(), secret, [false, false, false]),
        (stranger(), marked, [false, false, false]),
    ];
    for (at, base) in BASES.into_iter().enumerate() {
        let set = set(base, "");
        for (server, event, allowed) in &expected {
            for action in [Action::Release, Action::Admit] {
                let answer = set.answer(&ask(server.clone(), action, event.clone()));
                assert_eq!(answer.allowed, allowed[at], "{base:?} {action} {} {event:?}", server.name);
            }
        }
    }
}

#[test]
fn users_of_other_servers_join_and_are_invited_as_the_base_says() {
    let foreign = |server: Server| User {
        id: format!("@x:{}", server.name),
        server: Arc::new(server),
        ..User::default()
    };
    let expected = [
        (partner(), room(), [false, true, true]),
        (partner(), labelled(), [false, true, true]),
        (stranger(), room(), [false, false, true]),
        (stranger(), labelled(), [false, false, false]),
    ];
    for (at, base) in BASES.into_iter().enumerate() {
        let set = set(base, "");
        for (server, room, allowed) in &expected {
            let join = ask(foreign(server.clone()), Action::Join, room.clone());
            assert_eq!(set.answer(&join).allowed, allowed[at], "{base:?} join {}", server.name);
            let invited = |by: User, target: User| {
                let mut invite = ask(by, Action::Invite, room.clone());
                invite.context.target = Some(Arc::new(target));
                set.answer(&invite).allowed
            };
            assert_eq!(invited(user("anna", &[]), foreign(server.clone())), allowed[at]);
            assert_eq!(invited(foreign(server.clone()), user("anna", &[])), allowed[at]);
        }
    }
}

#[test]
fn a_user_of_another_server_does_nothing_that_is_for_users_of_this_one() {
    let set = set(Base::Open, "");
    let foreign =
        User { id: "@x:b.example".into(), server: Arc::new(partner()), admin: true, ..User::default() };
    for action in [Action::Create, Action::Read, Action::Export] {
        assert!(!set.answer(&ask(foreign.clone(), action, room())).allowed, "{action}");
    }
    assert!(!set.answer(&ask(foreign.clone(), Action::Send, event(Kind::Message))).allowed);
    assert!(!set.answer(&ask(foreign, Action::AdminPolicy, (*hq()).clone())).allowed);
}

#[test]
fn a_permit_for_everything_does_not_move_the_rail() {
    let set = set(Base::Open, "permit (principal, action, resource);");
    for action in Action::RAILED {
        let mut question = ask(user("anna", &["officer"]), *action, room());
        if matches!(action, Action::Release | Action::Admit) {
            question.principal = partner().into();
        }
        question.context.dominates = false;
        let answer = set.answer(&question);
        assert_eq!((answer.allowed, answer.rules), (false, vec![format!("rail-{action}")]));
        question.context.dominates = true;
        assert!(set.answer(&question).allowed, "{action}");
    }
}

#[test]
fn what_cannot_be_evaluated_is_denied_whatever_else_permits_it() {
    let overflows = "@id(\"much\") forbid (principal, action == Action::\"release\", resource is Event)
        when { resource.size * 9223372036854775807 > 0 };";
    let answer = set(Base::Peers, overflows).answer(&ask(partner(), Action::Release, event(Kind::Message)));
    assert!(!answer.allowed);
    assert!(answer.errors[0].contains("overflow"), "{answer:?}");
}

#[test]
fn a_question_that_the_schema_does_not_have_is_denied_with_an_error() {
    let set = set(Base::Open, "permit (principal, action, resource);");
    let answer = set.answer(&ask(partner(), Action::Send, event(Kind::Message)));
    assert!(!answer.allowed);
    assert!(answer.errors[0].contains("Server"), "{answer:?}");
}

#[test]
fn what_is_said_of_the_principal_counts_where_it_is_named_again() {
    let own = "@id(\"managed\") forbid (principal is User, action == Action::\"send\", resource is Event)
        unless { resource.sender has device && resource.sender.device == Trust::\"managed\" };";
    let set = set(Base::Peers, own);
    let anna = User { device: Some(Trust::Managed), ..user("anna", &[]) };
    assert!(set.answer(&ask(anna, Action::Send, event(Kind::Message))).allowed);
    assert!(!set.answer(&ask(user("anna", &[]), Action::Send, event(Kind::Message))).allowed);
}

#[test]
fn policies_see_the_hour_the_weekday_and_classes_of_findings() {
    let context = Context { at: 1_764_000_000_000, ..Context::default() };
    // 2025-11-24T16:00:00Z, a Monday.
    assert_eq!((context.hour(), context.weekday()), (16, 1));
    let epoch = Context::default();
    assert_eq!((epoch.hour(), epoch.weekday()), (0, 4));
    let set = set(
        Base::Peers,
        "@id(\"s\") forbid (principal, action, resource) when { context.guard.contains(\"secret\") };
         @id(\"t\") forbid (principal, action, resource) when { context.guard.contains(\"secret:aws-key\") };",
    );
    let mut question = ask(partner(), Action::Release, event(Kind::Message));
    question.context.guard = ["secret:aws-key".to_owned()].into();
    assert_eq!(set.answer(&question).rules, ["s", "t"]);
    question.context.guard = ["secretly:no".to_owned()].into();
    assert!(set.answer(&question).allowed);
}

#[test]
fn policies_that_cannot_be_read_leave_the_old_in_force() {
    let decider = Decider::new(set(Base::Peers, ""));
    let question = ask(partner(), Action::Release, event(Kind::Message));
    let before = decider.revision();
    let good = text("a.cedar", "forbid (principal, action, resource);");
    let refused = decider.reload(Base::Peers, &[good.clone(), text("b.cedar", "forbid (")]).unwrap_err();
    assert_eq!(refused.0[0].file, "b.cedar");
    assert_eq!((decider.revision(), decider.decide(&question).allowed()), (before, true));
    let clone = decider.clone();
    let after = decider.reload(Base::Peers, &[good]).unwrap();
    assert_ne!(before, after);
    assert_eq!((clone.revision(), clone.decide(&question).allowed()), (after, false));
}

#[test]
fn a_candidate_answers_beside_the_policies_in_force_and_can_be_promoted() {
    let decider = Decider::new(set(Base::Peers, ""));
    let question = ask(partner(), Action::Release, event(Kind::Message));
    assert_eq!(decider.decide(&question).shadow, None);
    let candidate = decider.shadow(Some(set(Base::Closed, "")));
    let decision = decider.decide(&question);
    assert!(decision.allowed() && decision.differs());
    assert_eq!(decision.shadow.map(|shadow| shadow.revision), candidate);
    assert_eq!(decider.promote(), candidate);
    assert!(!decider.decide(&question).allowed());
    assert_eq!(decider.promote(), None);
    assert_eq!(Some(decider.revision()), candidate);
}

#[test]
fn a_change_of_policies_shows_in_what_was_recorded() {
    let (old, new) = (set(Base::Open, ""), set(Base::Peers, ""));
    let decider = Decider::new(set(Base::Open, ""));
    let questions = [partner(), stranger()].map(|to| ask(to, Action::Release, event(Kind::Message)));
    let changes = diff(&old, &new, questions.clone());
    assert_eq!(changes.len(), 1);
    assert_eq!((changes[0].index, changes[0].old.allowed, changes[0].new.allowed), (1, true, false));
    let mut recorded: Vec<_> = questions
        .iter()
        .map(|question| Recorded::new(question.clone(), &decider.decide(question)).to_line().unwrap())
        .collect();
    recorded.push(Recorded::unanswered(questions[0].clone()).to_line().unwrap());
    let recorded = recorded.iter().map(|line| Recorded::parse(line.as_bytes()).unwrap());
    let replay = replay(recorded, &new);
    assert_eq!((replay.asked, replay.unanswered), (3, 1));
    assert_eq!(replay.changes, changes);
}

#[test]
fn a_recorded_question_of_another_form_is_refused() {
    let line = Recorded::unanswered(ask(partner(), Action::Release, room())).to_line().unwrap();
    let wrong = [
        (line.replace("\"v\":1", "\"v\":2"), "version 2"),
        (line.replace("release", "relaese"), "unknown variant"),
        (line.replace("\"dominates\"", "\"dominate\""), "unknown field"),
        (line.replace("\"servers\":2", "\"servers\":-2"), "invalid value"),
    ];
    for (line, reason) in wrong {
        let error = Recorded::parse(line.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
    assert!(matches!(
        Recorded::parse(&vec![b' '; limits::LARGEST_QUESTION + 1]),
        Err(RecordError::TooLarge(_))
    ));
}

/// Cedar reads, checks and writes policies by recursion, which ends the process where the stack does.
#[test]
fn policies_are_read_and_explained_up_to_the_bounds_and_refused_beyond() {
    let deep = |n: usize| {
        [
            format!("true{}", " && true".repeat(n)),
            format!("true{}", " || true".repeat(n)),
            format!("1{} > 0", " + 1".repeat(n)),
            format!("{}true{}", "if true then ".repeat(n), " else true".repeat(n)),
            format!("context has via{}", ".via".repeat(n)),
        ]
    };
    let nested = |n: usize| {
        [
            format!("{}true{}", "(".repeat(n), ")".repeat(n)),
            format!("{}1{} == [1]", "[".repeat(n), "]".repeat(n)),
            format!("{}1{} == {{}}", "{a: ".repeat(n), "}".repeat(n)),
        ]
    };
    let build = |condition: &String| {
        let own = format!("@id(\"long\") permit (principal, action, resource) when {{ {condition} }};");
        RuleSet::build(Base::Closed, &[text("a.cedar", &own)])
    };
    let question = ask(partner(), Action::Release, event(Kind::Message));
    // One bracket is that of the condition.
    for condition in deep(limits::MOST_LINKS).iter().chain(&nested(limits::MOST_NESTED - 1)) {
        match build(condition) {
            Ok(set) => {
                let explanation = set.explain(&question);
                assert_eq!(explanation.answer, set.answer(&question));
            }
            // Of a wrong type, and so on.
            Err(refused) => assert!(!refused.to_string().contains("divide it"), "{refused}"),
        }
    }
    for condition in [1, 1_000, 20_000].into_iter().flat_map(|more| {
        deep(limits::MOST_LINKS + more).into_iter().chain(nested(limits::MOST_NESTED + more))
    }) {
        assert!(build(&condition).unwrap_err().to_string().contains("divide it"));
    }
}

/// The examples of `docs/policies.md`, and its file of cases.
mod documentation {
    use super::*;

    const PAGE: &str = include_str!("../../../docs/policies.md");

    fn blocks(language: &str) -> Vec<&'static str> {
        let fence = format!("```{language}\n");
        PAGE.split(fence.as_str()).skip(1).map(|rest| rest.split_once("```").unwrap().0).collect()
    }

    fn site() -> RuleSet {
        let own = blocks("cedar").concat();
        let set = RuleSet::build(Base::Peers, &[text("site.cedar", &own)]).unwrap();
        assert_eq!(set.warnings(), []);
        set
    }

    #[test]
    fn it_has_every_attribute_and_every_word() {
        let attributes = SCHEMA.lines().filter_map(|line| line.strip_prefix("  ")?.split_once(": "));
        let attributes = attributes.map(|(name, _)| name).filter(|name| {
            name.ends_with(|end: char| end == '?' || end.is_alphanumeric()) && !name.contains(' ')
        });
        let words = Action::ALL.iter().map(|word| word.as_str());
        let words = words.chain(Door::ALL.iter().map(|word| word.as_str()));
        let words = words.chain(Kind::ALL.iter().map(|word| word.as_str()));
        for name in attributes.chain(words) {
            assert!(PAGE.contains(&format!("`{name}`")), "{name}");
        }
    }

    #[test]
    fn its_cases_pass() {
        let set = site();
        for file in blocks("toml") {
            for result in Cases::parse(file).unwrap().run(&set) {
                assert!(result.passed(), "{result}");
            }
        }
    }

    #[test]
    fn its_recorded_question_and_its_bundle_are_read() {
        let json = blocks("json");
        let recorded = Recorded::parse(json[0].trim().as_bytes()).unwrap();
        assert!(site().answer(&recorded.question).allowed);
        let bundle = Bundle::parse(json[1].as_bytes()).unwrap();
        assert!(PAGE.contains(&bundle.digest().to_string()));
    }

    #[test]
    fn its_examples_do_what_they_say() {
        let set = site();
        let by = |question: &Question| set.answer(question).rules;
        let release = |event: Event| ask(server_of("coalition"), Action::Release, event);
        assert_eq!(by(&release(event(Kind::Message))), ["base-peer"]);
        assert_eq!(by(&release(event(Kind::Media))), ["coalition-kinds"]);

        let mut leak = release(event(Kind::Message));
        leak.context.guard = ["secret:aws-key".into()].into();
        assert_eq!(by(&leak), ["no-secrets"]);

        let mut read = ask(user("carl", &["contractor"]), Action::Read, room());
        read.context.at = 1_764_000_000_000;
        assert_eq!(by(&read), ["base-read"]);
        read.context.at += 3 * 3_600_000;
        assert_eq!(by(&read), ["contractors-hours"]);

        let (one, two) = (user("one", &["release-officer"]), user("two", &["release-officer"]));
        let mut downgrade = ask(one.clone(), Action::Downgrade, event(Kind::Message));
        assert!(by(&downgrade).is_empty());
        downgrade.context.reason = Some("cleared by the owner".into());
        downgrade.context.second_person = Some(Arc::new(one));
        assert_eq!(by(&downgrade), ["base-second-person"]);
        downgrade.context.second_person = Some(Arc::new(two));
        assert_eq!(by(&downgrade), ["release-officers"]);

        let mut said = ask(server_of("observers"), Action::Admit, event(Kind::Message));
        assert_eq!(by(&said), ["observers-only-read"]);
        said.resource = Event { r#type: "m.room.member".into(), ..event(Kind::State) }.into();
        assert_eq!(by(&said), ["base-peer"]);

        let file = Media { id: "mxc://hq.example/1".into(), ..Media::default() };
        let narrow = Server { federations: [].into(), ..partner() };
        assert_eq!(by(&ask(narrow.clone(), Action::Release, file)), ["no-files-over-satellite"]);
        assert_eq!(
            by(&ask(narrow.clone(), Action::Release, event(Kind::Media))),
            ["no-files-over-satellite"]
        );
        assert_eq!(by(&ask(narrow, Action::Release, event(Kind::Message))), ["base-peer"]);
    }

    fn server_of(federation: &str) -> Server {
        Server { federations: [federation.to_owned()].into(), link: None, ..partner() }
    }

    #[test]
    fn its_explanation_is_the_real_one() {
        let set = site();
        let mut question = ask(server_of("coalition"), Action::Release, event(Kind::Media));
        question.context.via = Door::Transaction;
        let shown = set.explain(&question).to_string();
        let expected = blocks("text")[0];
        for line in expected.lines() {
            assert!(shown.contains(line), "{line}\nis not in\n{shown}");
        }
    }
}

fn condition() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("true".to_owned()),
        Just("context.dominates".to_owned()),
        Just("!context.dominates".to_owned()),
        Just("context.sender_dominates".to_owned()),
        Just("context.encrypted".to_owned()),
        (0..24).prop_map(|hour| format!("context.hour < {hour}")),
        Just("context.guard.contains(\"secret\")".to_owned()),
        Just("(context has reason && context.reason like \"*please*\")".to_owned()),
        Just("context.via == Door::\"transaction\"".to_owned()),
        Just("(principal is Server && principal.accredited)".to_owned()),
        Just("(principal is User && principal.roles.contains(\"officer\"))".to_owned()),
        Just("(resource is Event && resource.kind == Kind::\"message\")".to_owned()),
        Just("(resource is Room && resource.rank > 2)".to_owned()),
    ];
    leaf.prop_recursive(3, 12, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} && {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} || {b})")),
            inner.prop_map(|a| format!("!({a})")),
        ]
    })
}

fn policy() -> impl Strategy<Value = String> {
    let effect = prop_oneof![3 => Just("permit"), 1 => Just("forbid")];
    let action = prop_oneof![
        Just("action".to_owned()),
        proptest::sample::select(Action::ALL).prop_map(|action| format!("action == Action::\"{action}\"")),
        Just("action in Action::\"admin\"".to_owned()),
        Just("action in [Action::\"release\", Action::\"read\", Action::\"admin\"]".to_owned()),
    ];
    let kind = prop_oneof![Just("when"), Just("unless")];
    let principal = proptest::sample::select(vec![
        "principal",
        "principal",
        "principal is Server",
        "principal is User",
        "principal == Server::\"b.example\"",
        "principal in User::\"@anna:hq.example\"",
    ]);
    let resource = proptest::sample::select(vec![
        "resource",
        "resource",
        "resource is Event",
        "resource in Room::\"!ops:hq.example\"",
        "resource is Event in Space::\"!space:hq.example\"",
        "resource == Room::\"!ops:hq.example\"",
    ]);
    (effect, principal, action, resource, kind, condition()).prop_map(
        |(effect, principal, action, resource, kind, condition)| {
            format!("{effect} ({principal}, {action}, {resource}) {kind} {{ {condition} }};")
        },
    )
}

fn question() -> impl Strategy<Value = Question> {
    let principal = prop_oneof![
        Just(Principal::from(user("anna", &["officer"]))),
        Just(partner().into()),
        Just(stranger().into()),
        Just(Appservice { id: "irc".into(), ..Appservice::default() }.into()),
        Just(Link { name: "satellite".into(), accredited: true, clearance: Some("SECRET".into()) }.into()),
    ];
    let media = Media {
        id: "mxc://hq.example/1".into(),
        r#type: "image/png".into(),
        size: u64::MAX,
        room: Some(Arc::new(labelled())),
        label: Some("NATO SECRET".into()),
    };
    let space = Arc::new(Space { id: "!space:hq.example".into(), label: Some("NATO SECRET".into()) });
    let resource = prop_oneof![
        Just(Resource::from(Room { space: Some(space.clone()), ..labelled() })),
        proptest::sample::select(Kind::ALL).prop_map(|kind| event(kind).into()),
        Just(media.into()),
        Just(Resource::Space(space)),
        Just(
            User { clearance: Some("SECRET".into()), device: Some(Trust::Verified), ..user("ben", &[]) }
                .into()
        ),
        Just((*hq()).clone().into()),
    ];
    let context = (any::<(bool, bool, bool, u64, bool, bool)>(), proptest::sample::select(Door::ALL))
        .prop_map(|((dominates, sender_dominates, encrypted, at, reason, finding), via)| Context {
            dominates,
            sender_dominates,
            encrypted,
            guard: finding.then(|| "secret:aws-key".to_owned()).into_iter().collect(),
            at,
            via,
            direction: Direction::Out,
            target: reason.then(|| Arc::new(user("ben", &[]))),
            second_person: finding.then(|| Arc::new(user("cleo", &["officer"]))),
            reason: reason.then(|| "please".to_owned()),
        });
    (principal, proptest::sample::select(Action::ALL), resource, context)
        .prop_map(|(principal, action, resource, context)| Question { principal, action, resource, context })
}

/// Those that are not refused because they can never apply.
fn valid(policies: &[String]) -> Vec<Text> {
    let texts = policies.iter().enumerate().map(|(n, policy)| text(&format!("{n}.cedar"), policy));
    texts.filter(|one| RuleSet::build(Base::Closed, std::slice::from_ref(one)).is_ok()).collect()
}

proptest! {
    // Policies are checked against every question that the schema has, which is slow without optimization.
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn no_policy_allows_what_the_rail_forbids(
        policies in proptest::collection::vec(policy(), 1..4),
        mut questions in proptest::collection::vec(question(), 64),
    ) {
        let set = RuleSet::build(Base::Open, &valid(&policies)).unwrap();
        for question in &mut questions {
            question.context.dominates = false;
            if Action::RAILED.contains(&question.action) {
                prop_assert!(!set.answer(question).allowed, "{question}");
            }
        }
    }

    #[test]
    fn only_the_policies_whose_scope_may_fit_matter(
        policies in proptest::collection::vec(policy(), 0..3),
        questions in proptest::collection::vec(question(), 64),
    ) {
        let set = RuleSet::build(Base::Peers, &valid(&policies)).unwrap();
        let whole = PolicySet::from_policies(set.rules().map(|rule| rule.policy.clone())).unwrap();
        for question in questions {
            let Ok(asked) = schema::Asked::of(&question) else { continue };
            let response = Authorizer::new().is_authorized(asked.request.clone(), whole.as_ref(), &asked.entities);
            if set.concerned(&question).is_none() {
                continue;
            }
            let answer = set.answer(&question);
            let mut rules: Vec<_> = response.diagnostics.reason.iter().map(ToString::to_string).collect();
            rules.sort();
            prop_assert_eq!(answer.rules, rules);
            prop_assert_eq!(answer.errors.len(), response.diagnostics.errors.len());
            let allowed = response.decision == CedarDecision::Allow && response.diagnostics.errors.is_empty();
            prop_assert_eq!(answer.allowed, allowed);
        }
    }

    #[test]
    fn an_explanation_agrees_with_the_answer(
        policies in proptest::collection::vec(policy(), 0..4),
        question in question(),
    ) {
        let set = RuleSet::build(Base::Peers, &valid(&policies)).unwrap();
        let explanation = set.explain(&question);
        prop_assert_eq!(&explanation.answer, &set.answer(&question));
        let applied = |rule: &&RuleReport| rule.outcome == Outcome::Applied;
        for rule in explanation.rules.iter().filter(|rule| explanation.answer.rules.contains(&rule.id)) {
            prop_assert!(applied(&rule), "{rule}");
        }
        let forbidden = explanation.rules.iter().filter(applied).any(|rule| !rule.permits);
        let permitted = explanation.rules.iter().filter(applied).any(|rule| rule.permits);
        prop_assert_eq!(explanation.answer.allowed, permitted && !forbidden);
    }
}

proptest! {
    #[test]
    fn what_a_question_says_fits_the_schema(question in question()) {
        let (principal, resource) = (question.principal.type_name(), question.resource.type_name());
        let schema = &schema::KNOWN.schema;
        let asked = schema::Asked::of(&question).unwrap();
        let entities = Entities::from_entities(
            asked.entities.iter().cloned(),
            Some(&CoreSchema::new(schema.as_ref())),
            TCComputation::EnforceAlreadyComputed,
            Extensions::all_available(),
        );
        prop_assert!(entities.is_ok(), "{:?}", entities);
        let request = asked.request;
        let known = |entry: &ast::EntityUIDEntry| (entry.uid().unwrap().clone(), None);
        let request = ast::Request::new(
            known(request.principal()),
            known(request.action()),
            known(request.resource()),
            request.context().unwrap().clone(),
            Some(&CoreSchema::new(schema.as_ref())),
            Extensions::all_available(),
        );
        let is_known = schema::KNOWN.shapes.contains(&(question.action, principal, resource));
        prop_assert_eq!(request.is_ok(), is_known, "{:?}", request);
    }

    #[test]
    fn a_question_is_read_back_as_it_was_recorded(question in question()) {
        let recorded = Recorded::unanswered(question);
        prop_assert_eq!(Recorded::parse(recorded.to_line().unwrap().as_bytes()), Ok(recorded));
    }
}

#[test]
#[ignore = "a measurement: run it in release"]
fn how_long_a_decision_takes() {
    let one = |n: usize| {
        format!(
            "@id(\"own-{n}\") forbid (principal is Server, action == Action::\"release\", resource is Event)
             when {{ principal.federations.contains(\"f{n}\") && resource.size > {n} }};"
        )
    };
    let own: String = (0..100).map(one).collect();
    for (what, set) in [("base", set(Base::Peers, "")), ("base and 100 policies", set(Base::Peers, &own))] {
        let decider = Decider::new(set);
        let question = ask(partner(), Action::Release, event(Kind::Message));
        let mut asked: Vec<_> = (0..20_000)
            .map(|_| {
                let start = Instant::now();
                assert!(std::hint::black_box(schema::Asked::of(&question)).is_ok());
                start.elapsed()
            })
            .collect();
        asked.sort();
        println!("of it, what is the same for all sets: median {:?}", asked[asked.len() / 2]);
        let mut took: Vec<_> = (0..20_000)
            .map(|_| {
                let start = Instant::now();
                assert!(std::hint::black_box(decider.decide(&question)).allowed());
                start.elapsed()
            })
            .collect();
        took.sort();
        let start = Instant::now();
        decider.enforce(RuleSet::build(Base::Peers, &[text("own.cedar", &own)]).unwrap());
        println!("reading 100 policies: {:?}", start.elapsed());
        let of = |thousandth: usize| took[took.len() * thousandth / 1000];
        println!("{what}: median {:?}, p99 {:?}, p99.9 {:?}", of(500), of(990), of(999));
    }
}
