//! A person with one client, which syncs by sliding sync and keeps what it knows in SQLite.

use crate::server::Server;
use futures_util::{StreamExt, pin_mut};
use matrix_sdk::{
    Client, Room, RoomState, ThreadingSupport,
    authentication::matrix::MatrixSession,
    encryption::{BackupDownloadStrategy, EncryptionSettings},
    ruma::{
        OwnedEventId, OwnedRoomId, RoomId, UserId,
        api::client::{
            account::register::v3::Request as Registration, room::create_room::v3::Request as NewRoom, uiaa,
        },
        events::{
            AnyInitialStateEvent, EmptyStateKey, InitialStateEvent,
            room::{encryption::RoomEncryptionEventContent, message::RoomMessageEventContent},
        },
        serde::Raw,
    },
    sliding_sync::VersionBuilder,
    store::RoomLoadSettings,
};
use matrix_sdk_ui::{
    RoomListService, Timeline,
    eyeball_im::Vector,
    room_list_service::{RoomListItem, State, filters::new_filter_non_left},
    sync_service::SyncService,
    timeline::{EventTimelineItem, RoomExt},
};
use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{task::JoinHandle, time::Instant};

const PASSWORD: &str = "correct horse battery staple";
/// Far more than anything takes; it only bounds a test that fails.
const PATIENCE: Duration = Duration::from_secs(30);
const LIST_PAGE: usize = 50;

/// Waits until `seen` gives something, and returns it.
pub async fn until<T>(what: &str, mut seen: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = seen().await {
            return found;
        }
        assert!(Instant::now() < deadline, "never seen: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub struct Person {
    pub client: Client,
    pub sync: SyncService,
    store: TempDir,
    list: Arc<Mutex<Vector<RoomListItem>>>,
    list_task: JoinHandle<()>,
}

impl Person {
    /// A new account, made with the registration token.
    pub async fn registers(server: &Server, name: &str) -> Self {
        let store = TempDir::with_prefix("postern-sdk-store.").unwrap();
        let client = open(server, store.path()).await;
        let mut request = Registration::new();
        request.username = Some(name.to_owned());
        request.password = Some(PASSWORD.to_owned());
        let asked = client.matrix_auth().register(request.clone()).await.unwrap_err();
        let mut token = uiaa::RegistrationToken::new(std::env::var("POSTERN_TOKEN").unwrap());
        token.session = asked.as_uiaa_response().unwrap().session.clone();
        request.auth = Some(uiaa::AuthData::RegistrationToken(token));
        client.matrix_auth().register(request).await.unwrap();
        Self::with(client, store).await
    }

    /// A new device of an account.
    pub async fn logs_in(server: &Server, name: &str) -> Self {
        let store = TempDir::with_prefix("postern-sdk-store.").unwrap();
        let client = open(server, store.path()).await;
        client.matrix_auth().login_username(name, PASSWORD).send().await.unwrap();
        Self::with(client, store).await
    }

    /// The same device in a new run of the program, from its store.
    pub async fn starts_again(self, server: &Server) -> Self {
        let session: MatrixSession = self.client.matrix_auth().session().unwrap();
        let Self { client, sync, store, list_task, .. } = self;
        sync.stop().await;
        list_task.abort();
        drop((sync, client));
        let client = open(server, store.path()).await;
        client.matrix_auth().restore_session(session, RoomLoadSettings::default()).await.unwrap();
        Self::with(client, store).await
    }

    async fn with(client: Client, store: TempDir) -> Self {
        let sync = SyncService::builder(client.clone()).with_offline_mode().build().await.unwrap();
        let list = Arc::new(Mutex::new(Vector::new()));
        let list_task = tokio::spawn(follow(sync.room_list_service(), list.clone()));
        sync.start().await;
        client.encryption().wait_for_e2ee_initialization_tasks().await;
        // Until then a room that is opened may show twice what both the store and the server bring.
        let state = sync.room_list_service().state();
        until("the list in full", async || matches!(state.get(), State::Running).then_some(())).await;
        Self { client, sync, store, list, list_task }
    }

    pub fn id(&self) -> &UserId {
        self.client.user_id().unwrap()
    }

    /// Names of rooms as the list of rooms shows them, from the top.
    pub fn list(&self) -> Vec<String> {
        let name = |item: &RoomListItem| {
            item.cached_display_name().map_or_else(String::new, |name| name.to_string())
        };
        self.list.lock().unwrap().iter().map(name).collect()
    }

    /// Waits until the list of rooms is this.
    pub async fn sees_list(&self, names: &[&str]) {
        let mut last = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            last = self.list();
            if last == names {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the list should be {names:?} and is {last:?}");
    }

    /// Waits until a room is in the client's list with a membership.
    pub async fn sees_room(&self, id: &RoomId, state: RoomState) -> Room {
        until("the room", async || self.client.get_room(id).filter(|room| room.state() == state)).await
    }

    /// A room in which the guest is a member when it is returned, seen so by both.
    pub async fn makes_room(&self, guest: &Self, name: &str, encrypted: bool) -> OwnedRoomId {
        let mut request = NewRoom::new();
        request.name = Some(name.to_owned());
        request.invite = vec![guest.id().to_owned()];
        if encrypted {
            let content = RoomEncryptionEventContent::with_recommended_defaults();
            let event = InitialStateEvent::new(EmptyStateKey, content);
            request.initial_state.push(Raw::new(&event).unwrap().cast_unchecked::<AnyInitialStateEvent>());
        }
        let id = self.client.create_room(request).await.unwrap().room_id().to_owned();
        guest.sees_room(&id, RoomState::Invited).await.join().await.unwrap();
        for person in [self, guest] {
            let room = person.sees_room(&id, RoomState::Joined).await;
            until("everyone in the room", async || {
                let settled = room.joined_members_count() == 2
                    && room.encryption_state().is_encrypted() == encrypted
                    && !room.encryption_state().is_unknown();
                settled.then_some(())
            })
            .await;
        }
        id
    }

    pub async fn opens(&self, id: &RoomId) -> View {
        let room = self.sees_room(id, RoomState::Joined).await;
        let timeline = room.timeline().await.unwrap();
        self.sync.room_list_service().subscribe_to_rooms(&[id]).await;
        View { room, timeline }
    }
}

async fn open(server: &Server, store: &Path) -> Client {
    Client::builder()
        .homeserver_url(server.url())
        .sliding_sync_version_builder(VersionBuilder::DiscoverNative)
        .with_encryption_settings(EncryptionSettings {
            auto_enable_cross_signing: true,
            backup_download_strategy: BackupDownloadStrategy::AfterDecryptionFailure,
            ..EncryptionSettings::default()
        })
        .with_threading_support(ThreadingSupport::Enabled { with_subscriptions: false })
        .sqlite_store(store, None)
        .build()
        .await
        .unwrap()
}

/// Keeps what the list of rooms shows.
async fn follow(service: Arc<RoomListService>, shown: Arc<Mutex<Vector<RoomListItem>>>) {
    let rooms = service.all_rooms().await.unwrap();
    let (changes, controller) = rooms.entries_with_dynamic_adapters(LIST_PAGE);
    controller.set_filter(Box::new(new_filter_non_left()));
    pin_mut!(changes);
    while let Some(changes) = changes.next().await {
        let mut shown = shown.lock().unwrap();
        for change in changes {
            change.apply(&mut shown);
        }
    }
}

/// A room as it is open on the screen.
pub struct View {
    pub room: Room,
    pub timeline: Timeline,
}

impl View {
    /// Sends a text, encrypted where the room is.
    pub async fn says(&self, body: &str) -> OwnedEventId {
        let content = RoomMessageEventContent::text_plain(body);
        self.room.send(content).await.unwrap().response.event_id
    }

    /// The texts shown, from the top.
    pub async fn texts(&self) -> Vec<String> {
        let items = self.timeline.items().await;
        items
            .iter()
            .filter_map(|item| Some(item.as_event()?.content().as_message()?.body().to_owned()))
            .collect()
    }

    /// Scrolls up until the texts shown are these: the SDK loads what lies before a gap only then, and there is a gap
    /// where the server was started again, since that ends the client's session of sliding sync.
    pub async fn scrolls_up_to(&self, texts: &[&str]) {
        until("the texts above", async || {
            self.timeline.paginate_backwards(20).await.unwrap();
            (self.texts().await == texts).then_some(())
        })
        .await;
    }

    /// Waits until the texts shown are these.
    pub async fn sees_texts(&self, texts: &[&str]) {
        let mut last = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            last = self.texts().await;
            if last == texts {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the texts should be {texts:?} and are {last:?}");
    }

    /// Waits for an event that shows as `right` says.
    pub async fn sees(
        &self,
        what: &str,
        id: &OwnedEventId,
        right: impl Fn(&EventTimelineItem) -> bool,
    ) -> EventTimelineItem {
        until(what, async || self.timeline.item_by_event_id(id).await.filter(&right)).await
    }
}
