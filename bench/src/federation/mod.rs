//! What federation costs a server: joining large rooms of others, taking what they send, and how long a message is on its way.
//! The other servers are a recorded peer in this program ([`peer`]); it is not measured.

mod hall;
pub mod peer;

use crate::link::{Error, Link};
use crate::note;
use crate::steps::{MILLI, Row, Sizes, count, quantile, row};
use crate::target::Target;
use crate::usage::Meter;
use hall::Unmade;
use http::Method;
use peer::Peer;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::{sleep, sleep_until};

/// PDUs of a transaction: the most the specification allows.
const PDUS: usize = 50;
/// Between two looks whether something has come so far.
const LOOK: Duration = Duration::from_millis(20);
/// Between two looks at all members of a large room.
const LONG_LOOK: Duration = Duration::from_millis(200);
/// When something is given up that does not come.
const PATIENCE: Duration = Duration::from_secs(600);
/// PDUs by which the time of the others is estimated.
const TRIAL: usize = 200;
/// How long a server should be busy with the PDUs it is sent, seconds.
const BUSY: f64 = 20.0;
/// A filter for `/sync` with more events of a room than come between two answers.
const LONG_TIMELINE: &str = "%7B%22room%22:%7B%22timeline%22:%7B%22limit%22:200%7D%7D%7D";
/// Messages a second whose way is measured: few enough for any server to keep up.
const RATE: u32 = 5;

impl From<Unmade> for Error {
    fn from(error: Unmade) -> Self {
        Self::File("the recorded peer".to_owned(), std::io::Error::other(error))
    }
}

/// Somebody on a server under measurement.
struct Guest<'a> {
    target: &'a Target,
    link: Link,
    token: String,
    server: String,
}

impl<'a> Guest<'a> {
    async fn on(target: &'a Target, name: &str) -> Result<Self, Error> {
        let mut link = target.link();
        let token = target.register(&mut link, name).await?;
        let me = link.call(Method::GET, "/_matrix/client/v3/account/whoami", &token, None).await?;
        let me: Value = serde_json::from_slice(&me)?;
        let user = me["user_id"].as_str().ok_or(Error::Missing("user_id"))?;
        let server = user.split_once(':').ok_or(Error::Missing("server name"))?.1.to_owned();
        Ok(Self { target, link, token, server })
    }

    /// Joins a room of the peer.
    async fn join(&mut self, room: &str) -> Result<(), Error> {
        let via = room.split_once(':').map(|(_, server)| server).unwrap_or_default();
        let path = format!("/_matrix/client/v3/join/{}?via={via}&server_name={via}", encoded(room));
        self.link.call(Method::POST, &path, &self.token, Some(&json!({}))).await.map(drop)
    }

    /// How many are joined.
    async fn members(&mut self, room: &str) -> Result<usize, Error> {
        let path = format!("/_matrix/client/v3/rooms/{}/joined_members", encoded(room));
        let body = self.link.call(Method::GET, &path, &self.token, None).await?;
        let body: Value = serde_json::from_slice(&body)?;
        Ok(body["joined"].as_object().map(serde_json::Map::len).unwrap_or_default())
    }

    /// Whether an event can be read.
    async fn sees(&mut self, room: &str, event: &str) -> Result<bool, Error> {
        let path = format!("/_matrix/client/v3/rooms/{}/event/{}", encoded(room), encoded(event));
        Ok(self.link.answer(Method::GET, &path, &self.token, None).await?.0 == 200)
    }
}

fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// A transaction that is ready to be sent.
struct Sending {
    path: String,
    authorization: String,
    body: bytes::Bytes,
}

fn transaction(peer: &Peer, at: usize, destination: &str, pdus: &[Value]) -> Result<Sending, Error> {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let signer = &peer.signers[at % peer.signers.len()];
    let path =
        format!("/_matrix/federation/v1/send/{}-{}", hall::now(), NEXT.fetch_add(1, Ordering::Relaxed));
    let content = json!({ "origin": signer.name, "origin_server_ts": hall::now(), "pdus": pdus });
    let authorization = signer.authorization("PUT", &path, destination, &content)?;
    Ok(Sending { path, authorization, body: serde_json::to_vec(&content)?.into() })
}

/// Sends a transaction until it is taken.
async fn deliver(link: &mut Link, sending: &Sending) -> Result<(), Error> {
    let start = Instant::now();
    loop {
        let (status, body) = link
            .exchange(Method::PUT, &sending.path, Some(&sending.authorization), Some(sending.body.clone()))
            .await?;
        match status {
            200 => return Ok(()),
            429 if start.elapsed() < PATIENCE => sleep(Duration::from_millis(50)).await,
            _ => {
                return Err(Error::Refused {
                    method: Method::PUT,
                    path: sending.path.clone(),
                    status,
                    body: String::from_utf8_lossy(&body).into_owned(),
                });
            }
        }
    }
}

/// Runs all steps on each target and gives the rows of the table.
pub async fn run(
    targets: &[Target],
    peer: &Arc<Peer>,
    sizes: Sizes,
    only: Option<&str>,
) -> Vec<(String, Vec<Option<f64>>)> {
    let mut rows = Vec::new();
    macro_rules! steps {
        ($($name:literal: $step:expr),*) => {$(
            if only.is_none_or(|only| $name.contains(only)) {
                for (at, target) in targets.iter().enumerate() {
                    eprintln!("{}: {}", $name, target.name);
                    match $step(target, peer, sizes).await {
                        Ok(found) => note(&mut rows, targets.len(), at, found),
                        Err(error) => eprintln!("{}: {}: {error}", $name, target.name),
                    }
                }
            }
        )*};
    }
    steps!(
        "join_small": async |target, peer, sizes: Sizes| join(target, peer, sizes.of(1_000, 10)).await,
        "join_large": async |target, peer, sizes: Sizes| join(target, peer, sizes.of(10_000, 10)).await,
        "delivery": delivery,
        "inbound_one": async |target, peer, sizes| inbound(target, peer, sizes, 1).await,
        "inbound_many": async |target, peer, sizes| inbound(target, peer, sizes, usize::from(peer::SERVERS)).await
    );
    rows
}

/// The name of a room that no other target gets.
fn name(target: &Target, what: &str) -> String {
    format!("{what}-{}-{}", target.name.to_lowercase(), hall::now())
}

/// Joins a room of so many members that no server here is in.
async fn join(target: &Target, peer: &Arc<Peer>, members: usize) -> Result<Vec<Row>, Error> {
    let room = peer.open(&name(target, "hall"), members, 0)?;
    let mut guest = Guest::on(target, &format!("guest{members}")).await?;
    let meter = Meter::start(&target.pids)?;
    guest.join(&room).await?;
    let (_, answered) = meter.read()?;
    let mut link = target.link();
    target.send(&mut link, &guest.token, &encoded(&room), "hello").await?;
    let (_, usable) = meter.read()?;
    // The one who joined is a member too.
    while guest.members(&room).await? <= members {
        if meter.read()?.1 > PATIENCE.as_secs_f64() {
            return Err(Error::Missing("members of the room"));
        }
        sleep(LONG_LOOK).await;
    }
    let (_, complete) = meter.read()?;
    // What goes on behind the answer belongs to it.
    sleep(Duration::from_secs(3)).await;
    let (cpu, _) = meter.read()?;
    let what = format!("remote join of a room of {members}");
    Ok(vec![
        row(format!("{what}: answered, ms"), answered * MILLI),
        row(format!("{what}: first message sent, ms"), usable * MILLI),
        row(format!("{what}: all members known, ms"), complete * MILLI),
        row(format!("{what}, CPU ms"), cpu * MILLI),
    ])
}

/// Messages both ways at a fixed rate: from the peer to a `/sync`, and from a client to the peer.
async fn delivery(target: &Target, peer: &Arc<Peer>, sizes: Sizes) -> Result<Vec<Row>, Error> {
    let room = peer.open(&name(target, "delivery"), 10, 0)?;
    let mut guest = Guest::on(target, "listener").await?;
    guest.join(&room).await?;
    sleep(Duration::from_secs(2)).await;
    let total = sizes.of(RATE * 30, RATE * 3);
    let gap = Duration::from_secs(1) / RATE;
    let turn = |start: tokio::time::Instant, at: usize| start + gap * u32::try_from(at).unwrap_or(u32::MAX);

    // Inbound. The messages are signed before.
    let whose = target.name.to_lowercase();
    let mark = |way: &str, at: usize| format!("{way}-{whose}-{at}");
    let mut sendings = Vec::with_capacity(total);
    for at in 0..total {
        let pdu = said(peer, 0, &room, &format!("mark:{}", mark("in", at)))?;
        sendings.push(transaction(peer, 0, &guest.server, &[pdu.1])?);
    }
    let (mut since, _) = target.sync(&mut guest.link, &guest.token, None, 0, None).await?;
    let start = tokio::time::Instant::now() + Duration::from_millis(100);
    let (mut took, mut seen_last) = (Vec::with_capacity(total), false);
    let listening = async {
        // What a server that is late leaves out of an answer never comes: the last one ends it.
        while !seen_last {
            let (next, body) =
                target.sync(&mut guest.link, &guest.token, Some(&since), 30_000, Some(LONG_TIMELINE)).await?;
            let text = String::from_utf8_lossy(&body);
            for mark in text.split("mark:in").skip(1).filter_map(|rest| rest.split(' ').next()) {
                let at = mark.rsplit_once('-').and_then(|(_, at)| at.parse().ok());
                took.extend(at.map(|at: usize| turn(start, at).elapsed().as_secs_f64()));
                seen_last |= at == Some(total - 1);
            }
            since = next;
        }
        Ok::<_, Error>(())
    };
    let sending = async {
        let mut link = target.link();
        for (at, sending) in sendings.iter().enumerate() {
            sleep_until(turn(start, at)).await;
            deliver(&mut link, sending).await?;
        }
        Ok::<_, Error>(())
    };
    let meter = Meter::start(&target.pids)?;
    let both = futures::future::try_join(listening, sending);
    tokio::time::timeout(PATIENCE, both).await.map_err(|_| Error::Missing("messages"))??;
    let (cpu, _) = meter.read()?;
    let mut rows = vec![
        row("from a peer to /sync, ms p50", quantile(&mut took, 0.5) * MILLI),
        row("from a peer to /sync, ms p99", quantile(&mut took, 0.99) * MILLI),
        row("from a peer to /sync, CPU ms", cpu * MILLI / count(total)),
    ];

    // Outbound.
    let start = tokio::time::Instant::now() + Duration::from_millis(100);
    let meter = Meter::start(&target.pids)?;
    let mut link = target.link();
    for at in 0..total {
        sleep_until(turn(start, at)).await;
        target.send(&mut link, &guest.token, &encoded(&room), &format!("mark:{}", mark("out", at))).await?;
    }
    let mut took = Vec::with_capacity(total);
    for at in 0..total {
        let arrived = loop {
            match peer.arrival(&mark("out", at)) {
                Some(arrived) => break arrived,
                None if start.elapsed() > PATIENCE => return Err(Error::Missing("a message at the peer")),
                None => sleep(LOOK).await,
            }
        };
        took.push(arrived.saturating_duration_since(turn(start, at).into_std()).as_secs_f64());
    }
    let (cpu, _) = meter.read()?;
    rows.extend([
        row("from a client to a peer, ms p50", quantile(&mut took, 0.5) * MILLI),
        row("from a client to a peer, ms p99", quantile(&mut took, 0.99) * MILLI),
        row("from a client to a peer, CPU ms", cpu * MILLI / count(total)),
    ]);
    Ok(rows)
}

/// Messages a second that are sent where a server sends to many.
const FAST: u32 = 1_000;
/// Connections by which they are sent.
const SENDERS: usize = 8;
/// The label of the room, as servers that know labels read it.
const LABEL: &str = "Company INTERNAL";

/// Messages of one user, at a fixed rate, in a room with all servers of the peer, which may have a label.
pub async fn outbound(
    target: &Target,
    peer: &Arc<Peer>,
    sizes: Sizes,
    labelled: bool,
) -> Result<Vec<Row>, Error> {
    let servers = peer.signers.len();
    let (policy, class) = LABEL.split_once(' ').unwrap_or_default();
    let label = json!({ "io.postern.label": { "policy": policy, "class": class } });
    let create = if labelled { label } else { json!({}) };
    let room = peer.open_with(&name(target, "outbound"), servers + 1, 0, create)?;
    let mut guest = Guest::on(target, "speaker").await?;
    guest.join(&room).await?;
    sleep(Duration::from_secs(2)).await;
    let total = sizes.of(FAST * 20, FAST);
    let before = peer.heard_by_all();
    let meter = Meter::start(&target.pids)?;
    let start = tokio::time::Instant::now() + Duration::from_millis(100);
    let gap = Duration::from_secs(1) / FAST;
    let (path, token) = (encoded(&room), &guest.token);
    let senders = (0..SENDERS).map(|first| {
        let path = &path;
        async move {
            let mut link = target.link();
            for at in (first..total).step_by(SENDERS) {
                sleep_until(start + gap * u32::try_from(at).unwrap_or(u32::MAX)).await;
                target.send(&mut link, token, path, "said").await?;
            }
            Ok::<_, Error>(())
        }
    });
    futures::future::try_join_all(senders).await?;
    let (_, sent) = meter.read()?;
    while peer.heard_by_all() < before + total {
        if start.elapsed() > PATIENCE {
            return Err(Error::Missing("messages at the peers"));
        }
        sleep(LOOK).await;
    }
    let (cpu, heard) = meter.read()?;
    let what = format!("{total} messages to {servers} servers");
    Ok(vec![
        row(format!("{what}: sent, messages/s"), count(total) / sent),
        row(format!("{what}: all heard, s"), heard),
        row(format!("{what}: CPU ms of one"), cpu * MILLI / count(total)),
    ])
}

/// A message in a room of the peer: its id and itself.
fn said(peer: &Peer, at: usize, room: &str, text: &str) -> Result<(String, Value), Error> {
    let signer = &peer.signers[at % peer.signers.len()];
    let said = peer.with(room, |hall| {
        let id = hall.message(signer, text)?;
        let event = hall.told([&id]).pop().cloned().unwrap_or_default();
        Ok::<_, Unmade>((id, event))
    });
    Ok(said.ok_or(Error::Missing("room"))??)
}

/// Messages in as many rooms, each of another server, in full transactions, one after the other of each server.
async fn inbound(target: &Target, peer: &Arc<Peer>, sizes: Sizes, rooms: usize) -> Result<Vec<Row>, Error> {
    let mut guest = Guest::on(target, &format!("crowd{rooms}")).await?;
    let mut halls = Vec::new();
    for at in 0..rooms {
        let room = peer.open(&name(target, &format!("inbound{at}")), 100, at)?;
        guest.join(&room).await?;
        halls.push(room);
    }
    sleep(Duration::from_secs(3)).await;
    let most = sizes.of(20_000, 500);
    // How many a server gets follows from how long it takes for a few.
    let trial = Instant::now();
    flood(&mut guest, peer, &halls, TRIAL).await?;
    let all = (count(TRIAL) / trial.elapsed().as_secs_f64() * BUSY).min(count(most));
    let all = (0..most).take_while(|n| count(*n) < all).count().max(TRIAL);
    let (cpu, wall) = flood(&mut guest, peer, &halls, all).await?;
    let what = format!("inbound PDU of {rooms} room{}", if rooms == 1 { "" } else { "s" });
    let pdus = count(all.div_ceil(rooms) * rooms);
    Ok(vec![
        row(format!("{what}/s"), pdus / wall),
        row(format!("{what}, by core/s"), pdus / cpu),
        row(format!("{what}, CPU ms"), cpu * MILLI / pdus),
    ])
}

/// Sends so many PDUs and waits until the last of each room can be read: seconds of CPU and of wall time.
async fn flood(
    guest: &mut Guest<'_>,
    peer: &Arc<Peer>,
    halls: &[String],
    all: usize,
) -> Result<(f64, f64), Error> {
    let mut lanes = Vec::new();
    let mut last = Vec::new();
    for (at, room) in halls.iter().enumerate() {
        let mut pdus = Vec::new();
        let mut id = String::new();
        for n in 0..all.div_ceil(halls.len()) {
            let (this, pdu) = said(peer, at, room, &format!("number {n}"))?;
            id = this;
            pdus.push(pdu);
        }
        let sendings = pdus.chunks(PDUS).map(|pdus| transaction(peer, at, &guest.server, pdus));
        lanes.push(sendings.collect::<Result<Vec<_>, _>>()?);
        last.push((room.clone(), id));
    }
    let meter = Meter::start(&guest.target.pids)?;
    let lanes = lanes.iter().map(async |sendings| {
        let mut link = guest.target.link();
        for sending in sendings {
            deliver(&mut link, sending).await?;
        }
        Ok::<_, Error>(())
    });
    futures::future::try_join_all(lanes).await?;
    for (room, event) in &last {
        while !guest.sees(room, event).await? {
            if meter.read()?.1 > PATIENCE.as_secs_f64() {
                return Err(Error::Missing("the last PDU"));
            }
            sleep(LOOK).await;
        }
    }
    meter.read()
}
