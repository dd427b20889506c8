//! Messages to devices that other servers sent.

use super::Doctor;
use crate::schema::{SeenMessageOrder, SeenMessages};

impl Doctor {
    /// Their ids and the order in which these are forgotten are each other's inverse.
    pub(super) fn seen_messages(&mut self) {
        self.each::<SeenMessages>(|doctor, (server, id), number| {
            if doctor.graph.get::<SeenMessageOrder>(&(server.clone(), number))?.as_ref() != Some(&id) {
                doctor.say(format!("Message {id:?} of server {server} is not in the order of these."));
            }
            Ok(())
        });
        self.each::<SeenMessageOrder>(|doctor, (server, number), id| {
            if doctor.graph.get::<SeenMessages>(&(server.clone(), id.clone()))? != Some(number) {
                doctor.say(format!(
                    "Message {id:?} of server {server} is number {number} of its server, but not known as that."
                ));
            }
            Ok(())
        });
    }
}
