//! State resolution: one state out of several, when a room's history has forked.
//!
//! It works on differences. States are compared as persistent maps, so that only keys in conflict are looked at; to these
//! come the auth difference from the chain cover, since room version 12 the conflicted state subgraph, and those entries
//! shared by all states that authorization asks for. The algorithm of room versions 2 to 12 is ruma's and sees just this
//! part; what it decides is written back into one of the maps. Room version 1 has its own algorithm, in `first`.

#[cfg(test)]
mod examples;
mod first;

use crate::{Error, Event, authorize::Reading, batch::Batch, limits};
use postern_graph::{EventNum, NameKind, Root, StateKeyNum, event::flags, intern::state_key_name};
use ruma::{
    EventId, OwnedEventId,
    events::StateEventType,
    room_version_rules::StateResolutionVersion,
    state_res::{self, StateMap, auth_types_for_event, utils::event_id_set::EventIdSet},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

/// The keys at which states differ, and what each state has there.
type Conflicts = BTreeMap<StateKeyNum, Vec<Option<EventNum>>>;

impl Batch<'_> {
    /// The resolution of states given by their roots. Does not depend on their order.
    ///
    /// <https://spec.matrix.org/latest/rooms/v2/#state-resolution>
    ///
    /// # Errors
    /// [`Error::Unresolvable`] if it would take more than [`limits::AUTH_WALK`] events, or an event in conflict is
    /// malformed beyond what authorization forgives.
    pub(crate) fn resolve(&mut self, roots: impl IntoIterator<Item = Root>) -> Result<Root, Error> {
        let distinct: BTreeSet<Root> = roots.into_iter().collect();
        let states: Vec<Root> = distinct.into_iter().collect();
        let [first, rest @ ..] = states.as_slice() else { return Ok(Root::EMPTY) };
        if rest.is_empty() {
            return Ok(*first);
        }
        let mut keys = BTreeSet::new();
        for root in rest {
            let changes = self.rooms.graph.state_diff_in(&self.commit, *first, *root)?;
            keys.extend(changes.into_iter().map(|change| change.key));
        }
        let mut conflicts = Conflicts::new();
        for key in keys {
            let mut values = Vec::with_capacity(states.len());
            for root in &states {
                values.push(self.rooms.graph.state_get_in(&self.commit, *root, key)?);
            }
            conflicts.insert(key, values);
        }
        match self.version.rules.state_res {
            StateResolutionVersion::V1 => self.resolve_first(*first, &conflicts),
            _ => self.resolve_second(&states, &conflicts),
        }
    }

    fn resolve_second(&mut self, states: &[Root], conflicts: &Conflicts) -> Result<Root, Error> {
        let rules = self.version.rules.clone();
        let Some(second) = rules.state_res.v2_rules() else {
            return Err(Error::Unresolvable("the room version has no such state resolution".to_owned()));
        };
        let [base, ..] = states else { return Ok(Root::EMPTY) };
        let difference = self.rooms.graph.auth_difference_of_states(&self.commit, states)?;
        let conflicted: BTreeSet<EventNum> = conflicts.values().flatten().flatten().copied().collect();
        let subgraph = if second.consider_conflicted_state_subgraph {
            self.conflicted_subgraph(&conflicted)?
        } else {
            BTreeSet::new()
        };

        let mut maps: Vec<StateMap<OwnedEventId>> = vec![StateMap::new(); states.len()];
        for (at, map) in maps.iter_mut().enumerate() {
            for values in conflicts.values() {
                if let Some(Some(num)) = values.get(at) {
                    let event = self.event(*num)?;
                    map.insert(key_of(&event)?, event.id.clone());
                }
            }
        }
        let full: BTreeSet<EventNum> =
            conflicted.iter().chain(&difference).chain(&subgraph).copied().collect();
        if full.len() > limits::AUTH_WALK {
            return Err(Error::Unresolvable(format!(
                "more than {} events are in conflict",
                limits::AUTH_WALK
            )));
        }
        for event in self.shared_authorizers(*base, conflicts, &full)? {
            let key = key_of(&event)?;
            for map in &mut maps {
                map.insert(key.clone(), event.id.clone());
            }
        }

        // Given as the chains of two sets, of which one is empty, what differs between them is just the difference.
        let chains = vec![self.ids(&difference)?, EventIdSet::new()];
        let subgraph = self.ids(&subgraph)?;
        let reading = Reading::default();
        let resolved = state_res::resolve(
            &rules.authorization,
            second,
            &maps,
            chains,
            |id: &EventId| reading.note(self.event_by_id(id)),
            |_| Some(subgraph.clone()),
        );
        let resolved = reading.decided(resolved)?.map_err(|error| Error::Unresolvable(error.to_string()))?;
        self.write_back(*base, conflicts, resolved)
    }

    /// What all states have in common and the authorization of `full` asks for.
    fn shared_authorizers(
        &self,
        base: Root,
        conflicts: &Conflicts,
        full: &BTreeSet<EventNum>,
    ) -> Result<Vec<Arc<Event>>, Error> {
        let mut wanted: BTreeSet<(String, String)> = BTreeSet::new();
        wanted.insert(("m.room.create".to_owned(), String::new()));
        for num in full {
            let event = self.event(*num)?;
            // A malformed event asks for nothing: it will not be allowed.
            let types = auth_types_for_event(
                event.kind(),
                event.sender(),
                event.state_key(),
                event.content(),
                &self.version.rules.authorization,
            );
            wanted.extend(types.into_iter().flatten().map(|(kind, key)| (kind.to_string(), key)));
        }
        let mut found = Vec::new();
        for (kind, state_key) in wanted {
            let Some(key) = self.state_key_number(&kind, &state_key)? else { continue };
            if conflicts.contains_key(&key) {
                continue;
            }
            if let Some(num) = self.rooms.graph.state_get_in(&self.commit, base, key)? {
                found.push(self.event(num)?);
            }
        }
        Ok(found)
    }

    fn ids(
        &self,
        nums: impl IntoIterator<Item = impl std::borrow::Borrow<EventNum>>,
    ) -> Result<EventIdSet<OwnedEventId>, Error> {
        let mut ids = EventIdSet::new();
        for num in nums {
            ids.insert(self.event(*num.borrow())?.id.clone());
        }
        Ok(ids)
    }

    /// Puts the outcome into the map `base`: keys in conflict as decided, and what the auth difference brought back
    /// where all states have nothing. Everything else stays as all states have it.
    fn write_back(
        &mut self,
        base: Root,
        conflicts: &Conflicts,
        resolved: StateMap<OwnedEventId>,
    ) -> Result<Root, Error> {
        let mut outcome: BTreeMap<StateKeyNum, EventNum> = BTreeMap::new();
        for id in resolved.into_values() {
            let event = self
                .event_by_id(&id)?
                .ok_or_else(|| Error::Unresolvable(format!("the event {id} is not here")))?;
            if let Some(key) = event.record.state_key {
                outcome.insert(key, event.num);
            }
        }
        let graph = &self.rooms.graph;
        let mut root = base;
        for (key, num) in &outcome {
            if conflicts.contains_key(key) || graph.state_get_in(&self.commit, base, *key)?.is_none() {
                root = graph.state_set(&mut self.commit, root, *key, Some(*num))?;
            }
        }
        for key in conflicts.keys().filter(|key| !outcome.contains_key(key)) {
            root = graph.state_set(&mut self.commit, root, *key, None)?;
        }
        Ok(root)
    }

    /// The events on paths of auth events from one conflicted event to another, ends included (room version 12).
    fn conflicted_subgraph(&self, conflicted: &BTreeSet<EventNum>) -> Result<BTreeSet<EventNum>, Error> {
        let graph = &self.rooms.graph;
        let mut lowest = u64::MAX;
        for num in conflicted {
            lowest = lowest.min(graph.auth_rank_in(&self.commit, *num)?);
        }
        // Auth events come up after everything they lead to, so that what they lead to is known by then.
        let mut leads: HashMap<EventNum, bool> = HashMap::new();
        let mut open: HashSet<EventNum> = HashSet::new();
        let mut stack: Vec<(EventNum, bool)> = conflicted.iter().map(|num| (*num, false)).collect();
        while let Some((num, below_done)) = stack.pop() {
            if leads.contains_key(&num) {
                continue;
            }
            let auth = graph.auth_events_in(&self.commit, num)?;
            if below_done {
                let leading = auth.iter().any(|next| leads.get(next).copied().unwrap_or(false));
                leads.insert(num, leading || conflicted.contains(&num));
                continue;
            }
            if !open.insert(num) {
                continue;
            }
            if open.len() > limits::AUTH_WALK {
                return Err(Error::Unresolvable(format!(
                    "more than {} events lie between those in conflict",
                    limits::AUTH_WALK
                )));
            }
            stack.push((num, true));
            for next in auth {
                // Below the lowest of the conflicted events nothing leads to one of them.
                if !leads.contains_key(&next) && graph.auth_rank_in(&self.commit, next)? >= lowest {
                    stack.push((next, false));
                }
            }
        }
        Ok(leads.into_iter().filter_map(|(num, leading)| leading.then_some(num)).collect())
    }

    /// The number of a (type, state key), if it has one, also only in this batch.
    pub(crate) fn state_key_number(&self, kind: &str, state_key: &str) -> Result<Option<StateKeyNum>, Error> {
        if let Some(number) = self.rooms.graph.number(NameKind::StateKey, &state_key_name(kind, state_key))? {
            return Ok(Some(StateKeyNum(number)));
        }
        Ok(self
            .added
            .values()
            .find(|event| event.kind().to_string() == kind && event.state_key() == Some(state_key))
            .and_then(|event| event.record.state_key))
    }

    /// The state events of `root` that authorize `event`; rejected ones do not count.
    pub(crate) fn state_event_in(
        &self,
        root: Root,
        kind: &str,
        state_key: &str,
    ) -> Result<Option<Arc<Event>>, Error> {
        let Some(key) = self.state_key_number(kind, state_key)? else { return Ok(None) };
        let num = self.rooms.graph.state_get_in(&self.commit, root, key)?;
        let event = num.map(|num| self.event(num)).transpose()?;
        Ok(event.filter(|event| !event.record.has(flags::REJECTED)))
    }
}

fn key_of(event: &Event) -> Result<(StateEventType, String), Error> {
    let state_key = event
        .state_key()
        .ok_or_else(|| Error::Unresolvable(format!("the event {} is no state event", event.id)))?;
    Ok((event.kind().to_string().into(), state_key.to_owned()))
}
