//! How far a link has come, as it is stored.

use super::{Fault, of};
use crate::{Error, Federation};
use postern_border::ByHand;
use postern_bundles::{
    LinkId,
    command::LinkFile,
    link::{Gaps, Link, Outbound, Roots},
};
use postern_graph::{
    Commit,
    codec::{Json, Raw},
    schema::{CarriedAnswers, CarriedLinks},
};
use ruma::ServerName;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// One-time keys that are wanted or left, by user and device.
pub(super) type KeyCounts = BTreeMap<String, BTreeMap<String, u32>>;

/// How far a link has come.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct State {
    /// The sending end.
    #[serde(default)]
    pub(super) out: Option<Outbound>,
    /// The receiving end.
    #[serde(default)]
    pub(super) into: Option<Link>,
    /// Bundles that are made and have to be put where they are fetched from.
    #[serde(default)]
    pub(super) to_place: BTreeSet<u64>,
    /// How far the peer said to have come.
    #[serde(default)]
    pub(super) acknowledged: u64,
    /// How far the peer was told that this side has come.
    #[serde(default)]
    pub(super) told: u64,
    /// The next bundle has to stand for all before it.
    #[serde(default)]
    pub(super) keyframe_due: bool,
    /// When the last keyframe was made, milliseconds since the epoch.
    #[serde(default)]
    pub(super) keyframe_at: u64,
    /// The room, by its number, at which a keyframe goes on that had no place for all of them.
    #[serde(default)]
    pub(super) keyframe_from: Option<u64>,
    /// Files that were uploaded up to then were looked at, milliseconds since the epoch.
    #[serde(default)]
    pub(super) files_until: u64,
    /// One-time keys the peer asks for.
    #[serde(default)]
    pub(super) wanted: KeyCounts,
}

impl State {
    /// The receiving end of a link with this public half.
    pub(super) fn receiving(&mut self, link: &LinkFile) -> &mut Link {
        // Another link is another chain. What is missing is passed over once a keyframe stands for it.
        let new = || Link::new(link.link, link.key, Roots { keys: Vec::new(), threshold: 1 }, Gaps::PassOver);
        if self.into.as_ref().is_some_and(|known| known.id() != link.link) {
            self.into = None;
        }
        self.into.get_or_insert_with(new)
    }

    /// The sending end of a link.
    pub(super) fn sending(&mut self, link: LinkId) -> &mut Outbound {
        if self.out.as_ref().is_none_or(|out| out.next().0.link != link) {
            self.out = Some(Outbound::new(link));
            self.to_place.clear();
            self.acknowledged = 0;
        }
        self.out.get_or_insert_with(|| Outbound::new(link))
    }
}

impl Federation {
    /// How far a link has come.
    pub(super) fn state_of(&self, way: &ByHand) -> Result<State, Error> {
        let Some(Json(stored)) = self.0.graph.get::<CarriedLinks>(&(way.name.clone(),))? else {
            return Ok(State::default());
        };
        let read = serde_json::from_value(stored);
        Ok(read.map_err(|error| Fault::State(way.name.clone(), error.to_string()))?)
    }

    /// Notes how far a link has come.
    pub(super) fn note(&self, commit: &mut Commit, way: &ByHand, state: &State) -> Result<(), Error> {
        let json = serde_json::to_value(state);
        let json = json.map_err(|error| Fault::State(way.name.clone(), error.to_string()))?;
        commit.put::<CarriedLinks>(&(way.name.clone(),), &Json(json));
        Ok(())
    }

    /// The same by itself, on disk when it returns.
    pub(super) async fn note_now(&self, way: &ByHand, state: &State) -> Result<(), Error> {
        let mut commit = self.0.graph.begin();
        self.note(&mut commit, way, state)?;
        Ok(self.0.graph.commit_beside_log_durably(commit).await?)
    }

    /// What was kept of or for a server by hand.
    pub(super) fn kept(&self, server: &ServerName, what: &str, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let kept = self.0.graph.get::<CarriedAnswers>(&(of(server), what.to_owned(), name.to_owned()))?;
        Ok(kept.map(|Raw(bytes)| bytes))
    }

    /// All of a kind, by name.
    pub(super) fn all_kept(&self, server: &ServerName, what: &str) -> Result<Vec<(String, Vec<u8>)>, Error> {
        let place = (of(server), what.to_owned());
        let found = self.0.graph.scan::<CarriedAnswers, _>(&place).iter();
        found
            .map(|entry| {
                let ((_, _, name), Raw(bytes)) = entry?;
                Ok((name, bytes))
            })
            .collect()
    }
}

/// Keeps something of or for a server by hand.
pub(super) fn keep(commit: &mut Commit, server: &ServerName, what: &str, name: &str, bytes: Vec<u8>) {
    commit.put::<CarriedAnswers>(&(of(server), what.to_owned(), name.to_owned()), &Raw(bytes));
}

/// Forgets what was kept.
pub(super) fn forget(commit: &mut Commit, server: &ServerName, what: &str, name: &str) {
    commit.delete::<CarriedAnswers>(&(of(server), what.to_owned(), name.to_owned()));
}
