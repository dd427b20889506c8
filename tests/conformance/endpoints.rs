//! Every endpoint of the specification's data is there, or stands below with the reason why it is not.

use super::*;
use postern_world::spec;

const ADMINISTRATION: &str = "there is no administrators' API yet";
const THIRD_PARTY_IDS: &str = "mail addresses and phone numbers are not there yet";
const APPSERVICES: &str = "application services are not there yet";
const PREVIEWS: &str = "the server fetches nothing from elsewhere yet";
const SINGLE_SIGN_ON: &str = "OAuth 2.0 and single sign-on are not there yet";
const DEPRECATED: &str = "deprecated or not used by clients for years; /sync replaces it";
const FEDERATION: &str = "it is for other servers, with whom the server of these tests does not speak";
const LATER_VERSIONS: &str = "of a later version of the specification than the server announces";

/// Endpoints that are left out on purpose, and why.
const ABSENT: &[(&str, &str, &str)] = &[
    ("GET", "/_matrix/client/v1/admin/lock/{userId}", ADMINISTRATION),
    ("PUT", "/_matrix/client/v1/admin/lock/{userId}", ADMINISTRATION),
    ("GET", "/_matrix/client/v1/admin/suspend/{userId}", ADMINISTRATION),
    ("PUT", "/_matrix/client/v1/admin/suspend/{userId}", ADMINISTRATION),
    ("GET", "/_matrix/client/v3/admin/whois/{userId}", ADMINISTRATION),
    ("POST", "/_matrix/client/v3/account/3pid", THIRD_PARTY_IDS),
    ("POST", "/_matrix/client/v3/account/3pid/add", THIRD_PARTY_IDS),
    ("POST", "/_matrix/client/v3/account/3pid/bind", THIRD_PARTY_IDS),
    ("POST", "/_matrix/client/v3/account/3pid/delete", THIRD_PARTY_IDS),
    ("POST", "/_matrix/client/v3/account/3pid/email/requestToken", THIRD_PARTY_IDS),
    ("POST", "/_matrix/client/v3/account/3pid/msisdn/requestToken", THIRD_PARTY_IDS),
    ("POST", "/_matrix/client/v3/account/3pid/unbind", THIRD_PARTY_IDS),
    ("POST", "/_matrix/client/v3/account/password/email/requestToken", THIRD_PARTY_IDS),
    ("POST", "/_matrix/client/v3/account/password/msisdn/requestToken", THIRD_PARTY_IDS),
    ("POST", "/_matrix/client/v3/register/email/requestToken", THIRD_PARTY_IDS),
    ("POST", "/_matrix/client/v3/register/msisdn/requestToken", THIRD_PARTY_IDS),
    ("POST", "/_matrix/client/v1/appservice/{appserviceId}/ping", APPSERVICES),
    ("PUT", "/_matrix/client/v3/directory/list/appservice/{networkId}/{roomId}", APPSERVICES),
    ("GET", "/_matrix/client/v3/thirdparty/location", APPSERVICES),
    ("GET", "/_matrix/client/v3/thirdparty/location/{protocol}", APPSERVICES),
    ("GET", "/_matrix/client/v3/thirdparty/protocol/{protocol}", APPSERVICES),
    ("GET", "/_matrix/client/v3/thirdparty/user", APPSERVICES),
    ("GET", "/_matrix/client/v3/thirdparty/user/{protocol}", APPSERVICES),
    ("GET", "/_matrix/client/v1/media/preview_url", PREVIEWS),
    ("GET", "/_matrix/media/v3/preview_url", PREVIEWS),
    ("GET", "/_matrix/client/v1/auth_metadata", SINGLE_SIGN_ON),
    ("GET", "/_matrix/client/v3/login/sso/redirect", SINGLE_SIGN_ON),
    ("GET", "/_matrix/client/v3/login/sso/redirect/{idpId}", SINGLE_SIGN_ON),
    ("GET", "/_matrix/client/v3/events", DEPRECATED),
    ("GET", "/_matrix/client/v3/events/{eventId}", DEPRECATED),
    ("GET", "/_matrix/client/v3/initialSync", DEPRECATED),
    ("GET", "/_matrix/client/v3/rooms/{roomId}/initialSync", DEPRECATED),
    ("GET", "/_matrix/client/v1/mutual_rooms", LATER_VERSIONS),
    ("GET", "/.well-known/matrix/policy_server", FEDERATION),
];

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
