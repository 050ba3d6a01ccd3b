// The public audit of GraphQL over HTTP (npm `graphql-http`), with a token: one line of JSON, an array of results.
//   TOKEN=… node audit.mjs URL
import { auditServer } from "graphql-http";

const authorization = `Bearer ${process.env.TOKEN}`;
const results = await auditServer({
  url: process.argv[2],
  fetchFn: (url, init = {}) => fetch(url, { ...init, headers: { ...init.headers, authorization } }),
});
console.log(JSON.stringify(results.map(({ id, name, status, reason }) => ({ id, name, status, reason }))));
