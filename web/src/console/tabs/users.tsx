/** Users: history and answers of one, its export, and its erasure. */

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { Answer } from "recommender";
import { learn } from "../../shop/catalogue";
import { inWords, why } from "../../shop/why";
import { ask, when } from "../ask";
import { Asking, ItemName, Problem, counted, useGuard } from "../parts";
import { type TabProps, addressOf } from "../tab";

interface User {
  userId: string;
  properties: Record<string, unknown> | null;
  eventCount: number;
  acceptedAt: number | null;
  sessions: string[];
  events: { itemId: string | null; eventType: string | null; occurredAt: number }[];
}
interface Served {
  recommendationId: string;
  servedAt: number;
  sessionId: string | null;
  placement: string;
  arm: string;
  recipe: string;
  items: { itemId: string; source: string; isClicked: boolean; isBought: boolean; value: number }[];
}
interface Erased {
  events: number;
  sessions: number;
  links: number;
  records: number;
}

const LISTS = 20;
const SHOWN = 4;
const RECIPES: Record<string, string> = {
  "user-personalization": "for the user", "similar-items": "similar items", "trending-now": "trending", "popularity-count": "popular",
};

/** A list as it was served: its items in order with why, and those that were taken. */
const List = ({ one }: { one: Served }): JSX.Element => {
  const taken = one.items.filter((item) => item.isClicked || item.isBought).length;
  const value = one.items.reduce((sum, item) => sum + item.value, 0);
  return (
    <li>
      <p>
        <b>{when(one.servedAt)}</b> {RECIPES[one.recipe] ?? one.recipe}
        {one.placement && <span class="status">{one.placement}{one.arm && `, arm ${one.arm}`}</span>}
        {one.sessionId !== null && <span class="status">before login</span>}
        <small> {taken ? `${taken} of ${one.items.length} taken` : `nothing of ${one.items.length} taken`}{value > 0 && `, value ${value.toFixed(2)}`}</small>
      </p>
      <ol>
        {one.items.map((item, place) => (
          <li key={place} class={item.isBought ? "bought" : item.isClicked ? "clicked" : ""} title={inWords({ source: item.source })}>
            {item.itemId ? <ItemName itemId={item.itemId} /> : <span class="item">an item that is known no more</span>}
            <small>{inWords({ source: item.source })}</small>
            {(item.isClicked || item.isBought) && <span class="status good">{item.isBought ? "bought" : "clicked"}</span>}
          </li>
        ))}
      </ol>
    </li>
  );
};

/** The tab of users. */
export const Users = ({ client, named }: TabProps): JSX.Element => {
  const [name, setName] = useState(named);
  const [user, setUser] = useState<User | null>(null);
  const [answer, setAnswer] = useState<Answer | null>(null);
  const [lists, setLists] = useState<Served[]>([]);
  const [isAll, setAll] = useState(false);
  const [done, setDone] = useState("");
  const [error, guard] = useGuard();
  const look = async (userId: string): Promise<void> => {
    const path = encodeURIComponent(userId);
    const { body } = await ask<User>("GET", `/users/${path}?num_results=50`);
    const { lists: served } = (await ask<{ lists: Served[] }>("GET", `/users/${path}/lists?num_results=${LISTS}`)).body;
    const asked = `/recommend?user_id=${path}&num_results=8&reasons=true`;
    const { body: list } = await ask<Answer>("GET", asked);
    await learn(client, [
      ...body.events.flatMap((event) => event.itemId ?? []),
      ...list.items.flatMap((item) => [item.itemId, ...(item.reasons ?? []).flatMap((reason) => reason.itemId ?? [])]),
      ...served.flatMap((one) => one.items.flatMap((item) => item.itemId || [])),
    ]);
    setUser(body);
    setLists(served);
    setAnswer(list);
  };
  useEffect(() => {
    setName(named);
    setDone("");
    setAll(false);
    if (named) guard(() => look(named));
    else setUser(null);
  }, [named]);
  const erase = async (userId: string): Promise<void> => {
    const { body } = await ask<Erased>("DELETE", `/users/${encodeURIComponent(userId)}`);
    await look(userId);
    setDone(
      `Erased of ${userId}: ${counted(body.events, "event")}, ${counted(body.sessions, "session")}, ` +
        `${counted(body.links, "link")}, ${counted(body.records, "record")}.`,
    );
  };
  return (
    <>
      <form
        class="line"
        onSubmit={(event) => {
          event.preventDefault();
          setDone("");
          if (name === named) guard(() => look(name));
          else location.hash = addressOf("users", name);
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
      {!user && !error && <p class="note">By the id that your events name; <a href="#events">Events</a> has those of the moment.</p>}
      {user && (
        <div class="halves">
          <section aria-labelledby="history-title">
            <h2 id="history-title">{user.userId}</h2>
            <dl class="facts">
              <dt>Events</dt><dd id="count">{user.eventCount}</dd>
              <dt>Newest accepted</dt><dd>{when(user.acceptedAt)}</dd>
              <dt>Sessions</dt>
              <dd id="sessions">
                {user.sessions.slice(-5).join(", ") || "none"}
                {user.sessions.length > 5 && (
                  <details><summary>and {user.sessions.length - 5} before</summary>{user.sessions.slice(0, -5).join(", ")}</details>
                )}
              </dd>
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
            <div class="tall" role="region" aria-label="History" tabIndex={0}><ol class="answer" id="history">
              {user.events.map((event, place) => (
                <li key={place}>
                  {event.itemId ? <ItemName itemId={event.itemId} /> : <span class="item">no item</span>}
                  <b>{event.eventType}</b>
                  <p>{when(event.occurredAt)}</p>
                </li>
              ))}
            </ol></div>
          </section>
          <section aria-labelledby="now-title">
            <h2 id="now-title">Would be shown now</h2>
            {answer?.items.length === 0 && <p class="note">Nothing: there are no items yet.</p>}
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
      {user && (
      <section aria-labelledby="shown-title">
        <h2 id="shown-title">Was shown lately</h2>
        {lists.length === 0 && <p class="note">No list of the last day is followed; those of profiling=off never are.</p>}
        <ol class="lists" id="shown">
          {lists.slice(0, isAll ? LISTS : SHOWN).map((one) => <List key={one.recommendationId} one={one} />)}
        </ol>
        {!isAll && lists.length > SHOWN && (
          <button type="button" onClick={() => setAll(true)}>{counted(lists.length - SHOWN, "earlier list")}</button>
        )}
      </section>
      )}
    </>
  );
};
