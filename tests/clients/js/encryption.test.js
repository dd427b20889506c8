// End-to-end encryption with the Rust crypto of the SDK: rooms, cross-signing, verification, key backup.

import assert from "node:assert/strict";
import { after, before, beforeEach, afterEach, describe, test } from "node:test";
import { VerificationPhase } from "matrix-js-sdk/lib/crypto-api/verification.js";
import { Person, until } from "./people.js";
import { Server } from "./server.js";

describe("an encrypted conversation", () => {
    let server, ana, ben, room, guests;

    before(async () => {
        server = await Server.starts();
    });
    after(() => server.close());
    beforeEach(async () => {
        ana = await Person.registers(server, "ana");
        ben = await Person.registers(server, "ben");
        guests = [];
        room = await ana.makesRoom([ben], { encrypted: true });
    });
    afterEach(() => {
        for (const person of [ana, ben, ...guests]) person.leaves();
    });

    const elsewhere = async (person) => {
        const device = await person.logsInElsewhere();
        guests.push(device);
        return device;
    };
    const reads = (person, body) => until(() => person.texts(room).includes(body), `"${body}"`);
    /** What a client knows of another's device. */
    const trust = (person, other) => person.crypto.getDeviceVerificationStatus(other.id, other.device);

    /** Sets up cross-signing, secret storage and, if asked for, key backup, as a client does once for an account. */
    async function setsUp(person, { backup = false } = {}) {
        await person.setsUpCrossSigning();
        const recovery = await person.crypto.createRecoveryKeyFromPassphrase();
        await person.crypto.bootstrapSecretStorage({
            createSecretStorageKey: async () => recovery,
            setupNewKeyBackup: backup,
        });
        return recovery;
    }

    /** Both go through a verification by emoji, begun by `request`. */
    async function compareEmoji(one, other, request) {
        const received = await until(() => other.verificationRequests.at(-1), "the request to verify");
        await received.accept();
        await until(() => request.phase === VerificationPhase.Ready, "the request accepted");
        const verifiers = [await request.startVerification("m.sas.v1")];
        verifiers.push(await until(() => received.verifier, "the verification begun"));
        const shown = verifiers.map(
            (verifier) => new Promise((resolve) => verifier.once("show_sas", resolve)),
        );
        const done = verifiers.map((verifier) => verifier.verify());
        const callbacks = await Promise.all(shown);
        assert.equal(callbacks[0].sas.emoji.length, 7);
        assert.deepEqual(callbacks[0].sas.emoji, callbacks[1].sas.emoji);
        await Promise.all(callbacks.map((sas) => sas.confirm()));
        await Promise.all(done);
    }

    test("messages are read by the other, and the server holds only ciphertext", async () => {
        const sent = await ana.says(room, "meet me at noon");
        await reads(ben, "meet me at noon");
        const seen = await ben.sees(room, sent);
        assert.equal(seen.isEncrypted(), true);
        assert.equal(seen.isDecryptionFailure(), false);
        const stored = await ben.client.fetchRoomEvent(room, sent);
        assert.equal(stored.type, "m.room.encrypted");
        assert.ok(!JSON.stringify(stored).includes("noon"));
        await ben.says(room, "I will be there");
        await reads(ana, "I will be there");
    });

    test("threads, edits and reactions work on encrypted messages too", async () => {
        const root = await ana.says(room, "aples");
        await reads(ben, "aples");
        const edited = { msgtype: "m.text", body: "apples" };
        await ana.client.sendMessage(room, {
            ...edited,
            "m.new_content": edited,
            "m.relates_to": { rel_type: "m.replace", event_id: root },
        });
        await reads(ben, "apples");
        const reply = await ben.says(room, "red ones", root);
        const thread = await until(() => {
            const thread = ana.room(room).getThread(root);
            return thread?.replyToEvent?.getId() === reply && thread;
        }, "the thread");
        await until(() => thread.replyToEvent.getContent().body === "red ones", "the reply decrypted");
        await ben.client.sendEvent(room, "m.reaction", {
            "m.relates_to": { rel_type: "m.annotation", event_id: root, key: "🍎" },
        });
        await until(
            () =>
                ana
                    .room(room)
                    .getUnfilteredTimelineSet()
                    .relations.getChildEventsForEvent(root, "m.annotation", "m.reaction")
                    ?.getSortedAnnotationsByKey()?.[0]?.[0] === "🍎",
            "the reaction",
        );
    });

    test("an account's cross-signing keys are seen by others to sign its devices", async () => {
        await ana.says(room, "hello");
        await reads(ben, "hello");
        assert.equal(await ben.crypto.userHasCrossSigningKeys(ana.id, true), false);
        await setsUp(ana);
        assert.equal(await ana.crypto.isCrossSigningReady(), true);
        // The other client is told that keys changed, asks for them, and finds the signature.
        await until(async () => (await trust(ben, ana))?.signedByOwner, "the device signed by its owner");
        assert.equal((await trust(ben, ana)).crossSigningVerified, false);
        assert.equal(await ben.crypto.userHasCrossSigningKeys(ana.id), true);
    });

    test("new cross-signing keys take the password, and only the owner's", async () => {
        await setsUp(ana);
        const reset = (auth) =>
            ana.crypto.bootstrapCrossSigning({
                setupNewCrossSigning: true,
                authUploadDeviceSigningKeys: (upload) => upload(auth),
            });
        await assert.rejects(reset(null), { httpStatus: 401 });
        await assert.rejects(reset(ana.passwordStage({ password: "a wrong one" })), { httpStatus: 401 });
        const before = (await ben.client.downloadKeysForUsers([ana.id])).master_keys[ana.id].keys;
        await reset(ana.passwordStage());
        const now = (await ben.client.downloadKeysForUsers([ana.id])).master_keys[ana.id].keys;
        assert.notDeepEqual(now, before);
    });

    test("two people verify each other in their room, and see each other's devices as verified", async () => {
        await setsUp(ana);
        await setsUp(ben);
        await ana.crypto.userHasCrossSigningKeys(ben.id, true);
        await ben.crypto.userHasCrossSigningKeys(ana.id, true);
        const request = await ana.crypto.requestVerificationDM(ben.id, room);
        await compareEmoji(ana, ben, request);
        for (const [one, other] of [
            [ana, ben],
            [ben, ana],
        ]) {
            await until(async () => (await trust(one, other))?.crossSigningVerified, "the other's device verified");
            assert.equal((await one.crypto.getUserVerificationStatus(other.id)).isCrossSigningVerified(), true);
        }
        // A device that the owner signs later is trusted with it.
        const later = await elsewhere(ben);
        await until(async () => (await trust(ana, later)) !== null, "the new device");
        assert.equal((await trust(ana, later)).crossSigningVerified, false);
        for (const [id, key] of ben.secrets) later.secrets.set(id, key);
        await later.setsUpCrossSigning();
        await until(async () => (await trust(ana, later))?.crossSigningVerified, "the new device verified");
    });

    test("a new device that is verified by the first gets the account's secrets from it", async () => {
        await setsUp(ana);
        const phone = await elsewhere(ana);
        assert.equal((await phone.crypto.getCrossSigningStatus()).privateKeysCachedLocally.masterKey, false);
        await phone.crypto.userHasCrossSigningKeys(ana.id, true);
        // A client ignores requests of devices it does not know yet.
        await until(async () => (await trust(ana, phone)) !== null, "the new device");
        const request = await phone.crypto.requestOwnUserVerification();
        await compareEmoji(phone, ana, request);
        await until(
            async () => (await phone.crypto.getCrossSigningStatus()).privateKeysCachedLocally.masterKey,
            "the master key",
        );
        await until(async () => (await trust(ben, phone))?.signedByOwner, "the new device signed by its owner");
    });

    test("key backup gives a new device what was said before it came", async () => {
        const recovery = await setsUp(ana, { backup: true });
        assert.ok(await ana.crypto.getActiveSessionBackupVersion());
        const bodies = ["first", "second", "third"];
        await ana.says(room, bodies[0]);
        // A new session for each message: the backup has several.
        await ben.says(room, bodies[1]);
        await reads(ana, bodies[1]);
        await ana.crypto.forceDiscardSession(room);
        await ana.says(room, bodies[2]);
        await until(async () => (await ana.client.http.authedRequest("GET", "/room_keys/version")).count === 3, "three keys backed up");

        const phone = await elsewhere(ana);
        const last = await until(() => phone.room(room)?.getLiveTimeline().getEvents().at(-1), "the room");
        await until(() => last.isDecryptionFailure(), "a message without a key");
        phone.secrets.set([...ana.secrets.keys()][0], recovery.privateKey);
        await phone.crypto.loadSessionBackupPrivateKeyFromSecretStorage();
        const { imported, total } = await phone.crypto.restoreKeyBackup();
        assert.deepEqual([imported, total], [3, 3]);
        await until(() => bodies.every((body) => phone.texts(room).includes(body)), "all messages");
        assert.deepEqual(phone.texts(room), bodies);
    });

    test("a backup is kept across a kill of the server, and a deleted one is gone", async () => {
        await setsUp(ana, { backup: true });
        await ana.says(room, "kept");
        const info = async () => ana.client.http.authedRequest("GET", "/room_keys/version");
        const before = await until(async () => {
            const now = await info();
            return now.count === 1 && now;
        }, "the key backed up");
        await server.kill();
        await server.start();
        assert.deepEqual(await info(), before);
        await ana.crypto.deleteKeyBackupVersion(before.version);
        assert.equal(await ana.crypto.getKeyBackupInfo(), null);
    });
});
