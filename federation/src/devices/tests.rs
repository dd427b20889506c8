//! Devices, keys and messages to devices between this server and others, without a network: what others ask and send
//! is given to the handlers, what they are sent is read from the outbox.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::{
    device_updates,
    origin::Body,
    user_keys::{self, query_keys},
};
use postern_config::Config;
use postern_graph::{
    EventNum, Graph, NameKind, Pos, RoomNum, Seq,
    codec::Raw,
    event::{Membership, MembershipKind},
    log::LogEntry,
    schema::{Members, Memberships, OutboxEdus, OutboxLatest, RemoteToDevice, RoomServers},
};
use postern_media::Media;
use postern_rooms::{CreateRoom, Preset, Rooms};
use postern_users::{Cost, KeyUpload, NewAccount, ToDeviceTxn, Users};
use ruma::{server_name, user_id};
use serde_json::value::to_raw_value;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

struct World {
    federation: Federation,
    room: RoomNum,
    _dir: tempfile::TempDir,
}

const PHONE: &str = "JLAFKJWSCS";

fn alice() -> OwnedUserId {
    user_id!("@alice:h").to_owned()
}

fn bob() -> OwnedUserId {
    user_id!("@bob:other").to_owned()
}

fn keys(user: &UserId, device: &str) -> Map<String, Value> {
    serde_json::from_value(json!({
        "user_id": user,
        "device_id": device,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": {
            format!("curve25519:{device}"): "3C5BFWi2Y8MaVvjM8M22DBmh24PmgR0nPvJOIArzgyI",
            format!("ed25519:{device}"): "lEuiRJBit0IG6nUf5pUzWTUEsRVVe/HJkoKuEww9ULI",
        },
        "signatures": { user.as_str(): { format!("ed25519:{device}"): "dSO80A01XiigH3uBiDVx" } },
    }))
    .unwrap()
}

impl World {
    /// A server with Alice, her phone, and a room of hers.
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let name = server_name!("h");
        let settings = postern_graph::Settings { path: dir.path().join("db"), block_cache: 8 << 20 };
        let graph = Graph::open(&settings).unwrap();
        let rooms = Arc::new(Rooms::new(graph.clone(), name, "11").unwrap());
        let cost = Cost { memory_kib: 8, iterations: 1, parallelism: 1 };
        let settings = postern_users::Settings { password_cost: cost, access_token_ms: 60_000 };
        let users = Arc::new(Users::new(graph.clone(), name, settings));
        let settings = postern_media::Settings {
            max_upload_bytes: 1,
            max_image_pixels: 1,
            dynamic_thumbnails: false,
            pending_upload_lifetime_ms: 1,
            max_pending_uploads: 1,
        };
        let media = Arc::new(Media::new(graph.clone(), name.as_str(), settings));
        let config = Arc::new(Config::with([("server.name", "h")]).unwrap());
        let stopping = CancellationToken::new();
        let federation =
            Federation::new(config, graph, rooms, users, media, Arc::default(), stopping).unwrap();
        let new = NewAccount { localpart: Some("alice".to_owned()), ..NewAccount::default() };
        federation.0.users.create_account(new).await.unwrap();
        let request = CreateRoom { preset: Preset::PublicChat, ..CreateRoom::default() };
        let room = federation.0.rooms.create(&alice(), request).await.unwrap();
        let room = federation.0.rooms.known_room(&room).unwrap();
        let world = Self { federation, room, _dir: dir };
        world.device(PHONE, keys(&alice(), PHONE)).await;
        world
    }

    fn graph(&self) -> &Graph {
        &self.federation.0.graph
    }

    fn number(&self, user: &UserId) -> UserNum {
        self.federation.0.users.number(user).unwrap().unwrap()
    }

    async fn device(&self, device: &str, keys: Map<String, Value>) {
        let users = &self.federation.0.users;
        users.log_in(&alice(), Some(device), Some("phone"), false).await.unwrap();
        let upload = KeyUpload { device_keys: Some(keys), ..KeyUpload::default() };
        users.upload_keys(&alice(), self.number(&alice()), device, upload).await.unwrap();
    }

    /// Bob, of another server, joins Alice's room or leaves it.
    async fn bob(&self, kind: MembershipKind) {
        let mut commit = self.graph().begin();
        let user = UserNum(self.graph().intern(NameKind::User, bob().as_str(), &mut commit).unwrap());
        let since = Pos::at(commit.take_seq());
        if let Some(before) = self.federation.0.rooms.member(self.room, user).unwrap() {
            commit.delete::<Members>(&(self.room, before.kind as u8, user));
        }
        let membership = Membership { kind, event: EventNum(1), since, sender: user };
        commit.put::<Memberships>(&(user, self.room), &membership);
        commit.put::<Members>(&(self.room, kind as u8, user), &EventNum(1));
        let server = (self.room, "other".to_owned());
        match kind {
            MembershipKind::Join => commit.put::<RoomServers>(&server, &(1, since)),
            _ => commit.delete::<RoomServers>(&server),
        }
        commit.log(LogEntry::Membership { user, room: self.room });
        self.graph().commit_durably(commit).await.unwrap();
    }

    async fn asks_devices(&self, origin: &str, user: &str) -> Answer {
        let origin = Origin(ServerName::parse(origin).unwrap());
        user_devices(State(self.federation.clone()), origin, Params(user.to_owned())).await
    }

    async fn asks_keys(&self, origin: &str, user: &UserId) -> Value {
        let origin = Origin(ServerName::parse(origin).unwrap());
        let body = serde_json::from_value(json!({ "device_keys": { user.as_str(): [] } })).unwrap();
        user_keys::query(State(self.federation.clone()), origin, Body(body)).await.unwrap().0
    }

    async fn receives(&self, origin: &str, edu_type: &str, content: Value) {
        let origin = ServerName::parse(origin).unwrap();
        receive(&self.federation, &origin, edu_type, content).await.unwrap();
    }

    /// What is to be sent, by server, and forgotten by that.
    fn sent(&self) -> Vec<(String, Value)> {
        let mut commit = self.graph().begin();
        let mut sent = Vec::new();
        for entry in self.graph().scan::<OutboxEdus, _>(&()).iter() {
            let (key, (kind, Raw(edu))) = entry.unwrap();
            let server = self.graph().name(NameKind::Server, key.0.0).unwrap();
            // One that is not the latest of its kind is outdated.
            if self.graph().get::<OutboxLatest>(&(key.0, kind)).unwrap() == Some((key.1, key.2)) {
                sent.push((server.to_string(), serde_json::from_slice(&edu).unwrap()));
            }
            commit.delete::<OutboxEdus>(&key);
        }
        self.graph().commit(commit).unwrap();
        sent
    }

    fn tell(&self) -> Vec<Value> {
        device_updates::tell(&self.federation, self.number(&alice())).unwrap();
        let mut sent: Vec<Value> =
            self.sent().into_iter().map(|(_, mut edu)| edu["content"].take()).collect();
        sent.sort_by_key(|content| content["stream_id"].as_u64());
        sent
    }

    fn inbox(&self) -> Vec<Value> {
        let users = &self.federation.0.users;
        let (user, now) = (self.number(&alice()), self.graph().durable());
        let (messages, _) = users.to_device_since(user, PHONE, Seq::ZERO, now, 100).unwrap();
        messages.iter().map(|message| serde_json::from_str(message.get()).unwrap()).collect()
    }

    fn followed(&self) -> Option<bool> {
        let followed = self.federation.0.users.followed(self.number(&bob())).unwrap();
        followed.map(|followed| followed.fresh)
    }

    /// Bob's devices are followed as of update 5.
    fn follow_bob(&self) {
        let users = &self.federation.0.users;
        let number = self.number(&bob());
        let devices = BTreeMap::from([("BOB".to_owned(), Value::Object(keys(&bob(), "BOB")))]);
        let keys = RemoteKeys::checked(&bob(), devices, None, None);
        let last = users.last_device_change(number).unwrap();
        assert!(users.follow_keys(number, &keys, Some(5), last).unwrap().is_some());
    }
}

fn update(device: &str, stream_id: u64, prev_id: &[u64]) -> Value {
    json!({
        "user_id": "@bob:other", "device_id": device, "stream_id": stream_id, "prev_id": prev_id,
        "device_display_name": "Mobile", "keys": keys(&bob(), device),
    })
}

#[tokio::test]
async fn attack_36_devices_are_only_told_to_servers_that_share_a_room_with_their_user() {
    let world = World::new().await;
    let stranger = world.asks_devices("other", "@alice:h").await.unwrap_err();
    let nobody = world.asks_devices("other", "@nobody:h").await.unwrap_err();
    assert_eq!((stranger.errcode(), stranger.message()), (nobody.errcode(), nobody.message()));
    assert_eq!(stranger.errcode(), "M_FORBIDDEN");
    assert_eq!(world.asks_keys("other", &bob()).await["device_keys"], json!({}), "of users here only");
    world.bob(MembershipKind::Join).await;
    let answer = world.asks_devices("other", "@alice:h").await.unwrap().0;
    let told = json!({ "device_id": PHONE, "keys": keys(&alice(), PHONE) });
    assert_eq!(answer, json!({ "user_id": "@alice:h", "stream_id": 0, "devices": [told] }));
    let answer = world.asks_keys("other", &alice()).await;
    assert_eq!(answer["device_keys"], json!({ "@alice:h": { PHONE: keys(&alice(), PHONE) } }));
    assert!(world.asks_devices("third", "@alice:h").await.is_err());
    world.bob(MembershipKind::Leave).await;
    assert!(world.asks_devices("other", "@alice:h").await.is_err());
}

#[tokio::test]
async fn attack_61_invalid_keys_of_one_device_do_not_break_answers_about_others() {
    let world = World::new().await;
    world.bob(MembershipKind::Join).await;
    let mut invalid = keys(&alice(), "INVALID");
    invalid.insert("extra".to_owned(), json!(1.5));
    world.device("INVALID", invalid).await;
    let answer = world.asks_keys("other", &alice()).await;
    assert_eq!(answer["device_keys"]["@alice:h"], json!({ PHONE: keys(&alice(), PHONE) }));
    let sent = world.tell();
    assert!(sent.iter().any(|update| update["device_id"] == PHONE && update.get("keys").is_some()));
    assert!(sent.iter().any(|update| update["device_id"] == "INVALID" && update.get("keys").is_none()));
}

#[tokio::test]
async fn a_new_server_is_told_of_all_devices_and_then_of_what_changes_in_sequence() {
    let world = World::new().await;
    assert!(world.tell().is_empty());
    world.bob(MembershipKind::Join).await;
    world.device("SECOND", keys(&alice(), "SECOND")).await;
    let all = world.tell();
    let ids = |sent: &[Value]| -> Vec<Value> {
        sent.iter().map(|told| json!([told["device_id"], told["stream_id"], told["prev_id"]])).collect()
    };
    assert_eq!(ids(&all), [json!([PHONE, 1, []]), json!(["SECOND", 2, [1]])]);
    assert_eq!(all[0]["keys"], Value::Object(keys(&alice(), PHONE)));
    assert_eq!(all[0].get("device_display_name"), None);
    assert!(world.tell().is_empty());
    let users = &world.federation.0.users;
    users.remove_devices(world.number(&alice()), &["SECOND".to_owned()]).await.unwrap();
    world.device("THIRD", keys(&alice(), "THIRD")).await;
    let changed = world.tell();
    assert_eq!(ids(&changed), [json!(["THIRD", 3, [2]]), json!(["SECOND", 4, [3]])]);
    assert_eq!(changed[1]["deleted"], true);
    assert_eq!(world.asks_devices("other", "@alice:h").await.unwrap().0["stream_id"], 4);
    world.bob(MembershipKind::Leave).await;
    assert!(world.tell().is_empty());
    world.bob(MembershipKind::Join).await;
    assert_eq!(ids(&world.tell()), [json!([PHONE, 5, []]), json!(["THIRD", 6, [5]])]);
}

#[tokio::test]
async fn updates_in_sequence_are_applied_and_a_gap_makes_the_copy_doubtful() {
    let world = World::new().await;
    world.bob(MembershipKind::Join).await;
    let number = world.number(&bob());
    world.receives("other", "m.device_list_update", update("BOB", 1, &[])).await;
    assert_eq!(world.followed(), None, "nobody asked for his devices yet");
    world.follow_bob();
    let start = world.graph().durable();
    world.receives("other", "m.device_list_update", update("NEW", 6, &[5])).await;
    let changed = world.federation.0.users.device_changes_between(start, world.graph().durable()).unwrap();
    assert_eq!(changed, [number]);
    let query = json!({ "device_keys": { "@bob:other": [], "@alice:h": [], "@carl:third": [] } });
    let answer = query_keys(&world.federation, server_name!("other"), query).await.unwrap();
    let mut new = keys(&bob(), "NEW");
    new.insert("unsigned".to_owned(), json!({ "device_display_name": "Mobile" }));
    assert_eq!(answer["device_keys"], json!({ "@bob:other": { "BOB": keys(&bob(), "BOB"), "NEW": new } }));
    let mut deleted = update("BOB", 7, &[6]);
    deleted["deleted"] = true.into();
    world.receives("other", "m.device_list_update", deleted).await;
    world.receives("other", "m.device_list_update", update("BOB", 6, &[5])).await;
    let query = json!({ "device_keys": { "@bob:other": [] } });
    let answer = query_keys(&world.federation, server_name!("other"), query.clone()).await.unwrap();
    assert_eq!(answer["device_keys"], json!({ "@bob:other": { "NEW": new } }));
    world.receives("other", "m.device_list_update", update("BOB", 9, &[8])).await;
    assert_eq!(world.followed(), Some(false));
    let error = query_keys(&world.federation, server_name!("other"), query).await.unwrap_err();
    assert_eq!(error.status(), axum::http::StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn a_server_speaks_for_its_own_users_only() {
    let world = World::new().await;
    world.bob(MembershipKind::Join).await;
    world.follow_bob();
    world.receives("third", "m.device_list_update", update("NEW", 6, &[5])).await;
    world.receives("third", "m.signing_key_update", json!({ "user_id": "@bob:other" })).await;
    let message = json!({
        "sender": "@bob:other", "type": "m.room_key_request", "message_id": "hiezohf6Hoo7kaev",
        "messages": { "@alice:h": { PHONE: { "n": 1 } } },
    });
    world.receives("third", "m.direct_to_device", message).await;
    let followed = world.federation.0.users.followed(world.number(&bob())).unwrap().unwrap();
    assert_eq!((followed.fresh, followed.updates), (true, vec![5]));
    assert!(world.inbox().is_empty());
    // What cannot be read breaks nothing.
    for edu_type in ["m.device_list_update", "m.signing_key_update", "m.direct_to_device", "m.other"] {
        world.receives("other", edu_type, json!({ "user_id": 1, "sender": null })).await;
    }
}

#[tokio::test]
async fn a_message_of_another_server_is_delivered_once() {
    let world = World::new().await;
    let message = |id: &str, device: &str, n: u64| {
        json!({
            "sender": "@bob:other", "type": "m.room_key_request", "message_id": id,
            "messages": {
                "@alice:h": { device: { "n": n } },
                "@nobody:h": { "*": {} }, "@bob:other": { "*": {} }, "no user": { "*": {} },
            },
        })
    };
    for _ in 0..2 {
        world.receives("other", "m.direct_to_device", message("hiezohf6Hoo7kaev", PHONE, 1)).await;
        world.receives("other", "m.direct_to_device", message("second", "*", 2)).await;
    }
    let sent = |n| json!({ "sender": "@bob:other", "type": "m.room_key_request", "content": { "n": n } });
    assert_eq!(world.inbox(), [sent(1), sent(2)]);
}

#[tokio::test]
async fn the_follower_tells_servers_hands_messages_over_and_stops_following() {
    let world = World::new().await;
    world.bob(MembershipKind::Join).await;
    let following = tokio::spawn(device_updates::follow(world.federation.clone()));
    let until = async |done: &dyn Fn() -> bool| {
        for _ in 0..500 {
            if done() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("nothing happened");
    };
    let cursor = || world.graph().scan::<postern_graph::schema::Cursors, _>(&()).first().unwrap();
    until(&|| cursor().is_some()).await;
    world.device("SECOND", keys(&alice(), "SECOND")).await;
    until(&|| world.graph().scan::<OutboxEdus, _>(&()).iter().count() == 2).await;
    world.sent();
    let messages = BTreeMap::from([(
        bob(),
        BTreeMap::from([("*".to_owned(), to_raw_value(&json!({ "n": 1 })).unwrap())]),
    )]);
    let number = world.number(&alice());
    for _ in 0..2 {
        let txn = ToDeviceTxn { user: number, device: PHONE, id: "txn" };
        let users = &world.federation.0.users;
        users.send_to_device(&alice(), "my.type", &messages, Some(txn)).await.unwrap();
    }
    until(&|| world.graph().scan::<OutboxEdus, _>(&()).iter().count() == 1).await;
    let (server, mut edu) = world.sent().remove(0);
    assert_eq!((server.as_str(), &edu["edu_type"]), ("other", &json!("m.direct_to_device")));
    assert_eq!(edu["content"]["message_id"].take().as_str().unwrap().len(), 32);
    assert_eq!(
        edu["content"],
        json!({
            "sender": "@alice:h", "type": "my.type", "message_id": null,
            "messages": { "@bob:other": { "*": { "n": 1 } } },
        })
    );
    assert_eq!(world.graph().scan::<RemoteToDevice, _>(&()).iter().count(), 0);
    world.follow_bob();
    world.bob(MembershipKind::Leave).await;
    until(&|| world.followed().is_none()).await;
    world.federation.0.stopping.cancel();
    following.await.unwrap();
}
