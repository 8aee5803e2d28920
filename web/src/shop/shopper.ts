/** One shopper on the page: who it is, what it sees, and what its last event has changed. */

import { type Answer, type Recommended, Recommender, RecommenderError } from "recommender";
import { describe, learn } from "./catalogue";

/** Items of the list "For you". */
export const SHOWN = 12;
const PATIENCE_MS = 5000;
/** How long answers may keep what they read of others: after it the same list is the same. */
const SETTLING_MS = 1500;

/** Where a card came from: places up (positive) or down, or new in the list. */
export type Moves = ReadonlyMap<string, number | "new">;

/** A list as it is shown. */
export interface Row {
  items: readonly Recommended[];
  moves: Moves;
}

/** The way of an event, with milliseconds since it was sent. */
export interface Path {
  what: string;
  acceptedMs?: number;
  place?: { topic: string; partition: number; offset: number };
  appliedMs?: number;
  visibleMs?: number;
  isChanged?: boolean;
  isLate?: boolean;
}

interface EventPath {
  positions: { topic: string; partition: number; offset: number }[];
  isInEffect: boolean;
}

const VERBS: Record<string, string> = {
  click: "Looked at", cart: "Put in the cart", purchase: "Bought", login: "Logged in",
};
const EMPTY: Row = { items: [], moves: new Map() };

const ids = (items: readonly Recommended[]): string => items.map((one) => one.itemId).join("\n");

/** The new list, with how each card moved from the old one. */
export const rowOf = (items: readonly Recommended[], before: Row): Row => {
  const places = new Map(before.items.map((one, place) => [one.itemId, place]));
  const moves = new Map<string, number | "new">();
  items.forEach(({ itemId }, place) => {
    const old = places.get(itemId);
    if (old === undefined) before.items.length && moves.set(itemId, "new");
    else if (old !== place) moves.set(itemId, old - place);
  });
  return { items, moves };
};

/** A shopper with a client of its own; `changed` is called after each change. */
export class Shopper {
  readonly client: Recommender;
  forYou: Row = EMPTY;
  because: { itemId: string; row: Row } | null = null;
  together: Row = EMPTY;
  viewed: string | null = null;
  cart: string[] = [];
  hidden = new Set<string>();
  level = "";
  /** Id of the answer that `forYou` shows. */
  listId = "";
  path: Path | null = null;
  error = "";
  #turn = 0;

  constructor(readonly storage: string, private readonly changed: () => void) {
    this.client = new Recommender({ storage });
  }

  /** Name of the shopper; null for a visitor that is not logged in. */
  get name(): string | null {
    return this.client.userId;
  }

  /** Ask for the lists again. */
  refresh(): Promise<void> {
    return this.#guarded(async (isLatest) => {
      const answer = await this.#recommend();
      if (isLatest()) await this.#show(answer);
    });
  }

  /** Send an event, and show its way and the lists that it has changed. */
  act(eventType: string, itemId: string | null, value?: number): Promise<void> {
    if (itemId && eventType === "click") this.viewed = itemId;
    return this.#guarded(async (isLatest) => {
      const name = itemId ? describe(itemId).name : (this.name ?? "");
      const path: Path = { what: `${VERBS[eventType] ?? eventType} ${name}` };
      const tell = (more: Partial<Path>): void => {
        Object.assign(path, more);
        if (isLatest()) this.changed();
      };
      this.path = path;
      const before = ids(this.forYou.items);
      const started = performance.now();
      const since = (): number => performance.now() - started;
      const extra = { now: true, ...(value !== undefined && { eventValue: value }) };
      const { after } = await this.client.track(eventType, itemId, extra);
      tell({ acceptedMs: since() });
      const following = this.#follow(after, since, tell);
      const { answer, ms, isReached, isChanged } = await this.#effect(after, before, since);
      tell(isReached ? { visibleMs: ms, isChanged } : { isLate: true });
      if (!isReached)
        throw new Error("Accepted, but not in effect yet: is a worker running?");
      if (isLatest()) await this.#show(answer);
      await following;
    });
  }

  /** Log in; what the visitor did before counts for the user from then on. */
  async logIn(name: string): Promise<void> {
    this.client.identify(name);
    await this.act("login", null);
  }

  /** Log out: a new visitor. */
  async logOut(): Promise<void> {
    this.client.identify(null);
    this.viewed = this.because = this.path = null;
    this.cart = [];
    this.forYou = this.together = EMPTY;
    await this.refresh();
  }

  /** Put an item into the cart. */
  async add(itemId: string): Promise<void> {
    if (!this.cart.includes(itemId)) this.cart = [...this.cart, itemId];
    const others = this.together.items.filter((one) => one.itemId !== itemId);
    this.together = rowOf(others, this.together);
    await this.act("cart", itemId);
  }

  /** Take an item out of the cart; nothing is sent of it. */
  async remove(itemId: string): Promise<void> {
    this.cart = this.cart.filter((one) => one !== itemId);
    await this.#guarded(() => this.#buyTogether());
  }

  /** Buy all that is in the cart. */
  async buy(): Promise<void> {
    const bought = this.cart;
    this.cart = [];
    this.together = EMPTY;
    for (const itemId of bought) await this.act("purchase", itemId, describe(itemId).price);
  }

  /** Show an item no more to this shopper, on this page. */
  hide(itemId: string): void {
    this.hidden.add(itemId);
    void this.refresh();
  }

  #recommend(after?: string): Promise<Answer> {
    const n = SHOWN + this.hidden.size;
    return this.client.recommend({ num_results: Math.min(n, 100), reasons: true, after });
  }

  #visible(items: readonly Recommended[], n: number): Recommended[] {
    return items.filter((one) => !this.hidden.has(one.itemId)).slice(0, n);
  }

  async #follow(
    after: string, since: () => number, tell: (more: Partial<Path>) => void,
  ): Promise<void> {
    try {
      const found = await this.client.get<EventPath>(`/events/${after}`);
      const [place] = found.positions;
      tell({ ...(place && { place }), ...(found.isInEffect && { appliedMs: since() }) });
    } catch (error) {
      // Who may not follow events still sees the effect.
      if (!(error instanceof RecommenderError)) throw error;
    }
  }

  async #effect(after: string, before: string, since: () => number): Promise<{
    answer: Answer; ms: number; isReached: boolean; isChanged: boolean;
  }> {
    let reachedMs = 0;
    for (;;) {
      const answer = await this.#recommend(after);
      const ms = since();
      const isReached = !!answer.freshness.afterReached;
      const isChanged = ids(this.#visible(answer.items, SHOWN)) !== before;
      if (isReached && isChanged) return { answer, ms, isReached, isChanged };
      if (isReached) reachedMs ||= ms;
      if (reachedMs && ms > reachedMs + SETTLING_MS)
        return { answer, ms: reachedMs, isReached, isChanged };
      if (ms > PATIENCE_MS && !reachedMs) return { answer, ms, isReached, isChanged };
      if (isReached) await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  async #show(answer: Answer): Promise<void> {
    const items = this.#visible(answer.items, SHOWN);
    const causes = items.flatMap((one) => (one.reasons ?? []).map((reason) => reason.itemId ?? ""));
    await learn(this.client, [...items.map((one) => one.itemId), ...causes.filter(Boolean)]);
    this.forYou = rowOf(items, this.forYou);
    this.level = answer.level;
    this.listId = answer.recommendationId;
    this.changed();
    await Promise.all([this.#becauseOf(), this.#buyTogether()]);
  }

  async #becauseOf(): Promise<void> {
    const itemId = this.viewed;
    if (!itemId) return;
    const { items } = await this.client.similar(itemId, { num_results: 6 + this.hidden.size });
    await learn(this.client, items.map((one) => one.itemId));
    const before = this.because?.itemId === itemId ? this.because.row : EMPTY;
    this.because = { itemId, row: rowOf(this.#visible(items, 6), before) };
    this.changed();
  }

  async #buyTogether(): Promise<void> {
    const scores = new Map<string, Recommended>();
    const seeds = this.cart.slice(-3);
    const answers = await Promise.all(
      seeds.map((itemId) => this.client.similar(itemId, { num_results: 12 })),
    );
    for (const { items } of answers)
      for (const { itemId, score } of items)
        scores.set(itemId, { itemId, score: score + (scores.get(itemId)?.score ?? 0) });
    const best = [...scores.values()]
      .filter((one) => !this.cart.includes(one.itemId))
      .sort((one, other) => other.score - one.score);
    const items = this.#visible(best, 3);
    await learn(this.client, items.map((one) => one.itemId));
    this.together = rowOf(items, this.together);
    this.changed();
  }

  async #guarded(work: (isLatest: () => boolean) => Promise<void>): Promise<void> {
    const mine = ++this.#turn;
    const isLatest = (): boolean => mine === this.#turn;
    this.error = "";
    this.changed();
    try {
      await work(isLatest);
    } catch (error) {
      if (isLatest()) this.error = (error as Error).message;
    }
    this.changed();
  }
}
