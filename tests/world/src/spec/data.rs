//! Reading the OpenAPI data: files, references between them, and the endpoints they describe.

use jsonschema::{Draft, Validator};
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

const METHODS: [&str; 4] = ["get", "put", "post", "delete"];

/// The files read so far.
#[derive(Debug, Default)]
struct Files {
    read: Mutex<BTreeMap<PathBuf, Arc<Value>>>,
}

impl Files {
    fn get(&self, path: &Path) -> Arc<Value> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let load = || {
            let text =
                std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let value =
                serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            Arc::new(value)
        };
        read.entry(path.to_owned()).or_insert_with(load).clone()
    }

    /// `value`, which stands in `file`, with everything it refers to put in place.
    fn resolve(&self, value: &Value, file: &Path, within: &mut Vec<String>) -> Value {
        match value {
            Value::Object(object) => match object.get("$ref") {
                Some(Value::String(reference)) => self.refer(reference.trim(), object, file, within),
                _ => object
                    .iter()
                    .filter(|(key, _)| !matches!(key.as_str(), "example" | "examples"))
                    .map(|(key, value)| (key.clone(), self.resolve(value, file, within)))
                    .collect::<Map<_, _>>()
                    .into(),
            },
            Value::Array(array) => array.iter().map(|value| self.resolve(value, file, within)).collect(),
            other => other.clone(),
        }
    }

    fn refer(
        &self,
        reference: &str,
        object: &Map<String, Value>,
        file: &Path,
        within: &mut Vec<String>,
    ) -> Value {
        let (name, pointer) = reference.split_once('#').unwrap_or((reference, ""));
        let target = if name.is_empty() { file.to_owned() } else { beside(file, name) };
        let place = format!("{}#{pointer}", target.display());
        if within.contains(&place) {
            // A schema within itself: one level is enough.
            return json!({});
        }
        within.push(place);
        let loaded = self.get(&target);
        let found = loaded.pointer(pointer).unwrap_or_else(|| panic!("{}: no {reference}", file.display()));
        let resolved = self.resolve(found, &target, within);
        let mut rest = object.clone();
        rest.remove("$ref");
        rest.remove("description");
        let rest = self.resolve(&Value::Object(rest), file, within);
        within.pop();
        if rest == json!({}) { resolved } else { json!({ "allOf": [resolved, rest] }) }
    }
}

/// The file that `name` means when it stands in `file`.
fn beside(file: &Path, name: &str) -> PathBuf {
    let mut path = PathBuf::new();
    for part in file.with_file_name(name).components() {
        if part == Component::ParentDir {
            path.pop();
        } else {
            path.push(part);
        }
    }
    path
}

/// A schema, made ready when it is first needed.
#[derive(Debug)]
struct Lazy {
    value: Value,
    file: PathBuf,
    files: Arc<Files>,
    ready: OnceLock<Validator>,
}

impl Lazy {
    fn new(value: &Value, file: &Path, files: &Arc<Files>) -> Self {
        Self { value: value.clone(), file: file.to_owned(), files: files.clone(), ready: OnceLock::new() }
    }

    fn get(&self) -> &Validator {
        self.ready.get_or_init(|| {
            let schema = self.files.resolve(&self.value, &self.file, &mut Vec::new());
            jsonschema::options()
                .with_draft(Draft::Draft202012)
                .build(&schema)
                .unwrap_or_else(|error| panic!("{}: {error}", self.file.display()))
        })
    }
}

/// What an endpoint answers with one status.
#[derive(Debug)]
pub struct Response {
    status: String,
    json: Option<Lazy>,
}

impl Response {
    /// The schema of its JSON body; nothing if it has none.
    pub(crate) fn schema(&self) -> Option<&Validator> {
        self.json.as_ref().map(Lazy::get)
    }
}

/// A parameter of the query.
#[derive(Debug)]
pub struct Parameter {
    pub(crate) name: String,
    pub(crate) required: bool,
    pub(crate) kind: String,
    schema: Lazy,
}

impl Parameter {
    pub(crate) fn schema(&self) -> &Validator {
        self.schema.get()
    }
}

/// An endpoint.
#[derive(Debug)]
pub struct Endpoint {
    /// Its method, in capitals.
    pub method: String,
    /// Its path, with parameters in braces.
    pub path: String,
    /// Whether the specification deprecates it.
    pub deprecated: bool,
    /// Whether it is there only for who has an access token.
    pub needs_token: bool,
    /// Whether a request must have a body.
    pub request_required: bool,
    segments: Vec<String>,
    request: Option<Lazy>,
    responses: Vec<Response>,
    query: Vec<Parameter>,
}

impl Endpoint {
    /// The schema of a request's JSON body; nothing if it has none.
    pub(crate) fn request(&self) -> Option<&Validator> {
        self.request.as_ref().map(Lazy::get)
    }

    pub(crate) fn response(&self, status: u16) -> Option<&Response> {
        let status = status.to_string();
        self.responses.iter().find(|response| response.status == status)
    }

    #[cfg(test)]
    pub(crate) fn responses(&self) -> &[Response] {
        &self.responses
    }

    pub(crate) fn query(&self) -> &[Parameter] {
        &self.query
    }

    /// How well it fits a path: how many segments are equal, if all fit.
    fn fit(&self, segments: &[&str]) -> Option<usize> {
        if segments.len() != self.segments.len() {
            return None;
        }
        let mut equal = 0;
        for (own, given) in self.segments.iter().zip(segments) {
            if own == given {
                equal += 1;
            } else if !own.starts_with('{') {
                return None;
            }
        }
        Some(equal)
    }
}

/// The client-server API.
#[derive(Debug)]
pub(crate) struct Spec {
    endpoints: Vec<Endpoint>,
    error: Lazy,
    challenge: Lazy,
}

impl Spec {
    /// Reads the descriptions below `folder`.
    pub(crate) fn load(folder: &Path) -> Self {
        let folder =
            folder.canonicalize().expect("the folder of the specification").join("data/api/client-server");
        let files = Arc::new(Files::default());
        let mut names: Vec<PathBuf> = std::fs::read_dir(&folder)
            .expect("the folder of the client-server API")
            .map(|entry| entry.expect("its files").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
            .collect();
        names.sort();
        let mut endpoints = Vec::new();
        for file in &names {
            read_file(file, &files, &mut endpoints);
        }
        let definition = |name: &str| {
            Lazy::new(&json!({ "$ref": format!("definitions/{name}") }), &folder.join("here"), &files)
        };
        let (error, challenge) = (definition("errors/error.yaml"), definition("auth_response.yaml"));
        Self { endpoints, error, challenge }
    }

    pub(crate) fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The schema of all errors.
    pub(crate) fn error(&self) -> &Validator {
        self.error.get()
    }

    /// The schema of what an interactive authentication asks for.
    pub(crate) fn challenge(&self) -> &Validator {
        self.challenge.get()
    }

    /// The endpoint that a request is for.
    pub(crate) fn find(&self, method: &str, path: &str) -> Option<&Endpoint> {
        let segments: Vec<&str> = path.split('/').collect();
        self.endpoints
            .iter()
            .filter(|endpoint| endpoint.method == method)
            .filter_map(|endpoint| Some((endpoint.fit(&segments)?, endpoint)))
            // Of several, two of which can describe one path, the first counts.
            .rev()
            .max_by_key(|(equal, _)| *equal)
            .map(|(_, endpoint)| endpoint)
    }
}

fn read_file(file: &Path, files: &Arc<Files>, endpoints: &mut Vec<Endpoint>) {
    let document = files.get(file);
    let base = document["servers"][0]["variables"]["basePath"]["default"].as_str().unwrap_or_default();
    let Some(paths) = document["paths"].as_object() else { return };
    for (path, operations) in paths {
        for method in METHODS {
            if let Some(operation) = operations.get(method) {
                let path = format!("{base}{}", path.trim());
                endpoints.push(read_operation(&path, method, operation, file, files));
            }
        }
    }
}

fn read_operation(path: &str, method: &str, operation: &Value, file: &Path, files: &Arc<Files>) -> Endpoint {
    // What stands around schemas may be elsewhere too; schemas are followed once needed.
    let shallow = |value: &Value| match value.get("$ref").and_then(Value::as_str) {
        Some(reference) => {
            let pointer =
                reference.strip_prefix('#').unwrap_or_else(|| panic!("{}: {reference}", file.display()));
            files.get(file).pointer(pointer).cloned().unwrap_or_default()
        }
        None => value.clone(),
    };
    let body = shallow(&operation["requestBody"]);
    let json = |body: &Value| {
        body.pointer("/content/application~1json/schema").map(|schema| Lazy::new(schema, file, files))
    };
    let responses = operation["responses"].as_object().into_iter().flatten();
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    Endpoint {
        method: method.to_uppercase(),
        path: path.to_owned(),
        deprecated: operation["deprecated"] == true,
        needs_token: operation["security"].as_array().is_some_and(|ways| !ways.is_empty()),
        request_required: body["required"] == true,
        segments: path.split('/').map(str::to_owned).collect(),
        request: json(&body),
        responses: responses
            .map(|(status, response)| Response { status: status.clone(), json: json(&shallow(response)) })
            .collect(),
        query: parameters
            .map(shallow)
            .filter_map(|parameter| read_parameter(&parameter, file, files))
            .collect(),
    }
}

fn read_parameter(parameter: &Value, file: &Path, files: &Arc<Files>) -> Option<Parameter> {
    if parameter["in"] != "query" {
        return None;
    }
    let schema = parameter.get("schema")?;
    Some(Parameter {
        name: parameter["name"].as_str()?.to_owned(),
        required: parameter["required"] == true,
        kind: schema["type"].as_str().unwrap_or("string").to_owned(),
        schema: Lazy::new(schema, file, files),
    })
}
