// Threads, reactions, edits, redactions and receipts: what the other person's client shows.

import assert from "node:assert/strict";
import { after, before, beforeEach, afterEach, describe, test } from "node:test";
import { Person, until } from "./people.js";
import { Server } from "./server.js";

describe("a conversation", () => {
    let server, ana, ben, room;

    before(async () => {
        server = await Server.starts();
    });
    after(() => server.close());
    beforeEach(async () => {
        ana = await Person.registers(server, "ana");
        ben = await Person.registers(server, "ben");
        room = await ana.makesRoom([ben], { name: "Garden" });
    });
    afterEach(() => {
        ana.leaves();
        ben.leaves();
    });

    const relate = (rel_type, event_id, more = {}) => ({ "m.relates_to": { rel_type, event_id, ...more } });
    /** How many of each reaction an event has, and from whom, as a client shows it. */
    const reactions = (person, eventId) => {
        const relations = person
            .room(room)
            .getUnfilteredTimelineSet()
            .relations.getChildEventsForEvent(eventId, "m.annotation", "m.reaction");
        const shown = (relations?.getSortedAnnotationsByKey() ?? []).map(([key, events]) => [
            key,
            [...events].map((event) => event.getSender()).sort(),
        ]);
        return Object.fromEntries(shown.filter(([, senders]) => senders.length > 0));
    };

    test("replies in a thread are shown there and not in the room", async () => {
        const root = await ana.says(room, "shall we plant apples?");
        await ben.sees(room, root);
        const replies = [];
        for (const body of ["yes", "where?"]) replies.push(await ben.says(room, body, root));
        const thread = await until(() => {
            const thread = ana.room(room).getThread(root);
            return thread?.length === 2 && thread.events.length >= 2 && thread.hasCurrentUserParticipated && thread;
        }, "the thread with two replies");
        assert.equal(thread.rootEvent.getContent().body, "shall we plant apples?");
        assert.deepEqual(
            thread.events.map((event) => event.getId()).filter((id) => id !== root),
            replies,
        );
        assert.equal(thread.replyToEvent.getContent().body, "where?");
        assert.deepEqual(ana.texts(room), ["shall we plant apples?"]);
    });

    test("the list of threads has each with its latest reply, the latest thread first", async () => {
        const roots = [];
        for (const body of ["apples", "pears", "no thread"]) roots.push(await ana.says(room, body));
        await ana.says(room, "green ones", roots[1]);
        await ana.says(room, "red ones", roots[0]);
        await ana.says(room, "yellow ones", roots[0]);
        // A client that was not there while it happened learns all from the list.
        const elsewhere = await ben.logsInElsewhere();
        try {
            await until(() => elsewhere.room(room), "the room");
            await elsewhere.room(room).createThreadsTimelineSets();
            await elsewhere.room(room).fetchRoomThreads();
            const threads = await until(() => {
                const threads = elsewhere.room(room).getThreads();
                return threads.length === 2 && threads.every((thread) => thread.replyToEvent) && threads;
            }, "two threads");
            const shown = threads.map((thread) => [
                thread.rootEvent.getContent().body,
                thread.length,
                thread.replyToEvent.getContent().body,
                thread.hasCurrentUserParticipated,
            ]);
            assert.deepEqual(shown.sort(), [
                ["apples", 2, "yellow ones", false],
                ["pears", 1, "green ones", false],
            ]);
            const [all, mine] = elsewhere.room(room).threadsTimelineSets;
            const listed = (set) => set.getLiveTimeline().getEvents().map((event) => event.getId());
            // A timeline has the latest last.
            assert.deepEqual(listed(all), [roots[1], roots[0]]);
            assert.deepEqual(listed(mine), []);
        } finally {
            elsewhere.leaves();
        }
    });

    test("unread replies are counted for their thread until they are read there", async () => {
        const root = await ben.says(room, "who comes?");
        await ana.sees(room, root);
        const reply = await ana.says(room, "I do", root);
        await until(() => ben.room(room).getThreadUnreadNotificationCount(root) === 1, "one unread in the thread");
        assert.equal(ben.room(room).getRoomUnreadNotificationCount(), 0);
        await ben.client.sendReadReceipt(await ben.sees(room, reply));
        await until(() => ben.room(room).getThreadUnreadNotificationCount(root) === 0, "none unread in the thread");
    });

    test("reactions are counted for everyone, live and for a device that comes later", async () => {
        const message = await ana.says(room, "apple pie is ready");
        await ben.sees(room, message);
        const react = (person, key) =>
            person.client.sendEvent(room, "m.reaction", relate("m.annotation", message, { key }));
        await react(ben, "🥧");
        await react(ana, "🥧");
        const { event_id: taken } = await react(ben, "👎");
        const both = { "🥧": [ana.id, ben.id].sort() };
        for (const person of [ana, ben]) {
            await until(() => reactions(person, message)["👎"]?.length === 1, "the second reaction");
            assert.deepEqual(reactions(person, message), { ...both, "👎": [ben.id] });
        }
        await ben.client.redactEvent(room, taken);
        await until(() => !reactions(ana, message)["👎"], "the reaction taken back");
        assert.deepEqual(reactions(ana, message), both);
        const elsewhere = await ana.logsInElsewhere();
        try {
            await elsewhere.sees(room, message);
            assert.deepEqual(reactions(elsewhere, message), both);
        } finally {
            elsewhere.leaves();
        }
    });

    test("the same reaction cannot be given twice", async () => {
        const message = await ana.says(room, "once");
        const react = () => ben.client.sendEvent(room, "m.reaction", relate("m.annotation", message, { key: "👍" }));
        await react();
        await assert.rejects(react(), { errcode: "M_DUPLICATE_ANNOTATION" });
    });

    test("an edited message is shown with its new text, and its earlier texts can be looked up", async () => {
        const message = await ana.says(room, "dinner at sevn");
        await ben.sees(room, message);
        const edit = async (body) =>
            ana.client.sendMessage(room, {
                msgtype: "m.text",
                body: `* ${body}`,
                "m.new_content": { msgtype: "m.text", body },
                ...relate("m.replace", message),
            });
        await edit("dinner at seven");
        await edit("dinner at eight");
        await until(() => ben.texts(room).includes("dinner at eight"), "the edit");
        const shown = await ben.sees(room, message);
        assert.equal(shown.getOriginalContent().body, "dinner at sevn");
        const { events, originalEvent } = await ben.client.relations(room, message, "m.replace", "m.room.message");
        assert.equal(events.length, 2);
        assert.equal(originalEvent.getId(), message);
        // A device that comes later needs no edit in its timeline: the message has it aggregated.
        const elsewhere = await ben.logsInElsewhere();
        try {
            await elsewhere.sees(room, message);
            await until(() => elsewhere.texts(room)[0] === "dinner at eight", "the edit");
        } finally {
            elsewhere.leaves();
        }
    });

    test("a redacted message disappears for the other, with who took it away and why", async () => {
        const message = await ana.says(room, "a secret");
        await ben.sees(room, message);
        await ana.client.redactEvent(room, message, undefined, { reason: "said too much" });
        const gone = await until(async () => {
            const event = await ben.sees(room, message);
            return event.isRedacted() && event;
        }, "the redaction");
        assert.deepEqual(gone.getContent(), {});
        const because = gone.getUnsigned().redacted_because;
        assert.equal(because.sender, ana.id);
        assert.equal(because.content.reason, "said too much");
        const stored = await ben.client.fetchRoomEvent(room, message);
        assert.deepEqual(stored.content, {});
        assert.equal(stored.unsigned.redacted_because.event_id, because.event_id);
    });

    test("a read receipt is shown at the message the other has read last", async () => {
        const first = await ana.says(room, "one");
        const second = await ana.says(room, "two");
        for (const id of [first, second]) {
            await ben.client.sendReadReceipt(await ben.sees(room, id));
            const event = await ana.sees(room, id);
            await until(() => ana.room(room).getUsersReadUpTo(event).includes(ben.id), "the receipt");
        }
        const old = await ana.sees(room, first);
        assert.ok(!ana.room(room).getUsersReadUpTo(old).includes(ben.id));
        assert.equal(ana.room(room).hasUserReadEvent(ben.id, first), true);
    });

    test("a private read receipt clears the unread count and is shown to nobody", async () => {
        const message = await ana.says(room, "read me");
        await until(() => ben.room(room).getUnreadNotificationCount() === 1, "one unread");
        await ben.client.sendReadReceipt(await ben.sees(room, message), "m.read.private");
        const elsewhere = await ben.logsInElsewhere();
        try {
            await until(() => elsewhere.room(room)?.findEventById(message), "the message");
            assert.equal(elsewhere.room(room).getUnreadNotificationCount(), 0);
        } finally {
            elsewhere.leaves();
        }
        // What comes after it has arrived, so the receipt would have too.
        const after = await ben.says(room, "done");
        const event = await ana.sees(room, message);
        await ana.sees(room, after);
        assert.notEqual(ana.room(room).getEventReadUpTo(ben.id, true), message);
        assert.ok(!ana.room(room).getReceiptsForEvent(event).some((receipt) => receipt.userId === ben.id && receipt.type === "m.read.private"));
    });

    test("clients go on by themselves after the server was killed and started again", async () => {
        await ana.says(room, "before");
        await until(() => ben.texts(room).includes("before"), "the message");
        await server.kill();
        await server.start();
        await until(async () => ana.says(room, "after").then(() => true, () => false), "a message sent");
        await until(() => ben.texts(room).includes("after"), "what was said after the restart");
        assert.deepEqual(ben.texts(room), ["before", "after"]);
    });
});
