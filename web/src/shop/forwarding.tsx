/** What became of events at Amazon Personalize, where a forwarder runs. */

import type { ComponentChildren, JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { type Recommender, RecommenderError } from "recommender";

interface Tracker {
  trackingId: string;
  forwarded: number;
  refused: number;
  waiting: number;
  oldestWaitingAgeS: number;
}

const EVERY_MS = 5000;

/** A table of trackers; what stands in its place, or nothing, without any, or for callers who may not see them. */
export const Forwarding = ({ client, children }: {
  client: Recommender; children?: ComponentChildren;
}): JSX.Element | null => {
  const [trackers, setTrackers] = useState<Tracker[]>([]);
  useEffect(() => {
    const read = async (): Promise<void> => {
      try {
        setTrackers((await client.get<{ trackers: Tracker[] }>("/forwarding")).trackers);
      } catch (error) {
        setTrackers([]);
        if (error instanceof RecommenderError && error.status === 403) clearInterval(timer);
      }
    };
    const timer = setInterval(() => void (document.hidden || read()), EVERY_MS);
    void read();
    return () => clearInterval(timer);
  }, [client]);
  if (!trackers.length && !children) return null;
  return (
    <section id="forwarding" aria-labelledby="forwarding-title">
      <h2 id="forwarding-title">Forwarded to Amazon Personalize</h2>
      {trackers.length === 0 ? children : (
      <table>
        <thead>
          <tr><th>Tracker</th><th>Forwarded</th><th>Waiting</th><th>Refused</th></tr>
        </thead>
        <tbody id="trackers">
          {trackers.map((one) => (
            <tr key={one.trackingId}>
              <td>{one.trackingId}</td>
              <td>{one.forwarded}</td>
              <td>{one.waiting}{one.waiting ? ` for ${one.oldestWaitingAgeS.toFixed(0)} s` : ""}</td>
              <td>{one.refused}</td>
            </tr>
          ))}
        </tbody>
      </table>
      )}
    </section>
  );
};
