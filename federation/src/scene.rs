//! What tests of this crate share: a database, and users of servers that exist in the test only.
#![allow(clippy::unwrap_used)]

use postern_graph::{Graph, Settings};
use postern_rooms::{CreateRoom, Draft, MembershipKind, Preset, Rooms, Verified};
use postern_users::{Cost, Users};
use ruma::{
    CanonicalJsonObject, OwnedEventId, OwnedRoomId, RoomId, ServerName, UserId,
    serde::Base64,
    server_name,
    signatures::{Ed25519KeyPair, PublicKeyMap, hash_and_sign_event},
    user_id,
};
use serde_json::{json, value::to_raw_value};
use std::{collections::BTreeMap, path::Path, sync::Arc};

/// This server's parts.
pub(crate) struct Parts {
    pub(crate) graph: Arc<Graph>,
    pub(crate) rooms: Arc<Rooms>,
    pub(crate) users: Arc<Users>,
}

impl Parts {
    pub(crate) fn open(dir: &Path) -> Self {
        let graph = Graph::open(&Settings { path: dir.join("db"), block_cache: 8 << 20 }).unwrap();
        let rooms = Arc::new(Rooms::new(graph.clone(), server_name!("h"), "11").unwrap());
        let cost = Cost { memory_kib: 8, iterations: 1, parallelism: 1 };
        let settings = postern_users::Settings { password_cost: cost, access_token_ms: 1 };
        let users = Arc::new(Users::new(graph.clone(), server_name!("h"), settings));
        Self { graph, rooms, users }
    }

    /// A public room of alice.
    pub(crate) async fn room(&self) -> OwnedRoomId {
        let request = CreateRoom { preset: Preset::PublicChat, ..CreateRoom::default() };
        self.rooms.create(alice(), request).await.unwrap()
    }

    /// What alice says.
    pub(crate) async fn say(&self, room: &RoomId, body: &str) -> OwnedEventId {
        let content = to_raw_value(&json!({ "msgtype": "m.text", "body": body })).unwrap();
        self.rooms.send(alice(), room, Draft::message("m.room.message", content)).await.unwrap()
    }

    /// A user of another server joins, which this server learns from theirs.
    pub(crate) async fn join(&self, room: &RoomId, user: &UserId) {
        let pdu = self.membership(room, user, MembershipKind::Join);
        self.rooms.receive(room, pdu, &[]).await.unwrap();
    }

    /// The event by which a user of another server joins or leaves.
    pub(crate) fn membership(&self, room: &RoomId, user: &UserId, to: MembershipKind) -> Verified {
        let (_, pdu) = self.rooms.template(room, user, to, None).unwrap();
        self.signed(room, user.server_name(), pdu)
    }

    /// An event signed by a server.
    fn signed(&self, room: &RoomId, server: &ServerName, mut pdu: CanonicalJsonObject) -> Verified {
        let pair = Ed25519KeyPair::from_der(&Ed25519KeyPair::generate(), "1".to_owned()).unwrap();
        let key = BTreeMap::from([("ed25519:1".to_owned(), Base64::new(pair.public_key().to_vec()))]);
        let keys = PublicKeyMap::from([(server.to_string(), key)]);
        let version = self.rooms.version_of(self.rooms.known_room(room).unwrap()).unwrap();
        hash_and_sign_event(server.as_str(), &pair, &mut pdu, &version.rules.redaction).unwrap();
        Verified::check(&version, pdu, &keys).unwrap()
    }
}

pub(crate) fn alice() -> &'static UserId {
    user_id!("@alice:h")
}
pub(crate) fn bob() -> &'static UserId {
    user_id!("@bob:b")
}
pub(crate) fn carl() -> &'static UserId {
    user_id!("@carl:c")
}
