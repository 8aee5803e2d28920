/** Settings: what is in effect, where it comes from, and what it means. */

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { ask } from "../ask";
import { Problem, useGuard } from "../parts";

interface Setting {
  name: string;
  value: unknown;
  origin: string;
  description: string;
}

const shown = (value: unknown): string =>
  typeof value === "string" ? value || "–" : Array.isArray(value) ? value.join(", ") || "–" : JSON.stringify(value);

/** The tab of settings. */
export const Settings = (): JSX.Element => {
  const [settings, setSettings] = useState<Setting[]>([]);
  const [words, setWords] = useState("");
  const [isChanged, setChanged] = useState(false);
  const [error, guard] = useGuard();
  useEffect(
    () => guard(async () => setSettings((await ask<{ settings: Setting[] }>("GET", "/settings")).body.settings)),
    [],
  );
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = settings.filter((one) => {
    const text = `${one.name} ${one.description}`.toLowerCase();
    return wanted.every((word) => text.includes(word)) && (!isChanged || one.origin !== "default");
  });
  return (
    <section aria-labelledby="settings-title">
      <h2 id="settings-title">{rows.length} of {settings.length} settings of this API process</h2>
      <p class="note">
        Set by the variable <code>RECOMMENDER_…</code> or in a settings file, and read at the start; secrets are never shown.
      </p>
      <form class="line" role="search" onSubmit={(event) => event.preventDefault()}>
        <input
          type="search" aria-label="Words of names and meanings" placeholder="Words of names and meanings"
          value={words} onInput={(event) => setWords(event.currentTarget.value)} maxLength={200}
        />
        <label class="box">
          <input type="checkbox" checked={isChanged} onChange={(event) => setChanged(event.currentTarget.checked)} />
          Only what was set
        </label>
      </form>
      <Problem text={error} />
      <dl class="settings" id="settings-list">
        {rows.map((one) => (
          <div key={one.name} class={one.origin === "default" ? "" : "set"}>
            <dt><code>{one.name}</code></dt>
            <dd><b>{shown(one.value)}</b> <small>{one.origin}</small><p>{one.description}</p></dd>
          </div>
        ))}
      </dl>
    </section>
  );
};
