//! Every endpoint of the specification's data is there, or stands below with the reason why it is not.

use super::*;
use postern_world::spec;

/// Endpoints that are left out on purpose, and why.
const ABSENT: &[(&str, &str, &str)] = &[];

/// What parameters are replaced by.
fn filled_in(path: &str) -> String {
    path.split('/')
        .map(|segment| if segment.starts_with('{') { "x" } else { segment })
        .collect::<Vec<_>>()
        .join("/")
}

#[test]
fn every_specified_endpoint_is_there_or_left_out_for_a_reason() {
    let Some(endpoints) = spec::endpoints() else { return };
    let link = server().anyone().link().clone();
    let mut wrong = Vec::new();
    for endpoint in endpoints {
        let method = Method::from_bytes(endpoint.method.as_bytes()).unwrap();
        let answer = link.send(&method, &filled_in(&endpoint.path), &[], "{}").unwrap();
        let there = answer.errcode() != Some("M_UNRECOGNIZED");
        let absent = ABSENT.iter().any(|(m, path, _)| *m == endpoint.method && *path == endpoint.path);
        if there == absent {
            let what = if there { "is there, though listed as absent" } else { "is missing" };
            wrong.push(format!("{} {} {what}", endpoint.method, endpoint.path));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_endpoint_that_needs_a_token_says_so() {
    let Some(endpoints) = spec::endpoints() else { return };
    let link = server().anyone().link().clone();
    for endpoint in endpoints.iter().filter(|endpoint| endpoint.needs_token) {
        if ABSENT.iter().any(|(method, path, _)| *method == endpoint.method && *path == endpoint.path) {
            continue;
        }
        let method = Method::from_bytes(endpoint.method.as_bytes()).unwrap();
        let path = filled_in(&endpoint.path);
        let answer = link.send(&method, &path, &[("authorization", "Bearer nonsense")], "{}").unwrap();
        assert_eq!(
            (answer.status(), answer.errcode()),
            (401, Some("M_UNKNOWN_TOKEN")),
            "{}",
            answer.describe()
        );
    }
}
