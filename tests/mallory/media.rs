//! Files: fetching them from a hostile server, and what a hostile user makes of them.

use crate::{Mallory, answers::file, listen::Reply, server_with, shared, until};
use postern_world::{Answer, Client, Method, Server, enc};
use serde_json::json;
use std::time::Duration;

fn download(who: &Client, server: &str, id: &str) -> Answer {
    who.get(&format!("v1/media/download/{}/{}", enc(server), enc(id)))
}

/// The path below which a server has its files over federation.
const DOWNLOAD: &str = "v1/media/download";

#[test]
fn attack_38_files_are_for_who_is_somebody() {
    let (here, mallory) = (shared(), Mallory::new());
    let alice = here.register("alice");
    let mxc = alice.upload("text/plain", None, b"a file");
    let id = mxc.rsplit('/').next().unwrap();
    let nobody = here.anyone();
    let both = format!("{}/{}", enc(here.name()), enc(id));
    for path in [
        format!("v1/media/download/{both}"),
        format!("v1/media/download/{both}/name.txt"),
        format!("v1/media/thumbnail/{both}?width=9&height=9"),
    ] {
        assert_eq!(nobody.get(&path).status(), 401, "{path}");
    }
    assert_eq!(nobody.get(&format!("/_matrix/media/v3/download/{both}")).status(), 404);
    // Nobody makes this server fetch, which would fill its disk with what they like.
    let theirs = format!("{}/{}", enc(mallory.name()), "file");
    for path in [
        format!("/_matrix/media/v3/download/{theirs}"),
        format!("/_matrix/media/r0/thumbnail/{theirs}?width=9&height=9"),
        format!("v1/media/download/{theirs}"),
    ] {
        assert!(nobody.get(&path).status() >= 400, "{path}");
    }
    assert!(mallory.seen("media").is_empty());
    // Over federation only with a signature; with one it comes.
    let target = format!("/_matrix/federation/{DOWNLOAD}/{}", enc(id));
    mallory.ask_as(here, &Method::GET, &target, &[], None).refused(401, "M_UNAUTHORIZED");
    let told = mallory.get(here, &format!("{DOWNLOAD}/{}", enc(id)));
    assert!(String::from_utf8_lossy(told.bytes()).contains("a file"), "{}", told.describe());
    assert_eq!(&download(&alice, mallory.name(), "file").bytes()[..], b"a file of mallory's");
}

#[test]
fn attack_38_a_file_of_another_server_is_not_told_on() {
    let (here, mallory, other) = (shared(), Mallory::new(), Mallory::new());
    let alice = here.register("alice");
    download(&alice, mallory.name(), "copied").done();
    other.get(here, &format!("{DOWNLOAD}/copied")).refused(404, "M_NOT_FOUND");
}

#[test]
fn attack_38_an_id_is_no_path() {
    let (here, mallory) = (shared(), Mallory::new());
    let alice = here.register("alice");
    let ids = [
        "..%2F..%2F..%2Fetc%2Fpasswd",
        "..%252f..%252fetc%252fpasswd",
        "%2Fetc%2Fpasswd",
        "..%5C..%5Cetc",
        "a%00b",
        "%2E%2E",
        "%C3%A4",
        "a%2Fb",
        "%E2%80%AE",
        "%FF",
    ];
    for id in ids.into_iter().map(str::to_owned).chain(["x".repeat(5_000)]) {
        for server in [here.name(), mallory.name()] {
            let path = format!("/_matrix/client/v1/media/download/{}/{id}", enc(server));
            let answer = alice.loose().get(&path);
            assert!((400..500).contains(&answer.status()), "{path}: {}", answer.describe());
            assert!(!String::from_utf8_lossy(answer.bytes()).contains("root:"), "{path}");
        }
        let answer = mallory.get(here, &format!("{DOWNLOAD}/{id}"));
        assert!((400..500).contains(&answer.status()), "{id}: {}", answer.describe());
    }
    // Nor is a server's name, and nobody was asked for any of these.
    for name in ["..", "%2E%2E%2F", "a%2Fb", "%00", "a@b", "127.0.0.1%3A80%2F..%2F"] {
        let answer = alice.loose().get(&format!("/_matrix/client/v1/media/download/{name}/file"));
        assert!(answer.status() >= 400, "{name}: {}", answer.describe());
    }
    assert!(mallory.seen("media").is_empty(), "{:?}", mallory.seen("media"));
}

#[test]
fn attack_38_what_a_file_says_of_itself_does_not_make_a_browser_run_it() {
    let (here, mallory) = (shared(), Mallory::new());
    let alice = here.register("alice");
    let kinds = [
        "text/html",
        "TEXT/HTML",
        "text/html; charset=utf-8",
        " text/html",
        "text/plain, text/html",
        "image/svg+xml",
        "Image/SVG+xml",
        "application/xhtml+xml",
        "text/xml",
        "application/javascript",
        "application/pdf",
        "",
        "x",
    ];
    for (n, kind) in kinds.into_iter().enumerate() {
        let script = b"<script>alert(1)</script>";
        let headers = [("content-type", kind), ("content-disposition", "inline; filename=x.html")];
        mallory.always("download", file("application/json", "{}", &headers, script));
        let theirs = download(&alice, mallory.name(), &format!("script{n}"));
        let mut answers = vec![theirs];
        if !kind.is_empty() {
            let own = alice.upload(kind.trim(), Some("x.html"), script);
            answers.push(download(&alice, here.name(), own.rsplit('/').next().unwrap()));
        }
        for answer in answers {
            assert_eq!(answer.status(), 200, "{kind}: {}", answer.describe());
            let disposition = answer.header("content-disposition").unwrap_or_default();
            assert!(disposition.starts_with("attachment"), "{kind}: {disposition}");
            let policy = answer.header("content-security-policy").unwrap_or_default();
            assert!(policy.contains("sandbox") && policy.contains("default-src 'none'"), "{kind}: {policy}");
            assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{kind}");
        }
    }
}

#[test]
fn attack_38_the_name_of_a_file_adds_nothing_to_the_header() {
    let (here, mallory) = (shared(), Mallory::new());
    let alice = here.register("alice");
    let names = [
        "attachment; filename=\"../../etc/passwd\"",
        "inline; filename*=utf-8''a%0D%0ASet-Cookie%3A%20x%3D1",
        "inline; filename=\"a\\\"; filename=b.html\"",
        "inline; filename*=utf-8''%00%01%E2%80%AE",
        "inline; filename=\"",
        "inline; filename*=utf-8''%FF%FE",
    ];
    for (n, name) in names.into_iter().enumerate() {
        let headers = [("content-type", "text/plain"), ("content-disposition", name)];
        mallory.always("download", file("application/json", "{}", &headers, b"x"));
        let answer = download(&alice, mallory.name(), &format!("named{n}"));
        assert_eq!(answer.status(), 200, "{name}: {}", answer.describe());
        assert!(answer.header("set-cookie").is_none(), "{name}");
        let disposition = answer.header("content-disposition").unwrap();
        assert!(!disposition.contains(['\r', '\n', '\0']), "{name}: {disposition}");
    }
}

#[test]
fn attack_38_thumbnails_are_made_of_images_that_are_what_they_say() {
    let here = shared();
    let alice = here.register("alice");
    let png = |width: u32, height: u32| {
        let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        bytes.extend(width.to_be_bytes());
        bytes.extend(height.to_be_bytes());
        bytes.extend([8, 6, 0, 0, 0, 0, 0, 0, 0]);
        bytes
    };
    let svg =
        b"<svg xmlns=\"http://www.w3.org/2000/svg\"><image href=\"file:///etc/passwd\"/></svg>".to_vec();
    let files = [
        ("image/svg+xml", svg.clone()),
        ("image/png", svg),
        ("application/pdf", b"%PDF-1.7 1 0 obj".to_vec()),
        ("image/png", b"%PDF-1.7 1 0 obj".to_vec()),
        ("application/postscript", b"%!PS-Adobe-3.0 EPSF-3.0".to_vec()),
        ("image/jpeg", b"%!PS-Adobe-3.0 EPSF-3.0".to_vec()),
        ("image/png", png(100_000, 100_000)),
        ("image/png", png(u32::MAX, u32::MAX)),
        ("image/png", png(0, 0)),
        ("image/gif", b"GIF89a\xff\xff\xff\xff\x80\0\0".to_vec()),
        ("image/tiff", b"II*\0\x08\0\0\0".to_vec()),
        ("video/mp4", b"\0\0\0\x18ftypmp42".to_vec()),
        ("image/png", Vec::new()),
    ];
    for (kind, bytes) in files {
        let mxc = alice.upload(kind, None, &bytes);
        let id = mxc.rsplit('/').next().unwrap();
        let path =
            format!("v1/media/thumbnail/{}/{}?width=32&height=32&method=scale", enc(here.name()), enc(id));
        let answer = alice.get(&path);
        assert!((400..500).contains(&answer.status()), "{kind}: {}", answer.describe());
        download(&alice, here.name(), id).done();
    }
    for size in ["width=0&height=0", "width=-1&height=5", "width=99999999999&height=1", "width=x&height=y"] {
        let mxc = alice.upload("image/png", None, &png(1, 1));
        let id = mxc.rsplit('/').next().unwrap();
        let path = format!("v1/media/thumbnail/{}/{}?{size}", enc(here.name()), enc(id));
        assert!((400..500).contains(&alice.loose().get(&path).status()), "{size}");
    }
}

#[test]
fn attack_38_a_file_that_is_too_large_or_never_ends_is_not_kept() {
    let here: Server = server_with(&[("media.max_upload_bytes", "100000")]);
    let mallory = Mallory::new();
    let alice = here.register("alice");
    let head =
        b"--edge\r\nContent-Type: application/json\r\n\r\n{}\r\n--edge\r\nContent-Type: text/plain\r\n\r\n";
    let mut endless = Reply::bytes("multipart/mixed; boundary=edge", vec![b'x'; 50_000]);
    endless.first = head[..].into();
    endless.times = 1_000;
    mallory.always("download", endless);
    let answer = download(&alice, mallory.name(), "endless");
    assert!(answer.status() >= 400, "{}", answer.describe());
    let big = file("application/json", "{}", &[("content-type", "text/plain")], &[b'x'; 100_001]);
    mallory.always("download", big);
    assert!(download(&alice, mallory.name(), "big").status() >= 400);
    // Broken off, and no multipart at all.
    for (id, reply) in [
        ("cut", Reply::bytes("multipart/mixed; boundary=edge", &head[..])),
        ("one-part", Reply::bytes("multipart/mixed; boundary=edge", &b"--edge\r\n\r\n{}\r\n--edge--"[..])),
        ("no-boundary", Reply::bytes("multipart/mixed", &head[..])),
        ("empty-boundary", Reply::bytes("multipart/mixed; boundary=\"\"", &head[..])),
        ("not-multipart", Reply::bytes("text/html", &b"<html>"[..])),
        ("gzip", file("application/json", "{}", &[], b"x").with("content-encoding", "gzip")),
    ] {
        mallory.always("download", reply);
        let answer = download(&alice, mallory.name(), id);
        assert!(answer.status() >= 400, "{id}: {}", answer.describe());
        mallory.be_honest();
        // Nothing of it is kept: asked again, it is fetched again.
        until(|| download(&alice, mallory.name(), id).status() == 200, "the honest file comes");
    }
}

#[test]
fn attack_57_and_58_a_file_that_is_said_to_be_elsewhere_is_not_fetched_from_special_addresses() {
    // A server that may connect to the hostile server's address, and to no other special one.
    let mallory = Mallory::new();
    let host = mallory.name().split(':').next().unwrap().to_owned();
    let here = server_with(&[
        ("federation.allow_addresses", &format!("{host}/32")),
        ("federation.connect_timeout_ms", "1000"),
    ]);
    let alice = here.register("alice");
    let inside = Mallory::new();
    let port = inside.name().rsplit(':').next().unwrap().to_owned();
    let places = [
        format!("https://{}/secret", inside.name()),
        format!("https://127.0.0.1:{port}/secret"),
        format!("https://localhost:{port}/secret"),
        format!("https://[::1]:{port}/secret"),
        format!("https://[::ffff:127.0.0.1]:{port}/secret"),
        format!("https://[64:ff9b::7f00:1]:{port}/secret"),
        format!("https://[2002:7f00:1::]:{port}/secret"),
        "https://[fe80::1]/secret".to_owned(),
        "https://[fd00::1]/secret".to_owned(),
        "https://169.254.169.254/latest/meta-data".to_owned(),
        "https://10.0.0.1/secret".to_owned(),
        "https://0.0.0.0/secret".to_owned(),
        "https://2130706433/secret".to_owned(),
        "https://0x7f.1/secret".to_owned(),
        format!("http://{}/secret", mallory.name()),
        format!("https://user@{}/secret", mallory.name()),
        "file:///etc/passwd".to_owned(),
        "gopher://127.0.0.1/".to_owned(),
        "//127.0.0.1/secret".to_owned(),
        "/etc/passwd".to_owned(),
    ];
    for (n, place) in places.iter().enumerate() {
        for way in ["part", "redirect"] {
            let reply = if way == "part" {
                file("application/json", "{}", &[("location", place.as_str())], b"")
            } else {
                Reply { status: 302, ..Reply::json(&json!({})) }.with("location", place)
            };
            mallory.always("download", reply);
            let answer = download(&alice, mallory.name(), &format!("{way}{n}"));
            assert!(answer.status() >= 400, "{place}: {}", answer.describe());
            assert!(!String::from_utf8_lossy(answer.bytes()).contains("root:"), "{place}");
        }
    }
    assert!(inside.seen("secret").is_empty());
    // Where it may be fetched from, it is; and a redirect from there is not followed.
    mallory.always("secret", Reply::bytes("text/plain", "a file from a store"));
    let place = format!("https://{}/secret", mallory.name());
    mallory.always("download", file("application/json", "{}", &[("location", place.as_str())], b""));
    assert_eq!(&download(&alice, mallory.name(), "allowed").bytes()[..], b"a file from a store");
    let loop_back = Reply { status: 302, ..Reply::json(&json!({})) }.with("location", &place);
    mallory.always("secret", loop_back);
    assert!(download(&alice, mallory.name(), "loop").status() >= 400);
    assert!(mallory.seen("secret").len() <= 4, "{}", mallory.seen("secret").len());
}

#[test]
fn attack_38_a_file_that_does_not_come_holds_up_nobody() {
    let (here, mallory) = (shared(), Mallory::new());
    let alice = here.register("alice");
    let mut slow = file("application/json", "{}", &[("content-type", "text/plain")], b"late");
    slow.after = Duration::from_secs(3);
    mallory.always("download", slow);
    std::thread::scope(|scope| {
        let asked: Vec<_> = (0..20)
            .map(|n| {
                let (alice, name) = (&alice, mallory.name());
                scope.spawn(move || download(alice, name, &format!("slow{}", n % 2)))
            })
            .collect();
        let room = alice.create_public_room();
        alice.send_text(&room, "meanwhile");
        for one in asked {
            one.join().unwrap().done();
        }
    });
    assert_eq!(mallory.seen("download").len(), 2, "each is fetched once, however many ask");
}
