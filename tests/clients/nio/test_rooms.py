"""What people do in rooms without encryption, and what the others' clients make of it."""

import io
import tempfile
import unittest

import nio
from people import Person
from server import Server


class ARoom(unittest.IsolatedAsyncioTestCase):
    """Each test has two people in a new room."""

    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        cls.addClassCleanup(cls.server.close)

    async def asyncSetUp(self):
        self.stores = tempfile.TemporaryDirectory(prefix="postern-nio.")
        self.addCleanup(self.stores.cleanup)
        self.ana = await self.person("ana")
        self.ben = await self.person("ben")
        self.room = await self.ana.makes_room(self.ben, name="Garden")

    async def person(self, name):
        person = await Person.registers(self.server, name, self.stores.name)
        self.addAsyncCleanup(person.leaves_the_program)
        return person

    def room_of(self, person):
        return person.client.rooms[self.room]

    async def test_an_invitation_shows_who_invites_where_to_and_can_be_declined(self):
        eve = await self.person("eve")
        await self.ana.client.room_invite(self.room, eve.client.user_id)
        await eve.until(lambda: self.room in eve.client.invited_rooms, "the invitation")
        invited = eve.client.invited_rooms[self.room]
        self.assertEqual(invited.inviter, self.ana.client.user_id)
        self.assertEqual(invited.display_name, "Garden")
        seen = await self.ben.sees(
            self.room,
            nio.RoomMemberEvent,
            lambda event: event.state_key == eve.client.user_id and event.membership == "invite",
        )
        self.assertEqual(seen.sender, self.ana.client.user_id)
        await eve.client.room_leave(self.room)
        await self.ben.sees(
            self.room,
            nio.RoomMemberEvent,
            lambda event: event.state_key == eve.client.user_id and event.membership == "leave",
        )
        self.assertNotIn(eve.client.user_id, self.room_of(self.ben).users)

    async def test_who_is_kicked_is_out_and_can_come_back_only_invited(self):
        user = self.ben.client.user_id
        kicked = await self.ana.client.room_kick(self.room, user, reason="too loud")
        self.assertIsInstance(kicked, nio.RoomKickResponse)
        seen = await self.ana.sees(
            self.room,
            nio.RoomMemberEvent,
            lambda event: event.state_key == user and event.membership == "leave",
        )
        self.assertEqual(seen.content["reason"], "too loud")
        await self.ben.until(lambda: self.room in self.ben.left, "the end of the membership")
        refused = await self.ben.client.room_send(self.room, "m.reaction", {})
        self.assertEqual(refused.status_code, "M_FORBIDDEN")
        self.assertEqual((await self.ben.client.join(self.room)).status_code, "M_FORBIDDEN")
        await self.ana.client.room_invite(self.room, user)
        await self.ben.until(lambda: self.room in self.ben.client.invited_rooms, "the new invitation")
        self.assertIsInstance(await self.ben.client.join(self.room), nio.JoinResponse)
        await self.ana.says(self.room, "welcome back")
        await self.ben.sees_message(self.room, "welcome back")

    async def test_who_is_banned_cannot_be_invited_until_the_ban_is_lifted(self):
        user = self.ben.client.user_id
        await self.ana.client.room_ban(self.room, user, reason="enough")
        await self.ben.until(lambda: self.room in self.ben.left, "the ban")
        refused = await self.ana.client.room_invite(self.room, user)
        self.assertEqual(refused.status_code, "M_FORBIDDEN")
        await self.ana.client.room_unban(self.room, user)
        self.assertIsInstance(await self.ana.client.room_invite(self.room, user), nio.RoomInviteResponse)
        await self.ben.until(lambda: self.room in self.ben.client.invited_rooms, "the invitation")

    async def test_typing_is_shown_while_it_lasts(self):
        await self.ana.client.room_typing(self.room, True, timeout=30_000)
        await self.ben.until(
            lambda: self.room_of(self.ben).typing_users == [self.ana.client.user_id], "typing"
        )
        await self.ana.client.room_typing(self.room, False)
        await self.ben.until(lambda: self.room_of(self.ben).typing_users == [], "the end of typing")

    async def test_the_writer_sees_how_far_the_reader_has_read(self):
        first = await self.ana.says(self.room, "first")
        second = await self.ana.says(self.room, "second")
        await self.ben.sees_message(self.room, "second")
        user = self.ben.client.user_id
        for event in (first, second):
            await self.ben.client.update_receipt_marker(self.room, event, thread_id=None)
            await self.ana.until(
                lambda: user in self.room_of(self.ana).read_receipts
                and self.room_of(self.ana).read_receipts[user].event_id == event,
                "the receipt",
            )
        await self.ben.client.room_read_markers(self.room, second, second)
        await self.ben.until(
            lambda: self.room_of(self.ben).fully_read_marker == second, "their own read marker"
        )

    async def test_unread_messages_are_counted_until_they_are_read(self):
        await self.ana.says(self.room, "one")
        last = await self.ana.says(self.room, f"two, {self.ben.name}")
        await self.ben.until(lambda: self.room_of(self.ben).unread_notifications == 2, "two unread")
        await self.ben.client.update_receipt_marker(self.room, last, thread_id=None)
        await self.ben.until(lambda: self.room_of(self.ben).unread_notifications == 0, "none unread")

    async def test_a_redacted_message_is_gone_for_the_other_also_from_history(self):
        event_id = await self.ana.says(self.room, "oops")
        await self.ben.sees_message(self.room, "oops")
        await self.ana.client.room_redact(self.room, event_id, reason="a slip")
        redaction = await self.ben.sees(self.room, nio.RedactionEvent)
        self.assertEqual((redaction.redacts, redaction.reason), (event_id, "a slip"))
        history = await self.ben.history(self.room)
        gone = [event for event in history if event.event_id == event_id]
        self.assertIsInstance(gone[0], nio.RedactedEvent)
        self.assertEqual(gone[0].redacter, self.ana.client.user_id)
        self.assertNotIn("oops", str([event.source for event in history]))

    async def test_history_is_paged_back_to_the_first_event_without_gap_or_repetition(self):
        sent = [await self.ana.says(self.room, f"line {n}") for n in range(47)]
        await self.ben.sees_message(self.room, "line 46")
        history = await self.ben.history(self.room, page=10)
        self.assertEqual([event.event_id for event in history if isinstance(event, nio.RoomMessageText)], sent)
        self.assertIsInstance(history[0], nio.RoomCreateEvent)
        ids = [event.event_id for event in history]
        self.assertEqual(len(ids), len(set(ids)))
        around = await self.ben.client.room_context(self.room, sent[20], limit=4)
        self.assertEqual([event.event_id for event in around.events_before], [sent[19], sent[18]])
        self.assertEqual([event.event_id for event in around.events_after], [sent[21], sent[22]])

    async def test_name_topic_and_power_reach_the_others_and_can_be_read(self):
        await self.ana.client.room_put_state(self.room, "m.room.name", {"name": "Orchard"})
        await self.ana.client.room_put_state(self.room, "m.room.topic", {"topic": "apples"})
        await self.ben.until(
            lambda: (self.room_of(self.ben).name, self.room_of(self.ben).topic) == ("Orchard", "apples"),
            "the new name and topic",
        )
        refused = await self.ben.client.room_put_state(self.room, "m.room.name", {"name": "Mine"})
        self.assertEqual(refused.status_code, "M_FORBIDDEN")
        levels = (await self.ana.client.room_get_state_event(self.room, "m.room.power_levels")).content
        levels["users"] = {**levels.get("users", {}), self.ben.client.user_id: 50}
        await self.ana.client.room_put_state(self.room, "m.room.power_levels", levels)
        await self.ben.until(
            lambda: self.room_of(self.ben).power_levels.users.get(self.ben.client.user_id) == 50, "power"
        )
        await self.ben.client.room_put_state(self.room, "m.room.name", {"name": "Ours"})
        await self.ana.until(lambda: self.room_of(self.ana).name == "Ours", "the name the other gave")
        state = await self.ana.client.room_get_state(self.room)
        names = [event["content"]["name"] for event in state.events if event["type"] == "m.room.name"]
        self.assertEqual(names, ["Ours"])

    async def test_a_picture_and_its_thumbnail_arrive(self):
        answer, _ = await self.ana.client.upload(
            io.BytesIO(PNG), content_type="image/png", filename="red.png", filesize=len(PNG)
        )
        await self.ana.sends(
            self.room, {"msgtype": "m.image", "body": "red.png", "url": answer.content_uri}
        )
        seen = await self.ben.sees(self.room, nio.RoomMessageImage)
        downloaded = await self.ben.client.download(mxc=seen.url)
        self.assertEqual(downloaded.body, PNG)
        self.assertEqual((downloaded.content_type, downloaded.filename), ("image/png", "red.png"))
        server, media = seen.url.removeprefix("mxc://").split("/")
        small = await self.ben.client.thumbnail(server, media, 32, 32)
        self.assertIsInstance(small, nio.ThumbnailResponse)
        self.assertTrue(small.content_type.startswith("image/"))

    async def test_a_new_name_and_picture_of_a_person_reach_the_others(self):
        answer, _ = await self.ana.client.upload(io.BytesIO(PNG), content_type="image/png", filesize=len(PNG))
        await self.ana.client.set_displayname("Ana of the Garden")
        await self.ana.client.set_avatar(answer.content_uri)
        user = self.ana.client.user_id
        await self.ben.until(
            lambda: self.room_of(self.ben).users[user].display_name == "Ana of the Garden"
            and self.room_of(self.ben).users[user].avatar_url == answer.content_uri,
            "the profile",
        )
        profile = await self.ben.client.get_profile(user)
        self.assertEqual(
            (profile.displayname, profile.avatar_url), ("Ana of the Garden", answer.content_uri)
        )

    async def test_a_public_room_is_found_and_joined_by_its_alias(self):
        alias = f"park-{self.ana.name}"
        room = await self.ana.makes_room(
            alias=alias,
            name="Park",
            visibility=nio.RoomVisibility.public,
            preset=nio.RoomPreset.public_chat,
        )
        listed = await self.ben.client.list_public_rooms()
        self.assertIn(room, [found.room_id for found in listed.public_rooms])
        joined = await self.ben.client.join(f"#{alias}:localhost")
        self.assertEqual(joined.room_id, room)
        await self.ana.sees(
            room, nio.RoomMemberEvent, lambda event: event.state_key == self.ben.client.user_id
        )

    async def test_presence_and_its_message_reach_who_shares_a_room(self):
        await self.ana.client.set_presence("unavailable", "at lunch")
        user = self.ana.client.user_id
        await self.ben.until(
            lambda: self.room_of(self.ben).users[user].status_msg == "at lunch", "the status message"
        )

    async def test_a_room_that_was_upgraded_leads_to_its_successor(self):
        # nio copies power levels as they are, which suits versions up to 11 only.
        room = await self.ana.makes_room(self.ben, name="Old", room_version="10")
        answer = await self.ana.client.room_upgrade(room, "11")
        self.assertIsInstance(answer, nio.responses.RoomUpgradeResponse)
        tombstone = await self.ben.sees(room, nio.RoomUpgradeEvent)
        self.assertEqual(tombstone.replacement_room, answer.room_id)
        created = await self.ana.sees(answer.room_id, nio.RoomCreateEvent)
        self.assertEqual((created.room_version, created.source["content"]["predecessor"]["room_id"]), ("11", room))


def _png(width=64, height=64):
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + b"\xff\0\0" * width) * height
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


PNG = _png()
