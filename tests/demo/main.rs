//! The demonstration of two enclaves: that it works as processes, and that containers are started from the same files, at the same
//! ports, with the same environment and certificates. No container engine is needed, and so none is tested.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use postern_world::Server;
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_postern");
const ENCLAVES: [&str; 2] = ["alpha", "bravo"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The script, on loopback addresses that are this test's own.
fn demo(argument: &str) -> Command {
    let id = std::process::id();
    let address = |last: u8| format!("127.{}.{}.{last}", 1 + id / 250 % 250, 1 + id % 250);
    let mut command = Command::new(root().join("scripts/demo.sh"));
    command
        .arg(argument)
        .env("POSTERN_BIN", std::env::var_os("POSTERN_BIN").unwrap_or_else(|| PROGRAM.into()))
        .env("DEMO_CLIENTS", address(1))
        .env("DEMO_ALPHA", address(2))
        .env("DEMO_BRAVO", address(3));
    command
}

/// What the script would start: of each enclave, and of certificates.
fn plan() -> BTreeMap<String, BTreeMap<String, String>> {
    let output = demo("--plan").output().expect("the script runs");
    assert!(output.status.success());
    let mut plan: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let (key, value) = line.split_once('=').unwrap();
        let (of, key) = key.split_once('.').unwrap();
        plan.entry(of.to_owned()).or_default().insert(key.to_owned(), value.to_owned());
    }
    plan
}

fn compose() -> Value {
    let text = std::fs::read_to_string(root().join("docker-compose.yml")).unwrap();
    let mut compose: Value = serde_saphyr::from_str(&text).unwrap();
    for service in compose["services"].as_object_mut().unwrap().values_mut() {
        merge(service.as_object_mut().unwrap());
    }
    compose
}

/// What `<<` brings in, if the parser left it there: the service's own keys win.
fn merge(map: &mut Map<String, Value>) {
    if let Some(Value::Object(base)) = map.remove("<<") {
        for (key, value) in base {
            map.entry(key).or_insert(value);
        }
    }
}

fn list(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|item| item.as_str().unwrap()).collect()
}

/// Where a path of the container `service` comes from, and whether it can be written to.
fn mounted<'a>(service: &'a Value, path: &str) -> (&'a str, bool) {
    let mount = list(&service["volumes"]).into_iter().find(|mount| mount.split(':').nth(1) == Some(path));
    let mount = mount.unwrap_or_else(|| panic!("nothing is mounted at {path}"));
    (mount.split(':').next().unwrap(), !mount.ends_with(":ro"))
}

fn settings(file: &Path) -> toml::Table {
    std::fs::read_to_string(file).unwrap().parse().unwrap()
}

fn port(address: &toml::Value) -> &str {
    address.as_str().unwrap().rsplit(':').next().unwrap()
}

#[test]
fn two_enclaves_start_and_people_of_both_talk() {
    let output = demo("--check").output().expect("the script runs");
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("everything worked"), "{said}");
}

#[test]
fn containers_and_processes_have_the_same_files_ports_environment_and_certificates() {
    let (compose, plan) = (compose(), plan());
    let certified = list(&compose["services"]["authority"]["command"]);
    for name in ENCLAVES {
        let (service, process) = (&compose["services"][name], &plan[name]);
        let in_container = service["environment"].as_object().unwrap();

        // One configuration file.
        let (file, writable) = mounted(service, in_container["POSTERN_CONFIG"].as_str().unwrap());
        assert!(!writable);
        let file = root().join(file).canonicalize().unwrap();
        assert_eq!(file, PathBuf::from(&process["POSTERN_CONFIG"]).canonicalize().unwrap());
        let settings = settings(&file);

        // Clients come to the same port, and servers to that of their kind.
        let published = list(&service["ports"]);
        let [client] = settings["listeners"]["client"].as_array().unwrap().as_slice() else { panic!() };
        assert_eq!(published, [format!("127.0.0.1:{}:{}", process["client_port"], port(client))]);
        let [servers] = settings["listeners"]["federation_tls"].as_array().unwrap().as_slice() else {
            panic!()
        };
        assert_eq!(port(servers), "8448", "where servers without a port in their name are found");
        let address = process["POSTERN__SERVER__NAME"].clone();
        assert_eq!(process["POSTERN__LISTENERS__FEDERATION_TLS"], format!("{address}:8448"));

        // Names lead there, and are certified.
        let own = settings["server"]["name"].as_str().unwrap();
        let aliases = list(&service["networks"]["between"]["aliases"]);
        assert_eq!(aliases, [own]);
        assert!(certified.contains(&format!("{name}={own}").as_str()), "{certified:?}");
        assert_eq!(plan["certificate"][name], format!("{own},{address}"));
        let (volume, writable) = mounted(service, "/run/postern/tls");
        assert!(!writable);
        let authority = mounted(&compose["services"]["authority"], &format!("{}/{name}", certified[0]));
        assert_eq!(authority, (volume, true));
        for (section, key) in [
            ("listeners", "tls_certificate_file"),
            ("listeners", "tls_key_file"),
            ("federation", "certificate_authorities_file"),
        ] {
            let file = settings[section][key].as_str().unwrap().strip_prefix("/run/postern/tls/").unwrap();
            let variable = format!("POSTERN__{}__{}", section.to_uppercase(), key.to_uppercase());
            assert_eq!(process[&variable], format!("DIRECTORY/tls/{name}/{file}"));
        }

        // Data is kept where it may be written.
        let path = settings["database"]["path"].as_str().unwrap();
        let (_, writable) = mounted(service, Path::new(path).parent().unwrap().to_str().unwrap());
        assert!(writable);

        // The environment of a container is that of the process, which has addresses and paths on top.
        let token = in_container["POSTERN__REGISTRATION__TOKEN"].as_str().unwrap();
        assert_eq!(token, format!("${{DEMO_TOKEN:-{}}}", process["POSTERN__REGISTRATION__TOKEN"]));
        let containers: BTreeSet<&str> = in_container.keys().map(String::as_str).collect();
        let own: BTreeSet<&str> = process.keys().map(String::as_str).collect();
        assert!(containers.is_subset(&own));
        for more in own.difference(&containers).filter(|key| key.starts_with("POSTERN")) {
            let (section, key) = more.strip_prefix("POSTERN__").unwrap().split_once("__").unwrap();
            let there = settings[&section.to_lowercase()].get(key.to_lowercase());
            assert!(there.is_some(), "{more} differs from {}, which does not have it", file.display());
        }
    }
}

#[test]
fn the_files_of_the_enclaves_are_right() {
    for name in ENCLAVES {
        let file = root().join(format!("config/demo/{name}.toml"));
        let output = Command::new(PROGRAM).args(["config", "check", "--config"]).arg(file).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn the_program_says_whether_its_server_is_ready() {
    let server = Server::start(PROGRAM);
    assert!(server.run(&["health"]).status.success());
    server.kill();
    assert!(!server.run(&["health"]).status.success());
}

#[test]
fn containers_have_no_rights_they_do_not_need() {
    let compose = compose();
    for (name, service) in compose["services"].as_object().unwrap() {
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(service["user"], "10001:10001", "{name}");
        assert_eq!(list(&service["cap_drop"]), ["ALL"], "{name}");
        assert_eq!(list(&service["security_opt"]), ["no-new-privileges:true"], "{name}");
    }
    for name in ENCLAVES {
        let check = list(&compose["services"][name]["healthcheck"]["test"]);
        assert_eq!(check, ["CMD", "/usr/local/bin/postern", "health"]);
    }
    let image = std::fs::read_to_string(root().join("Containerfile")).unwrap();
    let stages = image.split("\nFROM ").filter(|stage| stage.contains("ENTRYPOINT"));
    assert!(stages.map(|stage| assert!(stage.contains("\nUSER 10001:10001\n"))).count() == 2);
    for base in image.lines().filter_map(|line| line.strip_prefix("ARG ")) {
        let tag = base.rsplit_once(':').expect("a pinned base image").1;
        assert!(tag.starts_with(|first: char| first.is_ascii_digit()), "{base}");
    }
    let toolchain = std::fs::read_to_string(root().join("rust-toolchain.toml")).unwrap();
    let toolchain: toml::Table = toolchain.parse().unwrap();
    let channel = toolchain["toolchain"]["channel"].as_str().unwrap();
    assert!(image.contains(&format!("ARG BUILDER=rust:{channel}-")));
}

#[test]
fn no_key_is_committed() {
    let listed = Command::new("git").args(["ls-files"]).current_dir(root()).output();
    // A copy without history has no list of what is committed.
    let Ok(listed) = listed else { return };
    for file in String::from_utf8_lossy(&listed.stdout).lines() {
        assert!(!file.ends_with(".key") && !file.ends_with(".pem"), "{file}");
    }
}
