//! Asking the policy servers of rooms (specification: policy servers).

use crate::{PeerError, Peers};
use futures::FutureExt;
use postern_rooms::{PolicyServers, Recommendation};
use ruma::{CanonicalJsonObject, ServerName};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

/// How a policy server is asked. The rooms hold it, and the peers hold the rooms: it must not keep these alive.
#[derive(Debug)]
pub(crate) struct Asker(Weak<Peers>);

impl Asker {
    pub(crate) fn new(peers: &Arc<Peers>) -> Self {
        Self(Arc::downgrade(peers))
    }

    async fn ask(&self, server: &ServerName, pdu: &CanonicalJsonObject) -> Result<String, String> {
        #[derive(Deserialize)]
        struct OfServer {
            #[serde(rename = "ed25519:policy_server")]
            signature: String,
        }
        let peers = self.0.upgrade().ok_or_else(|| "this server stops".to_owned())?;
        let answer: BTreeMap<String, OfServer> =
            peers.post(server, "/_matrix/policy/v1/sign", pdu).await.map_err(|error| match error {
                PeerError::Refused { message, .. } if !message.is_empty() => message,
                error => format!("the room's policy server cannot be asked: {error}"),
            })?;
        let signed = answer.into_iter().find(|(name, _)| name == server.as_str());
        signed
            .map(|(_, signed)| signed.signature)
            .ok_or_else(|| "the room's policy server does not recommend the event".to_owned())
    }
}

impl PolicyServers for Asker {
    fn recommend<'a>(&'a self, server: &'a ServerName, pdu: &'a CanonicalJsonObject) -> Recommendation<'a> {
        self.ask(server, pdu).boxed()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::scene::{Parts, alice, bob};
    use parking_lot::Mutex;
    use postern_rooms::Draft;
    use ruma::{
        RoomId,
        serde::{Base64, base64::Standard},
        server_name,
        signatures::{Ed25519KeyPair, sign_json},
    };
    use serde_json::{Value, json};
    use std::time::Duration;
    use tokio::sync::Notify;

    /// A policy server that takes its time with tombstones.
    #[derive(Debug)]
    struct Slow {
        pair: Ed25519KeyPair,
        asked: Mutex<Vec<String>>,
        /// A tombstone has come.
        came: Notify,
        /// It may be signed.
        go_on: Notify,
    }

    impl PolicyServers for Slow {
        fn recommend<'a>(
            &'a self,
            server: &'a ServerName,
            pdu: &'a CanonicalJsonObject,
        ) -> Recommendation<'a> {
            async move {
                let kind = pdu["type"].as_str().unwrap().to_owned();
                self.asked.lock().push(kind.clone());
                if kind == "m.room.tombstone" {
                    self.came.notify_one();
                    self.go_on.notified().await;
                }
                let rules = ruma::RoomVersionId::V11.rules().unwrap();
                let mut signed = ruma::canonical_json::redact(pdu.clone(), &rules.redaction, None).unwrap();
                signed.remove("signatures");
                signed.remove("unsigned");
                sign_json(server.as_str(), &self.pair, &mut signed).unwrap();
                let signed: Value = serde_json::to_value(signed).unwrap();
                let key = format!("ed25519:{}", self.pair.version());
                Ok(signed["signatures"][server.as_str()][key].as_str().unwrap().to_owned())
            }
            .boxed()
        }
    }

    async fn set_levels(here: &Parts, room: &RoomId, level: i64) {
        let content = json!({ "users": { alice(): 100 }, "events": { "org.example.x": level } });
        let draft = Draft::state("m.room.power_levels", "", &content).unwrap();
        here.rooms.send(alice(), room, draft).await.unwrap();
    }

    #[tokio::test]
    async fn a_room_that_is_upgraded_goes_on_while_its_policy_server_is_asked_and_what_changes_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let here = Arc::new(Parts::open(dir.path()));
        let room = here.room().await;
        here.join(&room, bob()).await;
        let pair = Ed25519KeyPair::from_der(&Ed25519KeyPair::generate(), "policy_server".to_owned()).unwrap();
        let key = Base64::<Standard>::new(pair.public_key().to_vec());
        let slow =
            Arc::new(Slow { pair, asked: Mutex::default(), came: Notify::new(), go_on: Notify::new() });
        here.rooms.reach_policy_servers(slow.clone());
        let policy = json!({ "via": server_name!("b"), "public_keys": { "ed25519": key } });
        let draft = Draft::state("m.room.policy", "", &policy).unwrap();
        here.rooms.send(alice(), &room, draft).await.unwrap();
        let upgrading = {
            let (here, room) = (here.clone(), room.clone());
            tokio::spawn(async move { here.rooms.upgrade(alice(), &room, "11", Vec::new()).await })
        };
        slow.came.notified().await;
        // Nobody waits for the policy server who does not ask it.
        let said = tokio::time::timeout(Duration::from_secs(20), async {
            here.say(&room, "meanwhile").await;
            set_levels(&here, &room, 7).await;
        });
        said.await.unwrap();
        slow.go_on.notify_one();
        // It is asked again, for what has the levels of now.
        slow.came.notified().await;
        here.say(&room, "once more").await;
        slow.go_on.notify_one();
        let new = upgrading.await.unwrap().unwrap();

        let number = |room: &RoomId| here.rooms.known_room(room).unwrap();
        let state = |room: &RoomId, kind: &str| -> Value {
            here.rooms.state(number(room), kind, "").unwrap().unwrap().content_as().unwrap()
        };
        assert_eq!(state(&room, "m.room.tombstone")["replacement_room"], new.as_str());
        let closed = state(&room, "m.room.power_levels");
        assert_eq!((&closed["events"]["org.example.x"], &closed["events_default"]), (&json!(7), &json!(50)));
        assert_eq!(state(&new, "m.room.power_levels")["events"]["org.example.x"], 7);
        let asked = slow.asked.lock();
        assert_eq!(asked.iter().filter(|kind| *kind == "m.room.tombstone").count(), 2, "{asked:?}");
    }
}
