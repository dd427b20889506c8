// People with a matrix-js-sdk client each, which syncs, and what their clients show.

import "./runtime.js";
import assert from "node:assert/strict";
import * as sdk from "matrix-js-sdk";
import { CryptoEvent } from "matrix-js-sdk/lib/crypto-api/CryptoEvent.js";

const PASSWORD = "correct horse battery staple";
// Far more than anything takes; it only bounds a test that fails.
const PATIENCE_MS = 30_000;
const POLL_MS = 20;

// The SDK tells much; what went wrong is in the failed assertion.
if (!process.env.POSTERN_CLIENT_LOG) {
    for (const level of ["trace", "debug", "info", "warn", "error"]) console[level] = () => {};
}

let numbers = 0;

/** Waits until `seen()` gives something true (or a promise of it), and returns that. */
export async function until(seen, what) {
    const deadline = Date.now() + PATIENCE_MS;
    for (;;) {
        const found = await seen();
        if (found) return found;
        if (Date.now() > deadline) assert.fail(`never seen: ${what}`);
        await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
}

/**
 * `fetch` for one client, for which an answer to /sync waits for those to messages being sent. The SDK takes a reply in
 * a thread that comes back by /sync before the server has answered its sending for one that was not sent.
 */
function inOrder() {
    const sending = new Set();
    return async (url, options) => {
        const request = fetch(url, options);
        const { pathname } = new URL(url);
        if (pathname.includes("/send/")) {
            sending.add(request);
            const done = () => setTimeout(() => sending.delete(request));
            request.then(done, done);
        } else if (pathname.endsWith("/sync")) {
            await request;
            while (sending.size > 0) await new Promise((resolve) => setTimeout(resolve, 1));
        }
        return request;
    };
}

/** One client of one person. */
export class Person {
    /** A new account, made with the registration token. */
    static async registers(server, name) {
        // Tests share a server, so that names have numbers.
        const username = `${name}${++numbers}`;
        const anyone = sdk.createClient({ baseUrl: server.url });
        const begin = anyone.registerRequest({ username, password: PASSWORD });
        const asked = await begin.then(() => assert.fail("no token was asked for"), (error) => error);
        assert.equal(asked.httpStatus, 401);
        assert.deepEqual(asked.data.flows, [{ stages: ["m.login.registration_token"] }]);
        const account = await anyone.registerRequest({
            username,
            password: PASSWORD,
            auth: {
                type: "m.login.registration_token",
                token: process.env.POSTERN_TOKEN,
                session: asked.data.session,
            },
        });
        return Person.#with(server, username, account);
    }

    /** Another device of the same person, by password. */
    async logsInElsewhere() {
        const anyone = sdk.createClient({ baseUrl: this.server.url });
        const account = await anyone.loginRequest({
            type: "m.login.password",
            identifier: { type: "m.id.user", user: this.username },
            password: PASSWORD,
        });
        return Person.#with(this.server, this.username, account);
    }

    static async #with(server, username, account) {
        const person = new Person();
        person.server = server;
        person.username = username;
        person.secrets = new Map();
        person.verificationRequests = [];
        person.client = sdk.createClient({
            baseUrl: server.url,
            userId: account.user_id,
            deviceId: account.device_id,
            accessToken: account.access_token,
            fetchFn: inOrder(),
            cryptoCallbacks: {
                getSecretStorageKey: async ({ keys }) => {
                    const known = Object.keys(keys).find((id) => person.secrets.has(id));
                    return known ? [known, person.secrets.get(known)] : null;
                },
                cacheSecretStorageKey: (id, _description, key) => person.secrets.set(id, key),
            },
        });
        await person.client.initRustCrypto({ useIndexedDB: false });
        person.client.on(CryptoEvent.VerificationRequestReceived, (request) =>
            person.verificationRequests.push(request),
        );
        await person.client.startClient({ initialSyncLimit: 20, threadSupport: true, lazyLoadMembers: true });
        await until(() => person.client.getSyncState() === sdk.SyncState.Syncing, "the first sync");
        return person;
    }

    leaves() {
        this.client.stopClient();
    }

    get id() {
        return this.client.getUserId();
    }

    get device() {
        return this.client.getDeviceId();
    }

    get crypto() {
        return this.client.getCrypto();
    }

    /** The stage of an interactive authentication that takes the password. */
    passwordStage(more = {}) {
        return {
            type: "m.login.password",
            identifier: { type: "m.id.user", user: this.username },
            password: PASSWORD,
            ...more,
        };
    }

    /** Makes the account's cross-signing keys, or fetches them from secret storage, and signs this device. */
    async setsUpCrossSigning() {
        await this.crypto.bootstrapCrossSigning({
            authUploadDeviceSigningKeys: async (upload) => {
                try {
                    await upload(null);
                } catch (error) {
                    assert.equal(error.httpStatus, 401);
                    await upload(this.passwordStage({ session: error.data.session }));
                }
            },
        });
    }

    /** What this client knows of a room. */
    room(roomId) {
        return this.client.getRoom(roomId);
    }

    /** A room in which the guests are members when it is returned, seen so by everyone's client. */
    async makesRoom(guests, { encrypted = false, ...options } = {}) {
        const initial_state = encrypted
            ? [{ type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } }]
            : [];
        const invite = guests.map((guest) => guest.id);
        const { room_id: roomId } = await this.client.createRoom({ invite, initial_state, ...options });
        for (const guest of guests) {
            await until(() => guest.room(roomId)?.getMyMembership() === "invite", "the invitation");
            await guest.client.joinRoom(roomId);
        }
        for (const person of [this, ...guests]) {
            await until(
                async () =>
                    person.room(roomId)?.getMyMembership() === "join" &&
                    person.room(roomId).getJoinedMemberCount() === guests.length + 1 &&
                    (!encrypted || (await person.crypto.isEncryptionEnabledInRoom(roomId))),
                "everyone in the room",
            );
        }
        return roomId;
    }

    /** Sends a text, encrypted where the room is. Gives the event's id. */
    async says(roomId, body, threadId = null) {
        const content = { msgtype: "m.text", body };
        return (await this.client.sendMessage(roomId, threadId, content)).event_id;
    }

    /** Waits for an event in a room's timeline or in one of its threads, decrypted. */
    async sees(roomId, eventId) {
        return until(async () => {
            const event = this.room(roomId)?.findEventById(eventId);
            if (event?.isBeingDecrypted()) await event.getDecryptionPromise();
            return event;
        }, `event ${eventId}`);
    }

    /** The texts of a room as this client shows them: edits applied, what was redacted left out. */
    texts(roomId) {
        return this.room(roomId)
            .getLiveTimeline()
            .getEvents()
            .filter((event) => event.getType() === "m.room.message" && !event.isRedacted())
            .map((event) => event.getContent().body);
    }
}
