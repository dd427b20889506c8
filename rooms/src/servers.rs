//! Which servers are in which rooms: what decides who is sent what.
//!
//! A server is in a room while one of its users is joined there. The count of these users is kept with the memberships
//! (`schema::RoomServers`), so that nobody has to walk through the members of a large room.

use crate::{Error, Event, Rooms, batch::Batch};
use postern_graph::{
    Graph, NameKind, Pos, RoomNum, Seq, UserNum,
    event::MembershipKind,
    schema::{Members, RoomServers, Rooms as RoomRecords},
};
use ruma::{OwnedServerName, ServerName, UserId};
use std::collections::{BTreeMap, BTreeSet};

fn parsed(server: &str) -> Result<OwnedServerName, Error> {
    ServerName::parse(server).map_err(|error| Error::BadJson(error.to_string()))
}

impl Rooms {
    /// The servers that have a joined user in a room, this one among them if it has.
    pub fn servers_in(&self, room: RoomNum) -> Result<Vec<OwnedServerName>, Error> {
        let mut servers: BTreeSet<OwnedServerName> = self.servers_beside_members(room);
        for entry in self.graph.scan::<RoomServers, _>(&(room,)).iter() {
            servers.insert(parsed(&entry?.0.1)?);
        }
        Ok(servers.into_iter().collect())
    }

    /// Whether a server has a joined user in a room.
    pub fn is_in(&self, server: &ServerName, room: RoomNum) -> Result<bool, Error> {
        Ok(self.graph.has::<RoomServers>(&(room, server.as_str().to_owned()))?
            || self.servers_beside_members(room).contains(server))
    }

    /// Where a server came into a room: the position of the event that joined the first of the users it has there.
    pub fn in_since(&self, server: &ServerName, room: RoomNum) -> Result<Option<Pos>, Error> {
        let stored = self.graph.get::<RoomServers>(&(room, server.as_str().to_owned()))?;
        Ok(stored.map(|(_, since)| since))
    }

    /// The servers that had a joined user in a room just before `join`, the latest event of it, came.
    pub fn servers_before_join(&self, join: &Event) -> Result<Vec<OwnedServerName>, Error> {
        let server = join.sender().server_name();
        let mut servers = self.servers_in(join.record.room)?;
        if self.in_since(server, join.record.room)? == Some(join.record.pos) {
            servers.retain(|known| known != server);
        }
        Ok(servers)
    }

    /// Whether a server has a joined user in a room that `user` is joined to.
    pub fn shares_room(&self, server: &ServerName, user: &UserId) -> Result<bool, Error> {
        let Some(user) = self.user(user)? else { return Ok(false) };
        for room in self.joined_rooms(user)? {
            if self.is_in(server, room)? && self.may_know(server, room)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether `user` is invited to a room, or has knocked at one, by somebody of a server or where it has a joined
    /// user: it may have to know the user's devices before they join.
    pub fn has_invited(&self, server: &ServerName, user: &UserId) -> Result<bool, Error> {
        let Some(user) = self.user(user)? else { return Ok(false) };
        for (room, membership) in self.rooms_of(user)? {
            let outside = matches!(membership.kind, MembershipKind::Invite | MembershipKind::Knock);
            if outside
                && (self.user_id(membership.sender)?.server_name() == server || self.is_in(server, room)?)
                && self.may_know(server, room)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The other servers that have a joined user in a room that `user` is joined to.
    pub fn servers_with(&self, user: UserNum) -> Result<BTreeSet<OwnedServerName>, Error> {
        let mut servers = BTreeSet::new();
        for room in self.joined_rooms(user)? {
            for server in self.servers_in(room)? {
                if !servers.contains(&server) && self.may_know(&server, room)? {
                    servers.insert(server);
                }
            }
        }
        servers.remove(self.server_name());
        Ok(servers)
    }

    /// The users of one server that are joined to a room.
    pub fn joined_users_of(&self, room: RoomNum, server: &ServerName) -> Result<Vec<UserNum>, Error> {
        let mut users = Vec::new();
        if self.is_in(server, room)? {
            for user in self.joined_users(room)? {
                if self.user_id(user)?.server_name() == server {
                    users.push(user);
                }
            }
        }
        Ok(users)
    }
}

impl Batch<'_> {
    /// Counts a user of `server` whose membership was `before` and is `now`.
    pub(crate) fn count_server(
        &mut self,
        server: &ServerName,
        before: Option<MembershipKind>,
        now: Option<MembershipKind>,
        since: Pos,
    ) -> Result<(), Error> {
        let joined = |kind| kind == Some(MembershipKind::Join);
        if joined(before) == joined(now) {
            return Ok(());
        }
        let key = (self.room, server.as_str().to_owned());
        let stored = match self.server_overlay.get(server) {
            Some(stored) => *stored,
            None => self.rooms.graph.get::<RoomServers>(&key)?,
        };
        let counted = match (stored, joined(now)) {
            (None, true) => Some((1, since)),
            (Some((count, since)), true) => Some((count + 1, since)),
            (Some((count, since)), false) if count > 1 => Some((count - 1, since)),
            (_, false) => None,
        };
        match &counted {
            Some(counted) => self.commit.put::<RoomServers>(&key, counted),
            None => self.commit.delete::<RoomServers>(&key),
        }
        self.server_overlay.insert(server.to_owned(), counted);
        Ok(())
    }
}

/// Counts the servers of all rooms, in a database from before they were counted.
pub(crate) fn count_once(graph: &Graph) -> Result<(), Error> {
    if graph.scan::<RoomServers, _>(&()).first()?.is_some() {
        return Ok(());
    }
    let mut commit = graph.begin();
    for entry in graph.scan::<RoomRecords, _>(&()).iter() {
        let ((room,), _) = entry?;
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for entry in graph.scan::<Members, _>(&(room, MembershipKind::Join as u8)).iter() {
            let ((_, _, user), _) = entry?;
            let name = graph.name(NameKind::User, user.0)?;
            let user = <&UserId>::try_from(&*name).map_err(|error| Error::BadJson(error.to_string()))?;
            *counts.entry(user.server_name().to_string()).or_default() += 1;
        }
        for (server, count) in counts {
            commit.put::<RoomServers>(&(room, server), &(count, Pos::at(Seq::ZERO)));
        }
    }
    if !commit.is_empty() {
        graph.commit(commit)?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{CreateRoom, Preset};
    use postern_graph::{Graph, Settings};
    use ruma::{RoomId, server_name, user_id};

    /// Users of other servers come and go without the signature of theirs, which does not matter here.
    async fn join(rooms: &Rooms, room: &RoomId, user: &UserId, to: MembershipKind) {
        let num = rooms.known_room(room).unwrap();
        let mut batch = rooms.batch(num).unwrap();
        let draft = crate::Draft::state(
            "m.room.member",
            user.as_str(),
            &serde_json::json!({ "membership": to.as_str() }),
        );
        let pdu = batch.build(user, &draft.unwrap()).unwrap();
        let id = crate::pdu::event_id(&pdu, &batch.version.rules).unwrap();
        batch.store(id, serde_json::to_string(&pdu).unwrap()).unwrap();
        batch.commit().unwrap();
    }

    #[tokio::test]
    async fn servers_are_in_the_rooms_of_their_joined_users() {
        use MembershipKind::{Join, Leave};
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings { path: dir.path().join("db"), block_cache: 8 << 20 };
        let graph = Graph::open(&settings).unwrap();
        let rooms = Rooms::new(graph.clone(), server_name!("h"), "11").unwrap();
        let alice = user_id!("@alice:h");
        let request = CreateRoom { preset: Preset::PublicChat, ..CreateRoom::default() };
        let room_id = rooms.create(alice, request).await.unwrap();
        let room = rooms.known_room(&room_id).unwrap();
        let (bob, carl) = (user_id!("@bob:other"), user_id!("@carl:other"));
        assert_eq!(rooms.servers_in(room).unwrap(), [server_name!("h")]);
        join(&rooms, &room_id, bob, Join).await;
        join(&rooms, &room_id, carl, Join).await;
        join(&rooms, &room_id, bob, Join).await;
        join(&rooms, &room_id, bob, Leave).await;
        assert_eq!(rooms.servers_in(room).unwrap(), [server_name!("h"), server_name!("other")]);
        assert!(rooms.shares_room(server_name!("other"), alice).unwrap());
        assert!(rooms.shares_room(server_name!("h"), carl).unwrap());
        assert!(!rooms.shares_room(server_name!("h"), bob).unwrap());
        assert!(!rooms.shares_room(server_name!("third"), alice).unwrap());
        let alice_num = rooms.user(alice).unwrap().unwrap();
        assert_eq!(
            rooms.servers_with(alice_num).unwrap(),
            BTreeSet::from([server_name!("other").to_owned()])
        );
        let counts = || -> Vec<(String, u64)> {
            let entries = graph.scan::<RoomServers, _>(&()).iter().map(Result::unwrap);
            entries.map(|((_, server), (count, _))| (server, count)).collect()
        };
        let counted = counts();
        let mut commit = graph.begin();
        commit.delete_all::<RoomServers, _>(&());
        graph.commit(commit).unwrap();
        let rooms = Rooms::new(graph.clone(), server_name!("h"), "11").unwrap();
        assert_eq!(counts(), counted);
        join(&rooms, &room_id, carl, Leave).await;
        assert_eq!(rooms.servers_in(room).unwrap(), [server_name!("h")]);
        assert!(rooms.servers_with(alice_num).unwrap().is_empty());
        drop((rooms, graph));
        let findings = postern_graph::doctor::check(&settings.path).unwrap();
        assert!(findings.is_healthy(), "{findings:#?}");
    }
}
