/** Quality: the order that serves beside the orders it is compared with, what decides, and what is shown. */

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { ask } from "../ask";
import { Lines } from "../chart";
import { type Gain, type Measured, type Point, measured, useFigures } from "../figures";
import { Problem, Tile, useGuard } from "../parts";

interface Parameter {
  name: string;
  weight: number;
  meaning: string;
}
interface Objective {
  objective: string;
  aim: string;
  order: string;
  learnedExamples: number;
  parameters: Parameter[];
}
interface Told {
  objectives: Objective[];
  rules: string[];
}
interface Exposure {
  lists: number;
  items: number;
  knownItems: number;
  coverage: number;
  headShare: number;
  noveltyBits: number;
}

const EVERY_MS = 15_000;
const NAMES: Record<string, string> = {
  served: "served to users", ranker: "learned", "ranker-alone": "learned, without user k-NN", blend: "plain blend",
  "co-visited": "only items seen together", popular: "the most popular items", recent: "the user's last items",
};
const percent = (share: number): string => `${(share * 100).toFixed(share < 0.1 ? 1 : 0)} %`;
const among = ([low, high]: [number, number]): string => `${low.toFixed(3)} – ${high.toFixed(3)}`;

/** Each order's measures over all the points, by the examples of each. */
export const pooled = (points: readonly Point[], objective: string): Measured[] => {
  const found = new Map<string, Measured[]>();
  for (const one of points.flatMap((point) => point.quality))
    if (one.objective === objective) found.set(one.order, [...(found.get(one.order) ?? []), one]);
  return [...found].map(([order, some]) => {
    const examples = some.reduce((sum, one) => sum + one.examples, 0);
    const mean = (of: (one: Measured) => number): number =>
      some.reduce((sum, one) => sum + of(one) * one.examples, 0) / examples;
    // Means of independent parts: their variances add up.
    const interval = (name: "hrInterval" | "mrrInterval", middle: number): [number, number] => {
      const half = Math.sqrt(
        some.reduce((sum, one) => sum + (((one[name][1] - one[name][0]) / 2) * one.examples) ** 2, 0),
      ) / examples;
      return [Math.max(0, middle - half), Math.min(1, middle + half)];
    };
    const hr = mean((one) => one.hr);
    const mrr = mean((one) => one.mrr);
    return {
      objective, order, examples, hr, mrr,
      hrInterval: interval("hrInterval", hr), mrrInterval: interval("mrrInterval", mrr),
    };
  });
};

const SOURCES: Record<string, string> = {
  event: "Seen together with the user's items", hop: "Seen together with these, at second hand", alike: "Chosen by similar users",
  text: "New, with similar texts", history: "The user's own items", lists: "Lists of popular, recent and new items",
};

/** Each source's shares over all the points, by the choices of each. */
export const gained = (points: readonly Point[]): Gain[] => {
  const choices = points.reduce((sum, one) => sum + (one.sources[0]?.choices ?? 0), 0);
  const found = new Map<string, Gain>();
  for (const one of points.flatMap((point) => point.sources)) {
    const sum = found.get(one.source) ?? { source: one.source, choices, found: 0, alone: 0 };
    sum.found += (one.found * one.choices) / choices;
    sum.alone += (one.alone * one.choices) / choices;
    found.set(one.source, sum);
  }
  return [...found.values()].sort((one, other) => other.found - one.found);
};

const Measures = ({ points, objective }: { points: readonly Point[]; objective: string }): JSX.Element => {
  const rows = pooled(points, objective).sort((one, other) => other.mrr - one.mrr);
  if (!rows.length) return <p class="note">No examples in this time.</p>;
  const most = Math.max(...rows.map((one) => one.mrrInterval[1]));
  return (
    <div class="wide" role="region" aria-label={`Measures of ${objective}`} tabIndex={0}>
      <table class="measures">
        <thead>
          <tr><th>Order</th><th>Examples</th><th>HR@20</th><th>95 %</th><th>MRR@20</th><th>95 %</th><th /></tr>
        </thead>
        <tbody>
          {rows.map((one) => (
            <tr key={one.order} class={one.order === "served" ? "served" : ""}>
              <td>{NAMES[one.order] ?? one.order}</td>
              <td>{one.examples.toLocaleString("en")}</td>
              <td>{one.hr.toFixed(3)}</td>
              <td>{among(one.hrInterval)}</td>
              <td>{one.mrr.toFixed(3)}</td>
              <td>{among(one.mrrInterval)}</td>
              <td>
                <svg class="interval" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
                  <path d={`M${(one.mrrInterval[0] / most) * 100} 5H${(one.mrrInterval[1] / most) * 100}`} />
                  <circle cx={(one.mrr / most) * 100} cy="5" r="2.5" />
                </svg>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
};

/** The tab of quality. */
export const Quality = (): JSX.Element => {
  const [told, setTold] = useState<Told | null>(null);
  const [shown, setShown] = useState<Exposure | null>(null);
  const [error, guard] = useGuard();
  const [step, setStep] = useState<"minute" | "hour">("minute");
  const { points, problem } = useFigures(step);
  useEffect(() => {
    const read = (): void => guard(async () => {
      setTold((await ask<Told>("GET", "/transparency")).body);
      setShown((await ask<Exposure>("GET", "/exposure")).body);
    });
    read();
    const timer = setInterval(() => document.hidden || read(), EVERY_MS);
    return () => clearInterval(timer);
  }, []);
  const gains = gained(points);
  return (
    <>
      <Problem text={error || problem} />
      <p class="line" role="group" aria-label="Time shown">
        <button type="button" aria-pressed={step === "minute"} onClick={() => setStep("minute")}>Last hour</button>
        <button type="button" aria-pressed={step === "hour"} onClick={() => setStep("hour")}>Last 30 days</button>
      </p>
      <div class="charts">
        <Lines
          id="mrr" title="MRR@20 of the next choice" unit="" digits={3}
          points={measured(points, "mrr")} names={["served", "plain blend"]}
        />
        <Lines
          id="hr" title="HR@20 of the next choice" unit="" digits={3}
          points={measured(points, "hr")} names={["served", "plain blend"]}
        />
      </div>
      {(told?.objectives ?? []).map((one) => (
        <section key={one.objective} aria-labelledby={`${one.objective}-title`} class="panel">
          <h2 id={`${one.objective}-title`}>{one.aim}</h2>
          <p class="note">{one.order} {one.learnedExamples.toLocaleString("en")} examples learned.</p>
          <div>
            <div>
              <h3>Each next choice, predicted before it was learned</h3>
              <Measures points={points} objective={one.objective} />
            </div>
            <div>
              <h3>What decides, by source of candidates</h3>
              {one.parameters.length === 0 && (
                <p>Nothing yet: in what was learned no source tells candidates apart.</p>
              )}
              <ol class="weights">
                {one.parameters.map((parameter) => (
                  <li key={parameter.name}>
                    <b>{percent(parameter.weight)}</b> <span>{parameter.meaning}</span>
                    <i style={{ width: `${parameter.weight * 100}%` }} />
                  </li>
                ))}
              </ol>
            </div>
          </div>
        </section>
      ))}
      <section aria-labelledby="sources-title">
        <h2 id="sources-title">What each candidate source brings</h2>
        {gains.length === 0 ? <p class="note">No choices in this time.</p> : (
          <>
            <p class="note">
              Of {gains[0]!.choices.toLocaleString("en")} choices, how often the source had the item that was taken, and how often no other
              source had it: that much would be lost without it. What came of items by their reason is in <a href="#outcomes">Outcomes</a>.
            </p>
            <div class="wide" role="region" aria-label="Candidate sources" tabIndex={0}>
              <table id="sources">
                <thead><tr><th>Source</th><th>Had it</th><th /><th>No other had it</th><th /></tr></thead>
                <tbody>
                  {gains.map((one) => (
                    <tr key={one.source}>
                      <td>{SOURCES[one.source] ?? one.source}</td>
                      <td><b>{percent(one.found)}</b></td>
                      <td><span class="bar"><i style={{ width: `${one.found * 100}%` }} /></span></td>
                      <td>{percent(one.alone)}</td>
                      <td><span class="bar"><i style={{ width: `${one.alone * 100}%` }} /></span></td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </div>
          </>
        )}
      </section>
      {shown && (
        <section aria-labelledby="exposure-title">
          <h2 id="exposure-title">What {shown.lists.toLocaleString("en")} served lists showed</h2>
          <dl class="tiles">
            <Tile name="Catalogue covered" value={percent(shown.coverage)} note={`${shown.items.toLocaleString("en")} of ${shown.knownItems.toLocaleString("en")} items`} />
            <Tile name="Share of the head" value={percent(shown.headShare)} note="places with the tenth of items that is most popular" />
            <Tile name="Novelty" value={`${shown.noveltyBits.toFixed(1)} bits`} note="mean of −log₂ of an item's share of events" />
          </dl>
        </section>
      )}
      {told && (
        <section aria-labelledby="rules-title">
          <h2 id="rules-title">Rules beside the model</h2>
          <ul class="rules">{told.rules.map((rule) => <li key={rule}>{rule}</li>)}</ul>
        </section>
      )}
    </>
  );
};
