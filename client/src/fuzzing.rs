//! What must hold of any bytes at all. The fuzz targets call this, and tests with their seeds (see `fuzz/`).
#![allow(clippy::unwrap_used, clippy::panic)]

#[cfg(test)]
#[path = "../../fuzz/seeds.rs"]
mod seeds;

use crate::{
    filter::{MOST_EVENTS, SyncFilter},
    sync::{Position, SyncToken},
};
use ruma::{room_id, user_id};

/// A filter is usable or refused, and its pages are bounded.
pub fn filter(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(filter) = SyncFilter::parse(text) else { return };
    let room = &filter.room;
    let _ = room.wants_room(room_id!("!room:example.org"));
    let parts = [&filter.account_data, &filter.presence, &room.account_data, &room.ephemeral, &room.state];
    for part in parts.into_iter().chain([&room.timeline]) {
        assert!(part.page(10) <= MOST_EVENTS);
        let _ = part.wants_room(room_id!("!room:example.org"));
        let _ = part.wants_sender(user_id!("@user:example.org"));
        let _ = part.wants_type("m.room.message");
        let _ = part.wants_type("");
    }
}

/// Where a client stands is read back as it was written, or refused.
pub fn sync_token(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(token) = text.parse::<SyncToken>() {
        assert_eq!(token.to_string().parse::<SyncToken>().unwrap(), token);
    }
    if let Ok(position) = text.parse::<Position>() {
        assert_eq!(position.to_string().parse::<Position>().unwrap(), position);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_usable_or_refused() {
        seeds::near("filter", filter);
    }

    #[test]
    fn where_a_client_stands_is_read_back_or_refused() {
        seeds::near("tokens", sync_token);
    }
}
