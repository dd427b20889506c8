//! The list of rooms.

use crate::{
    person::{Person, until},
    server::Server,
};
use matrix_sdk::{
    RoomState,
    latest_events::LatestEventValue,
    ruma::{
        OwnedEventId,
        api::client::{receipt::create_receipt::v3::ReceiptType, room::create_room::v3::Request as NewRoom},
        events::{Mentions, room::message::RoomMessageEventContent},
    },
};

#[tokio::test]
async fn rooms_are_listed_by_their_latest_message_also_after_a_restart_of_the_client() {
    let server = Server::start();
    let ana = Person::registers(&server, "ana").await;
    let ben = Person::registers(&server, "ben").await;
    assert!(ben.list().is_empty());
    let attic = ana.makes_room(&ben, "Attic", false).await;
    ana.makes_room(&ben, "Barn", false).await;
    ana.makes_room(&ben, "Cellar", false).await;
    for person in [&ana, &ben] {
        person.sees_list(&["Cellar", "Barn", "Attic"]).await;
    }
    ana.opens(&attic).await.says("bats!").await;
    for person in [&ana, &ben] {
        person.sees_list(&["Attic", "Cellar", "Barn"]).await;
    }
    let ben = ben.starts_again(&server).await;
    ben.sees_list(&["Attic", "Cellar", "Barn"]).await;
    ben.opens(&attic).await.sees_texts(&["bats!"]).await;
}

#[tokio::test]
async fn an_invitation_is_listed_with_its_name_and_sender_and_goes_when_declined() {
    let server = Server::start();
    let ana = Person::registers(&server, "ana").await;
    let ben = Person::registers(&server, "ben").await;
    let mut request = NewRoom::new();
    request.name = Some("Attic".to_owned());
    request.invite = vec![ben.id().to_owned()];
    let id = ana.client.create_room(request).await.unwrap().room_id().to_owned();
    ben.sees_list(&["Attic"]).await;
    let invited = ben.sees_room(&id, RoomState::Invited).await;
    let details = invited.invite_details().await.unwrap();
    assert_eq!(details.inviter.unwrap().user_id(), ana.id());
    invited.leave().await.unwrap();
    ben.sees_list(&[]).await;
    let room = ana.sees_room(&id, RoomState::Joined).await;
    until("the other declining", async || (room.invited_members_count() == 0).then_some(())).await;
}

#[tokio::test]
async fn the_list_shows_the_latest_message_and_what_is_unread_until_it_is_read() {
    let server = Server::start();
    let ana = Person::registers(&server, "ana").await;
    let ben = Person::registers(&server, "ben").await;
    let id = ana.makes_room(&ben, "Attic", false).await;
    let view = ana.opens(&id).await;
    let room = ben.sees_room(&id, RoomState::Joined).await;
    let sees_latest = async |id: OwnedEventId| {
        until("the latest message", async || match room.latest_event() {
            LatestEventValue::Remote(event) => (event.event_id() == Some(id.clone())).then_some(()),
            _ => None,
        })
        .await;
    };
    // One by one: of two that come together the list has only the latter, and counts no other itself.
    sees_latest(view.says("hello").await).await;
    let mention = RoomMessageEventContent::text_plain("look")
        .add_mentions(Mentions::with_user_ids([ben.id().to_owned()]));
    sees_latest(view.room.send(mention).await.unwrap().response.event_id).await;
    until("two unread, one a mention", async || {
        let server_says = room.unread_notification_counts();
        ((server_says.notification_count, server_says.highlight_count) == (2, 1)
            && (room.num_unread_messages(), room.num_unread_mentions()) == (2, 1))
            .then_some(())
    })
    .await;
    let reader = ben.opens(&id).await;
    reader.sees_texts(&["hello", "look"]).await;
    assert!(reader.timeline.mark_as_read(ReceiptType::Read).await.unwrap());
    until("none unread", async || {
        let server_says = room.unread_notification_counts();
        (server_says.notification_count == 0 && room.num_unread_messages() == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_list_of_many_rooms_is_loaded_in_whole() {
    let server = Server::start();
    let ana = Person::registers(&server, "ana").await;
    let names: Vec<String> = (0..40).map(|n| format!("Room {n:02}")).collect();
    for name in &names {
        let mut request = NewRoom::new();
        request.name = Some(name.clone());
        ana.client.create_room(request).await.unwrap();
    }
    let newest_first: Vec<&str> = names.iter().rev().map(String::as_str).collect();
    ana.sees_list(&newest_first).await;
}
