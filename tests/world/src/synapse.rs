//! Synapse as a process, for tests of what the two have to say to each other: on a loopback address of its own with
//! TLS, as the servers of [`Server::federating`](crate::Server::federating).

use crate::{
    Client, Gate, Link,
    federation::Seat,
    keeper::Keeper,
    server::{LOG_LINES, LOOK, PATIENCE, end, free_address, signal},
};
use http::Method;
use serde_json::{Value, json};
use std::{
    fs::{File, OpenOptions},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread::sleep,
    time::Instant,
};

/// The seed of its signing key, in unpadded base64. Nothing depends on it being secret.
const KEY: &str = "ed25519 a_test bm9ib2R5IGd1ZXNzZXMgdGhpcyBzZWVkLCByZWFsbHk";

/// A running Synapse. It ends when this is dropped.
#[derive(Debug)]
pub struct Synapse {
    program: PathBuf,
    directory: PathBuf,
    name: String,
    clients: SocketAddr,
    process: Mutex<Option<Child>>,
    link: Link,
    gate: Gate,
}

impl Synapse {
    /// Starts one. `environment` is the Python environment it is installed in. Anyone may register, and its limits are far away.
    ///
    /// # Panics
    /// It does not get ready.
    #[must_use]
    pub fn start(environment: &Path) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = Keeper::get().root.join(format!("synapse{number}"));
        std::fs::create_dir_all(&directory).expect("a directory for Synapse");
        let place = Seat::take();
        let clients = free_address();
        let (behind, gate) = place.gate();
        let settings = settings(&directory, &place, behind, clients);
        // JSON is YAML.
        let log = json!({
            "version": 1,
            "formatters": { "line": { "format": "%(asctime)s %(levelname)s %(name)s %(message)s" } },
            "handlers": { "file": {
                "class": "logging.FileHandler",
                "filename": directory.join("log"),
                "formatter": "line",
            } },
            "root": { "level": "WARNING", "handlers": ["file"] },
            "disable_existing_loggers": false,
        });
        let files = [
            ("homeserver.yaml", settings.to_string()),
            ("log.yaml", log.to_string()),
            ("signing.key", KEY.to_owned()),
        ];
        for (file, text) in files {
            std::fs::write(directory.join(file), text).expect("a file for Synapse");
        }
        let synapse = Self {
            program: environment.join("bin/synapse_homeserver"),
            directory,
            name: place.address.to_string(),
            clients,
            process: Mutex::new(None),
            link: Link::to(&clients.to_string()),
            gate,
        };
        synapse.start_again();
        synapse
    }

    /// Starts it, on the data it has, and waits until it is ready.
    ///
    /// # Panics
    /// It runs already, or does not get ready.
    pub fn start_again(&self) {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(process.is_none(), "Synapse runs already");
        let append = || -> File {
            let path = self.directory.join("printed");
            OpenOptions::new().create(true).append(true).open(path).expect("a file for Synapse's output")
        };
        let mut child = Command::new(&self.program)
            .args(["-c", "homeserver.yaml"])
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(append())
            .stderr(append())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.program.display()));
        Keeper::get().runs(child.id());
        let begin = Instant::now();
        let why = loop {
            if let Ok(Some(status)) = child.try_wait() {
                break status.to_string();
            }
            if self.link.send(&Method::GET, "/health", &[], "").is_ok_and(|answer| answer.status() == 200) {
                *process = Some(child);
                return;
            }
            if begin.elapsed() > PATIENCE {
                break format!("not ready within {PATIENCE:?}");
            }
            sleep(LOOK);
        };
        end(&mut child);
        panic!("Synapse does not start: {why}\n{}", self.last_lines());
    }

    /// Ends it: in an orderly way if it does, else with SIGKILL.
    ///
    /// # Panics
    /// It does not run.
    pub fn stop(&self) {
        let child = self.process.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut child = child.expect("Synapse runs");
        signal("TERM", child.id());
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            if child.try_wait().is_ok_and(|status| status.is_some()) {
                break;
            }
            sleep(LOOK);
        }
        end(&mut child);
    }

    /// The gate through which other servers reach it.
    #[must_use]
    pub const fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Its name, the part of its users' ids after the colon.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where clients reach it: host and port.
    #[must_use]
    pub fn address(&self) -> String {
        self.clients.to_string()
    }

    /// Registers a user whose name begins with `name` and whom nobody else has, and logs in.
    ///
    /// # Panics
    /// It is refused.
    #[must_use]
    pub fn register(&self, name: &str) -> Client {
        Client::anyone(self.link.clone(), self.name.clone()).unchecked().register(name)
    }

    /// The end of what it logged and printed.
    #[must_use]
    pub fn last_lines(&self) -> String {
        let mut shown = String::new();
        for file in ["printed", "log"] {
            let text = std::fs::read(self.directory.join(file)).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().collect();
            shown.extend(lines[lines.len().saturating_sub(LOG_LINES)..].iter().flat_map(|line| [line, "\n"]));
        }
        shown
    }
}

impl Drop for Synapse {
    fn drop(&mut self) {
        // Its data goes, so that it need not write it out.
        if let Some(mut child) = self.process.lock().unwrap_or_else(PoisonError::into_inner).take() {
            end(&mut child);
        }
        if std::env::var_os("POSTERN_KEEP").is_none() {
            // A leftover is the keeper's.
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

fn settings(directory: &Path, place: &Seat, behind: SocketAddr, clients: SocketAddr) -> Value {
    let much = json!({ "per_second": 1_000_000, "burst_count": 1_000_000 });
    let mut all = json!({
        "server_name": place.address.to_string(),
        "pid_file": directory.join("pid"),
        "listeners": [
            {
                "type": "http",
                "bind_addresses": [clients.ip()],
                "port": clients.port(),
                "resources": [{ "names": ["client"] }],
            },
            {
                "type": "http",
                "tls": true,
                "bind_addresses": [behind.ip()],
                "port": behind.port(),
                "resources": [{ "names": ["federation"] }],
            },
        ],
        "tls_certificate_path": place.certificate,
        "tls_private_key_path": place.key,
        "database": { "name": "sqlite3", "args": { "database": directory.join("database") } },
        "log_config": directory.join("log.yaml"),
        "media_store_path": directory.join("media"),
        "signing_key_path": directory.join("signing.key"),
        "macaroon_secret_key": "tests",
        "form_secret": "tests",
        "report_stats": false,
        "enable_registration": true,
        "enable_registration_without_verification": true,
        "bcrypt_rounds": 4,
        // Else the same question to /sync has the same answer for two minutes.
        "caches": { "sync_response_cache_duration": 0 },
    });
    let federation = json!({
        "federation_custom_ca_list": [place.authority],
        "ip_range_blacklist": [],
        "federation_ip_range_blacklist": [],
        "trusted_key_servers": [],
        "suppress_key_server_warning": true,
        "allow_public_rooms_over_federation": true,
        "room_list_publication_rules": [{ "action": "allow" }],
        // Milliseconds: whoever was down is soon tried again.
        "federation": {
            "destination_min_retry_interval": 100,
            "destination_max_retry_interval": 1_000,
            "destination_retry_multiplier": 2,
        },
        "federation_rr_transactions_per_room_per_second": 10_000,
        "rc_federation": {
            "window_size": 1_000,
            "sleep_limit": 100_000,
            "sleep_delay": 1,
            "reject_limit": 100_000,
            "concurrent": 100,
        },
    });
    let limits = json!({
        "rc_message": much,
        "rc_registration": much,
        "rc_joins": { "local": much, "remote": much },
        "rc_joins_per_room": much,
        "rc_room_creation": much,
        "rc_login": { "address": much, "account": much, "failed_attempts": much },
        "rc_invites": { "per_room": much, "per_user": much, "per_issuer": much },
        "rc_presence": { "per_user": much },
        "rc_media_create": much,
        "remote_media_download_burst_count": "1G",
        "remote_media_download_per_second": "1G",
    });
    crate::client::extend(&mut all, federation);
    crate::client::extend(&mut all, limits);
    all
}
