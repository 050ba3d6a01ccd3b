interface Tab {
  readonly query: string | null;
  readonly variables: string | null;
}

/** What the editors begin with: the tab that was open last, else `first`. Left to itself, GraphiQL brings that tab's
 * variables back only where they have been edited. */
export function openedTab(first: Tab): { initialQuery: string; initialVariables: string } {
  const { query, variables } = lastOpened() ?? first;
  return { initialQuery: query ?? "", initialVariables: variables ?? "" };
}

function lastOpened(): Tab | undefined {
  try {
    const { tabs, activeTabIndex } = JSON.parse(localStorage.getItem("graphiql:tabState") ?? "{}");
    return tabs?.[activeTabIndex];
  } catch {
    return undefined; // GraphiQL begins anew too, where it can't read what it kept
  }
}
