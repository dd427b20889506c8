//! Events: timelines, edges, relations, threads.

use super::Doctor;
use crate::{
    event::flags,
    schema::{
        Children, EventJson, EventRecords, Heads, Links, Names, Relations, StateAt, ThreadTips, Threads,
        Timeline,
    },
};
use serde::de::IgnoredAny;

const THREAD: &str = "m.thread";

impl Doctor {
    /// Every place of a timeline holds an event whose record and JSON are there; the head knows the last place.
    pub(super) fn timelines(&mut self) {
        self.each::<Timeline>(|doctor, (room, pos), event| {
            let what = doctor.event(event);
            let at = format!("at {} of {}", pos.0, doctor.room(room));
            if doctor.graph.get::<Names>(&(0, event.0))?.is_none() {
                doctor.say(format!("The {what} {at} has no event id."));
            }
            match doctor.graph.get::<EventRecords>(&(event,))? {
                None => doctor.say(format!("The {what} {at} has no record.")),
                Some(record) if record.room != room || record.pos != pos => doctor.say(format!(
                    "The record of the {what} {at} says it stands at {} of {}.",
                    record.pos.0,
                    doctor.room(record.room)
                )),
                Some(_) => {}
            }
            match doctor.graph.get::<EventJson>(&(event,))? {
                None => doctor.say(format!("The {what} {at} has no JSON.")),
                Some(json) => {
                    if let Err(error) = serde_json::from_slice::<IgnoredAny>(&json.0) {
                        doctor.say(format!("The JSON of the {what} is damaged: {error}."));
                    }
                }
            }
            Ok(())
        });
        self.each::<Heads>(|doctor, (room,), head| {
            let last = doctor.graph.scan::<Timeline, _>(&(room,)).reverse().first()?.map(|((_, pos), _)| pos);
            if head.latest != last {
                let text =
                    |pos: Option<crate::Pos>| pos.map_or("nowhere".to_owned(), |pos| pos.0.to_string());
                doctor.say(format!(
                    "The head of {} says its timeline ends at {}, but it ends at {}.",
                    doctor.room(room),
                    text(head.latest),
                    text(last)
                ));
            }
            let state = doctor.graph.scan::<StateAt, _>(&(room,)).reverse().first()?;
            if let Some((_, root)) = state
                && root != head.state
            {
                doctor.say(format!(
                    "The last state change of {} does not lead to its current state.",
                    doctor.room(room)
                ));
            }
            for event in &head.extremities {
                if !doctor.graph.has::<EventRecords>(&(*event,))? {
                    let what = doctor.event(*event);
                    doctor.say(format!(
                        "The {what} is a forward extremity of {} and has no record.",
                        doctor.room(room)
                    ));
                }
            }
            Ok(())
        });
    }

    /// Previous events and children are each other's inverse, and auth events are known.
    pub(super) fn links(&mut self) {
        self.each::<Links>(|doctor, (event,), links| {
            let what = doctor.event(event);
            let record = doctor.graph.get::<EventRecords>(&(event,))?;
            let Some(record) = record else {
                doctor.say(format!("The {what} has edges and no record."));
                return Ok(());
            };
            for prev in links.prev {
                // An outlier is no part of the graph that is walked forward.
                if !record.has(flags::OUTLIER) && !doctor.graph.has::<Children>(&(prev, event))? {
                    let prev = doctor.event(prev);
                    doctor.say(format!("The {what} follows {prev}, which does not know it as a child."));
                }
            }
            for auth in links.auth {
                if !doctor.graph.has::<EventRecords>(&(auth,))? {
                    let auth = doctor.event(auth);
                    doctor.say(format!("The {what} is authorized by {auth}, which has no record."));
                }
            }
            Ok(())
        });
        self.each::<Children>(|doctor, (parent, child), ()| {
            let links = doctor.graph.get::<Links>(&(child,))?;
            if !links.is_some_and(|links| links.prev.contains(&parent)) {
                let (parent, child) = (doctor.event(parent), doctor.event(child));
                doctor.say(format!("The {child} is stored as a child of {parent}, but does not follow it."));
            }
            Ok(())
        });
    }

    /// What relates to an event stands where the relation says.
    pub(super) fn relations(&mut self) {
        self.each::<Relations>(|doctor, (parent, kind, pos), child| {
            let standing = doctor.graph.get::<EventRecords>(&(child,))?.map(|record| record.pos);
            if standing != Some(pos) {
                let (parent, child) = (doctor.event(parent), doctor.event(child));
                doctor.say(format!(
                    "The {child} relates to {parent} ({kind}) from {}, where it does not stand.",
                    pos.0
                ));
            }
            if !doctor.graph.has::<EventRecords>(&(parent,))? {
                let (parent, child) = (doctor.event(parent), doctor.event(child));
                doctor.say(format!("The {child} relates to {parent}, which has no record."));
            }
            Ok(())
        });
    }

    /// A room's threads, the tips of threads, and the replies agree.
    pub(super) fn threads(&mut self) {
        self.each::<Threads>(|doctor, (room, pos, root), ()| {
            let tip = doctor.graph.get::<ThreadTips>(&(root,))?;
            if tip.is_none_or(|(latest, _)| latest != pos) {
                let (room, root) = (doctor.room(room), doctor.event(root));
                doctor.say(format!(
                    "The list of threads of {room} has {root} at {}, which is not its latest reply.",
                    pos.0
                ));
            }
            Ok(())
        });
        self.each::<ThreadTips>(|doctor, (root,), (latest, replies)| {
            let what = doctor.event(root);
            let Some(record) = doctor.graph.get::<EventRecords>(&(root,))? else {
                doctor.say(format!("The {what} is the root of a thread and has no record."));
                return Ok(());
            };
            if !doctor.graph.has::<Threads>(&(record.room, latest, root))? {
                let room = doctor.room(record.room);
                doctor.say(format!("The thread of {what} is missing in the list of threads of {room}."));
            }
            let (mut count, mut last) = (0, None);
            for entry in doctor.graph.scan::<Relations, _>(&(root, THREAD.to_owned())).iter() {
                let ((_, _, pos), _) = entry?;
                (count, last) = (count + 1, Some(pos));
            }
            if last != Some(latest) || count != replies {
                doctor.say(format!(
                    "The thread of {what} is said to have {replies} replies up to {}, but has {count}{}.",
                    latest.0,
                    last.map_or(String::new(), |last| format!(" up to {}", last.0))
                ));
            }
            Ok(())
        });
    }
}
