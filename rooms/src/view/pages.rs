//! Pages of a timeline.

use super::Viewer;
use crate::{Asking, Error, Event, rooms::Rooms};
use postern_graph::{
    Pos, RoomNum, Seq,
    schema::{EventRecords, Timeline},
};
use std::{fmt, str::FromStr, sync::Arc};

/// Events looked at for one page; what a filter hides costs too.
const SCAN_PER_PAGE: usize = 2_000;

/// Clocks differ: positions around a time that are looked at, and events of these.
const AROUND_TIME: i64 = 100;
const AT_TIME: usize = 50;

/// A place between two events of a timeline: just after the event at the position. Written `t` and a number; the
/// tokens of `/sync` (`s` and a number, and more) name places too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimelineToken(pub Pos);

impl fmt::Display for TimelineToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}", self.0.0)
    }
}

impl TimelineToken {
    /// The token with the time it was given out: "the room as of then".
    #[must_use]
    pub fn at_time(self, time: Seq) -> String {
        format!("{self}_{}", time.0)
    }

    /// The time a token was given out, where it tells; else the place it names.
    pub fn parse_time(text: &str) -> Result<Pos, Error> {
        let place: Self = text.parse()?;
        match text.strip_prefix('t').and_then(|rest| rest.split_once('_')) {
            None => Ok(place.0),
            Some((_, time)) => time
                .parse::<i64>()
                .map(Pos)
                .map_err(|_| Error::InvalidParam(format!("{text:?} is not a token of this server"))),
        }
    }
}

impl FromStr for TimelineToken {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = || Error::InvalidParam(format!("{text:?} is not a token of this server"));
        if let Some(rest) = text.strip_prefix('t') {
            let pos = rest.split('_').next().unwrap_or_default();
            return pos.parse().map(|pos| Self(Pos(pos))).map_err(|_| invalid());
        }
        let rest = text.strip_prefix('s').ok_or_else(invalid)?;
        let seq: u64 = rest.split('_').next().and_then(|seq| seq.parse().ok()).ok_or_else(invalid)?;
        i64::try_from(seq).map_err(|_| invalid())?;
        Ok(Self(Pos::at(Seq(seq))))
    }
}

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To older events.
    Backwards,
    /// To newer events.
    Forwards,
}

/// A stretch of a timeline.
#[derive(Debug, Clone, Copy)]
pub struct Stretch {
    /// Where it begins.
    pub from: TimelineToken,
    /// Where it ends, at the latest.
    pub until: Option<TimelineToken>,
    /// Which way it goes.
    pub direction: Direction,
    /// Events at most.
    pub limit: usize,
}

/// A page of a timeline.
#[derive(Debug)]
pub struct Page {
    /// Its events, in the direction asked for.
    pub events: Vec<Arc<Event>>,
    /// Where the next page begins; nothing if this one reached the end.
    pub next: Option<TimelineToken>,
}

impl Rooms {
    /// The events of a stretch that `viewer` may see and `wanted` lets through.
    pub fn page(
        &self,
        room: RoomNum,
        viewer: &Viewer<'_>,
        stretch: Stretch,
        wanted: impl Fn(&Event) -> bool,
    ) -> Result<Page, Error> {
        self.page_of(room, stretch, |event| Ok(wanted(event) && self.may_see(viewer, event)?))
    }

    /// The events of a stretch that `wanted` lets through.
    fn page_of(
        &self,
        room: RoomNum,
        stretch: Stretch,
        wanted: impl Fn(&Event) -> Result<bool, Error>,
    ) -> Result<Page, Error> {
        let Stretch { from, until, direction, limit } = stretch;
        // What is not yet durable does not exist for the outside.
        let durable = Pos::at(self.graph.durable());
        let scan = self.graph.scan::<Timeline, _>(&(room,));
        let range = match direction {
            Direction::Backwards => {
                let scan = scan.up_to(&(room, from.0.min(durable)));
                match until {
                    Some(until) => scan.after(&(room, until.0)).reverse(),
                    None => scan.reverse(),
                }
            }
            Direction::Forwards => {
                let end = until.map_or(durable, |until| until.0.min(durable));
                scan.after(&(room, from.0)).up_to(&(room, end))
            }
        };
        let mut events = Vec::new();
        let mut last = from.0;
        for (looked_at, entry) in range.iter().enumerate() {
            let ((_, pos), num) = entry?;
            if events.len() == limit || looked_at == SCAN_PER_PAGE {
                return Ok(Page { events, next: Some(place(last, direction)) });
            }
            let event = self.event(num)?;
            last = pos;
            if wanted(&event)? {
                events.push(event);
            }
        }
        // Going forwards there will be more one day, so there is always a next place.
        let next = (direction == Direction::Forwards).then(|| place(last, direction));
        Ok(Page { events, next })
    }
}

impl Rooms {
    /// What happened in `(after, up_to]` that `viewer` may see, oldest first; of the newest `look_back` events. Of what
    /// the viewer did it has messages only: state is also changed without anybody looking at the room.
    pub fn happened(
        &self,
        room: RoomNum,
        viewer: &Viewer<'_>,
        (after, up_to): (Pos, Pos),
        look_back: usize,
    ) -> Result<Vec<Arc<Event>>, Error> {
        let mut found = Vec::new();
        let range = self.graph.scan::<Timeline, _>(&(room,)).after(&(room, after)).up_to(&(room, up_to));
        for entry in range.reverse().iter().take(look_back) {
            let (_, num) = entry?;
            let own_state = self
                .graph
                .get::<EventRecords>(&(num,))?
                .is_some_and(|record| record.sender == viewer.user && record.state_key.is_some());
            if !own_state {
                let event = self.event(num)?;
                if self.may_see(viewer, &event)? {
                    found.push(event);
                }
            }
        }
        found.reverse();
        Ok(found)
    }

    /// The event nearest to a time on one side of it: the first at or after `ts`, or (backwards) the last at or before.
    pub fn event_at(
        &self,
        room: RoomNum,
        viewer: &Viewer<'_>,
        ts: u64,
        direction: Direction,
    ) -> Result<Option<Arc<Event>>, Error> {
        self.event_near(room, ts, direction, |event| self.may_see(viewer, event))
    }

    /// The same for a server that is in the room.
    pub fn event_at_for_server(
        &self,
        asking: Asking<'_>,
        ts: u64,
        direction: Direction,
    ) -> Result<Option<Arc<Event>>, Error> {
        self.event_near(asking.room, ts, direction, |event| Ok(event.record.is_visible()))
    }

    fn event_near(
        &self,
        room: RoomNum,
        ts: u64,
        direction: Direction,
        may_see: impl Fn(&Event) -> Result<bool, Error>,
    ) -> Result<Option<Arc<Event>>, Error> {
        // The order of arrival is nearly that of the clocks: find the place by halving, then look around it.
        let at = |pos: Pos| -> Result<Option<(Pos, u64)>, Error> {
            let found = self.graph.scan::<Timeline, _>(&(room,)).from(&(room, pos)).first()?;
            found.map(|((_, pos), num)| Ok((pos, self.event(num)?.origin_server_ts()))).transpose()
        };
        let Some((first, _)) = at(Pos::MIN)? else { return Ok(None) };
        let (mut low, mut high) = (first.0, self.graph.applied().0.cast_signed() + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            match at(Pos(middle))? {
                Some((_, then)) if then < ts => low = middle + 1,
                _ => high = middle,
            }
        }
        let side = match direction {
            Direction::Forwards => Pos(low.saturating_sub(AROUND_TIME)),
            Direction::Backwards => Pos(low.saturating_add(AROUND_TIME)),
        };
        let fits = |event: &Event| match direction {
            Direction::Forwards => event.origin_server_ts() >= ts,
            Direction::Backwards => event.origin_server_ts() <= ts,
        };
        let stretch = Stretch { from: TimelineToken(side), until: None, direction, limit: AT_TIME };
        let page = self.page_of(room, stretch, |event| Ok(fits(event) && may_see(event)?))?;
        Ok(page
            .events
            .into_iter()
            .min_by_key(|event| (event.origin_server_ts().abs_diff(ts), event.record.pos)))
    }
}

/// The place behind an event at `pos` when going in `direction`.
const fn place(pos: Pos, direction: Direction) -> TimelineToken {
    match direction {
        Direction::Backwards => TimelineToken(Pos(pos.0 - 1)),
        Direction::Forwards => TimelineToken(pos),
    }
}
