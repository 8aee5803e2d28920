/** Live figures of the group, from server-sent events; the browser reconnects by itself. */

import { useEffect, useState } from "preact/hooks";

/** One message of `GET /live`. */
export interface Figures {
  at: number;
  events: number;
  purchases: number;
  items: number;
  users: number;
  sessions: number;
  newestEventAgeS: number | null;
}

/** The newest figures, events a second since the one before, and whether they are current. */
export interface Live {
  figures: Figures | null;
  perS: number;
  state: "connecting" | "live" | "away" | "closed";
}

/** The state in words. */
export const stateInWords = ({ state, figures }: Live): string =>
  ({
    live: "live", closed: "no live figures", away: "Redis does not answer",
    connecting: figures ? "connection lost, trying again…" : "connecting…",
  })[state];

const START: Live = { figures: null, perS: 0, state: "connecting" };
const SMOOTH = 0.3;

/** Listens while the page is shown; `onEvents` is called when there are new events. */
export const useLive = (onEvents: () => void): Live => {
  const [live, setLive] = useState(START);
  useEffect(() => {
    const source = new EventSource("live");
    let last: Figures | null = null;
    let perS = 0;
    source.onmessage = ({ data }) => {
      const figures = JSON.parse(data as string) as Figures;
      if (last && figures.at > last.at) {
        const rate = Math.max(0, figures.events - last.events) / (figures.at - last.at);
        perS += SMOOTH * (rate - perS);
        if (figures.events > last.events && !document.hidden) onEvents();
      }
      last = figures;
      setLive({ figures, perS, state: "live" });
    };
    source.addEventListener("unavailable", () => setLive((old) => ({ ...old, state: "away" })));
    // A refusal, as for a key without the role, ends it for good.
    source.onerror = () =>
      setLive((old) => ({ ...old, state: source.readyState === 2 ? "closed" : "connecting" }));
    return () => source.close();
  }, []);
  return live;
};
