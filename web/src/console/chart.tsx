/** Lines over time, drawn as they are read. */

import type { JSX } from "preact";
import { useRef, useState } from "preact/hooks";

/** One value at a time in Unix seconds; null where there was none. */
export interface Point {
  at: number;
  value: number | null;
}

/** Values of several lines at a time, and between what each is certain to lie. */
export interface Values {
  at: number;
  values: readonly (number | null)[];
  bands?: readonly (readonly [number, number] | null)[];
}

const WIDTH = 600;
const HEIGHT = 120;
const TOP = 8;
const BOTTOM = 4;

/** The least of 1, 2 or 5 times a power of ten that is not below a value. */
const rounded = (value: number): number => {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value) ?? value;
};

const clock = (at: number, isLong: boolean): string =>
  new Date(at * 1000).toLocaleString("en", {
    hour12: false, hour: "2-digit", minute: "2-digit",
    ...(isLong && { month: "short", day: "numeric" }),
  });

/** Some lines with one scale: the newest values in words, and those under the pointer. */
export const Lines = ({ id, title, unit, points, names = [], digits = 1 }: {
  id: string; title: string; unit: string; points: readonly Values[]; names?: readonly string[]; digits?: number;
}): JSX.Element => {
  const [at, setAt] = useState<number | null>(null);
  const drawing = useRef<SVGSVGElement>(null);
  const n = Math.max(1, names.length);
  const all = points.flatMap((one) => [
    ...one.values.filter((value) => value !== null), ...(one.bands ?? []).flatMap((band) => (band ? [band[1]] : [])),
  ]);
  const most = rounded(Math.max(...all, 0) || 1);
  const first = points[0]?.at ?? 0;
  const span = Math.max(60, (points.at(-1)?.at ?? 0) - first);
  // One point alone stands in the middle.
  const x = (time: number): number => (points.length > 1 ? ((time - first) / span) * WIDTH : WIDTH / 2);
  const y = (value: number): number => HEIGHT - BOTTOM - (value / most) * (HEIGHT - TOP - BOTTOM);
  /** Areas between the ends of intervals, as one path. */
  const area = (line: number): string => {
    const parts: (readonly [number, readonly [number, number]])[][] = [[]];
    for (const { at: time, bands } of points) {
      const band = bands?.[line];
      if (band) parts.at(-1)!.push([time, band]);
      else if (parts.at(-1)!.length) parts.push([]);
    }
    return parts.filter((part) => part.length > 1).map((part) => {
      const low = part.map(([time, band]) => `${x(time).toFixed(1)} ${y(band[0]).toFixed(1)}`);
      const high = part.map(([time, band]) => `${x(time).toFixed(1)} ${y(band[1]).toFixed(1)}`).reverse();
      return `M${[...low, ...high].join("L")}Z`;
    }).join("");
  };
  const path = (line: number): string => {
    let isGap = true;
    return points
      .map(({ at: time, values }, place) => {
        const value = values[line];
        if (value == null) {
          isGap = true;
          return "";
        }
        const next = points[place + 1]?.values[line];
        // A point between two gaps would be no line: it is a dash.
        const end = isGap && next == null ? (points.length > 1 ? "h4" : "m-20 0h40") : "";
        const step = `${isGap ? "M" : "L"}${x(time).toFixed(1)} ${y(value).toFixed(1)}${end}`;
        isGap = false;
        return step;
      })
      .join("");
  };
  const said = (value: number | null | undefined): string =>
    value == null ? "–" : `${value.toLocaleString("en", { maximumFractionDigits: value < 10 ? digits : 0, minimumFractionDigits: value < 10 ? Math.min(digits, 1) : 0 })}${unit && ` ${unit}`}`;
  const newest = (line: number): number | null | undefined =>
    [...points].reverse().find((one) => one.values[line] != null)?.values[line];
  const pointed = at === null ? null : points[at];
  const point = (event: PointerEvent): void => {
    const box = drawing.current?.getBoundingClientRect();
    if (!box?.width || !points.length) return;
    const time = first + ((event.clientX - box.left) / box.width) * span;
    const near = points.reduce((best, one, place) =>
      Math.abs(one.at - time) < Math.abs(points[best]!.at - time) ? place : best, 0);
    setAt(near);
  };
  return (
    <figure class="chart" id={id}>
      <figcaption>
        <span class="title">{title}</span>
        {Array.from({ length: n }, (_, line) => (
          <span key={line} class={`key k${line}`}>
            {names[line] && <small>{names[line]} </small>}
            <b>{said(pointed ? pointed.values[line] : newest(line))}</b>
          </span>
        ))}
        <small class="scale">{pointed ? clock(pointed.at, span > 86_400) : `to ${said(most)}`}</small>
      </figcaption>
      <svg
        ref={drawing} viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img"
        aria-label={`${title}: ${Array.from({ length: n }, (_, line) => `${names[line] ?? ""} ${said(newest(line))}`).join(", ")} now`}
        onPointerMove={point} onPointerLeave={() => setAt(null)}
      >
        <path class="axis" d={`M0 ${HEIGHT - BOTTOM}H${WIDTH}M0 ${TOP}H${WIDTH}M0 ${(HEIGHT - BOTTOM + TOP) / 2}H${WIDTH}`} />
        {Array.from({ length: n }, (_, line) => <path key={line} class={`area k${line}`} d={area(line)} />)}
        {Array.from({ length: n }, (_, line) => <path key={line} class={`trace k${line}`} d={path(line)} />)}
        {pointed && <path class="pointer" d={`M${x(pointed.at).toFixed(1)} 0V${HEIGHT}`} />}
      </svg>
      {points.length === 0 ? <p class="times">Nothing yet.</p> : (
        <p class={points.length > 1 ? "times" : "times one"} aria-hidden="true">
          <span>{clock(first, span > 86_400)}</span>
          {points.length > 1 && <span>{clock(points.at(-1)!.at, span > 86_400)}</span>}
        </p>
      )}
    </figure>
  );
};

/** One line. */
export const Chart = ({ points, ...rest }: {
  id: string; title: string; unit: string; points: readonly Point[];
}): JSX.Element => (
  <Lines {...rest} points={points.map(({ at, value }) => ({ at, values: [value] }))} />
);
