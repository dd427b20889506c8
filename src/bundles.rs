//! `postern bundle`: what is done with bundles, by the running server or, on a transfer station, without one.

use crate::{
    cli::{failed, print},
    probe::{self, Ask},
};
use clap::{Args, Subcommand};
use postern_bundles::{
    LinkId,
    command::{self, LinkFile},
    diode::{self, DiodeKey, Outcome, Receiver, Sender, Settings},
    spool::Spool,
};
use postern_config::Config;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    net::{SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::AtomicBool,
    time::Duration,
};

/// How long the server may take for a bundle: all that is in it is checked, and stored.
const PATIENCE: Duration = Duration::from_secs(6 * 60 * 60);
/// How often it is looked for new bundles to be sent over a diode.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Debug, Subcommand)]
pub enum BundleCommand {
    /// Have the running server make a bundle of what is due over a link by hand
    Export(Export),
    /// Have the running server import the bundles that came over a link by hand
    Import(Import),
    /// Have the running server send again what a gap ticket asks for; without a ticket, show the one of this side
    Resync(Resync),
    /// Show all links by hand, and how far they have come
    Links(Administrator),
    /// Send the bundles of a directory over a diode, until stopped
    SendDiode(SendDiode),
    /// Receive bundles from a diode into a directory, until stopped
    ReceiveDiode(ReceiveDiode),
    #[command(flatten)]
    Apart(command::Command),
}

#[derive(Debug, Args)]
pub struct Administrator {
    /// The access token of an administrator
    #[arg(long, env = "POSTERN_TOKEN", hide_env_values = true)]
    token: String,
}

#[derive(Debug, Args)]
pub struct Export {
    /// The link's name in border.toml
    link: String,
    /// Make a bundle that stands for all before it
    #[arg(long)]
    keyframe: bool,
    #[command(flatten)]
    by: Administrator,
}

#[derive(Debug, Args)]
pub struct Import {
    /// The link's name in border.toml
    link: String,
    /// Import also what was not to be imported any more
    #[arg(long)]
    expired: bool,
    #[command(flatten)]
    by: Administrator,
}

#[derive(Debug, Args)]
pub struct Resync {
    /// The link's name in border.toml
    link: String,
    /// What the other side read out
    #[arg(long)]
    ticket: Option<String>,
    #[command(flatten)]
    by: Administrator,
}

/// What both ends of a diode have to know.
#[derive(Debug, Args)]
pub struct Diode {
    /// The directory of bundles
    #[arg(long, value_name = "DIRECTORY")]
    spool: PathBuf,
    /// The public half of the link
    #[arg(long, value_name = "FILE")]
    link: PathBuf,
    /// The diode's secret, as `keygen diode` writes it
    #[arg(long, value_name = "FILE")]
    secret: PathBuf,
}

#[derive(Debug, Args)]
pub struct SendDiode {
    #[command(flatten)]
    diode: Diode,
    /// Where the receiver listens
    #[arg(long, value_name = "ADDRESS")]
    to: SocketAddr,
    /// Bits a second that the line takes: 80 to 90 per cent of its rate
    #[arg(long, default_value_t = Settings::default().bits_per_second)]
    bits_per_second: u64,
    /// Repair symbols, per cent: what is lost, and ten more
    #[arg(long, default_value_t = Settings::default().repair_percent)]
    repair_percent: u16,
    /// How often each bundle is sent
    #[arg(long, default_value_t = Settings::default().passes)]
    passes: u16,
    /// Bytes of a symbol: with 48 more it is a datagram
    #[arg(long, default_value_t = Settings::default().symbol_bytes)]
    symbol_bytes: u16,
    /// Stop when all that lies there was sent
    #[arg(long)]
    once: bool,
}

#[derive(Debug, Args)]
pub struct ReceiveDiode {
    #[command(flatten)]
    diode: Diode,
    /// Where to listen
    #[arg(long, value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Where parts of bundles are kept until they are whole, on the file system of the spool
    #[arg(long, value_name = "DIRECTORY")]
    partial: PathBuf,
}

/// Why a command did not succeed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Server(#[from] probe::Error),
    #[error("{0}")]
    Refused(String),
    #[error("{}: {why}", .path.display())]
    File { path: PathBuf, why: String },
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Receiver(#[from] diode::ReceiverError),
}

/// Does what the command says.
pub fn run(command: &BundleCommand, config: impl FnOnce() -> Result<Config, ExitCode>) -> ExitCode {
    let done = match command {
        BundleCommand::Apart(command) => {
            return match command::run(command, &mut std::io::stdout().lock()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failed(&error),
            };
        }
        BundleCommand::SendDiode(send) => send_diode(send),
        BundleCommand::ReceiveDiode(receive) => receive_diode(receive),
        of_server => match config() {
            Ok(config) => ask(of_server, &config),
            Err(code) => return code,
        },
    };
    match done {
        Ok(text) => print(&text),
        Err(error) => failed(&error),
    }
}

fn ask(command: &BundleCommand, config: &Config) -> Result<String, Error> {
    let asked = |by: &Administrator, what: &str, body: Option<Value>| {
        let body = body.map(|body| body.to_string());
        let path = format!("/_postern/bundles/{what}");
        let ask = Ask { path: &path, token: Some(&by.token), body: body.as_deref(), patience: PATIENCE };
        let (status, answer) = probe::administer(&config.listeners, &ask)?;
        let answer: Value = serde_json::from_str(&answer)
            .map_err(|_| Error::Refused(format!("the server answered {status} {answer}")))?;
        if status == "200" {
            Ok(answer)
        } else {
            Err(Error::Refused(answer.get("error").and_then(Value::as_str).unwrap_or(&status).to_owned()))
        }
    };
    let is_more = |bundle: Option<&Value>| bundle.and_then(|bundle| bundle.get("more")) == Some(&true.into());
    // What is due may be more than a bundle takes.
    let export = |by: &Administrator, link: &str, keyframe: bool| {
        let mut made = Vec::new();
        loop {
            let answer = asked(by, "export", Some(json!({ "link": link, "keyframe": keyframe })))?;
            made.extend(answer.get("bundle").filter(|bundle| !bundle.is_null()).cloned());
            if !is_more(answer.get("bundle")) {
                return Ok::<_, Error>(made);
            }
        }
    };
    let answer = match command {
        BundleCommand::Export(Export { link, keyframe, by }) => {
            json!({ "bundles": export(by, link, *keyframe)? })
        }
        BundleCommand::Import(Import { link, expired, by }) => {
            asked(by, "import", Some(json!({ "link": link, "expired": expired })))?
        }
        BundleCommand::Resync(Resync { link, ticket: Some(ticket), by }) => {
            let mut answer = asked(by, "resync", Some(json!({ "link": link, "ticket": ticket })))?;
            if is_more(answer.get("keyframe")) {
                answer["further"] = export(by, link, true)?.into();
            }
            answer
        }
        BundleCommand::Resync(Resync { link, ticket: None, by }) => {
            let answer = asked(by, "links", None)?;
            let mut links = answer.get("links").and_then(Value::as_array).into_iter().flatten();
            let found = links.find(|one| one.get("link").and_then(Value::as_str) == Some(link));
            let ticket = found.and_then(|one| one.get("in")?.get("ticket")?.as_str());
            let none = || Error::Refused(format!("nothing came over a link {link:?} yet"));
            return Ok(format!("{}\n", ticket.ok_or_else(none)?));
        }
        BundleCommand::Links(by) => asked(by, "links", None)?,
        _ => Value::Null,
    };
    Ok(format!("{answer:#}\n"))
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path)
        .map_err(|error| Error::File { path: path.to_owned(), why: error.to_string() })
}

impl Diode {
    fn open(&self) -> Result<(LinkId, DiodeKey, Spool), Error> {
        let wrong = |path: &Path, why: &dyn std::fmt::Display| Error::File {
            path: path.to_owned(),
            why: why.to_string(),
        };
        let link: LinkFile =
            serde_json::from_str(&read(&self.link)?).map_err(|error| wrong(&self.link, &error))?;
        let key = read(&self.secret)?.trim().parse().map_err(|error| wrong(&self.secret, &error))?;
        let spool = Spool::new(&self.spool).map_err(|error| wrong(&self.spool, &error))?;
        Ok((link.link, key, spool))
    }
}

fn send_diode(send: &SendDiode) -> Result<String, Error> {
    let (link, key, spool) = send.diode.open()?;
    let settings = Settings {
        symbol_bytes: send.symbol_bytes,
        repair_percent: send.repair_percent,
        passes: send.passes,
        bits_per_second: send.bits_per_second,
        ..Settings::default()
    };
    let any: SocketAddr = if send.to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(send.to)?;
    let mut sender = Sender::new(settings, key);
    let (stop, mut sent, mut count) = (AtomicBool::new(false), None, 0);
    loop {
        let there: Vec<_> = spool.list()?.into_iter().filter(|found| found.place.link == link).collect();
        let last = there.last().map(|found| found.place);
        for found in there {
            if sent.is_none_or(|sent| found.place > sent) {
                sent = Some(found.place);
                count += 1;
                sender.push(found)?;
            }
        }
        diode::send(&mut sender, settings.bits_per_second, &socket, &stop)?;
        if let Some(last) = last {
            // The last ones may all be lost: the receiver is to know that it lacks them.
            socket.send(&sender.announcement(last))?;
        }
        if send.once {
            return Ok(format!("{count} bundles were sent\n"));
        }
        std::thread::sleep(LOOK);
    }
}

fn receive_diode(receive: &ReceiveDiode) -> Result<String, Error> {
    let (link, key, spool) = receive.diode.open()?;
    let socket = UdpSocket::bind(receive.listen)?;
    let refused = spool.directory().join("refused");
    let mut receiver = Receiver::new(BTreeMap::from([(link, key)]), &receive.partial, spool)?;
    print(&format!("receiving on {}\n", socket.local_addr()?));
    loop {
        want_again(&mut receiver, &refused)?;
        let stop = AtomicBool::new(false);
        let started = std::time::Instant::now();
        diode::receive(&mut receiver, &socket, &stop, |receiver, outcome| {
            if let Outcome::Bundle(place) = outcome {
                print(&format!("{place} is here\n"));
                if let Some(ticket) =
                    receiver.ticket(link, Vec::new()).filter(|ticket| !ticket.missing.is_empty())
                {
                    print(&format!("missing: {ticket}\n"));
                }
            }
            // What the import found to be of no use is looked for now and then.
            if started.elapsed() > AGAIN {
                stop.store(true, std::sync::atomic::Ordering::Relaxed);
            }
        })?;
    }
}

/// How often it is looked for bundles that the import found to be of no use.
const AGAIN: Duration = Duration::from_secs(60);

/// Bundles that are of no use are taken in again when they come again.
fn want_again(receiver: &mut Receiver, refused: &Path) -> Result<(), Error> {
    let Ok(entries) = std::fs::read_dir(refused) else { return Ok(()) };
    for entry in entries.take(10_000) {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(name) = name.and_then(|name| name.parse::<postern_bundles::spool::Name>().ok()) {
            receiver.want_again(name.place)?;
            std::fs::rename(&path, path.with_extension("seen"))?;
        }
    }
    Ok(())
}
