//! `postern bundle inspect|verify|keygen|ticket`: what can be done with bundles without a server, on a transfer station for
//! example. Each command writes what it found to a writer, as plain text.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::diode::DiodeKey;
use crate::envelope::{self, Identity};
use crate::error::Error;
use crate::header::{Cover, Header};
use crate::keys::{BadKey, LinkId, PublicKey, SecretKey, hex};
use crate::limits;
use crate::reader::{Keyring, Reader, verify_sealed};
use crate::record::Kind;
use crate::spool;
use crate::ticket::{Ticket, TicketError};

/// What to do with bundles.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show what a bundle is, and with an identity also what is in it
    Inspect(Inspect),
    /// Check that a bundle is whole, unaltered and of the link it says
    Verify(Verify),
    /// Make the keys of a link
    #[command(subcommand)]
    Keygen(Keygen),
    /// Show what a gap ticket asks for
    Ticket(TicketArgs),
}

/// Files of one bundle, and whom to believe.
#[derive(Debug, clap::Args)]
pub struct Source {
    /// The bundle's file, or its volumes in order
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The public half of a link, as `keygen link` writes it; may be given several times
    #[arg(long = "link", value_name = "FILE", required = true)]
    links: Vec<PathBuf>,
    /// The identity a bundle is sealed to, as `keygen identity` writes it; may be given several times
    #[arg(long = "identity", value_name = "FILE")]
    identities: Vec<PathBuf>,
    /// The most bytes that the records may have when unpacked
    #[arg(long, value_name = "BYTES", default_value_t = limits::TOTAL_BYTES)]
    max_total: u64,
}

#[derive(Debug, clap::Args)]
pub struct Inspect {
    #[command(flatten)]
    source: Source,
    /// List every record
    #[arg(long, requires = "identities")]
    records: bool,
}

#[derive(Debug, clap::Args)]
pub struct Verify {
    #[command(flatten)]
    source: Source,
}

/// Which keys to make. Nothing is overwritten; secrets can be read by their owner only.
#[derive(Debug, clap::Subcommand)]
pub enum Keygen {
    /// A new link: its signing key and its id, for the sending end; the public half is for the receiving end
    Link(Place),
    /// An identity that bundles are sealed to, for the receiving end; its recipient is for the sending end
    Identity(Place),
    /// A secret for both ends of a diode
    Diode(Place),
    /// A root of a link, which may open epochs; keep it apart from everything else
    Root(Place),
}

#[derive(Debug, clap::Args)]
pub struct Place {
    /// The directory to write to
    #[arg(long, value_name = "DIRECTORY", default_value = ".")]
    to: PathBuf,
    /// What the files' names begin with
    #[arg(long, value_name = "NAME")]
    name: String,
}

#[derive(Debug, clap::Args)]
pub struct TicketArgs {
    /// The ticket; spaces and hyphens do not matter
    #[arg(required = true)]
    ticket: Vec<String>,
}

/// The public half of a link's epoch: what the receiving end believes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkFile {
    pub link: LinkId,
    pub epoch: u32,
    pub key: PublicKey,
}

/// Why a command did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("{}: {source}", .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{}: {source}", .path.display())]
    Key { path: PathBuf, source: BadKey },
    #[error("{}: not the public half of a link: {source}", .path.display())]
    Link { path: PathBuf, source: serde_json::Error },
    #[error(transparent)]
    Bundle(#[from] Error),
    #[error("{lost} of {of} records cannot be read; the others are good")]
    Lost { lost: u64, of: u64 },
    #[error(transparent)]
    Ticket(#[from] TicketError),
    #[error(transparent)]
    Output(#[from] io::Error),
}

impl From<envelope::Error> for CommandError {
    fn from(error: envelope::Error) -> Self {
        Self::Bundle(error.into())
    }
}

/// Runs a command and writes what it found to `out`.
///
/// # Errors
/// If a file cannot be read or written, or what it should verify does not.
pub fn run(command: &Command, out: &mut impl Write) -> Result<(), CommandError> {
    match command {
        Command::Inspect(Inspect { source, records }) => inspect(source, *records, out),
        Command::Verify(Verify { source }) => verify(source, out),
        Command::Keygen(keygen) => generate(keygen, out),
        Command::Ticket(TicketArgs { ticket }) => show_ticket(&ticket.join(" ").parse()?, out),
    }
}

fn read(path: &Path) -> Result<Zeroizing<String>, CommandError> {
    let text =
        fs::read_to_string(path).map_err(|source| CommandError::File { path: path.to_owned(), source })?;
    Ok(Zeroizing::new(text))
}

impl Source {
    fn keyring(&self) -> Result<Keyring, CommandError> {
        let mut keyring = Keyring::default();
        for path in &self.links {
            let link: LinkFile = serde_json::from_str(&read(path)?)
                .map_err(|source| CommandError::Link { path: path.clone(), source })?;
            keyring.add(link.link, link.epoch, link.key);
        }
        Ok(keyring)
    }

    fn identities(&self) -> Result<Vec<Identity>, CommandError> {
        let identity = |path: &PathBuf| {
            let text = read(path)?;
            // As age-keygen writes them too: with comments.
            let line =
                text.lines().find(|line| !line.is_empty() && !line.starts_with('#')).unwrap_or_default();
            line.parse().map_err(|source| CommandError::Key { path: path.clone(), source })
        };
        self.identities.iter().map(identity).collect()
    }

    fn open(&self) -> Result<crate::volumes::Joined<fs::File>, CommandError> {
        spool::open(&self.files).map_err(|source| CommandError::File {
            path: self.files.first().cloned().unwrap_or_default(),
            source,
        })
    }
}

fn inspect(source: &Source, list: bool, out: &mut impl Write) -> Result<(), CommandError> {
    let (keys, identities) = (source.keyring()?, source.identities()?);
    if identities.is_empty() {
        show_cover(&crate::read_cover(&mut source.open()?, &keys)?, out)?;
        writeln!(out, "sealed: what is inside takes an identity to show")?;
        return Ok(());
    }
    let mut reader = Reader::open(source.open()?, &keys, &identities, source.max_total)?;
    show_cover(reader.cover(), out)?;
    show_header(reader.header(), out)?;
    if !list {
        return Ok(());
    }
    each_record(&mut reader, out, |verified, out| {
        let length = verified.record().encode()?.len();
        writeln!(out, "record {}: {}, {length} bytes", verified.at(), verified.record().kind().name())
            .map_err(CommandError::Output)
    })
}

fn verify(source: &Source, out: &mut impl Write) -> Result<(), CommandError> {
    let (keys, identities) = (source.keyring()?, source.identities()?);
    let cover = verify_sealed(source.open()?, &keys);
    match &cover {
        Ok(cover) => writeln!(out, "{}: whole, unaltered, signed by its link", cover.place)?,
        // What is left of a damaged bundle can be told by who can open it.
        Err(error) if !identities.is_empty() => writeln!(out, "not whole: {error}")?,
        Err(_) => {}
    }
    if !identities.is_empty() {
        let mut reader = Reader::open(source.open()?, &keys, &identities, source.max_total)?;
        each_record(&mut reader, out, |_, _| Ok(()))?;
        writeln!(out, "all {} records are those that were signed for", reader.header().record_count)?;
    }
    cover?;
    Ok(())
}

/// Calls `each` with every record that can be read, and says which cannot.
fn each_record<R: io::Read, W: Write>(
    reader: &mut Reader<R>,
    out: &mut W,
    mut each: impl FnMut(&crate::Verified, &mut W) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    let (mut good, mut failed) = (0, false);
    loop {
        match reader.next_record() {
            Ok(Some(verified)) => {
                each(&verified, out)?;
                good += 1;
            }
            Ok(None) => break,
            Err(error) => {
                writeln!(out, "{error}")?;
                failed = true;
                if !error.is_local() {
                    break;
                }
            }
        }
    }
    let of = reader.header().record_count;
    let lost = of - good - reader.skipped();
    if failed { Err(CommandError::Lost { lost, of }) } else { Ok(()) }
}

fn show_cover(cover: &Cover, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "link: {}", cover.place.link)?;
    writeln!(out, "epoch: {}", cover.place.epoch)?;
    writeln!(out, "sequence number: {}", cover.place.seq)?;
    writeln!(out, "bundle: {}", cover.id)?;
    writeln!(out, "kind: {}", cover.kind.name())?;
    writeln!(out, "hash: {}", hex(&cover.hash))?;
    writeln!(out, "made: {}", rfc3339(cover.created))?;
    cover.not_after.map_or(Ok(()), |time| writeln!(out, "not after: {}", rfc3339(time)))?;
    writeln!(out, "sealed bytes: {}", cover.head_len + cover.body_len)
}

fn show_header(header: &Header, out: &mut impl Write) -> io::Result<()> {
    let fields = &header.fields;
    writeln!(out, "from: {:?}", fields.source)?;
    writeln!(out, "for: {:?}", fields.destinations)?;
    writeln!(out, "label: {:?}", fields.label)?;
    writeln!(out, "policy revision: {:?}", fields.policy_revision)?;
    writeln!(out, "continues: {}", hex(&fields.prev_sha256))?;
    writeln!(out, "Merkle root: {}", hex(&header.merkle_root))?;
    writeln!(out, "records: {}", header.record_count)?;
    for (code, count) in &header.counts {
        match Kind::of(*code) {
            Some(kind) => writeln!(out, "  {}: {count}", kind.name())?,
            None => writeln!(out, "  type {code}: {count}")?,
        }
    }
    for room in &fields.rooms {
        let (before, after) = (room.before.len(), room.after.len());
        writeln!(
            out,
            "room: {:?}, version {:?}, depth {}, heads {before} before, {after} after",
            room.room, room.version, room.last_depth
        )?;
    }
    for missing in &fields.missing {
        writeln!(out, "missing in {:?}: {} events", missing.room, missing.events.len())?;
    }
    for ack in &fields.acks {
        writeln!(out, "acknowledges: {}, but for {}", ack.place, ranges(&ack.missing))?;
    }
    for release in &header.releases {
        writeln!(out, "release: {:?}, {:?} (not verified here)", release.officer, release.reason)?;
    }
    Ok(())
}

fn ranges(ranges: &[std::ops::RangeInclusive<u64>]) -> String {
    let range = |range: &std::ops::RangeInclusive<u64>| match range.start() == range.end() {
        true => range.start().to_string(),
        false => format!("{}–{}", range.start(), range.end()),
    };
    if ranges.is_empty() {
        "nothing".to_owned()
    } else {
        ranges.iter().map(range).collect::<Vec<_>>().join(", ")
    }
}

fn show_ticket(ticket: &Ticket, out: &mut impl Write) -> Result<(), CommandError> {
    writeln!(out, "link: {}", ticket.link)?;
    writeln!(out, "epoch: {}", ticket.epoch)?;
    writeln!(
        out,
        "missing: {}{}",
        ranges(&ticket.missing),
        if ticket.exact { "" } else { " (some of these are there)" }
    )?;
    writeln!(out, "and everything above {}", ticket.last)?;
    for room in &ticket.rooms {
        let short = |bytes: &[u8; 8]| hex(bytes);
        writeln!(out, "room {}: heads {}", short(&room.room), short(&room.heads))?;
    }
    Ok(())
}

fn generate(keygen: &Keygen, out: &mut impl Write) -> Result<(), CommandError> {
    match keygen {
        Keygen::Link(place) => {
            let secret = SecretKey::random();
            let public = LinkFile { link: LinkId::random(), epoch: 1, key: secret.public() };
            place.secret("link.secret", &secret.reveal(), out)?;
            let json =
                serde_json::to_string_pretty(&public).map_err(|error| CommandError::Output(error.into()))?;
            place.write("link.json", &json, false, out)?;
            writeln!(out, "link {} is signed with {}", public.link, public.key)?;
        }
        Keygen::Identity(place) => {
            let identity = Identity::random();
            place.secret("identity.secret", &identity.reveal(), out)?;
            writeln!(out, "bundles are sealed to {}", identity.recipient()?)?;
        }
        Keygen::Diode(place) => place.secret("diode.secret", &DiodeKey::random().reveal(), out)?,
        Keygen::Root(place) => {
            let secret = SecretKey::random();
            place.secret("root.secret", &secret.reveal(), out)?;
            writeln!(out, "the root is {}", secret.public())?;
        }
    }
    Ok(())
}

impl Place {
    fn secret(&self, extension: &str, text: &str, out: &mut impl Write) -> Result<(), CommandError> {
        self.write(extension, text, true, out)
    }

    fn write(
        &self,
        extension: &str,
        text: &str,
        secret: bool,
        out: &mut impl Write,
    ) -> Result<(), CommandError> {
        let path = self.to.join(format!("{}.{extension}", self.name));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, if secret { 0o600 } else { 0o644 });
        let written = options.open(&path).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.write_all(b"\n")?;
            file.sync_all()
        });
        written.map_err(|source| CommandError::File { path: path.clone(), source })?;
        writeln!(out, "wrote {}", path.display())?;
        Ok(())
    }
}

/// Milliseconds since the epoch as RFC 3339 has it.
fn rfc3339(ms: u64) -> String {
    let (days, ms) = (ms / 86_400_000, ms % 86_400_000);
    // Years of 400 repeat; days are counted from 1 March of the year 0, so that leap days come last.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + next;
    let (hour, minute, second, ms) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60, ms % 1_000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::Spool;
    use crate::testing;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(subcommand)]
        command: Command,
    }

    fn cli(arguments: &[&str]) -> (Result<(), CommandError>, String) {
        let cli =
            Cli::try_parse_from([&["bundle"], arguments].concat()).unwrap_or_else(|error| panic!("{error}"));
        let mut out = Vec::new();
        let result = run(&cli.command, &mut out);
        (result, String::from_utf8(out).unwrap())
    }

    struct Station {
        directory: tempfile::TempDir,
        bundle: PathBuf,
    }

    impl Station {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let public = LinkFile { link: testing::LINK, epoch: 1, key: testing::link_key().public() };
            fs::write(directory.path().join("link.json"), serde_json::to_string(&public).unwrap()).unwrap();
            fs::write(
                directory.path().join("identity"),
                format!("# a comment\n{}\n", testing::identity().reveal().as_str()),
            )
            .unwrap();
            let spool = Spool::new(directory.path().join("spool")).unwrap();
            let mut outgoing = spool.begin(&testing::recipients()).unwrap();
            testing::records(2_000).iter().for_each(|record| outgoing.add(record).unwrap());
            let published = outgoing.finish().unwrap().publish(
                testing::fields(1),
                Vec::new(),
                &testing::link_key(),
                None,
            );
            Self { directory, bundle: published.unwrap().1.remove(0) }
        }

        fn path(&self, name: &str) -> String {
            self.directory.path().join(name).display().to_string()
        }

        fn cli(&self, command: &str, arguments: &[&str]) -> (Result<(), CommandError>, String) {
            let (bundle, link) = (self.bundle.display().to_string(), self.path("link.json"));
            cli(&[&[command, &bundle, "--link", &link], arguments].concat())
        }

        fn damage(&self, from_end: usize) {
            let mut bytes = fs::read(&self.bundle).unwrap();
            let at = bytes.len() - from_end;
            bytes[at] ^= 1;
            fs::write(&self.bundle, bytes).unwrap();
        }
    }

    #[test]
    fn a_transfer_station_verifies_with_the_public_key_alone() {
        let station = Station::new();
        let (verified, out) = station.cli("verify", &[]);
        verified.unwrap();
        assert_eq!(
            out,
            format!("bundle 1 of epoch 1 of link {}: whole, unaltered, signed by its link\n", testing::LINK)
        );
        let (inspected, out) = station.cli("inspect", &[]);
        inspected.unwrap();
        assert!(out.contains("made: 2023-11-14T22:13:20.000Z\n") && !out.contains("low.example"), "{out}");
        station.damage(10);
        assert!(station.cli("verify", &[]).0.is_err());
    }

    #[test]
    fn who_can_open_a_bundle_sees_what_is_in_it_and_what_is_left_of_it() {
        let station = Station::new();
        let identity = station.path("identity");
        let (inspected, out) = station.cli("inspect", &["--identity", &identity, "--records"]);
        inspected.unwrap();
        assert!(
            out.contains("from: \"low.example\"\n")
                && out.contains("  pdu: 2000\n")
                && out.contains("record 1999: pdu, "),
            "{out}"
        );
        assert!(
            station
                .cli("verify", &["--identity", &identity])
                .1
                .ends_with("all 2000 records are those that were signed for\n")
        );
        station.damage(10);
        let (verified, out) = station.cli("verify", &["--identity", &identity]);
        assert!(matches!(verified, Err(CommandError::Lost { lost: 1..1_999, of: 2_000 })), "{verified:?}");
        assert!(out.starts_with("not whole: "), "{out}");
    }

    #[test]
    fn keys_are_made_once_and_are_what_the_other_commands_read() {
        let directory = tempfile::tempdir().unwrap();
        let to = directory.path().display().to_string();
        for kind in ["link", "identity", "diode", "root"] {
            let (made, out) = cli(&["keygen", kind, "--to", &to, "--name", "a"]);
            made.unwrap();
            let secret = directory.path().join(format!("a.{kind}.secret"));
            let text = fs::read_to_string(&secret).unwrap();
            assert!(!out.contains(text.trim()), "a secret is not printed");
            #[cfg(unix)]
            assert_eq!(
                std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&secret).unwrap().permissions())
                    & 0o777,
                0o600
            );
            assert!(matches!(
                cli(&["keygen", kind, "--to", &to, "--name", "a"]).0,
                Err(CommandError::File { .. })
            ));
            assert_eq!(fs::read_to_string(&secret).unwrap(), text, "nothing is overwritten");
            match kind {
                "identity" => assert!(text.parse::<Identity>().is_ok()),
                "diode" => assert!(text.parse::<DiodeKey>().is_ok()),
                _ => assert!(text.parse::<SecretKey>().is_ok()),
            }
        }
        let public: LinkFile =
            serde_json::from_str(&fs::read_to_string(directory.path().join("a.link.json")).unwrap()).unwrap();
        let secret: SecretKey =
            fs::read_to_string(directory.path().join("a.link.secret")).unwrap().parse().unwrap();
        assert_eq!(public.key, secret.public());
    }

    #[test]
    fn a_ticket_is_shown() {
        let ticket = Ticket {
            link: testing::LINK,
            epoch: 2,
            last: 90,
            missing: vec![3..=7, 41..=41],
            exact: true,
            rooms: Vec::new(),
        };
        let (shown, out) = cli(&["ticket", &ticket.to_string()]);
        shown.unwrap();
        assert_eq!(
            out,
            format!("link: {}\nepoch: 2\nmissing: 3–7, 41\nand everything above 90\n", testing::LINK)
        );
        assert!(matches!(cli(&["ticket", "ABC"]).0, Err(CommandError::Ticket(_))));
    }

    #[test]
    fn times_are_written_as_everywhere() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(rfc3339(1_709_251_199_999), "2024-02-29T23:59:59.999Z");
        assert_eq!(rfc3339(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
    }
}
