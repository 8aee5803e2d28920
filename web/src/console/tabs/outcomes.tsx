/** Outcomes: what became of the lists that were served, by placement, arm, recipe, reason and position. */

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { ask, withQuery } from "../ask";
import { Lines } from "../chart";
import { Field, Problem, Tile, useGuard } from "../parts";

interface Row {
  name: string;
  answers: number;
  impressions: number;
  clicks: number;
  conversions: number;
  value: number;
  clickThroughRate: number | null;
  conversionRate: number | null;
}
interface Report {
  since: number;
  until: number;
  rows: Row[];
  total: Row;
  series: { at: number; answers: number; impressions: number; clicks: number; conversions: number; value: number }[];
}

/** What lists, or their items, may be chosen by; of each the names that there are. */
const CHOICES: readonly [string, string][] = [
  ["placement", "Of the placement"], ["arm", "Of the arm"], ["recipe", "Of the kind"], ["reason", "Of the reason"],
];

const DIMENSIONS: Readonly<Record<string, string>> = {
  placement: "Placement", arm: "Arm of an experiment", recipe: "Kind of list", reason: "Reason", position: "Position",
};
const TIMES: readonly [string, string][] = [["1", "Last day"], ["7", "Last 7 days"], ["30", "Last 30 days"], ["365", "Last year"]];
const EVERY_MS = 15_000;

const percent = (rate: number | null): string => (rate === null ? "–" : `${(rate * 100).toFixed(2)} %`);
const whole = (n: number): string => n.toLocaleString("en");

/** Wilson's interval of 95 % for a share of trials. */
export const interval = (hits: number, n: number): [number, number] => {
  if (!n) return [0, 1];
  const square = 1.96 ** 2 / n;
  const middle = (hits / n + square / 2) / (1 + square);
  const half = (1.96 * Math.sqrt((hits / n) * (1 - hits / n) / n + square / (4 * n))) / (1 + square);
  return [Math.max(0, middle - half), Math.min(1, middle + half)];
};

/** Clicks an impression at each place of a list, with intervals. */
const PositionCurve = ({ rows }: { rows: readonly Row[] }): JSX.Element | null => {
  const shown = rows.filter((one) => /^\d+$/.test(one.name) && one.impressions > 0).slice(0, 25);
  if (shown.length < 2) return null;
  const ranges = shown.map((one) => interval(one.clicks, one.impressions));
  const most = Math.max(...ranges.map(([, high]) => high));
  const last = Number(shown.at(-1)!.name);
  const x = (one: Row): number => ((Number(one.name) - 0.5) / last) * 600;
  const y = (rate: number): number => 116 - (rate / most) * 108;
  return (
    <figure class="chart" id="positions">
      <figcaption>
        <span class="title">Click-through rate by position</span>
        <small class="scale">to {percent(most)}; bars: 95 %</small>
      </figcaption>
      <svg viewBox="0 0 600 120" preserveAspectRatio="none" role="img" aria-label={`Click-through rate by position: ${shown.map((one) => `${one.name}: ${percent(one.clickThroughRate)}`).join(", ")}`}>
        <path class="axis" d="M0 116H600M0 8H600M0 62H600" />
        <path class="band" d={shown.map((one, place) => `M${x(one)} ${y(ranges[place]![0])}V${y(ranges[place]![1])}`).join("")} />
        <path class="trace k0" d={shown.map((one, place) => `${place ? "L" : "M"}${x(one)} ${y(one.clickThroughRate ?? 0)}`).join("")} />
      </svg>
      <p class="times" aria-hidden="true"><span>1</span><span>{last}</span></p>
    </figure>
  );
};

/** The tab of outcomes. */
export const Outcomes = (): JSX.Element => {
  const [by, setBy] = useState("placement");
  const [of, setOf] = useState<Readonly<Record<string, string>>>({});
  const [days, setDays] = useState("7");
  const [report, setReport] = useState<Report | null>(null);
  const [positions, setPositions] = useState<Row[]>([]);
  const [names, setNames] = useState<Readonly<Record<string, string[]>>>({});
  const [error, guard] = useGuard();
  useEffect(() => {
    let isOver = false;
    const rowsBy = async (dimension: string, chosen = of): Promise<Report> =>
      (await ask<Report>("GET", withQuery("/outcomes", { ...chosen, by: dimension, days }))).body;
    const read = async (): Promise<void> => {
      const found = await rowsBy(by);
      const curve = by === "position" ? found.rows : (await rowsBy("position")).rows;
      if (isOver) return;
      setReport(found);
      setPositions(curve);
    };
    guard(async () => {
      const lists = await Promise.all(CHOICES.map(async ([name]) => [name, (await rowsBy(name, {})).rows] as const));
      const named = lists.map(([name, rows]) => [name, rows.map((one) => one.name).filter((one) => one !== "(none)")]);
      if (!isOver) setNames(Object.fromEntries(named));
    });
    guard(read);
    const timer = setInterval(() => document.hidden || guard(read), EVERY_MS);
    return () => {
      isOver = true;
      clearInterval(timer);
    };
  }, [by, of, days]);
  const rate = (hits: number, of: number): number | null => (of ? (hits / of) * 100 : null);
  const first = report?.series.findIndex((one) => one.impressions > 0) ?? -1;
  const series = first < 0 ? [] : report!.series.slice(first);
  const total = report?.total;
  const most = Math.max(...(report?.rows ?? []).map((one) => one.clickThroughRate ?? 0), 0);
  return (
    <>
      <form class="question" id="which" onSubmit={(event) => event.preventDefault()}>
        <Field label="Rows by">
          <select value={by} onChange={(event) => setBy(event.currentTarget.value)}>
            {Object.entries(DIMENSIONS).map(([name, text]) => <option key={name} value={name}>{text}</option>)}
          </select>
        </Field>
        {CHOICES.map(([name, text]) => (
          <Field key={name} label={text}>
            <select value={of[name] ?? ""} onChange={(event) => setOf({ ...of, [name]: event.currentTarget.value })}>
              <option value="">All</option>
              {(names[name] ?? []).map((one) => <option key={one}>{one}</option>)}
            </select>
          </Field>
        ))}
        <Field label="Lists served in the">
          <select value={days} onChange={(event) => setDays(event.currentTarget.value)}>
            {TIMES.map(([n, text]) => <option key={n} value={n}>{text}</option>)}
          </select>
        </Field>
      </form>
      <Problem text={error} />
      {total && (
        <dl class="tiles" id="total">
          <Tile name="Lists served" value={whole(total.answers)} />
          <Tile name="Items shown" value={whole(total.impressions)} />
          <Tile name="Clicked" value={whole(total.clicks)} note={`${percent(total.clickThroughRate)} of items shown`} />
          <Tile name="Bought" value={whole(total.conversions)} note={`${percent(total.conversionRate)} of items shown`} />
          <Tile name="Value" value={total.value.toLocaleString("en", { maximumFractionDigits: 2 })} note="sum of eventValue" />
        </dl>
      )}
      <div class="charts">
        <Lines
          id="rates" title="Of items shown" unit="%" digits={2} names={["clicked", "bought"]}
          points={series.map((one) => ({ at: one.at, values: [rate(one.clicks, one.impressions), rate(one.conversions, one.impressions)] }))}
        />
        <PositionCurve rows={positions} />
      </div>
      {report && report.rows.length === 0 && (
        <p class="note">No list of that time is followed. Lists are, but for those with profiling=off, some milliseconds after they were served.</p>
      )}
      {report && report.rows.length > 0 && (
        <div class="wide" role="region" aria-label="Outcomes" tabIndex={0}>
          <table id="outcomes-table">
            <thead>
              <tr>
                <th>{DIMENSIONS[by]}</th><th>Lists</th><th>Items shown</th><th>Clicked</th><th>Rate</th><th>95 %</th><th />
                <th>Bought</th><th>Rate</th><th>Value</th>
              </tr>
            </thead>
            <tbody>
              {report.rows.map((row) => {
                const [low, high] = interval(row.clicks, row.impressions);
                return (
                  <tr key={row.name}>
                    <td>{row.name === "(none)" ? "none named" : row.name}</td>
                    <td>{row.answers ? whole(row.answers) : ""}</td>
                    <td>{whole(row.impressions)}</td>
                    <td>{whole(row.clicks)}</td>
                    <td><b>{percent(row.clickThroughRate)}</b></td>
                    <td>{row.impressions ? `${percent(low)} – ${percent(high)}` : ""}</td>
                    <td><span class="bar"><i style={{ width: `${most ? ((row.clickThroughRate ?? 0) / most) * 100 : 0}%` }} /></span></td>
                    <td>{whole(row.conversions)}</td>
                    <td>{percent(row.conversionRate)}</td>
                    <td>{row.value.toLocaleString("en", { maximumFractionDigits: 2 })}</td>
                  </tr>
                );
              })}
            </tbody>
          </table>
        </div>
      )}
    </>
  );
};
