import { GraphiQL, HISTORY_PLUGIN } from "graphiql";
import { useMemo, useState, useSyncExternalStore, type KeyboardEvent } from "react";

import { EXAMPLES_PLUGIN } from "./examples-plugin";
import { EXAMPLES, tabOf } from "./examples";
import { fetcherFor } from "./fetcher";
import icon from "./icon.svg";
import { openedTab } from "./opened-tab";
import { storedToken, storeToken } from "./token";
import { transcript } from "./transcript";

const TABS = EXAMPLES.map(tabOf);
const PLUGINS = [EXAMPLES_PLUGIN, HISTORY_PLUGIN];
const OPENED = openedTab(TABS[0]!);

export function App() {
  const [token, setToken] = useState(storedToken);
  const fetcher = useMemo(() => fetcherFor(token), [token]); // a new one makes GraphiQL ask for the schema anew

  const take = (value: string): void => {
    storeToken(value.trim());
    setToken(value.trim());
  };
  return (
    <>
      <header className="bar">
        <img src={icon} alt="" />
        <h1>AI Middleware</h1>
        <TokenField token={token} onToken={take} />
      </header>
      {/* No editor for headers: what is typed there could end up in localStorage, and the token has its own field. */}
      <GraphiQL
        fetcher={fetcher}
        {...OPENED}
        defaultTabs={TABS}
        plugins={PLUGINS}
        shouldPersistHeaders={false}
        isHeadersEditorEnabled={false}
        defaultEditorToolsVisibility="variables"
        inputValueDeprecation
      >
        <GraphiQL.Logo>{null}</GraphiQL.Logo>
        <GraphiQL.Footer>
          <StreamedText />
        </GraphiQL.Footer>
      </GraphiQL>
    </>
  );
}

function TokenField({ token, onToken }: { token: string; onToken: (token: string) => void }) {
  const leaveOnEnter = (event: KeyboardEvent<HTMLInputElement>): void => {
    if (event.key === "Enter") {
      event.currentTarget.blur();
    }
  };
  return (
    <label className="token">
      Token
      <input
        type="password"
        defaultValue={token}
        placeholder="paste it here: ai-middleware token prints one"
        autoComplete="off"
        spellCheck={false}
        onBlur={(event) => onToken(event.currentTarget.value)}
        onKeyDown={leaveOnEnter}
      />
    </label>
  );
}

function StreamedText() {
  const { text, deltas } = useSyncExternalStore(transcript.subscribe, transcript.current);
  if (deltas === 0) {
    return null;
  }
  return (
    <section className="streamed">
      <h2>
        Streamed text <small>{deltas === 1 ? "1 delta" : `${deltas} deltas`}</small>
      </h2>
      <p role="log" aria-label="Streamed text">
        {text}
      </p>
    </section>
  );
}
