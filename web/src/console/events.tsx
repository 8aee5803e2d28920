/** Events: send one, and follow it, or any other by its token, until it is in effect. */

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import type { Recommender } from "recommender";
import { ask } from "./ask";
import { Field, Problem, useGuard } from "./parts";

interface EventPath {
  positions: { topic: string; partition: number; offset: number }[];
  isInEffect: boolean;
  waitedMs: number;
}
interface Followed extends EventPath {
  token: string;
  acceptedMs: number | null;
}

const KEPT = 20;

/** The tab of events. */
export const Events = ({ client }: { client: Recommender }): JSX.Element => {
  const [sent, setSent] = useState({ type: "click", item: "", user: "" });
  const [token, setToken] = useState("");
  const [followed, setFollowed] = useState<Followed[]>([]);
  const [error, guard] = useGuard();
  const follow = async (after: string, acceptedMs: number | null): Promise<void> => {
    const { body } = await ask<EventPath>("GET", `/events/${encodeURIComponent(after)}`);
    setFollowed((before) => [{ ...body, token: after, acceptedMs }, ...before].slice(0, KEPT));
  };
  const send = async (): Promise<void> => {
    const event = { eventType: sent.type, itemId: sent.item, sentAt: Date.now() / 1000 };
    const body = {
      sessionId: `console-${client.sessionId}`, ...(sent.user && { userId: sent.user }), eventList: [event],
    };
    const answered = await ask<{ after: string }>("POST", "/events", body);
    setToken(answered.body.after);
    await follow(answered.body.after, answered.ms);
  };
  const text = (name: "type" | "item" | "user", isRequired: boolean): JSX.Element => (
    <input
      value={sent[name]} required={isRequired} maxLength={256} spellcheck={false} autocomplete="off"
      onInput={(event) => setSent({ ...sent, [name]: event.currentTarget.value })}
    />
  );
  return (
    <>
      <form class="question" id="send" onSubmit={(event) => { event.preventDefault(); guard(send); }}>
        <Field label="Type">{text("type", true)}</Field>
        <Field label="Item">{text("item", true)}</Field>
        <Field label="User">{text("user", false)}</Field>
        <button class="main">Send</button>
      </form>
      <form
        class="question" id="follow"
        onSubmit={(event) => { event.preventDefault(); guard(() => follow(token, null)); }}
      >
        <Field label="Token (after) of accepted events">
          <input
            value={token} required spellcheck={false} autocomplete="off"
            onInput={(event) => setToken(event.currentTarget.value)}
          />
        </Field>
        <button>Follow</button>
      </form>
      <Problem text={error} />
      <div class="wide" role="region" aria-label="Followed events" tabIndex={0}>
      <table id="followed">
        <thead>
          <tr><th>Topic</th><th>Partition</th><th>Offset</th><th>Accepted after</th><th>In effect</th><th>Token</th></tr>
        </thead>
        <tbody>
          {followed.flatMap((one, place) =>
            one.positions.map((position, part) => (
              <tr key={`${followed.length - place}-${part}`}>
                <td>{position.topic}</td>
                <td>{position.partition}</td>
                <td>{position.offset}</td>
                <td>{one.acceptedMs === null ? "" : `${one.acceptedMs.toFixed(1)} ms`}</td>
                <td>{one.isInEffect ? `yes, waited ${one.waitedMs.toFixed(1)} ms` : "not yet"}</td>
                <td>{one.token}</td>
              </tr>
            )),
          )}
        </tbody>
      </table>
      </div>
      <p class="note">
        What was refused is in the dead letters: <code>recommender dead-letters</code> shows, replays and discards them.
      </p>
    </>
  );
};
