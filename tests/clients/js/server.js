// A server of its own for each file of tests, which can be killed and started again on the same data.

import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";

const READY_MS = 60_000;
const STOP_MS = 30_000;

async function freePort() {
    const socket = net.createServer().listen(0, "127.0.0.1");
    await once(socket, "listening");
    const { port } = socket.address();
    socket.close();
    await once(socket, "close");
    return port;
}

export class Server {
    static async starts() {
        const server = new Server();
        server.directory = fs.mkdtempSync(path.join(os.tmpdir(), "postern-js."));
        server.port = await freePort();
        server.url = `http://127.0.0.1:${server.port}`;
        await server.start();
        return server;
    }

    /** Starts it, and returns when it takes requests. */
    async start() {
        const logFile = path.join(this.directory, "log");
        const log = fs.openSync(logFile, "a");
        this.process = spawn(process.env.POSTERN_SERVE, [this.directory, String(this.port)], {
            stdio: ["ignore", log, log],
        });
        fs.closeSync(log);
        this.ended = once(this.process, "exit");
        const deadline = Date.now() + READY_MS;
        for (;;) {
            const answer = await fetch(`${this.url}/_postern/health/ready`).catch(() => undefined);
            await answer?.arrayBuffer();
            if (answer?.ok) return;
            if (this.process.exitCode !== null || Date.now() > deadline) {
                await this.stop();
                throw new Error(`the server did not become ready:\n${fs.readFileSync(logFile, "utf8")}`);
            }
            await new Promise((resolve) => setTimeout(resolve, 50));
        }
    }

    /** Ends it as a power cut would: with SIGKILL. */
    async kill() {
        this.process.kill("SIGKILL");
        await this.ended;
    }

    /** Ends it in order. */
    async stop() {
        this.process.kill("SIGTERM");
        const late = setTimeout(() => this.process.kill("SIGKILL"), STOP_MS);
        await this.ended;
        clearTimeout(late);
    }

    /** Ends it and removes its data. */
    async close() {
        await this.stop();
        if (process.env.POSTERN_KEEP) console.log(`kept: ${this.directory}`);
        else fs.rmSync(this.directory, { recursive: true });
    }
}
