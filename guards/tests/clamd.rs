//! The virus scanner against a real clamd, which is started here with a signature of the test file of EICAR and no other.
//!
//! Needs `clamd` (Debian: `clamav-daemon`). Without one it says so and tests nothing.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Child, Command, Stdio};
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
    /// None if none is installed.
    fn start() -> Option<Self> {
        let program = ["/usr/sbin/clamd", "/usr/local/sbin/clamd", "/usr/bin/clamd"]
            .into_iter()
            .find(|path| Path::new(path).exists());
        let Some(program) = program else {
            eprintln!("NOT TESTED: there is no clamd here (Debian: clamav-daemon)");
            return None;
        };
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
        Some(clamd)
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

#[tokio::test]
async fn a_real_clamd_is_asked_about_files() {
    let Some(clamd) = Clamd::start() else { return };
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
