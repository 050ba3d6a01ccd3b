import completion from "./examples/completion.graphql?raw";
import config from "./examples/config.graphql?raw";
import stream from "./examples/stream.graphql?raw";
import usage from "./examples/usage.graphql?raw";
import usageLive from "./examples/usage-live.graphql?raw";

export interface Example {
  readonly title: string;
  readonly about: string;
  readonly query: string;
  readonly variables: () => object;
}

const WEEK_DAYS = 7;

export const EXAMPLES: readonly Example[] = [
  {
    title: "Completion",
    about: "One answer, what it cost and which attempts it took.",
    query: completion,
    variables: () => ({
      input: {
        model: "scripted/echo",
        messages: [{ role: "USER", content: "Name three rivers." }],
        labels: [{ name: "team", value: "search" }],
      },
    }),
  },
  {
    title: "Stream",
    about: "Tokens as they come, over a WebSocket.",
    query: stream,
    variables: () => ({
      input: { model: "scripted/lorem", messages: [{ role: "USER", content: "Go on." }] },
    }),
  },
  {
    title: "Config",
    about: "A prompt with variables: written, published and used.",
    query: config,
    variables: () => ({
      config: {
        slug: "greeting",
        draft: {
          model: "scripted/echo",
          prompt: "You greet people in {{language}}.",
          variables: [{ name: "language", default: "English" }],
          temperature: 0.2,
        },
      },
      publish: { by: { slug: "greeting" } },
      input: {
        config: { slug: "greeting", variables: { language: "Welsh" } },
        messages: [{ role: "USER", content: "I am Ada." }],
      },
    }),
  },
  {
    title: "Usage by day",
    about: "A week of tokens and cost, by day and model.",
    query: usage,
    variables: () => ({
      input: {
        since: midnight(1 - WEEK_DAYS).toISOString(),
        until: midnight(1).toISOString(),
        bucket: "DAY",
        timeZone: new Intl.DateTimeFormat().resolvedOptions().timeZone,
        groupBy: [{ field: "MODEL" }],
      },
    }),
  },
  {
    title: "Live usage",
    about: "What is used now; run a completion in another window.",
    query: usageLive,
    variables: () => ({ input: { last: 10, bucket: "MINUTE" } }),
  },
];

export function tabOf({ query, variables }: Example): { query: string; variables: string } {
  return { query, variables: JSON.stringify(variables(), null, 2) };
}

/** The local midnight that today began with, or so many days away from it. */
function midnight(days: number): Date {
  const now = new Date();
  return new Date(now.getFullYear(), now.getMonth(), now.getDate() + days);
}
