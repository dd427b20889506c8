//! The table of peers, and clearances, as administrators write them: beside what the security officer's file says, and before it.

use crate::{
    Border, Error, Wrong,
    policy_room::Published,
    settings::{DeviceEntry, PeerEntry, UserEntry},
    standing::Standing,
};
use postern_graph::{
    Graph,
    codec::Json,
    schema::{Clearances, PeerTable},
};
use ruma::OwnedServerName;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};
use utoipa::ToSchema;

/// Whose clearance it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum HolderKind {
    /// A user's, or that of users whose ids fit a pattern.
    User = 0,
    /// A device's.
    Device = 1,
}

/// Where an entry stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Written {
    /// In `border.toml`.
    File,
    /// In the table that administrators write.
    Table,
}

/// Another server as the table of peers has it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PeerShown {
    /// Where it stands.
    pub written: Written,
    /// What stands there.
    #[serde(flatten)]
    pub entry: PeerEntry,
    /// Whether it is spoken with now.
    pub spoken_with: bool,
}

/// What administrators wrote.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tables {
    /// Nothing for a server that was crossed out of the file.
    pub(crate) peers: BTreeMap<String, Option<Value>>,
    pub(crate) clearances: BTreeMap<(u8, String), Value>,
}

impl Tables {
    pub(crate) fn read(graph: &Graph) -> Result<Self, Error> {
        let mut tables = Self::default();
        for entry in graph.scan::<PeerTable, _>(&()).iter() {
            let ((name,), Json(entry)) = entry?;
            tables.peers.insert(name, (!entry.is_null()).then_some(entry));
        }
        for entry in graph.scan::<Clearances, _>(&()).iter() {
            let (key, Json(entry)) = entry?;
            tables.clearances.insert(key, entry);
        }
        Ok(tables)
    }

    /// The peers: those of the file, those of the table before them.
    pub(crate) fn peers(
        &self,
        file: Vec<PeerEntry>,
        wrong: &mut Vec<String>,
    ) -> BTreeMap<OwnedServerName, (PeerEntry, Written)> {
        let mut all = BTreeMap::new();
        for entry in file {
            let name = entry.name.clone();
            if all.insert(name.clone(), (entry, Written::File)).is_some() {
                wrong.push(format!("peer {name}: stands there twice"));
            }
        }
        for (name, entry) in &self.peers {
            let Ok(name) = OwnedServerName::try_from(name.as_str()) else { continue };
            match entry.as_ref().map(|entry| serde_json::from_value::<PeerEntry>(entry.clone())) {
                Some(Ok(entry)) => {
                    all.insert(name, (entry, Written::Table));
                }
                None => {
                    all.remove(&name);
                }
                Some(Err(error)) => wrong.push(format!("peer {name}: {error}")),
            }
        }
        all
    }

    /// The entries of users, or of devices.
    pub(crate) fn holders<T: DeserializeOwned>(&self, kind: HolderKind, wrong: &mut Vec<String>) -> Vec<T> {
        let mut found = Vec::new();
        for ((of, name), entry) in &self.clearances {
            if *of != kind as u8 {
                continue;
            }
            match serde_json::from_value(entry.clone()) {
                Ok(entry) => found.push(entry),
                Err(error) => wrong.push(format!("clearance of {name}: {error}")),
            }
        }
        found
    }
}

impl Border {
    /// The other servers.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerShown> {
        let standing = self.standing();
        let shown = |(entry, written): &(PeerEntry, Written)| PeerShown {
            written: *written,
            spoken_with: Self::speaks(&standing, &entry.name),
            entry: entry.clone(),
        };
        standing.entries.values().map(shown).collect()
    }

    /// Writes a server into the table of peers. It counts at once.
    ///
    /// # Errors
    /// [`Error::Wrong`] with what is wrong with it; nothing is changed then.
    pub async fn put_peer(&self, entry: &PeerEntry) -> Result<(), Error> {
        let name = entry.name.to_string();
        let entry = json!(entry);
        self.change(|tables| {
            tables.peers.insert(name, Some(entry));
        })
        .await
    }

    /// Takes a server out of the table of peers, also if it stands in the file.
    ///
    /// # Errors
    /// The store's.
    pub async fn remove_peer(&self, name: &OwnedServerName) -> Result<(), Error> {
        let is_in_file = self.standing().file_peers.contains(name);
        let name = name.to_string();
        self.change(|tables| {
            if is_in_file {
                tables.peers.insert(name, None);
            } else {
                tables.peers.remove(&name);
            }
        })
        .await
    }

    /// Forgets what administrators wrote of a server: what stands in the file counts again.
    ///
    /// # Errors
    /// [`Error::Wrong`], the store's.
    pub async fn reset_peer(&self, name: &OwnedServerName) -> Result<(), Error> {
        self.change(|tables| {
            tables.peers.remove(name.as_str());
        })
        .await
    }

    /// The clearances that administrators gave, by whom they are of.
    ///
    /// # Errors
    /// The store's.
    pub fn clearances(&self, kind: HolderKind) -> Result<Vec<Value>, Error> {
        let tables = Tables::read(&self.0.graph)?;
        Ok(tables
            .clearances
            .into_iter()
            .filter(|((of, _), _)| *of == kind as u8)
            .map(|(_, entry)| entry)
            .collect())
    }

    /// Gives users a clearance, before what the file says.
    ///
    /// # Errors
    /// [`Error::Wrong`] with what is wrong with it; nothing is changed then.
    pub async fn put_user(&self, entry: &UserEntry) -> Result<(), Error> {
        let (name, entry) = (entry.id.clone(), json!(entry));
        self.change(|tables| {
            tables.clearances.insert((HolderKind::User as u8, name), entry);
        })
        .await
    }

    /// Bounds what may be seen on devices, before what the file says.
    ///
    /// # Errors
    /// [`Error::Wrong`] with what is wrong with it; nothing is changed then.
    pub async fn put_device(&self, entry: &DeviceEntry) -> Result<(), Error> {
        let (name, entry) = (format!("{} {}", entry.user, entry.id), json!(entry));
        self.change(|tables| {
            tables.clearances.insert((HolderKind::Device as u8, name), entry);
        })
        .await
    }

    /// Forgets a clearance that administrators gave: of a user by id or pattern, of a device by `user device`. Whether there was
    /// one.
    ///
    /// # Errors
    /// The store's.
    pub async fn remove_clearance(&self, kind: HolderKind, name: &str) -> Result<bool, Error> {
        let mut was_there = false;
        self.change(|tables| {
            was_there = tables.clearances.remove(&(kind as u8, name.to_owned())).is_some();
        })
        .await?;
        Ok(was_there)
    }

    /// Changes the tables, if what comes of it can be used.
    async fn change(&self, change: impl FnOnce(&mut Tables) + Send) -> Result<(), Error> {
        let _writing = self.0.writing.lock().await;
        let before = Tables::read(&self.0.graph)?;
        let mut after = before.clone();
        change(&mut after);
        if after.peers.len() > crate::limits::PEERS || after.clearances.len() > crate::limits::CLEARANCES {
            return Err(Wrong(vec!["the tables are full".to_owned()]).into());
        }
        let standing = self.load(&after)?;
        let mut commit = self.0.graph.begin();
        for name in before.peers.keys().filter(|name| !after.peers.contains_key(*name)) {
            commit.delete::<PeerTable>(&(name.clone(),));
        }
        for (name, entry) in after.peers.iter().filter(|(name, entry)| before.peers.get(*name) != Some(entry))
        {
            commit.put::<PeerTable>(&(name.clone(),), &Json(entry.clone().unwrap_or_default()));
        }
        for key in before.clearances.keys().filter(|key| !after.clearances.contains_key(*key)) {
            commit.delete::<Clearances>(key);
        }
        for (key, entry) in
            after.clearances.iter().filter(|(key, entry)| before.clearances.get(*key) != Some(entry))
        {
            commit.put::<Clearances>(key, &Json(entry.clone()));
        }
        if !commit.is_empty() {
            self.0.graph.commit_beside_log_durably(commit).await?;
        }
        self.take(standing)
    }

    /// What the directory and these tables come to.
    pub(crate) fn load(&self, tables: &Tables) -> Result<Standing, Error> {
        let published = self.standing().published.clone();
        self.load_with(tables, published)
    }

    /// What the directory and these tables come to, with this from the policy room.
    pub(crate) fn load_with(&self, tables: &Tables, published: Option<Published>) -> Result<Standing, Error> {
        let directory = crate::read(self.0.directory.as_ref())?;
        Standing::load(&self.0.server, directory, tables, self.standing().bundle.as_ref(), published)
    }

    /// From now on things stand like this.
    pub(crate) fn take(&self, standing: Standing) -> Result<(), Error> {
        crate::keep_bundle(&self.0.graph, &standing)?;
        self.0.standing.store(Arc::new(standing));
        self.look_at_acls();
        self.0.policy_room_stale.notify_one();
        Ok(())
    }
}
