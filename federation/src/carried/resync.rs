//! What is missing at the other end of a link, and sending it again.

use super::{Fault, apart, export::Exported, keys, state::State};
use crate::{Error, Federation};
use postern_border::ByHand;
use postern_bundles::{Header, Ticket};
use serde::Serialize;
use serde_json::{Value, json};
use std::{collections::BTreeSet, ops::RangeInclusive, path::PathBuf};

/// What a ticket led to.
#[derive(Debug, Serialize)]
pub struct Resynced {
    /// Bundles that were put out again.
    put: Vec<PathBuf>,
    /// A bundle that stands for all before it, since some that are missing are not kept any more.
    keyframe: Option<Exported>,
}

impl Federation {
    /// Sends again what a gap ticket asks for.
    ///
    /// # Errors
    /// [`Fault`] and the store's.
    pub async fn resync_link(&self, link: &str, ticket: &str) -> Result<Resynced, Error> {
        let way = self.link_by_hand(link)?;
        let one_way = || Fault::OneWay("goes", way.name.clone(), "out");
        let public = keys::public(&way.out.as_ref().ok_or_else(one_way)?.link)?;
        let ticket: Ticket =
            ticket.parse().map_err(|error: postern_bundles::TicketError| Fault::Ticket(error.to_string()))?;
        if ticket.link != public.link {
            return Err(
                Fault::Ticket(format!("it is of the link {}, this is {}", ticket.link, public.link)).into()
            );
        }
        let (again, kept_whole) = {
            let _turn = self.turn_of(link).await;
            let (federation, way) = (self.clone(), way.clone());
            apart(async move {
                let mut state = federation.state_of(&way)?;
                let next = state.sending(public.link).next().0;
                if ticket.epoch != next.epoch {
                    return Err(Fault::Ticket(format!(
                        "it is of epoch {}, this is {}",
                        ticket.epoch, next.epoch
                    ))
                    .into());
                }
                let mut missing = ticket.missing;
                if ticket.last.saturating_add(1) < next.seq {
                    missing.push(ticket.last + 1..=next.seq - 1);
                }
                let whole = federation.want_out_again(&way, &mut state, &missing)?;
                let kept = federation.spool_of(&way, "kept")?;
                Ok((federation.put_out(&way, &mut state, &kept).await?, whole))
            })
            .await?
        };
        let keyframe = if kept_whole { None } else { self.export_bundle(link, true).await? };
        Ok(Resynced { put: again, keyframe })
    }

    /// Notes that bundles are to be put out again. Whether all of them are kept.
    fn want_out_again(
        &self,
        way: &ByHand,
        state: &mut State,
        missing: &[RangeInclusive<u64>],
    ) -> Result<bool, Error> {
        let spool = self.spool_of(way, "kept")?;
        let kept = spool.list().map_err(|error| Fault::file(spool.directory(), &error))?;
        let kept: BTreeSet<u64> = kept.into_iter().map(|found| found.place.seq).collect();
        let wanted = |seq: &&u64| missing.iter().any(|range| range.contains(*seq));
        let there: BTreeSet<u64> = kept.iter().filter(wanted).copied().collect();
        let count = missing.iter().map(|range| range.end().saturating_sub(*range.start()).saturating_add(1));
        let whole = count.fold(0_u64, u64::saturating_add) == there.len() as u64;
        state.to_place.extend(there);
        Ok(whole)
    }

    /// Takes what the other side says to have, and to be missing.
    pub(super) fn take_acks(&self, way: &ByHand, state: &mut State, header: &Header) -> Result<(), Error> {
        let Some(out) = &way.out else { return Ok(()) };
        let link = keys::public(&out.link)?.link;
        let next = state.sending(link).next().0;
        for ack in
            header.fields.acks.iter().filter(|ack| ack.place.link == link && ack.place.epoch == next.epoch)
        {
            // What was never made cannot have come.
            if ack.place.seq >= next.seq {
                tracing::warn!(link = way.name, ack = %ack.place, "a bundle is acknowledged that was never made");
                continue;
            }
            let below = ack.missing.iter().map(|range| range.start().saturating_sub(1)).min();
            state.acknowledged = state.acknowledged.max(below.unwrap_or(u64::MAX).min(ack.place.seq));
            if !ack.missing.is_empty() && !self.want_out_again(way, state, &ack.missing)? {
                state.keyframe_due = true;
            }
        }
        Ok(())
    }

    /// All links by hand, and how far they have come.
    ///
    /// # Errors
    /// [`Fault`] and the store's.
    pub fn links_by_hand(&self) -> Result<Vec<Value>, Error> {
        let mut links = Vec::new();
        for way in self.border()?.by_hand() {
            let state = self.state_of(&way)?;
            let made = state.out.as_ref().map(|out| out.next().0.seq - 1);
            let into = state.into.as_ref().map(|into| {
                let missing: Vec<_> =
                    into.missing().iter().map(|range| (*range.start(), *range.end())).collect();
                json!({
                    "imported": into.last(),
                    "missing": missing,
                    "frozen": into.frozen().map(ToString::to_string),
                    "ticket": into.ticket(Vec::new()).to_string(),
                })
            });
            links.push(json!({
                "link": way.name,
                "peer": way.peer,
                "out": made.map(|made| json!({ "made": made, "acknowledged": state.acknowledged })),
                "in": into,
            }));
        }
        Ok(links)
    }
}
