/** Try: any question to the recommender, its answer, and the same as a call of a program. */

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import type { Answer, Recommender } from "recommender";
import { learn } from "../shop/catalogue";
import { inWords } from "../shop/why";
import { type Answered, ask, withQuery } from "./ask";
import { Field, ItemName, Problem, useGuard } from "./parts";

const ROUTES = ["recommend", "similar", "rank", "trending", "popular"] as const;
type Route = (typeof ROUTES)[number];

interface Question {
  route: Route;
  user: string;
  session: string;
  item: string;
  items: string;
  n: string;
  objective: string;
  reasons: boolean;
  bought: boolean;
  profiling: boolean;
}

const START: Question = {
  route: "recommend", user: "", session: "", item: "", items: "", n: "10",
  objective: "interactions", reasons: true, bought: false, profiling: true,
};

interface Call {
  method: string;
  path: string;
  body?: unknown;
}

/** The request that a question is. */
const callOf = (one: Question): Call => {
  const profiling = one.profiling ? "" : "off";
  if (one.route === "rank") {
    const itemIds = one.items.split(/[\s,]+/).filter(Boolean);
    const body = {
      itemIds, ...(one.user && { userId: one.user }), ...(one.session && { sessionId: one.session }),
    };
    return { method: "POST", path: withQuery("/rank", { profiling }), body };
  }
  const list = { num_results: one.n, profiling };
  if (one.route !== "recommend") {
    const path = one.route === "similar" ? `/similar/${encodeURIComponent(one.item)}` : `/${one.route}`;
    return { method: "GET", path: withQuery(path, list) };
  }
  const query = {
    ...list, user_id: one.user, session_id: one.session, item_id: one.item,
    objective: one.objective === "interactions" ? "" : one.objective,
    reasons: one.reasons ? "true" : "", exclude_purchased: one.bought ? "true" : "",
  };
  return { method: "GET", path: withQuery("/recommend", query) };
};

const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;

const programs = (one: Question, call: Call): Record<string, string> => {
  const url = new URL(call.path.slice(1), document.baseURI).href;
  const sdk = new URL("static/recommender.js", document.baseURI).href;
  const campaign = "arn:aws:personalize:us-east-1:000000000000:campaign/default";
  const data = call.body ? ` -d ${quoted(JSON.stringify(call.body))}` : "";
  const query = JSON.stringify({ num_results: Number(one.n) });
  const javascript: Record<Route, string> = {
    recommend: `client.recommend(${query})`,
    similar: `client.similar(${JSON.stringify(one.item)}, ${query})`,
    rank: `client.rank(${JSON.stringify((call.body as { itemIds?: string[] })?.itemIds ?? [])})`,
    trending: `client.trending(${query})`,
    popular: `client.popular(${query})`,
  };
  const made: Record<string, string> = {
    curl: `curl${data} ${quoted(url)}`,
    JavaScript:
      `import { Recommender } from ${JSON.stringify(sdk)};\n` +
      `const client = new Recommender({ userId: ${JSON.stringify(one.user || null)} });\n` +
      `const answer = await ${javascript[one.route]};`,
  };
  if (one.route === "recommend" && one.user)
    made.boto3 =
      `runtime = boto3.client("personalize-runtime", endpoint_url="${new URL("personalize", document.baseURI).href}")\n` +
      `runtime.get_recommendations(\n    campaignArn="${campaign}",\n` +
      `    userId=${JSON.stringify(one.user)}, numResults=${one.n},\n)`;
  return made;
};

/** The playground. */
export const Playground = ({ client }: { client: Recommender }): JSX.Element => {
  const [asked, setAsked] = useState(START);
  const [shown, setShown] = useState<(Answered<Answer> & { programs: Record<string, string> }) | null>(null);
  const [error, guard] = useGuard();
  const set = (more: Partial<Question>): void => setAsked({ ...asked, ...more });
  const text = (name: "user" | "session" | "item" | "items" | "n"): JSX.Element => (
    <input
      value={asked[name]} spellcheck={false} autocomplete="off"
      {...(name === "n" && { inputMode: "numeric", pattern: "[1-9][0-9]{0,2}" })}
      onInput={(event) => set({ [name]: event.currentTarget.value })}
    />
  );
  const box = (name: "reasons" | "bought" | "profiling", label: string): JSX.Element => (
    <label class="box">
      <input
        type="checkbox" checked={asked[name]}
        onChange={(event) => set({ [name]: event.currentTarget.checked })}
      />
      {label}
    </label>
  );
  const { route } = asked;
  const run = async (): Promise<void> => {
    const call = callOf(asked);
    const answered = await ask<Answer>(call.method, call.path, call.body);
    await learn(client, answered.body.items.flatMap((one) => [
      one.itemId, ...(one.reasons ?? []).flatMap((reason) => reason.itemId ?? []),
    ]));
    setShown({ ...answered, programs: programs(asked, call) });
  };
  return (
    <>
      <form class="question" onSubmit={(event) => { event.preventDefault(); guard(run); }}>
        <Field label="Question">
          <select
            value={route} onChange={(event) => set({ route: event.currentTarget.value as Route })}
          >
            {ROUTES.map((name) => <option key={name}>{name}</option>)}
          </select>
        </Field>
        {(route === "recommend" || route === "rank") && <Field label="User">{text("user")}</Field>}
        {(route === "recommend" || route === "rank") && <Field label="Session">{text("session")}</Field>}
        {(route === "recommend" || route === "similar") && <Field label="Item looked at">{text("item")}</Field>}
        {route === "rank" && <Field label="Items, with commas between">{text("items")}</Field>}
        {route !== "rank" && <Field label="Results">{text("n")}</Field>}
        {route === "recommend" && (
          <Field label="Objective">
            <select
              value={asked.objective}
              onChange={(event) => set({ objective: event.currentTarget.value })}
            >
              <option>interactions</option>
              <option>purchases</option>
            </select>
          </Field>
        )}
        {route === "recommend" && box("reasons", "Reasons")}
        {route === "recommend" && box("bought", "Leave out what was bought")}
        {box("profiling", "Use histories")}
        <button class="main" id="ask">Ask</button>
      </form>
      <Problem text={error} />
      {shown && (
        <div class="halves">
          <section aria-labelledby="answer-title">
            <h2 id="answer-title">
              {shown.body.items.length} items in <b id="took">{shown.ms.toFixed(1)} ms</b>
            </h2>
            <p class="note" id="level">
              {shown.body.recipe}, {shown.body.level}; newest event{" "}
              {shown.body.freshness.newestEventAgeS == null
                ? "none"
                : `${shown.body.freshness.newestEventAgeS.toFixed(1)} s ago`}
            </p>
            <ol class="answer">
              {shown.body.items.map((one) => (
                <li key={one.itemId} data-item={one.itemId}>
                  <ItemName itemId={one.itemId} />
                  <b>{one.score.toPrecision(3)}</b>
                  <p>
                    {(one.reasons ?? []).map((reason) =>
                      `${inWords(reason)}${reason.share === undefined ? "" : ` (${(reason.share * 100).toFixed(0)} %)`}`,
                    ).join("; ")}
                  </p>
                </li>
              ))}
            </ol>
          </section>
          <section aria-labelledby="programs-title">
            <h2 id="programs-title">The same from a program</h2>
            {Object.entries(shown.programs).map(([name, code]) => (
              <div key={name}><h3>{name}</h3><pre>{code}</pre></div>
            ))}
          </section>
        </div>
      )}
    </>
  );
};
