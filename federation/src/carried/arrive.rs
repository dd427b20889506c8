//! Taking bundles over from where they lie, and which of them is next.

use super::{
    Fault, apart, keys,
    state::State,
    take::{Taken, Taking},
};
use crate::{Error, Federation};
use postern_border::{Border, ByHand, Incoming};
use postern_bundles::{
    Cover, Error as BundleError, Header, Identity, Keyring, PublicKey, Reader, limits,
    link::{Arrival, Link, Offered, Ready},
    read_cover,
    spool::{Found, Spool},
    verify_sealed,
};
use postern_rooms::now_ms;
use ruma::{OwnedServerName, ServerName};
use serde::Serialize;
use serde_json::{Value, json};
use std::{
    fs::File,
    io::{self, Read},
    path::PathBuf,
    sync::Arc,
};
use tokio::sync::mpsc;

/// Records between the thread that reads a bundle and who takes them in.
const RECORDS: usize = 64;
/// Where bundles go that are of no use, in the directory they came in.
const REFUSED: &str = "refused";

/// What came of an import.
#[derive(Debug, Default, Serialize)]
pub struct Imported {
    /// Bundles that were taken in.
    bundles: Vec<Value>,
    /// Bundles that wait for earlier ones.
    waiting: Vec<u64>,
    /// Bundles that are here already.
    known: usize,
    /// Files that are of no use, and why.
    refused: Vec<Value>,
    /// Bundles that are missing: first and last of each range.
    missing: Vec<(u64, u64)>,
    /// What to read to the other side, if something is missing and no bundle goes back.
    ticket: Option<String>,
    /// Why nothing more is taken: two bundles for one place.
    frozen: Option<String>,
}

/// Whose bundles are believed, and what opens them.
struct Trust {
    keyring: Keyring,
    identity: Identity,
    officers: Vec<(String, PublicKey)>,
    border: Border,
    peer: OwnedServerName,
    own: OwnedServerName,
}

impl Federation {
    /// Imports what lies in the directory of a link. `expired` is the administrator's word that bundles may be imported whose
    /// time is over.
    ///
    /// # Errors
    /// [`Fault`] and the store's. What was taken in until then stays, the rest is taken in the next time.
    pub async fn import_bundles(&self, link: &str, expired: bool) -> Result<Imported, Error> {
        let way = self.link_by_hand(link)?;
        let turn = self.turn_of(link).await;
        let federation = self.clone();
        apart(async move {
            let imported = federation.import(&way, expired).await;
            drop(turn);
            imported
        })
        .await
    }

    async fn import(&self, way: &Arc<ByHand>, expired: bool) -> Result<Imported, Error> {
        let one_way = || Fault::OneWay("comes", way.name.clone(), "in");
        let into = way.into.as_ref().ok_or_else(one_way)?;
        let (public, identity) = keys::incoming(into)?;
        let mut state = self.state_of(way)?;
        let mut keyring = Keyring::default();
        state.receiving(&public).add_to(&mut keyring);
        keyring.add(public.link, public.epoch, public.key);
        let trust = Trust {
            keyring,
            identity,
            officers: keys::officers(into)?,
            border: self.border()?.clone(),
            peer: way.peer.clone(),
            own: self.0.rooms.server_name().to_owned(),
        };
        let arrived = self.spool_of(way, "arrived")?;
        let mut imported = Imported::default();
        let dropped = state.receiving(&public).drop_old(now_ms());
        for place in dropped {
            tracing::warn!(link = way.name, bundle = %place, "a bundle waited too long for earlier ones");
        }
        self.take_over(way, into, &trust, (&arrived, expired), &mut state, &mut imported).await?;
        loop {
            let link = state.receiving(&public);
            let Some(ready) = link.ready() else { break };
            let found = list(&arrived)?.into_iter().find(|found| found.place == ready.place);
            let Some(found) = found else {
                return Err(Fault::file(
                    arrived.directory(),
                    &format!("{} is not there any more", ready.place),
                )
                .into());
            };
            let taken = self.take_in(way, &trust, &found, &mut state).await?;
            tracing::info!(link = way.name, bundle = %ready.place, events = taken.events, "a bundle was imported");
            if let Some(into) = &mut state.into {
                into.imported(&ready);
            }
            self.note_now(way, &state).await?;
            remove(&found)?;
            imported.bundles.push(json!({
                "sequence": ready.place.seq,
                "passed_over": passed_over(&ready),
                "taken": taken,
            }));
        }
        let link = state.receiving(&public);
        imported.waiting = list(&arrived)?.into_iter().map(|found| found.place.seq).collect();
        imported.missing = link.needed().iter().map(|range| (*range.start(), *range.end())).collect();
        if !imported.missing.is_empty() {
            imported.ticket = Some(link.ticket(Vec::new()).to_string());
        }
        imported.frozen = link.frozen().map(ToString::to_string);
        Ok(imported)
    }

    /// Copies what is new to where it cannot be taken away, and notes it.
    async fn take_over(
        &self,
        way: &ByHand,
        into: &Incoming,
        trust: &Trust,
        (arrived, expired): (&Spool, bool),
        state: &mut State,
        imported: &mut Imported,
    ) -> Result<(), Error> {
        let incoming = Spool::new(&into.directory).map_err(|error| Fault::file(&into.directory, &error))?;
        for found in list(&incoming)? {
            let Some(link) = &mut state.into else { return Ok(()) };
            if found.place.link != link.id() {
                continue;
            }
            let mut link = link.clone();
            match arrive(trust, &found, arrived, &mut link, expired) {
                Ok(Arrived::New) => {
                    state.into = Some(link);
                    self.note_now(way, state).await?;
                    if into.remove {
                        remove(&found)?;
                    }
                }
                Ok(Arrived::Known) => {
                    imported.known += 1;
                    if into.remove {
                        remove(&found)?;
                    }
                }
                Err(error) => {
                    // A fork is to be remembered.
                    if state.into.as_ref() != Some(&link) {
                        state.into = Some(link);
                        self.note_now(way, state).await?;
                    }
                    let names: Vec<_> = found.files.iter().filter_map(|file| file.file_name()).collect();
                    tracing::warn!(link = way.name, ?names, %error, "a bundle is refused");
                    imported.refused.push(json!({ "files": found.files, "why": error.to_string() }));
                    if !matches!(error, Useless::Later(_)) {
                        set_aside(&incoming, &found);
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes in what is in a bundle.
    async fn take_in(
        &self,
        way: &ByHand,
        trust: &Trust,
        found: &Found,
        state: &mut State,
    ) -> Result<Taken, Error> {
        let mut reader = open(trust, found)?;
        let header = reader.header().clone();
        let (to, mut records) = mpsc::channel(RECORDS);
        let reading = tokio::task::spawn_blocking(move || {
            loop {
                let record = reader.next_record().transpose();
                let Some(record) = record else { return };
                let is_over = record.is_err();
                // Who takes them in may have given up.
                if to.blocking_send(record).is_err() || is_over {
                    return;
                }
            }
        });
        let mut taking = Taking::new(self, way, &header);
        while let Some(record) = records.recv().await {
            taking.record(record?.into_record(), state).await?;
        }
        reading.await.map_err(|error| Fault::BrokeOff(error.to_string()))?;
        let taken = taking.end().await?;
        self.take_acks(way, state, &header)?;
        Ok(taken)
    }
}

enum Arrived {
    New,
    Known,
}

/// Why a file is not taken over.
#[derive(Debug, thiserror::Error)]
enum Useless {
    #[error("{0}")]
    Bundle(#[from] BundleError),
    #[error("{0}")]
    Said(String),
    /// It may be good yet.
    #[error("{0}")]
    Later(String),
}

fn list(spool: &Spool) -> Result<Vec<Found>, Error> {
    Ok(spool.list().map_err(|error| Fault::file(spool.directory(), &error))?)
}

fn remove(found: &Found) -> Result<(), Error> {
    for file in &found.files {
        std::fs::remove_file(file).map_err(|error| Fault::file(file, &error))?;
    }
    Ok(())
}

/// Moves files that are of no use out of the way. On a medium that cannot be written they stay, and are refused again.
fn set_aside(incoming: &Spool, found: &Found) {
    let aside = incoming.directory().join(REFUSED);
    let moved = std::fs::create_dir_all(&aside).and_then(|()| {
        found.files.iter().try_for_each(|file| {
            let name = file.file_name().unwrap_or_default();
            std::fs::rename(file, aside.join(name))
        })
    });
    if let Err(error) = moved {
        tracing::info!(%error, "a bundle that is of no use stays where it is");
    }
}

fn passed_over(ready: &Ready) -> Option<(u64, u64)> {
    ready.passed_over.as_ref().map(|range| (*range.start(), *range.end()))
}

fn open(trust: &Trust, found: &Found) -> Result<Reader<postern_bundles::volumes::Joined<File>>, BundleError> {
    let identities = std::slice::from_ref(&trust.identity);
    Reader::open(found.open()?, &trust.keyring, identities, limits::TOTAL_BYTES)
}

/// Takes over one bundle: copies it, and verifies the copy.
fn arrive(
    trust: &Trust,
    found: &Found,
    arrived: &Spool,
    link: &mut Link,
    expired: bool,
) -> Result<Arrived, Useless> {
    let cover = read_cover(&mut found.open().map_err(BundleError::from)?, &trust.keyring)?;
    if cover.place != found.place {
        return Err(Useless::Said(format!("the file is named as {}, but is {}", found.place, cover.place)));
    }
    if link.knows(cover.place.seq, &cover.hash)
        && (cover.place.seq <= link.last() || arrived.has(cover.place))
    {
        return Ok(Arrived::Known);
    }
    // What a stop left of an earlier try.
    if arrived.has(cover.place) {
        remove_from(arrived, cover.place)?;
    }
    let path = arrived.put(cover.place, bounded(found, &cover).map_err(BundleError::from)?)?;
    let offered = checked(trust, &path, &cover).map(|header| {
        let arrival = Arrival::of(&header, cover.hash);
        link.offer(&arrival, now_ms(), expired)
    });
    let kept = match offered {
        Ok(Offered::Ready | Offered::Parked { .. }) => return Ok(Arrived::New),
        Ok(Offered::Duplicate | Offered::Old) => Ok(Arrived::Known),
        Ok(Offered::Forked(fork)) => Err(Useless::Said(format!(
            "two different bundles for one place: {fork}. The link is frozen: somebody else may have its key"
        ))),
        Ok(Offered::Frozen(fork)) => Err(Useless::Later(format!("the link is frozen: {fork}"))),
        Ok(Offered::Expired { not_after }) => Err(Useless::Later(format!(
            "it was not to be imported after {not_after} (milliseconds since the epoch)"
        ))),
        Ok(Offered::OtherLink(link)) => Err(Useless::Said(format!("it is of the link {link}"))),
        Ok(Offered::OldEpoch { epoch, current }) => {
            Err(Useless::Said(format!("it is of epoch {epoch}, which is over: the present one is {current}")))
        }
        Ok(Offered::UnknownEpoch { epoch, current }) => {
            Err(Useless::Later(format!("its epoch {epoch} is not open: the present one is {current}")))
        }
        Ok(Offered::Full) => Err(Useless::Later("too many bundles wait for earlier ones".to_owned())),
        Err(error) => Err(error),
    };
    remove_from(arrived, cover.place)?;
    kept
}

fn remove_from(spool: &Spool, place: postern_bundles::Place) -> Result<(), Useless> {
    let found = spool.list().map_err(BundleError::from)?.into_iter().filter(|found| found.place == place);
    for file in found.flat_map(|found| found.files) {
        std::fs::remove_file(file).map_err(BundleError::from)?;
    }
    Ok(())
}

/// As many bytes as the cover says, and one more if there is one, which is then found to be too many.
fn bounded(found: &Found, cover: &Cover) -> io::Result<impl Read> {
    let front = 8 + limits::COVER_BYTES as u64;
    Ok(found.open()?.take(front.saturating_add(cover.head_len).saturating_add(cover.body_len)))
}

/// What a copy is, if it is whole, can be opened, and is meant for here.
fn checked(trust: &Trust, path: &PathBuf, cover: &Cover) -> Result<Header, Useless> {
    let file = || File::open(path).map_err(BundleError::from);
    if verify_sealed(file()?, &trust.keyring)? != *cover {
        return Err(Useless::Said("it changed while it was read".to_owned()));
    }
    let identities = std::slice::from_ref(&trust.identity);
    let reader = Reader::open(file()?, &trust.keyring, identities, limits::TOTAL_BYTES)?;
    let header = reader.header().clone();
    let is = |name: &str, server: &ServerName| name == server.as_str();
    if !is(&header.fields.source, &trust.peer) {
        return Err(Useless::Said(format!(
            "it comes from {:?}, not from {}",
            header.fields.source, trust.peer
        )));
    }
    if !header.fields.destinations.iter().any(|name| is(name, &trust.own)) {
        return Err(Useless::Said(format!(
            "it is for {:?}, not for {}",
            header.fields.destinations, trust.own
        )));
    }
    if let Some(why) = trust.border.why_not_from(&trust.peer, &header.fields.label) {
        let statement = header.statement();
        let by = |(name, key): &(String, PublicKey)| {
            header.releases.iter().any(|release| release.officer == *name && release.is_by(key, &statement))
        };
        if !trust.officers.iter().any(by) {
            let label = &header.fields.label;
            return Err(Useless::Said(format!(
                "its label {label:?} is above what {} is believed: {why}",
                trust.peer
            )));
        }
    }
    Ok(header)
}
