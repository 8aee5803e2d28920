/** One shopper on the page: who it is, what it sees, and what its last event has changed. */

import { type Answer, type Query, type Recommended, Recommender, RecommenderError } from "recommender";
import { describe, learn } from "./catalogue";

/** Items of the list "For you". */
export const SHOWN = 12;
/** Items of a row beside it. */
const BESIDE = 6;
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
  /** The event, once it is accepted, if it can be undone. */
  undoable?: { eventType: string; itemId: string; eventId: string };
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
  click: "Looked at", cart: "Put in the cart:", purchase: "Bought", login: "Logged in", dislike: "Not for you:",
  remove_from_cart: "Took out of the cart:", undo: "Undone:",
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

/** Items of a list that gives no reasons, with the one that they all have. */
export const reasoned = (items: readonly Recommended[], source: string, itemId?: string): Recommended[] =>
  items.map((one) => ({ ...one, reasons: [{ source, share: 1, ...(itemId && { itemId }) }] }));

/** A shopper with a client of its own; `changed` is called after each change. */
export class Shopper {
  readonly client: Recommender;
  forYou: Row = EMPTY;
  /** What goes with the item that was looked at last, and what is of its kind. */
  because: { itemId: string; row: Row; similar: Row } | null = null;
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
  act(eventType: string, itemId: string | null, value?: number, undone?: string): Promise<void> {
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
      const extra = {
        now: true, ...(value !== undefined && { eventValue: value }), ...(undone && { properties: { eventId: undone } }),
      };
      const { after, eventId } = await this.client.track(eventType, undone ? null : itemId, extra);
      tell({ acceptedMs: since(), ...(itemId && !undone && { undoable: { eventType, itemId, eventId } }) });
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
    this.hidden.clear();
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

  /** Take an item out of the cart. */
  async remove(itemId: string): Promise<void> {
    this.cart = this.cart.filter((one) => one !== itemId);
    await this.act("remove_from_cart", itemId);
  }

  /** Buy all that is in the cart. */
  async buy(): Promise<void> {
    const bought = this.cart;
    this.cart = [];
    this.together = EMPTY;
    for (const itemId of bought) await this.act("purchase", itemId, describe(itemId).price);
  }

  /** Not for this shopper: the item leaves all rows at once, and all answers with the event. */
  async dislike(itemId: string): Promise<void> {
    this.hidden.add(itemId);
    const without = (row: Row): Row => rowOf(row.items.filter((one) => one.itemId !== itemId), row);
    this.together = without(this.together);
    if (this.because) this.because = { ...this.because, row: without(this.because.row), similar: without(this.because.similar) };
    await this.act("dislike", itemId);
  }

  /** Undo the last event: the lists are as if it had never been sent. */
  async undo(): Promise<void> {
    const last = this.path?.undoable;
    if (!last) return;
    const { eventType, itemId, eventId } = last;
    this.hidden.delete(itemId);
    if (eventType === "cart") this.cart = this.cart.filter((one) => one !== itemId);
    if (eventType === "remove_from_cart") this.cart = [...this.cart, itemId];
    await this.act("undo", itemId, undefined, eventId);
  }

  /** Of a list that is the same for everybody, what this shopper does not dislike. */
  get taste(): Query {
    return { hide: "disliked", user_id: this.client.userId, session_id: this.client.sessionId };
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
    const { alike } = describe(itemId);
    const [seen, ofKind] = await Promise.all([
      this.client.similar(itemId, { num_results: 2 * BESIDE, ...this.taste }),
      alike ? this.client.similar(itemId, { num_results: BESIDE, filter: alike, ...this.taste }) : null,
    ]);
    const similar = reasoned(this.#visible(ofKind?.items ?? [], BESIDE), "kind", itemId);
    // What is of its kind has a row of its own.
    const others = seen.items.filter((one) => !similar.some((other) => other.itemId === one.itemId));
    const items = reasoned(this.#visible(others, BESIDE), "together", itemId);
    await learn(this.client, [...items, ...similar].map((one) => one.itemId));
    const before = this.because?.itemId === itemId ? this.because : null;
    this.because = { itemId, row: rowOf(items, before?.row ?? EMPTY), similar: rowOf(similar, before?.similar ?? EMPTY) };
    this.changed();
  }

  async #buyTogether(): Promise<void> {
    const found = new Map<string, { item: Recommended; of: Map<string, number> }>();
    const seeds = this.cart.slice(-3);
    const answers = await Promise.all(
      seeds.map((itemId) => this.client.similar(itemId, { num_results: 12, ...this.taste })),
    );
    answers.forEach(({ items }, place) => {
      for (const { itemId, score } of items) {
        const { item, of } = found.get(itemId) ?? { item: { itemId, score: 0 }, of: new Map<string, number>() };
        found.set(itemId, { item: { itemId, score: item.score + score }, of: of.set(seeds[place]!, score) });
      }
    });
    const best = [...found.values()]
      .filter(({ item }) => !this.cart.includes(item.itemId))
      .sort((one, other) => other.item.score - one.item.score)
      .map(({ item, of }): Recommended => ({
        ...item,
        reasons: [...of].sort(([, one], [, other]) => other - one)
          .map(([itemId, score]) => ({ source: "cart", itemId, share: score / (item.score || 1) })),
      }));
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
