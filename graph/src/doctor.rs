//! The doctor: examines a database that no server has open, and says in sentences what is wrong with it.
//!
//! It only reads. Every entry of every family is read and decoded, which also checks the checksum of every block;
//! then the families are held against each other, wherever one is the inverse or the summary of another.

mod chains;
mod events;
mod messages;
mod outbox;
mod state;

use crate::{
    codec::Decode,
    error::Error,
    ids::{EventNum, RoomNum, Seq, UserNum},
    intern::Kind,
    limits,
    schema::{self, Cursors, Family, Log, Meta, Names, Numbers, VERSION, Visit},
    store::{Graph, Settings},
};
use rocksdb::ReadOptions;
use std::{path::Path, sync::Arc};

/// What an examination found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Entries read, of all families.
    pub entries: u64,
    /// One sentence for each thing that is wrong; the first [`limits::DOCTOR_FINDINGS`].
    pub sentences: Vec<String>,
    /// How many more there are.
    pub more: u64,
}

impl Findings {
    /// Whether nothing is wrong.
    #[must_use]
    pub const fn is_healthy(&self) -> bool {
        self.sentences.is_empty()
    }

    fn add(&mut self, sentence: String) {
        // One fault can show in several checks.
        if self.sentences.contains(&sentence) {
            return;
        }
        if self.sentences.len() < limits::DOCTOR_FINDINGS {
            self.sentences.push(sentence);
        } else {
            self.more += 1;
        }
    }
}

/// Examines the database in `path`. Takes about as long as reading all of it.
///
/// # Errors
/// If it cannot be opened at all: [`Error::NotOurs`], [`Error::Newer`], [`Error::Corrupt`].
pub fn check(path: &Path) -> Result<Findings, Error> {
    let settings = Settings { path: path.to_owned(), block_cache: limits::EXAMINATION_BLOCK_CACHE };
    let graph = Arc::new(Graph::for_reading(&settings)?);
    let mut doctor = Doctor { graph, findings: Findings::default() };
    doctor.schema_version();
    schema::visit_all(&mut doctor);
    doctor.names();
    doctor.log();
    doctor.timelines();
    doctor.links();
    doctor.relations();
    doctor.threads();
    doctor.state_maps();
    doctor.current_state();
    doctor.memberships();
    doctor.room_servers();
    doctor.chains();
    doctor.seen_messages();
    doctor.outbox();
    Ok(doctor.findings)
}

struct Doctor {
    graph: Arc<Graph>,
    findings: Findings,
}

/// Reads every entry of a family and decodes it.
impl Visit for Doctor {
    fn visit<F: Family>(&mut self) {
        if self.graph.family::<F>().is_err() {
            self.say(format!("Family {} is missing.", F::NAME));
            return;
        }
        self.raw::<F>(|doctor, key, value| {
            doctor.findings.entries += 1;
            if let Err(damaged) = F::Key::whole(key) {
                doctor.say(format!("A key of family {} cannot be read ({}): {damaged}.", F::NAME, hex(key)));
            }
            if let Err(damaged) = F::Value::whole(value) {
                doctor.say(format!(
                    "The value at key {} of family {} cannot be read: {damaged}.",
                    hex(key),
                    F::NAME
                ));
            }
        });
    }
}

/// The beginning of a key, for a person to find it.
fn hex(key: &[u8]) -> String {
    let mut text: String = key.iter().take(32).map(|byte| format!("{byte:02x}")).collect();
    if key.len() > 32 {
        text.push('…');
    }
    text
}

impl Doctor {
    fn say(&mut self, sentence: String) {
        self.findings.add(sentence);
    }

    /// Shows every entry of a family, undecoded.
    fn raw<F: Family>(&mut self, mut look: impl FnMut(&mut Self, &[u8], &[u8])) {
        let graph = self.graph.clone();
        if graph.family::<F>().is_err() {
            return;
        }
        let mut options = ReadOptions::default();
        options.set_total_order_seek(true);
        options.fill_cache(false);
        let mut entries = graph.raw_iterator::<F>(options);
        entries.seek_to_first();
        while let Some((key, value)) = entries.item() {
            look(self, key, value);
            entries.next();
        }
        if let Err(error) = entries.status() {
            self.say(format!("Family {} cannot be read to its end: {error}.", F::NAME));
        }
    }

    /// Shows every entry of a family that can be decoded; the others were reported when all were decoded.
    fn each<F: Family>(&mut self, mut look: impl FnMut(&mut Self, F::Key, F::Value) -> Result<(), Error>) {
        self.raw::<F>(|doctor, key, value| {
            let (Ok(key), Ok(value)) = (F::Key::whole(key), F::Value::whole(value)) else { return };
            match look(doctor, key, value) {
                // What cannot be decoded was reported already.
                Ok(()) | Err(Error::Damaged { .. }) => {}
                Err(error) => doctor.say(format!("Checking family {} failed: {error}.", F::NAME)),
            }
        });
    }

    fn event(&self, event: EventNum) -> String {
        self.named(Kind::Event, event.0, "event")
    }

    fn room(&self, room: RoomNum) -> String {
        self.named(Kind::Room, room.0, "room")
    }

    fn user(&self, user: UserNum) -> String {
        self.named(Kind::User, user.0, "user")
    }

    fn named(&self, kind: Kind, number: u64, what: &str) -> String {
        match self.graph.name(kind, number) {
            Ok(name) => format!("{what} {number} ({name})"),
            Err(_) => format!("{what} {number}"),
        }
    }

    fn schema_version(&mut self) {
        let version = self.graph.get::<Meta>(&("schema".to_owned(),));
        let known = VERSION.to_string();
        match version {
            Ok(Some(found)) if found.0 == known.as_bytes() => {}
            Ok(Some(found)) => self.say(format!(
                "The schema version is {}, this program's is {known}.",
                String::from_utf8_lossy(&found.0)
            )),
            Ok(None) => self.say("The schema version is not stored.".to_owned()),
            Err(error) => self.say(format!("The schema version cannot be read: {error}.")),
        }
    }

    /// Names and numbers are each other's inverse.
    fn names(&mut self) {
        self.each::<Numbers>(|doctor, (kind, name), number| {
            let back = doctor.graph.get::<Names>(&(kind, number))?;
            if back.as_deref() != Some(name.as_str()) {
                let back = back.map_or_else(|| "nothing".to_owned(), |name| format!("{name:?}"));
                doctor.say(format!(
                    "Name {name:?} of kind {kind} has number {number}, but that number stands for {back}."
                ));
            }
            Ok(())
        });
        self.each::<Names>(|doctor, (kind, number), name| {
            let back = doctor.graph.get::<Numbers>(&(kind, name.clone()))?;
            if back != Some(number) {
                let back = back.map_or_else(|| "none".to_owned(), |number| number.to_string());
                doctor.say(format!(
                    "Number {number} of kind {kind} stands for {name:?}, but the number of that name is {back}."
                ));
            }
            Ok(())
        });
    }

    /// No follower is ahead of the log.
    fn log(&mut self) {
        let mut last = Seq::ZERO;
        self.each::<Log>(|_, (seq,), _| {
            last = last.max(seq);
            Ok(())
        });
        self.each::<Cursors>(|doctor, (name,), cursor| {
            if cursor > last {
                doctor.say(format!(
                    "Follower {name:?} has worked up to {}, but the log ends at {}.",
                    cursor.0, last.0
                ));
            }
            Ok(())
        });
    }
}
