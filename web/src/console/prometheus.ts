/** Requests of the API process, from its metrics in Prometheus' text format. */

/** What a route has answered so far: counts, and how many within each duration in seconds. */
export interface RouteCounts {
  requests: number;
  failed: number;
  within: Map<number, number>;
}

/** Counts of each route. */
export const routeCounts = (text: string): Map<string, RouteCounts> => {
  const found = new Map<string, RouteCounts>();
  const of = (route: string): RouteCounts => {
    const known = found.get(route) ?? { requests: 0, failed: 0, within: new Map() };
    found.set(route, known);
    return known;
  };
  for (const line of text.split("\n")) {
    const [, name, labels, value] = /^(\w+)\{(.*)\} (\S+)$/.exec(line) ?? [];
    const route = /route="([^"]*)"/.exec(labels ?? "")?.[1];
    if (route === undefined) continue;
    if (name === "recommender_requests_total") {
      of(route).requests += Number(value);
      if (/status="5/.test(labels!)) of(route).failed += Number(value);
    } else if (name === "recommender_request_seconds_bucket") {
      const limit = /le="([^"]*)"/.exec(labels!)?.[1];
      of(route).within.set(limit === "+Inf" ? Infinity : Number(limit), Number(value));
    }
  }
  return found;
};

/** What came between two readings. */
export const since = (now: RouteCounts, before: RouteCounts | undefined): RouteCounts => ({
  requests: now.requests - (before?.requests ?? 0),
  failed: now.failed - (before?.failed ?? 0),
  within: new Map([...now.within].map(([le, n]) => [le, n - (before?.within.get(le) ?? 0)])),
});

/** The duration within which a share of requests was answered: the limit of its bucket. */
export const quantile = ({ within }: RouteCounts, share: number): number | null => {
  const limits = [...within].sort(([one], [other]) => one - other);
  const all = limits.at(-1)?.[1] ?? 0;
  return all ? (limits.find(([, n]) => n >= share * all)?.[0] ?? null) : null;
};

/** Answers so far by level: how much stood behind each. */
export const answerLevels = (text: string): Map<string, number> => {
  const found = new Map<string, number>();
  for (const line of text.split("\n")) {
    const [, labels, value] = /^recommender_answers_total\{(.*)\} (\S+)$/.exec(line) ?? [];
    const level = /level="([^"]*)"/.exec(labels ?? "")?.[1];
    if (level) found.set(level, (found.get(level) ?? 0) + Number(value));
  }
  return found;
};
