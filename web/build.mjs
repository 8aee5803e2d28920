// Builds web/src into the folder that the API serves, or into the one that is named.
import { execFileSync } from "node:child_process";
import { copyFile, mkdir } from "node:fs/promises";
import { build } from "esbuild";

const out = process.argv[2] ?? "../api/static";
const options = {
  bundle: true,
  minify: true,
  format: "esm",
  target: ["es2022"],
  charset: "utf8",
  legalComments: "none",
  logLevel: "warning",
};

await mkdir(out, { recursive: true });
await build({
  ...options,
  entryPoints: ["src/sdk/recommender.ts"],
  outfile: `${out}/recommender.js`,
});
const declared = ["--declaration", "--emitDeclarationOnly", "--noEmit", "false", "--ignoreConfig"];
const compiler = ["--target", "es2022", "--module", "esnext", "--lib", "es2022,dom,dom.iterable"];
execFileSync(
  "node_modules/.bin/tsc",
  [...declared, ...compiler, "--strict", "--outDir", out, "src/sdk/recommender.ts"],
  { stdio: "inherit" },
);
await build({
  ...options,
  entryPoints: { shop: "src/shop/main.tsx", console: "src/console/main.tsx" },
  outdir: out,
  jsx: "automatic",
  jsxImportSource: "preact",
  // The shop loads the very file that other pages load.
  alias: { recommender: "./recommender.js" },
  external: ["./recommender.js"],
});
await build({
  ...options,
  entryPoints: { shop: "src/shop/shop.css", console: "src/console/console.css" },
  outdir: out,
});
for (const page of ["shop", "console"])
  await copyFile(`src/${page}/index.html`, `${out}/${page}.html`);
