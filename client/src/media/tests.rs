//! The endpoints, from request to response.

use crate::{Api, http::Limiter, router};
use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request, StatusCode, header},
};
use http_body_util::BodyExt;
use postern_config::Config;
use postern_graph::Graph;
use postern_media::Media;
use postern_push::Push;
use postern_rooms::Rooms;
use postern_users::{Cost, Users};
use ruma::server_name;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

struct World {
    router: Router,
    _directory: tempfile::TempDir,
}

struct Got {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The status and the Matrix error code.
    fn error(&self) -> (u16, String) {
        (self.status.as_u16(), self.json()["errcode"].as_str().unwrap_or_default().to_owned())
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

fn world(settings: &[(&str, &str)]) -> World {
    let directory = tempfile::tempdir().unwrap();
    let open = [("registration.mode", "open"), ("registration.guests", "true")];
    let config = Config::with(open.iter().chain(settings).copied()).unwrap();
    let name = server_name!("localhost");
    let graph =
        Graph::open(&postern_graph::Settings { path: directory.path().join("graph"), block_cache: 1 << 20 })
            .unwrap();
    let rooms = Rooms::new(graph.clone(), name, "11").unwrap();
    let cost = Cost { memory_kib: 8, iterations: 1, parallelism: 1 };
    let users = Users::new(
        graph.clone(),
        name,
        postern_users::Settings { password_cost: cost, access_token_ms: 300_000 },
    );
    let media = Media::new(
        graph.clone(),
        name.as_str(),
        postern_media::Settings {
            max_upload_bytes: config.media.max_upload_bytes,
            max_image_pixels: config.media.max_image_pixels,
            dynamic_thumbnails: config.media.dynamic_thumbnails,
            pending_upload_lifetime_ms: config.media.pending_upload_lifetime_ms,
            max_pending_uploads: config.media.max_pending_uploads,
        },
    );
    let (rooms, users, media) = (Arc::new(rooms), Arc::new(users), Arc::new(media));
    let stopping = CancellationToken::new();
    let push = Push::new(graph.clone(), rooms.clone(), users.clone(), postern_push::Settings::default());
    let api = Api::new(
        Arc::new(config),
        graph,
        rooms,
        users,
        media,
        push,
        Arc::new(Limiter::default()),
        Arc::new(postern_web::Nowhere),
        stopping,
    );
    World { router: router(api), _directory: directory }
}

impl World {
    async fn ask(&self, request: Request<Body>) -> Got {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Got { status: parts.status, headers: parts.headers, body }
    }

    async fn register(&self, kind: &str, name: &str) -> String {
        let body =
            json!({ "username": name, "password": "correct horse", "auth": { "type": "m.login.dummy" } });
        let request = Request::post(format!("/_matrix/client/v3/register?kind={kind}"))
            .body(Body::from(body.to_string()))
            .unwrap();
        let got = self.ask(request).await;
        assert_eq!(got.status, 200, "{}", String::from_utf8_lossy(&got.body));
        got.json()["access_token"].as_str().unwrap().to_owned()
    }

    async fn get(&self, token: &str, path: &str, headers: &[(header::HeaderName, &str)]) -> Got {
        let mut request = Request::get(path).header(header::AUTHORIZATION, format!("Bearer {token}"));
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        self.ask(request.body(Body::empty()).unwrap()).await
    }

    async fn send(&self, method: &str, token: &str, path: &str, kind: &str, body: impl Into<Body>) -> Got {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::CONTENT_TYPE, kind)
            .body(body.into())
            .unwrap();
        self.ask(request).await
    }

    /// Uploads; returns `server/id`.
    async fn upload(&self, token: &str, name: &str, kind: &str, body: impl Into<Body>) -> String {
        let path = format!("/_matrix/media/v3/upload?filename={name}");
        let got = self.send("POST", token, &path, kind, body).await;
        assert_eq!(got.status, 200, "{}", String::from_utf8_lossy(&got.body));
        place(&got)
    }

    async fn create(&self, token: &str) -> String {
        place(&self.send("POST", token, "/_matrix/media/v1/create", "", "").await)
    }
}

fn place(got: &Got) -> String {
    got.json()["content_uri"].as_str().unwrap().strip_prefix("mxc://").unwrap().to_owned()
}

#[tokio::test]
async fn a_file_comes_back_with_the_headers_that_make_it_harmless() {
    let world = world(&[]);
    let token = world.register("user", "anna").await;
    let uri = world.upload(&token, "caf%C3%A9%20menu.html", "text/html", "<script>").await;
    let got = world.get(&token, &format!("/_matrix/client/v1/media/download/{uri}"), &[]).await;
    assert_eq!((got.status, got.body.as_slice()), (StatusCode::OK, &b"<script>"[..]));
    for (name, value) in [
        ("content-type", "text/html"),
        ("content-length", "8"),
        ("content-disposition", "attachment; filename*=utf-8''caf%C3%A9%20menu.html"),
        ("cross-origin-resource-policy", "cross-origin"),
        ("x-content-type-options", "nosniff"),
        ("accept-ranges", "bytes"),
        ("cache-control", "private,immutable,max-age=86400"),
        (
            "content-security-policy",
            "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; \
             style-src 'unsafe-inline'; object-src 'self';",
        ),
    ] {
        assert_eq!(got.header(name), value, "{name}");
    }
    let named = format!("/_matrix/client/v1/media/download/{uri}/other%20name.txt");
    let got = world.get(&token, &named, &[]).await;
    assert_eq!(got.header("content-disposition"), "attachment; filename=\"other name.txt\"");
}

#[tokio::test]
async fn what_is_known_already_is_not_sent_again() {
    let world = world(&[]);
    let token = world.register("user", "anna").await;
    let path =
        format!("/_matrix/client/v1/media/download/{}", world.upload(&token, "a", "text/plain", "x").await);
    let etag = world.get(&token, &path, &[]).await.header("etag").to_owned();
    let got = world.get(&token, &path, &[(header::IF_NONE_MATCH, &etag)]).await;
    assert_eq!((got.status, got.body.len()), (StatusCode::NOT_MODIFIED, 0));
    let got = world.get(&token, &path, &[(header::IF_NONE_MATCH, "\"other\"")]).await;
    assert_eq!(got.status, StatusCode::OK);
}

#[tokio::test]
async fn a_large_file_is_uploaded_and_read_in_ranges() {
    // More than other bodies may have, in parts of unknown total length.
    let world = world(&[("limits.max_request_body_bytes", "65536")]);
    let token = world.register("user", "anna").await;
    let content: Vec<u8> = (0..1_000_000_u32).map(|i| (i % 253) as u8).collect();
    let parts: Vec<Result<Vec<u8>, std::io::Error>> =
        content.chunks(30_000).map(|p| Ok(p.to_vec())).collect();
    let body = Body::from_stream(futures::stream::iter(parts));
    let uri = world.upload(&token, "film", "video/mp4", body).await;
    let path = format!("/_matrix/client/v1/media/download/{uri}");
    let whole = world.get(&token, &path, &[]).await;
    assert!(whole.body == content);
    let got = world.get(&token, &path, &[(header::RANGE, "bytes=262000-524299")]).await;
    assert_eq!(got.status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(got.header("content-range"), "bytes 262000-524299/1000000");
    assert!(got.body == content[262_000..524_300]);
    let got = world.get(&token, &path, &[(header::RANGE, "bytes=-5")]).await;
    assert_eq!(got.body, content[999_995..]);
    let got = world.get(&token, &path, &[(header::RANGE, "bytes=1000000-")]).await;
    assert_eq!(got.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(got.header("content-range"), "bytes */1000000");
    let other = [(header::RANGE, "bytes=0-4"), (header::IF_RANGE, "\"other\"")];
    assert_eq!(world.get(&token, &path, &other).await.status, StatusCode::OK);
    let etag = whole.header("etag");
    let same = [(header::RANGE, "bytes=0-4"), (header::IF_RANGE, etag)];
    assert_eq!(world.get(&token, &path, &same).await.body, content[..5]);
}

#[tokio::test]
async fn uploads_have_a_bound_of_their_own_also_if_they_do_not_say_how_long_they_are() {
    let world = world(&[("media.max_upload_bytes", "2000")]);
    let token = world.register("user", "anna").await;
    let config = world.get(&token, "/_matrix/client/v1/media/config", &[]).await;
    assert_eq!(config.json(), json!({ "m.upload.size": 2000 }));
    let path = "/_matrix/media/v3/upload";
    assert_eq!(world.send("POST", &token, path, "", vec![0; 2000]).await.status, StatusCode::OK);
    let got = world.send("POST", &token, path, "", vec![0; 2001]).await;
    assert_eq!(got.error(), (413, "M_TOO_LARGE".to_owned()));
    let parts = (0..5).map(|_| Ok::<_, std::io::Error>(vec![0; 500]));
    let got = world.send("POST", &token, path, "", Body::from_stream(futures::stream::iter(parts))).await;
    assert_eq!(got.error(), (413, "M_TOO_LARGE".to_owned()));
}

#[tokio::test]
async fn guests_may_download_but_not_upload_and_strangers_neither() {
    let world = world(&[]);
    let token = world.register("user", "anna").await;
    let guest = world.register("guest", "").await;
    let uri = world.upload(&token, "a", "text/plain", "x").await;
    let path = format!("/_matrix/client/v1/media/download/{uri}");
    assert_eq!(world.get(&guest, &path, &[]).await.status, StatusCode::OK);
    for path in ["/_matrix/media/v3/upload", "/_matrix/media/v1/create"] {
        let got = world.send("POST", &guest, path, "text/plain", "x").await;
        assert_eq!(got.error(), (403, "M_GUEST_ACCESS_FORBIDDEN".to_owned()));
        let got = world.ask(Request::post(path).body(Body::empty()).unwrap()).await;
        assert_eq!(got.error(), (401, "M_MISSING_TOKEN".to_owned()));
    }
    for path in [path, format!("/_matrix/client/v1/media/thumbnail/{uri}")] {
        let got = world.ask(Request::get(path).body(Body::empty()).unwrap()).await;
        assert_eq!(got.error(), (401, "M_MISSING_TOKEN".to_owned()));
    }
}

#[tokio::test]
async fn without_a_token_nothing_is_served_unless_the_operator_wants_it() {
    for (open, expected) in [("false", 404), ("true", 200)] {
        let world = world(&[("media.unauthenticated_downloads", open)]);
        let token = world.register("user", "anna").await;
        let uri = world.upload(&token, "a.txt", "text/plain", "x").await;
        for path in
            [format!("/_matrix/media/v3/download/{uri}"), format!("/_matrix/media/r0/download/{uri}/b.txt")]
        {
            let got = world.ask(Request::get(&path).body(Body::empty()).unwrap()).await;
            assert_eq!(got.status.as_u16(), expected, "{path}");
            if expected == 404 {
                assert_eq!(got.error().1, "M_NOT_FOUND");
            } else {
                assert!(got.header("cache-control").starts_with("public"));
            }
        }
    }
}

#[tokio::test]
async fn an_id_made_first_is_uploaded_to_once_by_who_made_it() {
    let world = world(&[("media.max_pending_uploads", "2")]);
    let anna = world.register("user", "anna").await;
    let ben = world.register("user", "ben").await;
    let uri = world.create(&anna).await;
    let download = format!("/_matrix/client/v1/media/download/{uri}");
    let got = world.get(&anna, &format!("{download}?timeout_ms=0"), &[]).await;
    assert_eq!(got.error(), (504, "M_NOT_YET_UPLOADED".to_owned()));

    let path = format!("/_matrix/media/v3/upload/{uri}");
    assert_eq!(world.send("PUT", &ben, &path, "", "x").await.error(), (403, "M_FORBIDDEN".to_owned()));
    let unknown = "/_matrix/media/v3/upload/localhost/unknown";
    assert_eq!(world.send("PUT", &anna, unknown, "", "x").await.error(), (404, "M_NOT_FOUND".to_owned()));
    let elsewhere = "/_matrix/media/v3/upload/elsewhere.example/abc";
    assert_eq!(world.send("PUT", &anna, elsewhere, "", "x").await.error(), (404, "M_NOT_FOUND".to_owned()));

    assert_eq!(world.send("PUT", &anna, &path, "text/plain", "first").await.json(), json!({}));
    let got = world.send("PUT", &anna, &path, "", "second").await;
    assert_eq!(got.error(), (409, "M_CANNOT_OVERWRITE_MEDIA".to_owned()));
    assert_eq!(world.get(&anna, &download, &[]).await.body, b"first");

    world.create(&anna).await;
    world.create(&anna).await;
    let got = world.send("POST", &anna, "/_matrix/media/v1/create", "", "").await;
    assert_eq!(got.error(), (429, "M_LIMIT_EXCEEDED".to_owned()));
    world.create(&ben).await;
}

#[tokio::test]
async fn a_download_that_began_too_early_gets_the_file_once_it_is_there() {
    let world = world(&[]);
    let token = world.register("user", "anna").await;
    let uri = world.create(&token).await;
    let (download, upload) =
        (format!("/_matrix/client/v1/media/download/{uri}"), format!("/_matrix/media/v3/upload/{uri}"));
    let (got, _) = tokio::join!(world.get(&token, &download, &[]), async {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        world.send("PUT", &token, &upload, "text/plain", "late").await
    });
    assert_eq!(got.body, b"late");
}

/// A PNG, 1 x 1 pixels, red.
const DOT: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x02\0\0\0\x90wS\xde\0\0\0\x0cIDATx\x9cc\xf8\xcf\xc0\0\0\x03\x01\x01\0\xc9\xfe\x92\xef\0\0\0\0IEND\xaeB`\x82";

#[tokio::test]
async fn images_have_thumbnails_and_nothing_else_has() {
    let world = world(&[]);
    let token = world.register("user", "anna").await;
    // What somebody says it is does not count.
    let dot = world.upload(&token, "dot", "text/html", DOT).await;
    let base = "/_matrix/client/v1/media/thumbnail";
    let got = world.get(&token, &format!("{base}/{dot}?width=32&height=32&method=crop"), &[]).await;
    assert_eq!((got.status, got.header("content-type")), (StatusCode::OK, "image/png"));
    assert_eq!(got.header("content-disposition"), "inline; filename=thumbnail.png");
    let text = world.upload(&token, "text", "image/png", "no image").await;
    for (query, expected) in [
        (format!("{text}?width=32&height=32"), (400, "M_UNKNOWN")),
        (format!("{dot}?width=32"), (400, "M_MISSING_PARAM")),
        (format!("{dot}?width=0&height=32"), (400, "M_INVALID_PARAM")),
        (format!("{dot}?width=-1&height=32"), (400, "M_INVALID_PARAM")),
        (format!("{dot}?width=32&height=32&method=stretch"), (400, "M_INVALID_PARAM")),
        ("localhost/unknown?width=32&height=32".to_owned(), (404, "M_NOT_FOUND")),
        ("elsewhere.example/abc?width=32&height=32".to_owned(), (404, "M_NOT_FOUND")),
    ] {
        let (status, code) = world.get(&token, &format!("{base}/{query}"), &[]).await.error();
        assert_eq!((status, code.as_str()), expected, "{query}");
    }
}

#[tokio::test]
async fn an_image_that_is_too_large_for_a_thumbnail_is_said_to_be() {
    let world = world(&[("media.max_image_pixels", "10000")]);
    let token = world.register("user", "anna").await;
    // A GIF that claims to have 65535 x 65535 pixels.
    let gif =
        &b"GIF89a\xff\xff\xff\xff\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\xff\xff\xff\xff\0\x02\x02D\x01\0;"[..];
    let uri = world.upload(&token, "bomb", "image/gif", gif).await;
    let path = format!("/_matrix/client/v1/media/thumbnail/{uri}?width=32&height=32&method=crop");
    assert_eq!(world.get(&token, &path, &[]).await.error(), (413, "M_TOO_LARGE".to_owned()));
}

#[tokio::test]
async fn previews_of_links_are_not_offered() {
    let world = world(&[]);
    let token = world.register("user", "anna").await;
    let path = "/_matrix/client/v1/media/preview_url?url=http://localhost/";
    assert_eq!(world.get(&token, path, &[]).await.error(), (404, "M_UNRECOGNIZED".to_owned()));
}
