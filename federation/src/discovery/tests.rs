use super::*;
use crate::dns::Service;
use futures::future::{FutureExt, ready};
use http::HeaderValue;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex as Plain,
};

/// Names as a test has them; what was asked for is noted.
#[derive(Debug, Default)]
struct Names {
    addresses: BTreeMap<&'static str, Vec<&'static str>>,
    services: BTreeMap<&'static str, (&'static str, u16)>,
    asked: Plain<BTreeSet<String>>,
}

impl Dns for Names {
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, String>> {
        self.asked.lock().unwrap().insert(host.to_owned());
        let found = self.addresses.get(host).map(|all| all.iter().map(|a| a.parse().unwrap()).collect());
        ready(found.ok_or_else(|| "no such name".to_owned())).boxed()
    }

    fn services<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Vec<Service>> {
        self.asked.lock().unwrap().insert(name.to_owned());
        let found = self.services.get(name).map(|(host, port)| Service {
            priority: 1,
            weight: 1,
            host: (*host).to_owned(),
            port: *port,
        });
        ready(found.into_iter().collect()).boxed()
    }
}

/// Answers of well-known, the first of which is given first.
#[derive(Debug, Default)]
struct Answers(Plain<Vec<Option<Delegated>>>, Plain<Vec<String>>);

impl WellKnown for Answers {
    fn fetch<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Option<Delegated>> {
        self.1.lock().unwrap().push(host.to_owned());
        let mut answers = self.0.lock().unwrap();
        let answer = if answers.is_empty() { None } else { answers.remove(0) };
        ready(answer).boxed()
    }
}

fn delegated(to: &str, holds_s: u64) -> Option<Delegated> {
    Some(Delegated { to: ServerName::parse(to).unwrap(), holds: Duration::from_secs(holds_s) })
}

fn discovery(answers: &[Option<Delegated>]) -> (Discovery, Arc<Answers>) {
    let answers = Arc::new(Answers(Plain::new(answers.to_vec()), Plain::default()));
    (Discovery::new(answers.clone()), answers)
}

fn name(text: &str) -> OwnedServerName {
    ServerName::parse(text).unwrap()
}

fn names() -> Names {
    Names {
        addresses: [
            ("plain.test", vec!["1.1.1.1"]),
            ("both.test", vec!["1.1.1.1", "1.1.1.2", "2606::1"]),
            ("target.test", vec!["1.1.1.9"]),
        ]
        .into(),
        services: [
            ("_matrix-fed._tcp.new.test", ("target.test", 1000)),
            ("_matrix._tcp.new.test", ("plain.test", 2000)),
            ("_matrix._tcp.old.test", ("target.test", 2000)),
            ("_matrix-fed._tcp.none.test", ("", 0)),
        ]
        .into(),
        ..Names::default()
    }
}

/// Where a server is found if its well-known says `to`: `Host` header and addresses.
async fn found(server: &str, to: Option<Delegated>) -> (String, Result<Vec<String>, String>) {
    let (discovery, _) = discovery(&[to]);
    let authority = discovery.authority(&name(server)).await;
    let places = places(&names(), &name(authority.as_str())).await;
    let shown = places.map(|places| places.iter().map(ToString::to_string).collect());
    (authority.as_str().to_owned(), shown)
}

fn at(host: &str, places: &[&str]) -> (String, Result<Vec<String>, String>) {
    (host.to_owned(), Ok(places.iter().map(|place| (*place).to_owned()).collect()))
}

#[tokio::test]
async fn step_1_an_address_is_used_as_it_is() {
    assert_eq!(found("1.2.3.4", None).await, at("1.2.3.4", &["1.2.3.4:8448"]));
    assert_eq!(found("1.2.3.4:99", None).await, at("1.2.3.4:99", &["1.2.3.4:99"]));
    assert_eq!(found("[2606::1]", None).await, at("[2606::1]", &["[2606::1]:8448"]));
    assert_eq!(found("[2606::1]:99", None).await, at("[2606::1]:99", &["[2606::1]:99"]));
}

#[tokio::test]
async fn step_2_a_port_leaves_only_the_address_to_be_found() {
    let ignored = delegated("target.test:1", 1);
    assert_eq!(found("plain.test:99", ignored).await, at("plain.test:99", &["1.1.1.1:99"]));
}

#[tokio::test]
async fn step_3_well_known_leads_to_an_address_a_port_a_service_or_the_default_port() {
    for (to, place) in [
        ("1.2.3.4", "1.2.3.4:8448"),
        ("1.2.3.4:443", "1.2.3.4:443"),
        ("plain.test:443", "1.1.1.1:443"),
        ("new.test", "1.1.1.9:1000"),
        ("old.test", "1.1.1.9:2000"),
        ("plain.test", "1.1.1.1:8448"),
    ] {
        assert_eq!(found("example.test", delegated(to, 1)).await, at(to, &[place]), "{to}");
    }
}

#[tokio::test]
async fn steps_4_to_6_without_well_known_services_then_the_default_port() {
    assert_eq!(found("new.test", None).await, at("new.test", &["1.1.1.9:1000"]));
    assert_eq!(found("old.test", None).await, at("old.test", &["1.1.1.9:2000"]));
    assert_eq!(found("plain.test", None).await, at("plain.test", &["1.1.1.1:8448"]));
    assert!(found("missing.test", None).await.1.is_err());
    assert!(found("none.test", None).await.1.is_err(), "the service is said not to be offered");
}

#[tokio::test]
async fn nothing_is_looked_up_that_is_not_needed() {
    let names = names();
    places(&names, &name("1.2.3.4")).await.unwrap();
    places(&names, &name("plain.test:1")).await.unwrap();
    assert_eq!(*names.asked.lock().unwrap(), BTreeSet::from(["plain.test".to_owned()]));
    let (discovery, answers) = discovery(&[]);
    discovery.authority(&name("1.2.3.4")).await;
    discovery.authority(&name("plain.test:1")).await;
    assert!(answers.1.lock().unwrap().is_empty());
}

#[tokio::test]
async fn both_families_are_tried_in_turn() {
    let places = places(&names(), &name("both.test:5")).await.unwrap();
    let shown: Vec<String> = places.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["[2606::1]:5", "1.1.1.1:5", "1.1.1.2:5"]);
}

#[tokio::test]
async fn a_delegation_is_remembered_and_a_failure_is_until_the_server_is_heard_of() {
    let (discovery, answers) = discovery(&[None, delegated("a.test:1", 600)]);
    let server = name("example.test");
    for _ in 0..3 {
        assert_eq!(discovery.authority(&server).await.as_str(), "example.test");
    }
    assert_eq!(answers.1.lock().unwrap().len(), 1);
    discovery.heard_of(&server);
    for _ in 0..3 {
        assert_eq!(discovery.authority(&server).await.as_str(), "a.test:1");
        discovery.heard_of(&server);
    }
    assert_eq!(answers.1.lock().unwrap().len(), 2);
}

#[test]
fn a_delegation_holds_for_its_time_and_failures_are_remembered_for_longer_and_longer() {
    let begin = Instant::now();
    let at = |seconds: u64| begin + Duration::from_secs(seconds);
    let mut memory = Memory::default();
    memory.learn(delegated("a.test:1", 600), begin);
    assert!(!memory.is_due(at(599)) && memory.is_due(at(600)));
    let mut now = 600;
    for pause in [60, 120, 240, 480, 960, 1920] {
        memory.learn(None, at(now));
        assert!(!memory.is_due(at(now + pause - 1)) && memory.is_due(at(now + pause)), "{pause}");
        assert!(memory.to.is_some(), "an earlier answer stands in");
        now += pause;
    }
    for _ in 0..30 {
        memory.learn(None, at(now));
        assert!(!memory.is_due(at(now + 3599)) && memory.is_due(at(now + 3600)));
        assert!(memory.to.is_none(), "it is gone for good");
    }
}

#[test]
fn an_answer_holds_as_long_as_it_says_within_bounds() {
    let held = |control: &'static str| {
        let mut headers = HeaderMap::new();
        if !control.is_empty() {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(control));
        }
        read(StatusCode::OK, &headers, br#"{"m.server":"a.test:1"}"#).unwrap().holds.as_secs()
    };
    assert_eq!(held(""), 24 * 3600);
    assert_eq!(held("public, max-age=7200"), 7200);
    assert_eq!(held("Max-Age=\"7200\", no-store"), 300);
    assert_eq!(held("max-age=0"), 300);
    assert_eq!(held("max-age=999999999"), 48 * 3600);
    assert_eq!(held("max-age=x"), 24 * 3600);
}

#[test]
fn an_answer_that_makes_no_sense_is_none() {
    let headers = HeaderMap::new();
    for body in ["", "[]", "{}", r#"{"m.server":1}"#, r#"{"m.server":""}"#, r#"{"m.server":"a b"}"#, "<html>"]
    {
        assert_eq!(read(StatusCode::OK, &headers, body.as_bytes()), None, "{body}");
    }
    assert_eq!(read(StatusCode::NOT_FOUND, &headers, br#"{"m.server":"a.test"}"#), None);
}
