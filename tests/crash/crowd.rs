//! Users who share rooms, each with a device that sends and one that listens.

use postern_world::{Client, Server};
use serde_json::json;

/// Users and rooms.
pub struct Crowd {
    /// The devices that send, one of each user.
    pub senders: Vec<Client>,
    /// The devices that listen, one of each user.
    pub listeners: Vec<Client>,
    /// Where each listener stands.
    pub since: Vec<String>,
    /// The rooms, which all are in.
    pub rooms: Vec<String>,
    /// User and device of each listener.
    pub devices: Vec<(String, String)>,
}

impl Crowd {
    pub fn on(server: &Server, users: usize, rooms: usize) -> Self {
        let senders: Vec<Client> = (0..users).map(|n| server.register(&format!("user{n}"))).collect();
        let rooms: Vec<String> = (0..rooms)
            .map(|_| {
                let room = senders[0].create_room(json!({ "preset": "public_chat" }));
                for other in &senders[1..] {
                    other.join(&room);
                }
                room
            })
            .collect();
        let listeners: Vec<Client> = senders.iter().map(Client::log_in_again).collect();
        let since = listeners.iter().map(Client::now).collect();
        let devices = listeners.iter().map(|each| (each.id().to_owned(), each.device().to_owned())).collect();
        Self { senders, listeners, since, rooms, devices }
    }
}
