//! The client-server specification as data, and whether requests and answers keep to it.
//!
//! The data is the OpenAPI description of `matrix-org/matrix-spec`, read from the folder named by `MATRIX_SPEC_DIR`, else from
//! `../shared/matrix-spec` beside the repository. Where there is none, nothing is checked, and that is said once.
//!
//! An error is checked against the error's schema, also where an endpoint does not list its status. A request is checked only
//! if the server accepted it: tests send wrong ones on purpose.

mod data;
mod quirks;

use crate::Answer;
use data::Spec;
use http::Method;
use jsonschema::Validator;
use serde_json::{Map, Value};
use std::{
    io::Write,
    path::{Path, PathBuf},
    sync::OnceLock,
};

pub use data::Endpoint;

/// The errors by which a server refuses before an endpoint has its say: the endpoint's own schema for the status does not
/// hold then.
const BEFORE_ENDPOINTS: [&str; 4] = ["M_MISSING_TOKEN", "M_UNKNOWN_TOKEN", "M_UNRECOGNIZED", "M_NOT_JSON"];

fn folder() -> PathBuf {
    std::env::var_os("MATRIX_SPEC_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/matrix-spec"),
        PathBuf::from,
    )
}

fn spec() -> Option<&'static Spec> {
    static SPEC: OnceLock<Option<Spec>> = OnceLock::new();
    SPEC.get_or_init(|| {
        let folder = folder();
        if folder.join("data/api/client-server").is_dir() {
            return Some(Spec::load(&folder));
        }
        let text = format!(
            "\n*** The Matrix specification's data is not at {}.\n\
             *** Requests and answers are NOT checked against it. MATRIX_SPEC_DIR names another folder.\n\n",
            folder.display()
        );
        // Past the capturing of tests' output; if standard error is closed, nobody listens.
        let _ = std::io::stderr().write_all(text.as_bytes());
        None
    })
    .as_ref()
}

/// All endpoints of the client-server API; nothing where the data is absent.
#[must_use]
pub fn endpoints() -> Option<&'static [Endpoint]> {
    spec().map(Spec::endpoints)
}

/// Checks an exchange. `request` is its JSON body, or that it had none; nothing if the request is not to be checked.
///
/// # Panics
/// It breaks the specification.
#[track_caller]
pub fn check(method: &Method, path: &str, request: Option<Option<&Value>>, answer: &Answer) {
    let Some(spec) = spec() else { return };
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    if let Some(endpoint) = spec.find(method.as_str(), path) {
        let mut wrong = answer_is_wrong(spec, endpoint, answer);
        if wrong.is_none()
            && answer.status() < 300
            && let Some(body) = request
        {
            wrong = request_is_wrong(endpoint, query, body);
        }
        if let Some(wrong) = wrong {
            panic!("{} {}: {wrong}\n{}", endpoint.method, endpoint.path, answer.describe());
        }
    } else if answer.status() >= 400
        && path.starts_with("/_matrix")
        && let Some(wrong) = error_is_wrong(spec, answer)
    {
        panic!("{method} {path}: {wrong}\n{}", answer.describe());
    }
}

/// What is wrong with a value, by a schema; known mistakes of the specification's data are passed over.
fn problems(validator: &Validator, endpoint: &str, side: &str, value: &Value) -> Option<String> {
    let found: Vec<String> = validator
        .iter_errors(value)
        .filter(|error| !quirks::is_known(endpoint, side, error))
        .map(|error| {
            let at = error.instance_path().to_string();
            format!("{side} at {:?}: {error}", if at.is_empty() { "/" } else { &at })
        })
        .take(5)
        .collect();
    (!found.is_empty()).then(|| found.join("; "))
}

fn is_json(answer: &Answer) -> bool {
    answer.header("content-type").is_some_and(|kind| kind.starts_with("application/json"))
}

/// Every error is a Matrix error with a sentence that helps.
fn error_is_wrong(spec: &Spec, answer: &Answer) -> Option<String> {
    if !is_json(answer) {
        return Some("the error is not JSON".to_owned());
    }
    if let Some(wrong) = problems(spec.error(), "", "error", answer.body()) {
        return Some(wrong);
    }
    let sentence = answer["error"].as_str().is_some_and(|text| !text.is_empty());
    (!sentence).then(|| "the error has no sentence".to_owned())
}

fn answer_is_wrong(spec: &Spec, endpoint: &Endpoint, answer: &Answer) -> Option<String> {
    let status = answer.status();
    let own = endpoint.response(status);
    if status >= 400 {
        let generic = answer.errcode().is_some_and(|errcode| BEFORE_ENDPOINTS.contains(&errcode));
        return match own.and_then(|response| response.schema()) {
            Some(schema) if !generic => {
                if !is_json(answer) {
                    return Some("the error is not JSON".to_owned());
                }
                problems(schema, &endpoint.path, "answer", answer.body())
            }
            // Endpoints with interactive authentication do not all list its challenge.
            _ if status == 401 && answer["flows"].is_array() => {
                problems(spec.challenge(), &endpoint.path, "challenge", answer.body())
            }
            _ => error_is_wrong(spec, answer),
        };
    }
    let Some(response) = own else {
        return Some(format!("the status {status} is not among those specified"));
    };
    let schema = response.schema()?;
    if !is_json(answer) {
        return Some(format!("the answer is {:?}, not JSON", answer.header("content-type")));
    }
    problems(schema, &endpoint.path, "answer", answer.body())
}

fn request_is_wrong(endpoint: &Endpoint, query: &str, body: Option<&Value>) -> Option<String> {
    if let Some(schema) = endpoint.request() {
        match body {
            Some(body) => {
                if let Some(wrong) = problems(schema, &endpoint.path, "request", body) {
                    return Some(wrong);
                }
            }
            None if endpoint.request_required => return Some("the request has no body".to_owned()),
            None => {}
        }
    }
    let mut values = Map::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decode = |text: &str| {
            percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
        };
        values.insert(decode(name), decode(value).into());
    }
    endpoint.query().iter().find_map(|parameter| {
        let Some(text) = values.get(&parameter.name).and_then(Value::as_str) else {
            return parameter.required.then(|| format!("the query lacks {}", parameter.name));
        };
        let value = match parameter.kind.as_str() {
            "integer" | "number" | "boolean" => serde_json::from_str(text).unwrap_or_else(|_| text.into()),
            _ => text.into(),
        };
        if parameter.kind == "array" {
            return None;
        }
        problems(parameter.schema(), &endpoint.path, &parameter.name, &value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue, StatusCode};
    use serde_json::json;

    fn answer(status: u16, body: &Value) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        let status = StatusCode::from_u16(status).unwrap();
        Answer::new("a request".to_owned(), status, headers, Bytes::from(body.to_string()))
    }

    fn passes(method: Method, path: &str, request: Option<&Value>, status: u16, body: &Value) -> bool {
        std::panic::catch_unwind(|| check(&method, path, Some(request), &answer(status, body))).is_ok()
    }

    #[test]
    fn every_schema_of_the_specification_can_be_used() {
        for endpoint in endpoints().unwrap_or_default() {
            endpoint.request();
            for parameter in endpoint.query() {
                parameter.schema();
            }
            for response in endpoint.responses() {
                response.schema();
            }
        }
    }

    #[test]
    fn an_answer_that_lacks_a_field_is_noticed() {
        let whoami = "/_matrix/client/v3/account/whoami";
        assert!(passes(Method::GET, whoami, None, 200, &json!({ "user_id": "@a:here" })));
        assert_eq!(passes(Method::GET, whoami, None, 200, &json!({})), spec().is_none());
    }

    #[test]
    fn a_request_of_another_shape_is_noticed_if_it_was_accepted() {
        let send = "/_matrix/client/v3/rooms/!a:here/typing/@a:here";
        let body = json!({ "typing": "yes" });
        assert_eq!(passes(Method::PUT, send, Some(&body), 200, &json!({})), spec().is_none());
        let error = json!({ "errcode": "M_BAD_JSON", "error": "no" });
        assert!(passes(Method::PUT, send, Some(&body), 400, &error));
    }

    #[test]
    fn an_error_without_a_sentence_is_noticed() {
        let nowhere = "/_matrix/client/v3/nowhere";
        assert!(passes(
            Method::GET,
            nowhere,
            None,
            404,
            &json!({ "errcode": "M_UNRECOGNIZED", "error": "no" })
        ));
        let mute = json!({ "errcode": "M_UNRECOGNIZED" });
        assert_eq!(passes(Method::GET, nowhere, None, 404, &mute), spec().is_none());
    }
}
