import { defineConfig } from "vite";

export default defineConfig({
  base: "/graphql/", // the assets come from /graphql/assets
  logLevel: "error",
  build: {
    outDir: "../gateway/static/graphiql",
    emptyOutDir: true,
    target: "es2022",
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    chunkSizeWarningLimit: 8_000, // kB: the editor and its workers
  },
  worker: { format: "es" },
});
