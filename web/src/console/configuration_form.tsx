/** A placement's configuration as a form: its list, and its rules one by one. */

import type { ComponentChildren, JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { ask } from "./ask";
import { type Configuration, NOTHING, RECIPES, type Rule, inForce, ruleInWords } from "./configuration";
import { Field } from "./parts";

const HIDDEN = ["seen", "purchased", "shown"] as const;

/** Names of saved filters and segments, which rules may use. */
export interface Named {
  filters: string[];
  segments: string[];
}

/** Reads the names once; a caller who may not read them types them. */
export const useNamed = (): Named => {
  const [named, setNamed] = useState<Named>({ filters: [], segments: [] });
  useEffect(() => {
    const names = async (path: string, member: string): Promise<string[]> => {
      const { body } = await ask<Record<string, { name: string }[]>>("GET", path);
      return (body[member] ?? []).map((one) => one.name);
    };
    Promise.all([names("/filters", "filters"), names("/segments", "segments")])
      .then(([filters, segments]) => setNamed({ filters, segments }))
      .catch(() => {});
  }, []);
  return named;
};

const Text = ({ label, value, onChange, list, placeholder, maxLength = 256 }: {
  label: string; value: string | undefined; onChange: (value: string) => void; list?: string; placeholder?: string; maxLength?: number;
}): JSX.Element => (
  <Field label={label}>
    <input
      type="text" list={list} value={value ?? ""} spellcheck={false} autocomplete="off" maxLength={maxLength} placeholder={placeholder}
      onInput={(event) => onChange(event.currentTarget.value)}
    />
  </Field>
);

const Amount = ({ label, value, onChange, min = 0, max, step = "any" }: {
  label: string; value: number | undefined; onChange: (value: number | undefined) => void; min?: number; max?: number; step?: number | "any";
}): JSX.Element => (
  <Field label={label}>
    <input
      type="number" class="amount" value={value ?? ""} min={min} max={max} step={step}
      onInput={(event) => onChange(event.currentTarget.value === "" ? undefined : Number(event.currentTarget.value))}
    />
  </Field>
);

/** Ids with commas or spaces between; what was typed stays as it is. */
const Ids = ({ label, value, onChange }: {
  label: string; value: readonly string[]; onChange: (value: string[]) => void;
}): JSX.Element => {
  const [typed, setTyped] = useState(value.join(", "));
  const idsOf = (text: string): string[] => text.split(/[\s,]+/).filter(Boolean);
  // Another change, such as a press on Hide in the preview, shows here too.
  const shown = idsOf(typed).join() === value.join() ? typed : value.join(", ");
  return (
    <Field label={label}>
      <input
        value={shown} class="long" spellcheck={false} autocomplete="off"
        onInput={(event) => { setTyped(event.currentTarget.value); onChange(idsOf(event.currentTarget.value)); }}
      />
    </Field>
  );
};

const local = (iso: string | undefined): string => {
  if (!iso) return "";
  const at = new Date(iso);
  return new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
};

/** A moment, in the time of who looks at it. */
export const Moment = ({ label, value, onChange }: {
  label: string; value: string | undefined; onChange: (value: string | undefined) => void;
}): JSX.Element => (
  <Field label={label}>
    <input
      type="datetime-local" value={local(value)}
      onInput={(event) => onChange(event.currentTarget.value ? new Date(event.currentTarget.value).toISOString() : undefined)}
    />
  </Field>
);

/** Rows of one kind with a button that adds one. */
const Rows = <T,>({ title, rows, empty, onChange, children }: {
  title: string; rows: readonly T[]; empty: T; onChange: (rows: T[]) => void;
  children: (row: T, set: (more: Partial<T>) => void) => ComponentChildren;
}): JSX.Element => (
  <div class={rows.length ? "entries" : "entries none"} role="group" aria-label={title}>
    {rows.map((row, place) => (
      <div class="question entry" key={place}>
        {children(row, (more) => onChange(rows.map((one, at) => (at === place ? { ...one, ...more } : one))))}
        <button type="button" class="quiet" aria-label={`Remove ${title} ${place + 1}`} onClick={() => onChange(rows.filter((_, at) => at !== place))}>✕</button>
      </div>
    ))}
    <button type="button" class="add" onClick={() => onChange([...rows, empty])}>+ {title}</button>
  </div>
);

const RuleForm = ({ rule, place, onChange, onRemove }: {
  rule: Rule; place: number; onChange: (rule: Rule) => void; onRemove: () => void;
}): JSX.Element => {
  const set = (more: Partial<Rule>): void => onChange({ ...rule, ...more });
  const state = inForce(rule, Date.now());
  const [isOpen, setOpen] = useState(ruleInWords(rule) === NOTHING);
  const hide = (name: string, isOn: boolean): void =>
    set({ hide: [...(rule.hide ?? []).filter((one) => one.split(":")[0] !== name), ...(isOn ? [name] : [])] });
  return (
    <details class="rule" open={isOpen} onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>
        <b>{rule.name || `Rule ${place + 1}`}</b> {ruleInWords(rule)}
        <span class={`status ${state.isOn ? "good" : ""}`}>{state.text}</span>
        {rule.segment && <span class="status">for {rule.segment}</span>}
      </summary>
      <div class="question">
        <Text label="Name" value={rule.name} onChange={(name) => set({ name })} maxLength={100} />
        <Text label="For the segment (empty: everybody)" list="segments" value={rule.segment} onChange={(segment) => set({ segment })} />
        <Moment label="From (empty: always)" value={rule.from} onChange={(from) => set({ from })} />
        <Moment label="Until (empty: for ever)" value={rule.until} onChange={(until) => set({ until })} />
      </div>
      <div class="question">
        <Text label="Only items that a filter allows" list="filters" value={rule.filter} placeholder="category:Books;price<20" onChange={(filter) => set({ filter })} maxLength={2500} />
        <Ids label="Never these items" value={rule.exclude ?? []} onChange={(exclude) => set({ exclude })} />
        <Amount label="Diversity, 0 to 1" value={rule.diversity} max={1} step={0.05} onChange={(diversity) => set({ diversity })} />
      </div>
      <p class="line" role="group" aria-label="Hide what the user has">
        <span class="note">Hide what the user has</span>
        {HIDDEN.map((name) => {
          const own = rule.hide?.find((one) => one.split(":")[0] === name);
          return (
            <label class="box" key={name}>
              <input type="checkbox" checked={own !== undefined} onChange={(event) => hide(name, event.currentTarget.checked)} />
              {name === "shown" ? "been shown" : name}{own?.includes(":") && ` in the last ${own.split(":")[1]} s`}
            </label>
          );
        })}
      </p>
      <Rows title="boost" rows={rule.boost ?? []} empty={{ filter: "", factor: 1.5 }} onChange={(boost) => set({ boost })}>
        {(row, setRow) => (
          <>
            <Text label="Items that a filter allows" list="filters" value={row.filter} placeholder="brand:acme" onChange={(filter) => setRow({ filter })} maxLength={2500} />
            <Amount label="Score times" value={row.factor} max={1000} onChange={(factor) => setRow({ factor: factor ?? 1 })} />
          </>
        )}
      </Rows>
      <Rows title="pin" rows={rule.pin ?? []} empty={{ item_id: "", slot: 1 }} onChange={(pin) => set({ pin })}>
        {(row, setRow) => (
          <>
            <Text label="Item" value={row.item_id} onChange={(item_id) => setRow({ item_id })} />
            <Amount label="At place" value={row.slot} min={1} max={500} step={1} onChange={(slot) => setRow({ slot: slot ?? 1 })} />
          </>
        )}
      </Rows>
      <Rows title="cap" rows={rule.cap ?? []} empty={{ property: "CATEGORY", most: 3 }} onChange={(cap) => set({ cap })}>
        {(row, setRow) => (
          <>
            <Text label="Property" value={row.property} onChange={(property) => setRow({ property })} maxLength={64} />
            <Amount label="At most with the same value" value={row.most} min={1} max={500} step={1} onChange={(most) => setRow({ most: most ?? 1 })} />
          </>
        )}
      </Rows>
      <button type="button" class="remove" onClick={onRemove}>Remove this rule</button>
    </details>
  );
};

/** What may order a list, beside the challengers of the settings. */
const RANKERS = ["built-in", "blend", "ranker", "ranker-alone"] as const;

/** The form; every change gives the whole configuration. */
export const ConfigurationForm = ({ value, onChange, named }: {
  value: Configuration; onChange: (value: Configuration) => void; named: Named;
}): JSX.Element => {
  const set = (more: Partial<Configuration>): void => onChange({ ...value, ...more });
  const rules = value.rules ?? [];
  const fallbacks = value.fallbacks ?? [];
  const choices = Object.entries(RECIPES).map(([name, text]) => <option key={name} value={name}>{text}</option>);
  return (
    <>
      <datalist id="filters">{named.filters.map((one) => <option key={one} value={one} />)}</datalist>
      <datalist id="segments">{named.segments.map((one) => <option key={one} value={one} />)}</datalist>
      <div class="question">
        <Field label="Kind of list">
          <select value={value.recipe ?? ""} onChange={(event) => set({ recipe: event.currentTarget.value || undefined })}>
            <option value="">That of the question</option>
            {choices}
          </select>
        </Field>
        <Field label="In order of">
          <select value={value.objective ?? "interactions"} onChange={(event) => set({ objective: event.currentTarget.value })}>
            <option>interactions</option>
            <option>purchases</option>
          </select>
        </Field>
        <Amount label="Items" value={value.num_results} min={1} max={500} step={1} onChange={(num_results) => set({ num_results })} />
        <Text label="Caption" value={value.caption} onChange={(caption) => set({ caption })} maxLength={200} />
        {Array.from({ length: Math.min(3, fallbacks.length + 1) }, (_, place) => (
          <Field key={place} label={place ? "and then by" : "Too few: fill up by"}>
            <select
              value={fallbacks[place] ?? ""}
              onChange={(event) => {
                const chosen = [...fallbacks];
                chosen[place] = event.currentTarget.value;
                set({ fallbacks: chosen.filter(Boolean) });
              }}
            >
              <option value="">nothing</option>
              {choices}
            </select>
          </Field>
        ))}
        <datalist id="rankers">{RANKERS.map((one) => <option key={one} value={one} />)}</datalist>
        <Text label="Ranked by" value={value.ranker} onChange={(ranker) => set({ ranker })} list="rankers" placeholder="what serves" maxLength={100} />
      </div>
      <h3>Rules <small>{rules.length || "none"}</small></h3>
      {rules.map((rule, place) => (
        <RuleForm
          key={place} rule={rule} place={place}
          onChange={(changed) => set({ rules: rules.map((one, at) => (at === place ? changed : one)) })}
          onRemove={() => set({ rules: rules.filter((_, at) => at !== place) })}
        />
      ))}
      <button type="button" class="add" id="add-rule" onClick={() => set({ rules: [...rules, {}] })}>+ rule</button>
    </>
  );
};
