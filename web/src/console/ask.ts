/** Requests of the console: any method of the API's public routes, and how long each took. */

/** An answer, with its time in milliseconds. */
export interface Answered<T> {
  body: T;
  ms: number;
}

/** The JSON of a route; an error's message is the API's own. A text is sent as it is. */
export const ask = async <T>(method: string, path: string, body?: unknown): Promise<Answered<T>> => {
  const started = performance.now();
  let response: Response;
  try {
    response = await fetch(path.replace(/^\//, ""), {
      method,
      signal: AbortSignal.timeout(10_000),
      ...(body !== undefined && { body: typeof body === "string" ? body : JSON.stringify(body) }),
    });
  } catch {
    throw new Error("The API does not answer.");
  }
  const read = await response.json().catch(() => null);
  const ms = performance.now() - started;
  if (response.ok && read) return { body: read as T, ms };
  throw new Error(read?.error?.message ?? `The API answered ${response.status}.`);
};

/** A path with its query; empty values are left out. */
export const withQuery = (path: string, query: Record<string, string>): string => {
  const pairs = Object.entries(query).filter(([, value]) => value !== "");
  return pairs.length ? `${path}?${new URLSearchParams(pairs)}` : path;
};

/** A time of Unix seconds, as people of here write it. */
export const when = (seconds: number | null | undefined): string =>
  seconds == null ? "never" : new Date(seconds * 1000).toLocaleString("en", { hour12: false });
