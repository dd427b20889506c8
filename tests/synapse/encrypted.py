"""Two people on two servers verify each other and talk encrypted: URL and user id of both, and their password."""

import asyncio
import os
import sys
import tempfile
import types

import nio
import people
from people import Person


async def logs_in(url, user, stores):
    store = os.path.join(stores, user.split(":")[0][1:])
    os.mkdir(store)
    person = Person(types.SimpleNamespace(url=url), user, store)
    await person.logs_in()
    return person


async def talk(pair):
    ana, ben = pair
    room = await ana.makes_room(ben, encrypted=True)
    shown = await people.verify(ana, ben)
    assert len(shown[0]) == 7 and shown[0] == shown[1], shown
    for one, other in ((ana, ben), (ben, ana)):
        await one.until(lambda: one.device_of(other).verified, "the other's device verified")
    for n in range(5):
        for one, other in ((ana, ben), (ben, ana)):
            text = f"{n} from {one.name}"
            sent = await one.says(room, text)
            seen = await other.sees_message(room, text)
            assert seen.event_id == sent and seen.decrypted and seen.verified, seen
            stored = await other.stored(room, sent)
            assert stored["type"] == "m.room.encrypted" and text not in str(stored), stored
    # New keys, while one is away: they wait for the device on its server.
    for here, away in ((0, 1), (1, 0)):
        await pair[away].leaves_the_program()
        text = f"while {pair[away].name} was away"
        pair[here].client.invalidate_outbound_session(room)
        await pair[here].says(room, text)
        pair[away] = await pair[away].starts_again()
        await pair[away].sees_message(room, text)
        assert pair[away].undecryptable(room) == [], pair[away].undecryptable(room)
    for person in pair:
        history = await person.history(room)
        read = [event.body for event in history if isinstance(event, nio.RoomMessageText)]
        assert len(read) == 12, read


async def main(url, user, other_url, other_user, password):
    people.PASSWORD = password
    with tempfile.TemporaryDirectory(prefix="postern-nio.") as stores:
        pair = [await logs_in(url, user, stores), await logs_in(other_url, other_user, stores)]
        try:
            await talk(pair)
        finally:
            for person in pair:
                await person.leaves_the_program()


asyncio.run(main(*sys.argv[1:]))
