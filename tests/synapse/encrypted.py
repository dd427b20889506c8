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


async def talk(ana, ben):
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
    for one, other in ((ana, ben), (ben, ana)):
        await other.leaves_the_program()
        one.client.invalidate_outbound_session(room)
        await one.says(room, "while you were away")
        again = await other.starts_again()
        await again.sees_message(room, "while you were away")
        assert again.undecryptable(room) == [], again.undecryptable(room)
        ana, ben = (ana, again) if one is ana else (again, one)
    history = await ben.history(room)
    read = [event.body for event in history if isinstance(event, nio.RoomMessageText)]
    assert len(read) == 12, read
    return ana, ben


async def main(url, user, other_url, other_user, people_password):
    people.PASSWORD = people_password
    with tempfile.TemporaryDirectory(prefix="postern-nio.") as stores:
        everybody = [await logs_in(url, user, stores), await logs_in(other_url, other_user, stores)]
        try:
            everybody = await talk(*everybody)
        finally:
            for person in everybody:
                await person.leaves_the_program()


asyncio.run(main(*sys.argv[1:]))
