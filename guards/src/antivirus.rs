//! A virus scanner: clamd, by its command INSTREAM (clamd(8), "COMMANDS").
//!
//! A file is sent in pieces, each behind its length as four bytes, big-endian; a length of nothing ends it. The answer
//! is one line. Only `stream: OK` means that nothing was found: whatever else happens is a finding, and a policy says
//! whether a file may pass that nobody looked at.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::limits::ANTIVIRUS_REPLY_BYTES;
use crate::settings::{AntivirusAddress, AntivirusSettings, BadSettings};

#[derive(Debug)]
pub(crate) struct Antivirus {
    address: AntivirusAddress,
    timeout: Duration,
    at_once: Arc<Semaphore>,
}

/// What came of a scan.
#[derive(Debug, PartialEq)]
pub(crate) enum Outcome {
    Clean,
    /// With the name of what was found.
    Infected(String),
    /// The file is larger than the scanner takes.
    TooLarge,
    /// With the reason.
    Unavailable(String),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A file on its way to the scanner.
pub(crate) struct Scan {
    /// The connection, or what came of it.
    state: Result<Box<dyn Stream>, Outcome>,
    timeout: Duration,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Antivirus {
    pub(crate) fn new(settings: &AntivirusSettings) -> Result<Self, BadSettings> {
        if settings.timeout_seconds == 0 || settings.at_once == 0 {
            return Err(BadSettings::Antivirus);
        }
        Ok(Self {
            address: settings.address.clone(),
            timeout: Duration::from_secs(settings.timeout_seconds),
            at_once: Arc::new(Semaphore::new(settings.at_once.min(Semaphore::MAX_PERMITS))),
        })
    }

    /// Connects. That this did not work is known at the end of the scan.
    pub(crate) async fn begin(&self) -> Scan {
        let permit = match timeout(self.timeout, self.at_once.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Some(permit),
            _ => None,
        };
        let state = if permit.is_some() {
            self.connect().await.map_err(Outcome::Unavailable)
        } else {
            Err(Outcome::Unavailable("it is busy with other files".to_owned()))
        };
        Scan { state, timeout: self.timeout, _permit: permit }
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, String> {
        let connected = timeout(self.timeout, async {
            let mut stream: Box<dyn Stream> = match &self.address {
                AntivirusAddress::Tcp(address) => Box::new(TcpStream::connect(address).await?),
                AntivirusAddress::Unix(path) => Box::new(UnixStream::connect(path).await?),
            };
            stream.write_all(b"zINSTREAM\0").await?;
            Ok::<_, std::io::Error>(stream)
        });
        match connected.await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(format!("cannot connect: {error}")),
            Err(_) => Err("does not accept a connection in time".to_owned()),
        }
    }
}

impl Scan {
    /// Sends the next piece of the file.
    pub(crate) async fn send(&mut self, piece: &[u8]) {
        let Ok(stream) = &mut self.state else { return };
        let Ok(length) = u32::try_from(piece.len()) else {
            self.state = Err(Outcome::Unavailable("a piece of more than 4 GiB".to_owned()));
            return;
        };
        if length == 0 {
            return;
        }
        let sent = timeout(self.timeout, async {
            stream.write_all(&length.to_be_bytes()).await?;
            stream.write_all(piece).await
        });
        match sent.await {
            Ok(Ok(())) => {}
            // It has answered before the end, most likely since the file is too large for it.
            Ok(Err(error)) => {
                self.state = Err(match reply(stream, self.timeout).await {
                    Outcome::Unavailable(_) => Outcome::Unavailable(format!("ends the connection: {error}")),
                    outcome => outcome,
                });
            }
            Err(_) => self.state = Err(Outcome::Unavailable("takes nothing in time".to_owned())),
        }
    }

    /// Says that the file has ended, and waits for the answer.
    pub(crate) async fn finish(mut self) -> Outcome {
        let stream = match &mut self.state {
            Ok(stream) => stream,
            Err(outcome) => return std::mem::replace(outcome, Outcome::Clean),
        };
        let ended = timeout(self.timeout, async {
            stream.write_all(&[0; 4]).await?;
            stream.flush().await
        });
        if ended.await.is_err() {
            return Outcome::Unavailable("takes nothing in time".to_owned());
        }
        reply(stream, self.timeout).await
    }
}

/// Reads the answer: a line that ends with a zero byte, or with the connection.
async fn reply(stream: &mut Box<dyn Stream>, wait: Duration) -> Outcome {
    let mut line = Vec::new();
    let read = timeout(wait, async {
        let mut buffer = [0; 512];
        while line.len() < ANTIVIRUS_REPLY_BYTES {
            let count = stream.read(&mut buffer).await?;
            line.extend_from_slice(buffer.get(..count).unwrap_or_default());
            if count == 0 || line.contains(&0) {
                break;
            }
        }
        Ok::<_, std::io::Error>(())
    });
    match read.await {
        Ok(Ok(())) => understood(&line),
        Ok(Err(error)) => Outcome::Unavailable(format!("does not answer: {error}")),
        Err(_) => Outcome::Unavailable("does not answer in time".to_owned()),
    }
}

fn understood(line: &[u8]) -> Outcome {
    let line = line.split(|byte| *byte == 0).next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let line = line.trim();
    if line == "stream: OK" {
        return Outcome::Clean;
    }
    let printable = |text: &str| text.chars().filter(|c| !c.is_control()).take(64).collect::<String>();
    if let Some(name) = line.strip_suffix(" FOUND") {
        return Outcome::Infected(printable(name.strip_prefix("stream: ").unwrap_or(name)));
    }
    if line.contains("size limit exceeded") {
        return Outcome::TooLarge;
    }
    Outcome::Unavailable(match line {
        "" => "ends the connection without an answer".to_owned(),
        line => format!("answers: {}", printable(line)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_answer_that_all_is_well_means_that() {
        for (line, outcome) in [
            ("stream: OK\0", Outcome::Clean),
            ("stream: OK", Outcome::Clean),
            ("stream: Eicar-Signature FOUND\0", Outcome::Infected("Eicar-Signature".to_owned())),
            ("INSTREAM size limit exceeded. ERROR\0", Outcome::TooLarge),
            ("OK\0", Outcome::Unavailable("answers: OK".to_owned())),
            ("stream: OK but ERROR\0", Outcome::Unavailable("answers: stream: OK but ERROR".to_owned())),
            ("", Outcome::Unavailable("ends the connection without an answer".to_owned())),
        ] {
            assert_eq!(understood(line.as_bytes()), outcome, "{line:?}");
        }
    }

    #[tokio::test]
    async fn a_scanner_that_is_not_there_or_does_not_answer_is_unavailable() {
        let settings =
            |address: AntivirusAddress| AntivirusSettings { address, timeout_seconds: 1, at_once: 1 };
        let scanned = |address| async {
            let antivirus = Antivirus::new(&settings(address)).unwrap();
            let mut scan = antivirus.begin().await;
            scan.send(b"file").await;
            scan.finish().await
        };
        let nowhere = scanned(AntivirusAddress::Unix("/nonexistent/clamd".into())).await;
        assert!(matches!(nowhere, Outcome::Unavailable(reason) if reason.starts_with("cannot connect")));

        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let outcome = scanned(AntivirusAddress::Tcp(silent.local_addr().unwrap().to_string())).await;
        assert_eq!(outcome, Outcome::Unavailable("does not answer in time".to_owned()));
    }

    #[tokio::test]
    async fn files_wait_for_one_another() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = AntivirusAddress::Tcp(silent.local_addr().unwrap().to_string());
        let antivirus =
            Antivirus::new(&AntivirusSettings { address, timeout_seconds: 1, at_once: 1 }).unwrap();
        let first = antivirus.begin().await;
        let second = antivirus.begin().await.finish().await;
        assert_eq!(second, Outcome::Unavailable("it is busy with other files".to_owned()));
        drop(first);
        assert!(antivirus.begin().await.state.is_ok());
    }
}
