/** Configurations of placements: their members as the API names them, and what they say in words. */

export interface Boost {
  filter: string;
  factor: number;
}
export interface Pin {
  item_id: string;
  slot: number;
}
export interface Cap {
  property: string;
  most: number;
}
export interface Rule {
  name?: string;
  from?: string;
  until?: string;
  segment?: string;
  filter?: string;
  exclude?: string[];
  hide?: string[];
  boost?: Boost[];
  pin?: Pin[];
  cap?: Cap[];
  diversity?: number;
}
export interface Configuration {
  recipe?: string;
  objective?: string;
  ranker?: string;
  num_results?: number;
  caption?: string;
  fallbacks?: string[];
  rules?: Rule[];
}

/** A version of a placement; one that deleted it has no configuration. */
export interface Saved {
  name: string;
  version: number;
  savedAt: number;
  savedBy: string;
  configuration: Configuration | null;
  warnings: string[];
}

/** Kinds of lists, in words. */
export const RECIPES: Readonly<Record<string, string>> = {
  "user-personalization": "For the user",
  "similar-items": "Seen together with an item",
  "trending-now": "Trending",
  "popularity-count": "Popular",
};

const isSaid = (value: unknown): boolean =>
  value !== undefined && value !== null && value !== "" && value !== 0 && !(Array.isArray(value) && value.length === 0);

/** Without members that say nothing, as the API takes it. */
export const cleaned = (one: Configuration): Configuration => {
  const said = <T extends object>(from: T): T =>
    Object.fromEntries(Object.entries(from).filter(([, value]) => isSaid(value))) as T;
  const rules = (one.rules ?? []).map(said).filter((rule) => Object.keys(rule).length);
  return said({ ...one, rules });
};

const counted = (n: number | undefined, one: string, more = `${one}s`): string =>
  n ? `${n} ${n === 1 ? one : more}` : "";

export const NOTHING = "does nothing yet";

/** What a rule does, in a few words. */
export const ruleInWords = (rule: Rule): string =>
  [
    rule.filter && "a filter",
    counted(rule.exclude?.length, "item left out", "items left out"),
    rule.hide?.length && `hides what was ${rule.hide.map((one) => one.split(":")[0]).join(", ")}`,
    counted(rule.boost?.length, "boost"),
    counted(rule.pin?.length, "pin"),
    counted(rule.cap?.length, "cap"),
    rule.diversity && `diversity ${rule.diversity}`,
  ].filter(Boolean).join(", ") || NOTHING;

/** Whether a rule is in force at a time: always, from then on, until then, or no more. */
export const inForce = (rule: Rule, now: number): { text: string; isOn: boolean } => {
  const day = (text: string): string =>
    new Date(text).toLocaleString("en", { hour12: false, month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });
  if (rule.until && Date.parse(rule.until) <= now) return { text: `over since ${day(rule.until)}`, isOn: false };
  if (rule.from && Date.parse(rule.from) > now) return { text: `from ${day(rule.from)}`, isOn: false };
  return { text: rule.until ? `in force until ${day(rule.until)}` : "in force", isOn: true };
};

/** What a configuration says, in a few words. */
export const inWords = (one: Configuration | null): string =>
  one === null
    ? "deleted"
    : [
        one.recipe ? RECIPES[one.recipe] ?? one.recipe : "list of the question",
        one.objective && one.objective !== "interactions" && `for ${one.objective}`,
        one.ranker && `ranked by ${one.ranker}`,
        `${one.num_results ?? 25} items`,
        counted(one.rules?.length, "rule"),
        counted(one.fallbacks?.length, "fallback"),
      ].filter(Boolean).join(", ");
