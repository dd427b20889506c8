//! The chain cover, where it is present.

use super::Doctor;
use crate::schema::{ChainEvents, ChainLinks, ChainTips, Chains, Links};

impl Doctor {
    /// Places and events are each other's inverse; the cover claims no more than the auth events say, and no less.
    pub(super) fn chains(&mut self) {
        self.each::<Chains>(|doctor, (event,), (chain, at, rank)| {
            let what = doctor.event(event);
            if doctor.graph.get::<ChainEvents>(&(chain, at))? != Some(event) {
                doctor.say(format!(
                    "The {what} stands at place {at} of chain {}, which does not have it there.",
                    chain.0
                ));
            }
            if doctor.graph.get::<ChainTips>(&(chain,))?.is_none_or(|tip| tip < at) {
                doctor.say(format!("Place {at} of chain {} lies above its tip.", chain.0));
            }
            let Some(links) = doctor.graph.get::<Links>(&(event,))? else {
                doctor.say(format!("The {what} is in the chain cover and has no edges."));
                return Ok(());
            };
            if at > 1 {
                let below = doctor.graph.get::<ChainEvents>(&(chain, at - 1))?;
                if !below.is_some_and(|below| links.auth.contains(&below)) {
                    doctor.say(format!(
                        "The {what} stands on chain {} above an event that does not authorize it.",
                        chain.0
                    ));
                }
            }
            for auth in links.auth {
                let place = doctor.graph.get::<Chains>(&(auth,))?;
                let lower = place.is_some_and(|(_, _, below)| below < rank);
                // A question about a damaged cover may fail: that is an answer too.
                if !lower || !doctor.graph.in_auth_chain(event, auth).unwrap_or(false) {
                    let auth = doctor.event(auth);
                    doctor.say(format!("By the chain cover, {auth} is not in the auth chain of {what}."));
                }
            }
            Ok(())
        });
        self.each::<ChainEvents>(|doctor, (chain, at), event| {
            let place = doctor.graph.get::<Chains>(&(event,))?;
            if place.is_none_or(|(on, there, _)| (on, there) != (chain, at)) {
                let event = doctor.event(event);
                doctor.say(format!("Chain {} has {event} at place {at}, where it does not stand.", chain.0));
            }
            Ok(())
        });
        self.each::<ChainTips>(|doctor, (chain,), tip| {
            if !doctor.graph.has::<ChainEvents>(&(chain, tip))? {
                doctor.say(format!("Chain {} has nothing at its tip {tip}.", chain.0));
            }
            Ok(())
        });
        self.each::<ChainLinks>(|doctor, (chain, at, other), (place, _)| {
            let from = doctor.graph.get::<ChainEvents>(&(chain, at))?;
            let to = doctor.graph.get::<ChainEvents>(&(other, place))?;
            let auth = match from {
                Some(from) => doctor.graph.get::<Links>(&(from,))?.map(|links| links.auth).unwrap_or_default(),
                None => Vec::new(),
            };
            if !to.is_some_and(|to| auth.contains(&to)) {
                doctor.say(format!(
                    "Chain {} links at place {at} to place {place} of chain {}, but no such auth event is known.",
                    chain.0, other.0
                ));
            }
            Ok(())
        });
    }
}
