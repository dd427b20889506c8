//! The virus scanner against a real clamd, which is started here with a signature of the test file of EICAR and no other.
//!
//! Needs `clamd` (Debian: `clamav-daemon`). Without one the test is skipped, says so, and is counted as that: hence a
//! harness of its own.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use postern_guards::{File, Guards, Settings, Verdict};

struct Clamd {
    process: Child,
    folder: tempfile::TempDir,
    port: u16,
}

impl Drop for Clamd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The test file of EICAR, which scanners take for a virus. It is put together here, or they would take this file for one.
fn eicar() -> Vec<u8> {
    ["X5O!P%@AP[4\\PZX54(P^)7CC)7}$", "EICAR-STANDARD-ANTIVIRUS-TEST-FILE!", "$H+H*"].concat().into_bytes()
}

impl Clamd {
    fn start(program: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        std::fs::create_dir(folder.path().join("database")).unwrap();
        let hex: String = eicar().iter().map(|byte| format!("{byte:02x}")).collect();
        std::fs::write(folder.path().join("database/test.ndb"), format!("Test-Eicar:0:*:{hex}\n")).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let settings = format!(
            "Foreground yes\nDatabaseDirectory {}\nLocalSocket {}\nTCPSocket {port}\nTCPAddr 127.0.0.1\n\
             LogFile {}\nStreamMaxLength 1M\n",
            at("database"),
            at("socket"),
            at("log"),
        );
        std::fs::write(folder.path().join("clamd.conf"), settings).unwrap();
        let process = Command::new(program)
            .args(["--foreground", "--config-file", &at("clamd.conf")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let clamd = Self { process, folder, port };
        let since = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = std::fs::read_to_string(clamd.folder.path().join("log")).unwrap_or_default();
            assert!(since.elapsed() < Duration::from_secs(60), "clamd does not start: {log}");
            std::thread::sleep(Duration::from_millis(50));
        }
        clamd
    }

    fn addresses(&self) -> [String; 2] {
        [
            format!("tcp://127.0.0.1:{}", self.port),
            format!("unix:{}", self.folder.path().join("socket").display()),
        ]
    }
}

async fn scanned(address: &str, content: &[u8]) -> Verdict {
    let settings: Settings =
        toml::from_str(&format!("[antivirus]\naddress = \"{address}\"\ntimeout_seconds = 20")).unwrap();
    Guards::new(&settings).unwrap().inspect_file(&File::default(), content).await.unwrap()
}

async fn a_real_clamd_is_asked_about_files(program: &str) {
    let clamd = Clamd::start(program);
    for address in clamd.addresses() {
        for harmless in [b"".as_slice(), b"hello", &[b'x'; 300_000]] {
            let verdict = scanned(&address, harmless).await;
            assert!(!verdict.contains("antivirus"), "{address}: {verdict:?}");
        }

        let verdict = scanned(&address, &eicar()).await;
        let found = verdict.findings().iter().find(|finding| finding.id == "antivirus:infected").unwrap();
        assert_eq!(found.excerpt, "Test-Eicar.UNOFFICIAL");

        let hidden = [vec![b'x'; 200_000], eicar(), vec![b'y'; 200_000]].concat();
        assert!(scanned(&address, &hidden).await.contains("antivirus:infected"), "{address}");

        let verdict = scanned(&address, &vec![b'x'; 3 << 20]).await;
        assert!(verdict.contains("antivirus:too-large"), "{address}: {verdict:?}");
    }
    let address = clamd.addresses()[0].clone();
    drop(clamd);
    assert!(scanned(&address, b"hello").await.contains("antivirus:unavailable"));
}

const NAME: &str = "a_real_clamd_is_asked_about_files";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut wanted = arguments.iter().filter(|argument| !argument.starts_with('-')).peekable();
    let is_wanted = wanted.peek().is_none() || wanted.any(|part| NAME.contains(part.as_str()));
    if arguments.iter().any(|argument| argument == "--list") {
        println!("{NAME}: test");
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", usize::from(is_wanted));
    let installed = ["/usr/sbin/clamd", "/usr/local/sbin/clamd", "/usr/bin/clamd"];
    let (passed, failed, skipped) = match installed.into_iter().find(|path| Path::new(path).exists()) {
        _ if !is_wanted => (0, 0, 0),
        Some(program) => {
            let test = move || {
                let runtime = tokio::runtime::Runtime::new().unwrap();
                runtime.block_on(a_real_clamd_is_asked_about_files(program));
            };
            // A panic ends the thread, and is said there.
            let passed = std::thread::spawn(test).join().is_ok();
            println!("test {NAME} ... {}", if passed { "ok" } else { "FAILED" });
            (u8::from(passed), u8::from(!passed), 0)
        }
        None => {
            println!("SKIPPED: {NAME}: there is no clamd here (Debian: clamav-daemon)");
            (0, 0, 1)
        }
    };
    let ended = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {ended}. {passed} passed; {failed} failed; {skipped} ignored; 0 measured\n");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
