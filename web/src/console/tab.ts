/** What each tab of the console gets. */

import type { Recommender } from "recommender";
import type { Live } from "../shop/live";
import type { Point } from "./chart";

/** Points of the live charts; the page keeps three minutes of them. */
export interface History {
  rate: Point[];
  age: Point[];
}

/** A client of the API, the newest live figures, and those since the page was opened. */
export interface TabProps {
  client: Recommender;
  live: Live;
  history: History;
  /** What the address names after the tab, such as a user; empty where it names nothing. */
  named: string;
}

/** The address of a tab, and of one thing in it. */
export const addressOf = (tab: string, named: string): string => `#${tab}/${encodeURIComponent(named)}`;
