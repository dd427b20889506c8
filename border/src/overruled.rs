//! Where the rules of a room overrule the border: an event that was not let in is state of its room all the same, since whatever
//! follows on it carries it into the room's state (specification: soft failure, state resolution). All servers agree on that, so
//! it cannot be undone here; but people have to hear of it, and the peer may be told from then on that it is none.

use crate::{Border, settings::WhenOverruled, standing::Standing};
use postern_rooms::{Event, Rooms};

impl Border {
    /// A soft-failed event is state: raises the alarm if it is one that is not let in.
    pub(crate) fn look_at_overruling(&self, standing: &Standing, rooms: &Rooms, event: &Event) {
        let (sender, room) = (event.sender(), &event.room_id);
        let server = sender.server_name();
        if server == self.0.server {
            return;
        }
        let (why, is_certain) = match self.kept_out(standing, rooms, event) {
            Ok(Some(why)) => (why, true),
            // It failed by the rules of the room alone, or would be let in by now.
            Ok(None) => return,
            Err(error) => (format!("this cannot be decided now: {error}"), false),
        };
        metrics::counter!("postern_border_alarms", "what" => "quarantined_state").increment(1);
        tracing::error!(
            target: "postern::border", event = %event.id, %room, %sender, kind = %event.kind(), why,
            "a state event that was not let in counts in its room",
        );
        self.refuse("quarantined_state", sender.as_str(), event.id.as_str(), &why);
        let is_to_go = is_certain && standing.when_overruled == WhenOverruled::RemovePeer;
        if is_to_go && standing.peer(server).is_known {
            self.0.to_remove.lock().insert(server.to_owned());
            self.0.removing.notify_one();
        }
    }

    /// Removes the peers that are to be removed.
    pub(crate) async fn remove_overruling(&self) {
        let servers = std::mem::take(&mut *self.0.to_remove.lock());
        for server in servers {
            match self.remove_peer(&server).await {
                Ok(()) => {
                    let why = "a state event of it that was not let in counts in its room";
                    tracing::error!(target: "postern::border", %server, why, "a peer is removed");
                    self.refuse(
                        "quarantined_state",
                        server.as_str(),
                        "",
                        &format!("the peer is removed: {why}"),
                    );
                }
                Err(error) => {
                    tracing::error!(target: "postern::border", %server, %error, "a peer cannot be removed");
                }
            }
        }
    }
}
