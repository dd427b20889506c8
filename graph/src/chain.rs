//! The chain cover: which events authorize which, answered without walking the auth graph.
//!
//! Every event of the index stands at a place of exactly one chain, and an event reaches (has in its auth chain)
//! everything below it on its chain. What it reaches on other chains is kept as links: from a place of one chain to
//! a place of another, stored only where nothing further down the chain already leads as far. A third number, the
//! rank, is one more than the greatest rank among an event's auth events: whatever an event reaches has a lower rank.
//!
//! A question is answered by a walk over links in falling rank. When the walk stands at rank `r`, everything that can
//! lead to places of rank `r` has been seen, so it may stop as soon as nothing undecided lies below. What several
//! sets share is met early and left alone: the cost follows the difference, not the length of the chains.
//!
//! Events are added after their auth events, one writer per room at a time (the room's lane). An event that was never
//! added is placed on the fly from its stored [`Links`], for the one question.

use crate::{
    codec::Damaged,
    commit::Commit,
    error::Error,
    event::EventLinks,
    ids::{ChainNum, EventNum, Root},
    intern::Kind,
    limits,
    schema::{ChainEvents, ChainLinks, ChainTips, Chains, Links},
    store::Graph,
};
use std::{
    collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet},
    ops::Bound,
};

/// Where an event stands in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    chain: ChainNum,
    /// Its place there; the first is 1.
    at: u64,
    rank: u64,
}

/// One link, as seen from the place it starts at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Link {
    chain: ChainNum,
    at: u64,
}

/// The part of the index that is not stored yet.
#[derive(Debug, Default)]
pub(crate) struct Unstored {
    places: HashMap<EventNum, Place>,
    tips: HashMap<ChainNum, u64>,
    events: BTreeMap<(ChainNum, u64), EventNum>,
    /// (chain, place, other chain) to (place there, rank of the place the link starts at).
    links: BTreeMap<(ChainNum, u64, ChainNum), (u64, u64)>,
    /// Auth events of events whose [`Links`] are not stored yet.
    auth: HashMap<EventNum, Vec<EventNum>>,
}

/// Links at the highest place of a chain, not above a given one, that has any.
struct Stop {
    at: u64,
    rank: u64,
    links: Vec<Link>,
}

impl Unstored {
    fn stop(&self, chain: ChainNum, up_to: u64) -> Option<Stop> {
        let below = self.links.range((chain, 0, ChainNum(0))..=(chain, up_to, ChainNum(u64::MAX)));
        let mut stop: Option<Stop> = None;
        for (&(_, at, other), &(place, rank)) in below.rev() {
            let stop = stop.get_or_insert(Stop { at, rank, links: Vec::new() });
            if stop.at != at {
                break;
            }
            stop.links.push(Link { chain: other, at: place });
        }
        stop
    }
}

/// The index as one question or one addition sees it: stored, in a commit being built, and placed on the fly.
struct Cover<'a> {
    graph: &'a Graph,
    commit: Option<&'a Unstored>,
    own: Unstored,
}

impl<'a> Cover<'a> {
    fn new(graph: &'a Graph, commit: Option<&'a Commit>) -> Self {
        Self { graph, commit: commit.map(|commit| &commit.chains), own: Unstored::default() }
    }

    fn layers(&self) -> impl Iterator<Item = &Unstored> {
        std::iter::once(&self.own).chain(self.commit)
    }

    fn place(&self, event: EventNum) -> Result<Option<Place>, Error> {
        if let Some(place) = self.layers().find_map(|layer| layer.places.get(&event)) {
            return Ok(Some(*place));
        }
        let stored = self.graph.get::<Chains>(&(event,))?;
        Ok(stored.map(|(chain, at, rank)| Place { chain, at, rank }))
    }

    fn tip(&self, chain: ChainNum) -> Result<u64, Error> {
        if let Some(tip) = self.layers().find_map(|layer| layer.tips.get(&chain)) {
            return Ok(*tip);
        }
        Ok(self.graph.get::<ChainTips>(&(chain,))?.unwrap_or(0))
    }

    fn rank_at(&self, chain: ChainNum, at: u64) -> Result<u64, Error> {
        let unstored = self.layers().find_map(|layer| layer.events.get(&(chain, at)));
        let event = match unstored {
            Some(event) => Some(*event),
            None => self.graph.get::<ChainEvents>(&(chain, at))?,
        };
        let place = event.map(|event| self.place(event)).transpose()?.flatten();
        place
            .map(|place| place.rank)
            .ok_or_else(|| Error::Missing(format!("the event at place {at} of chain {}", chain.0)))
    }

    /// The events at the places above `above`, up to `up_to`.
    fn events(&self, chain: ChainNum, above: u64, up_to: u64, out: &mut Vec<EventNum>) -> Result<(), Error> {
        let stored =
            self.graph.scan::<ChainEvents, _>(&(chain,)).after(&(chain, above)).up_to(&(chain, up_to));
        for entry in stored.iter() {
            out.push(entry?.1);
        }
        for layer in self.layers() {
            let range = (Bound::Excluded((chain, above)), Bound::Included((chain, up_to)));
            out.extend(layer.events.range(range).map(|(_, event)| *event));
        }
        Ok(())
    }

    /// The highest place of `chain` with links, not above `up_to`.
    fn stop(&self, chain: ChainNum, up_to: u64) -> Result<Option<Stop>, Error> {
        // Later places of a chain are in later layers: the first that has a link has the highest.
        if let Some(stop) = self.layers().find_map(|layer| layer.stop(chain, up_to)) {
            return Ok(Some(stop));
        }
        let mut stop: Option<Stop> = None;
        let stored = self.graph.scan::<ChainLinks, _>(&(chain,)).up_to(&(chain, up_to)).reverse();
        for entry in stored.iter() {
            let ((_, at, other), (place, rank)) = entry?;
            let stop = stop.get_or_insert(Stop { at, rank, links: Vec::new() });
            if stop.at != at {
                break;
            }
            stop.links.push(Link { chain: other, at: place });
        }
        Ok(stop)
    }

    /// Whether a link of `chain`, not above `up_to`, leads at least as far as `link`. Says no where finding out
    /// would cost more than a link too many.
    fn leads(&self, chain: ChainNum, mut up_to: u64, link: Link) -> Result<bool, Error> {
        for _ in 0..limits::CHAIN_STOPS_LOOKED_AT {
            let Some(stop) = self.stop(chain, up_to)? else { return Ok(false) };
            // Links to one chain lead ever further: the newest decides.
            if let Some(found) = stop.links.iter().find(|found| found.chain == link.chain) {
                return Ok(found.at >= link.at);
            }
            up_to = stop.at - 1;
        }
        Ok(false)
    }

    /// Places `event`, and before it whatever of its auth chain has no place yet.
    fn add(
        &mut self,
        event: EventNum,
        auth: &[EventNum],
        mut sink: Option<&mut Commit>,
    ) -> Result<Place, Error> {
        let mut waiting = vec![(event, auth.to_vec())];
        let mut entered = HashSet::from([event]);
        let mut placed = None;
        while let Some((event, auth)) = waiting.last() {
            if let Some(place) = self.place(*event)? {
                placed = Some(place);
                waiting.pop();
                continue;
            }
            let mut places = Vec::with_capacity(auth.len());
            let mut missing = None;
            for event in auth {
                match self.place(*event)? {
                    Some(place) => places.push(place),
                    None => missing = Some(*event),
                }
            }
            if let Some(event) = missing {
                if !entered.insert(event) {
                    let damaged = Damaged(format!("event {} is in its own auth chain", event.0));
                    return Err(Error::damaged::<Links>(damaged));
                }
                let auth = self.auth_of(event)?;
                waiting.push((event, auth));
            } else {
                let event = *event;
                placed = Some(self.place_above(event, &places, sink.as_deref_mut())?);
                waiting.pop();
            }
        }
        placed.ok_or_else(|| Error::Missing(format!("the place of event {}", event.0)))
    }

    fn auth_of(&self, event: EventNum) -> Result<Vec<EventNum>, Error> {
        if let Some(auth) = self.layers().find_map(|layer| layer.auth.get(&event)) {
            return Ok(auth.clone());
        }
        let links = self.graph.get::<Links>(&(event,))?;
        Ok(links.ok_or_else(|| Error::Missing(format!("the auth events of event {}", event.0)))?.auth)
    }

    fn place_above(
        &mut self,
        event: EventNum,
        auth: &[Place],
        sink: Option<&mut Commit>,
    ) -> Result<Place, Error> {
        let rank = auth.iter().map(|place| place.rank + 1).max().unwrap_or(0);
        // The auth event of the highest rank is mostly the one this event follows on (a user's membership before).
        let mut by_rank = auth.to_vec();
        by_rank.sort_unstable_by_key(|place| std::cmp::Reverse(place.rank));
        let mut below = None;
        for place in &by_rank {
            if self.tip(place.chain)? == place.at {
                below = Some(*place);
                break;
            }
        }
        let (chain, at) = below.map_or_else(
            || (ChainNum(self.graph.fresh(Kind::Chain)), 1),
            |below| (below.chain, below.at + 1),
        );
        let mut furthest: BTreeMap<ChainNum, u64> = BTreeMap::new();
        for place in auth.iter().filter(|place| place.chain != chain) {
            let at = furthest.entry(place.chain).or_default();
            *at = place.at.max(*at);
        }
        let mut links = Vec::new();
        for (other, place) in furthest {
            let link = Link { chain: other, at: place };
            if at == 1 || !self.leads(chain, at - 1, link)? {
                links.push(link);
            }
        }
        let place = Place { chain, at, rank };
        self.own.places.insert(event, place);
        self.own.tips.insert(chain, at);
        self.own.events.insert((chain, at), event);
        for link in &links {
            self.own.links.insert((chain, at, link.chain), (link.at, rank));
        }
        if let Some(commit) = sink {
            commit.put::<Chains>(&(event,), &(chain, at, rank));
            commit.put::<ChainTips>(&(chain,), &at);
            commit.put::<ChainEvents>(&(chain, at), &event);
            for link in links {
                commit.put::<ChainLinks>(&(chain, at, link.chain), &(link.at, rank));
            }
        }
        Ok(place)
    }

    /// Where `event` stands; placed for this question if it was never added.
    fn find(&mut self, event: EventNum) -> Result<Place, Error> {
        match self.place(event)? {
            Some(place) => Ok(place),
            None => {
                let auth = self.auth_of(event)?;
                self.add(event, &auth, None)
            }
        }
    }
}

/// A walk down from several sets at once.
struct Walk<'c, 'a> {
    cover: &'c Cover<'a>,
    sets: usize,
    /// How far up each chain each set reaches.
    reach: HashMap<ChainNum, Vec<u64>>,
    /// Chains whose reach changed since the undecided part was last brought up to date.
    changed: BTreeSet<ChainNum>,
    /// What to visit next: (rank, chain, place), and the links there.
    queue: BinaryHeap<(u64, ChainNum, u64)>,
    stops: HashMap<(ChainNum, u64), Vec<Link>>,
    /// Entry points already looked up.
    entered: HashSet<(ChainNum, u64)>,
}

impl<'c, 'a> Walk<'c, 'a> {
    fn new(cover: &'c Cover<'a>, sets: usize) -> Self {
        Self {
            cover,
            sets,
            reach: HashMap::new(),
            changed: BTreeSet::new(),
            queue: BinaryHeap::new(),
            stops: HashMap::new(),
            entered: HashSet::new(),
        }
    }

    /// These sets reach that place.
    fn enter(
        &mut self,
        chain: ChainNum,
        at: u64,
        sets: impl IntoIterator<Item = usize>,
    ) -> Result<(), Error> {
        let reach = self.reach.entry(chain).or_insert_with(|| vec![0; self.sets]);
        let mut further = false;
        for set in sets {
            if reach[set] < at {
                reach[set] = at;
                further = true;
            }
        }
        if further {
            self.changed.insert(chain);
            self.go_on(chain, at)?;
        }
        Ok(())
    }

    /// Queues the next place of `chain` with links, from `up_to` downwards.
    fn go_on(&mut self, chain: ChainNum, up_to: u64) -> Result<(), Error> {
        if up_to == 0 || !self.entered.insert((chain, up_to)) {
            return Ok(());
        }
        if let Some(stop) = self.cover.stop(chain, up_to)?
            && self.stops.insert((chain, stop.at), stop.links).is_none()
        {
            self.queue.push((stop.rank, chain, stop.at));
        }
        Ok(())
    }

    fn next_rank(&self) -> Option<u64> {
        self.queue.peek().map(|(rank, _, _)| *rank)
    }

    /// Follows the links of the place of the highest rank.
    fn step(&mut self) -> Result<(), Error> {
        let Some((_, chain, at)) = self.queue.pop() else { return Ok(()) };
        let links = self.stops.get(&(chain, at)).cloned().unwrap_or_default();
        let reach = self.reach.get(&chain).map(Vec::as_slice).unwrap_or_default();
        let sets: Vec<usize> = (0..reach.len()).filter(|set| reach[*set] >= at).collect();
        for link in links {
            self.enter(link.chain, link.at, sets.iter().copied())?;
        }
        self.go_on(chain, at - 1)
    }

    /// The places of `chain` some sets reach and others do not: (above, up to).
    fn gap(&self, chain: ChainNum) -> Option<(u64, u64)> {
        let reach = self.reach.get(&chain)?;
        let (least, most) = (*reach.iter().min()?, *reach.iter().max()?);
        (least < most).then_some((least, most))
    }

    /// Walks until no place some sets reach and others do not can change its standing.
    fn until_decided(&mut self) -> Result<BTreeSet<(u64, ChainNum)>, Error> {
        let mut gaps: BTreeSet<(u64, ChainNum)> = BTreeSet::new();
        let mut gap_ranks: HashMap<ChainNum, u64> = HashMap::new();
        loop {
            for chain in std::mem::take(&mut self.changed) {
                if let Some(rank) = gap_ranks.remove(&chain) {
                    gaps.remove(&(rank, chain));
                }
                if let Some((above, _)) = self.gap(chain) {
                    let rank = self.cover.rank_at(chain, above + 1)?;
                    gap_ranks.insert(chain, rank);
                    gaps.insert((rank, chain));
                }
            }
            match (self.next_rank(), gaps.first()) {
                // Below the lowest gap nothing leads to a gap, and no gap leads on from there.
                (Some(next), Some((lowest, _))) if next >= *lowest => self.step()?,
                _ => return Ok(gaps),
            }
        }
    }
}

impl Graph {
    /// Puts `event` into the chain cover, above its `auth` events. Twice is once. Several events can be added in one
    /// commit, each after its auth events; auth events that were never added are, from their stored [`Links`].
    ///
    /// Only events that can authorize others need to be added (create, power levels, join rules, memberships, third
    /// party invites): any other event is placed by the question that names it, and would only split chains here.
    /// The caller holds the room's lane.
    ///
    /// # Errors
    /// [`Error::Missing`] if an auth event is neither in the cover nor stored.
    pub fn chain_add(&self, commit: &mut Commit, event: EventNum, auth: &[EventNum]) -> Result<(), Error> {
        let mut cover = Cover { graph: self, commit: None, own: std::mem::take(&mut commit.chains) };
        let added = cover.add(event, auth, Some(commit));
        commit.chains = cover.own;
        added.map(|_| ())
    }

    /// Stores the edges of `event`, and lets questions that see this commit know its auth events.
    pub fn link(&self, commit: &mut Commit, event: EventNum, links: &EventLinks) {
        commit.put::<Links>(&(event,), links);
        commit.chains.auth.insert(event, links.auth.clone());
    }

    /// The rank of `event`: one more than the greatest rank of its auth events, 0 without any. Whatever is in an
    /// event's auth chain has a lower rank. Sees what `commit` has added so far.
    ///
    /// # Errors
    /// [`Error::Missing`] if the event, or one of its auth chain, is neither in the cover nor stored.
    pub fn auth_rank_in(&self, commit: &Commit, event: EventNum) -> Result<u64, Error> {
        Ok(Cover::new(self, Some(commit)).find(event)?.rank)
    }

    /// The auth events of `event`, seeing what `commit` has added so far.
    ///
    /// # Errors
    /// [`Error::Missing`] if the event is not stored.
    pub fn auth_events_in(&self, commit: &Commit, event: EventNum) -> Result<Vec<EventNum>, Error> {
        Cover::new(self, Some(commit)).auth_of(event)
    }

    /// Whether `candidate` is in the auth chain of `of` (an event is not in its own).
    pub fn in_auth_chain(&self, of: EventNum, candidate: EventNum) -> Result<bool, Error> {
        self.reaches(Cover::new(self, None), of, candidate)
    }

    /// The same, seeing what `commit` has added so far.
    pub fn in_auth_chain_in(
        &self,
        commit: &Commit,
        of: EventNum,
        candidate: EventNum,
    ) -> Result<bool, Error> {
        self.reaches(Cover::new(self, Some(commit)), of, candidate)
    }

    fn reaches(&self, mut cover: Cover<'_>, of: EventNum, candidate: EventNum) -> Result<bool, Error> {
        if of == candidate {
            return Ok(false);
        }
        let (from, to) = (cover.find(of)?, cover.find(candidate)?);
        let mut walk = Walk::new(&cover, 1);
        walk.enter(from.chain, from.at, [0])?;
        loop {
            if walk.reach.get(&to.chain).is_some_and(|reach| reach[0] >= to.at) {
                return Ok(true);
            }
            match walk.next_rank() {
                Some(rank) if rank > to.rank => walk.step()?,
                _ => return Ok(false),
            }
        }
    }

    /// The auth difference of state resolution (room versions 2 and later): the events that are in, or in the auth
    /// chain of, some but not all of `sets`. In no particular order, none twice.
    ///
    /// The specification takes auth chains without the sets' own events. Servers in use, Synapse among them, count these
    /// in, and so it is here: all servers of a room have to resolve alike. It makes a difference for an event that all
    /// sets have and only the chains of some name.
    ///
    /// <https://spec.matrix.org/latest/rooms/v2/#definitions>
    ///
    /// # Errors
    /// [`Error::Missing`] if an event of a set, or of its auth chain, is neither in the cover nor stored.
    pub fn auth_difference(&self, sets: &[Vec<EventNum>]) -> Result<Vec<EventNum>, Error> {
        Self::difference(Cover::new(self, None), sets)
    }

    /// The same, seeing what `commit` has added so far.
    pub fn auth_difference_in(
        &self,
        commit: &Commit,
        sets: &[Vec<EventNum>],
    ) -> Result<Vec<EventNum>, Error> {
        Self::difference(Cover::new(self, Some(commit)), sets)
    }

    fn difference(mut cover: Cover<'_>, sets: &[Vec<EventNum>]) -> Result<Vec<EventNum>, Error> {
        let mut starts = Vec::new();
        for (set, events) in sets.iter().enumerate() {
            for event in events {
                let place = cover.find(*event)?;
                starts.push((place.chain, place.at, set));
            }
        }
        let mut walk = Walk::new(&cover, sets.len());
        for (chain, at, set) in starts {
            walk.enter(chain, at, [set])?;
        }
        let gaps = walk.until_decided()?;
        let mut out = Vec::new();
        for (_, chain) in gaps {
            if let Some((above, up_to)) = walk.gap(chain) {
                cover.events(chain, above, up_to, &mut out)?;
            }
        }
        out.sort_unstable();
        out.dedup();
        Ok(out)
    }

    /// The auth difference of states given by their roots, less what costs most to find out: events that are in
    /// conflict between the states may be in the result even if every auth chain has them. United with the conflicted
    /// events, as state resolution does, the result is exact. States that differ little are never read as a whole,
    /// unless an event outside the conflict remains to be decided.
    ///
    /// # Errors
    /// As [`Graph::auth_difference`].
    pub fn auth_difference_of_states(&self, commit: &Commit, roots: &[Root]) -> Result<Vec<EventNum>, Error> {
        let Some((first, rest)) = roots.split_first() else { return Ok(Vec::new()) };
        let mut keys = BTreeSet::new();
        for root in rest {
            keys.extend(self.state_diff_in(commit, *first, *root)?.into_iter().map(|change| change.key));
        }
        let mut sets = Vec::with_capacity(roots.len());
        for root in roots {
            let mut set = Vec::with_capacity(keys.len());
            for key in &keys {
                set.extend(self.state_get_in(commit, *root, *key)?);
            }
            sets.push(set);
        }
        let conflicted: HashSet<EventNum> = sets.iter().flatten().copied().collect();
        let difference = self.auth_difference_in(commit, &sets)?;
        if difference.iter().all(|event| conflicted.contains(event)) {
            return Ok(difference);
        }
        // Auth chains of what the states share may hold the rest: only the whole states can tell.
        let mut sets = Vec::with_capacity(roots.len());
        for root in roots {
            let entries = self.state_entries_in(commit, *root)?;
            sets.push(entries.into_iter().map(|(_, event)| event).collect());
        }
        self.auth_difference_in(commit, &sets)
    }
}
