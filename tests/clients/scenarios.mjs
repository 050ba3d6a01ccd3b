// What both clients of streams are asked to do, and how what they hear of it is written down.
const MODEL = process.env.MODEL;

export const QUERY = "{ viewer { organisation } }";
export const MUTATION = "mutation ($input: CompleteInput!) { complete(input: $input) { content } }";
export const MISTAKES = {
  syntax: "{",
  unknownField: "{ nothing }",
  unknownOperation: "query A { __typename } query B { __typename }",
};
const STREAM = `subscription ($input: CompleteInput!) {
  completionStream(input: $input) { __typename sequence ... on TextDelta { text } ... on CompletionFailed { code } }
}`;

export function asked(content, model = MODEL) {
  return { input: { model: `openai/${model}`, messages: [{ role: "USER", content }] } };
}

export function stream(content, name = "") {
  return { query: STREAM, variables: asked(content, MODEL + name) };
}

// Everything that the sink hears, in its order, until the end; `leaveAfter` results the client unsubscribes.
export function heard(client, request, { leaveAfter = Infinity } = {}) {
  return new Promise((resolve) => {
    const results = [];
    const leave = client.subscribe(request, {
      next(result) {
        results.push(result);
        if (results.length === leaveAfter) leave();
      },
      error: (error) => resolve({ results, error }),
      complete: () => resolve({ results, complete: true }),
    });
  });
}

// For JSON.stringify: of a close event or an error, what a program would look at.
export function told(_, value) {
  if (value instanceof Error) return { name: value.name, message: value.message, status: value.response?.status };
  if (typeof value?.code === "number" && typeof value.reason === "string") {
    return { code: value.code, reason: value.reason };
  }
  return value;
}
