//! An endpoint, and a right request to it: what the wrong ones are made from.

use postern_world::Method;
use serde_json::Value;

/// Whose token an endpoint wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// A user's.
    Needed,
    /// A user's, or none.
    Optional,
    /// It looks at no token.
    None,
}

/// What a right body is.
#[derive(Debug, Clone)]
pub enum Body {
    /// None; one that is sent is not looked at.
    None,
    /// An object whose fields have these types.
    Fields(Value),
    /// Any object.
    Free(Value),
    /// A file.
    File,
}

/// What a parameter of the query is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A whole number from 0.
    Number,
    /// True or false.
    Bool,
    /// One of some words, or a token of this server.
    Word,
    /// A filter as JSON.
    Filter,
}

/// An endpoint.
#[derive(Debug, Clone)]
pub struct Endpoint {
    pub method: Method,
    /// With parameters in braces; see [`crate::scene::Scene::fill`].
    pub path: &'static str,
    pub auth: Auth,
    pub body: Body,
    /// Parameters that are always sent, in the form they have in a query.
    pub query: &'static str,
    /// Parameters and what they are.
    pub params: &'static [(&'static str, Kind)],
    /// Parameters of the path in which anything is right: what they name need not be there.
    pub any_path: bool,
    /// The status of the answer to the right request.
    pub status: u16,
    /// Whether a user must confirm it: the right request is answered with what is missing.
    pub confirmed: bool,
}

impl Endpoint {
    const fn new(method: Method, path: &'static str) -> Self {
        Self {
            method,
            path,
            auth: Auth::Needed,
            body: Body::None,
            query: "",
            params: &[],
            any_path: false,
            status: 200,
            confirmed: false,
        }
    }

    pub fn auth(self, auth: Auth) -> Self {
        Self { auth, ..self }
    }

    pub fn fields(self, body: Value) -> Self {
        Self { body: Body::Fields(body), ..self }
    }

    pub fn free(self, body: Value) -> Self {
        Self { body: Body::Free(body), ..self }
    }

    pub fn file(self) -> Self {
        Self { body: Body::File, ..self }
    }

    pub fn query(self, query: &'static str) -> Self {
        Self { query, ..self }
    }

    pub fn params(self, params: &'static [(&'static str, Kind)]) -> Self {
        Self { params, ..self }
    }

    pub fn any_path(self) -> Self {
        Self { any_path: true, ..self }
    }

    pub fn status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    pub fn confirmed(self) -> Self {
        Self { confirmed: true, status: 401, ..self }
    }

    /// The whole path, from the root.
    pub fn full_path(&self) -> String {
        if self.path.starts_with('/') {
            self.path.to_owned()
        } else {
            format!("/_matrix/client/{}", self.path)
        }
    }

    /// The right body as text.
    pub fn right_body(&self) -> String {
        match &self.body {
            Body::None => String::new(),
            Body::Fields(body) | Body::Free(body) => body.to_string(),
            Body::File => "a file".to_owned(),
        }
    }
}

pub const fn get(path: &'static str) -> Endpoint {
    Endpoint::new(Method::GET, path)
}

pub const fn put(path: &'static str) -> Endpoint {
    Endpoint::new(Method::PUT, path)
}

pub const fn post(path: &'static str) -> Endpoint {
    Endpoint::new(Method::POST, path)
}

pub const fn delete(path: &'static str) -> Endpoint {
    Endpoint::new(Method::DELETE, path)
}
