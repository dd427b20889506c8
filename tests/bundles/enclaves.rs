//! Two enclaves and what is carried between them.

use crate::PROGRAM;
use postern_world::{Client, Server};
use serde_json::{Value, json};
use std::{fs, path::PathBuf, process::Output};
use tempfile::TempDir;

/// A server to which no network leads, with its border's directory.
pub struct Enclave {
    pub server: Server,
    pub directory: TempDir,
    pub admin: Client,
}

/// Two enclaves that know each other as peers by hand: `a` and `b`.
pub struct Pair {
    pub a: Enclave,
    pub b: Enclave,
    /// What is carried: `ab` and `ba`.
    pub media: TempDir,
}

/// What one enclave's `border.toml` says.
pub struct Says<'a> {
    pub clearance: &'a str,
    pub peer_clearance: &'a str,
    pub out: bool,
    pub into: bool,
    /// Lines of `[link.carried.in]` and of `[link.carried.out]`.
    pub in_lines: &'a str,
    pub out_lines: &'a str,
}

impl Default for Says<'_> {
    fn default() -> Self {
        Self {
            clearance: "Company CONFIDENTIAL",
            peer_clearance: "Company CONFIDENTIAL",
            out: true,
            into: true,
            in_lines: "",
            out_lines: "",
        }
    }
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

impl Enclave {
    fn prepare(name: &str) -> (Server, TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().display().to_string();
        // No listener for federation, and nobody who could be asked: there is no network.
        let settings = [
            ("server.name", name),
            ("federation.enabled", "false"),
            ("border.directory", &path),
            ("log.level", "info"),
        ];
        fs::write(directory.path().join("border.toml"), "").unwrap();
        (Server::prepare(PROGRAM, &settings), directory)
    }

    /// Runs `postern bundle …` as this enclave's administrator.
    pub fn bundle(&self, arguments: &[&str]) -> Output {
        self.server.run(&[&["bundle"], arguments, &["--token", self.admin.token()]].concat())
    }

    /// The same, and the answer.
    pub fn done(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&text(&self.bundle(arguments))).unwrap()
    }

    pub fn export(&self) -> Value {
        self.done(&["export", "courier"])["bundles"][0].clone()
    }

    pub fn import(&self) -> Value {
        self.done(&["import", "courier"])
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn register(&self, name: &str) -> Client {
        self.server.register(name)
    }
}

impl Pair {
    pub fn new() -> Self {
        Self::saying(&Says::default(), &Says::default())
    }

    /// Two enclaves that say this of themselves and each other. The keys are made as an officer makes them.
    pub fn saying(of_a: &Says<'_>, of_b: &Says<'_>) -> Self {
        let media = tempfile::tempdir().unwrap();
        let ((a, in_a), (b, in_b)) = (Enclave::prepare("a.example"), Enclave::prepare("b.example"));
        let keygen = |server: &Server, at: &TempDir, kind: &str, name: &str| {
            let to = at.path().display().to_string();
            text(&server.run(&["bundle", "keygen", kind, "--to", &to, "--name", name]))
        };
        let recipient = |printed: &str| {
            printed.split_whitespace().find(|word| word.starts_with("age1")).unwrap().to_owned()
        };
        keygen(&a, &in_a, "link", "ab");
        keygen(&b, &in_b, "link", "ba");
        let (to_a, to_b) = (
            recipient(&keygen(&a, &in_a, "identity", "own")),
            recipient(&keygen(&b, &in_b, "identity", "own")),
        );
        fs::copy(in_a.path().join("ab.link.json"), in_b.path().join("ab.link.json")).unwrap();
        fs::copy(in_b.path().join("ba.link.json"), in_a.path().join("ba.link.json")).unwrap();
        let media_path = media.path().display().to_string();
        let write = |at: &TempDir,
                     says: &Says<'_>,
                     peer: &str,
                     (out, into): (&str, &str),
                     recipient: &str| {
            let Says { clearance, peer_clearance, in_lines, out_lines, .. } = says;
            let mut document = format!(
                "default_clearance = \"{clearance}\"\n[[link]]\nname = \"courier\"\nclearance = \"Company CONFIDENTIAL\"\n"
            );
            if says.out {
                document += &format!(
                    "[link.carried.out]\ndirectory = \"{media_path}/{out}\"\nlink = \"{out}.link.json\"\nkey = \"{out}.link.secret\"\nrecipients = [\"{recipient}\"]\n{out_lines}\n"
                );
            }
            if says.into {
                document += &format!(
                    "[link.carried.in]\ndirectory = \"{media_path}/{into}\"\nlink = \"{into}.link.json\"\nidentity = \"own.identity.secret\"\n{in_lines}\n"
                );
            }
            document += &format!(
                "[[peer]]\nname = \"{peer}\"\nclearance = \"{peer_clearance}\"\nlink = \"courier\"\n"
            );
            fs::write(at.path().join("border.toml"), document).unwrap();
        };
        write(&in_a, of_a, "b.example", ("ab", "ba"), &to_b);
        write(&in_b, of_b, "a.example", ("ba", "ab"), &to_a);
        let start = |server: Server, directory: TempDir| {
            server.start_again();
            let admin = server.anyone().register_by_secret("admin", true);
            Enclave { server, directory, admin }
        };
        Self { a: start(a, in_a), b: start(b, in_b), media }
    }

    /// The files of a direction, in order.
    pub fn files(&self, direction: &str) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.media.path().join(direction)) else { return Vec::new() };
        let mut files: Vec<_> =
            entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
        files.sort();
        files
    }

    /// Carries what there is from `a` to `b`; what the import said.
    pub fn to_b(&self) -> Value {
        self.a.export();
        good(self.b.import())
    }

    /// Carries what there is from `b` to `a`.
    pub fn to_a(&self) -> Value {
        self.b.export();
        good(self.a.import())
    }

    /// Room of `alice` of `a` and `bob` of `b`, both in it and knowing so.
    pub fn shared_room(&self, alice: &Client, bob: &Client, request: Value) -> String {
        let mut request = request;
        request["invite"] = json!([bob.id()]);
        let room = alice.create_room(request);
        self.to_b();
        bob.join(&room);
        self.to_a();
        self.to_b();
        room
    }
}

/// An import in which nothing was refused.
#[track_caller]
pub fn good(import: Value) -> Value {
    assert_eq!(import["refused"], json!([]), "{import:#}");
    assert_eq!(import["missing"], json!([]), "{import:#}");
    for bundle in import["bundles"].as_array().unwrap() {
        assert_eq!(bundle["taken"]["refused"], json!([]), "{import:#}");
    }
    import
}
