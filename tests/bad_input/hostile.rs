//! Clients that are slow, greedy, or speak something else: each is cut off within a bound, and others are served.

use crate::PROGRAM;
use postern_world::{Client, Server, enc};
use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::Duration,
};

/// Longest time for an answer or the end of a connection that must come.
const PATIENCE: Duration = Duration::from_secs(60);

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// All that comes until the connection ends, in whatever way.
#[track_caller]
fn until_ended(stream: &mut TcpStream) -> Vec<u8> {
    let mut got = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return got,
            Ok(n) => got.extend_from_slice(&buffer[..n]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("the connection stays open; so far: {}", String::from_utf8_lossy(&got))
            }
            // Reset: as good an end.
            Err(_) => return got,
        }
    }
}

/// The status line and what else comes with it.
#[track_caller]
fn answer(stream: &mut TcpStream) -> String {
    let mut buffer = vec![0; 64 << 10];
    let n = stream.read(&mut buffer).expect("an answer");
    String::from_utf8_lossy(&buffer[..n]).into_owned()
}

/// Everybody else is served.
#[track_caller]
fn still_serves(client: &Client) {
    assert_eq!(client.get("v3/account/whoami").ok()["user_id"], client.id());
}

#[test]
fn a_header_that_trickles_in_is_cut_off() {
    let server = Server::with(PROGRAM, &[("limits.header_read_timeout_ms", "300")]);
    let alice = server.register("alice");
    let mut stream = connect(&server);
    stream.write_all(b"GET /_matrix/client/versions HTTP/1.1\r\nx: ").unwrap();
    // Ten times as long as it may take; that a byte comes now and then does not help.
    let cut = (0..60).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        stream.write_all(b"x").is_err()
    });
    if !cut {
        until_ended(&mut stream);
    }
    still_serves(&alice);
}

#[test]
fn a_body_that_stops_coming_is_given_up() {
    let server = Server::with(PROGRAM, &[("limits.stalled_timeout_ms", "300")]);
    let alice = server.register("alice");
    for path in [
        format!("/_matrix/client/v3/profile/{}/displayname", enc(alice.id())),
        "/_matrix/media/v3/upload".to_owned(),
    ] {
        let method = if path.contains("upload") { "POST" } else { "PUT" };
        let mut stream = connect(&server);
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: 1000\r\n\r\n{{\"a\":",
            alice.token()
        );
        stream.write_all(head.as_bytes()).unwrap();
        let got = String::from_utf8_lossy(&until_ended(&mut stream)).into_owned();
        assert!(got.is_empty() || got.starts_with("HTTP/1.1 4"), "{got}");
    }
    still_serves(&alice);
}

#[test]
fn a_body_that_is_announced_as_too_large_is_refused_before_it_comes() {
    let server = Server::with(PROGRAM, &[("limits.max_request_body_bytes", "65536")]);
    let alice = server.register("alice");
    for (method, path) in [
        ("PUT", format!("/_matrix/client/v3/profile/{}/displayname", enc(alice.id()))),
        ("POST", "/_matrix/client/v3/createRoom".to_owned()),
        ("POST", "/_matrix/media/v3/upload".to_owned()),
    ] {
        let mut stream = connect(&server);
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: 99999999999\r\n\r\n",
            alice.token()
        );
        stream.write_all(head.as_bytes()).unwrap();
        let answer = answer(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 413"), "{path}: {answer}");
        assert!(answer.contains("M_TOO_LARGE"), "{path}: {answer}");
    }
    still_serves(&alice);
}

#[test]
fn a_body_that_never_ends_is_not_taken_in() {
    const ENOUGH: usize = 64 << 20;
    let server = Server::with(
        PROGRAM,
        &[("limits.max_request_body_bytes", "65536"), ("media.max_upload_bytes", "65536")],
    );
    let alice = server.register("alice");
    for path in ["/_matrix/client/v3/createRoom", "/_matrix/media/v3/upload"] {
        let mut stream = connect(&server);
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ntransfer-encoding: chunked\r\n\r\n",
            alice.token()
        );
        stream.write_all(head.as_bytes()).unwrap();
        let chunk = format!("8000\r\n{}\r\n", " ".repeat(0x8000));
        let mut sent = 0;
        while sent < ENOUGH && stream.write_all(chunk.as_bytes()).is_ok() {
            sent += 0x8000;
        }
        assert!(sent < ENOUGH, "{path}: the server takes in all");
    }
    still_serves(&alice);
}

#[test]
fn who_takes_nothing_of_an_answer_is_cut_off() {
    const SIZE: usize = 48 << 20;
    let server = Server::with(PROGRAM, &[("limits.stalled_timeout_ms", "300")]);
    let alice = server.register("alice");
    let file = alice.upload("application/octet-stream", None, &vec![7; SIZE]);
    let path = format!("/_matrix/client/v1/media/download/{}", file.trim_start_matches("mxc://"));
    let mut stream = connect(&server);
    let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n", alice.token());
    stream.write_all(head.as_bytes()).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert!(until_ended(&mut stream).len() < SIZE, "what was not taken was kept");
    still_serves(&alice);
}

#[test]
fn more_connections_than_allowed_wait_until_another_ends() {
    const ALLOWED: usize = 4;
    let server = Server::with(PROGRAM, &[("limits.max_connections", &ALLOWED.to_string())]);
    let mut open = Vec::new();
    // Those that asked whether it is ready may still be there.
    let mut waiting = loop {
        let mut stream = connect(&server);
        stream.write_all(b"GET /_matrix/client/versions HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        match stream.read(&mut [0; 4096]) {
            Ok(n) if n > 0 => open.push(stream),
            _ => break stream,
        }
        assert!(open.len() <= ALLOWED, "more connections are served than allowed");
    };
    assert!(!open.is_empty());
    open.pop();
    waiting.set_read_timeout(Some(PATIENCE)).unwrap();
    let answer = answer(&mut waiting);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn what_is_no_http_is_answered_or_cut_off() {
    let server = Server::with(PROGRAM, &[("limits.header_read_timeout_ms", "300")]);
    let alice = server.register("alice");
    let many = "x: y\r\n".repeat(1_000);
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"\0\0\0\0\0\0\0\0",
        b"hello\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /_matrix/client/versions HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"GET /_matrix/client/versions HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST /_matrix/client/v3/login HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        format!("GET /_matrix/client/versions HTTP/1.1\r\n{many}\r\n").as_bytes(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        let mut stream = connect(&server);
        stream.write_all(bytes).unwrap();
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        let got = until_ended(&mut stream);
        let first = String::from_utf8_lossy(&got[..got.len().min(12)]).into_owned();
        let fine = got.is_empty() || first.starts_with("HTTP/1.1 4") || bytes.starts_with(b"PRI");
        assert!(fine, "{shown}: {}", String::from_utf8_lossy(&got));
    }
    still_serves(&alice);
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

#[test]
fn a_long_query_is_read_and_one_beyond_all_is_refused() {
    let server = Server::start(PROGRAM);
    let alice = server.register("alice");
    for (length, expected) in
        [(30_000, &["200"][..]), (100_000, &["414", "431"]), (2_000_000, &["400", "414", "431"])]
    {
        let mut stream = connect(&server);
        let head = format!(
            "GET /_matrix/client/v3/account/whoami?x={} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
            "x".repeat(length),
            alice.token()
        );
        // The server may have said no before all was sent.
        if stream.write_all(head.as_bytes()).is_ok() {
            let mut buffer = [0; 4096];
            if let Ok(n) = stream.read(&mut buffer) {
                let status = String::from_utf8_lossy(&buffer[..n]).split(' ').nth(1).map(str::to_owned);
                assert!(status.is_none_or(|status| expected.contains(&status.as_str())), "{length}");
            }
        }
    }
    still_serves(&alice);
}
