/** A line over time, drawn as it is read. */

import type { JSX } from "preact";

/** One value at a time in Unix seconds; null where there was none. */
export interface Point {
  at: number;
  value: number | null;
}

const WIDTH = 600;
const HEIGHT = 120;

/** The line of some points, with the largest value and the newest one in words. */
export const Chart = ({ id, title, unit, points }: {
  id: string; title: string; unit: string; points: readonly Point[];
}): JSX.Element => {
  const values = points.flatMap((one) => (one.value === null ? [] : [one.value]));
  const most = Math.max(...values, 0.001);
  const first = points[0]?.at ?? 0;
  const span = Math.max(60, (points.at(-1)?.at ?? 0) - first);
  let isGap = true;
  const line = points
    .map(({ at, value }) => {
      if (value === null) {
        isGap = true;
        return "";
      }
      const x = ((at - first) / span) * WIDTH;
      const y = HEIGHT - 4 - (value / most) * (HEIGHT - 12);
      const step = `${isGap ? "M" : "L"}${x.toFixed(1)} ${y.toFixed(1)}`;
      isGap = false;
      return step;
    })
    .join("");
  const said = (value: number | undefined): string =>
    value === undefined ? "none yet" : `${value < 10 ? value.toFixed(1) : value.toFixed(0)} ${unit}`;
  return (
    <figure class="chart" id={id}>
      <figcaption>
        {title} <b>{said(values.at(-1))}</b>
        <small>most {said(values.length ? Math.max(...values) : undefined)}</small>
      </figcaption>
      <svg
        viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img"
        aria-label={`${title}: ${said(values.at(-1))} now`}
      >
        <path class="axis" d={`M0 ${HEIGHT - 4}H${WIDTH}`} />
        <path class="trace" d={line} />
      </svg>
    </figure>
  );
};
