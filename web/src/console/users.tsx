/** Users: history and answers of one, its export, and its erasure. */

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import type { Answer, Recommender } from "recommender";
import { learn } from "../shop/catalogue";
import { why } from "../shop/why";
import { ask, when } from "./ask";
import { Asking, ItemName, Problem, useGuard } from "./parts";

interface User {
  userId: string;
  properties: Record<string, unknown> | null;
  eventCount: number;
  acceptedAt: number | null;
  events: { itemId: string | null; eventType: string | null; occurredAt: number }[];
}
interface Erased {
  events: number;
  sessions: number;
  links: number;
  records: number;
}

/** The tab of users. */
export const Users = ({ client }: { client: Recommender }): JSX.Element => {
  const [name, setName] = useState("");
  const [user, setUser] = useState<User | null>(null);
  const [answer, setAnswer] = useState<Answer | null>(null);
  const [done, setDone] = useState("");
  const [error, guard] = useGuard();
  const look = async (userId: string): Promise<void> => {
    const path = encodeURIComponent(userId);
    const { body } = await ask<User>("GET", `/users/${path}?num_results=50`);
    const asked = `/recommend?user_id=${path}&num_results=8&reasons=true`;
    const { body: list } = await ask<Answer>("GET", asked);
    await learn(client, [
      ...body.events.flatMap((event) => event.itemId ?? []),
      ...list.items.map((item) => item.itemId),
    ]);
    setUser(body);
    setAnswer(list);
  };
  const erase = async (userId: string): Promise<void> => {
    const { body } = await ask<Erased>("DELETE", `/users/${encodeURIComponent(userId)}`);
    await look(userId);
    setDone(
      `Erased of ${userId}: ${body.events} events, ${body.sessions} sessions, ${body.links} links, ` +
        `${body.records} records.`,
    );
  };
  return (
    <>
      <form
        class="line"
        onSubmit={(event) => {
          event.preventDefault();
          setDone("");
          guard(() => look(name));
        }}
      >
        <input
          aria-label="User id" placeholder="User id" value={name} required maxLength={256}
          spellcheck={false} autocomplete="off"
          onInput={(event) => setName(event.currentTarget.value)}
        />
        <button class="main">Show</button>
      </form>
      <Problem text={error} />
      <p role="status" id="done">{done}</p>
      {user && (
        <div class="halves">
          <section aria-labelledby="history-title">
            <h2 id="history-title">{user.userId}</h2>
            <dl class="facts">
              <dt>Events</dt><dd id="count">{user.eventCount}</dd>
              <dt>Newest accepted</dt><dd>{when(user.acceptedAt)}</dd>
              {Object.entries(user.properties ?? {}).map(([key, value]) => [
                <dt key={`${key} name`}>{key}</dt>, <dd key={key}>{String(value)}</dd>,
              ])}
            </dl>
            <p class="line">
              <a href={`users/${encodeURIComponent(user.userId)}/export`} download={`${user.userId}.json`}>
                Export
              </a>
              <Asking
                text="Erase…" question={`Erase all that is held about ${user.userId}?`}
                onYes={() => guard(() => erase(user.userId))}
              />
            </p>
            <ol class="answer" id="history">
              {user.events.map((event, place) => (
                <li key={place}>
                  {event.itemId ? <ItemName itemId={event.itemId} /> : <span class="item">no item</span>}
                  <b>{event.eventType}</b>
                  <p>{when(event.occurredAt)}</p>
                </li>
              ))}
            </ol>
          </section>
          <section aria-labelledby="now-title">
            <h2 id="now-title">Would be shown now</h2>
            <ol class="answer" id="now">
              {(answer?.items ?? []).map((item) => (
                <li key={item.itemId}>
                  <ItemName itemId={item.itemId} />
                  <b>{item.score.toPrecision(3)}</b>
                  <p>{why(item.reasons)}</p>
                </li>
              ))}
            </ol>
          </section>
        </div>
      )}
    </>
  );
};
