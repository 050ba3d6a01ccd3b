// GraphiQL shows a subscription's last event alone; here the text that a stream has brought so far is put together.

export interface Text {
  readonly text: string;
  readonly deltas: number;
}

const NOTHING: Text = { text: "", deltas: 0 };
let current = NOTHING;
const listeners = new Set<() => void>();

function become(next: Text): void {
  current = next;
  for (const listener of listeners) {
    listener();
  }
}

export const transcript = {
  current: (): Text => current,

  subscribe(listener: () => void): () => void {
    listeners.add(listener);
    return () => listeners.delete(listener);
  },

  begin(): void {
    become(NOTHING);
  },

  /** Takes `text` from any root field of a result whose type is TextDelta, or was not asked for. */
  add(data: Record<string, unknown> | null | undefined): void {
    for (const event of Object.values(data ?? {})) {
      const { text, __typename: type } = (event ?? {}) as { text?: unknown; __typename?: unknown };
      if (typeof text === "string" && (type === undefined || type === "TextDelta")) {
        become({ text: current.text + text, deltas: current.deltas + 1 });
      }
    }
  },
};
