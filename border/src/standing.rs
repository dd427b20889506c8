//! How things stand: everything that decides, read from the directory and the tables, understood, and kept ready. It is
//! never changed, only replaced; what was found out under one standing is forgotten with it.

use crate::{
    ByHand, Error, by_hand,
    facts::{EventFacts, RoomFacts},
    limits,
    policy_room::Published,
    rulings::Ruling,
    settings::{DeviceEntry, Directory, FILE, Hours, PeerEntry, UserEntry, WhenOverruled, Wrong},
    table::{HolderKind, Tables, Written},
};
use base64::{Engine, prelude::BASE64_STANDARD as BASE64};
use postern_graph::{EventNum, RoomNum};
use postern_guards::Guards;
use postern_policy::{
    Clearance, Label, Policies, Resolved, ResolvedClearance,
    decide::{self, Accepted, Base, Decider, Question, Sources},
    spif::{Problems, Spif},
};
use postern_rooms::{Pins, Preset, glob::Glob};
use quick_cache::sync::Cache;
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, ServerName};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, LazyLock},
};

/// Words in policies by which an answer depends on one event alone, or on what a room is like at the moment.
const PARTICULAR: [&str; 5] = ["size", "Event::", "servers", "public", "direct"];

/// What guards look at of a file: the digest of its bytes, its name, its type.
pub(crate) type FileContent = (String, Option<String>, Option<String>);

/// How things stand.
#[derive(Debug)]
pub(crate) struct Standing {
    /// The security policies.
    pub(crate) policies: Policies,
    /// The Cedar policies.
    pub(crate) decider: Decider,
    pub(crate) base: Base,
    /// The bundle the Cedar policies are of.
    pub(crate) bundle: Option<Accepted>,
    /// That bundle, if it stood in the policy room.
    pub(crate) published: Option<Published>,
    /// Where Cedar policies come from.
    pub(crate) sources: Sources,
    /// The room whose state they may stand in.
    pub(crate) policy_room: Option<OwnedRoomId>,
    /// The base of the candidate, if there is one.
    pub(crate) candidate_base: Option<Base>,
    /// Why there is no candidate although one was written.
    pub(crate) candidate_wrong: Vec<String>,
    pub(crate) guards: Option<Guards>,
    pub(crate) default_label: Option<Label>,
    /// The labels of rooms that are created with one of the presets.
    pub(crate) preset_labels: [(Preset, Option<Label>); 3],
    /// The rule for end-to-end encryption of rooms that say none.
    pub(crate) default_encryption: Option<decide::Encryption>,
    /// Who is in the rooms whose rule is to have an auditor.
    pub(crate) auditor: Option<OwnedUserId>,
    pub(crate) topic_marking: bool,
    /// Up to what push gateways are told what is said…
    pub(crate) push_content: Arc<ResolvedClearance>,
    /// …and up to what, that something was; without, of everything.
    pub(crate) push_ids: Option<Arc<ResolvedClearance>>,
    pub(crate) when_overruled: WhenOverruled,
    /// For how long rulings and refusals are kept, milliseconds.
    pub(crate) rulings_kept: u64,
    /// Whether new rooms have this server as their policy server.
    pub(crate) policy_server: bool,
    /// Whether what has no label is decided about, too, and written down.
    pub(crate) watches_all: bool,
    /// Whether some policy makes its answer depend on more than what tells rulings apart.
    pub(crate) is_particular: bool,
    /// The table of peers as it is written.
    pub(crate) entries: BTreeMap<OwnedServerName, (PeerEntry, Written)>,
    /// Those of them that stand in the file, or were crossed out of it.
    pub(crate) file_peers: BTreeSet<OwnedServerName>,
    peers: HashMap<OwnedServerName, Arc<Peer>>,
    /// Links that are carried by hand, by name.
    pub(crate) by_hand: BTreeMap<String, Arc<ByHand>>,
    unknown: Arc<ResolvedClearance>,
    users: Vec<(Glob, UserGrant)>,
    devices: Vec<(Glob, Glob, Arc<ResolvedClearance>)>,
    /// What users who have nothing of their own have.
    ordinary: UserGrant,
    pub(crate) rooms: Cache<RoomNum, Arc<RoomFacts>>,
    pub(crate) events: Cache<(EventNum, bool), Arc<EventFacts>>,
    pub(crate) rulings: Cache<Question, Arc<Ruling>>,
    pub(crate) holders: Cache<Party, Arc<Holder>>,
    /// What the guards found in files, by their content, name and type, and until when that counts.
    pub(crate) files: Cache<FileContent, (u64, Arc<BTreeSet<String>>)>,
}

/// Another server.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Whether it is written down.
    pub(crate) is_known: bool,
    /// What it may see: its own clearance, and that of the link to it.
    pub(crate) clearance: Arc<ResolvedClearance>,
    /// Up to what its events are believed.
    pub(crate) accreditation: Arc<ResolvedClearance>,
    pub(crate) default_label: Option<Label>,
    pub(crate) rooms: Option<BTreeSet<OwnedRoomId>>,
    /// Digests of public keys, one of which its certificates have to have.
    pub(crate) pins: Pins,
    pub(crate) hours: Vec<Hours>,
    pub(crate) requests_per_second: Option<u32>,
    /// As policies see it.
    pub(crate) server: Arc<decide::Server>,
}

#[derive(Debug, Clone)]
struct UserGrant {
    clearance: Arc<ResolvedClearance>,
    text: Option<String>,
    roles: BTreeSet<String>,
}

/// A user of this server, on a device.
#[derive(Debug)]
pub(crate) struct Holder {
    pub(crate) clearance: Arc<ResolvedClearance>,
    /// As policies see them.
    pub(crate) user: Arc<decide::User>,
}

/// Who a user of this server is: on which device, and what is known of their account.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Party {
    pub(crate) user: OwnedUserId,
    pub(crate) device: String,
    pub(crate) admin: bool,
    pub(crate) guest: bool,
}

/// Reads texts, and gathers all that is wrong with them.
struct Reader<'p> {
    policies: &'p Policies,
    wrong: Vec<String>,
}

impl Reader<'_> {
    fn clearance(&mut self, place: &str, text: Option<&str>) -> Clearance {
        let Some(text) = text else { return Clearance::none() };
        self.policies.parse_clearance(text).unwrap_or_else(|error| {
            self.wrong.push(format!("{place}: {error}"));
            Clearance::none()
        })
    }

    fn resolved(&mut self, place: &str, text: Option<&str>) -> Arc<ResolvedClearance> {
        let clearance = self.clearance(place, text);
        Arc::new(self.policies.resolve_clearance(&clearance).unwrap_or_else(|error| {
            self.wrong.push(format!("{place}: {error}"));
            self.policies.uncleared()
        }))
    }

    fn label(&mut self, place: &str, text: Option<&str>) -> Option<Label> {
        let label = self.policies.parse_label(text?).and_then(|label| {
            self.policies.resolve(&label)?;
            Ok(label)
        });
        label.map_err(|error| self.wrong.push(format!("{place}: {error}"))).ok()
    }
}

const DAY_MS: u64 = 86_400_000;

impl Standing {
    /// Reads and understands everything.
    ///
    /// # Errors
    /// [`Error::Wrong`] with all that is wrong.
    pub(crate) fn load(
        server: &ServerName,
        directory: Directory,
        tables: &Tables,
        last: Option<&Accepted>,
        published: Option<Published>,
    ) -> Result<Self, Error> {
        let Directory { path, document, spifs, sources, candidate } = directory;
        let policies = security_policies(spifs)?;
        let mut reader = Reader { policies: &policies, wrong: Vec::new() };
        let published = published.filter(|of| document.policies.room.as_ref() == Some(&of.room));
        let handed: Vec<_> = published.iter().map(Published::handed).collect();
        let loaded = match sources.load(&handed, last) {
            Ok(loaded) => Some(loaded),
            Err(refused) => {
                reader.wrong.extend(Wrong::from(refused).0);
                None
            }
        };
        let guards = document.guards.as_ref().map(Guards::new).transpose().unwrap_or_else(|error| {
            reader.wrong.push(format!("{FILE}: guards: {error}"));
            None
        });
        let default_label = reader.label("default_label", document.default_label.as_deref());
        let preset_labels = Preset::ALL.map(|(name, preset)| {
            let text = document.preset_labels.get(name).map(String::as_str);
            (preset, reader.label(&format!("preset_labels.{name}"), text))
        });
        for name in document.preset_labels.keys() {
            if !Preset::ALL.iter().any(|(known, _)| known == name) {
                reader.wrong.push(format!("preset_labels.{name}: there is no such preset"));
            }
        }
        let push_content = reader.resolved("push.content", document.push.content.as_deref());
        let push_ids = document.push.event_ids.as_deref();
        let push_ids = push_ids.map(|text| reader.resolved("push.event_ids", Some(text)));
        if let Some(auditor) = &document.auditor
            && auditor.server_name() != server
        {
            reader.wrong.push(format!("auditor: {auditor} is not of this server"));
        }
        if document.default_encryption == Some(decide::Encryption::E2eeAuditor) && document.auditor.is_none()
        {
            reader.wrong.push("default_encryption: there is no auditor".to_owned());
        }
        let mut links = HashMap::new();
        for link in &document.link {
            let place = format!("link {}", link.name);
            let clearance = reader.resolved(&place, Some(&link.clearance));
            let described = Arc::new(decide::Link {
                name: link.name.clone(),
                accredited: link.accredited,
                clearance: Some(link.clearance.clone()),
            });
            if links.insert(link.name.clone(), (clearance, described)).is_some() {
                reader.wrong.push(format!("{place}: stands there twice"));
            }
        }
        let file_peers: BTreeSet<OwnedServerName> =
            document.peer.iter().map(|entry| entry.name.clone()).collect();
        let entries = tables.peers(document.peer, &mut reader.wrong);
        let mut peers = HashMap::new();
        for (name, (entry, _)) in entries.clone() {
            if name == *server {
                reader.wrong.push(format!("peer {name}: is this server"));
                continue;
            }
            let peer = read_peer(&mut reader, &links, entry);
            peers.insert(name, Arc::new(peer));
        }
        let by_hand = by_hand::read(path.as_deref(), &document.link, &peers, &mut reader.wrong);
        let ordinary = UserGrant {
            clearance: reader.resolved("default_clearance", document.default_clearance.as_deref()),
            text: document.default_clearance.clone(),
            roles: BTreeSet::new(),
        };
        let mut of_users: Vec<UserEntry> = tables.holders(HolderKind::User, &mut reader.wrong);
        let mut of_devices: Vec<DeviceEntry> = tables.holders(HolderKind::Device, &mut reader.wrong);
        of_users.extend(document.user);
        of_devices.extend(document.device);
        let users = of_users.into_iter().map(|entry| read_user(&mut reader, entry)).collect();
        let devices = of_devices.into_iter().map(|entry| read_device(&mut reader, entry)).collect();
        let wrong = std::mem::take(&mut reader.wrong);
        let Some(loaded) = loaded.filter(|_| wrong.is_empty()) else { return Err(Wrong(wrong).into()) };
        let mut candidate_wrong = Vec::new();
        let candidate_base = candidate.as_ref().map(|candidate| candidate.base);
        let candidate = candidate.and_then(|candidate| match candidate.load(&[], None) {
            Ok(loaded) => Some(loaded.set),
            // What only would be must not keep back what is to be.
            Err(refused) => {
                candidate_wrong = Wrong::from(refused).0;
                tracing::warn!(
                    wrong = candidate_wrong.join("\n"),
                    "there is no candidate: its policies cannot be used"
                );
                None
            }
        });
        let own = |id: &str| !(id.starts_with("base-") || id.starts_with("rail-"));
        let has_own = loaded.set.rules().any(|rule| own(&rule.id));
        let is_particular = [Some(&loaded.set), candidate.as_ref()]
            .into_iter()
            .flatten()
            .flat_map(|set| set.rules())
            .filter(|rule| own(&rule.id))
            .any(|rule| PARTICULAR.iter().any(|word| rule.text().contains(word)));
        let decider = Decider::new(loaded.set);
        let has_candidate = decider.shadow(candidate).is_some();
        Ok(Self {
            unknown: Arc::new(policies.uncleared()),
            watches_all: sources.base != Base::Open
                || has_own
                || has_candidate
                || guards.is_some()
                || !peers.is_empty(),
            base: sources.base,
            decider,
            published: published.filter(|published| loaded.bundle.is_some_and(|taken| published.is(&taken))),
            bundle: loaded.bundle.or_else(|| last.cloned()),
            sources,
            policy_room: document.policies.room,
            candidate_base,
            candidate_wrong,
            policies,
            guards,
            default_label,
            preset_labels,
            default_encryption: document.default_encryption,
            auditor: document.auditor,
            topic_marking: document.topic_marking,
            push_content,
            push_ids,
            when_overruled: document.when_overruled,
            rulings_kept: u64::from(document.rulings_days.unwrap_or(limits::RULINGS_DAYS).max(1)) * DAY_MS,
            policy_server: document.policy_server,
            is_particular,
            entries,
            file_peers,
            peers,
            by_hand,
            users,
            devices,
            ordinary,
            rooms: Cache::new(limits::ROOMS_IN_MEMORY),
            events: Cache::new(limits::EVENTS_IN_MEMORY),
            rulings: Cache::new(limits::RULINGS_IN_MEMORY),
            holders: Cache::new(limits::HOLDERS_IN_MEMORY),
            files: Cache::new(limits::FILES_IN_MEMORY),
        })
    }

    /// What is known of another server; of one that nobody has written down, its name.
    pub(crate) fn peer(&self, name: &ServerName) -> Arc<Peer> {
        if let Some(peer) = self.peers.get(name) {
            return peer.clone();
        }
        Arc::new(Peer {
            is_known: false,
            clearance: self.unknown.clone(),
            accreditation: self.unknown.clone(),
            default_label: None,
            rooms: None,
            pins: Pins::default(),
            hours: Vec::new(),
            requests_per_second: None,
            server: Arc::new(decide::Server { name: name.to_string(), ..decide::Server::default() }),
        })
    }

    /// The servers that are written down.
    pub(crate) fn peers(&self) -> impl Iterator<Item = (&OwnedServerName, &Arc<Peer>)> {
        self.peers.iter()
    }

    /// A user of this server on a device; none for what the user may see anywhere.
    pub(crate) fn holder(&self, party: Party) -> Arc<Holder> {
        if let Some(holder) = self.holders.get(&party) {
            return holder;
        }
        let found = self.users.iter().find(|(id, _)| id.matches(party.user.as_str()));
        let grant = found.map_or(&self.ordinary, |(_, grant)| grant);
        let on = |(id, of, _): &&(Glob, Glob, Arc<ResolvedClearance>)| {
            id.matches(&party.device) && of.matches(party.user.as_str())
        };
        let clearance = match self.devices.iter().find(on) {
            Some((_, _, clearance)) => Arc::new(grant.clearance.meet(clearance)),
            None => grant.clearance.clone(),
        };
        let server = decide::Server {
            name: party.user.server_name().to_string(),
            local: true,
            accredited: true,
            ..decide::Server::default()
        };
        let user = decide::User {
            id: party.user.to_string(),
            server: Arc::new(server),
            admin: party.admin,
            guest: party.guest,
            roles: grant.roles.clone(),
            clearance: grant.text.clone(),
            device: None,
        };
        let holder = Arc::new(Holder { clearance, user: Arc::new(user) });
        self.holders.insert(party, holder.clone());
        holder
    }

    /// The label of an object, resolved; why it means nothing here if it does not.
    pub(crate) fn resolve(&self, label: Option<&Label>) -> Result<Arc<Resolved>, Arc<str>> {
        self.policies.resolve_if_any(label).map(Arc::new).map_err(|error| error.to_string().into())
    }
}

/// The security policies: those of the directory, then those that come with Postern and are not named by these.
fn security_policies(mut spifs: Vec<Spif>) -> Result<Policies, Error> {
    // Reading them takes several times as long as all else, and every change of the tables is a new standing.
    static PRESETS: LazyLock<Result<Policies, Problems>> = LazyLock::new(Policies::presets);
    let wrong =
        |problems: &Problems| Error::from(Wrong(problems.0.iter().map(ToString::to_string).collect()));
    let presets = PRESETS.as_ref().map_err(wrong)?;
    if spifs.is_empty() {
        return Ok(presets.clone());
    }
    for preset in presets.spifs() {
        if !spifs.iter().any(|spif| spif.name == preset.name) {
            spifs.push(preset.clone());
        }
    }
    Policies::new(spifs).map_err(|problems| wrong(&problems))
}

/// A digest in base64, as `curl --pinnedpubkey` has it or without `sha256//` before it.
pub(crate) fn pin_of(text: &str) -> Option<[u8; 32]> {
    BASE64.decode(text.strip_prefix("sha256//").unwrap_or(text)).ok()?.try_into().ok()
}

fn read_peer(
    reader: &mut Reader<'_>,
    links: &HashMap<String, (Arc<ResolvedClearance>, Arc<decide::Link>)>,
    entry: PeerEntry,
) -> Peer {
    let place = format!("peer {}", entry.name);
    let own = reader.resolved(&place, entry.clearance.as_deref());
    let accreditation = entry.accreditation.as_deref().or(entry.clearance.as_deref());
    let accreditation = reader.resolved(&format!("{place}: accreditation"), accreditation);
    let link = entry.link.as_ref().and_then(|name| {
        let found = links.get(name);
        if found.is_none() {
            reader.wrong.push(format!("{place}: there is no link {name:?}"));
        }
        found
    });
    let fits = |hours: &Hours| {
        hours.days.iter().all(|day| (1..=7).contains(day)) && hours.from < hours.to && hours.to <= 24
    };
    if !entry.hours.iter().all(fits) {
        reader.wrong.push(format!("{place}: hours are from 0 to 24, days from 1 (Monday) to 7"));
    }
    let default_label = reader.label(&format!("{place}: default_label"), entry.default_label.as_deref());
    let pins = entry.tls_pins.iter().filter_map(|text| {
        let pin = pin_of(text);
        if pin.is_none() {
            reader.wrong.push(format!("{place}: tls_pins: {text:?} is no SHA-256 digest in base64"));
        }
        pin
    });
    let pins: Pins = pins.collect();
    Peer {
        pins,
        is_known: true,
        clearance: link.map_or_else(|| own.clone(), |(link, _)| Arc::new(own.meet(link))),
        accreditation: link
            .map_or_else(|| accreditation.clone(), |(link, _)| Arc::new(accreditation.meet(link))),
        default_label,
        rooms: entry.rooms,
        hours: entry.hours,
        requests_per_second: entry.requests_per_second,
        server: Arc::new(decide::Server {
            name: entry.name.to_string(),
            local: false,
            accredited: entry.accredited,
            federations: entry.federations,
            clearance: entry.clearance,
            link: link.map(|(_, link)| link.clone()),
        }),
    }
}

fn read_user(reader: &mut Reader<'_>, entry: UserEntry) -> (Glob, UserGrant) {
    let clearance = reader.resolved(&format!("user {}", entry.id), entry.clearance.as_deref());
    (Glob::new(&entry.id), UserGrant { clearance, text: entry.clearance, roles: entry.roles })
}

fn read_device(reader: &mut Reader<'_>, entry: DeviceEntry) -> (Glob, Glob, Arc<ResolvedClearance>) {
    let clearance = reader.resolved(&format!("device {}", entry.id), Some(&entry.clearance));
    (Glob::new(&entry.id), Glob::new(&entry.user), clearance)
}
