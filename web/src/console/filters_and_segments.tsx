/** Saved filters and segments, which rules of placements name. */

import type { ComponentChildren, JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { ask } from "./ask";
import { Asking, AskingForm, Field, NameInput, Problem, useGuard } from "./parts";

interface Filter {
  name: string;
  filter: string;
}
interface Segment {
  name: string;
  segment: { rule?: string; affinity_item?: string; affinity_query?: string; size?: number } | null;
}
interface Users {
  userIds: string[];
  cursor: string | null;
}

const KINDS = {
  rule: "Users of whom it is true",
  affinity_item: "Users with affinity to the item",
  affinity_query: "Users with affinity to such items",
} as const;
type Kind = keyof typeof KINDS;
const EXAMPLES: Record<Kind, string> = {
  rule: 'INCLUDE UserID WHERE Users.TIER IN ("gold")', affinity_item: "tent", affinity_query: 'ITEMS.CATEGORY = "Books"',
};

const segmentInWords = ({ segment }: Segment): string =>
  segment?.rule ?? (segment?.affinity_item ? `affinity to ${segment.affinity_item}` : `affinity to items of ${segment?.affinity_query}`);

/** Saved things of one kind: their list, each with what it says, and a form that saves or replaces one. */
const SavedThings = <T extends { name: string }>({ kind, things, said, lost, follows, draft, onName, maxLength, children, beside, onSave, onDelete }: {
  kind: string;
  things: readonly T[];
  said: (one: T) => string;
  /** What comes of deleting one, and of replacing one. */
  lost: string;
  follows: string;
  draft: string;
  onName: (name: string) => void;
  maxLength: number;
  children: ComponentChildren;
  beside?: (one: T) => ComponentChildren;
  onSave: () => void;
  onDelete: (name: string) => void;
}): JSX.Element => (
  <section aria-labelledby={`${kind}s-title`}>
    <h3 id={`${kind}s-title`}>{kind[0]!.toUpperCase() + kind.slice(1)}s</h3>
    {things.length === 0 && <p class="note">None yet.</p>}
    <ul class="named">
      {things.map((one) => (
        <li key={one.name}>
          <span><b>{one.name}</b> <code>{said(one)}</code></span>
          <Asking text="Delete…" question={`Delete ${one.name}? ${lost}`} onYes={() => onDelete(one.name)} />
          {beside?.(one)}
        </li>
      ))}
    </ul>
    <AskingForm
      text={`Save ${kind}…`} onYes={onSave}
      question={things.some((one) => one.name === draft) ? `Replace ${draft}? ${follows}` : `Save ${draft}?`}
    >
      <Field label="Name"><NameInput value={draft} onChange={onName} maxLength={maxLength} /></Field>
      {children}
    </AskingForm>
  </section>
);

/** The two lists, and a form for each. */
export const FiltersAndSegments = (): JSX.Element => {
  const [filters, setFilters] = useState<Filter[]>([]);
  const [segments, setSegments] = useState<Segment[]>([]);
  const [users, setUsers] = useState<{ name: string; ids: string[]; hasMore: boolean } | null>(null);
  const [filter, setFilter] = useState({ name: "", text: "" });
  const [segment, setSegment] = useState<{ name: string; kind: Kind; text: string }>({ name: "", kind: "rule", text: "" });
  const [done, setDone] = useState("");
  const [error, guard] = useGuard();
  const read = async (): Promise<void> => {
    setFilters((await ask<{ filters: Filter[] }>("GET", "/filters")).body.filters);
    setSegments((await ask<{ segments: Segment[] }>("GET", "/segments")).body.segments);
  };
  useEffect(() => guard(read), []);
  const change = (method: string, place: string, name: string, body?: object): void =>
    guard(async () => {
      await ask(method, `/${place}/${encodeURIComponent(name)}`, body);
      await read();
      setDone(`${name} is ${body ? "saved" : "deleted"}.`);
    });
  const show = (name: string): void =>
    guard(async () => {
      const { body } = await ask<Users>("GET", `/segments/${encodeURIComponent(name)}/users?num_results=25`);
      setUsers({ name, ids: body.userIds, hasMore: body.cursor !== null });
    });
  return (
    <details class="panel" id="named">
      <summary>Saved filters ({filters.length}) and segments ({segments.length})</summary>
      <Problem text={error} />
      <p role="status" id="named-done">{done}</p>
      <div class="halves">
        <SavedThings
          kind="filter" things={filters} said={(one) => one.filter} draft={filter.name} maxLength={63}
          lost="Questions that name it are refused then." follows="Questions and rules that name it follow."
          onName={(name) => setFilter({ ...filter, name })}
          onSave={() => change("PUT", "filters", filter.name, { filter: filter.text })}
          onDelete={(name) => change("DELETE", "filters", name)}
        >
          <Field label="Filter of items">
            <input value={filter.text} required class="long" placeholder="category:Books;price<20" maxLength={2500} spellcheck={false} onInput={(event) => setFilter({ ...filter, text: event.currentTarget.value })} />
          </Field>
        </SavedThings>
        <SavedThings
          kind="segment" things={segments} said={segmentInWords} draft={segment.name} maxLength={64}
          lost="Rules for it hold for nobody then." follows="Rules for it follow."
          onName={(name) => setSegment({ ...segment, name })}
          onSave={() => change("PUT", "segments", segment.name, { [segment.kind]: segment.text })}
          onDelete={(name) => change("DELETE", "segments", name)}
          beside={(one) => (
            <>
              <button type="button" class="quiet" onClick={() => show(one.name)}>Users</button>
              {users?.name === one.name && (
                <p class="note">{users.ids.join(", ") || "nobody found"}{users.hasMore && " …"}</p>
              )}
            </>
          )}
        >
          <Field label="Who">
            <select value={segment.kind} onChange={(event) => setSegment({ ...segment, kind: event.currentTarget.value as Kind })}>
              {Object.entries(KINDS).map(([kind, text]) => <option key={kind} value={kind}>{text}</option>)}
            </select>
          </Field>
          <Field label="Rule, item or query">
            <input value={segment.text} required class="long" placeholder={EXAMPLES[segment.kind]} maxLength={2500} spellcheck={false} onInput={(event) => setSegment({ ...segment, text: event.currentTarget.value })} />
          </Field>
        </SavedThings>
      </div>
    </details>
  );
};
