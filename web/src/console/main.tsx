/** The console: figures, questions, items, users and events, for who runs the recommender. */

import { type JSX, render } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { Recommender } from "recommender";
import { prefetch } from "../shop/catalogue";
import { type Live, stateInWords, useLive } from "../shop/live";
import { Theme } from "../shop/theme";
import type { History } from "./tab";
import { TABS } from "./tabs";

/** One a second: what is older, the figures over time have by minutes. */
const MAX_POINTS = 180;

/** The tab of the address, and what it names in it: #users/ada. */
const placeOfAddress = (): [tab: string, named: string] => {
  const [tab = "", ...rest] = location.hash.slice(1).split("/");
  try {
    return Object.hasOwn(TABS, tab) ? [tab, decodeURIComponent(rest.join("/"))] : ["overview", ""];
  } catch {
    // A broken escape in an address that somebody typed.
    return [tab, ""];
  }
};

const usePlace = (): [tab: string, named: string] => {
  const [place, setPlace] = useState(placeOfAddress);
  useEffect(() => {
    const changed = (): void => setPlace(placeOfAddress());
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return place;
};

const useHistory = (live: Live): History => {
  const kept = useRef<History>({ rate: [], age: [] });
  const { figures, perS, state } = live;
  return useMemo(() => {
    if (!figures) return kept.current;
    const isLive = state === "live";
    const at = isLive ? figures.at : Date.now() / 1000;
    const { rate, age } = kept.current;
    kept.current = {
      rate: [...rate, { at, value: isLive ? perS : null }].slice(-MAX_POINTS),
      age: [...age, { at, value: isLive ? figures.newestEventAgeS : null }].slice(-MAX_POINTS),
    };
    return kept.current;
  }, [live]);
};

const App = (): JSX.Element => {
  const [tab, named] = usePlace();
  const { View, namesItems } = TABS[tab]!;
  const client = useMemo(() => new Recommender({ storage: "recommender.console" }), []);
  const [isReady, setReady] = useState(false);
  const live = useLive(() => {});
  const history = useHistory(live);
  useEffect(() => {
    // Without names of items the console still works, with their ids.
    prefetch(client).catch(() => {}).then(() => setReady(true));
  }, [client]);
  const nav = useRef<HTMLElement>(null);
  useEffect(() => {
    // On a narrow screen the tabs scroll: the one that is open is in view.
    const link = nav.current?.querySelector<HTMLElement>("[aria-current]");
    if (link) nav.current!.scrollLeft = link.offsetLeft - (nav.current!.clientWidth - link.offsetWidth) / 2;
    document.title = `${TABS[tab]!.title} · streaming-recommender`;
  }, [tab]);
  return (
    <>
      <div class="scroll">
        <header>
          <h1>Console</h1>
          <nav ref={nav} aria-label="Parts of the console">
            {Object.entries(TABS).map(([name, { title }]) => (
              <a key={name} href={`#${name}`} aria-current={name === tab ? "page" : undefined}>{title}</a>
            ))}
          </nav>
          <p class={`feed ${live.state}`} id="live">
            {stateInWords(live)}
          </p>
          <a class="shop" href="./">Shop</a>
          <Theme />
        </header>
        <main id={tab} key={tab}>
          {(isReady || !namesItems) && <View client={client} live={live} history={history} named={named} />}
        </main>
      </div>
    </>
  );
};

render(<App />, document.getElementById("app")!);
