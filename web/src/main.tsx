import "graphiql/setup-workers/vite";
import "graphiql/style.css";
import "./app.css";

import { createRoot } from "react-dom/client";

import { App } from "./app";
import { takeTokenFromAddress } from "./token";

takeTokenFromAddress();
createRoot(document.getElementById("root")!).render(<App />);
