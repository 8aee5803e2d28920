/** Access: API keys, which are created, listed and revoked; and the newest entries of the audit log. */

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { ask, when } from "../ask";
import { Asking, AskingForm, Field, Problem, useGuard } from "../parts";

interface Key {
  id: string;
  name: string;
  roles: string[];
  groups: string[];
  origins: string[];
  createdAt: number;
  expiresAt: number | null;
  perSecond: number;
  perDay: number;
  madeBy: string;
  isSession: boolean;
}
interface Entry {
  at: number;
  actor: string;
  name: string;
  action: string;
  group: string;
  targets: string[];
  address: string;
}

const ROLES = ["send", "read", "manage", "operate"];
const EMPTY = { name: "", groups: "", origins: "", days: "", perSecond: "", perDay: "" };
const LABELS = {
  name: "Name", groups: "In the dataset groups", origins: "From the origins, if public", days: "For days",
  perSecond: "Requests a second", perDay: "Requests a day",
};

const words = (text: string): string[] => text.split(/[\s,]+/).filter(Boolean);

const limits = (key: Key): string =>
  [
    ...key.origins,
    ...(key.perSecond ? [`${key.perSecond}/s`] : []),
    ...(key.perDay ? [`${key.perDay}/day`] : []),
  ].join(", ");

const KeyForm = ({ onCreated }: { onCreated: (text: string) => void }): JSX.Element => {
  const [given, setGiven] = useState(EMPTY);
  const [roles, setRoles] = useState<string[]>([]);
  const [error, guard] = useGuard();
  const create = async (): Promise<void> => {
    const { body } = await ask<{ secret: string }>("POST", "/keys", {
      name: given.name,
      roles,
      ...(given.groups && { groups: words(given.groups) }),
      ...(given.origins && { origins: words(given.origins) }),
      ...(given.days && { days: Number(given.days) }),
      ...(given.perSecond && { perSecond: Number(given.perSecond) }),
      ...(given.perDay && { perDay: Number(given.perDay) }),
    });
    setGiven(EMPTY);
    setRoles([]);
    onCreated(body.secret);
  };
  const field = (name: keyof typeof EMPTY): JSX.Element => (
    <Field key={name} label={LABELS[name]}>
      <input
        name={name} value={given[name]} required={name === "name"} maxLength={2000}
        inputMode={["days", "perSecond", "perDay"].includes(name) ? "decimal" : "text"}
        spellcheck={false} autocomplete="off"
        onInput={(event) => setGiven({ ...given, [name]: event.currentTarget.value })}
      />
    </Field>
  );
  return (
    <>
      <AskingForm
        id="create" text="Create…" onYes={() => guard(create)}
        question={`Create a key for ${given.name} that may ${roles.join(", ") || "do nothing"}?`}
      >
        {field("name")}
        <fieldset class="boxes">
          <legend>It may</legend>
          {ROLES.map((role) => (
            <label class="box" key={role}>
              <input
                type="checkbox" name={role} checked={roles.includes(role)}
                onChange={({ currentTarget: { checked } }) =>
                  setRoles(checked ? [...roles, role] : roles.filter((one) => one !== role))}
              />
              {role}
            </label>
          ))}
        </fieldset>
        {(["groups", "origins", "days", "perSecond", "perDay"] as const).map(field)}
      </AskingForm>
      <Problem text={error} />
    </>
  );
};

const Audit = (): JSX.Element => {
  const [entries, setEntries] = useState<Entry[] | null>(null);
  const [error, guard] = useGuard();
  const read = async (): Promise<void> => {
    setEntries((await ask<{ entries: Entry[] }>("GET", "/audit")).body.entries);
  };
  useEffect(() => guard(read), []);
  return (
    <section aria-labelledby="audit-title">
      <h2 id="audit-title">Audit log</h2>
      <p class="line">
        <button type="button" id="again" onClick={() => guard(read)}>Read again</button>
        <span class="note">
          {entries?.length === 0 ? "Nobody has changed anything yet." : <>The newest; <code>recommender audit</code> shows all.</>}
        </span>
      </p>
      <Problem text={error} />
      {entries !== null && entries.length > 0 && (
      <div class="wide" role="region" aria-label="Entries of the audit log" tabIndex={0}>
        <table id="audit">
          <thead><tr><th>When</th><th>Who</th><th>What</th><th>Group</th><th>To</th><th>From</th></tr></thead>
          <tbody>
            {entries.map((one, place) => (
              <tr key={entries.length - place}>
                <td>{when(one.at)}</td>
                <td>{one.name || "everybody"} <small>{one.actor}</small></td>
                <td>{one.action}</td>
                <td>{one.group}</td>
                <td>{one.targets.join(", ")}</td>
                <td>{one.address}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      )}
    </section>
  );
};

/** The tab of access. */
export const Access = (): JSX.Element => {
  const [keys, setKeys] = useState<Key[] | null>(null);
  const [secret, setSecret] = useState("");
  const [error, guard] = useGuard();
  const read = async (): Promise<void> => {
    setKeys((await ask<{ keys: Key[] }>("GET", "/keys")).body.keys);
  };
  useEffect(() => guard(read), []);
  const revoke = async (key: Key): Promise<void> => {
    await ask("DELETE", `/keys/${encodeURIComponent(key.id)}`);
    await read();
  };
  return (
    <>
      <section aria-labelledby="keys-title">
        <h2 id="keys-title">API keys</h2>
        <KeyForm onCreated={(text) => { setSecret(text); guard(read); }} />
        {secret && (
          <p class="line" role="status" id="secret">
            Shown once, keep it: <code>{secret}</code>
            <button type="button" onClick={() => guard(() => navigator.clipboard.writeText(secret))}>Copy</button>
            <button type="button" onClick={() => setSecret("")}>Hide</button>
          </p>
        )}
        <Problem text={error} />
        {keys?.length === 0 && <p class="note">None. Without keys, everybody who reaches this API may do everything.</p>}
        {keys !== null && keys.length > 0 && (
        <div class="wide" role="region" aria-label="Keys" tabIndex={0}>
          <table id="keys">
            <thead>
              <tr>
                <th>Name</th><th>Roles</th><th>Groups</th><th>Bound to</th><th>Created</th><th>Ends</th><th>Made by</th><th />
              </tr>
            </thead>
            <tbody>
              {keys.map((key) => (
                <tr key={key.id} data-key={key.id}>
                  <td>{key.name} <small>{key.isSession ? `login ${key.id}` : key.id}</small></td>
                  <td>{key.roles.join(", ")}</td>
                  <td>{key.groups.join(", ")}</td>
                  <td>{limits(key)}</td>
                  <td>{when(key.createdAt)}</td>
                  <td>{when(key.expiresAt)}</td>
                  <td>{key.madeBy || "a command"}</td>
                  <td>
                    <Asking text="Revoke…" question={`Revoke ${key.name}?`} onYes={() => guard(() => revoke(key))} />
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
        )}
      </section>
      <Audit />
    </>
  );
};
