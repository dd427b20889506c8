//! A server: the built program as a process, with a directory and addresses of its own.

use crate::{Client, Link, keeper::Keeper};
use http::Method;
use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

/// How long a start or an orderly end may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at whether it has come so far.
pub(crate) const LOOK: Duration = Duration::from_millis(10);
/// How often a start is tried whose address was taken meanwhile.
const TRIES: usize = 10;
/// Lines of a failed server's log that are shown.
pub(crate) const LOG_LINES: usize = 40;

/// The secret of `/_synapse/admin/v1/register`.
pub const SHARED_SECRET: &str = "secret of the tests";

/// What tests run with, unless they say otherwise: anyone may register, nothing is rate limited, hashing is cheap.
const SETTINGS: &[(&str, &str)] = &[
    ("server.name", "here.test"),
    ("registration.mode", "open"),
    ("registration.guests", "true"),
    ("registration.shared_secret", SHARED_SECRET),
    ("passwords.argon2_memory_kibibytes", "8"),
    ("passwords.argon2_iterations", "1"),
    ("rate_limits.enabled", "false"),
    ("database.cache_mebibytes", "8"),
    ("limits.drain_seconds", "2"),
    // Names of other servers in these tests are nobody's.
    ("federation.enabled", "false"),
    ("log.level", "warn"),
];

/// A running server. It ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    /// What the program is run by, if not directly: a command that becomes it.
    run_by: Vec<String>,
    program: PathBuf,
    directory: PathBuf,
    settings: BTreeMap<String, String>,
    addresses: Mutex<(SocketAddr, SocketAddr)>,
    process: Mutex<Option<Child>>,
    link: OnceLock<Link>,
}

/// The server all tests of a program share, with the usual settings; each test registers its own users.
pub fn shared(program: &str) -> &'static Server {
    static SHARED: OnceLock<Server> = OnceLock::new();
    SHARED.get_or_init(|| Server::start(program))
}

impl Server {
    /// Starts a server with the usual settings. `program` is the path of the built program, for tests
    /// `env!("CARGO_BIN_EXE_postern")`; the environment variable `POSTERN_BIN` names another.
    ///
    /// # Panics
    /// It does not get ready.
    #[must_use]
    pub fn start(program: &str) -> Self {
        Self::with(program, &[])
    }

    /// Starts a server with these settings on top of the usual ones. An empty value takes a usual setting away.
    ///
    /// # Panics
    /// It does not get ready.
    #[must_use]
    pub fn with(program: &str, settings: &[(&str, &str)]) -> Self {
        let server = Self::prepare(program, settings);
        server.start_again();
        server
    }

    /// A server that is not started yet; [`Self::start_again`] does.
    ///
    /// # Panics
    /// Its directory cannot be made.
    #[must_use]
    pub fn prepare(program: &str, settings: &[(&str, &str)]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let program = std::env::var_os("POSTERN_BIN").map_or_else(|| program.into(), PathBuf::from);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = Keeper::get().root.join(format!("server{number}"));
        std::fs::create_dir_all(&directory).expect("a directory for the server");
        let mut all: BTreeMap<String, String> =
            SETTINGS.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        for (key, value) in settings {
            if value.is_empty() {
                all.remove(*key);
            } else {
                all.insert((*key).to_owned(), (*value).to_owned());
            }
        }
        Self {
            run_by: Vec::new(),
            program,
            directory,
            settings: all,
            addresses: Mutex::new((free_address(), free_address())),
            process: Mutex::new(None),
            link: OnceLock::new(),
        }
    }

    /// The same, not started yet, by another command, and at these addresses for clients and for metrics.
    #[must_use]
    pub(crate) fn moved(mut self, run_by: Vec<String>, addresses: (SocketAddr, SocketAddr)) -> Self {
        self.run_by = run_by;
        self.addresses = Mutex::new(addresses);
        self
    }

    /// Starts it, on the data it has, and waits until it is ready.
    ///
    /// # Panics
    /// It runs already, or does not get ready.
    pub fn start_again(&self) {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(process.is_none(), "the server runs already");
        for _ in 0..TRIES {
            let log_before = self.log().len();
            let mut child = self.spawn();
            match self.until_ready(&mut child) {
                Ok(()) => {
                    *process = Some(child);
                    return;
                }
                Err(why) => {
                    end(&mut child);
                    let log = self.log();
                    if !log[log_before..].contains("cannot listen on") {
                        panic!("the server does not start: {why}\n{}", self.last_lines());
                    }
                    // Clients know the address once it was in use, so it is kept then.
                    if self.link.get().is_none() && self.run_by.is_empty() {
                        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
                        *addresses = (free_address(), free_address());
                    }
                    sleep(Duration::from_millis(100));
                }
            }
        }
        panic!("the server finds no free address");
    }

    fn command(&self) -> Command {
        let mut command = match self.run_by.split_first() {
            None => Command::new(&self.program),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(&self.program);
                command
            }
        };
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("POSTERN_") {
                command.env_remove(name);
            }
        }
        let database = self.directory.join("graph");
        command.arg("--set").arg(format!("database.path={}", database.display()));
        command.arg("--set").arg(format!("listeners.client={}", self.socket()));
        command.arg("--set").arg(format!("listeners.metrics={}", self.metrics_socket()));
        for (key, value) in &self.settings {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        command.current_dir(&self.directory).stdin(Stdio::null());
        command
    }

    fn spawn(&self) -> Child {
        let append = |name: &str| -> File {
            let path = self.directory.join(name);
            OpenOptions::new().create(true).append(true).open(path).expect("a file for the server's output")
        };
        let child = self
            .command()
            .arg("serve")
            .stdout(append("printed"))
            .stderr(append("log"))
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.program.display()));
        Keeper::get().runs(child.id());
        child
    }

    fn until_ready(&self, child: &mut Child) -> Result<(), String> {
        let link = Link::to(&self.address());
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            match child.try_wait() {
                Ok(Some(status)) => return Err(status.to_string()),
                Ok(None) => {}
                Err(error) => return Err(error.to_string()),
            }
            if let Ok(answer) = link.send(&Method::GET, "/_postern/health/ready", &[], "")
                && answer.status() == 200
            {
                return Ok(());
            }
            sleep(LOOK);
        }
        Err(format!("not ready within {PATIENCE:?}"))
    }

    /// Runs the program for something other than serving, such as `["doctor"]`, with this server's settings.
    ///
    /// # Panics
    /// It cannot be run.
    pub fn run(&self, arguments: &[&str]) -> std::process::Output {
        self.command().args(arguments).output().expect("the program runs")
    }

    /// Ends it as a power cut would: SIGKILL.
    pub fn kill(&self) {
        if let Some(mut child) = self.take() {
            end(&mut child);
        }
    }

    /// Asks it to end (SIGTERM), and waits until it has.
    ///
    /// # Panics
    /// It does not run, or does not end.
    pub fn terminate(&self) -> ExitStatus {
        let mut child = self.take().expect("the server runs");
        signal("TERM", child.id());
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            if let Some(status) = child.try_wait().expect("a child can be waited for") {
                Keeper::get().ended(child.id());
                return status;
            }
            sleep(LOOK);
        }
        end(&mut child);
        panic!("the server does not end when asked to\n{}", self.last_lines());
    }

    /// Ends it in an orderly way and starts it again, on the same data and addresses.
    ///
    /// # Panics
    /// It does not end or start.
    pub fn restart(&self) {
        self.terminate();
        self.start_again();
    }

    /// Sends it a signal by name, such as `HUP` or `STOP`.
    ///
    /// # Panics
    /// It does not run.
    pub fn signal(&self, name: &str) {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        signal(name, process.as_ref().expect("the server runs").id());
    }

    fn take(&self) -> Option<Child> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn socket(&self) -> SocketAddr {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn metrics_socket(&self) -> SocketAddr {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    /// Where clients reach it: host and port.
    #[must_use]
    pub fn address(&self) -> String {
        self.socket().to_string()
    }

    /// Where its metrics are: host and port.
    #[must_use]
    pub fn metrics_address(&self) -> String {
        self.metrics_socket().to_string()
    }

    /// Its name, the part of its users' ids after the colon.
    #[must_use]
    pub fn name(&self) -> &str {
        self.settings.get("server.name").map_or("localhost", String::as_str)
    }

    /// Its directory; the database is in `graph`.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What it printed on standard output, over all its starts.
    #[must_use]
    pub fn printed(&self) -> String {
        std::fs::read_to_string(self.directory.join("printed")).unwrap_or_default()
    }

    /// What it logged, over all its starts.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    fn last_lines(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    /// Connections to it.
    #[must_use]
    pub fn link(&self) -> Link {
        self.link.get_or_init(|| Link::to(&self.address())).clone()
    }

    /// Somebody who is not logged in.
    #[must_use]
    pub fn anyone(&self) -> Client {
        Client::anyone(self.link(), self.name().to_owned())
    }

    /// Registers a user whose name begins with `name` and whom nobody else has, and logs in.
    ///
    /// # Panics
    /// It is refused.
    #[must_use]
    pub fn register(&self, name: &str) -> Client {
        self.anyone().register(name)
    }

    /// Registers a guest.
    ///
    /// # Panics
    /// It is refused.
    #[must_use]
    pub fn register_guest(&self) -> Client {
        self.anyone().register_guest()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("the server's log ends:\n{}", self.last_lines());
        }
        if std::env::var_os("POSTERN_KEEP").is_none() {
            // A leftover is the keeper's.
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

pub(crate) fn end(child: &mut Child) {
    // It may have ended already.
    let _ = child.kill();
    Keeper::get().ended(child.id());
    let _ = child.wait();
}

pub(crate) fn signal(name: &str, process: u32) {
    let status = Command::new("kill").args(["-s", name, &process.to_string()]).status();
    assert!(status.is_ok_and(|status| status.success()), "no signal {name} to {process}");
}

/// An address nobody listens on.
///
/// # Panics
/// There is none.
#[must_use]
pub fn free_address() -> SocketAddr {
    free_address_on(Ipv4Addr::LOCALHOST)
}

/// An address on this host that nobody listens on. Its port is below those that outgoing connections get, so that none
/// takes it while the server is down.
pub(crate) fn free_address_on(host: Ipv4Addr) -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..20_000 {
        let number = std::process::id().wrapping_mul(61).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(12_000 + number % 20_000).expect("a port");
        let address = SocketAddr::from((host, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port");
}
