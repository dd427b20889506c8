//! What servers tell about themselves and each other: versions, keys, notaries.

use crate::{PROGRAM, ask, get};
use postern_world::{Link, Method, Server, enc, free_address, pair};
use serde_json::{Value, json};
use std::{
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

/// The one key of a server, by its own word: id and key.
fn key_of(server: &Server) -> (String, Value) {
    let said = get(server, "/_matrix/key/v2/server").ok();
    assert_eq!(said["server_name"], server.name());
    let (id, key) = said["verify_keys"].as_object().unwrap().iter().next().unwrap();
    assert!(said["signatures"][server.name()][id].is_string(), "{said}");
    assert_eq!(
        get(server, &format!("/_matrix/key/v2/server/{}", enc(id))).ok()["verify_keys"],
        said["verify_keys"]
    );
    (id.clone(), key["key"].clone())
}

/// What a notary says about a server: the first statement.
fn notarized(notary: &Server, about: &Server) -> Value {
    let path = format!("/_matrix/key/v2/query/{}", enc(about.name()));
    get(notary, &path).ok()["server_keys"][0].clone()
}

#[test]
fn servers_fetch_each_others_keys_over_tls_and_sign_what_they_tell_on() {
    let [one, two] = pair(PROGRAM);
    for (notary, about) in [(&one, &two), (&two, &one)] {
        let (id, key) = key_of(about);
        let said = notarized(notary, about);
        assert_eq!(said["verify_keys"][&id]["key"], key);
        assert!(said["signatures"][about.name()][&id].is_string());
        assert!(said["signatures"][notary.name()][&key_of(notary).0].is_string());
        assert_eq!(said, notarized(notary, about), "it is remembered");
    }
    let name = get(&one, "/_matrix/federation/v1/version").ok()["server"]["name"].clone();
    assert_eq!(name, "Postern");
}

#[test]
fn a_notary_tells_what_it_knows_of_a_server_that_is_gone() {
    let [one, two] = pair(PROGRAM);
    let (id, key) = key_of(&two);
    notarized(&one, &two);
    two.kill();
    one.restart();
    let query = json!({ "server_keys": { two.name(): { &id: {} }, "127.0.0.1:1": {}, one.name(): {} } });
    let said = ask(&one, Method::POST, "/_matrix/key/v2/query", &[], &query).ok();
    let said = said["server_keys"].as_array().unwrap();
    let about = |server: &Server| said.iter().find(|keys| keys["server_name"] == server.name()).unwrap();
    assert_eq!(said.len(), 2, "{said:?}");
    assert_eq!(about(&two)["verify_keys"][&id]["key"], key);
    assert!(about(&one)["verify_keys"].is_object());
}

#[test]
fn a_server_that_cannot_be_asked_is_known_by_a_trusted_notary() {
    let [notary, gone] = pair(PROGRAM);
    let (id, key) = key_of(&gone);
    notarized(&notary, &gone);
    gone.kill();
    let third = Server::federating(PROGRAM, &[("federation.trusted_key_servers", notary.name())]);
    let said = notarized(&third, &gone);
    assert_eq!(said["verify_keys"][&id]["key"], key);
    let fourth = Server::federating(PROGRAM, &[]);
    assert_eq!(notarized(&fourth, &gone), Value::Null, "nobody is asked who is not trusted");
}

#[test]
fn no_server_is_asked_at_an_address_that_is_not_allowed() {
    let one = Server::federating(PROGRAM, &[]);
    let two = Server::federating(PROGRAM, &[("federation.allow_addresses", "")]);
    assert_ne!(notarized(&one, &two), Value::Null);
    assert_eq!(notarized(&two, &one), Value::Null);
}

#[test]
fn a_server_is_asked_only_if_its_certificate_is_of_a_known_authority() {
    let one = Server::federating(PROGRAM, &[]);
    let two = Server::federating(PROGRAM, &[("federation.certificate_authorities_file", "")]);
    assert_ne!(notarized(&one, &two), Value::Null);
    assert_eq!(notarized(&two, &one), Value::Null);
}

/// Servers at `127.1.0.1` and so on, on one port, that take connections and say nothing; how many they took.
fn silent_servers() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let (port, taken) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let counted = taken.clone();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for connection in listener.incoming() {
            open.push(connection);
            counted.fetch_add(1, Relaxed);
        }
    });
    (port, taken)
}

#[test]
fn servers_that_say_nothing_do_not_keep_this_one_from_asking_others_for_their_keys() {
    const FROM_ONE_ADDRESS: usize = 16;
    let here = Server::federating(PROGRAM, &[("listeners.trusted_proxies", "127.0.0.1/32")]);
    let there = Server::federating(PROGRAM, &[]);
    let (alice, bob) = (here.register("alice"), there.register("bob"));
    let (port, taken) = silent_servers();
    let answered = Arc::new(AtomicUsize::new(0));
    for n in 1..=80 {
        let (address, answered) = (here.address(), answered.clone());
        std::thread::spawn(move || {
            let path = format!("/_matrix/key/v2/query/127.1.0.{n}:{port}");
            // Whether it is answered at last is of no interest.
            let _ = Link::to(&address).send(&Method::GET, &path, &[("x-forwarded-for", "192.0.2.1")], "");
            answered.fetch_add(1, Relaxed);
        });
    }
    while taken.load(Relaxed) < FROM_ONE_ADDRESS {
        std::thread::sleep(Duration::from_millis(10));
    }
    // The other server's requests come from elsewhere, and its key is not known yet.
    let _ = bob.get(&format!("/_matrix/client/v3/profile/{}", alice.id_in_path())).ok();
    assert_eq!((answered.load(Relaxed), taken.load(Relaxed)), (0, FROM_ONE_ADDRESS));
}

#[test]
fn a_query_that_makes_no_sense_is_refused() {
    let server = Server::federating(PROGRAM, &[]);
    let path = "/_matrix/key/v2/query";
    let post =
        |body: &str| Link::to(&server.address()).send(&Method::POST, path, &[], body.to_owned()).unwrap();
    post("{}").refused(400, "M_BAD_JSON");
    post("x").refused(400, "M_NOT_JSON");
    post(r#"{"server_keys":{},"server_keys":{}}"#).refused(400, "M_BAD_JSON");
    assert_eq!(post(r#"{"server_keys":{}}"#).ok(), json!({ "server_keys": [] }));
    get(&server, "/_matrix/key/v2/query/a%20b").refused(400, "M_INVALID_PARAM");
}

#[test]
fn what_is_no_endpoint_is_unrecognized_on_every_listener() {
    let for_servers = free_address().to_string();
    let server = Server::federating(PROGRAM, &[("listeners.federation", &for_servers)]);
    for address in [&server.address(), &for_servers] {
        let link = Link::to(address);
        let ask = |method, path| link.send(&method, path, &[], "").unwrap();
        ask(Method::GET, "/_matrix/federation/v1/version").done();
        ask(Method::GET, "/_matrix/federation/v1/nothing").refused(404, "M_UNRECOGNIZED");
        ask(Method::GET, "/_matrix/key/v2/nothing").refused(404, "M_UNRECOGNIZED");
        ask(Method::POST, "/_matrix/federation/v1/version").refused(405, "M_UNRECOGNIZED");
    }
    get(&server, "/_matrix/client/versions").done();
    Link::to(&for_servers)
        .send(&Method::GET, "/_matrix/client/versions", &[], "")
        .unwrap()
        .refused(404, "M_UNRECOGNIZED");
}

#[test]
fn a_server_says_where_it_is_if_it_is_told() {
    let server = Server::federating(PROGRAM, &[("federation.well_known_server", "matrix.here.test:443")]);
    assert_eq!(
        get(&server, "/.well-known/matrix/server").ok(),
        json!({ "m.server": "matrix.here.test:443" })
    );
    let silent = Server::federating(PROGRAM, &[]);
    get(&silent, "/.well-known/matrix/server").refused(404, "M_NOT_FOUND");
}

#[test]
fn a_server_that_does_not_federate_has_no_such_endpoints() {
    let server = Server::federating(PROGRAM, &[("federation.enabled", "false")]);
    for path in ["/_matrix/key/v2/server", "/_matrix/federation/v1/version", "/.well-known/matrix/server"] {
        get(&server, path).refused(404, "M_UNRECOGNIZED");
    }
    get(&server, "/_matrix/client/versions").done();
}
