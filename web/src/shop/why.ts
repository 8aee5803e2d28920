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

const SOURCES: Record<string, string> = {
  alike: "Shoppers like you chose it",
  popular: "Many shoppers want it",
  trending: "Wanted more and more right now",
  recent: "Somebody looked at it moments ago",
  new: "New in the shop",
  fresh: "New in the shop",
  history: "It fits what you did before",
  category: "From a category that you look at",
  exploration: "New here: it gets its chance",
};

/** One reason as a sentence. */
export const inWords = ({ source, itemId, eventType }: Reason): string =>
  itemId
    ? `Because ${(DID[eventType ?? ""] ?? looked)(describe(itemId).name)}`
    : (SOURCES[source] ?? source);

/** The first reason, for the card. */
export const why = (reasons: readonly Reason[] | undefined): string =>
  reasons?.[0] ? inWords(reasons[0]) : "";
