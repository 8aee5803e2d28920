/** The console: figures, questions, items, users and events, for who runs the recommender. */

import { type JSX, render } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { Recommender } from "recommender";
import { prefetch } from "../shop/catalogue";
import { type Live, useLive } from "../shop/live";
import { Theme } from "../shop/theme";
import { Events } from "./events";
import { Items } from "./items";
import { type History, Overview } from "./overview";
import { Playground } from "./playground";
import { Users } from "./users";

const TABS = { overview: "Overview", try: "Try", items: "Items", users: "Users", events: "Events" };
type Tab = keyof typeof TABS;
const MAX_POINTS = 600;

const tabOfAddress = (): Tab => {
  const name = location.hash.slice(1);
  return name in TABS ? (name as Tab) : "overview";
};

const useTab = (): Tab => {
  const [tab, setTab] = useState(tabOfAddress);
  useEffect(() => {
    const changed = (): void => setTab(tabOfAddress());
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return tab;
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
  const tab = useTab();
  const client = useMemo(() => new Recommender({ storage: "recommender.console" }), []);
  const [isReady, setReady] = useState(false);
  const live = useLive(() => {});
  const history = useHistory(live);
  useEffect(() => {
    // Without names of items the console still works, with their ids.
    prefetch(client).catch(() => {}).then(() => setReady(true));
  }, [client]);
  return (
    <>
      <div class="scroll">
        <header>
          <h1>Console</h1>
          <nav aria-label="Parts of the console">
            {Object.entries(TABS).map(([name, title]) => (
              <a key={name} href={`#${name}`} aria-current={name === tab ? "page" : undefined}>{title}</a>
            ))}
          </nav>
          <p class={`live ${live.state}`} id="live">
            {live.state === "live" ? "live" : live.state === "closed" ? "no live figures" : "connecting…"}
          </p>
          <a class="shop" href="./">Shop</a>
          <Theme />
        </header>
        <main id={tab}>
          {tab === "overview" && <Overview live={live} history={history} client={client} />}
          {isReady && tab === "try" && <Playground client={client} />}
          {isReady && tab === "items" && <Items client={client} />}
          {isReady && tab === "users" && <Users client={client} />}
          {tab === "events" && <Events client={client} />}
        </main>
      </div>
    </>
  );
};

render(<App />, document.getElementById("app")!);
