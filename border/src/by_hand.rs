//! Links that are no network: what crosses them goes in bundles, carried by hand or over a diode (`docs/air-gap.md`).

use crate::{
    Border, Error,
    facts::room_facts,
    settings::LinkEntry,
    standing::{Peer, Standing},
};
use postern_policy::{Label, Resolved};
use postern_rooms::{Event, Rooms};
use ruma::{OwnedServerName, ServerName};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
};

/// How a link is carried. Without one of the two directions nothing comes, or nothing goes: a diode.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CarriedEntry {
    /// What goes to the peer.
    pub out: Option<Outgoing>,
    /// What comes from it.
    #[serde(rename = "in")]
    pub into: Option<Incoming>,
}

/// The direction to the peer. Paths are those from the border's directory.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outgoing {
    /// Where bundles are put.
    pub directory: PathBuf,
    /// The public half of the link, as `postern bundle keygen link` writes it.
    pub link: PathBuf,
    /// Its secret half.
    pub key: PathBuf,
    /// Who can open the bundles: the peer, and perhaps a transfer station (`age1…`).
    pub recipients: Vec<String>,
    /// The largest file, bytes: longer bundles are in volumes.
    #[serde(default)]
    pub volume_bytes: Option<u64>,
    /// Events in one bundle, about: no other room is begun after so many. The rest goes into the next.
    #[serde(default = "events")]
    pub events: usize,
    /// Bytes of files in one bundle, about: no other file is begun after so many. The rest goes into the next.
    #[serde(default = "file_bytes")]
    pub file_bytes: u64,
    /// After how many days a bundle is not to be imported any more; without, it always is.
    #[serde(default)]
    pub expires_days: Option<u64>,
}

/// Half of the records that a bundle may have: the last room adds its own, and files are in pieces.
const fn events() -> usize {
    500_000
}

/// Half of the bytes of which one may be: 32 GiB.
const fn file_bytes() -> u64 {
    32 << 30
}

/// The direction from the peer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Incoming {
    /// Where bundles are looked for.
    pub directory: PathBuf,
    /// The public half of the link, from the peer.
    pub link: PathBuf,
    /// The identity that bundles are sealed to.
    pub identity: PathBuf,
    /// Whether files are removed once they are taken over: for the spool of a diode, not for a medium that goes on.
    #[serde(default)]
    pub remove: bool,
    /// Officers of the peer, and their public keys: what they release may come although its label is above what the peer is
    /// believed.
    #[serde(default)]
    pub officers: BTreeMap<String, String>,
}

/// A link by hand to the one server at its other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByHand {
    /// The link's name in `border.toml`.
    pub name: String,
    /// Who is at its other end.
    pub peer: OwnedServerName,
    /// To the peer.
    pub out: Option<Outgoing>,
    /// From the peer.
    pub into: Option<Incoming>,
}

/// The links of a document that are carried, each with its one peer. What is wrong with them is added to `wrong`.
pub(crate) fn read(
    directory: Option<&Path>,
    links: &[LinkEntry],
    peers: &HashMap<OwnedServerName, Arc<Peer>>,
    wrong: &mut Vec<String>,
) -> BTreeMap<String, Arc<ByHand>> {
    let within = |path: &Path| directory.map_or_else(|| path.to_owned(), |directory| directory.join(path));
    let mut found = BTreeMap::new();
    for link in links {
        let Some(carried) = &link.carried else { continue };
        let mut of: Vec<_> = peers
            .iter()
            .filter(|(_, peer)| peer.server.link.as_ref().is_some_and(|one| one.name == link.name))
            .map(|(name, _)| name.clone())
            .collect();
        let (Some(peer), true) = (of.pop(), of.is_empty()) else {
            wrong.push(format!("link {}: exactly one peer is reached by a carried link", link.name));
            continue;
        };
        if carried.out.is_none() && carried.into.is_none() {
            wrong.push(format!("link {}: a carried link has `out`, `in` or both", link.name));
        }
        if carried.out.as_ref().is_some_and(|out| out.recipients.is_empty()) {
            wrong.push(format!("link {}: nobody could open its bundles: recipients is empty", link.name));
        }
        let out = carried.out.clone().map(|out| Outgoing {
            directory: within(&out.directory),
            link: within(&out.link),
            key: within(&out.key),
            ..out
        });
        let into = carried.into.clone().map(|into| Incoming {
            directory: within(&into.directory),
            link: within(&into.link),
            identity: within(&into.identity),
            ..into
        });
        let way = ByHand { name: link.name.clone(), peer, out, into };
        found.insert(link.name.clone(), Arc::new(way));
    }
    found
}

/// The label of a bundle: the join of the labels of what is in it.
#[derive(Debug, Clone)]
pub struct Joined {
    standing: Arc<Standing>,
    label: Resolved,
}

impl Border {
    /// All links by hand.
    #[must_use]
    pub fn by_hand(&self) -> Vec<Arc<ByHand>> {
        self.standing().by_hand.values().cloned().collect()
    }

    /// The link by hand to a server.
    #[must_use]
    pub fn way_to(&self, server: &ServerName) -> Option<Arc<ByHand>> {
        self.standing().by_hand.values().find(|way| way.peer == *server).cloned()
    }

    /// The label of nothing yet.
    #[must_use]
    pub fn joined(&self) -> Joined {
        let standing = self.standing();
        Joined { label: standing.policies.unlabelled(), standing }
    }

    /// Adds the label of an event that goes whole to `to`, or, for one that goes redacted, the floor of its room.
    ///
    /// # Errors
    /// The store's, and for an event whose label means nothing here.
    pub fn join_label(
        &self,
        joined: &mut Joined,
        rooms: &Rooms,
        event: &Event,
        is_whole: bool,
    ) -> Result<(), Error> {
        let facts = room_facts(&joined.standing, rooms, event.record.room)?;
        let known = self.event_facts(&joined.standing, rooms, &facts, event)?;
        let held = if is_whole && !known.is_never_redacted { &known.label } else { &facts.floor };
        if let Ok(label) = held {
            joined.label = joined.label.join(label);
        }
        Ok(())
    }

    /// Why a bundle with this label may not come from a peer: it is above what the peer is believed.
    #[must_use]
    pub fn why_not_from(&self, peer: &ServerName, label: &str) -> Option<String> {
        if label.is_empty() {
            return None;
        }
        let standing = self.standing();
        let peer = standing.peer(peer);
        let resolved =
            standing.policies.parse_label(label).and_then(|label| standing.policies.resolve(&label));
        match resolved {
            Ok(resolved) if peer.accreditation.dominates(&resolved) => None,
            Ok(resolved) => Some(standing.policies.explain(&peer.accreditation, &resolved).to_string()),
            Err(error) => Some(error.to_string()),
        }
    }
}

impl Joined {
    /// As it is written; empty if nothing had a label.
    ///
    /// # Errors
    /// If the labels have no policy in common.
    pub fn text(&self) -> Result<String, Error> {
        if self.label.is_unlabelled() {
            return Ok(String::new());
        }
        let policies = &self.standing.policies;
        let text = policies.label_of(&self.label).and_then(|label: Label| policies.format_label(&label));
        text.map_err(|error| crate::Wrong(vec![format!("the label of a bundle: {error}")]).into())
    }
}
