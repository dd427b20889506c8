//! What it costs to ask the border whether an event leaves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use postern_border::Border;
use postern_graph::Graph;
use postern_media::Media;
use postern_rooms::{CreateRoom, Draft, Event, Form, Preset, Rooms};
use postern_users::{Cost, Users};
use ruma::{OwnedRoomId, OwnedServerName, ServerName, UserId, server_name, user_id};
use serde_json::{json, value::to_raw_value};
use std::{
    fmt::Write as _,
    fs,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};
use tempfile::TempDir;

const PEERS: usize = 20;
const EVENTS: usize = 2_000;

struct World {
    rooms: Arc<Rooms>,
    room: OwnedRoomId,
    peers: Vec<OwnedServerName>,
    _directory: TempDir,
}

fn alice() -> &'static UserId {
    user_id!("@alice:h")
}

impl World {
    /// A server with as many policies of its own, all of which are about what is asked, and a labelled room.
    async fn with(policies: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let peers: Vec<OwnedServerName> =
            (0..PEERS).map(|n| ServerName::parse(format!("peer{n}.example")).unwrap()).collect();
        let mut document = "default_clearance = \"Company CONFIDENTIAL\"\n".to_owned();
        for peer in &peers {
            writeln!(document, "[[peer]]\nname = \"{peer}\"\nclearance = \"Company CONFIDENTIAL\"").unwrap();
        }
        let border = directory.path().join("border");
        fs::create_dir_all(border.join("policies")).unwrap();
        fs::write(border.join("border.toml"), document).unwrap();
        let one = |n: usize| {
            format!(
                "@id(\"own-{n}\") forbid (principal is Server, action == Action::\"release\", resource is Event)
                 when {{ principal.federations.contains(\"f{n}\") && resource.size > {n} }};\n"
            )
        };
        fs::write(border.join("policies/own.cedar"), (0..policies).map(one).collect::<String>()).unwrap();
        let name = server_name!("h");
        let path = directory.path().join("db");
        let graph = Graph::open(&postern_graph::Settings { path, block_cache: 64 << 20 }).unwrap();
        let rooms = Arc::new(Rooms::new(graph.clone(), name, "12").unwrap());
        let password_cost = Cost { memory_kib: 8, iterations: 1, parallelism: 1 };
        let settings = postern_users::Settings { password_cost, access_token_ms: 60_000 };
        let users = Arc::new(Users::new(graph.clone(), name, settings));
        let settings = postern_media::Settings {
            max_upload_bytes: 1,
            max_image_pixels: 1,
            dynamic_thumbnails: false,
            pending_upload_lifetime_ms: 1,
            max_pending_uploads: 1,
        };
        let media = Arc::new(Media::new(graph.clone(), name.as_str(), settings));
        let border = Border::new(name, Some(border), graph, users, media).unwrap();
        rooms.guard(Arc::new(border));
        let mut request = CreateRoom { preset: Preset::PrivateChat, ..CreateRoom::default() };
        let label = json!({ "policy": "Company", "class": "INTERNAL" });
        request.creation_content.insert("io.postern.label".to_owned(), label);
        let room = rooms.create(alice(), request).await.unwrap();
        Self { rooms, room, peers, _directory: directory }
    }

    async fn say(&self, number: usize) -> Vec<Arc<Event>> {
        let mut said = Vec::new();
        for n in 0..number {
            let content =
                to_raw_value(&json!({ "msgtype": "m.text", "body": format!("message {n}") })).unwrap();
            let id = self
                .rooms
                .send(alice(), &self.room, Draft::message("m.room.message", content))
                .await
                .unwrap();
            said.push(self.rooms.event_by_id(&id).unwrap().unwrap());
        }
        said
    }

    /// Asks for the form of each event for each peer, writes down what is decided, and says how long each took.
    async fn ask(&self, what: &str, events: &[Arc<Event>]) {
        let mut took = Vec::with_capacity(events.len() * PEERS);
        let mut settling = Duration::ZERO;
        for event in events {
            for peer in &self.peers {
                let start = Instant::now();
                let form = black_box(self.rooms.form_for(peer, event)).unwrap();
                took.push(start.elapsed());
                assert_eq!(form, Form::Whole);
            }
            let start = Instant::now();
            self.rooms.settled().await.unwrap();
            settling += start.elapsed();
        }
        took.sort();
        let of = |thousandth: usize| took[took.len() * thousandth / 1_000];
        println!("{what}: median {:?}, p99 {:?}, p99.9 {:?}", of(500), of(990), of(999));
        println!(
            "  written down and on disk: {:?} an event",
            settling / u32::try_from(events.len()).unwrap()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: run it in release"]
async fn how_long_it_takes_to_decide_whether_an_event_leaves() {
    let world = World::with(0).await;
    let events = world.say(EVENTS).await;
    world.ask("base policies, ruled before", &events).await;
    world.ask("asked for again", &events).await;
    let world = World::with(100).await;
    let events = world.say(EVENTS).await;
    // They ask for the size of each event: no ruling is that of another event.
    world.ask("base and 100 policies, not ruled before", &events).await;
}
