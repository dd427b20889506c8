//! End-to-end encryption: the keys come through sliding sync's extensions.

use crate::{person::Person, server::Server};
use matrix_sdk::{
    attachment::AttachmentConfig,
    media::{MediaFormat, MediaRequestParameters},
    ruma::events::room::{MediaSource, message::MessageType},
};

#[tokio::test]
async fn messages_in_an_encrypted_room_are_read_by_the_other_and_by_nobody_else() {
    let server = Server::start();
    let ana = Person::registers(&server, "ana").await;
    let ben = Person::registers(&server, "ben").await;
    let id = ana.makes_room(&ben, "Attic", true).await;
    let (hers, his) = (ana.opens(&id).await, ben.opens(&id).await);
    let sent = hers.says("meet me at noon").await;
    his.sees_texts(&["meet me at noon"]).await;
    his.says("I will be there").await;
    hers.sees_texts(&["meet me at noon", "I will be there"]).await;
    let item = his.timeline.item_by_event_id(&sent).await.unwrap();
    assert_eq!(item.encryption_info().unwrap().sender, ana.id());
    let stored = item.original_json().unwrap().get_field::<String>("type").unwrap().unwrap();
    assert_eq!(stored, "m.room.message");
    // What the server holds.
    let request = matrix_sdk::ruma::api::client::room::get_room_event::v3::Request::new(id, sent);
    let event = ben.client.send(request).await.unwrap().event;
    assert_eq!(event.get_field::<String>("type").unwrap().unwrap(), "m.room.encrypted");
    assert!(!event.json().get().contains("noon"));
}

#[tokio::test]
async fn an_encrypted_file_arrives_with_the_same_bytes() {
    let server = Server::start();
    let ana = Person::registers(&server, "ana").await;
    let ben = Person::registers(&server, "ben").await;
    let id = ana.makes_room(&ben, "Attic", true).await;
    let (hers, his) = (ana.opens(&id).await, ben.opens(&id).await);
    // More than one piece of the server's.
    let data: Vec<u8> = (0..2_000_003_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let config = AttachmentConfig::new();
    let sent = hers
        .room
        .send_attachment("secret.bin", &mime::APPLICATION_OCTET_STREAM, data.clone(), config)
        .await
        .unwrap()
        .event_id;
    let item = his.sees("the file", &sent, |item| item.content().is_message()).await;
    let MessageType::File(file) = item.content().as_message().unwrap().msgtype() else {
        panic!("not a file: {item:?}");
    };
    assert!(matches!(file.source, MediaSource::Encrypted(_)));
    let request = MediaRequestParameters { source: file.source.clone(), format: MediaFormat::File };
    assert!(ben.client.media().get_media_content(&request, false).await.unwrap() == data);
}

#[tokio::test]
async fn a_client_that_was_away_reads_all_once_it_starts_again_from_its_store() {
    let mut server = Server::start();
    let ana = Person::registers(&server, "ana").await;
    let ben = Person::registers(&server, "ben").await;
    let id = ana.makes_room(&ben, "Attic", true).await;
    let hers = ana.opens(&id).await;
    hers.says("before").await;
    ben.opens(&id).await.sees_texts(&["before"]).await;
    ben.sync.stop().await;
    hers.says("while away").await;
    hers.room.discard_room_key().await.unwrap();
    hers.says("with a new key").await;
    server.kill_and_start();
    let ben = ben.starts_again(&server).await;
    let his = ben.opens(&id).await;
    his.scrolls_up_to(&["before", "while away", "with a new key"]).await;
    his.says("back again").await;
    hers.scrolls_up_to(&["before", "while away", "with a new key", "back again"]).await;
}

#[tokio::test]
async fn a_new_device_reads_old_messages_once_it_has_the_recovery_key() {
    let server = Server::start();
    let ana = Person::registers(&server, "ana").await;
    let ben = Person::registers(&server, "ben").await;
    let id = ana.makes_room(&ben, "Attic", true).await;
    let (hers, his) = (ana.opens(&id).await, ben.opens(&id).await);
    let key = ben.client.encryption().recovery().enable().wait_for_backups_to_upload().await.unwrap();
    hers.says("long ago").await;
    his.sees_texts(&["long ago"]).await;
    ben.client.encryption().backups().wait_for_steady_state().await.unwrap();
    let phone = Person::logs_in(&server, "ben").await;
    let view = phone.opens(&id).await;
    phone.client.encryption().recovery().recover(&key).await.unwrap();
    view.scrolls_up_to(&["long ago"]).await;
    hers.says("and now").await;
    view.sees_texts(&["long ago", "and now"]).await;
    let own = phone.client.encryption().get_own_device().await.unwrap().unwrap();
    assert!(own.is_cross_signed_by_owner());
}
