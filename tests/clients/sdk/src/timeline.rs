//! What is said in a room, as the other's timeline shows it.

use crate::{
    person::{Person, View, until},
    server::Server,
};
use matrix_sdk::{
    room::edit::EditedContent,
    ruma::{
        api::client::receipt::create_receipt::v3::ReceiptType,
        events::{
            relation::Thread,
            room::message::{Relation, RoomMessageEventContent, RoomMessageEventContentWithoutRelation},
        },
    },
};
use matrix_sdk_ui::{sync_service::State, timeline::RoomExt};

/// Two people who have the same room open.
async fn two_in_a_room(server: &Server) -> (Person, View, Person, View) {
    let ana = Person::registers(server, "ana").await;
    let ben = Person::registers(server, "ben").await;
    let id = ana.makes_room(&ben, "Attic", false).await;
    let (hers, his) = (ana.opens(&id).await, ben.opens(&id).await);
    (ana, hers, ben, his)
}

#[tokio::test]
async fn messages_reactions_edits_and_redactions_show_in_the_others_timeline() {
    let server = Server::start();
    let (_ana, hers, ben, his) = two_in_a_room(&server).await;
    let message = hers.says("aples").await;
    his.says("what?").await;
    for view in [&hers, &his] {
        view.sees_texts(&["aples", "what?"]).await;
    }
    let item = his.timeline.item_by_event_id(&message).await.unwrap();
    assert!(his.timeline.toggle_reaction(&item.identifier(), "🍎").await.unwrap());
    let reacted = hers
        .sees("the reaction", &message, |item| {
            item.content().reactions().is_some_and(|reactions| !reactions.is_empty())
        })
        .await;
    assert!(reacted.content().reactions().unwrap()["🍎"].contains_key(ben.id()));

    let edit = EditedContent::RoomMessage(RoomMessageEventContentWithoutRelation::text_plain("apples"));
    hers.timeline.edit(&reacted.identifier(), edit).await.unwrap();
    his.sees_texts(&["apples", "what?"]).await;
    let edited = his.timeline.item_by_event_id(&message).await.unwrap();
    assert!(edited.content().as_message().unwrap().is_edited());

    hers.timeline.redact(&reacted.identifier(), Some("never mind")).await.unwrap();
    his.sees("the redaction", &message, |item| item.content().is_redacted()).await;
    his.sees_texts(&["what?"]).await;
}

#[tokio::test]
async fn replies_show_in_their_thread_and_the_root_sums_it_up() {
    let server = Server::start();
    let (_ana, hers, _ben, his) = two_in_a_room(&server).await;
    let root = hers.says("shall we?").await;
    for view in [&hers, &his] {
        view.sees_texts(&["shall we?"]).await;
    }
    let mut reply = RoomMessageEventContent::text_plain("yes");
    reply.relates_to = Some(Relation::Thread(Thread::plain(root.clone(), root.clone())));
    his.room.send(reply).await.unwrap();
    // As the room looks when it is opened: an open one does not always notice, whatever the server says.
    let summed_up = until("the thread", async || {
        let timeline = hers.room.timeline().await.unwrap();
        let item = timeline.item_by_event_id(&root).await?;
        item.content().thread_summary().is_some_and(|thread| thread.num_replies == 1).then_some(item)
    })
    .await;
    assert_eq!(summed_up.content().as_message().unwrap().body(), "shall we?");
}

#[tokio::test]
async fn typing_and_read_receipts_reach_the_other() {
    let server = Server::start();
    let (ana, hers, ben, his) = two_in_a_room(&server).await;
    let (_guard, mut typing) = his.room.subscribe_to_typing_notifications();
    hers.room.typing_notice(true).await.unwrap();
    assert_eq!(typing.recv().await.unwrap(), [ana.id()]);
    hers.room.typing_notice(false).await.unwrap();
    assert!(typing.recv().await.unwrap().is_empty());

    let message = hers.says("read me").await;
    his.sees_texts(&["read me"]).await;
    his.timeline.mark_as_read(ReceiptType::Read).await.unwrap();
    until("the receipt", async || {
        let (read, _) = hers.timeline.latest_user_read_receipt(ben.id()).await?;
        (read == message).then_some(())
    })
    .await;
}

#[tokio::test]
async fn history_is_paged_back_to_where_the_room_began() {
    let server = Server::start();
    let (ana, hers, ben, _) = two_in_a_room(&server).await;
    let mut texts = Vec::new();
    for n in 0..60 {
        texts.push(format!("line {n}"));
        hers.says(&texts[n]).await;
    }
    let later = ben.starts_again(&server).await;
    let view = later.opens(hers.room.room_id()).await;
    while !view.timeline.paginate_backwards(20).await.unwrap() {}
    view.sees_texts(&texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    drop(ana);
}

#[tokio::test]
async fn both_go_on_by_themselves_after_the_server_was_killed() {
    let mut server = Server::start();
    let (ana, hers, ben, his) = two_in_a_room(&server).await;
    hers.says("before").await;
    his.sees_texts(&["before"]).await;
    server.kill_and_start();
    until("a message sent", async || hers.room.send(RoomMessageEventContent::text_plain("after")).await.ok())
        .await;
    for view in [&his, &hers] {
        view.scrolls_up_to(&["before", "after"]).await;
    }
    his.says("still here").await;
    hers.sees_texts(&["before", "after", "still here"]).await;
    for person in [&ana, &ben] {
        until("a running sync", async || matches!(person.sync.state().get(), State::Running).then_some(()))
            .await;
    }
}
