//! Policies of a running server: signed ones in the state of a room, and a candidate that is asked beside them.

use crate::{
    commands::run,
    enclaves::{Enclave, document},
};
use postern_world::{Client, Seat, enc};
use serde_json::{Value, json};
use std::{fs, time::Duration};
use tempfile::TempDir;

const API: &str = "/_postern/border";
/// What a state event of the policy room is.
const POLICIES: &str = "io.postern.policies";

/// A security officer with a key, away from the server.
struct Desk {
    directory: TempDir,
    public: String,
}

impl Desk {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("officer.key").display().to_string();
        let (status, public) = run(&["policy", "key", &key]);
        assert_eq!(status, 0, "{public}");
        Self { directory, public: public.trim().to_owned() }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// The policies as a bundle with this name, which follows another.
    fn sign(&self, name: &str, policies: &[(&str, &str)], after: Option<&str>) -> Value {
        let folder = self.path(&format!("{name}.d"));
        fs::create_dir(&folder).unwrap();
        for (file, text) in policies {
            fs::write(format!("{folder}/{file}"), text).unwrap();
        }
        let key = self.path("officer.key");
        let mut arguments = vec!["policy", "sign", &folder, "--secret", &key, "--id", "ed25519:officer"];
        let after = after.map(|after| self.path(after));
        arguments.extend(after.iter().flat_map(|after| ["--after", after.as_str()]));
        let (status, bundle) = run(&arguments);
        assert_eq!(status, 0, "{bundle}");
        fs::write(self.path(name), &bundle).unwrap();
        serde_json::from_str(&bundle).unwrap()
    }

    /// `border.toml` of a server that takes what this officer signed and put into a room.
    fn document(&self, room: &str) -> String {
        let policies = format!(
            "[policies]\nkeys = {{ \"ed25519:officer\" = \"{}\" }}\nroom = \"{room}\"\n",
            self.public
        );
        document("Company INTERNAL", &[], &policies)
    }
}

fn policies(officer: &Client) -> Value {
    officer.get(&format!("{API}/policies")).ok()
}

/// Waits until the policies of this version of the bundle count.
fn until_version(officer: &Client, version: u64) -> Value {
    for _ in 0..600 {
        let shown = policies(officer);
        if shown["bundle"] == version {
            return shown;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("version {version} is not in force: {}", policies(officer));
}

const NO_STICKERS: &str = "@id(\"no-stickers\") @reason(\"stickers are not for work\")\n\
    forbid (principal, action == Action::\"send\", resource is Event) when { resource.type == \"m.sticker\" };\n";

#[test]
fn signed_policies_in_the_policy_room_count_from_when_they_stand_there() {
    let enclave = Enclave::start(&Seat::take(), "Company INTERNAL", &[], "");
    let officer = enclave.server.anyone().register_by_secret("officer", true);
    let clerk = enclave.register("clerk");
    let (desk, stranger) = (Desk::new(), Desk::new());
    let room = officer.create_room_with(&[&clerk]);
    let other = officer.create_room_with(&[&clerk]);
    enclave.write("policies/site.cedar", "\n@id(\"site\") forbid (principal is Link, action, resource);\n");
    enclave.write("border.toml", &desk.document(&room));
    enclave.reread();
    let sticker = || clerk.try_send(&other, "m.sticker", json!({ "body": "wave" }));
    sticker().done();
    assert_eq!(policies(&officer)["room"], room.as_str());

    // Not by whom it does not know, not what clashes with the files, and in no other room at all.
    let put = |room: &str, bundle: &Value| officer.try_set_state(room, POLICIES, "", bundle.clone());
    let said = |answer: Value| answer["error"].as_str().unwrap().to_owned();
    let foreign = stranger.sign("v1", &[("a.cedar", NO_STICKERS)], None);
    let why = said(put(&room, &foreign).refused(403, "M_FORBIDDEN"));
    assert!(why.contains("does not match"), "{why}");
    let mut unsigned = foreign;
    unsigned["signatures"] = json!({});
    let why = said(put(&room, &unsigned).refused(403, "M_FORBIDDEN"));
    assert!(why.contains("the policy room: 0 of the configured keys signed it; 1 must"), "{why}");
    let clash = desk.sign(
        "clash",
        &[("a.cedar", &format!("{NO_STICKERS}@id(\"site\") permit (principal, action, resource);"))],
        None,
    );
    let why = said(put(&room, &clash).refused(403, "M_FORBIDDEN"));
    assert!(
        why.contains("a.cedar:3:1: policy \"site\": this id is taken by the policy in site.cedar:2"),
        "{why}"
    );
    let first = desk.sign("v1", &[("a.cedar", NO_STICKERS)], None);
    put(&other, &first).done();
    assert_eq!(policies(&officer)["bundle"], Value::Null);
    sticker().done();

    // Who puts it there does not matter; it is signed.
    officer.change_power_levels(&room, |levels| levels["events"][POLICIES] = json!(0));
    let event = clerk.set_state(&room, POLICIES, "", first.clone());
    let shown = until_version(&officer, 1);
    let ids: Vec<&str> =
        shown["rules"].as_array().unwrap().iter().filter_map(|rule| rule["id"].as_str()).collect();
    assert!(ids.contains(&"no-stickers") && ids.contains(&"site"), "{ids:?}");
    let why = said(sticker().refused(403, "M_FORBIDDEN"));
    assert!(why.contains("stickers are not for work"), "{why}");

    // Taking it out of the room does not take it back, and neither does a restart.
    officer.redact(&room, &event);
    let refused = || {
        let refusals = officer.get(&format!("{API}/refusals")).ok();
        refusals["refusals"].as_array().unwrap().iter().any(|one| one["action"] == "policies")
    };
    for tries in 0.. {
        if refused() {
            break;
        }
        assert!(tries < 600, "that the state cannot be used is not told");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(enclave.server.log().contains("the policies in the policy room cannot be used"));
    sticker().refused(403, "M_FORBIDDEN");
    enclave.server.kill();
    enclave.server.start_again();
    assert_eq!(policies(&officer)["bundle"], 1);
    sticker().refused(403, "M_FORBIDDEN");

    // A new version does; the old one does not come back.
    let second = desk.sign("v2", &[], Some("v1"));
    put(&room, &second).done();
    until_version(&officer, 2);
    sticker().done();
    let why = said(put(&room, &first).refused(403, "M_FORBIDDEN"));
    assert!(why.contains("versions must increase"), "{why}");
}

#[test]
fn the_newer_bundle_counts_and_of_a_room_only_while_it_is_named() {
    let enclave = Enclave::start(&Seat::take(), "Company INTERNAL", &[], "");
    let officer = enclave.server.anyone().register_by_secret("officer", true);
    let desk = Desk::new();
    let room = officer.create_room_with(&[]);
    let first = desk.sign("v1", &[("a.cedar", NO_STICKERS)], None);
    // It stood there before the room was named.
    officer.set_state(&room, POLICIES, "", first);
    enclave.write("border.toml", &desk.document(&room));
    enclave.reread();
    until_version(&officer, 1);
    let sticker = || officer.try_send(&room, "m.sticker", json!({ "body": "wave" }));
    sticker().refused(403, "M_FORBIDDEN");
    let second = desk.sign("v2", &[], Some("v1"));
    enclave.write("policies/site.bundle.json", &second.to_string());
    enclave.reread();
    until_version(&officer, 2);
    sticker().done();
    let third = desk.sign("v3", &[("a.cedar", NO_STICKERS)], Some("v2"));
    officer.set_state(&room, POLICIES, "", third);
    until_version(&officer, 3);
    sticker().refused(403, "M_FORBIDDEN");
    fs::remove_file(enclave.path("policies/site.bundle.json")).unwrap();
    enclave.write("border.toml", &desk.document(&room).replace("room = ", "# "));
    enclave.reread();
    sticker().done();
}

#[test]
fn a_candidate_is_asked_and_decides_nothing() {
    let enclave = Enclave::start(&Seat::take(), "Company INTERNAL", &[], "base = \"open\"");
    let officer = enclave.server.anyone().register_by_secret("officer", true);
    let clerk = enclave.register("clerk");
    let room = clerk.create_room_with(&[]);
    let shadow = |query: &str| officer.get(&format!("{API}/shadow{query}")).ok();
    assert_eq!(
        shadow(""),
        json!({ "candidate": null, "base": null, "wrong": [], "differences": [], "next": null })
    );
    // It knows what only it asks for: how large an event is.
    let strict = "@id(\"no-stickers\")\nforbid (principal, action == Action::\"send\", resource is Event)\n\
        when { resource.type == \"m.sticker\" && resource.size > 10 };";
    enclave.write("policies/candidate/strict.cedar", strict);
    enclave.reread();
    let sticker = || clerk.send(&room, "m.sticker", json!({ "body": "a wave of the hand" }));
    sticker();
    clerk.send_text(&room, "both let this pass");
    let found = shadow("");
    let differences = found["differences"].as_array().unwrap();
    assert_eq!(differences.len(), 1, "{found}");
    let one = &differences[0];
    assert_eq!((&one["answer"]["allowed"], &one["shadow"]["allowed"]), (&json!(true), &json!(false)));
    assert_eq!(one["shadow"]["rules"], json!(["no-stickers"]));
    assert_eq!(one["question"]["action"], "send");
    assert_eq!((&found["candidate"], &found["base"]), (&policies(&officer)["candidate"], &json!("open")));
    assert_eq!(officer.get(&format!("{API}/decisions/{}", one["id"].as_str().unwrap())).ok(), *one);

    // Another candidate has its own differences, under its own base.
    enclave.write("policies/candidate/strict.cedar", "// nothing");
    enclave.write(
        "border.toml",
        &document("Company INTERNAL", &[], "base = \"open\"\n[policies]\ncandidate_base = \"closed\""),
    );
    enclave.reread();
    sticker();
    assert_eq!((&shadow("")["base"], &shadow("")["differences"]), (&json!("closed"), &json!([])));

    // One that is wrong is none, is told of, and keeps nothing else back.
    enclave.write(
        "policies/candidate/strict.cedar",
        "\nforbid (principal, action, resource) when { context.houer > 1 };",
    );
    enclave.write("policies/site.cedar", NO_STICKERS);
    let log = enclave.reread();
    assert!(log.contains("the border was read again") && log.contains("strict.cedar:2:"), "{log}");
    clerk.try_send(&room, "m.sticker", json!({ "body": "wave" })).refused(403, "M_FORBIDDEN");
    let found = shadow("");
    assert_eq!(found["candidate"], Value::Null);
    assert!(found["wrong"][0].as_str().unwrap().starts_with("strict.cedar:2:45"), "{found}");
    assert_eq!(policies(&officer)["candidate_wrong"], found["wrong"]);
    fs::remove_dir_all(enclave.path("policies/candidate")).unwrap();
    enclave.reread();
    assert_eq!(shadow("")["wrong"], json!([]));
    clerk.get(&format!("{API}/shadow?limit={}", enc("1"))).refused(403, "M_FORBIDDEN");
}
