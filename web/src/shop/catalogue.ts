/** What is known of the items: from `GET /items`, and where the API does not tell, from their ids. */

import { Recommender, RecommenderError } from "recommender";

/** Metadata of an item, as the demo's catalogue names it. */
export interface Known {
  itemId: string;
  name: string;
  category?: string | undefined;
  /** A filter of the items of the same category; none where it cannot be written. */
  alike?: string | undefined;
  price?: number | undefined;
  picture?: string | undefined;
  description?: string | undefined;
}

interface Listed {
  itemId: string;
  properties: Record<string, string | number | boolean | null> | null;
}
interface Items {
  items: Listed[];
  cursor: string | null;
}

const PREFETCHED = 500;
const known = new Map<string, Known>();

const titled = (id: string): string =>
  id.replace(/[-_]+/g, " ").replace(/^./, (letter) => letter.toUpperCase());

const text = (value: unknown): string | undefined =>
  typeof value === "string" && value ? value : undefined;

/** The filter of items with the first value of a property, as the recommender's language has it. */
const filterOf = (of: Record<string, unknown>): string | undefined => {
  const property = ["CATEGORY", "GENRES"].find((name) => text(of[name]));
  const value = property && text(of[property])!.split("|")[0]!;
  return property && value && !/["\\]/.test(value) ? `INCLUDE ItemID WHERE Items.${property} IN ("${value}")` : undefined;
};

const remember = ({ itemId, properties }: Listed): Known => {
  const of = properties ?? {};
  const item = {
    itemId,
    name: text(of.NAME) ?? text(of.TITLE) ?? titled(itemId),
    category: text(of.CATEGORY) ?? text(of.GENRES),
    alike: filterOf(of),
    price: typeof of.PRICE === "number" ? of.PRICE : undefined,
    picture: text(of.PICTURE),
    description: text(of.DESCRIPTION),
  };
  known.set(itemId, item);
  return item;
};

/** What is known of an item so far. */
export const describe = (itemId: string): Known =>
  known.get(itemId) ?? { itemId, name: titled(itemId) };

/** Take over what was read of an item elsewhere. */
export const relearn = (itemId: string, properties: Listed["properties"]): void =>
  void remember({ itemId, properties });

/** False if the API does not tell a caller like this one about items. */
export let isReadable = true;

const read = async <T>(asking: Promise<T>, otherwise: T): Promise<T> => {
  try {
    return await asking;
  } catch (error) {
    if (!(error instanceof RecommenderError && [401, 403, 404].includes(error.status))) throw error;
    if (error.status !== 404) isReadable = false;
    return otherwise;
  }
};

const nothing: Items = { items: [], cursor: null };

/** Read a first part of the catalogue: all of it for a shop like the demo's. */
export const prefetch = async (client: Recommender): Promise<void> => {
  const query = { num_results: PREFETCHED };
  const found = await read(client.get<Items>("/items", query), nothing);
  found.items.forEach(remember);
};

/** Learn what is not known yet of these items; at most one request for each. */
export const learn = async (client: Recommender, itemIds: readonly string[]): Promise<void> => {
  if (!isReadable) return;
  const missing = [...new Set(itemIds)].filter((itemId) => !known.has(itemId));
  await Promise.all(
    missing.map(async (itemId) => {
      const path = `/items/${encodeURIComponent(itemId)}`;
      remember(await read(client.get<Listed>(path), { itemId, properties: null }));
    }),
  );
};

/** Ids of items with these words. */
export const search = async (client: Recommender, query: string): Promise<string[]> => {
  let cursor: string | null = null;
  const found: string[] = [];
  // A page may be empty, and a large catalogue have many of them.
  for (let pages = 0; pages < 20 && found.length < 48; pages++) {
    const page: Items = await read(client.get<Items>("/items", { query, cursor }), nothing);
    found.push(...page.items.map((item) => remember(item).itemId));
    cursor = page.cursor;
    if (!cursor) break;
  }
  return found.slice(0, 100);
};

/** Ids of the items that came last. */
export const newest = async (client: Recommender, n: number): Promise<string[]> => {
  const query = { order: "newest", num_results: n };
  const found = await read(client.get<Items>("/items", query), nothing);
  return found.items.map((item) => remember(item).itemId);
};

/** A price in words. */
export const priced = (price: number | undefined): string =>
  price === undefined ? "" : new Intl.NumberFormat("en", { style: "currency", currency: "EUR" }).format(price);
