/** Overview: whether all is well, live figures, and those of the last hour and the last 30 days. */

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Forwarding } from "../../shop/forwarding";
import { ask, when } from "../ask";
import { Chart, Lines, type Values } from "../chart";
import { type Point as Figure, type Step, measured, useFigures } from "../figures";
import { Problem, Tile, counted, useGuard } from "../parts";
import { type RouteCounts, answerLevels, quantile, routeCounts, since } from "../prometheus";
import type { TabProps } from "../tab";

const EVERY_MS = 5000;
const LEVELS = ["ranked", "retrieved", "trending", "cached"];

interface Readiness {
  status: string;
  missing: string[];
  unreadable: string[];
  warnings: string[];
}
interface RouteRow {
  route: string;
  perS: number;
  failed: number;
  p50: number | null;
  p99: number | null;
}

const limit = (seconds: number | null): string =>
  seconds === null ? "–" : seconds === Infinity ? "over 5 s" : `≤ ${seconds * 1000} ms`;

const useRoutes = (): [RouteRow[], [string, number][]] => {
  const [rows, setRows] = useState<RouteRow[]>([]);
  const [levels, setLevels] = useState<[string, number][]>([]);
  useEffect(() => {
    let before: Map<string, RouteCounts> | null = null;
    let at = 0;
    const read = async (): Promise<void> => {
      const response = await fetch("metrics");
      if (!response.ok) return;
      const text = await response.text();
      const now = routeCounts(text);
      setLevels([...answerLevels(text)].sort(([, one], [, other]) => other - one));
      const elapsedS = (performance.now() - at) / 1000;
      if (before) {
        const made = [...now].map(([route, counts]) => {
          const news = since(counts, before?.get(route));
          return {
            route, perS: news.requests / elapsedS, failed: news.failed,
            p50: quantile(news, 0.5), p99: quantile(news, 0.99),
          };
        });
        setRows(made.filter((row) => row.perS > 0).sort((one, other) => other.perS - one.perS));
      }
      before = now;
      at = performance.now();
    };
    const again = (): void => void read().catch(() => setRows([]));
    again();
    const timer = setInterval(() => document.hidden || again(), EVERY_MS);
    return () => clearInterval(timer);
  }, []);
  return [rows, levels];
};

const Ready = (): JSX.Element => {
  const [ready, setReady] = useState<Readiness | null>(null);
  useEffect(() => {
    const read = async (): Promise<void> => {
      // 503 has the same body as 200.
      const response = await fetch("readyz");
      setReady((await response.json()) as Readiness);
    };
    const again = (): void =>
      void read().catch(() =>
        setReady({ status: "missing", missing: ["the API"], unreadable: [], warnings: [] }),
      );
    again();
    const timer = setInterval(() => document.hidden || again(), EVERY_MS);
    return () => clearInterval(timer);
  }, []);
  if (!ready) return <p id="ready">…</p>;
  const troubles = [
    ...ready.missing.map((text) => `missing: ${text}`),
    ...ready.unreadable.map((text) => `stands still: ${text}`),
    ...ready.warnings,
  ];
  return (
    <div id="ready" class={ready.status === "ok" && !troubles.length ? "good" : "bad"} role="status">
      <strong>{ready.status === "ok" ? "Ready" : "Not ready"}</strong>
      {troubles.length > 0 && <ul>{troubles.map((text) => <li key={text}>{text}</li>)}</ul>}
    </div>
  );
};

interface Status {
  lag: number;
  oldestUnappliedAgeS: number;
  deadLetters: number;
  partitions: { topic: string; partition: number; end: number; watermark: number; lag: number }[];
  memoryBytes: number;
  memoryLimitBytes: number;
  families: { name: string; keys: number; bytes: number }[];
  serving: Record<string, string>;
  jobs: string[];
  shards: { name: string; lag: number; waiting: number; applied: number; keys: number; bytes: number }[];
  workers: { name: string; startedAt: number; partitions: Record<string, number[]>; lag: number }[];
}

/** Numbers with runs as one: 0–3, 7. */
const ranges = (numbers: readonly number[]): string => {
  const runs: [number, number][] = [];
  for (const n of [...numbers].sort((one, other) => one - other)) {
    const last = runs.at(-1);
    if (last && last[1] === n - 1) last[1] = n;
    else runs.push([n, n]);
  }
  return runs.map(([from, to]) => (from === to ? `${from}` : `${from}–${to}`)).join(", ");
};

const STATUS_EVERY_MS = 15_000;
const bytes = (n: number): string =>
  n < 2 ** 20 ? `${Math.ceil(n / 1024)} KiB` : n < 2 ** 30 ? `${(n / 2 ** 20).toFixed(1)} MiB` : `${(n / 2 ** 30).toFixed(2)} GiB`;

/** What each shard has applied, in multiples of the mean of its kind, and what waits for it. */
const Shards = ({ shards }: { shards: Status["shards"] }): JSX.Element => {
  const mean = (kind: string): number => {
    const own = shards.filter((one) => one.name[0] === kind);
    return own.reduce((sum, one) => sum + one.applied, 0) / Math.max(own.length, 1);
  };
  const means: Record<string, number> = { u: mean("u"), i: mean("i") };
  const count = (n: number): string => n.toLocaleString("en");
  return (
    <section aria-labelledby="shards-title">
      <h2 id="shards-title">{shards.length / 2} shards of users, and as many of items</h2>
      <div class="wide" role="region" aria-label="Shards" tabIndex={0}>
        <table id="shards">
          <thead><tr><th>Shard</th><th>Applied</th><th>Of the mean</th><th>Not in effect</th><th>Waiting in outboxes</th><th>Keys</th><th>Memory</th></tr></thead>
          <tbody>
            {shards.map((one) => (
              <tr key={one.name}>
                <td>{one.name}</td>
                <td>{count(one.applied)}</td>
                <td>{(one.applied / Math.max(means[one.name[0] ?? "u"] ?? 1, 1)).toFixed(2)}</td>
                <td>{count(one.lag)}</td>
                <td>{count(one.waiting)}</td>
                <td>{count(one.keys)}</td>
                <td>{bytes(one.bytes)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
};

/** The stream as `recommender status` has it: partitions, dead letters, memory by kind of key. */
const Stream = (): JSX.Element | null => {
  const [status, setStatus] = useState<Status | null>(null);
  const [error, guard] = useGuard();
  useEffect(() => {
    const read = (): void => guard(async () => setStatus((await ask<Status>("GET", "/status")).body));
    read();
    const timer = setInterval(() => document.hidden || read(), STATUS_EVERY_MS);
    return () => clearInterval(timer);
  }, []);
  if (!status) return <Problem text={error} />;
  const topics = [...new Set(status.partitions.map((one) => one.topic))];
  const most = Math.max(...status.families.map((one) => one.bytes), 1);
  return (
    <>
      <Problem text={error} />
      <dl class="tiles" id="stream">
        <Tile name="Not in effect" value={status.lag.toLocaleString("en")} note={status.lag ? `the oldest for ${status.oldestUnappliedAgeS.toFixed(1)} s` : "messages"} />
        <Tile name="Dead letters" value={status.deadLetters.toLocaleString("en")} note={<a href="#events">Events</a>} />
        <Tile
          name="Memory of Redis" value={bytes(status.memoryBytes)}
          note={status.memoryLimitBytes ? `of ${bytes(status.memoryLimitBytes)}` : "without a limit"}
        />
        <Tile name="Order that serves" value={status.serving.interactions === "blend" ? "plain blend" : "learned"} note={<a href="#quality">Quality</a>} />
        <Tile name="Jobs under way" value={String(status.jobs.length)} note={status.jobs[0] ?? <a href="#personalize">Personalize</a>} />
      </dl>
      <section aria-labelledby="workers-title">
        <h2 id="workers-title">{counted(status.workers.length, "worker")}</h2>
        {status.workers.length === 0 && <p class="error">No worker is running: events are kept by Kafka, and take no effect.</p>}
        {status.workers.length > 0 && (
          <div class="wide" role="region" aria-label="Workers" tabIndex={0}>
            <table id="workers">
              <thead><tr><th>Worker</th><th>Running since</th><th>Its partitions</th><th>Not in effect</th></tr></thead>
              <tbody>
                {status.workers.map((one) => (
                  <tr key={one.name}>
                    <td>{one.name}</td>
                    <td>{when(one.startedAt)}</td>
                    <td class="wraps">
                      {Object.entries(one.partitions).map(([topic, numbers]) => (
                        <span key={topic}>{topic} <b>{ranges(numbers)}</b></span>
                      ))}
                    </td>
                    <td>{one.lag.toLocaleString("en")}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        )}
      </section>
      {status.shards.length > 0 && <Shards shards={status.shards} />}
      <div class="halves">
        <section aria-labelledby="partitions-title">
          <h2 id="partitions-title">Partitions</h2>
          <div class="wide" role="region" aria-label="Partitions" tabIndex={0}>
            <table id="partitions">
              <thead><tr><th>Topic</th><th>Partitions</th><th>Messages</th><th>Not in effect</th></tr></thead>
              <tbody>
                {topics.map((topic) => {
                  const own = status.partitions.filter((one) => one.topic === topic);
                  const behind = own.filter((one) => one.lag > 0);
                  return (
                    <tr key={topic}>
                      <td>{topic}</td>
                      <td>{own.length}</td>
                      <td>{own.reduce((sum, one) => sum + one.end, 0).toLocaleString("en")}</td>
                      <td>
                        {behind.length
                          ? behind.map((one) => `${one.lag.toLocaleString("en")} in ${one.partition}`).join(", ")
                          : "0"}
                      </td>
                    </tr>
                  );
                })}
              </tbody>
            </table>
          </div>
        </section>
        <section aria-labelledby="families-title">
          <h2 id="families-title">Memory by kind of key</h2>
          <ol class="weights" id="families">
            {status.families.slice(0, 10).map((one) => (
              <li key={one.name}>
                <b>{bytes(one.bytes)}</b> <span>{one.name} <small>{one.keys.toLocaleString("en")} {one.keys === 1 ? "key" : "keys"}</small></span>
                <i style={{ width: `${(one.bytes / most) * 100}%` }} />
              </li>
            ))}
          </ol>
        </section>
      </div>
    </>
  );
};

/** Charts of what Redis keeps: minutes of the last hour, or hours of 30 days. */
const Kept = (): JSX.Element => {
  const [step, setStep] = useState<Step>("minute");
  const { points, problem } = useFigures(step);
  const lines = (...names: (keyof Figure)[]): Values[] =>
    points.map((one) => ({ at: one.at, values: names.map((name) => one[name] as number | null) }));
  // In the order of what stands behind them; all but the first are degraded.
  const levels = LEVELS.filter((level) => points.some((one) => one.levels[level]));
  const shares: Values[] = points.map((one) => {
    const all = Object.values(one.levels).reduce((sum, n) => sum + n, 0);
    return { at: one.at, values: levels.map((level) => (all ? ((one.levels[level] ?? 0) / all) * 100 : null)) };
  });
  return (
    <section aria-labelledby="kept-title" id="kept">
      <h2 id="kept-title">Over time</h2>
      <p class="line" role="group" aria-label="Time shown">
        <button type="button" aria-pressed={step === "minute"} onClick={() => setStep("minute")}>Last hour</button>
        <button type="button" aria-pressed={step === "hour"} onClick={() => setStep("hour")}>Last 30 days</button>
        <span class="note">{problem || "All processes together, from Redis; no Prometheus needed."}</span>
      </p>
      <div class="charts">
        <Lines id="kept-events" title="Events" unit="/s" points={lines("eventsPerS")} />
        <Lines id="kept-requests" title="Requests" unit="/s" names={["all", "failed"]} points={lines("requestsPerS", "failedPerS")} />
        <Lines id="kept-freshness" title="Accepted to effect" unit="ms" names={["p50", "p99"]} points={lines("freshnessP50Ms", "freshnessP99Ms")} />
        <Lines id="kept-answers" title="Answers within" unit="ms" names={["p50", "p99"]} points={lines("answerP50Ms", "answerP99Ms")} />
        <Lines id="kept-mrr" title="MRR@20" unit="" digits={3} names={["served", "plain blend"]} points={measured(points, "mrr")} />
        <Lines id="kept-hr" title="HR@20" unit="" digits={3} names={["served", "plain blend"]} points={measured(points, "hr")} />
        <Lines id="kept-lag" title="Not in effect" unit="messages" digits={0} points={lines("lag")} />
        <Lines id="kept-levels" title="Answers by level" unit="%" names={levels} points={shares} />
        <Lines id="kept-dead" title="Dead letters" unit="" digits={0} points={lines("deadLetters")} />
        <Lines
          id="kept-memory" title="Memory of Redis" unit="MiB"
          points={points.map((one) => ({ at: one.at, values: [one.memoryBytes === null ? null : one.memoryBytes / 2 ** 20] }))}
        />
      </div>
    </section>
  );
};

/** The first tab. */
export const Overview = ({ live, history, client }: TabProps): JSX.Element => {
  const [rows, levels] = useRoutes();
  const answers = levels.reduce((sum, [, n]) => sum + n, 0);
  const { figures } = live;
  const count = (n: number | undefined): string => n?.toLocaleString("en") ?? "–";
  return (
    <>
      <Ready />
      <dl class="tiles">
        <Tile name="Events" value={count(figures?.events)} />
        <Tile name="Purchases" value={count(figures?.purchases)} />
        <Tile name="Items" value={count(figures?.items)} />
        <Tile name="Users" value={count(figures?.users)} />
        <Tile name="Anonymous sessions" value={count(figures?.sessions)} />
      </dl>
      <div class="charts">
        <Chart id="rate" title="Events a second" unit="/s" points={history.rate} />
        <Chart id="age" title="Age of the newest event" unit="s" points={history.age} />
      </div>
      <Kept />
      <Stream />
      <section aria-labelledby="requests-title">
        <h2 id="requests-title">Requests of this API process, last five seconds</h2>
        {answers > 0 && (
          <p class="note" id="levels">
            All its answers by what stood behind them:{" "}
            {levels.map(([level, n]) => `${level} ${((n / answers) * 100).toFixed(n === answers ? 0 : 1)} %`).join(", ")}.
          </p>
        )}
        {rows.length === 0 && <p class="note">Counted over five seconds: a moment.</p>}
        <div class="wide" role="region" aria-label="Requests" tabIndex={0}>
        <table id="requests">
          <thead>
            <tr><th>Route</th><th>Each second</th><th>Half within</th><th>99 % within</th><th>Failed</th></tr>
          </thead>
          <tbody>
            {rows.map((row) => (
              <tr key={row.route}>
                <td>{row.route}</td>
                <td>{row.perS.toFixed(1)}</td>
                <td>{limit(row.p50)}</td>
                <td>{limit(row.p99)}</td>
                <td>{row.failed}</td>
              </tr>
            ))}
          </tbody>
        </table>
        </div>
      </section>
      <Forwarding client={client} />
    </>
  );
};
