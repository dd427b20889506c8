// The list of rooms, as the other person's client shows it.

import assert from "node:assert/strict";
import { after, before, beforeEach, afterEach, describe, test } from "node:test";
import { Person, until } from "./people.js";
import { Server } from "./server.js";

describe("the room list", () => {
    let server, ana, ben;

    before(async () => {
        server = await Server.starts();
    });
    after(() => server.close());
    beforeEach(async () => {
        ana = await Person.registers(server, "ana");
        ben = await Person.registers(server, "ben");
    });
    afterEach(() => {
        ana.leaves();
        ben.leaves();
    });

    /** Names of joined rooms, the one with the latest event first. */
    const list = (person) =>
        person.client
            .getRooms()
            .filter((room) => room.getMyMembership() === "join")
            .sort((one, other) => other.getLastActiveTimestamp() - one.getLastActiveTimestamp())
            .map((room) => room.name);

    test("has rooms by their latest message, for a running client and for a new one", async () => {
        const rooms = [];
        for (const name of ["Attic", "Barn", "Cellar"]) rooms.push(await ana.makesRoom([ben], { name }));
        assert.deepEqual(list(ben), ["Cellar", "Barn", "Attic"]);
        await ana.says(rooms[0], "bats!");
        await until(() => list(ben)[0] === "Attic", "the room with the message on top");
        assert.deepEqual(list(ben), ["Attic", "Cellar", "Barn"]);
        const elsewhere = await ben.logsInElsewhere();
        try {
            await until(() => list(elsewhere).length === 3, "three rooms");
            assert.deepEqual(list(elsewhere), ["Attic", "Cellar", "Barn"]);
            assert.deepEqual(elsewhere.texts(rooms[0]), ["bats!"]);
        } finally {
            elsewhere.leaves();
        }
    });

    test("shows a room without a name by who is in it", async () => {
        await ana.client.setDisplayName("Ana Plum");
        const room = await ana.makesRoom([ben]);
        await until(() => ben.room(room).name === "Ana Plum", "the other's name");
        assert.equal(ana.room(room).name, ben.username);
    });

    test("counts what is unread and what mentions the reader", async () => {
        const room = await ana.makesRoom([ben], { name: "Attic" });
        await ana.says(room, "hello");
        await ana.client.sendMessage(room, {
            msgtype: "m.text",
            body: "Ben, look",
            "m.mentions": { user_ids: [ben.id] },
        });
        await until(() => ben.room(room).getUnreadNotificationCount("total") === 2, "two unread");
        assert.equal(ben.room(room).getUnreadNotificationCount("highlight"), 1);
        const last = ben.room(room).getLiveTimeline().getEvents().at(-1);
        await ben.client.sendReadReceipt(last);
        await until(() => ben.room(room).getUnreadNotificationCount("total") === 0, "none unread");
    });

    test("shows an invitation with the room's name and who invites, and lets go of a declined one", async () => {
        const { room_id: room } = await ana.client.createRoom({ name: "Attic", invite: [ben.id], is_direct: true });
        const invited = await until(() => ben.room(room), "the invitation");
        assert.equal(invited.getMyMembership(), "invite");
        assert.equal(invited.name, "Attic");
        assert.equal(invited.getDMInviter(), ana.id);
        await ben.client.leave(room);
        await until(() => ben.room(room)?.getMyMembership() === "leave", "the declined invitation");
        await until(() => ana.room(room).getMember(ben.id).membership === "leave", "the other declining");
    });

    test("follows tags and account data across devices", async () => {
        const room = await ana.makesRoom([ben], { name: "Attic" });
        const elsewhere = await ben.logsInElsewhere();
        try {
            await ben.client.setRoomTag(room, "m.favourite", { order: 0.25 });
            await until(() => elsewhere.room(room)?.tags["m.favourite"]?.order === 0.25, "the tag");
            await ben.client.setAccountData("m.direct", { [ana.id]: [room] });
            await until(() => elsewhere.client.getAccountData("m.direct")?.getContent()[ana.id]?.[0] === room, "direct chats");
        } finally {
            elsewhere.leaves();
        }
    });

    test("pages back through history to where the room began", async () => {
        const room = await ana.makesRoom([ben], { name: "Attic" });
        const bodies = Array.from({ length: 45 }, (_, n) => `line ${n}`);
        for (const body of bodies) await ana.says(room, body);
        const elsewhere = await ben.logsInElsewhere();
        try {
            const seen = await until(() => elsewhere.room(room), "the room");
            assert.ok(elsewhere.texts(room).length < bodies.length);
            await until(async () => {
                await elsewhere.client.scrollback(seen, 10);
                return seen.getLiveTimeline().getPaginationToken("b") === null;
            }, "the first event");
            assert.deepEqual(elsewhere.texts(room), bodies);
            assert.equal(seen.getLiveTimeline().getEvents()[0].getType(), "m.room.create");
        } finally {
            elsewhere.leaves();
        }
    });

    test("has the rooms of a space", async () => {
        const garden = await ana.makesRoom([ben], { name: "Garden" });
        const space = await ana.makesRoom([ben], { name: "House", creation_content: { type: "m.space" } });
        await ana.client.sendStateEvent(space, "m.space.child", { via: ["localhost"] }, garden);
        await until(() => ben.room(space).currentState.getStateEvents("m.space.child").length === 1, "the child");
        assert.equal(ben.room(space).isSpaceRoom(), true);
        const { rooms } = await ben.client.getRoomHierarchy(space);
        assert.deepEqual(
            rooms.map((room) => room.name),
            ["House", "Garden"],
        );
    });
});
