/** Try: any question to the recommender, its answer, and the same as a call of a program. */

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import type { Answer } from "recommender";
import { learn } from "../../shop/catalogue";
import { inWords } from "../../shop/why";
import { type Answered, ask, withQuery } from "../ask";
import { Copy, Field, ItemName, Problem, counted, useGuard } from "../parts";
import type { TabProps } from "../tab";

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
  placement: string;
  filter: string;
  exclude: string;
  hide: string;
  boost: string;
  pin: string;
  cap: string;
  diversity: string;
  context: string;
}
type Text = { [Name in keyof Question]: Question[Name] extends boolean ? never : Name }[keyof Question];

/** Rules in the short forms of query strings, with an example of each. */
const RULES: readonly [Text, string, string][] = [
  ["placement", "Placement", "home"],
  ["filter", "Only items that a filter allows", "category:Books;price<20"],
  ["context", "In the context", "DEVICE:mobile;HOUR:9"],
  ["exclude", "Without the items", "tent,stove"],
  ["hide", "Hide what the user has", "purchased,shown:3600"],
  ["boost", "Rather", "brand:acme*1.5"],
  ["pin", "Items at places", "tent:1,stove:4"],
  ["cap", "At most of one", "category:3"],
  ["diversity", "Diversity, 0 to 1", "0.3"],
];
/** What the route of rankings takes of them, and that of lists for everybody. */
const OF_RANK = new Set<Text>(["placement", "filter", "context", "exclude", "hide"]);

const START: Question = {
  route: "recommend", user: "", session: "", item: "", items: "", n: "10",
  objective: "interactions", reasons: true, bought: false, profiling: true,
  placement: "", filter: "", exclude: "", hide: "", boost: "", pin: "", cap: "", diversity: "", context: "",
};

/** The campaign of the settings that answers each question, and the operation to ask it by. */
const CAMPAIGNS: Record<Route, [string, string]> = {
  recommend: ["default", "get_recommendations"], similar: ["similar-items", "get_recommendations"],
  rank: ["ranking", "get_personalized_ranking"], trending: ["trending", "get_recommendations"],
  popular: ["popularity", "get_recommendations"],
};

interface Timed extends Answer {
  stagesMs?: Record<string, number>;
}
interface Call {
  method: string;
  path: string;
  body?: unknown;
}

/** The request that a question is. */
const callOf = (one: Question): Call => {
  const profiling = one.profiling ? "" : "off";
  const several = (text: string, by: RegExp): string[] => text.split(by).map((part) => part.trim()).filter(Boolean);
  if (one.route === "rank") {
    const itemIds = one.items.split(/[\s,]+/).filter(Boolean);
    const body = {
      itemIds, ...(one.user && { userId: one.user }), ...(one.session && { sessionId: one.session }),
      ...(one.placement && { placement: one.placement }), ...(one.filter && { filter: one.filter }),
      ...(one.exclude && { exclude: several(one.exclude, /,/) }), ...(one.hide && { hide: several(one.hide, /,/) }),
      ...(one.context && {
        context: Object.fromEntries(several(one.context, /;/).map((pair) => {
          const [name, ...value] = pair.split(":");
          return [name, value.join(":")];
        })),
      }),
    };
    return { method: "POST", path: withQuery("/rank", { profiling, timing: "true" }), body };
  }
  const { placement, filter, exclude, hide, boost, pin, cap, diversity } = one;
  const list = {
    num_results: one.n, profiling, placement, filter, exclude, hide, boost, pin, cap, diversity, timing: "true",
    ...(one.route !== "recommend" && hide && { user_id: one.user, session_id: one.session }),
  };
  if (one.route !== "recommend") {
    const path = one.route === "similar" ? `/similar/${encodeURIComponent(one.item)}` : `/${one.route}`;
    return { method: "GET", path: withQuery(path, list) };
  }
  const query = {
    ...list, user_id: one.user, session_id: one.session, item_id: one.item, context: one.context,
    objective: one.objective === "interactions" ? "" : one.objective,
    reasons: one.reasons ? "true" : "", exclude_purchased: one.bought ? "true" : "",
  };
  return { method: "GET", path: withQuery("/recommend", query) };
};

const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;

const programs = (one: Question, call: Call): Record<string, string> => {
  const address = new URL(call.path.slice(1), document.baseURI);
  address.searchParams.delete("timing");
  const url = address.href;
  const sdk = new URL("static/recommender.js", document.baseURI).href;
  const data = call.body ? ` -d ${quoted(JSON.stringify(call.body))}` : "";
  // The question as the SDK takes it: what the address says, but for who asks.
  const asked = new URL(url).searchParams;
  for (const name of ["user_id", "session_id"]) asked.delete(name);
  const plain = (text: string): unknown => (text === "true" ? true : text !== "" && Number.isFinite(Number(text)) ? Number(text) : text);
  const query = JSON.stringify(Object.fromEntries([...asked].map(([name, value]) => [name, plain(value)])));
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
  const [campaign, asking] = CAMPAIGNS[one.route];
  const who = one.route === "recommend" || one.route === "rank" ? `userId=${JSON.stringify(one.user)}, ` : "";
  const what = one.route === "similar" ? `itemId=${JSON.stringify(one.item)}, ` : "";
  const how = one.route === "rank"
    ? `inputList=${JSON.stringify((call.body as { itemIds?: string[] }).itemIds ?? [])}` : `numResults=${one.n}`;
  if (!who || one.user)
    made.boto3 =
      `import boto3\n\nruntime = boto3.client("personalize-runtime", endpoint_url="${new URL("personalize", document.baseURI).href}")\n` +
      `runtime.${asking}(\n    campaignArn="arn:aws:personalize:us-east-1:000000000000:campaign/${campaign}",\n    ${who}${what}${how},\n)`;
  return made;
};

const STAGES: Record<string, string> = {
  wait: "wait for the token", read: "read the state", candidates: "merge candidates", features: "compute features",
  scores: "score", arrange: "order, rules and names", reasons: "attribute reasons", properties: "read properties",
};

/** How long each stage of the answer took; what is left is the way to the API and back. */
const Stages = ({ stages, ms }: { stages: Record<string, number>; ms: number }): JSX.Element => {
  const inside = Object.values(stages).reduce((sum, one) => sum + one, 0);
  const rows: [string, number][] = [
    ...Object.entries(stages).filter(([, took]) => took >= 0.05).map(([name, took]): [string, number] => [STAGES[name] ?? name, took]),
    ["the way there and back", Math.max(0, ms - inside)],
  ];
  const most = Math.max(...rows.map(([, took]) => took), 1e-9);
  return (
    <ol class="weights" id="stages" aria-label="Time by stage">
      {rows.map(([name, took]) => (
        <li key={name}><b>{took.toFixed(2)} ms</b> <span>{name}</span><i style={{ width: `${(took / most) * 100}%` }} /></li>
      ))}
    </ol>
  );
};

/** The playground. */
export const Playground = ({ client }: TabProps): JSX.Element => {
  const [asked, setAsked] = useState(START);
  const [shown, setShown] = useState<(Answered<Timed> & { programs: Record<string, string> }) | null>(null);
  const [error, guard] = useGuard();
  const set = (more: Partial<Question>): void => setAsked({ ...asked, ...more });
  const text = (name: Text, placeholder = ""): JSX.Element => (
    <input
      value={asked[name]} spellcheck={false} autocomplete="off" placeholder={placeholder}
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
    const answered = await ask<Timed>(call.method, call.path, call.body);
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
        <details id="rules">
          <summary>Filters, context and other rules</summary>
          <div class="question">
            {RULES.filter(([name]) => (route === "rank" ? OF_RANK.has(name) : name !== "context" || route === "recommend"))
              .map(([name, label, example]) => <Field key={name} label={label}>{text(name, example)}</Field>)}
            {route !== "recommend" && route !== "rank" && asked.hide && (
              <Field label="of the user">{text("user")}</Field>
            )}
          </div>
        </details>
        <button class="main" id="ask">Ask</button>
      </form>
      <Problem text={error} />
      {shown && (
        <div class="halves">
          <section aria-labelledby="answer-title">
            <h2 id="answer-title">
              {counted(shown.body.items.length, "item")} in <b id="took">{shown.ms.toFixed(1)} ms</b>
            </h2>
            <p class="note" id="level">
              {shown.body.recipe}, {shown.body.level}; newest event{" "}
              {shown.body.freshness.newestEventAgeS == null
                ? "none"
                : `${shown.body.freshness.newestEventAgeS.toFixed(1)} s ago`}
            </p>
            <Stages stages={shown.body.stagesMs ?? {}} ms={shown.ms} />
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
              <div key={name} class="program"><h3>{name}</h3><Copy text={code} what={name} /><pre>{code}</pre></div>
            ))}
          </section>
        </div>
      )}
    </>
  );
};
