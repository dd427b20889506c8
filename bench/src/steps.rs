//! The steps of a run. Each does the same work on whichever server it is given, and reports what it cost.

use crate::link::{Error, Link};
use crate::target::{Target, Until};
use crate::usage::{Meter, memory};
use futures::future::{try_join, try_join_all};
use http::Method;
use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tokio::time::{sleep, sleep_until};

/// One measured number: what it is, and the value. Less is better unless the name ends with "/s".
pub type Row = (String, f64);

/// The sizes of a run: those of the full run times `--scale`.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// The factor.
    pub scale: f64,
}

impl Sizes {
    /// `full` times the factor, at least `least`.
    pub fn of(self, full: u32, least: u32) -> usize {
        let scaled = (f64::from(full) * self.scale).round().max(f64::from(least));
        (0..).take_while(|n| f64::from(*n) < scaled).count()
    }

    /// How long a step that runs for a time runs.
    fn time(self) -> Duration {
        Duration::from_secs_f64((10.0 * self.scale).clamp(3.0, 30.0))
    }
}

/// Milliseconds of a second.
pub const MILLI: f64 = 1e3;
const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// A number of things, to divide by.
pub fn count(items: usize) -> f64 {
    u32::try_from(items).map_or(f64::NAN, f64::from)
}

/// The value below which `part` of all values lie.
pub fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = Sizes { scale: part }.of(u32::try_from(values.len()).unwrap_or(u32::MAX), 0);
    values.get(at.min(values.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// A row.
pub fn row(name: impl Into<String>, value: f64) -> Row {
    (name.into(), value)
}

/// Memory of a server before it has done anything.
pub async fn idle(target: &Target, _: Sizes) -> Result<Vec<Row>, Error> {
    Ok(vec![row("memory idle, MiB", memory(&target.pids)? / MEBIBYTE)])
}

/// Registers users, joins them to one room, then joins others to the full room, one after the other.
pub async fn join(target: &Target, sizes: Sizes) -> Result<Vec<Row>, Error> {
    const MORE: usize = 50;
    let (members, all) = (sizes.of(1000, 10), sizes.of(2000, 20).max(sizes.of(1000, 10) + MORE));
    let mut link = target.link();
    let owner = target.register(&mut link, "owner").await?;
    let hall = target.create(&mut link, &owner, "hall").await?;
    *target.owner.borrow_mut() = owner;
    *target.hall.borrow_mut() = hall.clone();
    let enlist = async |link: &mut Link, at: usize| {
        let token = target.register(link, &format!("user{at}")).await?;
        target.users.borrow_mut().push(token.clone());
        if at < members {
            target.join(link, &token, &hall).await?;
        }
        Ok(())
    };
    let meter = Meter::start(&target.pids)?;
    target.each(0..members, 8, enlist).await?;
    let (cpu, wall) = meter.read()?;
    target.each(members..all, 8, enlist).await?;
    let single = Meter::start(&target.pids)?;
    let later = target.users.borrow().iter().skip(members).take(MORE).cloned().collect::<Vec<_>>();
    let mut took =
        target.each(later, 1, async |link, token: String| target.join(link, &token, &hall).await).await?;
    let (single, _) = single.read()?;
    Ok(vec![
        row(format!("register and join {members} users, s"), wall),
        row(format!("register and join {members} users, CPU s"), cpu),
        row(format!("join of a room of {members}, CPU ms"), single * MILLI / count(took.len())),
        row(format!("join of a room of {members}, ms p50"), quantile(&mut took, 0.5) * MILLI),
    ])
}

/// Messages into one room, then into a hundred, as fast as the server takes them.
pub async fn send(target: &Target, sizes: Sizes) -> Result<Vec<Row>, Error> {
    let owner = target.owner.borrow().clone();
    let many = sizes.of(100, 5);
    target
        .each(0..=many, 4, async |link, at| {
            let room = target.create(link, &owner, &format!("room {at}")).await?;
            target.rooms.borrow_mut().push(room);
            Ok(())
        })
        .await?;
    let long = target.rooms.borrow_mut().pop().unwrap_or_default();
    *target.long.borrow_mut() = long.clone();
    let rooms = target.rooms.borrow().clone();
    let mut rows = Vec::new();
    for (rooms, connections) in [(vec![long], 32), (rooms, 128)] {
        let meter = Meter::start(&target.pids)?;
        let sent = target.flood(&rooms, connections, Until::Time(sizes.time())).await?;
        let (cpu, wall) = meter.read()?;
        let sent = u32::try_from(sent).map_or(f64::NAN, f64::from);
        let place = format!("{} room{}", rooms.len(), if rooms.len() == 1 { "" } else { "s" });
        rows.push(row(format!("messages to {place}/s"), sent / wall));
        rows.push(row(format!("message to {place}, CPU ms"), cpu * MILLI / sent));
    }
    Ok(rows)
}

/// When each marked message was due, and how long each took until a `/sync` told it.
#[derive(Debug, Default)]
struct Deliveries {
    due: RefCell<HashMap<String, Instant>>,
    took: RefCell<Vec<f64>>,
}

impl Deliveries {
    /// Notes the marks found in the answer of a `/sync`.
    fn arrived(&self, body: &[u8]) -> usize {
        let text = String::from_utf8_lossy(body);
        let mut found = 0;
        for mark in text.split("mark:").skip(1).filter_map(|rest| rest.split(' ').next()) {
            if let Some(due) = self.due.borrow().get(mark) {
                self.took.borrow_mut().push(due.elapsed().as_secs_f64());
                found += 1;
            }
        }
        found
    }
}

/// Syncs until `expected` marked messages have arrived.
async fn listen(
    target: &Target,
    token: &str,
    mut since: String,
    expected: usize,
    deliveries: &Deliveries,
) -> Result<(), Error> {
    let (mut link, mut seen) = (target.link(), 0);
    while seen < expected {
        let (next, body) = target.sync(&mut link, token, Some(&since), 30_000, None).await?;
        seen += deliveries.arrived(&body);
        since = next;
    }
    Ok(())
}

/// Messages at a fixed rate, and how long each takes from the moment it is due to the `/sync` of another member.
pub async fn delivery(target: &Target, sizes: Sizes) -> Result<Vec<Row>, Error> {
    let owner = target.owner.borrow().clone();
    let reader = target.user(0);
    let mut link = target.link();
    let mut rows = Vec::new();
    for rate in [20_u32, 200] {
        let room = target.create(&mut link, &owner, "delivery").await?;
        target.join(&mut link, &reader, &room).await?;
        let (since, _) = target.sync(&mut link, &reader, None, 0, None).await?;
        // No more than the timeline of one answer holds may fall between two of them, or some would not be seen.
        let total = sizes.of(rate * 10, rate * 3);
        let deliveries = Deliveries::default();
        let start = tokio::time::Instant::now() + Duration::from_millis(50);
        let gap = Duration::from_secs(1) / rate;
        let meter = Meter::start(&target.pids)?;
        let one = async |at: usize| {
            let due = start + gap * u32::try_from(at).unwrap_or(u32::MAX);
            sleep_until(due).await;
            let mark = format!("{rate}x{at}");
            deliveries.due.borrow_mut().insert(mark.clone(), due.into_std());
            Ok::<_, Error>(mark)
        };
        let sender = async |lane: usize| {
            let mut link = target.link();
            for at in (lane..total).step_by(SENDERS) {
                let mark = one(at).await?;
                target.send(&mut link, &owner, &room, &format!("mark:{mark}")).await?;
            }
            Ok::<_, Error>(())
        };
        let mut timed_out = false;
        let work = try_join(
            try_join_all((0..SENDERS).map(sender)),
            listen(target, &reader, since, total, &deliveries),
        );
        // A server that cannot follow the rate leaves gaps in the timeline: what it did tell is counted.
        if let Ok(done) = tokio::time::timeout(gap * u32::try_from(total).unwrap_or(0) * 3, work).await {
            done?;
        } else {
            timed_out = true;
        }
        let (cpu, _) = meter.read()?;
        let mut took = deliveries.took.into_inner();
        let late = if timed_out { f64::INFINITY } else { quantile(&mut took, 0.99) * MILLI };
        rows.push(row(
            format!("delivery at {rate} messages a second, ms p50"),
            quantile(&mut took, 0.5) * MILLI,
        ));
        rows.push(row(format!("delivery at {rate} messages a second, ms p99"), late));
        rows.push(row(format!("delivery at {rate} messages a second, CPU ms"), cpu * MILLI / count(total)));
    }
    Ok(rows)
}

/// Connections that send at a fixed rate, in turn.
const SENDERS: usize = 16;

/// One message to many members who wait, and what each of them costs while nothing happens.
pub async fn fan_out(target: &Target, sizes: Sizes) -> Result<Vec<Row>, Error> {
    const ROUNDS: usize = 5;
    let members = sizes.of(500, 10);
    let owner = target.owner.borrow().clone();
    let room = target.create(&mut target.link(), &owner, "fan-out").await?;
    let tokens: Vec<String> = (0..members).map(|at| target.user(at)).collect();
    let readers = RefCell::new(Vec::new());
    target
        .each(tokens, 8, async |link, token: String| {
            target.join(link, &token, &room).await?;
            let (since, _) = target.sync(link, &token, None, 0, None).await?;
            readers.borrow_mut().push((token, since));
            Ok(())
        })
        .await?;
    let readers = readers.into_inner();
    // Later joins have changed the room since: an idle poll starts where nothing is new.
    let current = RefCell::new(Vec::new());
    target
        .each(readers, 8, async |link, (token, since): (String, String)| {
            let (since, _) = target.sync(link, &token, Some(&since), 0, None).await?;
            current.borrow_mut().push((token, since));
            Ok(())
        })
        .await?;
    let readers = current.into_inner();
    // What was freed a moment ago is given back by then, and cannot hide what those who wait need.
    sleep(Duration::from_secs(15)).await;
    let before = memory(&target.pids)?;
    let deliveries = Deliveries::default();
    let listeners =
        readers.iter().map(|(token, since)| listen(target, token, since.clone(), ROUNDS, &deliveries));
    let sender = async {
        sleep(Duration::from_secs(3)).await;
        let waiting = memory(&target.pids)?;
        let meter = Meter::start(&target.pids)?;
        let mut link = target.link();
        for round in 0..ROUNDS {
            let mark = format!("f{round}");
            deliveries.due.borrow_mut().insert(mark.clone(), Instant::now());
            target.send(&mut link, &owner, &room, &format!("mark:{mark}")).await?;
            let wanted = (round + 1) * members;
            let start = Instant::now();
            while deliveries.took.borrow().len() < wanted && start.elapsed() < Duration::from_secs(60) {
                sleep(Duration::from_millis(20)).await;
            }
            // So that all wait again.
            sleep(Duration::from_millis(300)).await;
        }
        let (cpu, _) = meter.read()?;
        Ok((waiting, cpu))
    };
    let (_, (waiting, cpu)) = try_join(try_join_all(listeners), sender).await?;
    let mut took = deliveries.took.into_inner();
    Ok(vec![
        row(
            format!("memory a waiting /sync of {members}, KiB"),
            (waiting - before) / 1024.0 / count(members),
        ),
        row(format!("fan-out to {members}, ms p50"), quantile(&mut took, 0.5) * MILLI),
        row(format!("fan-out to {members}, ms p99"), quantile(&mut took, 0.99) * MILLI),
        row(format!("fan-out to {members}, CPU ms"), cpu * MILLI / count(ROUNDS)),
    ])
}

/// The first `/sync` of the owner of the hundred rooms. Each asks a little differently, so that no answer kept from
/// before is told again.
pub async fn first_sync(target: &Target, sizes: Sizes) -> Result<Vec<Row>, Error> {
    let rooms = sizes.of(100, 5);
    let tries = sizes.of(20, 5);
    let owner = target.owner.borrow().clone();
    // The owner is in rooms of other steps too, which are left out.
    let wanted: Vec<String> = target.rooms.borrow().iter().map(|room| format!("%22{room}%22")).collect();
    let meter = Meter::start(&target.pids)?;
    let mut took = target
        .each(0..tries, 1, async |link, at| {
            let filter = format!(
                "%7B%22room%22:%7B%22rooms%22:%5B{},%22!none{at}:localhost%22%5D%7D%7D",
                wanted.join(",")
            );
            target.sync(link, &owner, None, 0, Some(&filter)).await.map(drop)
        })
        .await?;
    let (cpu, _) = meter.read()?;
    Ok(vec![
        row(format!("first /sync of {rooms} rooms, ms p50"), quantile(&mut took, 0.5) * MILLI),
        row(format!("first /sync of {rooms} rooms, CPU ms"), cpu * MILLI / count(tries)),
    ])
}

/// Pages backwards through the room that got most messages, a hundred at a time.
pub async fn paging(target: &Target, sizes: Sizes) -> Result<Vec<Row>, Error> {
    let (owner, room) = (target.owner.borrow().clone(), target.long.borrow().clone());
    let from = RefCell::new(String::new());
    let meter = Meter::start(&target.pids)?;
    let mut took = target
        .each(0..sizes.of(100, 10), 1, async |link, _| {
            let mut path = format!("/_matrix/client/v3/rooms/{room}/messages?dir=b&limit=100");
            if !from.borrow().is_empty() {
                path.push_str(&format!("&from={}", from.borrow()));
            }
            let body = link.call(Method::GET, &path, &owner, None).await?;
            let page: serde_json::Value = serde_json::from_slice(&body)?;
            *from.borrow_mut() = page["end"].as_str().unwrap_or_default().to_owned();
            Ok(())
        })
        .await?;
    let (cpu, _) = meter.read()?;
    Ok(vec![
        row("/messages, page of 100, ms p50", quantile(&mut took, 0.5) * MILLI),
        row("/messages, page of 100, CPU ms", cpu * MILLI / count(took.len())),
    ])
}

/// State changes in a room of ten and in a room of two thousand members, and reading the state of the latter.
pub async fn state(target: &Target, sizes: Sizes) -> Result<Vec<Row>, Error> {
    let owner = target.owner.borrow().clone();
    let mut rows = Vec::new();
    let mut costs = Vec::new();
    let all = target.users.borrow().len();
    for members in [10, sizes.of(2000, 20).min(all)] {
        let room = target.create(&mut target.link(), &owner, "state").await?;
        let joining: Vec<String> = (0..members.saturating_sub(1)).map(|at| target.user(at)).collect();
        target.each(joining, 8, async |link, token: String| target.join(link, &token, &room).await).await?;
        let meter = Meter::start(&target.pids)?;
        let mut took = target
            .each(0..sizes.of(500, 50), 1, async |link, _| target.set_topic(link, &owner, &room).await)
            .await?;
        let (cpu, _) = meter.read()?;
        let cost = cpu * MILLI / count(took.len());
        costs.push(cost);
        rows.push(row(
            format!("state change in a room of {members}, ms p50"),
            quantile(&mut took, 0.5) * MILLI,
        ));
        rows.push(row(format!("state change in a room of {members}, CPU ms"), cost));
        if members > 10 {
            let path = format!("/_matrix/client/v3/rooms/{room}/state");
            let meter = Meter::start(&target.pids)?;
            let mut took = target
                .each(0..sizes.of(100, 20), 1, async |link, _| {
                    link.call(Method::GET, &path, &owner, None).await.map(drop)
                })
                .await?;
            let (cpu, _) = meter.read()?;
            rows.push(row(format!("/state of {members} members, ms p50"), quantile(&mut took, 0.5) * MILLI));
            rows.push(row(format!("/state of {members} members, CPU ms"), cpu * MILLI / count(took.len())));
        }
    }
    if let [small, large] = costs[..] {
        rows.push(row("state change, large room over small, CPU", large / small));
    }
    Ok(rows)
}

/// Memory after everything above.
pub async fn loaded(target: &Target, _: Sizes) -> Result<Vec<Row>, Error> {
    sleep(Duration::from_secs(3)).await;
    Ok(vec![row("memory after the load, MiB", memory(&target.pids)? / MEBIBYTE)])
}
