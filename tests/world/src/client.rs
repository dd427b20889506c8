//! A client: somebody on a server, logged in or not, and the plain requests.

use crate::{Answer, Broken, Link, enc, server::SHARED_SECRET, spec};
use http::Method;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};

/// The password of every user of the tests.
pub const PASSWORD: &str = "correct horse battery";

/// Somebody on a server. Cheap to clone, and can be taken to other threads.
#[derive(Debug, Clone)]
pub struct Client {
    link: Link,
    server_name: String,
    token: Option<String>,
    refresh_token: Option<String>,
    user_id: String,
    device_id: String,
    loose: bool,
    /// The server is not held against the specification.
    unchecked: bool,
}

/// A number that no other call in this program gets.
fn number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A name that begins with `name` and that nobody else has in this program.
pub(crate) fn unique(name: &str) -> String {
    format!("{name}-{}", number())
}

impl Client {
    pub(crate) const fn anyone(link: Link, server_name: String) -> Self {
        Self {
            link,
            server_name,
            token: None,
            refresh_token: None,
            user_id: String::new(),
            device_id: String::new(),
            loose: false,
            unchecked: false,
        }
    }

    /// The same somebody on a server that is not under test: nothing is held against the specification.
    pub(crate) fn unchecked(self) -> Self {
        Self { unchecked: true, ..self }
    }

    /// The user's id; empty if not logged in.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.user_id
    }

    /// The user's id, percent-encoded for a path.
    #[must_use]
    pub fn id_in_path(&self) -> String {
        enc(&self.user_id)
    }

    /// The part of the user's id before the colon, without the `@`.
    #[must_use]
    pub fn localpart(&self) -> &str {
        self.user_id.split(':').next().unwrap_or_default().trim_start_matches('@')
    }

    /// The device's id.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.device_id
    }

    /// The access token; empty if there is none.
    #[must_use]
    pub fn token(&self) -> &str {
        self.token.as_deref().unwrap_or_default()
    }

    /// The refresh token, if the login gave one.
    #[must_use]
    pub fn refresh_token(&self) -> Option<&str> {
        self.refresh_token.as_deref()
    }

    /// The server's name.
    #[must_use]
    pub fn server_name(&self) -> &str {
        &self.server_name
    }

    /// The connections it uses.
    #[must_use]
    pub const fn link(&self) -> &Link {
        &self.link
    }

    /// The same somebody with another access token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// The same somebody, not logged in.
    #[must_use]
    pub fn without_token(&self) -> Self {
        Self { token: None, ..self.clone() }
    }

    /// The same somebody, whose requests are not held against the specification, for requests that are wrong or
    /// unspecified on purpose. Answers still are.
    #[must_use]
    pub fn loose(&self) -> Self {
        Self { loose: true, ..self.clone() }
    }

    // ---- requests

    /// The path of a request: below `/_matrix/client/`, unless it begins with a slash.
    fn path(path: &str) -> String {
        if path.starts_with('/') { path.to_owned() } else { format!("/_matrix/client/{path}") }
    }

    /// Sends a request with or without a JSON body.
    ///
    /// # Panics
    /// There is no answer, or request or answer break the specification.
    #[track_caller]
    #[must_use]
    pub fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let what = format!("{method} {path}");
        self.try_request(method, path, body).unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    /// As [`Self::request`], where the server may be gone.
    ///
    /// # Errors
    /// There is no answer.
    ///
    /// # Panics
    /// Request or answer break the specification.
    #[track_caller]
    pub fn try_request(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, Broken> {
        let path = Self::path(path);
        let bytes = body.map(Value::to_string).unwrap_or_default();
        let bearer = format!("Bearer {}", self.token());
        let mut headers = Vec::new();
        if self.token.is_some() {
            headers.push(("authorization", bearer.as_str()));
        }
        if body.is_some() {
            headers.push(("content-type", "application/json"));
        }
        let answer = self.link.send(&method, &path, &headers, bytes)?;
        if !self.unchecked {
            spec::check(&method, &path, if self.loose { None } else { Some(body) }, &answer);
        }
        Ok(answer)
    }

    /// Sends a body as it is, such as a file, with these headers and the access token.
    ///
    /// # Panics
    /// There is no answer, or the answer breaks the specification.
    #[track_caller]
    #[must_use]
    pub fn send_bytes(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<bytes::Bytes>,
    ) -> Answer {
        let path = Self::path(path);
        let bearer = format!("Bearer {}", self.token());
        let mut all = headers.to_vec();
        if self.token.is_some() {
            all.push(("authorization", &bearer));
        }
        let answer = self
            .link
            .send(&method, &path, &all, body)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        if !self.unchecked {
            spec::check(&method, &path, None, &answer);
        }
        answer
    }

    /// GET
    #[track_caller]
    #[must_use]
    pub fn get(&self, path: &str) -> Answer {
        self.request(Method::GET, path, None)
    }

    /// PUT
    #[track_caller]
    #[must_use]
    #[allow(clippy::needless_pass_by_value, reason = "reads well with json!")]
    pub fn put(&self, path: &str, body: Value) -> Answer {
        self.request(Method::PUT, path, Some(&body))
    }

    /// POST
    #[track_caller]
    #[must_use]
    #[allow(clippy::needless_pass_by_value, reason = "reads well with json!")]
    pub fn post(&self, path: &str, body: Value) -> Answer {
        self.request(Method::POST, path, Some(&body))
    }

    /// DELETE without a body
    #[track_caller]
    #[must_use]
    pub fn delete(&self, path: &str) -> Answer {
        self.request(Method::DELETE, path, None)
    }

    // ---- accounts

    fn logged_in(&self, body: &Value) -> Self {
        let text = |name: &str| body[name].as_str().map(str::to_owned);
        Self {
            token: text("access_token"),
            refresh_token: text("refresh_token"),
            user_id: text("user_id").unwrap_or_else(|| self.user_id.clone()),
            device_id: text("device_id").unwrap_or_else(|| self.device_id.clone()),
            ..self.clone()
        }
    }

    /// Registers a user whose name begins with `name` and whom nobody else has.
    ///
    /// # Panics
    /// It is refused.
    #[track_caller]
    #[must_use]
    pub fn register(&self, name: &str) -> Self {
        let body = json!({
            "username": unique(name),
            "password": PASSWORD,
            "auth": { "type": "m.login.dummy" },
        });
        self.logged_in(&self.post("v3/register", body).ok())
    }

    /// Registers a guest.
    ///
    /// # Panics
    /// It is refused.
    #[track_caller]
    #[must_use]
    pub fn register_guest(&self) -> Self {
        self.logged_in(&self.post("v3/register?kind=guest", json!({})).ok())
    }

    /// Registers a user by the shared secret of the tests, an administrator or not.
    ///
    /// # Panics
    /// It is refused.
    #[track_caller]
    #[must_use]
    pub fn register_by_secret(&self, name: &str, admin: bool) -> Self {
        let nonce = self.get("/_synapse/admin/v1/register").ok()["nonce"].as_str().unwrap().to_owned();
        let body = crate::secret::request(SHARED_SECRET, &nonce, &unique(name), PASSWORD, admin);
        self.logged_in(&self.post("/_synapse/admin/v1/register", body).ok())
    }

    /// Logs the same user in on another device.
    ///
    /// # Panics
    /// It is refused.
    #[track_caller]
    #[must_use]
    pub fn log_in_again(&self) -> Self {
        self.log_in_with(json!({}))
    }

    /// Logs the same user in with further fields in the request, such as `device_id` or `refresh_token`.
    ///
    /// # Panics
    /// It is refused.
    #[track_caller]
    #[must_use]
    pub fn log_in_with(&self, more: Value) -> Self {
        let mut body = json!({
            "type": "m.login.password",
            "identifier": { "type": "m.id.user", "user": self.user_id },
            "password": PASSWORD,
        });
        extend(&mut body, more);
        self.without_token().logged_in(&self.without_token().post("v3/login", body).ok())
    }

    /// The `auth` with which this user confirms a request by password, in the session that `challenge`, the answer
    /// to the request without it, opened.
    #[must_use]
    pub fn password_auth(&self, challenge: &Answer) -> Value {
        json!({
            "type": "m.login.password",
            "identifier": { "type": "m.id.user", "user": self.user_id },
            "password": PASSWORD,
            "session": challenge["session"],
        })
    }

    /// Makes a request that is to be confirmed by password: without, and then with it.
    ///
    /// # Panics
    /// The server does not ask for the password.
    #[track_caller]
    #[must_use]
    pub fn confirmed(&self, method: Method, path: &str, mut body: Value) -> Answer {
        let challenge = self.request(method.clone(), path, Some(&body));
        assert_eq!(challenge.status(), 401, "{}", challenge.describe());
        body["auth"] = self.password_auth(&challenge);
        self.request(method, path, Some(&body))
    }

    /// A transaction id that was not used yet.
    #[must_use]
    pub fn transaction(&self) -> String {
        unique("txn")
    }
}

/// Adds the fields of `more`.
pub(crate) fn extend(body: &mut Value, more: Value) {
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
}
