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
export declare class RecommenderError extends Error {
    readonly status: number;
    readonly type: string;
    constructor(status: number, type: string, message: string);
}
/** A client of one visitor: one queue of events, one session. */
export declare class Recommender {
    #private;
    /** The client that `<recommended-items>` uses by default: the first one made on the page. */
    static first: Recommender | undefined;
    constructor(options?: Options);
    /** Who is logged in; null after logout, which begins a new session. */
    identify(userId: string | null): void;
    /** Id of the logged-in user. */
    get userId(): string | null;
    /** The visit: it ends after half an hour without events, and at logout. */
    get sessionId(): string;
    /** Whether the visitor agrees to be recognised; no: what is kept here is removed. */
    consent(given: boolean): void;
    /** Send an event; fulfilled once Kafka has it, and rejected if the API refuses it for good. */
    track(eventType: string, itemId?: string | null, extra?: Extra): Promise<Receipt>;
    /** Send what waits, now; events that cannot be sent stay until they can. */
    flush(): Promise<void>;
    /** Items for this visitor. */
    recommend(query?: Query): Promise<Answer>;
    /** Items seen together with one. */
    similar(itemId: string, query?: Query): Promise<Answer>;
    /** Items whose rate of events grows most. */
    trending(query?: Query): Promise<Answer>;
    /** Items with the most events. */
    popular(query?: Query): Promise<Answer>;
    /** The given items, the likeliest for this visitor first. */
    rank(itemIds: string[]): Promise<Answer>;
    /** The JSON of any other route; raises `RecommenderError`. */
    get<T>(path: string, query?: Query): Promise<T>;
    /** Count an element as seen once half of it was in view for a second. */
    observe(element: Element, itemId: string, recommendationId: string): void;
    /** End of `observe`. */
    unobserve(element: Element): void;
}
declare const PageElement: {
    new (): HTMLElement;
    prototype: HTMLElement;
};
/**
 * A row of recommended items in a page of one's own.
 *
 * `list` is recommend, similar, trending or popular, `item-id` the item being looked at, `count`
 * the number of items. A `<template>` inside is the card: in it, `[data-field=…]` gets the text of
 * a property that `describe` gives of the item. Clicks are tracked, cards that were seen counted.
 * It sends the events `recommended` (the answer), `recommended-click` (item and receipt) and
 * `recommender-error`.
 */
export declare class RecommendedItems extends PageElement {
    #private;
    static observedAttributes: string[];
    /** The client; by default the first one of the page. */
    client: Recommender | undefined;
    /** What the page knows of an item, such as its name; by default its id. */
    describe: (itemId: string) => Record<string, unknown>;
    connectedCallback(): void;
    attributeChangedCallback(): void;
    disconnectedCallback(): void;
    /** Ask again, and show the answer; `after` is a receipt's token. */
    refresh(after?: string): Promise<Answer | undefined>;
}
export {};
