//! Making a bundle of what a server by hand is due.

use super::{Fault, apart, contents::Export, keys, state::State};
use crate::{Error, Federation};
use postern_border::ByHand;
use postern_bundles::{Ack, BundleId, BundleKind, Fields, limits, spool::Spool};
use postern_graph::{NameKind, ServerNum, schema::CarriedTold};
use postern_rooms::now_ms;
use serde::Serialize;
use std::{path::PathBuf, sync::Arc};

/// Where nothing comes back, everything is told anew this often, milliseconds: a day.
const KEYFRAME_MS: u64 = 24 * 60 * 60 * 1_000;
/// Bundles that are kept until the other side has them: as many as it would let wait.
const KEPT: usize = limits::PARKED;
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// A bundle that was made.
#[derive(Debug, Clone, Serialize)]
pub struct Exported {
    sequence: u64,
    kind: &'static str,
    events: usize,
    edus: usize,
    files: usize,
    label: String,
    /// Whether more is due than a bundle takes: another one is to be made at once.
    more: bool,
    /// Where it was put.
    put: Vec<PathBuf>,
}

impl Federation {
    /// Makes a bundle of what the server at the other end of a link is due, and puts it where it is fetched from. Nothing if there
    /// is nothing. `keyframe` asks for one that stands for all before it.
    ///
    /// # Errors
    /// [`Fault`] and the store's: nothing is out of the outbox then.
    pub async fn export_bundle(&self, link: &str, keyframe: bool) -> Result<Option<Exported>, Error> {
        let way = self.link_by_hand(link)?;
        let turn = self.turn_of(link).await;
        let federation = self.clone();
        apart(async move {
            let exported = federation.export(&way, keyframe).await;
            drop(turn);
            exported
        })
        .await
    }

    async fn export(&self, way: &Arc<ByHand>, keyframe: bool) -> Result<Option<Exported>, Error> {
        let one_way = || Fault::OneWay("goes", way.name.clone(), "out");
        let out = way.out.as_ref().ok_or_else(one_way)?;
        let (link, secret, recipients) = keys::outgoing(out)?;
        let mut state = self.state_of(way)?;
        let kept = self.spool_of(way, "kept")?;
        self.put_out(way, &mut state, &kept).await?;
        let (place, prev) = state.sending(link.link).next();
        // It was made, but not noted before the server stopped: nobody has seen it.
        for found in kept.list().map_err(|error| Fault::file(kept.directory(), &error))? {
            if found.place == place {
                found
                    .files
                    .iter()
                    .try_for_each(std::fs::remove_file)
                    .map_err(|error| Fault::file(kept.directory(), &error))?;
            }
        }
        let now = now_ms();
        let is_one_way = way.into.is_none();
        let keyframe = keyframe
            || state.keyframe_due
            || is_one_way && place.seq > 1 && now.saturating_sub(state.keyframe_at) > KEYFRAME_MS;
        let mut export = Export::new(self, way, out, kept.begin(&recipients)?, keyframe)?;
        export.everything(&mut state).await?;
        let acks = self.acks(way, &mut state)?;
        let speaks = export.says_something;
        if !speaks && acks.as_ref().is_none_or(|(_, is_news)| !is_news) {
            return Ok(None);
        }
        let kind = match (keyframe, speaks) {
            (true, _) => BundleKind::Keyframe,
            (false, true) => BundleKind::Delta,
            (false, false) => BundleKind::Ack,
        };
        let Export { mut commit, outgoing, told, heads, missing, files, events, edus, label, more, .. } =
            export;
        let label = label.text()?;
        let fields = Fields {
            place,
            id: BundleId::random(now),
            kind,
            source: self.0.rooms.server_name().to_string(),
            destinations: vec![way.peer.to_string()],
            prev_sha256: prev,
            created: now,
            not_after: out.expires_days.map(|days| now.saturating_add(days.saturating_mul(DAY_MS))),
            label: label.clone(),
            policy_revision: String::new(),
            rooms: heads,
            acks: acks.into_iter().map(|(ack, _)| ack).collect(),
            missing,
        };
        // It may leave once it is on disk who gets what.
        self.0.rooms.settled().await?;
        let (cover, _) = outgoing.finish()?.publish(fields, Vec::new(), &secret, None)?;
        let number = ServerNum(self.0.graph.intern(NameKind::Server, way.peer.as_str(), &mut commit)?);
        for (event, how) in told {
            commit.put::<CarriedTold>(&(number, event), &how);
        }
        state.sending(link.link).made(cover.hash);
        state.to_place.insert(place.seq);
        state.told = state.into.as_ref().map_or(0, |into| into.last());
        if keyframe {
            (state.keyframe_due, state.keyframe_at) = (state.keyframe_from.is_some(), now);
        }
        self.note(&mut commit, way, &state)?;
        self.0.graph.commit_beside_log_durably(commit).await?;
        let put = self.put_out(way, &mut state, &kept).await?;
        tracing::info!(link = way.name, bundle = %place, kind = kind.name(), events, "a bundle was made");
        let files = files.len();
        Ok(Some(Exported { sequence: place.seq, kind: kind.name(), events, edus, files, label, more, put }))
    }

    /// Puts bundles that are made where they are fetched from, and removes those that nobody will ask for again.
    pub(super) async fn put_out(
        &self,
        way: &ByHand,
        state: &mut State,
        kept: &Spool,
    ) -> Result<Vec<PathBuf>, Error> {
        let Some(out) = &way.out else { return Ok(Vec::new()) };
        let fault = |error: &dyn std::fmt::Display| Fault::file(&out.directory, error);
        let there = kept.list().map_err(|error| Fault::file(kept.directory(), &error))?;
        let mut put = Vec::new();
        if !state.to_place.is_empty() {
            let target = Spool::new(&out.directory).map_err(|error| fault(&error))?;
            for found in there.iter().filter(|found| state.to_place.contains(&found.place.seq)) {
                let bundle = found.open().map_err(|error| Fault::file(kept.directory(), &error))?;
                match target.put_in_volumes(found.place, bundle, out.volume_bytes) {
                    Ok(files) => put.extend(files),
                    Err(postern_bundles::Error::Exists(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            state.to_place.clear();
            self.note_now(way, state).await?;
        }
        let too_many = there.len().saturating_sub(KEPT);
        let newest = there.last().map(|found| found.place.seq);
        for (n, found) in there.iter().enumerate() {
            let is_done = found.place.seq <= state.acknowledged || n < too_many;
            if is_done && newest != Some(found.place.seq) {
                found
                    .files
                    .iter()
                    .try_for_each(std::fs::remove_file)
                    .map_err(|error| Fault::file(kept.directory(), &error))?;
            }
        }
        Ok(put)
    }

    /// How far the way back has come, and whether that is news.
    fn acks(&self, way: &ByHand, state: &mut State) -> Result<Option<(Ack, bool)>, Error> {
        let Some(into) = &way.into else { return Ok(None) };
        let told = state.told;
        let link = state.receiving(&keys::public(&into.link)?);
        let place = postern_bundles::Place { link: link.id(), epoch: link.epoch(), seq: link.last() };
        let mut missing = link.needed();
        missing.truncate(limits::RANGES as usize);
        if place.seq == 0 {
            return Ok(None);
        }
        let is_news = place.seq != told || !missing.is_empty();
        Ok(Some((Ack { place, missing }, is_news)))
    }
}
