use super::*;
use crate::statement::Statement;
use axum::{Json, Router, body::Body as AxumBody, routing::post};
use postern_config::Config;
use postern_graph::{Graph, Settings};
use postern_media::Media;
use postern_rooms::{Rooms, now_ms};
use postern_users::{Cost, Users};
use ruma::server_name;
use serde_json::json;
use std::{path::Path as File, sync::Arc};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

fn claimed(values: &[&str]) -> Result<(OwnedServerName, usize), String> {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(header::AUTHORIZATION, value.parse().unwrap());
    }
    claims(&headers, server_name!("here.test")).map(|(origin, claims)| (origin, claims.len())).map_err(
        |error| {
            assert_eq!((error.status(), error.errcode()), (StatusCode::UNAUTHORIZED, "M_UNAUTHORIZED"));
            error.message().to_owned()
        },
    )
}

#[test]
fn a_request_may_be_signed_with_several_keys_of_one_server() {
    let there: OwnedServerName = server_name!("there.test").to_owned();
    let one = r#"X-Matrix origin="there.test",destination="here.test",key="ed25519:1",sig="s""#;
    let two = r#"X-Matrix origin="there.test",key="ed25519:2",sig="s""#;
    assert_eq!(claimed(&[one]), Ok((there.clone(), 1)));
    assert_eq!(claimed(&[one, two, "Bearer x"]), Ok((there, 2)));
}

#[test]
fn a_request_is_refused_that_is_not_clearly_from_one_other_server_to_this_one() {
    let from =
        |origin: &str, more: &str| format!(r#"X-Matrix origin="{origin}"{more},key="ed25519:1",sig="s""#);
    let (there, other) = (from("there.test", ""), from("other.test", ""));
    for wrong in [
        vec![],
        vec!["Bearer x"],
        vec!["X-Matrix x"],
        vec![&*from("here.test", "")],
        vec![&*from("there.test", r#",destination="there.test""#)],
        vec![&*from("there.test", r#",destination="here.test:8448""#)],
        vec![&*there, &*other],
        vec![&*there, "X-Matrix origin=there.test"],
        vec![&*there; SIGNATURES + 1],
    ] {
        assert!(claimed(&wrong).is_err(), "{wrong:?}");
    }
}

fn graph(directory: &File, name: &str) -> Arc<Graph> {
    Graph::open(&Settings { path: directory.join(name), block_cache: 1 << 20 }).unwrap()
}

/// This server, which knows the keys of another, and the other one.
struct Scene {
    federation: Federation,
    there: Rooms,
    _directory: tempfile::TempDir,
}

impl Scene {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        change(&mut config);
        let own = server_name!("here.test");
        let here = graph(directory.path(), "here");
        let rooms = Arc::new(Rooms::new(here.clone(), own, "12").unwrap());
        let cost = Cost { memory_kib: 8, iterations: 1, parallelism: 1 };
        let users = postern_users::Settings { password_cost: cost, access_token_ms: 1 };
        let users = Arc::new(Users::new(here.clone(), own, users));
        let media = postern_media::Settings {
            max_upload_bytes: 1,
            max_image_pixels: 1,
            dynamic_thumbnails: false,
            pending_upload_lifetime_ms: 1,
            max_pending_uploads: 1,
        };
        let media = Arc::new(Media::new(here.clone(), own.as_str(), media));
        let stopping = CancellationToken::new();
        let federation =
            Federation::new(Arc::new(config), here, rooms, users, media, Arc::default(), stopping).unwrap();
        let there = graph(directory.path(), "there");
        let there = Rooms::new(there, server_name!("there.test"), "12").unwrap();
        let scene = Self { federation, there, _directory: directory };
        scene.told_keys(now_ms() + 60_000);
        scene
    }

    /// The other server has told its keys, which hold until then.
    fn told_keys(&self, until: u64) {
        let said = self.there.keys().signed_server_keys(until).unwrap();
        let statement = Statement::check(said, server_name!("there.test"), now_ms()).unwrap();
        self.federation.0.ring.keep(&statement, true).unwrap();
    }

    fn sign(&self, method: &str, uri: &str, content: Option<&Value>) -> String {
        self.there.keys().sign_request(method, uri, server_name!("here.test"), content)
    }

    async fn ask(&self, method: &str, uri: &str, authorization: &str, body: &str) -> (u16, Value) {
        let routes: Router<Federation> = Router::new().route("/signed/{name}", post(signed).get(signed_get));
        let router = routes
            .route_layer(axum::middleware::from_fn_with_state(self.federation.clone(), check))
            .method_not_allowed_fallback(|| async { StatusCode::METHOD_NOT_ALLOWED })
            .with_state(self.federation.clone());
        let mut request = Request::builder().method(method).uri(uri);
        if !authorization.is_empty() {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request.body(AxumBody::from(body.to_owned())).unwrap();
        let answer = router.oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }
}

async fn signed(Origin(origin): Origin, Body(body): Body<Value>) -> Json<Value> {
    Json(json!({ "origin": origin, "body": body }))
}

async fn signed_get(Origin(origin): Origin, Params(name): Params<String>) -> Json<Value> {
    Json(json!({ "origin": origin, "name": name }))
}

#[tokio::test]
async fn a_signed_request_is_let_through_as_what_it_is() {
    let scene = Scene::new(|_| {});
    let uri = "/signed/a%2Fb?x=%20y&x=z";
    let answer = scene.ask("GET", uri, &scene.sign("GET", uri, None), "").await;
    assert_eq!(answer, (200, json!({ "origin": "there.test", "name": "a/b" })));
    let content = json!({ "b": [1.5, "\u{e9}"], "a": {} });
    let header = scene.sign("POST", "/signed/x", Some(&content));
    let answer = scene.ask("POST", "/signed/x", &header, " {\"b\": [1.5, \"\\u00e9\"],\n\"a\":{}}").await;
    assert_eq!(answer, (200, json!({ "origin": "there.test", "body": content })));
}

#[tokio::test]
async fn a_signature_is_for_one_method_uri_and_body() {
    let scene = Scene::new(|_| {});
    let content = json!({ "a": 1 });
    let header = scene.sign("POST", "/signed/x?y=1", Some(&content));
    for (method, uri, body) in [
        ("GET", "/signed/x?y=1", r#"{"a":1}"#),
        ("POST", "/signed/x", r#"{"a":1}"#),
        ("POST", "/signed/x?y=%31", r#"{"a":1}"#),
        ("POST", "/signed/x?y=1", r#"{"a":2}"#),
        ("POST", "/signed/x?y=1", ""),
    ] {
        let (status, answer) = scene.ask(method, uri, &header, body).await;
        assert_eq!((status, &answer["errcode"]), (401, &json!("M_UNAUTHORIZED")), "{method} {uri} {body}");
    }
    assert_eq!(scene.ask("POST", "/signed/x", "", "{}").await.0, 401);
    let to_another = scene.there.keys().sign_request("GET", "/signed/x", server_name!("b.test"), None);
    assert_eq!(scene.ask("GET", "/signed/x", &to_another, "").await.0, 401);
    // Said to be for this server, signed for another.
    let passed_on = to_another.replace("b.test", "here.test");
    assert_eq!(scene.ask("GET", "/signed/x", &passed_on, "").await.0, 401);
    let before_1_3 = scene.sign("GET", "/signed/x", None).replace(r#"destination="here.test","#, "");
    assert_eq!(scene.ask("GET", "/signed/x", &before_1_3, "").await.0, 200);
}

#[tokio::test]
async fn a_key_that_has_run_out_signs_no_requests() {
    let scene = Scene::new(|_| {});
    let header = scene.sign("GET", "/signed/x", None);
    scene.told_keys(now_ms() - 1);
    assert_eq!(scene.ask("GET", "/signed/x", &header, "").await.0, 401);
    scene.told_keys(now_ms() + 60_000);
    assert_eq!(scene.ask("GET", "/signed/x", &header, "").await.0, 200);
    let unknown = header.replace("ed25519:", "ed25519:x");
    assert_eq!(scene.ask("GET", "/signed/x", &unknown, "").await.0, 401);
    let post_quantum = header.replace("ed25519:", "mldsa:");
    assert_eq!(scene.ask("GET", "/signed/x", &post_quantum, "").await.0, 401);
}

#[tokio::test]
async fn a_body_means_one_thing_only() {
    let scene = Scene::new(|_| {});
    for (body, content, errcode) in [
        (r#"{"a":1,"a":2}"#, json!({ "a": 2 }), "M_BAD_JSON"),
        ("{", json!({}), "M_NOT_JSON"),
        ("[]", json!([]), "M_BAD_JSON"),
    ] {
        let header = scene.sign("POST", "/signed/x", Some(&content));
        let (status, answer) = scene.ask("POST", "/signed/x", &header, body).await;
        assert_eq!((status, &answer["errcode"]), (400, &json!(errcode)), "{body}");
    }
}

#[tokio::test]
async fn servers_this_one_does_not_speak_with_are_told_so() {
    let patterns = |text: &str| postern_config::ServerPattern::parse(text).into_iter().collect::<Vec<_>>();
    for (allowed, denied, status) in [
        (patterns("*.test"), patterns(""), 200),
        (patterns("*.test"), patterns("there.*"), 403),
        (patterns("other.test"), patterns(""), 403),
    ] {
        let scene = Scene::new(|config| {
            config.federation.allowed_servers = allowed;
            config.federation.denied_servers = denied;
        });
        let header = scene.sign("GET", "/signed/x", None);
        assert_eq!(scene.ask("GET", "/signed/x", &header, "").await.0, status);
    }
}

#[tokio::test]
async fn a_wrong_method_is_told_without_a_signature() {
    let scene = Scene::new(|_| {});
    assert_eq!(scene.ask("PUT", "/signed/x", "", "{}").await.0, 405);
}
