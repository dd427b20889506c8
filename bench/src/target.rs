//! A server under measurement, and the calls of the client-server API the steps are made of.

use crate::link::{Error, Link};
use futures::future::try_join_all;
use http::Method;
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A server and what the steps have made on it so far.
#[derive(Debug)]
pub struct Target {
    /// Its name in the table.
    pub name: String,
    /// Host and port of its client API.
    pub address: String,
    /// Its processes; their children belong to them.
    pub pids: Vec<u32>,
    /// Access tokens of the registered users, in order.
    pub users: RefCell<Vec<String>>,
    /// Access token of the user who makes all rooms.
    pub owner: RefCell<String>,
    /// The hundred rooms of the owner, times scale.
    pub rooms: RefCell<Vec<String>>,
    /// The room whose history is paged through.
    pub long: RefCell<String>,
    /// The room all of the first thousand users joined, times scale.
    pub hall: RefCell<String>,
    /// Messages and state changes sent, transactions for short.
    sent: Cell<u64>,
    /// What tells the names of this run from those of an earlier one on the same server.
    run: u64,
}

/// When a flood of messages ends.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// After so much time.
    Time(Duration),
    /// After so many messages.
    Count(u64),
}

fn field(body: &[u8], name: &'static str) -> Result<String, Error> {
    let body: Value = serde_json::from_slice(body)?;
    body[name].as_str().map(str::to_owned).ok_or(Error::Missing(name))
}

impl Target {
    /// A target from `NAME=HOST:PORT,PID,…`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text}: not NAME=HOST:PORT,PID,…");
        let (name, rest) = text.split_once('=').ok_or_else(wrong)?;
        let mut parts = rest.split(',');
        let address = parts.next().ok_or_else(wrong)?;
        let pids = parts.map(str::parse).collect::<Result<_, _>>().map_err(|_| wrong())?;
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Ok(Self {
            name: name.to_owned(),
            address: address.to_owned(),
            pids,
            users: RefCell::default(),
            owner: RefCell::default(),
            rooms: RefCell::default(),
            long: RefCell::default(),
            hall: RefCell::default(),
            sent: Cell::new(0),
            run: since.map_err(|error| error.to_string())?.as_secs(),
        })
    }

    /// The next transaction id.
    fn transaction(&self) -> u64 {
        self.sent.set(self.sent.get() + 1);
        self.sent.get()
    }

    /// A new connection.
    pub fn link(&self) -> Link {
        Link::to(&self.address)
    }

    /// The access token of the user at `at`, counted round.
    pub fn user(&self, at: usize) -> String {
        let users = self.users.borrow();
        users.get(at % users.len().max(1)).cloned().unwrap_or_default()
    }

    /// Does `work` for each of `items` on `connections` connections at once; returns the seconds each item took.
    pub async fn each<T>(
        &self,
        items: impl IntoIterator<Item = T>,
        connections: usize,
        work: impl AsyncFn(&mut Link, T) -> Result<(), Error>,
    ) -> Result<Vec<f64>, Error> {
        let queue: RefCell<VecDeque<T>> = RefCell::new(items.into_iter().collect());
        let took = RefCell::new(Vec::new());
        let worker = async || {
            let mut link = self.link();
            loop {
                let next = queue.borrow_mut().pop_front();
                let Some(item) = next else { return Ok::<_, Error>(()) };
                let start = Instant::now();
                work(&mut link, item).await?;
                took.borrow_mut().push(start.elapsed().as_secs_f64());
            }
        };
        try_join_all((0..connections).map(|_| worker())).await?;
        Ok(took.into_inner())
    }

    /// Registers a user and returns the access token.
    pub async fn register(&self, link: &mut Link, name: &str) -> Result<String, Error> {
        let body = json!({
            "username": format!("{name}-{}", self.run), "password": "correct horse battery", "auth": {"type": "m.login.dummy"}
        });
        field(&link.call(Method::POST, "/_matrix/client/v3/register", "", Some(&body)).await?, "access_token")
    }

    /// Makes a public room and returns its id.
    pub async fn create(&self, link: &mut Link, token: &str, name: &str) -> Result<String, Error> {
        let body = json!({"preset": "public_chat", "name": name});
        field(&link.call(Method::POST, "/_matrix/client/v3/createRoom", token, Some(&body)).await?, "room_id")
    }

    /// Joins a room.
    pub async fn join(&self, link: &mut Link, token: &str, room: &str) -> Result<(), Error> {
        let path = format!("/_matrix/client/v3/rooms/{room}/join");
        link.call(Method::POST, &path, token, Some(&json!({}))).await.map(drop)
    }

    /// Sends a message of about the length people write.
    pub async fn send(&self, link: &mut Link, token: &str, room: &str, text: &str) -> Result<(), Error> {
        let path = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/b{}", self.transaction());
        let body = json!({"msgtype": "m.text", "body": format!("{text} the quick brown fox jumps over the lazy dog")});
        link.call(Method::PUT, &path, token, Some(&body)).await.map(drop)
    }

    /// Changes the topic of a room.
    pub async fn set_topic(&self, link: &mut Link, token: &str, room: &str) -> Result<(), Error> {
        let path = format!("/_matrix/client/v3/rooms/{room}/state/m.room.topic");
        let body = json!({"topic": format!("topic {}", self.transaction())});
        link.call(Method::PUT, &path, token, Some(&body)).await.map(drop)
    }

    /// One `/sync`: its next token and its body. Without `since` the first one.
    pub async fn sync(
        &self,
        link: &mut Link,
        token: &str,
        since: Option<&str>,
        timeout: u32,
        filter: Option<&str>,
    ) -> Result<(String, bytes::Bytes), Error> {
        let mut path = format!("/_matrix/client/v3/sync?timeout={timeout}");
        for (name, value) in [("since", since), ("filter", filter)] {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={value}"));
            }
        }
        let body = link.call(Method::GET, &path, token, None).await?;
        Ok((next_batch(&body)?, body))
    }

    /// Sends messages by the owner into `rooms` in turn, on `connections` connections; returns how many were sent.
    pub async fn flood(&self, rooms: &[String], connections: usize, until: Until) -> Result<u64, Error> {
        let owner = self.owner.borrow().clone();
        let (start, begun, done) = (Instant::now(), Cell::new(0_u64), Cell::new(0_u64));
        let worker = async || {
            let mut link = self.link();
            loop {
                let at = begun.get();
                let over = match until {
                    Until::Time(time) => start.elapsed() >= time,
                    Until::Count(count) => at >= count,
                };
                let room = usize::try_from(at).ok().and_then(|at| rooms.get(at % rooms.len().max(1)));
                let (false, Some(room)) = (over, room) else { return Ok::<_, Error>(()) };
                begun.set(at + 1);
                self.send(&mut link, &owner, room, "hello").await?;
                done.set(done.get() + 1);
            }
        };
        try_join_all((0..connections).map(|_| worker())).await?;
        Ok(done.get())
    }
}

/// The `next_batch` of a `/sync` answer without parsing all of it, which for the first answers would cost more than
/// some servers use to make them.
fn next_batch(body: &[u8]) -> Result<String, Error> {
    const NAME: &[u8] = b"\"next_batch\"";
    let found = body.windows(NAME.len()).position(|window| window == NAME);
    let rest = found.and_then(|at| body.get(at + NAME.len()..)).unwrap_or_default();
    let mut quoted = rest.split(|byte| *byte == b'"');
    let value = quoted.nth(1).ok_or(Error::Missing("next_batch"))?;
    Ok(String::from_utf8_lossy(value).into_owned())
}
