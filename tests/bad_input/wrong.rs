//! Wrong requests, made from a right one.

use crate::{
    LARGEST_BODY,
    endpoint::{Auth, Body, Endpoint, Kind},
    scene::Scene,
};
use serde_json::{Map, Value, json};

/// What the answer must be.
#[derive(Debug, Clone, Copy)]
pub enum Expected {
    /// This error.
    Error(u16, &'static str),
    /// Status 400, with any Matrix error.
    Bad,
    /// Any Matrix error.
    Refused,
    /// Anything but a failure of the server.
    NoFailure,
}

use Expected::{Bad, Error, NoFailure, Refused};

const NOT_JSON: Expected = Error(400, "M_NOT_JSON");
const BAD_JSON: Expected = Error(400, "M_BAD_JSON");
const TOO_LARGE: Expected = Error(413, "M_TOO_LARGE");
const MISSING_TOKEN: Expected = Error(401, "M_MISSING_TOKEN");
const UNKNOWN_TOKEN: Expected = Error(401, "M_UNKNOWN_TOKEN");

/// A wrong request.
#[derive(Debug, Clone)]
pub struct Case {
    /// What is wrong with it.
    pub what: String,
    pub path: String,
    pub authorization: Option<String>,
    pub content_type: &'static str,
    pub body: Vec<u8>,
    pub expected: Expected,
}

/// The right request to an endpoint.
pub fn right(endpoint: &Endpoint, scene: &Scene) -> Case {
    let query = scene.fill(endpoint.query);
    let mark = if query.is_empty() { "" } else { "?" };
    Case {
        what: "right".to_owned(),
        path: format!("{}{mark}{query}", scene.fill(&endpoint.full_path())),
        authorization: (endpoint.auth != Auth::None).then(|| format!("Bearer {}", scene.alice.token())),
        content_type: "application/json",
        body: scene.body(&endpoint.right_body()).into_bytes(),
        expected: NoFailure,
    }
}

/// All wrong requests to an endpoint. `dead` is the token of a session that has ended.
pub fn all(endpoint: &Endpoint, scene: &Scene, dead: &str) -> Vec<Case> {
    let right = right(endpoint, scene);
    let mut cases = tokens(endpoint, &right, dead);
    match &endpoint.body {
        Body::Fields(body) => {
            cases.extend(bodies(&right));
            cases.extend(fields(&right, body));
        }
        Body::Free(_) => {
            cases.extend(bodies(&right));
            if ["/send/", "/state/", "/redact/"].iter().any(|part| endpoint.path.contains(part)) {
                cases.extend(events(&right));
            }
        }
        Body::None | Body::File => {}
    }
    cases.extend(paths(endpoint, scene, &right));
    cases.extend(queries(endpoint, scene, &right));
    cases
}

fn tokens(endpoint: &Endpoint, right: &Case, dead: &str) -> Vec<Case> {
    let with = |what: &str, authorization: Option<String>, expected| Case {
        what: what.to_owned(),
        authorization,
        expected,
        ..right.clone()
    };
    let mark = if right.path.contains('?') { '&' } else { '?' };
    let in_query = Case {
        path: format!("{}{mark}access_token=nonsense", right.path),
        ..with("an unknown token in the query", None, UNKNOWN_TOKEN)
    };
    let unknown = vec![
        with("an unknown token", Some("Bearer nonsense".to_owned()), UNKNOWN_TOKEN),
        with("the token of a session that has ended", Some(format!("Bearer {dead}")), UNKNOWN_TOKEN),
        with("a token of 8 KiB", Some(format!("Bearer {}", "x".repeat(8 << 10))), UNKNOWN_TOKEN),
        in_query,
    ];
    match endpoint.auth {
        Auth::None => Vec::new(),
        Auth::Optional => unknown,
        Auth::Needed => [
            unknown,
            vec![
                with("no token", None, MISSING_TOKEN),
                with("no bearer", Some("Basic YTpi".to_owned()), MISSING_TOKEN),
                with("a bearer without token", Some("Bearer".to_owned()), MISSING_TOKEN),
            ],
        ]
        .concat(),
    }
}

/// Bodies that are wrong for every endpoint that reads one.
fn bodies(right: &Case) -> Vec<Case> {
    let nested = |depth: usize| format!("{{\"a\":{}1{}}}", "[".repeat(depth), "]".repeat(depth));
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(LARGEST_BODY));
    let mut cases = Vec::new();
    for (what, body, expected) in [
        ("broken off", "{\"a\":", NOT_JSON),
        ("words", "hello", NOT_JSON),
        ("other quotes", "{'a':1}", NOT_JSON),
        ("a brace too many", "{\"a\":1}}", NOT_JSON),
        ("a comma too many", "{\"a\":1,}", NOT_JSON),
        ("a byte order mark", "\u{feff}{}", NOT_JSON),
        ("NaN", "{\"a\":NaN}", NOT_JSON),
        ("an escape that is none", "{\"a\":\"\\x\"}", Bad),
        ("half a character", "{\"a\":\"\\ud800\"}", Bad),
        ("a number beyond all", "{\"a\":1e400}", Bad),
        ("a list", "[]", BAD_JSON),
        ("a list of one object", "[{}]", BAD_JSON),
        ("text", "\"x\"", BAD_JSON),
        ("a number", "1", BAD_JSON),
        ("null", "null", BAD_JSON),
        ("a key twice", "{\"x\":1,\"x\":2}", BAD_JSON),
        ("a key twice, below", "{\"x\":[{\"y\":1,\"y\":1}]}", BAD_JSON),
        ("too deep", &nested(200), BAD_JSON),
        ("far too deep", &nested(20_000), BAD_JSON),
        ("too large", &large, TOO_LARGE),
    ] {
        cases.push(Case { what: what.to_owned(), body: body.as_bytes().to_vec(), expected, ..right.clone() });
    }
    let no_text = b"{\"a\":\"\xff\xfe\"}".to_vec();
    cases.push(Case { what: "no UTF-8".to_owned(), body: no_text, expected: NOT_JSON, ..right.clone() });
    cases.push(Case {
        what: "a form".to_owned(),
        body: b"a=b&c=d".to_vec(),
        content_type: "application/x-www-form-urlencoded",
        expected: NOT_JSON,
        ..right.clone()
    });
    cases
}

/// Bodies in which one field has a wrong type.
fn fields(right: &Case, body: &Value) -> Vec<Case> {
    let body: &Map<String, Value> = body.as_object().unwrap();
    let mut cases = Vec::new();
    for (name, value) in body {
        let wrong = match value {
            Value::String(_) => vec![json!(1), json!(true), json!([]), json!({})],
            Value::Bool(_) => vec![json!("x"), json!(2), json!([]), json!({})],
            Value::Number(_) => {
                vec![json!("x"), json!(1.5), json!([]), json!({}), json!(u64::MAX), json!(1e300)]
            }
            Value::Array(_) => vec![json!("x"), json!(1), json!({ "a": 1 }), json!([[[1]]])],
            Value::Object(_) => vec![json!("x"), json!(1), json!([1]), json!(false)],
            Value::Null => Vec::new(),
        };
        // Numbers are bounded where they are used: the largest is a number, too.
        for wrong in wrong.into_iter().filter(|wrong| *wrong != json!(u64::MAX) || name == "score") {
            let mut body = body.clone();
            body.insert(name.clone(), wrong.clone());
            let body = Value::Object(body).to_string().into_bytes();
            cases.push(Case { what: format!("{name} is {wrong}"), body, expected: Bad, ..right.clone() });
        }
    }
    cases
}

/// Contents that no event can have.
fn events(right: &Case) -> Vec<Case> {
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(LARGEST_BODY - 100));
    [
        ("a fraction", "{\"a\":1.5}", BAD_JSON),
        ("a fraction, below", "{\"a\":[{\"b\":0.0}]}", BAD_JSON),
        ("an exponent", "{\"a\":1e3}", BAD_JSON),
        ("too large an integer", "{\"a\":9007199254740992}", BAD_JSON),
        ("too small an integer", "{\"a\":-9007199254740992}", BAD_JSON),
        ("an integer beyond 64 bits", "{\"a\":18446744073709551616}", BAD_JSON),
        ("too large an event", &large, TOO_LARGE),
    ]
    .map(|(what, body, expected)| Case {
        what: what.to_owned(),
        body: body.as_bytes().to_vec(),
        expected,
        ..right.clone()
    })
    .to_vec()
}

/// Paths that name what is not there, or nothing at all.
fn paths(endpoint: &Endpoint, scene: &Scene, right: &Case) -> Vec<Case> {
    let long = "x".repeat(1_000);
    let mut cases = Vec::new();
    for (name, wrong) in [
        ("me", &["nonsense", "%40unknown%3Aelsewhere.test", "%40", "%40%3Ahere.test"][..]),
        ("user", &["nonsense", "%40unknown%3Aelsewhere.test", "%40", "%40unknown%3Ahere.test"]),
        ("room", &["nonsense", "!unknown%3Aelsewhere.test", "%21", "%23unknown%3Ahere.test"]),
        ("room_or_alias", &["nonsense", "!unknown%3Aelsewhere.test", "%23unknown%3Ahere.test", "%23"]),
        ("event", &["nonsense", "%24unknown", "%24unknown%3Aelsewhere.test", "%24"]),
        ("alias", &["nonsense", "%23unknown%3Aelsewhere.test", "%23"]),
        ("device", &["unknown"]),
        ("filter", &["unknown", "-1", "99999999999999999999"]),
        ("rule", &[".unknown"]),
        ("version", &["unknown", "-1", "99999999999999999999"]),
        ("media", &["unknown", "%20", ".."]),
        ("pending", &["unknown", "%20"]),
    ] {
        if !endpoint.path.contains(&format!("{{{name}}}")) {
            continue;
        }
        let everywhere = ["%FF%FE", "%00", "%2E%2E%2F", &long];
        for value in wrong.iter().chain(if name == "rule" { &everywhere[..1] } else { &everywhere[..] }) {
            let path = scene.fill_wrong(&endpoint.full_path(), name, value);
            let query = right.path.split_once('?').map_or_else(String::new, |(_, query)| format!("?{query}"));
            let shown: String = value.chars().take(40).collect();
            cases.push(Case {
                what: format!("{{{name}}} is {shown}"),
                path: path + &query,
                expected: if endpoint.any_path { NoFailure } else { Refused },
                ..right.clone()
            });
        }
    }
    // What is another's is not one's own.
    if endpoint.path.contains("{me}") && endpoint.path.contains("user/") {
        let path = scene.fill_wrong(&endpoint.full_path(), "me", &scene.bob.id_in_path());
        let expected = Error(403, "M_FORBIDDEN");
        cases.push(Case { what: "another user's".to_owned(), path, expected, ..right.clone() });
    }
    cases
}

fn queries(endpoint: &Endpoint, scene: &Scene, right: &Case) -> Vec<Case> {
    let path = scene.fill(&endpoint.full_path());
    let query = scene.fill(endpoint.query);
    let pairs: Vec<(&str, &str)> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
    let without = |name: &str| {
        let rest: Vec<String> = pairs
            .iter()
            .filter(|(other, _)| *other != name)
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        rest.join("&")
    };
    let mut cases = Vec::new();
    for (name, _) in &pairs {
        let path = format!("{path}?{}", without(name));
        cases.push(Case { what: format!("{name} is missing"), path, expected: Bad, ..right.clone() });
    }
    for (name, kind) in endpoint.params {
        let wrong: &[&str] = match kind {
            Kind::Number => &["-1", "x", "1.5", "99999999999999999999999", "%FF", "1e3"],
            Kind::Bool => &["maybe", "2", "%FF"],
            Kind::Word => &["nonsense", "%00", "t", "s", "p-1", "s-1_0_0", "t99999999999999999999"],
            Kind::Filter => {
                &["%7B", "%7B%22limit%22:%22x%22,%22room%22:1%7D", "%7B%22types%22:1,%22room%22:1%7D"]
            }
        };
        for value in wrong {
            let path = format!("{path}?{}&{name}={value}", without(name));
            cases.push(Case { what: format!("{name} is {value}"), path, expected: Refused, ..right.clone() });
        }
        if *kind == Kind::Number {
            // A bound, not an error.
            let path = format!("{path}?{}&{name}=18446744073709551615", without(name));
            cases.push(Case { what: format!("{name} is huge"), path, expected: NoFailure, ..right.clone() });
        }
    }
    cases
}
