import type { GraphiQLProps } from "graphiql";
import {
  GraphQLError,
  Kind,
  OperationTypeNode,
  parse,
  type FormattedExecutionResult,
  type OperationDefinitionNode,
} from "graphql";
import { createClient, type Client } from "graphql-ws";

import { transcript } from "./transcript";

type Fetcher = GraphiQLProps["fetcher"];
type Request = Parameters<Fetcher>[0];
type Sent = Omit<Request, "operationName"> & { operationName: string | null };
type Result = FormattedExecutionResult;

const NO_TOKEN = "A token is needed, in the field at the top. `ai-middleware token` prints one.";

interface Observer {
  next(result: Result): void;
  error(error: unknown): void;
  complete(): void;
}

/** Queries and mutations by POST, subscriptions over graphql-transport-ws, both with the token. Unsubscribing cancels
 * either: the server stops the completion, and the vendor's with it. */
export function fetcherFor(token: string): Fetcher {
  if (!token) {
    return () => Promise.resolve({ errors: [new GraphQLError(NO_TOKEN)] });
  }
  const authorization = { Authorization: `Bearer ${token}` };
  const socket = createClient({
    url: `${location.origin.replace(/^http/, "ws")}${location.pathname}`,
    connectionParams: authorization,
    retryAttempts: 0, // to subscribe once more is to pay for another completion
  });
  return (request) => {
    if (request.operationName !== "IntrospectionQuery") {
      transcript.begin();
    }
    const observable = {
      subscribe(observer: Observer) {
        const operation = operationOf(request);
        const sent = { ...request, operationName: operation?.name?.value ?? null };
        const cancel =
          operation?.operation === OperationTypeNode.SUBSCRIPTION
            ? subscribe(socket, sent, observer)
            : post(authorization, sent, observer);
        return { unsubscribe: cancel };
      },
    };
    return observable as ReturnType<Fetcher>; // of its type's three ways to subscribe, GraphiQL takes this one
  };
}

/** The operation that is meant. Right after a change of tabs GraphiQL still gives the name of the last one's. */
function operationOf({ query, operationName }: Request): OperationDefinitionNode | undefined {
  try {
    const operations = parse(query).definitions.filter((node) => node.kind === Kind.OPERATION_DEFINITION);
    return operations.find((node) => node.name?.value === operationName) ?? operations[0];
  } catch {
    return undefined; // the server says what is wrong with it
  }
}

function post(authorization: Record<string, string>, request: Sent, observer: Observer): () => void {
  const controller = new AbortController();
  const send = async (): Promise<void> => {
    const response = await fetch(location.pathname, {
      method: "POST",
      headers: { ...authorization, "Content-Type": "application/json", Accept: "application/json" },
      body: JSON.stringify(request),
      signal: controller.signal,
    });
    observer.next((await response.json()) as Result);
    observer.complete();
  };
  send().catch((error: unknown) => {
    if (!controller.signal.aborted) {
      observer.error(error);
    }
  });
  return () => controller.abort();
}

function subscribe(socket: Client, { query, variables, operationName }: Sent, observer: Observer): () => void {
  return socket.subscribe<Record<string, unknown>, Record<string, unknown>>(
    { query, variables: variables as Record<string, unknown>, operationName },
    {
      next(result) {
        transcript.add(result.data);
        observer.next(result);
      },
      complete: () => observer.complete(),
      error(error) {
        if (Array.isArray(error)) {
          observer.next({ errors: error });
          observer.complete();
        } else if (error instanceof CloseEvent) {
          observer.error(new Error(`The connection was closed: ${error.code} ${error.reason}`));
        } else {
          observer.error(error);
        }
      },
    },
  );
}
