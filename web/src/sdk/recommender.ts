/** Browser SDK of streaming-recommender: sends events, asks for recommendations, no dependency. */

/** What a client is made with. */
export interface Options {
  /** Address of the API; by default where this script is from. */
  url?: string;
  /** Public API key, bound to the origin of the page. */
  key?: string;
  /** Dataset group that events are for; without it that of the API. */
  trackingId?: string;
  /** Who is logged in. */
  userId?: string | null;
  /** False until the visitor has agreed: then nothing is sent, kept or read of anybody. */
  consent?: boolean;
  /** Prefix of what is kept in the browser's storage; one for each shopper on a page. */
  storage?: string;
}

/** Beside type and item of an event. */
export interface Extra {
  eventValue?: number;
  properties?: Record<string, unknown>;
  /** Of the answer that showed the item; by default the last one that did. */
  recommendationId?: string;
  /** Send at once, and not with the events of the next quarter of a second. */
  now?: boolean;
}

/** An event that Kafka has acknowledged. */
export interface Receipt {
  eventId: string;
  /** Token for `after`: wait until the event is in effect. */
  after: string;
}

/** Why an item is recommended; `share` of its score. */
export interface Reason {
  source: string;
  itemId?: string;
  eventType?: string;
  occurredAt?: number;
  share?: number;
}

/** One item of an answer. */
export interface Recommended {
  itemId: string;
  score: number;
  reasons?: Reason[];
  isExploration?: boolean;
}

/** A list of items, best first. */
export interface Answer {
  recommendationId: string;
  recipe: string;
  level: string;
  items: Recommended[];
  freshness: {
    userEventAt: number | null;
    newestEventAgeS: number | null;
    afterReached: boolean | null;
  };
}

/** Parameters of a list, as docs/http-api.md names them. */
export type Query = Record<string, string | number | boolean | null | undefined>;

/** An error of the API, or none of its answers (status 0). */
export class RecommenderError extends Error {
  constructor(readonly status: number, readonly type: string, message: string) {
    super(message);
  }
}

interface Queued {
  session: string;
  user: string | null;
  event: Record<string, unknown> & { eventId: string };
}
interface Waiting {
  resolve(receipt: Receipt): void;
  reject(error: unknown): void;
}

const BATCH_MS = 250;
const MAX_BATCH = 10;
const MAX_QUEUED = 200;
const MAX_SEEN = 25;
const MAX_LISTED = 500;
const SESSION_MS = 30 * 60_000;
const SEEN_MS = 1000;

const random = (): string => {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
};

/** A client of one visitor: one queue of events, one session. */
export class Recommender {
  /** The client that `<recommended-items>` uses by default: the first one made on the page. */
  static first: Recommender | undefined;

  #url: string;
  #options: Options;
  #user: string | null;
  #consent: boolean;
  #queue: Queued[];
  #waiting = new Map<string, Waiting>();
  #shown = new Map<string, string>();
  #seen = new Map<string, Set<string>>();
  #timer = 0;
  #sending: Promise<void> | null = null;
  #retryMs = 0;
  #watched = new Map<Element, [string, string, number]>();
  #observer: IntersectionObserver | undefined;

  constructor(options: Options = {}) {
    this.#options = options;
    this.#url = (options.url ?? new URL("..", import.meta.url).href).replace(/\/$/, "");
    this.#user = options.userId ?? null;
    this.#consent = options.consent ?? true;
    this.#queue = this.#consent ? (this.#read("queue") ?? []) : [];
    Recommender.first ??= this;
    addEventListener("online", () => this.flush());
    addEventListener("pagehide", () => this.#leave());
    document.addEventListener("visibilitychange", () => document.hidden && this.#leave());
    if (this.#queue.length) this.#later(0);
  }

  /** Who is logged in; null after logout, which begins a new session. */
  identify(userId: string | null): void {
    if (this.#user && this.#user !== userId) this.#write("session", null);
    this.#user = userId;
  }

  /** Id of the logged-in user. */
  get userId(): string | null {
    return this.#user;
  }

  /** The visit: it ends after half an hour without events, and at logout. */
  get sessionId(): string {
    const now = Date.now();
    const kept = this.#read<{ id: string; at: number }>("session");
    const id = kept && now - kept.at < SESSION_MS ? kept.id : random();
    if (this.#consent) this.#write("session", { id, at: now });
    return id;
  }

  /** Whether the visitor agrees to be recognised; no: what is kept here is removed. */
  consent(given: boolean): void {
    this.#consent = given;
    if (given) return;
    this.#queue = [];
    this.#seen.clear();
    for (const { reject } of this.#waiting.values()) reject(refused);
    this.#waiting.clear();
    for (const name of ["queue", "session"]) this.#write(name, null);
  }

  /** Send an event; fulfilled once Kafka has it, and rejected if the API refuses it for good. */
  track(eventType: string, itemId?: string | null, extra: Extra = {}): Promise<Receipt> {
    if (!this.#consent) return Promise.reject(refused);
    const { now, ...rest } = extra;
    const recommendationId = rest.recommendationId ?? (itemId && this.#shown.get(itemId));
    const seen = recommendationId && this.#seen.get(recommendationId);
    const event = {
      eventType,
      eventId: random(),
      sentAt: Date.now() / 1000,
      ...(itemId && { itemId }),
      ...rest,
      ...(recommendationId && { recommendationId }),
      ...(seen && seen.size && { impression: [...seen] }),
    };
    this.#queue.push({ session: this.sessionId, user: this.#user, event });
    for (const lost of this.#queue.splice(0, this.#queue.length - MAX_QUEUED))
      this.#settle(lost, new RecommenderError(0, "dropped", "too many events wait"));
    this.#keep();
    const receipt = new Promise<Receipt>((resolve, reject) => {
      this.#waiting.set(event.eventId, { resolve, reject });
    });
    // Who does not wait for the receipt has no use for an error either: events are sent again.
    receipt.catch(() => {});
    this.#later(now ? 0 : BATCH_MS);
    return receipt;
  }

  /** Send what waits, now; events that cannot be sent stay until they can. */
  flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#sending ??= this.#send().finally(() => {
      this.#sending = null;
    });
    return this.#sending;
  }

  /** Items for this visitor. */
  recommend(query: Query = {}): Promise<Answer> {
    return this.#list("/recommend", {
      ...(this.#consent ? { user_id: this.#user, session_id: this.sessionId } : {}),
      ...query,
    });
  }

  /** Items seen together with one. */
  similar(itemId: string, query: Query = {}): Promise<Answer> {
    return this.#list(`/similar/${encodeURIComponent(itemId)}`, query);
  }

  /** Items whose rate of events grows most. */
  trending(query: Query = {}): Promise<Answer> {
    return this.#list("/trending", query);
  }

  /** Items with the most events. */
  popular(query: Query = {}): Promise<Answer> {
    return this.#list("/popular", query);
  }

  /** The given items, the likeliest for this visitor first. */
  async rank(itemIds: string[]): Promise<Answer> {
    const known = this.#consent ? { userId: this.#user, sessionId: this.sessionId } : {};
    const body = JSON.stringify({ itemIds, ...known });
    const path = this.#consent ? "/rank" : "/rank?profiling=off";
    return this.#noted((await this.#ask(path, { method: "POST", body })) as Answer);
  }

  /** The JSON of any other route; raises `RecommenderError`. */
  async get<T>(path: string, query: Query = {}): Promise<T> {
    const pairs = Object.entries(query).filter(([, value]) => value != null && value !== "");
    const search = new URLSearchParams(pairs.map(([name, value]) => [name, String(value)]));
    return (await this.#ask(`${path}?${search}`)) as T;
  }

  /** Count an element as seen once half of it was in view for a second. */
  observe(element: Element, itemId: string, recommendationId: string): void {
    this.#observer ??= new IntersectionObserver((entries) => this.#look(entries), {
      threshold: 0.5,
    });
    this.#watched.set(element, [itemId, recommendationId, 0]);
    this.#observer.observe(element);
  }

  /** End of `observe`. */
  unobserve(element: Element): void {
    this.#observer?.unobserve(element);
    clearTimeout(this.#watched.get(element)?.[2]);
    this.#watched.delete(element);
  }

  #look(entries: IntersectionObserverEntry[]): void {
    for (const { target, isIntersecting } of entries) {
      const watched = this.#watched.get(target);
      if (!watched) continue;
      clearTimeout(watched[2]);
      if (!isIntersecting) continue;
      watched[2] = window.setTimeout(() => {
        const [itemId, list] = watched;
        const seen = this.#seen.get(list) ?? new Set();
        if (this.#consent && seen.size < MAX_SEEN) this.#seen.set(list, seen.add(itemId));
        trim(this.#seen, MAX_SEEN);
        this.unobserve(target);
      }, SEEN_MS);
    }
  }

  async #list(path: string, query: Query): Promise<Answer> {
    const profiling = this.#consent ? {} : { profiling: "off" };
    return this.#noted(await this.get<Answer>(path, { ...profiling, ...query }));
  }

  #noted(answer: Answer): Answer {
    for (const { itemId } of answer.items) {
      this.#shown.delete(itemId);
      this.#shown.set(itemId, answer.recommendationId);
    }
    trim(this.#shown, MAX_LISTED);
    return answer;
  }

  async #ask(path: string, init: RequestInit = {}): Promise<unknown> {
    const headers: Record<string, string> = this.#options.key
      ? { "x-api-key": this.#options.key }
      : {};
    let response: Response;
    try {
      response = await fetch(this.#url + path, {
        signal: AbortSignal.timeout(10_000),
        ...init,
        headers,
      });
    } catch {
      throw new RecommenderError(0, "unreachable", "The API does not answer.");
    }
    const body = await response.json().catch(() => null);
    if (response.ok && body) return body;
    const { type = "http_error", message = `The API answered ${response.status}.` } =
      body?.error ?? {};
    throw new RecommenderError(response.status, type, message);
  }

  #later(ms: number): void {
    if (ms === 0 && !this.#retryMs) void this.flush();
    else this.#timer ||= window.setTimeout(() => void this.flush(), Math.max(ms, this.#retryMs));
  }

  #batch(): Queued[] {
    const [first] = this.#queue;
    const end = this.#queue.findIndex(
      (one) => one.session !== first!.session || one.user !== first!.user,
    );
    return this.#queue.slice(0, Math.min(end < 0 ? MAX_BATCH : end, MAX_BATCH));
  }

  #body(batch: Queued[]): string {
    const { session, user } = batch[0]!;
    const { trackingId } = this.#options;
    return JSON.stringify({
      sessionId: session,
      ...(user && { userId: user }),
      ...(trackingId && { trackingId }),
      eventList: batch.map((one) => one.event),
    });
  }

  async #send(): Promise<void> {
    let most = MAX_BATCH;
    while (this.#queue.length) {
      const batch = this.#batch().slice(0, most);
      try {
        const init = { method: "POST", body: this.#body(batch), keepalive: true };
        const { after } = (await this.#ask("/events", init)) as { after: string };
        this.#remove(batch);
        for (const one of batch) this.#settle(one, after);
        this.#retryMs = 0;
        most = MAX_BATCH;
      } catch (error) {
        const { status } = error as RecommenderError;
        if (status < 400 || status === 408 || status === 429 || status >= 500) {
          this.#retryMs = Math.min(this.#retryMs * 2 || 1000, 60_000);
          this.#later(this.#retryMs);
          return;
        }
        // One bad event has a whole batch refused: the others are sent alone.
        if (batch.length > 1) most = 1;
        else {
          this.#remove(batch);
          this.#settle(batch[0]!, error);
        }
      }
    }
  }

  #leave(): void {
    while (this.#queue.length) {
      const batch = this.#batch();
      const body = this.#body(batch);
      // A beacon has no header for a key.
      if (this.#options.key)
        void this.#ask("/events", { method: "POST", body, keepalive: true }).catch(() => {});
      else if (!navigator.sendBeacon(`${this.#url}/events`, body)) return;
      this.#remove(batch);
    }
  }

  #remove(batch: Queued[]): void {
    this.#queue = this.#queue.filter((one) => !batch.includes(one));
    this.#keep();
  }

  #settle({ event: { eventId } }: Queued, outcome: unknown): void {
    const waiting = this.#waiting.get(eventId);
    this.#waiting.delete(eventId);
    if (typeof outcome === "string") waiting?.resolve({ eventId, after: outcome });
    else waiting?.reject(outcome);
  }

  #keep(): void {
    this.#write("queue", this.#queue.length ? this.#queue : null);
  }

  #name(name: string): string {
    return `${this.#options.storage ?? "recommender"}.${name}`;
  }

  #kept = new Map<string, unknown>();

  // Storage may be forbidden or full: then what is kept lives as long as the page.
  #read<T>(name: string): T | undefined {
    try {
      return JSON.parse(localStorage.getItem(this.#name(name)) ?? "null") ?? undefined;
    } catch {
      return this.#kept.get(name) as T | undefined;
    }
  }

  #write(name: string, value: unknown): void {
    try {
      if (value === null) localStorage.removeItem(this.#name(name));
      else localStorage.setItem(this.#name(name), JSON.stringify(value));
    } catch {
      this.#kept.set(name, value);
    }
  }
}

const refused = new RecommenderError(0, "no_consent", "The visitor has not agreed.");

const trim = (map: Map<string, unknown>, most: number): void => {
  for (const key of map.keys()) if (map.size > most) map.delete(key);
};

// Where pages are rendered on a server there are no elements, but the import must not fail.
const PageElement = globalThis.HTMLElement ?? (class {} as typeof HTMLElement);

/**
 * A row of recommended items in a page of one's own.
 *
 * `list` is recommend, similar, trending or popular, `item-id` the item being looked at, `count`
 * the number of items. A `<template>` inside is the card: in it, `[data-field=…]` gets the text of
 * a property that `describe` gives of the item. Clicks are tracked, cards that were seen counted.
 * It sends the events `recommended` (the answer), `recommended-click` (item and receipt) and
 * `recommender-error`.
 */
export class RecommendedItems extends PageElement {
  static observedAttributes = ["list", "item-id", "count"];

  /** The client; by default the first one of the page. */
  client: Recommender | undefined;
  /** What the page knows of an item, such as its name; by default its id. */
  describe: (itemId: string) => Record<string, unknown> = (name) => ({ name });
  #turn = 0;

  connectedCallback(): void {
    void this.refresh();
  }

  attributeChangedCallback(): void {
    if (this.isConnected) void this.refresh();
  }

  disconnectedCallback(): void {
    this.#clear();
  }

  /** Ask again, and show the answer; `after` is a receipt's token. */
  async refresh(after?: string): Promise<Answer | undefined> {
    const turn = ++this.#turn;
    // Once this script and those after it have run, the page has set what it wants to.
    await Promise.resolve();
    const client = (this.client ??= Recommender.first ?? new Recommender());
    const itemId = this.getAttribute("item-id");
    const query: Query = { num_results: this.getAttribute("count") ?? 8, after };
    const list = this.getAttribute("list") ?? "recommend";
    try {
      const answer = await (list === "similar"
        ? client.similar(itemId ?? "", query)
        : list === "trending" || list === "popular"
          ? client[list](query)
          : client.recommend({ ...query, item_id: itemId }));
      if (turn !== this.#turn) return undefined;
      this.#show(answer, client);
      return answer;
    } catch (error) {
      // A page without recommendations is still a page.
      this.dispatchEvent(new CustomEvent("recommender-error", { detail: error, bubbles: true }));
      return undefined;
    }
  }

  #clear(): void {
    for (const old of this.querySelectorAll("[data-item-id]")) {
      this.client?.unobserve(old);
      old.remove();
    }
  }

  #show(answer: Answer, client: Recommender): void {
    this.#clear();
    const template = this.querySelector("template")?.content.firstElementChild;
    for (const item of answer.items) {
      const card = (template?.cloneNode(true) ?? document.createElement("button")) as HTMLElement;
      const fields = { ...item, ...this.describe(item.itemId) } as Record<string, unknown>;
      for (const slot of card.querySelectorAll<HTMLElement>("[data-field]"))
        slot.textContent = String(fields[slot.dataset.field!] ?? "");
      if (!template) card.textContent = String(fields.name);
      card.dataset.itemId = item.itemId;
      card.addEventListener("click", () => {
        const receipt = client.track("click", item.itemId, { now: true });
        const detail = { itemId: item.itemId, receipt };
        this.dispatchEvent(new CustomEvent("recommended-click", { detail, bubbles: true }));
      });
      this.append(card);
      client.observe(card, item.itemId, answer.recommendationId);
    }
    this.dispatchEvent(new CustomEvent("recommended", { detail: answer, bubbles: true }));
  }
}

globalThis.customElements?.get("recommended-items") ||
  globalThis.customElements?.define("recommended-items", RecommendedItems);
