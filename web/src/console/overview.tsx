/** Overview: whether all is well, and figures since the page was opened. */

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { Recommender } from "recommender";
import { Forwarding } from "../shop/forwarding";
import type { Live } from "../shop/live";
import { Chart, type Point } from "./chart";
import { type RouteCounts, quantile, routeCounts, since } from "./prometheus";

const EVERY_MS = 5000;

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

/** Points of the charts; the page keeps ten minutes of them. */
export interface History {
  rate: Point[];
  age: Point[];
}

const limit = (seconds: number | null): string =>
  seconds === null ? "–" : seconds === Infinity ? "over 5 s" : `≤ ${seconds * 1000} ms`;

const useRoutes = (): RouteRow[] => {
  const [rows, setRows] = useState<RouteRow[]>([]);
  useEffect(() => {
    let before: Map<string, RouteCounts> | null = null;
    let at = 0;
    const read = async (): Promise<void> => {
      const response = await fetch("metrics");
      if (!response.ok) return;
      const now = routeCounts(await response.text());
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
  return rows;
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

const Tile = ({ name, value }: { name: string; value: string }): JSX.Element => (
  <div class="tile"><dt>{name}</dt><dd>{value}</dd></div>
);

/** The first tab. */
export const Overview = ({ live, history, client }: {
  live: Live; history: History; client: Recommender;
}): JSX.Element => {
  const rows = useRoutes();
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
      <p class="note">Since this page was opened, ten minutes at most. Prometheus and Grafana keep more.</p>
      <section aria-labelledby="requests-title">
        <h2 id="requests-title">Requests of this API process, last five seconds</h2>
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
