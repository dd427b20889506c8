use super::*;
use std::sync::Arc;

fn set(base: Base, text: &str) -> RuleSet {
    RuleSet::build(base, &[Text { name: "own.cedar".into(), text: text.into() }]).unwrap()
}

fn server(name: &str) -> Server {
    Server { name: name.into(), ..Server::default() }
}

fn event(kind: Kind) -> Event {
    let hq = Arc::new(Server { local: true, ..server("hq.example") });
    Event {
        id: "$event".into(),
        r#type: "m.room.message".into(),
        kind,
        room: Arc::new(Room { id: "!room".into(), servers: 2, ..Room::default() }),
        sender: Arc::new(User { id: "@anna:hq.example".into(), server: hq, ..User::default() }),
        label: None,
        has_media: false,
        size: 700,
    }
}

fn release(to: Server, event: Event, context: Context) -> Question {
    Question {
        principal: Principal::Server(Arc::new(to)),
        action: Action::Release,
        resource: Resource::Event(Arc::new(event)),
        context,
    }
}

#[test]
fn the_bases_are_valid_without_warnings() {
    for base in [Base::Closed, Base::Peers, Base::Open] {
        assert_eq!(check(base, &[]), []);
    }
}

#[test]
fn a_release() {
    let yes = Context { dominates: true, ..Context::default() };
    let q = release(server("b.example"), event(Kind::Message), yes.clone());
    let a = set(Base::Peers, "").answer(&q);
    println!("{a:?}");
    let a = set(Base::Open, "").answer(&q);
    println!("{a:?}");
    println!("{}", set(Base::Open, "").revision());
    println!("{:?}", check(Base::Open, &[Text{name:"x.cedar".into(), text:"@id(\"a\")\npermit(principal, action == Action::\"release\", resource) when { resource.kind == Kind::\"mesage\" };\n@id(\"a\") forbid(principal, action, resource); permit(principal, action == Action::\"sent\", resource == Room::\"x\") when { resource.foo };".into()}, Text{name: "y".into(), text: "permit(principal, action, resource)\npermit".into()}, Text{name: "z".into(), text: "permit(principal, action == Action::\"send\", resource is Room);permit(principal == ?principal, action, resource);".into()}]).iter().map(|p| p.to_string()).collect::<Vec<_>>().join("\n"));
}

#[test]
#[ignore = "a measurement: run it in release"]
fn how_long_a_decision_takes() {
    let own: String = (0..100).map(|n| format!("@id(\"own-{n}\") forbid (principal is Server, action == Action::\"release\", resource is Event) when {{ principal.federations.contains(\"f{n}\") && resource.size > {n} }};")).collect();
    for (what, set) in [("base", set(Base::Peers, "")), ("base and 100 policies", set(Base::Peers, &own))] {
        let decider = Decider::new(set);
        let mut to = Server { accredited: true, ..server("b.example") };
        to.federations = (0..5).map(|n| format!("g{n}")).collect();
        let question = release(to, event(Kind::Message), Context { dominates: true, ..Context::default() });
        assert!(decider.decide(&question).allowed());
        let mut took: Vec<_> = (0..20_000)
            .map(|_| {
                let start = std::time::Instant::now();
                std::hint::black_box(decider.decide(&question));
                start.elapsed()
            })
            .collect();
        took.sort();
        println!(
            "{what}: median {:?}, p99 {:?}, p99.9 {:?}",
            took[took.len() / 2],
            took[took.len() * 99 / 100],
            took[took.len() * 999 / 1000]
        );
    }
}
