//! stand-in
use crate::{Error, Rooms};
impl Rooms {
    /// stand-in
    pub fn server_allowed(&self, _: postern_graph::RoomNum, _: &ruma::ServerName) -> Result<bool, Error> {
        Ok(true)
    }
}
