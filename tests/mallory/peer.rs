//! The hostile server. It has a name, a key and rooms, and is honest and simple ([`crate::answers`]) unless a test says
//! what else to answer ([`Mallory::on`]), or sends what an honest server would not.

use crate::{
    answers,
    listen::{Answers, Asked, Reply, listen},
    room::{Pdu, Room, cosign, seal},
};
use postern_world::{Answer, Client, Method, Seat, Server, enc};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue,
    serde::{Base64, base64::Standard},
    signatures::{Ed25519KeyPair, KeyPair, sign_json},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::task::JoinHandle;

/// How often it is looked for what has to come, and the pause between two looks.
const LOOKS: usize = 1_500;
const PAUSE: Duration = Duration::from_millis(20);

type Script = Box<dyn Fn(&Asked) -> Option<Reply> + Send + Sync>;

/// What the server is made of.
pub struct Parts {
    pub name: String,
    pub pair: Ed25519KeyPair,
    rooms: Mutex<BTreeMap<String, Room>>,
    scripts: Mutex<Vec<(String, Script)>>,
    seen: Mutex<Vec<Asked>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Parts {
    pub fn rooms(&self) -> MutexGuard<'_, BTreeMap<String, Room>> {
        lock(&self.rooms)
    }

    fn answer(&self, asked: &Asked) -> Reply {
        lock(&self.seen).push(asked.clone());
        let scripted = lock(&self.scripts)
            .iter()
            .rev()
            .filter(|(endpoint, _)| asked.segments.contains(endpoint))
            .find_map(|(_, script)| script(asked));
        scripted.unwrap_or_else(|| answers::honest(self, asked))
    }

    /// The public key, base64.
    pub fn public_key(&self) -> String {
        Base64::<Standard, _>::new(self.pair.public_key().to_vec()).encode()
    }

    /// Signs JSON.
    pub fn signed(&self, value: Value) -> Value {
        self.signed_as(&self.name, value)
    }

    /// Signs JSON in somebody's name.
    pub fn signed_as(&self, name: &str, value: Value) -> Value {
        let mut object: CanonicalJsonObject = serde_json::from_value(value).unwrap();
        sign_json(name, &self.pair, &mut object).unwrap();
        serde_json::to_value(object).unwrap()
    }
}

/// A hostile server. It ends when this is dropped.
pub struct Mallory {
    pub parts: Arc<Parts>,
    task: JoinHandle<()>,
}

impl fmt::Debug for Mallory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mallory").field("name", &self.parts.name).finish_non_exhaustive()
    }
}

impl Drop for Mallory {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Mallory {
    pub fn new() -> Self {
        Self::at(&Seat::take())
    }

    /// One at a seat that others were told of before.
    pub fn at(seat: &Seat) -> Self {
        let pair = Ed25519KeyPair::from_der(&Ed25519KeyPair::generate(), "1".to_owned()).unwrap();
        Self::seated(seat, pair)
    }

    pub fn with_key(pair: Ed25519KeyPair) -> Self {
        Self::seated(&Seat::take(), pair)
    }

    fn seated(seat: &Seat, pair: Ed25519KeyPair) -> Self {
        let parts = Arc::new(Parts {
            name: seat.address.to_string(),
            pair,
            rooms: Mutex::default(),
            scripts: Mutex::default(),
            seen: Mutex::default(),
        });
        let answers: Answers = {
            let parts = parts.clone();
            Arc::new(move |asked| parts.answer(asked))
        };
        Self { task: listen(seat, answers), parts }
    }

    pub fn name(&self) -> &str {
        &self.parts.name
    }

    /// The id of a user.
    pub fn user(&self, localpart: &str) -> String {
        format!("@{localpart}:{}", self.name())
    }

    // ---- what is answered

    /// Answers requests with `endpoint` as a segment of their path by what `script` says, if it says something.
    pub fn on(&self, endpoint: &str, script: impl Fn(&Asked) -> Option<Reply> + Send + Sync + 'static) {
        lock(&self.parts.scripts).push((endpoint.to_owned(), Box::new(script)));
    }

    /// Answers requests to `endpoint` always with this.
    pub fn always(&self, endpoint: &str, reply: Reply) {
        self.on(endpoint, move |_| Some(reply.clone()));
    }

    /// Forgets what was said by [`Self::on`].
    pub fn be_honest(&self) {
        lock(&self.parts.scripts).clear();
    }

    /// The requests to `endpoint` that came.
    pub fn seen(&self, endpoint: &str) -> Vec<Asked> {
        let has = |asked: &&Asked| asked.segments.iter().any(|segment| segment == endpoint);
        lock(&self.parts.seen).iter().filter(has).cloned().collect()
    }

    /// All that any server ever asked or told, as text: paths, parameters, bodies.
    pub fn heard(&self) -> String {
        let mut all = String::new();
        for asked in lock(&self.parts.seen).iter() {
            all.extend(asked.segments.iter().flat_map(|segment| ["/", segment.as_str()]));
            all.extend(
                asked.query.iter().flat_map(|(name, value)| [" ", name.as_str(), "=", value.as_str()]),
            );
            all.push(' ');
            all.push_str(&String::from_utf8_lossy(&asked.body));
            all.push('\n');
        }
        all
    }

    // ---- requests

    /// The `Authorization` of a request with this content, which is canonical JSON.
    pub fn authorization(&self, to: &str, method: &Method, target: &str, content: Option<&str>) -> String {
        let text = |text: &str| Value::from(text).to_string();
        let content = content.map(|content| format!("\"content\":{content},")).unwrap_or_default();
        let signed = format!(
            "{{{content}\"destination\":{},\"method\":{},\"origin\":{},\"uri\":{}}}",
            text(to),
            text(method.as_str()),
            text(self.name()),
            text(target)
        );
        let sig = self.parts.pair.sign(signed.as_bytes()).base64();
        format!("X-Matrix origin=\"{}\",destination=\"{to}\",key=\"ed25519:1\",sig=\"{sig}\"", self.name())
    }

    /// A signed request whose body is this text, canonical JSON or not.
    pub fn ask_text(&self, server: &Server, method: Method, target: &str, body: Option<&str>) -> Answer {
        let authorization = self.authorization(server.name(), &method, target, body);
        self.ask_as(server, &method, target, &[&authorization], body)
    }

    /// A request with these `Authorization` headers.
    pub fn ask_as(
        &self,
        server: &Server,
        method: &Method,
        target: &str,
        authorization: &[&str],
        body: Option<&str>,
    ) -> Answer {
        let mut headers: Vec<(&str, &str)> =
            authorization.iter().map(|value| ("authorization", *value)).collect();
        if body.is_some() {
            headers.push(("content-type", "application/json"));
        }
        let sent = server.link().send(method, target, &headers, body.unwrap_or_default().to_owned());
        sent.unwrap_or_else(|error| panic!("{method} {target}: {error}"))
    }

    /// A signed request; the path is below `/_matrix/federation/` unless it begins with a slash.
    pub fn ask(&self, server: &Server, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let target =
            if path.starts_with('/') { path.to_owned() } else { format!("/_matrix/federation/{path}") };
        let body = body.map(canonical);
        self.ask_text(server, method, &target, body.as_deref())
    }

    pub fn get(&self, server: &Server, path: &str) -> Answer {
        self.ask(server, Method::GET, path, None)
    }

    pub fn put(&self, server: &Server, path: &str, body: &Value) -> Answer {
        self.ask(server, Method::PUT, path, Some(body))
    }

    pub fn post(&self, server: &Server, path: &str, body: &Value) -> Answer {
        self.ask(server, Method::POST, path, Some(body))
    }

    /// Sends a transaction.
    pub fn transact(&self, server: &Server, pdus: &[&Pdu], edus: &[Value]) -> Answer {
        let pdus: Vec<&Value> = pdus.iter().map(|pdu| &pdu.json).collect();
        let body = json!({
            "origin": self.name(),
            "origin_server_ts": crate::room::now_ms(),
            "pdus": pdus,
            "edus": edus,
        });
        self.put(server, &format!("v1/send/{}", number()), &body)
    }

    // ---- rooms

    /// A copy of a room.
    pub fn room(&self, id: &str) -> Room {
        self.parts.rooms().get(id).unwrap_or_else(|| panic!("mallory is not in {id}")).clone()
    }

    /// Changes a room as it is kept here.
    pub fn change_room<T>(&self, id: &str, change: impl FnOnce(&mut Room) -> T) -> T {
        change(self.parts.rooms().get_mut(id).unwrap_or_else(|| panic!("mallory is not in {id}")))
    }

    /// Adds hash and signature.
    pub fn seal(&self, room: &Room, json: Value) -> Pdu {
        seal(&room.version, self.name(), &self.parts.pair, json)
    }

    /// Adds this server's signature.
    pub fn cosign(&self, version: &str, json: &Value) -> Value {
        cosign(version, self.name(), &self.parts.pair, json)
    }

    /// A public room of `creator`.
    pub fn create_room(&self, creator: &str, version: &str) -> String {
        self.create_room_with(creator, version, json!({}), &[])
    }

    /// A public room with further content of its create event and further state.
    pub fn create_room_with(
        &self,
        creator: &str,
        version: &str,
        mut create: Value,
        state: &[(&str, &str, Value)],
    ) -> String {
        let rules = crate::room::rules(version);
        create["room_version"] = version.into();
        if !rules.authorization.use_room_create_sender {
            create["creator"] = creator.into();
        }
        let by_hash = rules.authorization.room_create_event_id_as_room_id;
        let id = format!("!{:016x}:{}", rand::random::<u64>(), self.name());
        let room = Room::new(&id, version);
        let mut event = room.draft(creator, "m.room.create", Some(""), create);
        if by_hash {
            event.as_object_mut().unwrap().remove("room_id");
        }
        let event = self.seal(&room, event);
        let id = if by_hash { event.id.replacen('$', "!", 1) } else { id };
        let mut room = Room::new(&id, version);
        room.add(&event);
        let users = if by_hash { json!({}) } else { json!({ creator: 100 }) };
        let mut all = vec![
            ("m.room.member", creator, json!({ "membership": "join" })),
            ("m.room.power_levels", "", json!({ "users": users, "invite": 0 })),
            ("m.room.join_rules", "", json!({ "join_rule": "public" })),
            ("m.room.history_visibility", "", json!({ "history_visibility": "shared" })),
        ];
        all.extend_from_slice(state);
        for (kind, key, content) in all {
            let event = self.seal(&room, room.draft(creator, kind, Some(key), content));
            room.add(&event);
        }
        self.parts.rooms().insert(id.clone(), room);
        id
    }

    /// Makes an event in a room, and keeps it.
    pub fn make(&self, room: &str, sender: &str, kind: &str, state_key: Option<&str>, content: Value) -> Pdu {
        self.change_room(room, |room| {
            let pdu = self.seal(room, room.draft(sender, kind, state_key, content));
            room.add(&pdu);
            pdu
        })
    }

    /// Makes a message.
    pub fn text(&self, room: &str, sender: &str, body: &str) -> Pdu {
        self.make(room, sender, "m.room.message", None, json!({ "msgtype": "m.text", "body": body }))
    }

    /// Sends an event that must be taken to be looked at, and is refused or not afterwards.
    #[track_caller]
    pub fn tell(&self, server: &Server, pdu: &Pdu) {
        let said = self.transact(server, &[pdu], &[]).ok();
        assert_eq!(said["pdus"][&pdu.id], json!({}), "{said}");
    }

    /// Makes a message, sends it and waits until `reader` sees it: all that was sent before is judged then.
    #[track_caller]
    pub fn say(&self, server: &Server, reader: &Client, room: &str, sender: &str) -> String {
        let pdu = self.text(room, sender, "an honest word");
        self.tell(server, &pdu);
        until(|| reader.event(room, &pdu.id).status() == 200, "an honest word arrives");
        pdu.id
    }

    /// Asks to join a room of `server`; what was answered last.
    pub fn try_join(&self, server: &Server, room: &str, user: &str) -> Answer {
        let versions: Vec<String> = (1..=12).map(|version| format!("ver={version}")).collect();
        let path = format!("v1/make_join/{}/{}?{}", enc(room), enc(user), versions.join("&"));
        let proposed = self.get(server, &path);
        if proposed.status() != 200 {
            return proposed;
        }
        let version = proposed["room_version"].as_str().unwrap().to_owned();
        let join = seal(&version, self.name(), &self.parts.pair, proposed["event"].clone());
        let answer = self.put(server, &format!("v2/send_join/{}/{}", enc(room), enc(&join.id)), &join.json);
        if answer.status() == 200 {
            let (id, said) = (room, answer.body());
            let join = Pdu { id: join.id.clone(), json: said["event"].clone() };
            let mut rooms = self.parts.rooms();
            match rooms.get_mut(id) {
                Some(room) if room.has(&join.id) || !room.ends.is_empty() => room.add(&join),
                _ => {
                    let room = Room::joined(id, &version, &said["state"], &said["auth_chain"], &join);
                    rooms.insert(id.to_owned(), room);
                }
            }
        }
        answer
    }

    /// Joins a room of `server`.
    #[track_caller]
    pub fn join(&self, server: &Server, room: &str, user: &str) {
        self.try_join(server, room, user).done();
    }

    /// Waits until a room here is as is waited for.
    #[track_caller]
    pub fn until(&self, room: &str, what: &str, shows: impl Fn(&Room) -> bool) {
        until(|| self.parts.rooms().get(room).is_some_and(&shows), what);
    }
}

/// Canonical JSON of a value without fractions.
pub fn canonical(value: &Value) -> String {
    let value = CanonicalJsonValue::try_from(value.clone()).expect("canonical JSON");
    serde_json::to_string(&value).unwrap()
}

/// A number no other call in this program gets.
pub fn number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Looks until something shows.
#[track_caller]
pub fn until(mut shows: impl FnMut() -> bool, what: &str) {
    for _ in 0..LOOKS {
        if shows() {
            return;
        }
        std::thread::sleep(PAUSE);
    }
    panic!("it does not come to this: {what}");
}

/// The line of a server's log about an event that says one of `words`; it is waited for.
#[track_caller]
pub fn fate(server: &Server, event: &str, words: &str) -> String {
    let mut found = None;
    until(
        || {
            found = server
                .log()
                .lines()
                .find(|line| line.contains(event) && line.contains(words))
                .map(str::to_owned);
            found.is_some()
        },
        &format!("the log says {words:?} about {event}"),
    );
    found.unwrap_or_default()
}
