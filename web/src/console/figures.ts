/** Key figures over time, as Redis keeps them. */

import { useEffect, useState } from "preact/hooks";
import { ask } from "./ask";
import type { Values } from "./chart";

/** HR@20 and MRR@20 of one order, with intervals of 95 %. */
export interface Measured {
  objective: string;
  order: string;
  examples: number;
  hr: number;
  hrInterval: [number, number];
  mrr: number;
  mrrInterval: [number, number];
}

/** What a candidate source had of what was taken: shares of the choices. */
export interface Gain {
  source: string;
  choices: number;
  found: number;
  alone: number;
}

/** A minute or an hour; null where nobody measured. */
export interface Point {
  at: number;
  eventsPerS: number | null;
  freshnessP50Ms: number | null;
  freshnessP99Ms: number | null;
  lag: number | null;
  deadLetters: number | null;
  requestsPerS: number | null;
  failedPerS: number | null;
  answerP50Ms: number | null;
  answerP99Ms: number | null;
  memoryBytes: number | null;
  levels: Record<string, number>;
  quality: Measured[];
  sources: Gain[];
}

export type Step = "minute" | "hour";

const POINTS: Record<Step, number> = { minute: 60, hour: 720 };
const EVERY_MS: Record<Step, number> = { minute: 5000, hour: 60_000 };

/** The points of a step, read again while the page is shown. */
export const useFigures = (step: Step): { points: Point[]; problem: string } => {
  const [found, setFound] = useState({ points: [] as Point[], problem: "" });
  useEffect(() => {
    let isOver = false;
    let kept: Point[] = [];
    const read = async (): Promise<void> => {
      try {
        // All points once, and then the last two: the newest goes on.
        const n = kept.length ? 2 : POINTS[step];
        const { points } = (await ask<{ points: Point[] }>("GET", `/figures?step=${step}&points=${n}`)).body;
        const since = points[0]?.at ?? 0;
        kept = [...kept.filter((one) => one.at < since), ...points].slice(-POINTS[step]);
        const first = kept.findIndex((one) => one.eventsPerS !== null || one.requestsPerS !== null);
        if (!isOver) setFound({ points: first < 0 ? [] : kept.slice(first), problem: "" });
      } catch (error) {
        const problem = (error as Error).message;
        if (!isOver) setFound((old) => ({ ...old, problem }));
      }
    };
    setFound({ points: [], problem: "" });
    void read();
    const timer = setInterval(() => void (document.hidden || read()), EVERY_MS[step]);
    return () => {
      isOver = true;
      clearInterval(timer);
    };
  }, [step]);
  return found;
};

/** A measure of the order that served and of the plain blend, with intervals. */
export const measured = (points: readonly Point[], measure: "hr" | "mrr", objective = "interactions"): Values[] =>
  points.map(({ at, quality }) => {
    const found = ["served", "blend"].map((order) => quality.find((one) => one.objective === objective && one.order === order));
    return {
      at, values: found.map((one) => one?.[measure] ?? null),
      bands: found.map((one) => one?.[`${measure}Interval`] ?? null),
    };
  });
