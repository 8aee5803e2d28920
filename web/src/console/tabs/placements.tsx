/** Placements: configurations of the shop's places, tried on users before they are saved, with every version. */

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { Recommended } from "recommender";
import { learn } from "../../shop/catalogue";
import { why } from "../../shop/why";
import { ask, when } from "../ask";
import { type Configuration, type Saved, cleaned, inWords } from "../configuration";
import { ConfigurationForm, Moment, useNamed } from "../configuration_form";
import { FiltersAndSegments } from "../filters_and_segments";
import { Asking, Choices, Field, ItemName, NameInput, Problem, counted, useGuard } from "../parts";
import type { TabProps } from "../tab";

interface Lists {
  before: Recommended[];
  after: Recommended[];
  warnings: string[];
}

const path = (name: string, rest = ""): string => `/placements/${encodeURIComponent(name)}${rest}`;

const Change = ({ place, before }: { place: number; before: number }): JSX.Element | null =>
  before === place ? null : before < 0 ? <span class="status good">new</span> : (
    <span class="status">{before > place ? `▲ ${before - place}` : `▼ ${place - before}`}</span>
  );

/** Warnings of a configuration that was saved, as a sentence. */
const warned = ({ warnings }: { warnings: readonly string[] }): string => (warnings.length ? ` But ${warnings.join("; ")}.` : "");

/** What a user gets from the saved placement, and would get from the draft. */
const Preview = ({ name, version, draft, client, onPin, onHide }: {
  name: string; version: number; draft: Configuration; client: TabProps["client"];
  onPin: (itemId: string, slot: number) => void; onHide: (itemId: string) => void;
}): JSX.Element => {
  const [user, setUser] = useState("");
  const [item, setItem] = useState("");
  const [at, setAt] = useState<string>();
  const [lists, setLists] = useState<Lists | null>(null);
  const [error, guard] = useGuard();
  const read = async (): Promise<void> => {
    const { body } = await ask<Lists>("POST", "/placements/preview", {
      configuration: cleaned(draft), ...(version && { placement: name }),
      ...(user && { user_id: user }), ...(item && { item_id: item }), ...(at && { at }),
    });
    await learn(client, [...body.before, ...body.after].map((one) => one.itemId));
    setLists(body);
  };
  // The draft that is shown is the one that was changed last.
  useEffect(() => {
    if (!lists) return undefined;
    const timer = setTimeout(() => guard(read), 400);
    return () => clearTimeout(timer);
  }, [draft]);
  const places = (of: readonly Recommended[]): Map<string, number> => new Map(of.map((one, place) => [one.itemId, place]));
  const [before, after] = [places(lists?.before ?? []), places(lists?.after ?? [])];
  return (
    <section aria-labelledby="preview-title">
      <h3 id="preview-title">Preview</h3>
      <form class="question" id="preview" onSubmit={(event) => { event.preventDefault(); guard(read); }}>
        <Field label="User">
          <input value={user} spellcheck={false} autocomplete="off" maxLength={256} onInput={(event) => setUser(event.currentTarget.value)} />
        </Field>
        <Field label="Item looked at">
          <input value={item} spellcheck={false} autocomplete="off" maxLength={256} onInput={(event) => setItem(event.currentTarget.value)} />
        </Field>
        <Moment label="At (empty: now)" value={at} onChange={setAt} />
        <button>Preview</button>
      </form>
      <Problem text={error} />
      {lists && lists.warnings.length > 0 && <p class="note" id="warnings">{lists.warnings.join("; ")}</p>}
      {lists && (
        <div class="halves">
          <section aria-labelledby="before-title">
            <h3 id="before-title">{version ? `As saved, version ${version}` : "Without rules"}</h3>
            <ol class="answer" id="before">
              {lists.before.map((one) => (
                <li key={one.itemId} class={after.has(one.itemId) ? "" : "gone"}>
                  <ItemName itemId={one.itemId} />
                  {!after.has(one.itemId) && <span class="status bad">gone</span>}
                  <p>{why(one.reasons)}</p>
                </li>
              ))}
            </ol>
          </section>
          <section aria-labelledby="after-title">
            <h3 id="after-title">With this draft</h3>
            <ol class="answer" id="after">
              {lists.after.map((one, place) => (
                <li key={one.itemId} data-item={one.itemId}>
                  <ItemName itemId={one.itemId} />
                  <span class="line">
                    <Change place={place} before={before.get(one.itemId) ?? -1} />
                    <button type="button" class="quiet" onClick={() => onPin(one.itemId, place + 1)}>Pin here</button>
                    <button type="button" class="quiet" onClick={() => onHide(one.itemId)}>Leave out</button>
                  </span>
                  <p>{why(one.reasons)}</p>
                </li>
              ))}
            </ol>
          </section>
        </div>
      )}
    </section>
  );
};

const BY_HAND = "By hand";

/** The draft with a change of the rule that the preview's buttons write. */
const withRule = (draft: Configuration, itemId: string, slot: number | null): Configuration => {
  const rules = [...(draft.rules ?? [])];
  let at = rules.findIndex((one) => one.name === BY_HAND);
  if (at < 0) at = rules.push({ name: BY_HAND }) - 1;
  const rule = rules[at]!;
  const pin = (rule.pin ?? []).filter((one) => one.item_id !== itemId && one.slot !== slot);
  const exclude = (rule.exclude ?? []).filter((one) => one !== itemId);
  rules[at] = slot === null
    ? { ...rule, pin, exclude: [...exclude, itemId] }
    : { ...rule, exclude, pin: [...pin, { item_id: itemId, slot }] };
  return { ...draft, rules };
};

const Editor = ({ saved, client, onChange }: {
  saved: Saved; client: TabProps["client"]; onChange: () => void;
}): JSX.Element => {
  const { name } = saved;
  const [current, setCurrent] = useState(saved);
  const [draft, setDraft] = useState<Configuration>(saved.configuration ?? {});
  const [versions, setVersions] = useState<Saved[]>([]);
  const [done, setDone] = useState("");
  const [error, guard] = useGuard();
  const named = useNamed();
  const readVersions = async (): Promise<void> => {
    setVersions((await ask<{ placements: Saved[] }>("GET", path(name, "/history"))).body.placements);
  };
  useEffect(() => {
    if (saved.version) guard(readVersions);
  }, []);
  const changed = async (now: Saved, said: string): Promise<void> => {
    setCurrent(now);
    setDraft(now.configuration ?? {});
    await readVersions();
    setDone(said);
    onChange();
  };
  const save = async (): Promise<void> => {
    const { body } = await ask<Saved>("PUT", path(name), cleaned(draft));
    await changed(body, `Version ${body.version} of ${name} is saved, and in effect within a second.${warned(body)}`);
  };
  const remove = async (): Promise<void> => {
    const { body } = await ask<Saved>("DELETE", path(name));
    await changed(body, `${name} is deleted: questions that name it are refused. Its versions are kept.`);
  };
  const rollBack = async (version: number): Promise<void> => {
    const { body } = await ask<Saved>("POST", path(name, "/rollback"), { version });
    await changed(body, `Version ${version} is saved again, as version ${body.version}.${warned(body)}`);
  };
  const isChanged = JSON.stringify(cleaned(draft)) !== JSON.stringify(cleaned(current.configuration ?? {}));
  return (
    <section class="detail" aria-labelledby="placement-title">
      <h2 id="placement-title">
        {name} <small>{current.version ? `version ${current.version}` : "not saved yet"}</small>
        {isChanged && <span class="status" id="changed">changed, not saved</span>}
      </h2>
      <form onSubmit={(event) => { event.preventDefault(); }}>
        <ConfigurationForm value={draft} onChange={setDraft} named={named} />
        <Problem text={error} />
        <p class="line actions">
          <Asking
            text="Save…" isMain id="save" question={`Save ${name} for everybody, in effect within a second?`}
            onYes={() => guard(save)}
          />
          {isChanged && <button type="button" onClick={() => setDraft(current.configuration ?? {})}>Undo changes</button>}
          {current.version > 0 && current.configuration && (
            <Asking text="Delete…" question={`Delete ${name}? Its versions are kept.`} onYes={() => guard(remove)} />
          )}
        </p>
        <p role="status" id="done">{done}</p>
      </form>
      <Preview
        name={name} version={current.configuration ? current.version : 0} draft={draft} client={client}
        onPin={(itemId, slot) => setDraft(withRule(draft, itemId, slot))}
        onHide={(itemId) => setDraft(withRule(draft, itemId, null))}
      />
      <details>
        <summary>As JSON, for PUT {path(name)}</summary>
        <pre id="json">{JSON.stringify(cleaned(draft), null, 2)}</pre>
      </details>
      {versions.length > 0 && (
        <>
          <h3>Versions</h3>
          <div class="wide" role="region" aria-label="Versions" tabIndex={0}>
            <table id="versions">
              <thead><tr><th>Version</th><th>Saved</th><th>By</th><th>What</th><th /></tr></thead>
              <tbody>
                {versions.map((one) => (
                  <tr key={one.version}>
                    <td>{one.version}</td>
                    <td>{when(one.savedAt)}</td>
                    <td>{one.savedBy}</td>
                    <td>{inWords(one.configuration)}</td>
                    <td>
                      {one.configuration && one.version !== current.version && (
                        <span class="line">
                          <button type="button" class="quiet" onClick={() => setDraft(one.configuration!)}>Open as draft</button>
                          <Asking text="Roll back…" question={`Save version ${one.version} again?`} onYes={() => guard(() => rollBack(one.version))} />
                        </span>
                      )}
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        </>
      )}
    </section>
  );
};

/** The tab of placements. */
export const Placements = ({ client }: TabProps): JSX.Element => {
  const [all, setAll] = useState<Saved[] | null>(null);
  const [picked, setPicked] = useState<Saved | null>(null);
  const [typed, setTyped] = useState("");
  const [error, guard] = useGuard();
  const read = async (): Promise<void> => {
    setAll((await ask<{ placements: Saved[] }>("GET", "/placements")).body.placements);
  };
  useEffect(() => guard(read), []);
  const open = (name: string): void =>
    setPicked(all?.find((one) => one.name === name) ?? { name, version: 0, savedAt: 0, savedBy: "", configuration: {}, warnings: [] });
  return (
    <>
      <Problem text={error} />
      <div class="aside">
        <section aria-labelledby="placements-title">
          <h2 id="placements-title">{all ? counted(all.length, "placement") : "…"}</h2>
          {all?.length === 0 && (
            <p class="note">A placement is a place of the shop, such as its home page. Questions name it: <code>?placement=home</code></p>
          )}
          <Choices all={all ?? []} picked={picked?.name} onPick={setPicked}>{(one) => inWords(one.configuration)}</Choices>
          {/* One that was deleted has its versions again once it is saved. */}
          <form class="line" id="new" onSubmit={(event) => { event.preventDefault(); open(typed); }}>
            <NameInput aria-label="Name of a new placement" placeholder="Name of a new one" value={typed} onChange={setTyped} />
            <button>Make</button>
          </form>
        </section>
        {picked && (
          <Editor key={`${picked.name}`} saved={picked} client={client} onChange={() => guard(read)} />
        )}
      </div>
      <FiltersAndSegments />
    </>
  );
};
