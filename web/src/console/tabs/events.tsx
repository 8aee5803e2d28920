/** Events: as they come, the way of each, one of one's own, and what was refused. */

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { ask, when, withQuery } from "../ask";
import { DeadLetters } from "../dead_letters";
import { AskingForm, Field, Problem, useGuard } from "../parts";
import { type TabProps, addressOf } from "../tab";

interface Tailed {
  topic: string;
  partition: number;
  offset: number;
  acceptedAt: number | null;
  eventId: string;
  eventType: string;
  itemId: string | null;
  userId: string | null;
  sessionId: string;
  after: string;
}
interface EventPath {
  positions: { topic: string; partition: number; offset: number }[];
  isInEffect: boolean;
  waitedMs: number;
}
interface Followed extends EventPath {
  token: string;
  acceptedMs: number | null;
}
interface Wanted {
  user_id: string;
  item_id: string;
  event_type: string;
}

/** What a token looks like: a letter of the topic, partition and offset, several with dots between. */
const TOKEN = /^[a-z]\d+-\d+(-[0-9a-f]+)?(\.[a-z]\d+-\d+(-[0-9a-f]+)?)*$/;
const KEPT = 200;
const SHOWN = 50;
const FOLLOWED = 20;
const ALL: Wanted = { user_id: "", item_id: "", event_type: "" };

/** The newest events of a kind, and how many were left out; nothing while it is paused. */
const useTail = (wanted: Wanted, isPaused: boolean): { events: Tailed[]; leftOut: number; state: string } => {
  const [tail, setTail] = useState({ events: [] as Tailed[], leftOut: 0, state: "connecting…" });
  useEffect(() => {
    if (isPaused) {
      setTail((old) => ({ ...old, state: "paused" }));
      return;
    }
    const source = new EventSource(withQuery("live/events", { ...wanted }));
    source.onmessage = ({ data }) => {
      const news = JSON.parse(data as string) as { events: Tailed[]; leftOut: number };
      setTail((old) => ({
        events: news.events.length ? [...news.events.reverse(), ...old.events].slice(0, KEPT) : old.events,
        leftOut: old.leftOut + news.leftOut,
        state: "live",
      }));
    };
    source.onerror = () =>
      setTail((old) => ({ ...old, state: source.readyState === 2 ? "not for this key" : "connecting…" }));
    return () => source.close();
  }, [wanted, isPaused]);
  return tail;
};

const Tail = ({ onFollow }: { onFollow: (after: string) => void }): JSX.Element => {
  const [typed, setTyped] = useState(ALL);
  const [wanted, setWanted] = useState(ALL);
  const [isPaused, setPaused] = useState(false);
  const { events, leftOut, state } = useTail(wanted, isPaused);
  const text = (name: keyof Wanted): JSX.Element => (
    <input
      value={typed[name]} maxLength={256} spellcheck={false} autocomplete="off"
      onInput={(event) => setTyped({ ...typed, [name]: event.currentTarget.value })}
    />
  );
  const rows = events.filter((one) =>
    (!wanted.user_id || one.userId === wanted.user_id) && (!wanted.item_id || one.itemId === wanted.item_id)
      && (!wanted.event_type || one.eventType === wanted.event_type));
  return (
    <section aria-labelledby="tail-title">
      <h2 id="tail-title">As they come <small class="state" id="tail-state">{state}</small></h2>
      <form class="question" id="tail-filter" onSubmit={(event) => { event.preventDefault(); setWanted(typed); }}>
        <Field label="Only type">{text("event_type")}</Field>
        <Field label="Only item">{text("item_id")}</Field>
        <Field label="Only user">{text("user_id")}</Field>
        <button>Filter</button>
        <button type="button" aria-pressed={isPaused} onClick={() => setPaused(!isPaused)}>Pause</button>
      </form>
      <div class="wide tall" role="region" aria-label="Events as they come" tabIndex={0}>
        <table id="tail">
          <thead>
            <tr><th>Accepted</th><th>Type</th><th>Item</th><th>User or session</th><th>Place in Kafka</th><th /></tr>
          </thead>
          <tbody>
            {rows.slice(0, SHOWN).map((one) => (
              <tr key={`${one.after}/${one.eventId}`}>
                <td>{one.acceptedAt ? new Date(one.acceptedAt * 1000).toLocaleTimeString("en", { hour12: false }) : ""}</td>
                <td>{one.eventType}</td>
                <td>{one.itemId !== null && <a href={addressOf("items", one.itemId)}>{one.itemId}</a>}</td>
                <td>{one.userId === null ? <i>{one.sessionId}</i> : <a href={addressOf("users", one.userId)}>{one.userId}</a>}</td>
                <td>{one.topic}/{one.partition}/{one.offset}</td>
                <td><button type="button" class="quiet" aria-label={`Follow ${one.eventId}`} onClick={() => onFollow(one.after)}>Follow</button></td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {rows.length === 0 && <p class="note">Nothing {wanted === ALL ? "" : "like this "}has come since this was opened.</p>}
      {leftOut > 0 && <p class="note">{leftOut.toLocaleString("en")} events came too fast to be shown.</p>}
    </section>
  );
};

const Send = ({ session, onSent }: {
  session: string; onSent: (after: string, ms: number) => Promise<void>;
}): JSX.Element => {
  const [sent, setSent] = useState({ type: "click", item: "", user: "" });
  const [error, guard] = useGuard();
  const send = async (): Promise<void> => {
    const event = { eventType: sent.type, itemId: sent.item, sentAt: Date.now() / 1000 };
    const body = { sessionId: session, ...(sent.user && { userId: sent.user }), eventList: [event] };
    const answered = await ask<{ after: string }>("POST", "/events", body);
    await onSent(answered.body.after, answered.ms);
  };
  const text = (name: "type" | "item" | "user", isRequired: boolean): JSX.Element => (
    <input
      value={sent[name]} required={isRequired} maxLength={256} spellcheck={false} autocomplete="off"
      onInput={(event) => setSent({ ...sent, [name]: event.currentTarget.value })}
    />
  );
  return (
    <section aria-labelledby="send-title">
      <h2 id="send-title">Send one</h2>
      <AskingForm
        id="send" text="Send…" onYes={() => guard(send)}
        question={`Send ${sent.type} of ${sent.item}${sent.user && ` by ${sent.user}`}? It counts like every other.`}
      >
        <Field label="Type">{text("type", true)}</Field>
        <Field label="Item">{text("item", true)}</Field>
        <Field label="User">{text("user", false)}</Field>
      </AskingForm>
      <Problem text={error} />
    </section>
  );
};

/** The token that follows the event of an id. */
const tokenOf = async (eventId: string): Promise<string> => {
  const { events, searched } = (await ask<{ events: Tailed[]; searched: number }>("GET", withQuery("/events", { event_id: eventId }))).body;
  if (!events.length) throw new Error(`No event has the id ${eventId} among the newest ${searched.toLocaleString("en")} messages.`);
  return events.at(-1)!.after;
};

/** The tab of events. */
export const Events = ({ client }: TabProps): JSX.Element => {
  const [token, setToken] = useState("");
  const [followed, setFollowed] = useState<Followed[]>([]);
  const [error, guard] = useGuard();
  const shown = useRef<HTMLDivElement>(null);
  const follow = async (after: string, acceptedMs: number | null): Promise<void> => {
    const named = TOKEN.test(after) ? after : await tokenOf(after);
    const { body } = await ask<EventPath>("GET", `/events/${encodeURIComponent(named)}`);
    setFollowed((before) => [{ ...body, token: named, acceptedMs }, ...before].slice(0, FOLLOWED));
    // It may be below what is in view, as after a press on a row of the tail.
    setTimeout(() => shown.current?.scrollIntoView({ block: "nearest" }));
  };
  const sent = async (after: string, ms: number): Promise<void> => {
    setToken(after);
    await follow(after, ms);
  };
  return (
    <>
      <Tail onFollow={(after) => guard(() => follow(after, null))} />
      <div class="halves">
        <Send session={`console-${client.sessionId}`} onSent={sent} />
        <section aria-labelledby="follow-title">
          <h2 id="follow-title">Follow one</h2>
          <form
            class="question" id="follow"
            onSubmit={(event) => { event.preventDefault(); guard(() => follow(token.trim(), null)); }}
          >
            <Field label="Event id, or token (after)">
              <input
                value={token} required spellcheck={false} autocomplete="off"
                onInput={(event) => setToken(event.currentTarget.value)}
              />
            </Field>
            <button>Follow</button>
          </form>
          <Problem text={error} />
        </section>
      </div>
      {followed.length > 0 && (
        <div class="wide" role="region" aria-label="Followed events" tabIndex={0} ref={shown}>
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
      )}
      <DeadLetters when={when} />
    </>
  );
};
