//! Wrong requests, to every endpoint: each gets its Matrix error and changes nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod endpoint;
mod hostile;
mod scene;
mod table;
mod wrong;

use endpoint::Endpoint;
use postern_world::{Answer, Broken, Client, Method, Server, enc, spec};
use scene::Scene;
use wrong::{Case, Expected};

const PROGRAM: &str = env!("CARGO_BIN_EXE_postern");
/// The largest body the server takes here, bytes.
const LARGEST_BODY: usize = 65_536;

fn server() -> Server {
    Server::with(
        PROGRAM,
        &[
            ("limits.max_request_body_bytes", &LARGEST_BODY.to_string()),
            ("server.public_base_url", "http://here.test"),
            ("registration.guests", "false"),
            // So that an answer that waits is not taken for one that never comes.
            ("limits.long_poll_max_ms", "1000"),
        ],
    )
}

fn ask(client: &Client, method: &Method, case: &Case) -> Result<Answer, Broken> {
    let mut headers = vec![("content-type", case.content_type)];
    if let Some(authorization) = &case.authorization {
        headers.push(("authorization", authorization));
    }
    let send = || client.link().send(method, &case.path, &headers, case.body.clone());
    // After a refused body the server closes the connection, which another request may already have been given.
    send().or_else(|error| if matches!(error, Broken::Connection(_)) { send() } else { Err(error) })
}

/// What is wrong with an answer, if anything.
fn complaint(expected: Expected, answer: &Answer) -> Option<String> {
    let status = answer.status();
    let is_error = answer.errcode().is_some_and(|code| code.starts_with("M_"))
        && answer["error"].as_str().is_some_and(|sentence| !sentence.is_empty());
    let fits = match expected {
        Expected::Error(code, errcode) => is_error && status == code && answer.errcode() == Some(errcode),
        Expected::Bad => is_error && status == 400,
        Expected::Refused => is_error && (400..500).contains(&status),
        Expected::NoFailure => status < 500,
    };
    (!fits).then(|| format!("{expected:?} is expected, and the answer is {}", answer.describe()))
}

fn name(endpoint: &Endpoint) -> String {
    format!("{} {}", endpoint.method, endpoint.path)
}

#[track_caller]
fn none(complaints: &[String]) {
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}

#[test]
fn every_wrong_request_gets_its_error_and_changes_nothing() {
    let server = server();
    let scene = Scene::on(&server);
    let dead = scene.alice.log_in_again();
    dead.request(Method::POST, "v3/logout", None).done();
    let mut before = scene.digest();
    let mut complaints = Vec::new();
    let mut asked = 0;
    for endpoint in table::endpoints() {
        for case in wrong::all(&endpoint, &scene, dead.token()) {
            asked += 1;
            let complaint = match ask(&scene.alice, &endpoint.method, &case) {
                Ok(answer) => complaint(case.expected, &answer),
                Err(error) => Some(error.to_string()),
            };
            complaints.extend(complaint.map(|text| format!("{}, {}: {text}", name(&endpoint), case.what)));
        }
        let after = scene.digest();
        for (before, after) in before.iter().zip(&after).filter(|(before, after)| before != after) {
            complaints.push(format!("{} changed something:\n  {before}\n  {after}", name(&endpoint)));
        }
        before = after;
    }
    println!("{asked} wrong requests");
    none(&complaints);
    let log = server.log();
    assert!(!log.contains("panicked") && !log.contains("ERROR"), "{log}");
}

#[test]
fn every_right_request_is_accepted_so_that_only_the_wrong_in_the_others_is_refused() {
    let server = server();
    let mut complaints = Vec::new();
    for endpoint in table::endpoints() {
        let scene = Scene::on(&server);
        match ask(&scene.alice, &endpoint.method, &wrong::right(&endpoint, &scene)) {
            Ok(answer) => {
                let confirmed = !endpoint.confirmed || answer["flows"].is_array();
                if answer.status() != endpoint.status || !confirmed {
                    let expected = endpoint.status;
                    complaints.push(format!(
                        "{}: {expected} is expected: {}",
                        name(&endpoint),
                        answer.describe()
                    ));
                }
            }
            Err(error) => complaints.push(format!("{}: {error}", name(&endpoint))),
        }
    }
    none(&complaints);
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

#[test]
fn an_unknown_method_or_path_is_said_to_be_unknown() {
    let server = server();
    let scene = Scene::on(&server);
    let mut complaints = Vec::new();
    // What is beside Matrix has no Matrix errors.
    let is_matrix = |endpoint: &Endpoint| !endpoint.path.starts_with("/_postern");
    for endpoint in table::endpoints().into_iter().filter(is_matrix) {
        let case =
            Case { expected: Expected::Error(405, "M_UNRECOGNIZED"), ..wrong::right(&endpoint, &scene) };
        let answer = ask(&scene.alice, &Method::PATCH, &case).unwrap();
        complaints.extend(complaint(case.expected, &answer));
    }
    for path in
        ["/", "/_matrix", "/_matrix/client/v3/nothing", "/_matrix/client/v9/sync", "/_matrix/client/v3/sync/"]
    {
        let answer = scene.alice.link().send(&Method::GET, path, &[], "").unwrap();
        complaints.extend(complaint(Expected::Error(404, "M_UNRECOGNIZED"), &answer));
    }
    none(&complaints);
}

#[test]
fn the_table_has_every_endpoint_of_the_specification_that_the_server_has() {
    let Some(specified) = spec::endpoints() else { return };
    let server = server();
    let table: Vec<(Method, String)> = table::endpoints()
        .into_iter()
        .map(|endpoint| (endpoint.method.clone(), endpoint.full_path()))
        .collect();
    let mut missing = Vec::new();
    for endpoint in specified {
        let known = table.iter().any(|(method, path)| {
            method.as_str().eq_ignore_ascii_case(&endpoint.method) && same_shape(path, &endpoint.path)
        });
        let path: Vec<String> = endpoint
            .path
            .split('/')
            .map(|part| if part.starts_with('{') { enc("x") } else { part.to_owned() })
            .collect();
        let method = Method::from_bytes(endpoint.method.to_uppercase().as_bytes()).unwrap();
        let answer = server.link().send(&method, &path.join("/"), &[], "").unwrap();
        if !known && answer.errcode() != Some("M_UNRECOGNIZED") {
            missing.push(format!("{method} {}", endpoint.path));
        }
    }
    none(&missing);
}

/// Whether a path of the table is one of the specification's, whose parameters stand for anything.
fn same_shape(path: &str, specified: &str) -> bool {
    let (path, specified): (Vec<&str>, Vec<&str>) =
        (path.split('/').collect(), specified.split('/').collect());
    path.len() == specified.len()
        && path.iter().zip(&specified).all(|(part, wanted)| part == wanted || wanted.starts_with('{'))
}
