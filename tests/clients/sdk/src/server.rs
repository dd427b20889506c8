//! A server of its own for each test, which can be killed and started again on the same data.

use std::{
    fs::File,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    thread::sleep,
    time::{Duration, Instant},
};
use tempfile::TempDir;

const READY: Duration = Duration::from_secs(60);

pub struct Server {
    directory: TempDir,
    port: u16,
    process: Child,
}

impl Server {
    /// Starts one, and returns when it takes requests.
    pub fn start() -> Self {
        let directory = TempDir::with_prefix("postern-sdk.").unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = spawn(&directory, port);
        let mut server = Self { directory, port, process };
        server.until_ready();
        server
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Ends it as a power cut would, with SIGKILL, and starts it again.
    pub fn kill_and_start(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.process = spawn(&self.directory, self.port);
        self.until_ready();
    }

    fn until_ready(&mut self) {
        let deadline = Instant::now() + READY;
        while !self.is_ready() {
            let ended = self.process.try_wait().unwrap().is_some();
            if ended || Instant::now() > deadline {
                let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap();
                panic!("the server did not become ready:\n{log}");
            }
            sleep(Duration::from_millis(50));
        }
    }

    fn is_ready(&self) -> bool {
        let mut answer = [0; 12];
        TcpStream::connect(("127.0.0.1", self.port))
            .and_then(|mut stream| {
                stream.set_read_timeout(Some(Duration::from_secs(5)))?;
                stream.write_all(b"GET /_postern/health/ready HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
                stream.read_exact(&mut answer)
            })
            .is_ok_and(|()| &answer == b"HTTP/1.1 200")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(directory: &TempDir, port: u16) -> Child {
    let log = File::options().create(true).append(true).open(directory.path().join("log")).unwrap();
    Command::new(std::env::var_os("POSTERN_SERVE").unwrap())
        .args([directory.path().as_os_str(), port.to_string().as_ref()])
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}
