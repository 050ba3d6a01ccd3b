import { useGraphiQL, useGraphiQLActions, type GraphiQLPlugin } from "@graphiql/react";

import { EXAMPLES, tabOf, type Example } from "./examples";

/** A pane that opens each example in a tab of its own, its times those of now. */
export const EXAMPLES_PLUGIN: GraphiQLPlugin = { title: "Examples", icon: Icon, content: Pane };

function Icon() {
  return (
    <svg viewBox="0 0 24 24" fill="none" stroke="currentColor" strokeWidth="1.5" strokeLinejoin="round">
      <path d="M9 3h6M10 3v6l-5 9.5A1.7 1.7 0 0 0 6.500 21h11a1.700 1.700 0 0 0 1.500-2.500L14 9V3M7.500 15h9" />
    </svg>
  );
}

function Pane() {
  const { addTab } = useGraphiQLActions();
  const queryEditor = useGraphiQL((state) => state.queryEditor);
  const variableEditor = useGraphiQL((state) => state.variableEditor);

  const open = (example: Example): void => {
    const { query, variables } = tabOf(example);
    addTab();
    queryEditor?.setValue(query);
    variableEditor?.setValue(variables);
  };
  return (
    <section className="examples" aria-label="Examples">
      <h2>Examples</h2>
      {EXAMPLES.map((example) => (
        <button key={example.title} type="button" onClick={() => open(example)}>
          <strong>{example.title}</strong>
          {example.about}
        </button>
      ))}
    </section>
  );
}
