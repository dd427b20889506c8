//! Files (specification: content repository).

use super::*;

/// The smallest PNG: one pixel.
const PNG: &[u8] = &[
    0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 0x0d, 0x49, 0x48, 0x44, 0x52, 0, 0, 0, 1, 0, 0,
    0, 1, 8, 6, 0, 0, 0, 0x1f, 0x15, 0xc4, 0x89, 0, 0, 0, 0x0d, 0x49, 0x44, 0x41, 0x54, 0x78, 0x9c, 0x63,
    0xf8, 0xcf, 0xc0, 0xf0, 0x1f, 0, 5, 0, 1, 0xff, 0x89, 0x99, 0x3d, 0x1d, 0, 0, 0, 0, 0x49, 0x45, 0x4e,
    0x44, 0xae, 0x42, 0x60, 0x82,
];

fn download(mxc: &str) -> String {
    format!("v1/media/download/{}", mxc.trim_start_matches("mxc://"))
}

#[test]
fn a_file_comes_back_as_it_was_sent() {
    let (alice, bob) = two_users();
    let mxc = alice.upload("text/plain", Some("tea.txt"), b"two spoons");
    let answer = bob.get(&download(&mxc));
    assert_eq!((answer.status(), &answer.bytes()[..]), (200, &b"two spoons"[..]));
    assert!(answer.header("content-type").unwrap().starts_with("text/plain"));
    let disposition = answer.header("content-disposition").unwrap();
    assert!(disposition.starts_with("inline") && disposition.contains("tea.txt"), "{disposition}");
}

#[test]
fn a_file_takes_a_token_and_the_old_way_is_closed() {
    let mxc = user("alice").upload("text/plain", None, b"x");
    server().anyone().get(&download(&mxc)).refused(401, "M_MISSING_TOKEN");
    let old = format!("/_matrix/media/v3/download/{}", mxc.trim_start_matches("mxc://"));
    server().anyone().get(&old).refused(404, "M_NOT_FOUND");
}

#[test]
fn the_old_way_can_be_opened() {
    let server = Server::with(PROGRAM, &[("media.unauthenticated_downloads", "true")]);
    let mxc = server.register("alice").upload("text/plain", None, b"x");
    let old = format!("/_matrix/media/v3/download/{}", mxc.trim_start_matches("mxc://"));
    assert_eq!(&server.anyone().get(&old).bytes()[..], b"x");
}

#[test]
fn a_file_is_downloaded_under_another_name() {
    let alice = user("alice");
    let mxc = alice.upload("text/plain", Some("tea.txt"), b"x");
    let answer = alice.get(&format!("{}/{}", download(&mxc), enc("kännchen.txt")));
    let disposition = answer.header("content-disposition").unwrap();
    assert!(disposition.contains("filename*=utf-8''k%C3%A4nnchen.txt"), "{disposition}");
}

#[test]
fn what_a_browser_could_run_is_not_shown_inline() {
    let alice = user("alice");
    for kind in ["text/html", "image/svg+xml", "application/javascript", "application/octet-stream"] {
        let answer = alice.get(&download(&alice.upload(kind, Some("x"), b"<script>")));
        assert!(answer.header("content-disposition").unwrap().starts_with("attachment"), "{kind}");
    }
}

#[test]
fn a_file_comes_with_the_headers_that_keep_it_harmless() {
    let alice = user("alice");
    let answer = alice.get(&download(&alice.upload("text/html", None, b"<script>")));
    let policy = answer.header("content-security-policy").unwrap();
    for part in ["sandbox", "default-src 'none'", "script-src 'none'", "object-src 'self'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert_eq!(answer.header("cross-origin-resource-policy"), Some("cross-origin"));
}

#[test]
fn a_part_of_a_file_is_sent_on_demand() {
    let alice = user("alice");
    let path = download(&alice.upload("text/plain", None, b"0123456789"));
    let part = |range: &str| alice.send_bytes_unchecked(&path, range);
    let answer = part("bytes=2-4");
    assert_eq!((answer.status(), &answer.bytes()[..]), (206, &b"234"[..]));
    assert_eq!(answer.header("content-range"), Some("bytes 2-4/10"));
    assert_eq!(&part("bytes=-3").bytes()[..], b"789");
    assert_eq!(part("bytes=20-").status(), 416);
}

/// Downloads with a range, whose statuses the specification's data does not know.
trait Part {
    fn send_bytes_unchecked(&self, path: &str, range: &str) -> Answer;
}

impl Part for Client {
    fn send_bytes_unchecked(&self, path: &str, range: &str) -> Answer {
        let bearer = format!("Bearer {}", self.token());
        let headers = [("authorization", bearer.as_str()), ("range", range)];
        self.link().send(&Method::GET, &format!("/_matrix/client/{path}"), &headers, "").unwrap()
    }
}

#[test]
fn a_file_that_is_not_there_is_not_found() {
    let alice = user("alice");
    alice.get("v1/media/download/here.test/nothing").refused(404, "M_NOT_FOUND");
    assert!(matches!(alice.get("v1/media/download/elsewhere.test/nothing").status(), 404 | 502 | 504));
}

#[test]
fn an_upload_takes_a_token() {
    let answer = server().anyone().send_bytes(Method::POST, "/_matrix/media/v3/upload", &[], "x");
    answer.refused(401, "M_MISSING_TOKEN");
}

#[test]
fn the_largest_upload_is_told_and_larger_ones_are_refused() {
    let server = Server::with(PROGRAM, &[("media.max_upload_bytes", "2000")]);
    let alice = server.register("alice");
    assert_eq!(alice.get("v1/media/config").ok()["m.upload.size"], 2000);
    let _ = alice.upload("text/plain", None, &[b'x'; 2000]);
    let answer = alice.send_bytes(Method::POST, "/_matrix/media/v3/upload", &[], vec![b'x'; 2001]);
    answer.refused(413, "M_TOO_LARGE");
}

#[test]
fn an_id_is_made_first_and_filled_later_once() {
    let (alice, bob) = two_users();
    let mxc = text(&alice.post("/_matrix/media/v1/create", json!({})).ok()["content_uri"]);
    let path = format!("/_matrix/media/v3/upload/{}", mxc.trim_start_matches("mxc://"));
    bob.get(&format!("{}?timeout_ms=10", download(&mxc))).refused(504, "M_NOT_YET_UPLOADED");
    bob.send_bytes(Method::PUT, &path, &[("content-type", "text/plain")], "x").refused(403, "M_FORBIDDEN");
    alice.send_bytes(Method::PUT, &path, &[("content-type", "text/plain")], "x").done();
    assert_eq!(&bob.get(&download(&mxc)).bytes()[..], b"x");
    alice.send_bytes(Method::PUT, &path, &[], "y").refused(409, "M_CANNOT_OVERWRITE_MEDIA");
}

#[test]
fn not_too_many_ids_are_made_without_being_filled() {
    let server = Server::with(PROGRAM, &[("media.max_pending_uploads", "2")]);
    let alice = server.register("alice");
    for _ in 0..2 {
        alice.post("/_matrix/media/v1/create", json!({})).done();
    }
    alice.post("/_matrix/media/v1/create", json!({})).refused(429, "M_LIMIT_EXCEEDED");
}

#[test]
fn an_image_has_thumbnails() {
    let alice = user("alice");
    let mxc = alice.upload("image/png", None, PNG);
    let id = mxc.trim_start_matches("mxc://");
    for method in ["scale", "crop"] {
        let answer = alice.get(&format!("v1/media/thumbnail/{id}?width=32&height=32&method={method}"));
        assert_eq!(answer.status(), 200, "{}", answer.describe());
        assert!(answer.header("content-type").unwrap().starts_with("image/"));
        assert!(answer.header("content-disposition").unwrap().starts_with("inline"));
    }
}

#[test]
fn what_is_no_image_has_no_thumbnail() {
    let alice = user("alice");
    let mxc = alice.upload("image/png", None, b"no image at all");
    let path = format!("v1/media/thumbnail/{}?width=32&height=32", mxc.trim_start_matches("mxc://"));
    let answer = alice.get(&path);
    assert!(matches!(answer.status(), 400 | 404), "{}", answer.describe());
}

#[test]
fn a_thumbnail_has_a_size() {
    let alice = user("alice");
    let id = alice.upload("image/png", None, PNG);
    let id = id.trim_start_matches("mxc://");
    for query in
        ["", "?width=32", "?width=0&height=32", "?width=x&height=32", "?width=32&height=32&method=melt"]
    {
        let answer = alice.get(&format!("v1/media/thumbnail/{id}{query}"));
        assert_eq!(answer.status(), 400, "{query}: {}", answer.describe());
    }
}

#[test]
fn a_file_lives_through_a_restart() {
    let server = Server::start(PROGRAM);
    let alice = server.register("alice");
    let large = vec![b'x'; 700_000];
    let mxc = alice.upload("application/octet-stream", None, &large);
    server.kill();
    server.start_again();
    assert_eq!(alice.get(&download(&mxc)).bytes()[..], large[..]);
}
