// What npm `graphql-sse`'s client (distinct connections mode) makes of the server: one line of JSON, by scenario.
//   TOKEN=… BRIEF_TOKEN=… MODEL=… node sse.mjs URL
import { createClient } from "graphql-sse";
import { MISTAKES, QUERY, MUTATION, asked, heard, stream, told } from "./scenarios.mjs";

const url = process.argv[2];

function client(token, options = {}) {
  return createClient({ url, headers: { authorization: `Bearer ${token}` }, retryAttempts: 0, ...options });
}

const expired = heard(client(process.env.BRIEF_TOKEN), stream("Hi. [[tokens=5000]] [[pace=20]]", "expired")); // while all else goes on
const mine = client(process.env.TOKEN);
const results = {
  query: await heard(mine, { query: QUERY }),
  mutation: await heard(mine, { query: MUTATION, variables: asked("Hi. [[tokens=3]]") }),
  stream: await heard(mine, stream("Hi. [[tokens=5]]")),
  failing: await heard(mine, stream("Hi. [[400]]")),
  cancelled: await heard(mine, stream("Hi. [[tokens=5000]] [[pace=10]]", "cancelled"), { leaveAfter: 3 }),
  expired: await expired,
  stranger: await heard(client("x.y.z"), { query: QUERY }),
};
for (const [name, query] of Object.entries(MISTAKES)) {
  results[name] = await heard(mine, { query });
}
console.log(JSON.stringify(results, told));
