"""Two people in an encrypted room: they verify each other, talk, send files, and lose nothing."""

import asyncio
import io
import os
import tempfile
import unittest

import nio
import people
from people import Person
from server import Server


class AnEncryptedRoom(unittest.IsolatedAsyncioTestCase):
    """Each test has two people whose devices verified each other, in a new encrypted room."""

    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        cls.addClassCleanup(cls.server.close)

    async def asyncSetUp(self):
        self.stores = tempfile.TemporaryDirectory(prefix="postern-nio.")
        self.addCleanup(self.stores.cleanup)
        self.ana = await self.person("ana")
        self.ben = await self.person("ben")
        self.room = await self.ana.makes_room(self.ben, encrypted=True)
        self.shown = await people.verify(self.ana, self.ben)
        for one, other in ((self.ana, self.ben), (self.ben, self.ana)):
            await one.until(lambda: one.device_of(other).verified, "the other's device verified")

    async def person(self, name):
        person = await Person.registers(self.server, name, self.stores.name)
        self.addAsyncCleanup(person.leaves_the_program)
        return person

    async def sends_file(self, person, data):
        answer, keys = await person.client.upload(
            io.BytesIO(data), content_type="image/png", filename="secret.png", encrypt=True, filesize=len(data)
        )
        self.assertIsInstance(answer, nio.UploadResponse)
        file = {**keys, "url": answer.content_uri}
        content = {"msgtype": "m.file", "body": "secret.png", "file": file, "info": {"size": len(data)}}
        return await person.sends(self.room, content)

    async def opens_file(self, person, event_id):
        event = await person.sees(self.room, nio.RoomEncryptedFile, lambda event: event.event_id == event_id)
        answer = await person.client.download(mxc=event.url)
        self.assertIsInstance(answer, nio.MemoryDownloadResponse)
        plain = nio.crypto.decrypt_attachment(answer.body, event.key["k"], event.hashes["sha256"], event.iv)
        return answer.body, plain

    async def test_two_devices_show_the_same_emoji_and_trust_each_other(self):
        self.assertEqual(len(self.shown[0]), 7)
        self.assertEqual(self.shown[0], self.shown[1])

    async def test_messages_arrive_decrypted_and_the_server_holds_only_ciphertext(self):
        sent = await self.ana.says(self.room, "meet me at noon")
        seen = await self.ben.sees_message(self.room, "meet me at noon")
        self.assertEqual(seen.event_id, sent)
        self.assertTrue(seen.decrypted)
        self.assertTrue(seen.verified)
        await self.ben.says(self.room, "I will be there")
        await self.ana.sees_message(self.room, "I will be there")
        stored = await self.ben.client.room_get_event(self.room, sent)
        self.assertEqual(stored.event.source["type"], "m.room.encrypted")
        self.assertNotIn("noon", str(stored.event.source))

    async def test_an_encrypted_file_arrives_with_the_same_bytes(self):
        # More than one piece of the server's.
        data = os.urandom(3_000_001)
        event_id = await self.sends_file(self.ana, data)
        stored, plain = await self.opens_file(self.ben, event_id)
        self.assertEqual(plain, data)
        self.assertEqual(len(stored), len(data))
        self.assertNotEqual(stored, data)

    async def test_a_device_that_was_not_verified_is_refused_until_someone_decides(self):
        eve = await self.person("eve")
        await self.ana.client.room_invite(self.room, eve.client.user_id)
        await eve.until(lambda: self.room in eve.client.invited_rooms, "the invitation")
        await eve.client.join(self.room)
        await self.ana.until(lambda: self.ana.device_of(eve), "the newcomer's device")
        with self.assertRaises(nio.OlmUnverifiedDeviceError):
            await self.ana.says(self.room, "is she who she says she is?")
        self.ana.client.blacklist_device(self.ana.device_of(eve))
        await self.ana.says(self.room, "not for her")
        await self.ben.sees_message(self.room, "not for her")
        await eve.sees(self.room, nio.MegolmEvent)
        self.assertEqual(eve.bodies(self.room), [])

    async def test_both_go_on_after_the_server_was_killed_and_nothing_is_lost(self):
        file = os.urandom(200_000)
        before = await self.sends_file(self.ana, file)
        texts = {person.name: [f"{person.name} {n}" for n in range(30)] for person in (self.ana, self.ben)}
        sent, half_way = [], asyncio.Event()

        async def talks(person):
            for text in texts[person.name]:
                sent.append((await person.says(self.room, text), text))
                if len(sent) == 20:
                    half_way.set()

        async def kills():
            await half_way.wait()
            await asyncio.to_thread(self.server.kill)
            await asyncio.to_thread(self.server.start)

        await asyncio.gather(talks(self.ana), talks(self.ben), kills())
        last = await self.sends_file(self.ben, file)
        everything = sorted(texts[self.ana.name] + texts[self.ben.name])
        for person in (self.ana, self.ben):
            await person.until(
                lambda: len(person.bodies(self.room)) >= len(everything), "all that was said"
            )
            self.assertEqual(sorted(person.bodies(self.room)), everything)
            self.assertEqual(person.undecryptable(self.room), [])
            seen = {event.event_id: event.body for event in person.events[self.room] if hasattr(event, "body")}
            for event_id, text in sent:
                self.assertEqual(seen[event_id], text)
        # Both saw the same order, and history has it too.
        self.assertEqual(self.ana.bodies(self.room), self.ben.bodies(self.room))
        history = await self.ana.history(self.room)
        told = [event.body for event in history if isinstance(event, nio.RoomMessageText)]
        self.assertEqual(told, self.ben.bodies(self.room))
        for reader, event_id in ((self.ben, before), (self.ana, last)):
            self.assertEqual((await self.opens_file(reader, event_id))[1], file)
        for one, other in ((self.ana, self.ben), (self.ben, self.ana)):
            self.assertTrue(one.device_of(other).verified)

    async def test_a_client_that_starts_again_from_its_store_reads_old_and_new(self):
        await self.ana.says(self.room, "before")
        await self.ben.sees_message(self.room, "before")
        await self.ben.leaves_the_program()
        await self.ana.says(self.room, "while away")
        # A new session of the room: its key waits for the device on the server.
        self.ana.client.invalidate_outbound_session(self.room)
        await self.ana.says(self.room, "while away, with a new key")
        await asyncio.to_thread(self.server.kill)
        await asyncio.to_thread(self.server.start)

        ben = await self.ben.starts_again()
        self.addAsyncCleanup(ben.leaves_the_program)
        await ben.sees_message(self.room, "while away, with a new key")
        self.assertEqual(ben.bodies(self.room), ["while away", "while away, with a new key"])
        self.assertEqual(ben.undecryptable(self.room), [])
        history = await ben.history(self.room)
        read = [event.body for event in history if isinstance(event, nio.RoomMessageText)]
        self.assertEqual(read, ["before", "while away", "while away, with a new key"])
        self.assertTrue(ben.device_of(self.ana).verified)
        await ben.says(self.room, "back again")
        await self.ana.sees_message(self.room, "back again")
