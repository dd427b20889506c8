//! State maps, current state, memberships.

use super::Doctor;
use crate::{
    codec::{Decode, Raw},
    error::Error,
    event::{MembershipKind, flags},
    ids::{EventNum, RoomNum, Root, UserNum},
    intern::{Kind, split_state_key_name},
    schema::{
        CurrentState, EventJson, EventRecords, Heads, Members, Memberships, RoomServers, StateAt, StateNodes,
    },
    tree::{Node, root_of},
};
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};

const MEMBER: &str = "m.room.member";

/// State maps already walked, with how many entries each has; none if it is broken.
type Walked = HashMap<Root, Option<u64>>;

impl Doctor {
    /// Every state a room had or has is there with all of its nodes.
    pub(super) fn state_maps(&mut self) {
        let mut walked = Walked::from([(Root::EMPTY, Some(0))]);
        self.each::<StateAt>(|doctor, (room, pos), root| {
            if doctor.walk(root, &mut walked)?.is_none() {
                let room = doctor.room(room);
                doctor.say(format!("The state of {room} from {} on is incomplete.", pos.0));
            }
            Ok(())
        });
        self.each::<Heads>(|doctor, (room,), head| {
            if doctor.walk(head.state, &mut walked)?.is_none() {
                let room = doctor.room(room);
                doctor.say(format!("The current state of {room} is incomplete."));
            }
            Ok(())
        });
    }

    fn walk(&mut self, root: Root, walked: &mut Walked) -> Result<Option<u64>, Error> {
        if let Some(known) = walked.get(&root) {
            return Ok(*known);
        }
        let count = self.walk_new(root, walked)?;
        walked.insert(root, count);
        Ok(count)
    }

    fn walk_new(&mut self, root: Root, walked: &mut Walked) -> Result<Option<u64>, Error> {
        let name = super::hex(&root.0);
        let Some(Raw(bytes)) = self.graph.get::<StateNodes>(&(root,))? else {
            self.say(format!("State node {name} is missing."));
            return Ok(None);
        };
        if root_of(&bytes) != root {
            self.say(format!("State node {name} has other content than its name says."));
            return Ok(None);
        }
        match Node::whole(&bytes) {
            Err(damaged) => {
                self.say(format!("State node {name} cannot be read: {damaged}."));
                Ok(None)
            }
            Ok(Node::Leaf(entries)) => Ok(Some(entries.len() as u64)),
            Ok(Node::Branch(ways, count)) => {
                let mut sum = Some(0);
                for below in ways.iter().flatten() {
                    let part = self.walk(*below, walked)?;
                    sum = sum.zip(part).map(|(sum, part)| sum + part);
                }
                if let Some(sum) = sum
                    && sum != count
                {
                    self.say(format!("State node {name} counts {count} entries and has {sum}."));
                }
                Ok(sum)
            }
        }
    }

    /// The flat current state is the head's state map.
    pub(super) fn current_state(&mut self) {
        self.each::<Heads>(|doctor, (room,), head| {
            // An incomplete map was reported already.
            let Ok(entries) = doctor.graph.state_entries(head.state) else { return Ok(()) };
            let mut wanted: BTreeMap<(String, String), EventNum> = BTreeMap::new();
            let what = doctor.room(room);
            for (key, event) in entries {
                let name = doctor.graph.name(Kind::StateKey, key.0)?;
                let Some((kind, state_key)) = split_state_key_name(&name) else {
                    doctor.say(format!("State key {} has the unreadable name {name:?}.", key.0));
                    continue;
                };
                wanted.insert((kind.to_owned(), state_key.to_owned()), event);
                if doctor.graph.get::<EventRecords>(&(event,))?.and_then(|record| record.state_key) != Some(key) {
                    let event = doctor.event(event);
                    doctor.say(format!(
                        "In the state of {what}, {event} stands for ({kind}, {state_key:?}), which is not its own key."
                    ));
                }
            }
            let graph = doctor.graph.clone();
            for entry in graph.scan::<CurrentState, _>(&(room,)).iter() {
                let ((_, kind, state_key), event) = entry?;
                let key = (kind, state_key);
                match wanted.remove(&key) {
                    Some(expected) if expected == event => {}
                    Some(expected) => doctor.say(format!(
                        "The flat current state of {what} has {} at ({}, {:?}), its state map has {}.",
                        doctor.event(event),
                        key.0,
                        key.1,
                        doctor.event(expected)
                    )),
                    None => doctor.say(format!(
                        "The flat current state of {what} has {} at ({}, {:?}), where its state map has nothing.",
                        doctor.event(event),
                        key.0,
                        key.1
                    )),
                }
            }
            for ((kind, state_key), event) in wanted {
                doctor.say(format!(
                    "The state map of {what} has {} at ({kind}, {state_key:?}), which the flat current state lacks.",
                    doctor.event(event)
                ));
            }
            Ok(())
        });
        let mut last = None;
        self.each::<CurrentState>(|doctor, (room, _, _), _| {
            if last != Some(room) && !doctor.graph.has::<Heads>(&(room,))? {
                let what = doctor.room(room);
                doctor.say(format!("The {what} has a current state and no head."));
            }
            last = Some(room);
            Ok(())
        });
    }

    /// Memberships by user, by room, and in the current state say the same.
    pub(super) fn memberships(&mut self) {
        self.each::<Memberships>(|doctor, (user, room), membership| {
            let (who, what) = (doctor.user(user), doctor.room(room));
            let word = membership.kind.as_str();
            if doctor.graph.get::<Members>(&(room, membership.kind as u8, user))? != Some(membership.event) {
                doctor.say(format!(
                    "The {who} has membership {word} of {what}, whose list of members disagrees."
                ));
            }
            // Invites and knocks of rooms this server is not in are outliers, and so is their withdrawal.
            let record = doctor.graph.get::<EventRecords>(&(membership.event,))?;
            let outlier = record.is_none_or(|record| record.has(flags::OUTLIER));
            if !outlier
                && let Some(name) = doctor.user_name(user)
                && doctor.graph.get::<CurrentState>(&(room, MEMBER.to_owned(), name))?
                    != Some(membership.event)
            {
                doctor.say(format!(
                    "The {who} has membership {word} of {what} by an event that is not current state."
                ));
            }
            Ok(())
        });
        self.each::<Members>(|doctor, (room, kind, user), event| {
            let (who, what) = (doctor.user(user), doctor.room(room));
            let membership = doctor.graph.get::<Memberships>(&(user, room))?;
            if membership.is_none_or(|membership| membership.kind as u8 != kind || membership.event != event)
            {
                doctor.say(format!("The list of members of {what} has {who}, whose memberships disagree."));
            }
            Ok(())
        });
        self.each::<CurrentState>(|doctor, (room, kind, name), event| {
            if kind == MEMBER { doctor.member_event(room, &name, event) } else { Ok(()) }
        });
    }

    /// The servers of each room are those of its joined users.
    pub(super) fn room_servers(&mut self) {
        let mut wanted: BTreeMap<(RoomNum, String), u64> = BTreeMap::new();
        self.each::<Members>(|doctor, (room, kind, user), _| {
            if kind == MembershipKind::Join as u8
                && let Some(name) = doctor.user_name(user)
                && let Some((_, server)) = name.split_once(':')
            {
                *wanted.entry((room, server.to_owned())).or_default() += 1;
            }
            Ok(())
        });
        self.each::<RoomServers>(|doctor, (room, server), (count, _)| {
            let members = wanted.remove(&(room, server.clone())).unwrap_or_default();
            if count != members {
                let what = doctor.room(room);
                doctor.say(format!(
                    "Server {server} is said to have {count} users in {what}, and has {members}."
                ));
            }
            Ok(())
        });
        for ((room, server), members) in wanted {
            let what = self.room(room);
            self.say(format!("Server {server} has {members} users in {what}, whose servers do not have it."));
        }
    }

    fn user_name(&self, user: UserNum) -> Option<String> {
        self.graph.name(Kind::User, user.0).ok().map(|name| name.to_string())
    }

    fn member_event(&mut self, room: RoomNum, name: &str, event: EventNum) -> Result<(), Error> {
        #[derive(Deserialize)]
        struct Member {
            content: Content,
        }
        #[derive(Deserialize)]
        struct Content {
            membership: String,
        }
        // A state key that is no user id means no membership.
        if !name.starts_with('@') || !name.contains(':') {
            return Ok(());
        }
        let Some(json) = self.graph.get::<EventJson>(&(event,))? else {
            let event = self.event(event);
            self.say(format!("The {event} is current state and has no JSON."));
            return Ok(());
        };
        let Some(kind) = serde_json::from_slice::<Member>(&json.0)
            .ok()
            .and_then(|member| MembershipKind::parse(&member.content.membership))
        else {
            return Ok(());
        };
        let stored = match self.graph.number(Kind::User, name)? {
            Some(user) => self.graph.get::<Memberships>(&(UserNum(user), room))?,
            None => None,
        };
        let outlier = match stored {
            Some(stored) => {
                let record = self.graph.get::<EventRecords>(&(stored.event,))?;
                record.is_some_and(|record| record.has(flags::OUTLIER))
            }
            None => false,
        };
        if !outlier && stored.is_none_or(|stored| stored.kind != kind || stored.event != event) {
            let room = self.room(room);
            self.say(format!(
                "By the current state of {room} user {name} has membership {}, by its memberships not.",
                kind.as_str()
            ));
        }
        Ok(())
    }
}
