//! What local users say: built and authorized on top of the room as it is, recommended where the room asks for that, added.

use crate::{
    Error,
    batch::{Batch, Draft},
    rooms::Rooms,
};
use postern_graph::RoomNum;
use ruma::{OwnedEventId, UserId};

/// What is to become of what somebody wants to say.
pub(crate) enum Wish {
    /// It is to be said.
    Say(Draft),
    /// It has been said already, or nothing needs to be.
    Nothing(Option<OwnedEventId>),
}

impl Rooms {
    /// Says in a room what a local user wishes, once its policy server, if it has one, recommends it. What is wished is
    /// asked for while the room's lane is held, which it is not while the policy server is asked.
    ///
    /// # Errors
    /// [`Error::Forbidden`] if the room's rules or its policy server say no, and what `wish` says.
    pub(crate) async fn say(
        &self,
        room: RoomNum,
        sender: &UserId,
        wish: impl Fn(&mut Batch<'_>) -> Result<Wish, Error> + Send + Sync,
    ) -> Result<Option<OwnedEventId>, Error> {
        let lane = self.lane(room).await;
        // As a policy server itself, this one has signed what is drafted.
        let policy = self.policy_server(room)?.filter(|policy| !self.is_policy_server(policy));
        let mut batch = self.batch(room)?;
        let draft = match wish(&mut batch)? {
            Wish::Say(draft) => draft,
            Wish::Nothing(event) => {
                drop((batch, lane));
                // Whoever repeats a request may not be told of what can still be lost.
                self.durable(self.graph.applied()).await?;
                return Ok(event);
            }
        };
        let (id, mut json) = batch.draft(sender, &draft)?;
        let (mut batch, lane) = match policy {
            None => (batch, lane),
            Some(policy) => {
                let event = batch.met(id.clone(), json.clone())?;
                batch.authorize(&event)?;
                let version = batch.version.clone();
                drop((batch, lane));
                json = self.recommended(&policy, &version, &json).await?;
                let lane = self.lane(room).await;
                if let Some(event) = self.repeated(sender, &draft)? {
                    drop(lane);
                    self.durable(self.graph.applied()).await?;
                    return Ok(Some(event));
                }
                (self.batch(room)?, lane)
            }
        };
        batch.add_sealed(sender, &draft, id.clone(), json)?;
        let seq = batch.commit()?;
        drop(lane);
        self.durable(seq).await?;
        Ok(Some(id))
    }
}
