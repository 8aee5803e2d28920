/** The shop: rows that follow every click, with reasons, and the way of each event. */

import { type JSX, render } from "preact";
import { useEffect, useMemo, useReducer, useRef, useState } from "preact/hooks";
import type { Answer, Recommended, Recommender } from "recommender";
import { Picture } from "../pictures/picture";
import { type CardActions, Cards } from "./cards";
import { describe, isReadable, learn, newest, prefetch, priced, search } from "./catalogue";
import { Forwarding } from "./forwarding";
import { type Live, stateInWords, useLive } from "./live";
import { type Row, Shopper, reasoned, rowOf } from "./shopper";
import { Strip } from "./strip";
import { Theme } from "./theme";

/** Some of the demo's simulated shoppers: anybody else is welcome too. */
const NAMES = ["ada", "ben", "chloe", "dev", "emil", "fatima"];
const TRENDING_EVERY_MS = 4000;
const EMPTY: Row = { items: [], moves: new Map() };

const plain = (itemIds: readonly string[], source: string): Recommended[] =>
  reasoned(itemIds.map((itemId) => ({ itemId, score: 0 })), source);

const LiveFigures = ({ live }: { live: Live }): JSX.Element | null => {
  const { figures, perS, state } = live;
  if (state === "closed") return null;
  const age = figures?.newestEventAgeS;
  const text =
    state === "live" && figures
      ? `${figures.events.toLocaleString("en")} events · ${perS.toFixed(1)}/s` +
        (age == null ? "" : ` · newest ${age < 10 ? age.toFixed(1) : age.toFixed(0)} s ago`)
      : stateInWords(live);
  return <p class={`feed ${state}`} id="live">{text}</p>;
};

const Who = ({ shopper, label }: { shopper: Shopper; label: string }): JSX.Element => {
  const [name, setName] = useState("");
  if (shopper.name)
    return (
      <form class="who" onSubmit={(event) => { event.preventDefault(); void shopper.logOut(); }}>
        <span class="avatar" aria-hidden="true">{shopper.name[0]!.toUpperCase()}</span>
        <strong class="user">{shopper.name}</strong>
        <button>Log out</button>
      </form>
    );
  return (
    <form
      class="who"
      onSubmit={(event) => { event.preventDefault(); setName(""); void shopper.logIn(name); }}
    >
      <input
        aria-label={label} placeholder="Log in as…" required maxLength={256}
        value={name} list="names" autocomplete="off" spellcheck={false}
        onInput={(event) => setName(event.currentTarget.value)}
      />
      <button>Log in</button>
    </form>
  );
};

const Viewed = ({ shopper, actions }: { shopper: Shopper; actions: CardActions }): JSX.Element => {
  const { viewed, cart } = shopper;
  const item = viewed ? describe(viewed) : null;
  const total = cart.reduce((sum, itemId) => sum + (describe(itemId).price ?? 0), 0);
  return (
    <aside aria-label="Item and cart">
      <section class="viewed" aria-labelledby="viewed-title">
        {item ? (
          <>
            <Picture {...item} />
            {item.category && <p class="category">{item.category}</p>}
            <h2 id="viewed-title">{item.name}</h2>
            <p>{item.description}</p>
            <p class="price">{priced(item.price)}</p>
            <p class="buttons">
              <button type="button" class="main" onClick={() => void shopper.add(item.itemId)}>
                Add to cart
              </button>
              <button
                type="button"
                onClick={() => void shopper.act("purchase", item.itemId, item.price)}
              >
                Buy now
              </button>
              <button type="button" class="quiet" onClick={() => void shopper.dislike(item.itemId)}>
                Not for me
              </button>
            </p>
          </>
        ) : (
          <>
            <h2 id="viewed-title">Look at something</h2>
            <p>The lists change with every click, within milliseconds, and each card says why.</p>
          </>
        )}
      </section>
      <section class={cart.length ? "cart" : "cart empty"} aria-labelledby="cart-title">
        <h2 id="cart-title">Cart <span class="count">{cart.length}</span></h2>
        {cart.length > 0 ? (
          <>
            <ul>
              {cart.map((itemId) => (
                <li key={itemId}>
                  <Picture {...describe(itemId)} />
                  <span>{describe(itemId).name}</span>
                  <span class="price">{priced(describe(itemId).price)}</span>
                  <button
                    type="button" class="quiet" aria-label={`Remove ${describe(itemId).name}`}
                    onClick={() => void shopper.remove(itemId)}
                  >
                    ✕
                  </button>
                </li>
              ))}
            </ul>
            <p class="buttons">
              <button type="button" class="main" id="buy" onClick={() => void shopper.buy()}>
                Buy{total > 0 ? ` for ${priced(total)}` : ""}
              </button>
            </p>
          </>
        ) : (
          <p>Nothing in it yet.</p>
        )}
      </section>
      {shopper.together.items.length > 0 && (
        <Cards
          id="together" title="Bought together" row={shopper.together} client={shopper.client}
          actions={actions} isSmall
        />
      )}
    </aside>
  );
};

const useShopper = (storage: string): Shopper => {
  const [, changed] = useReducer((n: number) => n + 1, 0);
  return useMemo(() => new Shopper(storage, () => changed(undefined)), [storage]);
};

const Error = ({ text }: { text: string }): JSX.Element => (
  <p class="error" id="error" role="alert">{text}</p>
);

/** Rows that are the same for everyone, but for what the shopper dislikes. */
const useShared = (shopper: Shopper): {
  trending: Row; fresh: Row; listId: string | undefined; again: () => void; error: string;
} => {
  const [trending, setTrending] = useState(EMPTY);
  const [fresh, setFresh] = useState(EMPTY);
  const [listId, setListId] = useState<string>();
  const [error, setError] = useState("");
  const { client } = shopper;
  const read = useMemo(() => {
    let last = -Infinity;
    let isReading = false;
    return async (): Promise<void> => {
      if (isReading || performance.now() - last < TRENDING_EVERY_MS) return;
      isReading = true;
      try {
        const list = { num_results: 6 };
        // By a rule there is no list while Redis is away; what everybody sees there still is.
        const answer: Answer = await client.trending({ ...list, ...shopper.taste }).catch(() => client.trending(list));
        await learn(client, answer.items.map((one) => one.itemId));
        setTrending((before) => rowOf(answer.items, before));
        setListId(answer.recommendationId);
        setError("");
      } catch (problem) {
        setError((problem as globalThis.Error).message);
      }
      last = performance.now();
      isReading = false;
    };
  }, [client]);
  useEffect(() => {
    void (async () => {
      try {
        await prefetch(client);
        const found = await newest(client, 6);
        setFresh((before) => rowOf(plain(found, "new"), before));
      } catch (problem) {
        setError((problem as globalThis.Error).message);
      }
    })();
    void read();
    const timer = setInterval(() => void (document.hidden || read()), 3 * TRENDING_EVERY_MS);
    return () => clearInterval(timer);
  }, [client]);
  return { trending, fresh, listId, again: () => void read(), error };
};

const Search = ({ client, onFound }: {
  client: Recommender; onFound: (found: { words: string; row: Row } | null) => void;
}): JSX.Element => {
  const input = useRef<HTMLInputElement>(null);
  const asked = useRef(0);
  // An answer that comes after a later question, or after the field was cleared, is not shown.
  const find = async (): Promise<void> => {
    const words = input.current?.value.trim() ?? "";
    const number = ++asked.current;
    const show = (items: readonly Recommended[]): void => {
      if (number === asked.current) onFound(words ? { words, row: { items, moves: new Map() } } : null);
    };
    if (!words) return show([]);
    const found = await search(client, words);
    // The best of what was found for this very shopper.
    return show(found.length ? reasoned((await client.rank(found)).items.slice(0, 12), "found") : []);
  };
  return (
    <form
      class="search" role="search"
      onSubmit={(event) => { event.preventDefault(); find().catch(() => onFound(null)); }}
    >
      <input
        ref={input} type="search" aria-label="Search the shop" placeholder="Search: tent, book…"
        maxLength={200} onInput={(event) => void (event.currentTarget.value || find())}
      />
      <button class="find" aria-label="Search">⌕</button>
    </form>
  );
};

const actionsOf = (shopper: Shopper): CardActions => ({
  look: (itemId) => void shopper.act("click", itemId),
  dislike: (itemId) => void shopper.dislike(itemId),
});

const SideBySide = ({ one, other, onAct }: {
  one: Shopper; other: Shopper; onAct: (shopper: Shopper) => void;
}): JSX.Element => (
  <>
  <p class="note">Have both look at the same item, and then one of them at another: it comes to the other, too.</p>
  <div class="two">
    {[one, other].map((shopper, place) => {
      const across = place ? one : other;
      const id = place ? "right" : "left";
      // What one does changes what the other sees: both lists are asked for again.
      const act = async (acting: () => Promise<void>): Promise<void> => {
        onAct(shopper);
        await acting();
        await across.refresh();
      };
      return (
        <section class="side" key={id} id={id} aria-label={`Shopper ${place + 1}`}>
          <Who shopper={shopper} label={`Log in shopper ${place + 1} as`} />
          <Error text={shopper.error} />
          <Cards
            id={`for-${id}`} title={`For ${shopper.name ?? `the ${place ? "second" : "first"} visitor`}`} row={shopper.forYou}
            client={shopper.client} listId={shopper.listId}
            actions={{ look: (itemId) => void act(() => shopper.act("click", itemId)), dislike: (itemId) => void act(() => shopper.dislike(itemId)) }}
          />
        </section>
      );
    })}
  </div>
  </>
);

const App = (): JSX.Element => {
  const shopper = useShopper("recommender");
  const other = useShopper("recommender.other");
  const [isTwo, setTwo] = useState(false);
  // Whose event the strip shows.
  const [last, setLast] = useState(shopper);
  const [found, setFound] = useState<{ words: string; row: Row } | null>(null);
  const shared = useShared(shopper);
  const live = useLive(shared.again);
  useEffect(() => {
    void shopper.refresh();
    shared.again();
  }, []);
  useEffect(() => {
    if (isTwo) void other.refresh();
  }, [isTwo]);
  const actions = actionsOf(shopper);
  const { client, because } = shopper;
  const without = (row: Row): Row =>
    row.items.some((one) => shopper.hidden.has(one.itemId))
      ? { ...row, items: row.items.filter((one) => !shopper.hidden.has(one.itemId)) }
      : row;
  return (
    <>
      <div class="scroll">
      <header>
        <h1>streaming-recommender</h1>
        <LiveFigures live={live} />
        {isReadable && <Search client={client} onFound={setFound} />}
        {!isTwo && <Who shopper={shopper} label="Log in as" />}
        <button type="button" id="compare" aria-pressed={isTwo} onClick={() => { setTwo(!isTwo); setLast(shopper); }}>
          Two shoppers
        </button>
        <Theme />
      </header>
      <datalist id="names">{NAMES.map((name) => <option key={name} value={name} />)}</datalist>
      <main class={isTwo ? "" : "shop"}>
        {isTwo ? (
          <SideBySide one={shopper} other={other} onAct={setLast} />
        ) : (
          <>
            <div class="rows">
              <Error text={shopper.error || shared.error} />
              {found && (
                <Cards
                  id="found" row={found.row} client={client} actions={actions}
                  title={`${found.row.items.length ? "Found" : "Nothing found"}: ${found.words}`}
                />
              )}
              <Cards
                id="for-you" row={shopper.forYou} client={client} actions={actions}
                title={shopper.name ? `For you, ${shopper.name}` : "For you"}
                note={shopper.level && !shopper.forYou.items.length
                  ? "There are no items yet: they come with their first event, or by an import in the console."
                  : shopper.level === "trending" ? "What moves now: nothing is known of you yet." : undefined}
                listId={shopper.listId}
              />
              {because && because.row.items.length > 0 && (
                <Cards
                  id="because" title={`Because you looked at ${describe(because.itemId).name}`}
                  row={because.row} client={client} actions={actions} isSmall
                />
              )}
              {because && because.similar.items.length > 0 && (
                <Cards
                  id="similar" title={`Similar to ${describe(because.itemId).name}`}
                  row={because.similar} client={client} actions={actions} isSmall
                />
              )}
              {shared.trending.items.length > 0 && (
                <Cards
                  id="trending" title="Trending" row={without(shared.trending)} client={client}
                  actions={actions} isSmall listId={shared.listId}
                />
              )}
              {shared.fresh.items.length > 0 && (
                <Cards
                  id="new" title="New" row={without(shared.fresh)} client={client} actions={actions} isSmall
                />
              )}
              <Forwarding client={client} />
              <p class="links"><a href="console">Console</a> · <a href="docs">API reference</a></p>
            </div>
            <Viewed shopper={shopper} actions={actions} />
          </>
        )}
      </main>
      </div>
      <Strip shopper={last} />
    </>
  );
};

render(<App />, document.getElementById("app")!);
