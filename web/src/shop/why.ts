/** Reasons of an answer in words. */

import type { Reason } from "recommender";
import { describe } from "./catalogue";

const DID: Record<string, (name: string) => string> = {
  purchase: (name) => `you bought ${name}`,
  buy: (name) => `you bought ${name}`,
  cart: (name) => `you put ${name} in your cart`,
  view: (name) => `you are looking at ${name}`,
};
const looked = (name: string): string => `you looked at ${name}`;

/** Reasons that name an item, by what it has to do with the card. */
const OF_ITEM: Record<string, (name: string) => string> = {
  together: (name) => `Often looked at together with ${name}`,
  kind: (name) => `Of the same kind as ${name}`,
  cart: (name) => `Goes with ${name} in your cart`,
};

const SOURCES: Record<string, string> = {
  alike: "Shoppers like you chose it",
  text: "New, and like what you looked at",
  popular: "Many shoppers want it",
  trending: "Wanted more and more right now",
  recent: "Somebody looked at it moments ago",
  new: "New in the shop",
  fresh: "New in the shop",
  history: "It fits what you did before",
  category: "From a category that you look at",
  exploration: "New here: it gets its chance",
  filter: "What else the filter allows",
  pinned: "Put here by the shop",
  event: "Goes with what was chosen",
  ranked: "Ranked by what was learned",
  retrieved: "Ranked by the plain blend",
  cached: "Last known: Redis was away",
  found: "Found by your words, likeliest for you first",
};

/** One reason as a sentence. */
export const inWords = ({ source, itemId, eventType }: Reason): string =>
  itemId
    ? (OF_ITEM[source]?.(describe(itemId).name) ?? `Because ${(DID[eventType ?? ""] ?? looked)(describe(itemId).name)}`)
    : (SOURCES[source] ?? source);

const SIGNALS: Record<string, string> = {
  alike: "Shoppers like you", text: "Similar texts", popular: "Many want it", trending: "Trending now",
  recent: "Looked at just now", new: "New", fresh: "New", history: "What you did", category: "Its category",
};

/** A reason as one signal beside others: what it is of, or what it is, in a word or two. */
export const asSignal = (reason: Reason): string =>
  reason.itemId ? describe(reason.itemId).name : (SIGNALS[reason.source] ?? inWords(reason));

/** The first reason, for the card. */
export const why = (reasons: readonly Reason[] | undefined): string =>
  reasons?.[0] ? inWords(reasons[0]) : "";
