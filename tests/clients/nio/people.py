"""People with a matrix-nio client each, whose sync loop runs, and what their clients have seen."""

import asyncio
import collections
import itertools
import os

import aiohttp
import nio

PASSWORD = "correct horse battery staple"
# Far more than anything takes; it only bounds a test that fails.
PATIENCE_SECONDS = 60
# A client sends what is pending, such as key queries, between two syncs.
SYNC_MS = 2_000

_numbers = itertools.count(1)


class Person:
    """One client of one person."""

    def __init__(self, server, name, store):
        config = nio.AsyncClientConfig(
            store=nio.store.SqliteStore, store_sync_tokens=True, encryption_enabled=True
        )
        self.server = server
        self.name = name
        self.store = store
        self.client = nio.AsyncClient(server.url, name, store_path=store, config=config)
        self.events = collections.defaultdict(list)
        self.started_verifications = []
        self.syncing = None
        self.client.add_event_callback(self._event, (nio.Event, nio.InviteEvent))
        self.client.add_to_device_callback(self._verification, nio.KeyVerificationStart)

    # ---- Coming and going

    @classmethod
    async def registers(cls, server, name, directory):
        """A new account, made with the registration token, and a first login with its password."""
        # Tests share a server, so that names have numbers.
        name = f"{name}{next(_numbers)}"
        store = os.path.join(directory, name)
        os.mkdir(store)
        person = cls(server, name, store)
        client = person.client
        begun = await client.register_interactive(name, PASSWORD, {"initial_device_display_name": "nio"})
        assert "m.login.registration_token" in begun.stages, begun
        done = await client.register_interactive(
            name,
            PASSWORD,
            {
                "type": "m.login.registration_token",
                "token": os.environ["POSTERN_TOKEN"],
                "session": begun.session,
            },
        )
        assert done.transport_response.status == 200, done
        await person.logs_in()
        return person

    async def logs_in(self):
        answer = await self.client.login(PASSWORD, device_name="nio")
        assert isinstance(answer, nio.LoginResponse), answer
        await self.starts_syncing()

    async def starts_syncing(self):
        self.syncing = asyncio.create_task(self._sync())
        await self.until(lambda: self.client.next_batch and not self.client.should_upload_keys, "the first sync")

    async def _sync(self):
        while True:
            try:
                await self.client.sync_forever(timeout=SYNC_MS, full_state=True)
            except aiohttp.ClientPayloadError:
                # An answer was cut off in the middle. nio leaves this to the application.
                continue

    async def leaves_the_program(self):
        """Ends the program, which keeps nothing but what is in its store."""
        if self.syncing:
            self.syncing.cancel()
            await asyncio.gather(self.syncing, return_exceptions=True)
        await self.client.close()

    async def starts_again(self):
        """The same device in a new run of the program, from its store."""
        again = Person(self.server, self.client.user_id, self.store)
        again.client.restore_login(self.client.user_id, self.client.device_id, self.client.access_token)
        await again.starts_syncing()
        return again

    # ---- What the client saw

    def _event(self, room, event):
        self.events[room.room_id].append(event)

    def _verification(self, event):
        self.started_verifications.append(event)

    async def until(self, seen, what):
        """Waits until `seen()` is something true, and gives it."""
        end = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        while not (found := seen()):
            if self.syncing and self.syncing.done():
                self.syncing.result()
            assert asyncio.get_running_loop().time() < end, f"{self.name} never saw {what}"
            await asyncio.sleep(0.02)
        return found

    def bodies(self, room):
        """The texts of messages in the order in which they came."""
        return [event.body for event in self.events[room] if isinstance(event, nio.RoomMessageText)]

    def undecryptable(self, room):
        return [event for event in self.events[room] if isinstance(event, nio.MegolmEvent)]

    async def sees(self, room, kind, what=lambda event: True):
        """The first event of a kind in a room for which `what` holds."""
        found = await self.until(
            lambda: [event for event in self.events[room] if isinstance(event, kind) and what(event)],
            f"{kind.__name__} in {room}",
        )
        return found[0]

    async def sees_message(self, room, body):
        return await self.sees(room, nio.RoomMessageText, lambda event: event.body == body)

    def device_of(self, other):
        """What this client knows of another's device."""
        return self.client.device_store[other.client.user_id].get(other.client.device_id)

    # ---- What they do

    async def makes_room(self, *guests, encrypted=False, **options):
        """A room in which the guests are members when it is returned, seen so by everyone's client."""
        if encrypted:
            state = {"type": "m.room.encryption", "state_key": ""}
            options["initial_state"] = [{**state, "content": {"algorithm": "m.megolm.v1.aes-sha2"}}]
        answer = await self.client.room_create(invite=[guest.client.user_id for guest in guests], **options)
        assert isinstance(answer, nio.RoomCreateResponse), answer
        room = answer.room_id
        for guest in guests:
            await guest.until(lambda: room in guest.client.invited_rooms, "the invitation")
            joined = await guest.client.join(room)
            assert isinstance(joined, nio.JoinResponse), joined
        everyone = {person.client.user_id for person in (self, *guests)}
        for person in (self, *guests):
            await person.until(
                lambda: room in person.client.rooms
                and everyone <= set(person.client.rooms[room].users)
                and not person.client.rooms[room].invited_users
                and person.client.rooms[room].encrypted == encrypted,
                "everyone in the room",
            )
        return room

    async def says(self, room, body):
        """Sends a text, encrypted where the room is. Gives the event's id."""
        return await self.sends(room, {"msgtype": "m.text", "body": body})

    async def sends(self, room, content, kind="m.room.message"):
        answer = await self.client.room_send(room, kind, content)
        assert isinstance(answer, nio.RoomSendResponse), answer
        return answer.event_id

    async def history(self, room, page=10):
        """All of a room's events, paged through backwards, oldest first."""
        events, start = [], None
        while True:
            answer = await self.client.room_messages(room, start, limit=page)
            assert isinstance(answer, nio.RoomMessagesResponse), answer
            events += answer.chunk
            if not answer.end:
                return events[::-1]
            start = answer.end


async def verify(one, other):
    """Two devices compare a short authentication string. Gives what each showed to its person."""
    for person, peer in ((one, other), (other, one)):
        await person.until(lambda: person.device_of(peer), "the other's device")
        assert not person.device_of(peer).verified
    begun = await one.client.start_key_verification(one.device_of(other))
    assert isinstance(begun, nio.ToDeviceResponse), begun
    start = (await other.until(lambda: other.started_verifications, "the request to verify"))[-1]
    accepted = await other.client.accept_key_verification(start.transaction_id)
    assert isinstance(accepted, nio.ToDeviceResponse), accepted
    shown = []
    for person in (one, other):
        sas = person.client.key_verifications[start.transaction_id]
        await person.until(lambda: sas.established_sas, "the other's key")
        shown.append(sas.get_emoji())
    if shown[0] == shown[1]:
        for person in (one, other):
            confirmed = await person.client.confirm_short_auth_string(start.transaction_id)
            assert isinstance(confirmed, nio.ToDeviceResponse), confirmed
    return shown
