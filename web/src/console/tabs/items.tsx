/** Items: search the catalogue; properties, counts and neighbours of one; edit, hide, delete; import. */

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { Answer, Recommender } from "recommender";
import { learn, relearn } from "../../shop/catalogue";
import { ask, when, withQuery } from "../ask";
import { Import } from "../import_items";
import { Asking, ItemName, Problem, counted, useGuard } from "../parts";
import { type TabProps, addressOf } from "../tab";

interface Item {
  itemId: string;
  properties: Properties | null;
  createdAt: number | null;
  updatedAt: number | null;
  isHidden: boolean;
  events: number;
  purchases: number;
  firstEventAt: number | null;
  lastEventAt: number | null;
  rates: Record<string, number>;
}
type Properties = Record<string, string | number | boolean | null>;

interface Page {
  items: { itemId: string; properties: Properties; isHidden: boolean }[];
  cursor: string | null;
}

const HORIZONS = ["month", "week", "day", "hour"];

/** Events an hour as of a month, a week, a day and an hour: rising to the right is wanted more of late. */
const Trend = ({ rates }: { rates: Record<string, number> }): JSX.Element | null => {
  const shown = HORIZONS.filter((name) => name in rates).map((name) => ({ name, rate: rates[name]! }));
  if (!shown.length) return null;
  const most = Math.max(...shown.map((one) => one.rate), 1e-9);
  // Each point stands above its name.
  const x = (place: number): number => place * 40 + 20;
  const path = shown.map(({ rate }, place) => `${place ? "L" : "M"}${x(place)} ${28 - (rate / most) * 24}`).join("");
  const said = (rate: number): string => rate.toLocaleString("en", { maximumSignificantDigits: 3 });
  return (
    <figure class="trend" id="trend">
      <figcaption>Events an hour, as of the last</figcaption>
      <svg viewBox={`0 0 ${shown.length * 40} 32`} role="img" aria-label={`Events an hour: ${shown.map((one) => `as of the last ${one.name} ${said(one.rate)}`).join(", ")}`}>
        <path class="trace" d={path} />
        {shown.map(({ rate }, place) => <circle key={place} cx={x(place)} cy={28 - (rate / most) * 24} r="2" />)}
      </svg>
      <dl>
        {shown.map((one) => <div key={one.name}><dt>{one.name}</dt><dd>{said(one.rate)}</dd></div>)}
      </dl>
    </figure>
  );
};

const Detail = ({ itemId, client, onPick, onChange }: {
  itemId: string; client: Recommender; onPick: (itemId: string) => void; onChange: () => void;
}): JSX.Element => {
  const [item, setItem] = useState<Item | null>(null);
  const [near, setNear] = useState<Answer | null>(null);
  const [text, setText] = useState("");
  const [done, setDone] = useState("");
  const [error, guard] = useGuard();
  const read = async (after = ""): Promise<void> => {
    const path = `/items/${encodeURIComponent(itemId)}`;
    const { body } = await ask<Item>("GET", withQuery(path, { after }));
    setItem(body);
    setText(JSON.stringify(body.properties ?? {}, null, 2));
    const found = (await ask<Answer>("GET", `/similar/${encodeURIComponent(itemId)}?num_results=8`)).body;
    await learn(client, found.items.map((one) => one.itemId));
    setNear(found);
  };
  const shown = useRef<HTMLElement>(null);
  useEffect(() => {
    setDone("");
    guard(async () => {
      await read();
      // On a narrow screen it stands below the list.
      if (matchMedia("(max-width: 62rem)").matches) shown.current?.scrollIntoView({ block: "start" });
    });
  }, [itemId]);
  const save = async (): Promise<void> => {
    const properties = JSON.parse(text) as Properties;
    await put(properties, `The properties of ${itemId} are saved.`);
  };
  const put = async (properties: Properties, said: string): Promise<void> => {
    const { body } = await ask<{ after: string }>("PUT", "/items", { items: [{ itemId, properties }] });
    relearn(itemId, properties);
    await read(body.after);
    setDone(said);
    onChange();
  };
  const hide = async (): Promise<void> => {
    const { HIDDEN: _, ...others } = item?.properties ?? {};
    if (item?.isHidden) await put(others, `${itemId} is shown again.`);
    else await put({ ...others, HIDDEN: true }, `${itemId} is hidden: no answer holds it any more.`);
  };
  const remove = async (): Promise<void> => {
    const { body } = await ask<{ after: string }>("DELETE", `/items/${encodeURIComponent(itemId)}`);
    relearn(itemId, null);
    await read(body.after);
    setDone(`${itemId} is deleted: its properties are gone, and no answer holds it. Its ${counted(item?.events ?? 0, "event")} still count for others.`);
    onChange();
  };
  if (!item) return <Problem text={error} />;
  const most = Math.max(...(near?.items ?? []).map((one) => one.score), 0);
  return (
    <section class="detail" aria-labelledby="item-title" ref={shown}>
      <h2 id="item-title"><ItemName itemId={itemId} /> {item.isHidden && <span class="status bad" id="hidden">hidden</span>}</h2>
      <Problem text={error} />
      <dl class="facts">
        <dt>Events</dt><dd id="events">{item.events}</dd>
        <dt>Purchases</dt><dd>{item.purchases}</dd>
        <dt>First event</dt><dd>{when(item.firstEventAt)}</dd>
        <dt>Last event</dt><dd>{when(item.lastEventAt)}</dd>
        <dt>Created</dt><dd>{when(item.createdAt)}</dd>
        <dt>Changed</dt><dd>{when(item.updatedAt)}</dd>
      </dl>
      <Trend rates={item.rates} />
      <form onSubmit={(event) => event.preventDefault()}>
        <label class="field">
          <span>Properties, as JSON</span>
          <textarea
            id="properties" rows={8} spellcheck={false} value={text}
            onInput={(event) => setText(event.currentTarget.value)}
          />
        </label>
        <p class="line">
          <Asking text="Save…" isMain id="save" question={`Replace all properties of ${itemId}?`} onYes={() => guard(save)} />
          {item.isHidden ? (
            <Asking text="Show again…" id="show" question={`Let answers hold ${itemId} again?`} onYes={() => guard(hide)} />
          ) : (
            <Asking text="Hide…" question={`Hide ${itemId} from every answer?`} onYes={() => guard(hide)} />
          )}
          <Asking
            text="Delete…" question={`Delete the properties of ${itemId}, and hide it?`} onYes={() => guard(remove)}
          />
        </p>
        <p role="status" id="done">{done}</p>
      </form>
      <h3>Seen together</h3>
      {near?.items.length === 0 && <p class="note">Nothing yet: nobody who chose it has chosen another item.</p>}
      <ol class="answer" id="neighbours">
        {(near?.items ?? []).map((one) => (
          <li key={one.itemId}>
            <ItemName itemId={one.itemId} onPick={onPick} />
            <b>{one.score.toPrecision(3)}</b>
            <i style={{ width: `${most ? (one.score / most) * 100 : 0}%` }} />
          </li>
        ))}
      </ol>
    </section>
  );
};

/** The tab of items. */
export const Items = ({ client, named }: TabProps): JSX.Element => {
  const [words, setWords] = useState("");
  const [searched, setSearched] = useState("");
  const [found, setFound] = useState<string[]>([]);
  const [hidden, setHidden] = useState<ReadonlySet<string>>(new Set());
  const [cursor, setCursor] = useState<string | null>(null);
  const [error, guard] = useGuard();
  const search = async (query: string, from: string | null): Promise<void> => {
    const path = withQuery("/items", { query, cursor: from ?? "", num_results: "25" });
    const { body } = await ask<Page>("GET", path);
    for (const { itemId, properties } of body.items) relearn(itemId, properties);
    const names = body.items.map((one) => one.itemId);
    setHidden((before) => {
      const now = new Set(before);
      for (const one of body.items) one.isHidden ? now.add(one.itemId) : now.delete(one.itemId);
      return now;
    });
    setFound((before) => [...new Set(from ? [...before, ...names] : names)]);
    setCursor(body.cursor);
    setSearched(query);
  };
  useEffect(() => guard(() => search("", null)), []);
  const pick = (itemId: string): void => { location.hash = addressOf("items", itemId); };
  return (
    <div class="halves">
      <section aria-labelledby="found-title">
        <form
          class="line" role="search"
          onSubmit={(event) => { event.preventDefault(); guard(() => search(words, null)); }}
        >
          <input
            type="search" aria-label="Words of ids and texts" placeholder="Words of ids and texts"
            value={words} onInput={(event) => setWords(event.currentTarget.value)} maxLength={200}
          />
          <button>Search</button>
        </form>
        <Problem text={error} />
        <h2 id="found-title">{counted(found.length, "item")}{cursor ? " so far" : ""}</h2>
        {found.length === 0 && !error && <p class="note">{searched ? "Nothing has these words." : "Items come with their first event, or by an import."}</p>}
        <ul class="found">
          {found.map((itemId) => (
            <li key={itemId} class={hidden.has(itemId) ? "hidden" : ""}>
              <ItemName itemId={itemId} onPick={pick} />
            </li>
          ))}
        </ul>
        {cursor && (
          <button type="button" onClick={() => guard(() => search(searched, cursor))}>More</button>
        )}
      </section>
      <div class="beside">
        {named && (
          <Detail itemId={named} client={client} onPick={pick} onChange={() => guard(() => search(searched, null))} />
        )}
        <Import onDone={() => guard(() => search(searched, null))} />
      </div>
    </div>
  );
};
