/** Pictures of items, drawn from a shape and a colour: the same for everyone, without a request. */

import type { JSX } from "preact";
import { GLYPHS } from "./glyphs";

/** Main colour, shade and light of each colour's name. */
const COLOURS: Record<string, readonly [string, string, string]> = {
  red: ["#d64545", "#9f2a33", "#f08a7e"],
  orange: ["#e5823a", "#b2581a", "#f7b478"],
  yellow: ["#e6b325", "#ab7f0b", "#f8dc7b"],
  green: ["#4f9a5b", "#2f6d3e", "#93cc93"],
  teal: ["#2f9b97", "#1b6c6d", "#7fd0c6"],
  blue: ["#3f78c9", "#264f92", "#8fb8ef"],
  purple: ["#8460bd", "#593d8d", "#bca2e4"],
  brown: ["#96683f", "#664324", "#c79a6b"],
  black: ["#434a55", "#252a32", "#7b8594"],
  white: ["#eef1f4", "#b9c2cc", "#ffffff"],
  cream: ["#ead9b5", "#bfa572", "#f8efd9"],
  steel: ["#9aa7b4", "#66727f", "#cfd8e0"],
};
const TONES: Record<string, string> = {
  k: "#2b313b", w: "#fdfcf8", g: "#aab5c0", o: "#a9774a", y: "#ffd766",
};
const NAMES = Object.keys(COLOURS);
const SHAPES = Object.keys(GLYPHS);

/** A number that a text always gives. */
const hash = (text: string): number => {
  let value = 2166136261;
  for (const letter of text) value = Math.imul(value ^ letter.codePointAt(0)!, 16777619);
  return value >>> 0;
};

const Mark = ({ text, tones }: { text: string; tones: Record<string, string> }): JSX.Element => {
  const [, tone = "m", kind, rest = ""] = /^(\w) (\w) (.*)$/.exec(text) ?? [];
  const fill = tones[tone]!;
  if (kind === "p") return <path d={rest} fill={fill} />;
  if (kind === "s") {
    const [width, ...d] = rest.split(" ");
    return (
      <path
        d={d.join(" ")} fill="none" stroke={fill} stroke-width={width}
        stroke-linecap="round" stroke-linejoin="round"
      />
    );
  }
  const [a, b, c, d, e] = rest.split(" ").map(Number);
  if (kind === "r") return <rect x={a} y={b} width={c} height={d} rx={e} fill={fill} />;
  if (kind === "c") return <circle cx={a} cy={b} r={c} fill={fill} />;
  return <ellipse cx={a} cy={b} rx={c} ry={d} fill={fill} />;
};

/**
 * The picture of an item: `picture` is a shape and a colour such as `tent green`. An item without
 * one gets a box of a colour that its id gives.
 */
export const Picture = ({ itemId, picture, category }: {
  itemId: string;
  picture?: string | undefined;
  category?: string | undefined;
}): JSX.Element => {
  const [shape = "", colour = ""] = (picture ?? "").split(" ");
  const seed = hash(itemId);
  const known = GLYPHS[shape] ?? GLYPHS[SHAPES.includes(itemId) ? itemId : "box"]!;
  const [m, d, l] = COLOURS[colour] ?? COLOURS[NAMES[seed % 9]!]!;
  const hue = hash(category ?? itemId) % 360;
  const ground = `light-dark(hsl(${hue} 38% 91%), hsl(${hue} 16% 25%))`;
  return (
    <svg class="picture" viewBox="0 0 96 76" aria-hidden="true" focusable="false">
      <rect class="ground" width="96" height="76" style={{ fill: ground }} />
      <ellipse class="shade" cx="48" cy="68" rx="25" ry="3.5" />
      <g transform="translate(16 5)">
        {known.split(";").map((text) => (
          <Mark text={text} tones={{ ...TONES, m, d, l }} />
        ))}
      </g>
    </svg>
  );
};
