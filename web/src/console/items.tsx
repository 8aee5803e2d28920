/** Items: search the catalogue; properties, counts and neighbours of one; edit its properties. */

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { Answer, Recommender } from "recommender";
import { learn, relearn } from "../shop/catalogue";
import { ask, when, withQuery } from "./ask";
import { ItemName, Problem, useGuard } from "./parts";

interface Item {
  itemId: string;
  properties: Record<string, unknown> | null;
  createdAt: number | null;
  updatedAt: number | null;
  events: number;
  purchases: number;
  firstEventAt: number | null;
  lastEventAt: number | null;
}
interface Page {
  items: { itemId: string; properties: Record<string, string | number | boolean | null> }[];
  cursor: string | null;
}

const Detail = ({ itemId, client, onPick }: {
  itemId: string; client: Recommender; onPick: (itemId: string) => void;
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
  useEffect(() => {
    setDone("");
    guard(() => read());
  }, [itemId]);
  const save = async (): Promise<void> => {
    const properties = JSON.parse(text) as Record<string, string>;
    const put = { items: [{ itemId, properties }] };
    const { body } = await ask<{ after: string }>("PUT", "/items", put);
    relearn(itemId, properties);
    await read(body.after);
    setDone(`The properties of ${itemId} are saved.`);
  };
  if (!item) return <Problem text={error} />;
  const most = Math.max(...(near?.items ?? []).map((one) => one.score), 0);
  return (
    <section class="detail" aria-labelledby="item-title">
      <h2 id="item-title"><ItemName itemId={itemId} /></h2>
      <Problem text={error} />
      <dl class="facts">
        <dt>Events</dt><dd id="events">{item.events}</dd>
        <dt>Purchases</dt><dd>{item.purchases}</dd>
        <dt>First event</dt><dd>{when(item.firstEventAt)}</dd>
        <dt>Last event</dt><dd>{when(item.lastEventAt)}</dd>
        <dt>Created</dt><dd>{when(item.createdAt)}</dd>
        <dt>Changed</dt><dd>{when(item.updatedAt)}</dd>
      </dl>
      <form onSubmit={(event) => { event.preventDefault(); guard(save); }}>
        <label class="field">
          <span>Properties, as JSON</span>
          <textarea
            id="properties" rows={8} spellcheck={false} value={text}
            onInput={(event) => setText(event.currentTarget.value)}
          />
        </label>
        <button class="main" id="save">Save</button> <span role="status" id="done">{done}</span>
      </form>
      <h3>Seen together</h3>
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
export const Items = ({ client }: { client: Recommender }): JSX.Element => {
  const [words, setWords] = useState("");
  const [searched, setSearched] = useState("");
  const [found, setFound] = useState<string[]>([]);
  const [cursor, setCursor] = useState<string | null>(null);
  const [picked, setPicked] = useState<string | null>(null);
  const [error, guard] = useGuard();
  const search = async (query: string, from: string | null): Promise<void> => {
    const path = withQuery("/items", { query, cursor: from ?? "", num_results: "25" });
    const { body } = await ask<Page>("GET", path);
    for (const { itemId, properties } of body.items) relearn(itemId, properties);
    const names = body.items.map((one) => one.itemId);
    setFound((before) => [...new Set(from ? [...before, ...names] : names)]);
    setCursor(body.cursor);
    setSearched(query);
  };
  useEffect(() => guard(() => search("", null)), []);
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
        <h2 id="found-title">{found.length} items{cursor ? " so far" : ""}</h2>
        <ul class="found">
          {found.map((itemId) => (
            <li key={itemId}><ItemName itemId={itemId} onPick={setPicked} /></li>
          ))}
        </ul>
        {cursor && (
          <button type="button" onClick={() => guard(() => search(searched, cursor))}>More</button>
        )}
      </section>
      {picked && <Detail itemId={picked} client={client} onPick={setPicked} />}
    </div>
  );
};
