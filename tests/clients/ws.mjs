// What npm `graphql-ws`'s client makes of the server: one line of JSON, by scenario.
//   TOKEN=… BRIEF_TOKEN=… MODEL=… node ws.mjs URL
import { createClient } from "graphql-ws";
import WebSocket from "ws";
import { MISTAKES, QUERY, MUTATION, asked, heard, stream, told } from "./scenarios.mjs";

const url = process.argv[2];

function client(token, options = {}) {
  const connectionParams = { Authorization: `Bearer ${token}` };
  return createClient({ url, connectionParams, webSocketImpl: WebSocket, retryAttempts: 0, ...options });
}

async function pinged() {
  const pongs = new Promise((resolve) => {
    let left = 3;
    const pinging = client(process.env.TOKEN, { lazy: false, keepAlive: 20 });
    pinging.on("pong", (received) => {
      if (received && --left === 0) resolve(pinging);
    });
  });
  await (await pongs).dispose();
  return true;
}

// One socket for all of these, each with its id; what goes wrong in one is heard by it alone.
async function together() {
  const socket = client(process.env.TOKEN);
  let sockets = 0;
  socket.on("opened", () => (sockets += 1));
  const good = heard(socket, stream("Hi. [[tokens=40]] [[pace=10]]"));
  const others = Object.entries(MISTAKES).map(async ([name, query]) => [name, await heard(socket, { query })]);
  return { sockets: (await good, sockets), good: await good, ...Object.fromEntries(await Promise.all(others)) };
}

// The second operation under the id of the first closes the socket, for both.
async function sameId() {
  const socket = client(process.env.TOKEN, { generateID: () => "the-same" });
  const first = heard(socket, stream("Hi. [[tokens=5000]] [[pace=10]]", "same-id"), {});
  return Promise.all([first, heard(socket, { query: QUERY })]);
}

const expired = heard(client(process.env.BRIEF_TOKEN), stream("Hi. [[tokens=5000]] [[pace=20]]", "expired")); // while all else goes on
const mine = client(process.env.TOKEN, { lazyCloseTimeout: 1000 });
const results = {
  query: await heard(mine, { query: QUERY }),
  mutation: await heard(mine, { query: MUTATION, variables: asked("Hi. [[tokens=3]]") }),
  stream: await heard(mine, stream("Hi. [[tokens=5]]")),
  failing: await heard(mine, stream("Hi. [[400]]")),
  cancelled: await heard(mine, stream("Hi. [[tokens=5000]] [[pace=10]]", "cancelled"), { leaveAfter: 3 }),
  afterCancelled: await heard(mine, { query: QUERY }),
  together: await together(),
  pinged: await pinged(),
  expired: await expired,
  stranger: await heard(client("x.y.z"), { query: QUERY }),
  sameId: await sameId(),
};
console.log(JSON.stringify(results, told));
process.exit(0); // the idle socket of `mine` is not waited for
