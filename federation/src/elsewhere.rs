//! What local users ask of other servers.

use crate::Federation;
use postern_graph::RoomNum;
use postern_web::Elsewhere;
use ruma::UserId;

impl Elsewhere for Federation {
    fn typing(&self, room: RoomNum, user: &UserId, typing: bool) {
        self.0.outbox.typing(room, user, typing);
    }
}
