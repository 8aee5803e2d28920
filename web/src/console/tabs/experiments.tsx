/** Experiments: what each arm has shown so far, and what may be said of it; start and stop. */

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { ask, when } from "../ask";
import { type Configuration, type Saved, cleaned, inWords } from "../configuration";
import { ConfigurationForm, useNamed } from "../configuration_form";
import { Asking, Choices, Field, NameInput, Problem, counted, useGuard } from "../parts";

interface Arm {
  name: string;
  share?: number;
  configuration?: Configuration;
}
interface Plan {
  placement: string;
  arms: Arm[];
  metric?: string;
  guardrail?: { metric: string; tolerated?: number } | null;
  horizon_s?: number;
  days?: number;
}
interface Experiment {
  name: string;
  plan: Plan;
  startedAt: number;
  stoppedAt: number | null;
  endedArms: Record<string, number>;
}
interface ArmReport {
  name: string;
  share: number;
  users: number;
  complete: number;
  mean: number;
  difference: number | null;
  low: number | null;
  high: number | null;
  verdict: string;
}
interface Report {
  state: string;
  endsAt: number;
  metric: string;
  horizonS: number;
  arms: ArmReport[];
  sampleRatioP: number;
  conclusion: string;
}

const METRICS: Readonly<Record<string, string>> = {
  click: "users who clicked", conversion: "users who bought", clicks: "clicked items a user", value: "value a user",
};
const EVERY_MS = 10_000;
const path = (name: string, rest = ""): string => `/experiments/${encodeURIComponent(name)}${rest}`;
const signed = (n: number | null): string => (n === null ? "–" : `${n < 0 ? "−" : "+"}${Math.abs(n).toFixed(4)}`);
const span = (seconds: number): string =>
  seconds % 86_400 === 0 ? `${seconds / 86_400} days` : seconds % 3600 === 0 ? `${seconds / 3600} h` : `${seconds} s`;

/** The difference with what is certain of it, beside that of no difference. */
const Interval = ({ arm, most }: { arm: ArmReport; most: number }): JSX.Element | null =>
  arm.low === null || arm.high === null ? null : (
    <svg class={`interval ${arm.verdict}`} viewBox="-100 0 200 10" preserveAspectRatio="none" aria-hidden="true">
      <path class="axis" d="M0 0V10" />
      <path d={`M${(arm.low / most) * 98} 5H${(arm.high / most) * 98}`} />
      <circle cx={((arm.difference ?? 0) / most) * 98} cy="5" r="2.5" />
    </svg>
  );

const Shown = ({ one, onChange }: { one: Experiment; onChange: () => void }): JSX.Element => {
  const [report, setReport] = useState<Report | null>(null);
  const [done, setDone] = useState("");
  const [error, guard] = useGuard();
  useEffect(() => {
    const read = async (): Promise<void> => setReport((await ask<Report>("GET", path(one.name))).body);
    guard(read);
    const timer = setInterval(() => document.hidden || guard(read), EVERY_MS);
    return () => clearInterval(timer);
  }, [one]);
  const stop = async (): Promise<void> => {
    await ask("POST", path(one.name, "/stop"));
    setDone(`${one.name} is stopped: within a second ${one.plan.placement} answers as it is configured.`);
    onChange();
  };
  const keep = async (arm: Arm): Promise<void> => {
    const { body } = await ask<Saved>("PUT", `/placements/${encodeURIComponent(one.plan.placement)}`, arm.configuration);
    setDone(`${one.plan.placement} is configured as the arm ${arm.name}: version ${body.version}.`);
  };
  const most = Math.max(...(report?.arms ?? []).flatMap((arm) => [Math.abs(arm.low ?? 0), Math.abs(arm.high ?? 0)]), 1e-9);
  const isBroken = report !== null && report.sampleRatioP < 0.001;
  return (
    <section class="detail" aria-labelledby="experiment-title">
      <h2 id="experiment-title">
        {one.name} <span class={`status ${one.stoppedAt === null ? "good" : ""}`} id="state">{one.stoppedAt === null ? "running" : "stopped"}</span>
      </h2>
      <Problem text={error} />
      {report && <p id="conclusion" class={isBroken ? "error" : ""}><strong>{report.conclusion}</strong></p>}
      <dl class="facts">
        <dt>Placement</dt><dd>{one.plan.placement}</dd>
        <dt>Compares</dt><dd>{METRICS[one.plan.metric ?? "click"]}, by outcomes within {span(one.plan.horizon_s ?? 86_400)} of the first list</dd>
        <dt>Started</dt><dd>{when(one.startedAt)}</dd>
        <dt>{one.stoppedAt === null ? "Ends by itself" : "Ended"}</dt><dd>{when(one.stoppedAt ?? report?.endsAt)}</dd>
        {one.plan.guardrail && (
          <>
            <dt>Must not harm</dt>
            <dd>{METRICS[one.plan.guardrail.metric]}, by more than {one.plan.guardrail.tolerated ?? 0}</dd>
          </>
        )}
        {report && (
          <>
            <dt>Split as configured</dt>
            <dd id="ratio">{isBroken ? "no: trust nothing of this" : "yes"} (p = {report.sampleRatioP.toPrecision(2)})</dd>
          </>
        )}
      </dl>
      {report && (
        <div class="wide" role="region" aria-label="Arms" tabIndex={0}>
          <table id="arms">
            <thead>
              <tr><th>Arm</th><th>Share</th><th>Users</th><th>Complete</th><th>Mean</th><th>Difference</th><th>Between</th><th /><th>Verdict</th></tr>
            </thead>
            <tbody>
              {report.arms.map((arm) => (
                <tr key={arm.name}>
                  <td>{arm.name}</td>
                  <td>{(arm.share * 100).toFixed(0)} %</td>
                  <td>{arm.users.toLocaleString("en")}</td>
                  <td>{arm.complete.toLocaleString("en")}</td>
                  <td>{arm.mean.toFixed(4)}</td>
                  <td>{signed(arm.difference)}</td>
                  <td>{arm.low === null ? "" : `${signed(arm.low)} and ${signed(arm.high)}`}</td>
                  <td><Interval arm={arm} most={most} /></td>
                  <td><span class={`status ${arm.verdict === "better" ? "good" : arm.verdict === "worse" || arm.verdict === "ended" ? "bad" : ""}`}>{arm.verdict}</span></td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      <p class="note">
        The true difference lies between both at all times together with a probability of 95 %: look as often as you like.
      </p>
      <h3>Arms</h3>
      <ul class="named">
        {one.plan.arms.map((arm, place) => (
          <li key={arm.name}>
            <span>
              <b>{arm.name}</b> {place === 0 && <small>control</small>}{" "}
              <small>{arm.configuration ? inWords(arm.configuration) : "as the placement is configured"}{arm.name in one.endedArms && `; ended ${when(one.endedArms[arm.name])}`}</small>
            </span>
            {arm.configuration && (
              <Asking
                text="Keep…" question={`Save the configuration of ${arm.name} as that of ${one.plan.placement}, for everybody?`}
                onYes={() => guard(() => keep(arm))}
              />
            )}
          </li>
        ))}
      </ul>
      {one.stoppedAt === null && (
        <p class="line">
          <Asking text="Stop…" id="stop" question={`Stop ${one.name}? Its report stays.`} onYes={() => guard(stop)} />
        </p>
      )}
      <p role="status" id="done">{done}</p>
    </section>
  );
};

const Start = ({ onStart }: { onStart: (name: string) => void }): JSX.Element => {
  const [placements, setPlacements] = useState<Saved[] | null>(null);
  const [name, setName] = useState("");
  const [plan, setPlan] = useState<Plan>({ placement: "", arms: [{ name: "control" }, { name: "challenger" }], metric: "click", days: 30, horizon_s: 86_400 });
  const [error, guard] = useGuard();
  const named = useNamed();
  useEffect(
    () => guard(async () => setPlacements((await ask<{ placements: Saved[] }>("GET", "/placements")).body.placements)),
    [],
  );
  const set = (more: Partial<Plan>): void => setPlan({ ...plan, ...more });
  const setArm = (place: number, more: Partial<Arm>): void =>
    set({ arms: plan.arms.map((arm, at) => (at === place ? { ...arm, ...more } : arm)) });
  const configured = placements?.find((one) => one.name === plan.placement)?.configuration ?? {};
  const start = async (): Promise<void> => {
    const arms = plan.arms.map((arm) => ({ ...arm, ...(arm.configuration && { configuration: cleaned(arm.configuration) }) }));
    await ask("POST", path(name, "/start"), { ...plan, arms });
    onStart(name);
  };
  const metrics = Object.entries(METRICS).map(([id, text]) => <option key={id} value={id}>{text}</option>);
  const number = (label: string, value: number | undefined, onValue: (n: number) => void, min: number): JSX.Element => (
    <Field label={label}>
      <input
        type="number" class="amount" step="any" min={min} value={value} required
        onInput={(event) => { if (event.currentTarget.value !== "") onValue(Number(event.currentTarget.value)); }}
      />
    </Field>
  );
  return (
    <section class="detail" aria-labelledby="start-title">
      <h2 id="start-title">A new experiment</h2>
      {placements && (
        <p class="note">
          It splits the users of a placement into arms with a configuration each, and tells which does better.
          {placements.length === 0 && <> Make a placement first, in <a href="#placements">Placements</a>.</>}
        </p>
      )}
      <form id="start" onSubmit={(event) => event.preventDefault()}>
        <div class="question">
          <Field label="Name">
            <NameInput value={name} onChange={setName} />
          </Field>
          <Field label="Placement">
            <select value={plan.placement} onChange={(event) => set({ placement: event.currentTarget.value })}>
              <option value="">choose</option>
              {(placements ?? []).map((one) => <option key={one.name}>{one.name}</option>)}
            </select>
          </Field>
          <Field label="Compare">
            <select value={plan.metric} onChange={(event) => set({ metric: event.currentTarget.value })}>{metrics}</select>
          </Field>
          <Field label="Must not harm">
            <select
              value={plan.guardrail?.metric ?? ""}
              onChange={(event) => set({ guardrail: event.currentTarget.value ? { metric: event.currentTarget.value, tolerated: plan.guardrail?.tolerated ?? 0.01 } : null })}
            >
              <option value="">nothing</option>
              {metrics}
            </select>
          </Field>
          {plan.guardrail && number("by more than", plan.guardrail.tolerated, (tolerated) => set({ guardrail: { ...plan.guardrail!, tolerated } }), 0)}
          {number("Hours that a user counts", (plan.horizon_s ?? 0) / 3600, (hours) => set({ horizon_s: Math.max(1, Math.round(hours * 3600)) }), 0)}
          {number("Days until it ends", plan.days, (days) => set({ days }), 0)}
        </div>
        {plan.arms.map((arm, place) => (
          <fieldset key={place} class="arm">
            <legend>{place ? `Arm ${place + 1}` : "Control"}</legend>
            <div class="question">
              <Field label="Name">
                <input value={arm.name} required maxLength={64} spellcheck={false} onInput={(event) => setArm(place, { name: event.currentTarget.value })} />
              </Field>
              {number("Share of users", arm.share ?? 1, (share) => setArm(place, { share }), 0)}
              <label class="box">
                <input
                  type="checkbox" checked={arm.configuration !== undefined} name="own"
                  onChange={(event) => setArm(place, { configuration: event.currentTarget.checked ? structuredClone(configured) : undefined })}
                />
                A configuration of its own
              </label>
              {place > 1 && <button type="button" onClick={() => set({ arms: plan.arms.filter((_, at) => at !== place) })}>Remove</button>}
            </div>
            {arm.configuration && (
              <ConfigurationForm value={arm.configuration} named={named} onChange={(configuration) => setArm(place, { configuration })} />
            )}
          </fieldset>
        ))}
        <p class="line">
          {plan.arms.length < 10 && <button type="button" onClick={() => set({ arms: [...plan.arms, { name: `arm-${plan.arms.length + 1}` }] })}>+ arm</button>}
        </p>
        <Problem text={error} />
        <p class="line actions">
          <Asking
            text="Start…" isMain id="start-button" question={`Split the users of ${plan.placement || "the placement"} into ${plan.arms.length} arms?`}
            onYes={() => guard(start)}
          />
        </p>
      </form>
    </section>
  );
};

/** The tab of experiments. */
export const Experiments = (): JSX.Element => {
  const [all, setAll] = useState<Experiment[] | null>(null);
  const [picked, setPicked] = useState<string | null>(null);
  const [error, guard] = useGuard();
  const read = async (): Promise<void> => {
    const { experiments } = (await ask<{ experiments: Experiment[] }>("GET", "/experiments")).body;
    setAll(experiments.sort((one, other) => other.startedAt - one.startedAt));
  };
  useEffect(() => guard(read), []);
  const shown = all?.find((one) => one.name === picked);
  return (
    <>
      <Problem text={error} />
      <div class="aside">
        <section aria-labelledby="experiments-title">
          <h2 id="experiments-title">{all ? counted(all.length, "experiment") : "…"}</h2>
          <Choices all={all ?? []} picked={picked ?? undefined} onPick={(one) => setPicked(one.name)}>
            {(one) => `${one.plan.placement}, ${one.plan.arms.length} arms, ${one.stoppedAt === null ? "running" : "stopped"}`}
          </Choices>
          <p class="line"><button type="button" id="new" aria-pressed={picked === null} onClick={() => setPicked(null)}>New experiment</button></p>
        </section>
        {shown ? (
          <Shown key={shown.name + shown.startedAt} one={shown} onChange={() => guard(read)} />
        ) : (
          <Start onStart={(name) => guard(async () => { await read(); setPicked(name); })} />
        )}
      </div>
    </>
  );
};
