//! Server discovery and versions (specification: API versions, well-known URIs).

use crate::server;

#[test]
fn versions_are_told_without_a_token() {
    let versions = server().anyone().get("versions").ok();
    assert!(versions["versions"].as_array().unwrap().iter().any(|version| version == "v1.11"));
}
