//! Runs the scenarios, each twice, and counts them as the usual harness does, whose closing line it prints.
//!
//! The usual harness cannot skip a test for a reason that is only known when it runs.

use crate::{
    PROGRAM,
    sides::{Pair, Side},
};
use postern_world::{Server, Synapse};
use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::Builder,
};

/// A test, for a room that is made on one side.
pub type Scenario = fn(&Pair);

/// How many run at once unless `--test-threads` says otherwise: Synapse has one thread.
const THREADS: usize = 3;

struct Test {
    name: String,
    run: Scenario,
    host: Side,
}

struct Arguments {
    wanted: Vec<String>,
    threads: usize,
    list: bool,
}

fn arguments() -> Arguments {
    let mut found = Arguments { wanted: Vec::new(), threads: THREADS, list: false };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--list" {
            found.list = true;
        } else if argument == "--test-threads" {
            found.threads = arguments.next().and_then(|number| number.parse().ok()).unwrap_or(THREADS);
        } else if let Some(number) = argument.strip_prefix("--test-threads=") {
            found.threads = number.parse().unwrap_or(THREADS);
        } else if !argument.starts_with('-') {
            found.wanted.push(argument);
        }
    }
    found
}

/// Runs those of `together` at once that the command line asks for, and then those of `alone` one by one.
pub fn run(together: &[(&str, Scenario)], alone: &[(&str, Scenario)]) -> ExitCode {
    let arguments = arguments();
    let wanted = |name: &str| {
        arguments.wanted.is_empty() || arguments.wanted.iter().any(|part| name.contains(part.as_str()))
    };
    let both = |scenarios: &[(&str, Scenario)]| -> Vec<Test> {
        let sides = [(Side::Postern, "postern"), (Side::Synapse, "synapse")];
        let each = scenarios.iter().flat_map(|(name, run)| {
            sides.map(|(host, on)| Test { name: format!("{name}::on_{on}"), run: *run, host })
        });
        each.filter(|test| wanted(&test.name)).collect()
    };
    let (together, alone) = (both(together), both(alone));
    let number = together.len() + alone.len();
    if arguments.list {
        for test in together.iter().chain(&alone) {
            println!("{}: test", test.name);
        }
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {number} tests");
    if number == 0 {
        return close(0, 0, 0);
    }
    let environment = match environment("synapse", Path::new("tests/synapse/requirements.txt")) {
        Ok(environment) => environment,
        Err(why) => {
            for test in together.iter().chain(&alone) {
                println!("SKIPPED: {}: {why}", test.name);
            }
            return close(0, 0, number);
        }
    };
    let (postern, gate) = Server::federating_behind_a_gate(PROGRAM);
    let synapse = Synapse::start(&environment);
    let pair = |host| Pair { postern: &postern, gate: &gate, synapse: &synapse, host };
    let mut failed = run_all(&together, arguments.threads, pair);
    failed += run_all(&alone, 1, pair);
    if failed > 0 {
        eprintln!("Synapse's log ends:\n{}", synapse.last_lines());
    }
    close(number - failed, failed, 0)
}

fn run_all<'a>(tests: &[Test], threads: usize, pair: impl Fn(Side) -> Pair<'a> + Sync) -> usize {
    let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let printing = Mutex::new(());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while let Some(test) = tests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let pair = pair(test.host);
                    // A panic names the thread.
                    let ended = std::thread::scope(|one| {
                        let thread = Builder::new().name(test.name.clone());
                        thread.spawn_scoped(one, || (test.run)(&pair)).expect("a thread").join()
                    });
                    if ended.is_err() {
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                    let _turn = printing.lock().unwrap_or_else(PoisonError::into_inner);
                    println!("test {} ... {}", test.name, if ended.is_ok() { "ok" } else { "FAILED" });
                }
            });
        }
    });
    failed.into_inner()
}

fn close(passed: usize, failed: usize, skipped: usize) -> ExitCode {
    let ended = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {ended}. {passed} passed; {failed} failed; {skipped} ignored; 0 measured\n");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Where Python packages are installed, which they are by this if they were not before.
///
/// # Errors
/// They cannot be installed; why.
pub fn environment(name: &str, requirements: &Path) -> Result<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(root.join("tests/venv.sh"))
        .arg(name)
        .arg(root.join(requirements))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
    } else {
        Err(format!("{name} could not be installed, see above"))
    }
}
