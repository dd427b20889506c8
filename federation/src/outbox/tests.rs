//! The outbox over a real graph, with servers that write down what they are sent.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::scene::{Parts, alice, bob, carl};
use http::StatusCode;
use postern_graph::{
    NameKind, ServerNum, UserNum,
    schema::{OutboxEdus, OutboxEvents, OutboxLatest, OutboxTransactions, Relayed},
};
use postern_rooms::{Draft, MembershipChange, MembershipKind, ReceiptKind};
use proptest::{collection, prelude::*};
use ruma::{RoomId, server_name};
use serde_json::{Value, json};
use std::{
    collections::HashSet,
    ops::Deref,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};
use tempfile::TempDir;

/// A transaction as a server got it.
#[derive(Debug, Clone, PartialEq)]
struct Got {
    server: OwnedServerName,
    id: String,
    body: Value,
}

/// Servers far away.
#[derive(Debug, Default)]
struct Far {
    got: Mutex<Vec<Got>>,
    /// Servers that get everything and whose answers are lost.
    mute: Mutex<HashSet<OwnedServerName>>,
    /// Servers to which there is no connection.
    away: Mutex<HashSet<OwnedServerName>>,
    /// Servers that are spoken with at other hours.
    asleep: Mutex<HashSet<OwnedServerName>>,
    /// Servers that refuse every transaction.
    refusing: Mutex<HashSet<OwnedServerName>>,
    under_way: AtomicUsize,
    /// The most transactions that were under way at a time.
    most_under_way: AtomicUsize,
}

impl Carrier for Far {
    fn may_carry(&self, server: &ServerName) -> Result<(), PeerError> {
        match self.asleep.lock().contains(server) {
            true => Err(PeerError::NotNow(server.to_owned())),
            false => Ok(()),
        }
    }

    fn carry<'a>(
        &'a self,
        server: &'a ServerName,
        id: &'a str,
        body: &'a RawValue,
    ) -> BoxFuture<'a, Result<Untaken, PeerError>> {
        async move {
            if self.away.lock().contains(server) {
                return Err(PeerError::Unconnected("connection refused".to_owned()));
            }
            self.most_under_way.fetch_max(1 + self.under_way.fetch_add(1, Relaxed), Relaxed);
            tokio::task::yield_now().await;
            self.under_way.fetch_sub(1, Relaxed);
            let body = serde_json::from_str(body.get()).unwrap();
            self.got.lock().push(Got { server: server.to_owned(), id: id.to_owned(), body });
            if self.mute.lock().contains(server) {
                return Err(PeerError::Unreachable("no answer".to_owned()));
            }
            if self.refusing.lock().contains(server) {
                return Err(PeerError::Refused {
                    status: StatusCode::BAD_REQUEST,
                    errcode: "M_BAD_JSON".to_owned(),
                    message: String::new(),
                });
            }
            Ok(Untaken::new())
        }
        .boxed()
    }
}

impl Far {
    fn got(&self, server: &ServerName) -> Vec<Got> {
        self.got.lock().iter().filter(|got| got.server == server).cloned().collect()
    }

    /// What the messages say that a server got, in order.
    fn texts(&self, server: &ServerName) -> Vec<String> {
        let pdus = self.got(server).into_iter().flat_map(|got| got.body["pdus"].as_array().cloned().unwrap());
        pdus.filter_map(|pdu| pdu["content"]["body"].as_str().map(str::to_owned)).collect()
    }

    fn edus(&self, server: &ServerName, edu_type: &str) -> Vec<Value> {
        let edus = |got: Got| got.body["edus"].as_array().cloned().unwrap_or_default();
        let all = self.got(server).into_iter().flat_map(edus);
        all.filter(|edu| edu["edu_type"] == edu_type).map(|edu| edu["content"].clone()).collect()
    }
}

/// Waits for something to become so.
macro_rules! eventually {
    ($so:expr) => {{
        let begun = Instant::now();
        while !$so {
            assert!(begun.elapsed() < Duration::from_secs(20), "not so: {}", stringify!($so));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }};
}

mod many;

/// A moment in which what is going to happen would have happened.
async fn moment() {
    tokio::time::sleep(Duration::from_millis(150)).await;
}

struct Here {
    parts: Parts,
    outbox: Outbox,
    running: Followers,
}

const SOON: Pace = Pace { first: Duration::from_millis(20), longest: Duration::from_millis(200) };
const LATE: Pace = Pace { first: Duration::from_secs(3600), longest: Duration::from_secs(3600) };

impl Deref for Here {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl Here {
    fn open(dir: &TempDir, far: &Arc<Far>, pace: Pace) -> Self {
        let parts = Parts::open(dir.path());
        let (graph, rooms, users) = (parts.graph.clone(), parts.rooms.clone(), parts.users.clone());
        let outbox = Outbox::new(graph, rooms, users, far.clone(), true, pace);
        let running = outbox.start().unwrap();
        Self { parts, outbox, running }
    }

    async fn close(self) {
        self.running.stop().await;
        assert_eq!(Arc::strong_count(&self.outbox.0), 1, "something still works");
    }

    /// Alice removes or bans somebody.
    async fn put_out(&self, room: &RoomId, user: &UserId, to: MembershipKind) {
        self.rooms.membership(alice(), room, user, MembershipChange::to(to)).await.unwrap();
    }

    async fn tell(&self, server: &ServerName, kind: &str, n: u64) {
        let mut commit = self.graph.begin();
        let told = json!({ "edu_type": "m.direct_to_device", "content": { "n": n } });
        edu(&self.graph, &mut commit, server, kind, &told).unwrap();
        self.graph.commit_durably(commit).await.unwrap();
    }

    fn is_idle(&self) -> bool {
        self.outbox.0.queues.lock().is_empty()
    }

    fn alice(&self) -> UserNum {
        self.rooms.user(alice()).unwrap().unwrap()
    }
}

fn b() -> &'static ServerName {
    server_name!("b")
}
fn c() -> &'static ServerName {
    server_name!("c")
}

fn numbers(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|n| n.to_string()).collect()
}

#[tokio::test]
async fn events_reach_the_servers_of_their_room_once_in_order_and_then_nothing_is_left() {
    let (dir, far) = (tempfile::tempdir().unwrap(), Arc::default());
    let here = Here::open(&dir, &far, SOON);
    let room = here.room().await;
    here.join(&room, bob()).await;
    here.join(&room, carl()).await;
    for n in 0..120 {
        here.say(&room, &n.to_string()).await;
    }
    eventually!(far.texts(b()).len() == 120 && far.texts(c()).len() == 120);
    eventually!(here.is_idle());
    assert_eq!(far.texts(b()), numbers(0, 120));
    assert_eq!(far.texts(c()), numbers(0, 120));
    for got in far.got(b()) {
        assert_eq!(got.body["origin"], "h");
        assert!(got.body["origin_server_ts"].is_u64());
        assert!(got.body["pdus"].as_array().unwrap().len() <= 50);
        assert!(got.body["pdus"][0]["signatures"]["h"].is_object());
    }
    // What users of other servers do is not for this one to send, and a server is not told of what was before it.
    let sent_of = |user: &UserId| {
        let pdus = far.got(c()).into_iter().flat_map(|got| got.body["pdus"].as_array().cloned().unwrap());
        pdus.filter(|pdu| pdu["sender"] == user.as_str()).count()
    };
    assert_eq!((sent_of(alice()), sent_of(bob())), (120, 0));
    assert!(here.graph.scan::<OutboxEvents, _>(&()).first().unwrap().is_none());
    here.close().await;
}

#[tokio::test]
async fn a_server_whose_last_user_is_removed_hears_of_that_and_of_nothing_more() {
    let (dir, far) = (tempfile::tempdir().unwrap(), Arc::default());
    let here = Here::open(&dir, &far, SOON);
    let room = here.room().await;
    here.join(&room, bob()).await;
    here.put_out(&room, bob(), MembershipKind::Ban).await;
    here.say(&room, "among us").await;
    eventually!(!far.got(b()).is_empty() && here.is_idle());
    moment().await;
    let pdus: Vec<Value> =
        far.got(b()).iter().flat_map(|got| got.body["pdus"].as_array().cloned().unwrap()).collect();
    assert_eq!(pdus.len(), 1, "{pdus:#?}");
    assert_eq!(pdus[0]["content"]["membership"], "ban");
    here.close().await;
}

#[tokio::test]
async fn who_was_let_in_here_is_made_known_to_the_others_and_what_others_did_is_not() {
    let (dir, far) = (tempfile::tempdir().unwrap(), Arc::default());
    let here = Here::open(&dir, &far, SOON);
    let room = here.room().await;
    here.join(&room, bob()).await;
    here.rooms.accept(&room, here.membership(&room, carl(), MembershipKind::Join)).await.unwrap();
    eventually!(far.got(b()).len() == 1 && here.is_idle());
    let sent = &far.got(b())[0].body["pdus"];
    assert_eq!((sent.as_array().unwrap().len(), &sent[0]["sender"]), (1, &json!("@carl:c")));
    assert!(sent[0]["signatures"]["c"].is_object());
    assert!(here.graph.scan::<Relayed, _>(&()).first().unwrap().is_none());
    moment().await;
    assert!(far.got(c()).is_empty(), "carl's server knows");
    here.close().await;
}

#[tokio::test]
async fn a_server_that_is_denied_hears_of_that_and_of_nothing_more() {
    let (dir, far) = (tempfile::tempdir().unwrap(), Arc::default());
    let here = Here::open(&dir, &far, SOON);
    let room = here.room().await;
    here.join(&room, bob()).await;
    let acl = Draft::state("m.room.server_acl", "", &json!({ "allow": ["*"], "deny": ["b"] })).unwrap();
    here.rooms.send(alice(), &room, acl).await.unwrap();
    here.say(&room, "among us").await;
    here.put_out(&room, bob(), MembershipKind::Leave).await;
    let types = || -> Vec<Value> {
        let pdus = |got: Got| got.body["pdus"].as_array().cloned().unwrap();
        far.got(b()).into_iter().flat_map(pdus).map(|pdu| pdu["type"].clone()).collect()
    };
    eventually!(types().len() == 2);
    moment().await;
    assert_eq!(types(), ["m.room.server_acl", "m.room.member"]);
    here.close().await;
}

#[tokio::test]
async fn a_transaction_without_an_answer_is_repeated_with_the_same_id_and_content_also_after_a_restart() {
    let (dir, far) = (tempfile::tempdir().unwrap(), Arc::<Far>::default());
    far.mute.lock().insert(b().to_owned());
    let here = Here::open(&dir, &far, SOON);
    let room = here.room().await;
    here.join(&room, bob()).await;
    here.say(&room, "0").await;
    eventually!(far.got(b()).len() >= 3);
    here.say(&room, "1").await;
    here.tell(b(), "one", 1).await;
    here.close().await;

    let here = Here::open(&dir, &far, SOON);
    let before = far.got(b()).len();
    here.say(&room, "2").await;
    eventually!(far.got(b()).len() > before);
    let repeated = far.got(b());
    assert!(repeated.iter().all(|got| *got == repeated[0]), "{repeated:#?}");
    far.mute.lock().clear();
    eventually!(far.texts(b()).last().is_some_and(|text| text == "2"));
    eventually!(here.is_idle());
    let mut texts = far.texts(b());
    texts.dedup();
    assert_eq!(texts, numbers(0, 3));
    assert_eq!(far.edus(b(), "m.direct_to_device"), [json!({ "n": 1 })]);
    here.close().await;
}

#[tokio::test]
async fn what_was_made_for_a_server_that_is_away_is_made_anew_when_it_is_back() {
    let (dir, far) = (tempfile::tempdir().unwrap(), Arc::<Far>::default());
    far.away.lock().insert(b().to_owned());
    let here = Here::open(&dir, &far, SOON);
    let room = here.room().await;
    here.join(&room, bob()).await;
    here.say(&room, "0").await;
    here.tell(b(), "message", 0).await;
    here.tell(b(), "the same", 1_000).await;
    let is_failing = || here.outbox.0.queues.lock().get(b()).is_some_and(|queue| queue.is_failing());
    eventually!(is_failing() && here.graph.scan::<OutboxTransactions, _>(&()).first().unwrap().is_none());
    here.tell(b(), "the same", 1_001).await;
    here.say(&room, "1").await;
    here.close().await;
    let here = Here::open(&dir, &far, SOON);
    far.away.lock().clear();
    eventually!(here.is_idle() && far.texts(b()) == numbers(0, 2));
    let told = far.edus(b(), "m.direct_to_device");
    assert_eq!(told, [json!({ "n": 0 }), json!({ "n": 1_001 })]);
    assert!(here.graph.scan::<OutboxEdus, _>(&()).first().unwrap().is_none());
    assert!(here.graph.scan::<OutboxLatest, _>(&()).first().unwrap().is_none());
    here.close().await;
}

#[tokio::test]
async fn what_a_server_is_due_waits_for_the_hours_at_which_it_is_spoken_with() {
    let (dir, far) = (tempfile::tempdir().unwrap(), Arc::<Far>::default());
    far.asleep.lock().insert(b().to_owned());
    let here = Here::open(&dir, &far, SOON);
    let room = here.room().await;
    here.join(&room, bob()).await;
    here.say(&room, "0").await;
    here.tell(b(), "message", 0).await;
    eventually!(here.outbox.0.queues.lock().get(b()).is_some_and(|queue| queue.is_failing()));
    assert!(here.graph.scan::<OutboxTransactions, _>(&()).first().unwrap().is_none());
    here.close().await;
    assert!(far.got(b()).is_empty());
    far.asleep.lock().clear();
    let here = Here::open(&dir, &far, SOON);
    eventually!(here.is_idle() && far.texts(b()) == numbers(0, 1));
    assert_eq!(far.edus(b(), "m.direct_to_device"), [json!({ "n": 0 })]);
    here.close().await;
}

#[tokio::test]
async fn what_happens_while_nothing_is_sent_is_sent_after_the_start() {
    let (dir, far) = (tempfile::tempdir().unwrap(), Arc::default());
    let here = Here::open(&dir, &far, SOON);
    let room = here.room().await;
    here.join(&room, bob()).await;
    here.outbox.0.stop.cancel();
    moment().await;
    here.say(&room, "0").await;
    here.close().await;
    let here = Here::open(&dir, &far, SOON);
    eventually!(far.texts(b()) == numbers(0, 1));
    here.close().await;
}

#[tokio::test]
async fn of_edus_of_a_kind_the_latest_is_sent_and_of_those_of_their_own_every_one_in_order() {
    let (dir, far) = (tempfile::tempdir().unwrap(), Arc::<Far>::default());
    far.mute.lock().insert(b().to_owned());
    let here = Here::open(&dir, &far, SOON);
    here.tell(b(), "first", 0).await;
    eventually!(!far.got(b()).is_empty());
    for n in 1..=250 {
        here.tell(b(), &format!("message {n}"), n).await;
        here.tell(b(), "the same", 1_000 + n).await;
    }
    far.mute.lock().clear();
    eventually!(here.is_idle() && far.edus(b(), "m.direct_to_device").len() > 250);
    let mut told: Vec<u64> =
        far.edus(b(), "m.direct_to_device").iter().map(|content| content["n"].as_u64().unwrap()).collect();
    told.dedup();
    let (of_kind, messages): (Vec<u64>, Vec<u64>) = told.into_iter().partition(|n| *n > 1_000);
    assert_eq!(messages, (0..=250).collect::<Vec<u64>>());
    assert!(of_kind.len() < 10 && of_kind.last() == Some(&1_250), "{of_kind:?}");
    assert!(far.got(b()).iter().all(|got| got.body["edus"].as_array().unwrap().len() <= 100));
    here.close().await;
}

#[tokio::test]
async fn an_edu_for_many_servers_is_one_thing_that_happens() {
    let (dir, far) = (tempfile::tempdir().unwrap(), Arc::<Far>::default());
    let here = Here::open(&dir, &far, SOON);
    let mut commit = here.graph.begin();
    let told = json!({ "edu_type": "m.device_list_update", "content": {} });
    let before = here.graph.applied();
    edu_for_all(&here.graph, &mut commit, [b(), c()], "devices", &told).unwrap();
    let seq = here.graph.commit_durably(commit).await.unwrap();
    assert_eq!(seq.0, before.0 + 1);
    for server in [b(), c()] {
        eventually!(far.edus(server, "m.device_list_update").len() == 1);
    }
    here.close().await;
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_left_alone_until_it_is_heard_of() {
    let (dir, far) = (tempfile::tempdir().unwrap(), Arc::<Far>::default());
    far.mute.lock().insert(b().to_owned());
    // An eighth of the wait is a quarter of a second.
    let pace = Pace { first: Duration::from_secs(2), longest: Duration::from_secs(3600) };
    let here = Here::open(&dir, &far, pace);
    let room = here.room().await;
    here.join(&room, bob()).await;
    here.join(&room, carl()).await;
    here.say(&room, "0").await;
    eventually!(far.got(b()).len() == 1);
    far.mute.lock().clear();
    here.say(&room, "1").await;
    eventually!(far.texts(c()) == numbers(0, 2));
    moment().await;
    assert_eq!(far.got(b()).len(), 1, "it was tried again too soon");
    here.outbox.heard_from(b());
    eventually!(here.is_idle());
    assert_eq!(far.texts(b()), ["0", "0", "1"]);
    here.close().await;
}

#[tokio::test]
async fn after_long_only_the_latest_event_of_each_room_is_sent() {
    let (dir, far) = (tempfile::tempdir().unwrap(), Arc::<Far>::default());
    far.mute.lock().insert(b().to_owned());
    let here = Here::open(&dir, &far, LATE);
    let rooms = [here.room().await, here.room().await];
    for room in &rooms {
        here.join(room, bob()).await;
    }
    here.say(&rooms[0], "first").await;
    eventually!(far.got(b()).len() == 1);
    for n in 0..20 {
        here.say(&rooms[n % 2], &n.to_string()).await;
    }
    let last = here.graph.applied();
    eventually!(*here.outbox.0.due.followed.lock() >= last);
    here.tell(b(), "to a device", 7).await;
    here.outbox.0.due.shorten(b(), due::Waits::ForReach).unwrap();
    let queued = || -> Vec<u64> {
        here.graph.scan::<OutboxEvents, _>(&()).iter().map(|entry| entry.unwrap().0.1.0).collect()
    };
    assert_eq!(queued().len(), 20, "not long yet");
    // An hour goes by.
    let server = ServerNum(here.graph.number(NameKind::Server, "b").unwrap().unwrap());
    let mut commit = here.graph.begin();
    for entry in here.graph.scan::<OutboxEvents, _>(&(server,)).iter() {
        let (key, (event, queued)) = entry.unwrap();
        commit.put::<OutboxEvents>(&key, &(event, queued - 2 * 3_600_000));
    }
    here.graph.commit_beside_log(commit).unwrap();
    here.outbox.0.due.shorten(b(), due::Waits::ForReach).unwrap();
    assert_eq!(queued().len(), 2);
    here.close().await;

    far.mute.lock().clear();
    let here = Here::open(&dir, &far, LATE);
    eventually!(here.is_idle());
    assert_eq!(far.texts(b()), ["first", "first", "18", "19"]);
    assert_eq!(far.edus(b(), "m.direct_to_device"), [json!({ "n": 7 })]);
    here.close().await;
}

#[tokio::test]
async fn a_transaction_that_is_refused_again_and_again_does_not_stand_in_the_way_for_ever() {
    let (dir, far) = (tempfile::tempdir().unwrap(), Arc::<Far>::default());
    far.refusing.lock().insert(b().to_owned());
    let pace = Pace { first: Duration::from_millis(1), longest: Duration::from_millis(1) };
    let here = Here::open(&dir, &far, pace);
    here.tell(b(), "0", 0).await;
    eventually!(here.is_idle() && far.got(b()).len() == 10);
    far.refusing.lock().clear();
    here.tell(b(), "1", 1).await;
    eventually!(far.got(b()).len() == 11);
    assert_eq!(far.got(b())[10].body["edus"][0]["content"]["n"], 1);
    here.close().await;
}

#[tokio::test]
async fn public_receipts_and_presence_of_local_users_are_told_to_those_who_share_a_room() {
    let (dir, far) = (tempfile::tempdir().unwrap(), Arc::<Far>::default());
    let here = Here::open(&dir, &far, SOON);
    let room = here.room().await;
    here.join(&room, bob()).await;
    let event = here.say(&room, "0").await;
    let num = here.rooms.room(&room).unwrap().unwrap();
    let read = |kind, thread| here.rooms.set_receipt(num, here.alice(), kind, thread, &event);
    read(ReceiptKind::Private, "").await.unwrap();
    read(ReceiptKind::Public, "main").await.unwrap();
    eventually!(far.edus(b(), "m.receipt").len() == 1);
    let told = &far.edus(b(), "m.receipt")[0][room.as_str()]["m.read"]["@alice:h"];
    assert_eq!(told["event_ids"], json!([event]));
    assert_eq!(told["data"]["thread_id"], "main");
    assert!(told["data"]["ts"].as_u64().unwrap() > 0);

    let online =
        json!({ "presence": "online", "status_msg": "hi", "last_active_ts": postern_rooms::now_ms() });
    here.users.set_presence(here.alice(), online).await.unwrap();
    eventually!(far.edus(b(), "m.presence").len() == 1);
    let told = &far.edus(b(), "m.presence")[0]["push"][0];
    assert_eq!(told["user_id"], "@alice:h");
    assert_eq!(told["presence"], "online");
    assert_eq!(told["status_msg"], "hi");
    assert_eq!(told["currently_active"], true);
    assert!(told["last_active_ago"].as_u64().unwrap() < 60_000);
    let bobs = here.rooms.user(bob()).unwrap().unwrap();
    here.users.set_presence(bobs, json!({ "presence": "online" })).await.unwrap();
    moment().await;
    assert_eq!(far.edus(b(), "m.presence").len(), 1, "bob's is not for this server to tell");
    assert!(far.got(c()).is_empty());
    here.close().await;
}

#[tokio::test]
async fn typing_is_told_when_it_begins_and_ends_and_not_at_every_key() {
    let (dir, far) = (tempfile::tempdir().unwrap(), Arc::<Far>::default());
    let here = Here::open(&dir, &far, SOON);
    let room = here.room().await;
    here.join(&room, bob()).await;
    let num = here.rooms.room(&room).unwrap().unwrap();
    let told = || far.edus(b(), "m.typing");
    here.outbox.typing(num, alice(), false);
    here.outbox.typing(num, alice(), true);
    here.outbox.typing(num, alice(), true);
    eventually!(told().len() == 1 && here.is_idle());
    assert_eq!(told()[0], json!({ "room_id": room, "user_id": "@alice:h", "typing": true }));
    here.outbox.typing(num, alice(), false);
    eventually!(told().len() == 2 && here.is_idle());
    assert_eq!(told()[1]["typing"], false);
    here.close().await;
}

#[tokio::test]
async fn the_outbox_adds_nothing_to_the_log() {
    let (dir, far) = (tempfile::tempdir().unwrap(), Arc::<Far>::default());
    let here = Here::open(&dir, &far, SOON);
    let room = here.room().await;
    here.join(&room, bob()).await;
    here.say(&room, "0").await;
    let last = here.graph.applied();
    eventually!(far.texts(b()) == numbers(0, 1) && here.is_idle());
    assert_eq!(here.graph.applied(), last);
    here.close().await;
}

/// What may happen to a server and what is due to it.
#[derive(Debug, Clone)]
enum Step {
    Say,
    /// A message of its own.
    Tell,
    /// Something that replaces its predecessor.
    Update,
    Mute,
    Leave,
    Hear,
    Restart,
    Pause(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Say),
        4 => Just(Step::Tell),
        3 => Just(Step::Update),
        1 => Just(Step::Mute),
        1 => Just(Step::Leave),
        2 => Just(Step::Hear),
        1 => Just(Step::Restart),
        3 => (1..30_u64).prop_map(Step::Pause),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_everything_arrives_in_order(steps in collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(happens(steps))?;
    }
}

async fn happens(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let (dir, far) = (tempfile::tempdir().unwrap(), Arc::<Far>::default());
    let mut here = Here::open(&dir, &far, SOON);
    let room = here.room().await;
    here.join(&room, bob()).await;
    let (mut said, mut told, mut updated) = (0, 0, 0);
    for step in steps {
        match step {
            Step::Say => {
                here.say(&room, &said.to_string()).await;
                said += 1;
            }
            Step::Tell => {
                here.tell(b(), &format!("message {told}"), told).await;
                told += 1;
            }
            Step::Update => {
                updated += 1;
                here.tell(b(), "the same", 1_000_000 + updated).await;
            }
            Step::Mute => {
                far.mute.lock().insert(b().to_owned());
            }
            Step::Leave => {
                far.away.lock().insert(b().to_owned());
            }
            Step::Hear => {
                far.mute.lock().clear();
                far.away.lock().clear();
                here.outbox.heard_from(b());
            }
            Step::Restart => {
                here.close().await;
                here = Here::open(&dir, &far, SOON);
            }
            Step::Pause(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
        }
    }
    far.mute.lock().clear();
    far.away.lock().clear();
    let last = here.graph.applied();
    eventually!(*here.outbox.0.due.followed.lock() >= last && here.is_idle());
    here.close().await;

    let mut arrived: Vec<Got> = Vec::new();
    for got in far.got(b()) {
        match arrived.iter().find(|before| before.id == got.id) {
            Some(before) => prop_assert_eq!(before, &got, "another content under the same id"),
            None => arrived.push(got),
        }
    }
    let parts = |name: &str| -> Vec<Value> {
        arrived.iter().flat_map(|got| got.body[name].as_array().cloned().unwrap_or_default()).collect()
    };
    let texts: Vec<String> =
        parts("pdus").iter().filter_map(|pdu| Some(pdu["content"]["body"].as_str()?.to_owned())).collect();
    prop_assert_eq!(texts, numbers(0, said));
    let edus: Vec<u64> = parts("edus").iter().map(|edu| edu["content"]["n"].as_u64().unwrap()).collect();
    let (updates, messages): (Vec<u64>, Vec<u64>) = edus.into_iter().partition(|n| *n > 1_000_000);
    prop_assert_eq!(messages, (0..told).collect::<Vec<u64>>());
    prop_assert!(updates.is_sorted(), "{:?}", updates);
    prop_assert_eq!(updates.last().copied(), (updated > 0).then_some(1_000_000 + updated));
    Ok(())
}
