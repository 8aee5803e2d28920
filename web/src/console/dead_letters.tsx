/** Dead letters: what was refused and why, its bytes, replay and discard. */

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { ask } from "./ask";
import { Asking, Problem, counted, useGuard } from "./parts";

interface Letter {
  partition: number;
  offset: number;
  at: number;
  stage: string;
  reason: string;
  detail: string;
  group: string;
  source: string;
  payload: string;
  payloadBytes: number;
}
interface Replayed {
  sent: number;
  kept: { source: string; reason: string }[];
}

const MOST = 100;

/** The bytes as text, where they are such; what is not, as escapes. */
const inText = (payload: string): string => {
  const bytes = Uint8Array.from(atob(payload), (letter) => letter.charCodeAt(0));
  const text = new TextDecoder().decode(bytes);
  return text.replace(/[^\x20-\x7e\u00a0-\uffff\n]/g, (letter) =>
    `\\x${letter.charCodeAt(0).toString(16).padStart(2, "0")}`);
};

const Bytes = ({ letter }: { letter: Letter }): JSX.Element => (
  <details>
    <summary>{letter.payloadBytes.toLocaleString("en")} bytes</summary>
    <pre>{inText(letter.payload)}</pre>
    {letter.payloadBytes > 4096 && <p class="note">The first 4,096 of them.</p>}
  </details>
);

/** Letters that wait, the oldest first. */
export const DeadLetters = ({ when }: { when: (seconds: number) => string }): JSX.Element => {
  const [letters, setLetters] = useState<Letter[] | null>(null);
  const [done, setDone] = useState("");
  const [error, guard] = useGuard();
  const read = async (): Promise<void> => {
    setLetters((await ask<{ letters: Letter[] }>("GET", `/dead-letters?num_results=${MOST}`)).body.letters);
  };
  useEffect(() => guard(read), []);
  const handle = (action: "replay" | "discard", some: readonly Letter[]): void =>
    guard(async () => {
      setDone("");
      const places = some.map(({ partition, offset }) => ({ partition, offset }));
      const { body } = await ask<Replayed & { discarded: number }>(
        "POST", `/dead-letters/${action}`, { letters: places },
      );
      setDone(
        action === "discard"
          ? `Discarded: ${body.discarded}.`
          : `Sent again: ${body.sent}.${body.kept.map((one) => ` ${one.source} was not: ${one.reason}.`).join("")}`,
      );
      await read();
    });
  return (
    <section aria-labelledby="letters-title" id="letters">
      <h2 id="letters-title">
        Refused: {letters === null ? "…" : letters.length === MOST ? `${MOST} or more dead letters` : counted(letters.length, "dead letter")}
      </h2>
      <p class="note">
        What could not be decoded, validated or applied. A replay sends it to its topic again; what fails again comes back.
      </p>
      <p class="line">
        <button type="button" onClick={() => guard(read)}>Look again</button>
        {letters && letters.length > 0 && (
          <>
            <Asking
              text="Replay all…" question={`Send ${counted(letters.length, "message")} again?`}
              onYes={() => handle("replay", letters)}
            />
            <Asking
              text="Discard all…" question={`Let ${counted(letters.length, "message")} be, without effect?`}
              onYes={() => handle("discard", letters)}
            />
          </>
        )}
        <span role="status" id="letters-done">{done}</span>
      </p>
      <Problem text={error} />
      <ul class="letters">
        {(letters ?? []).map((one) => (
          <li key={`${one.partition}/${one.offset}`}>
            <p><strong>{one.reason}</strong> <span>{one.detail}</span></p>
            <p class="note">
              {when(one.at)} · {one.source} · given up by {one.stage}{one.group && ` · group ${one.group}`}
            </p>
            <Bytes letter={one} />
            <p class="line">
              <Asking
                text="Replay…" question={`Send it to ${one.source.split("/")[0]} again?`} onYes={() => handle("replay", [one])}
              />
              <Asking
                text="Discard…" question="Let it be, without effect?" onYes={() => handle("discard", [one])}
              />
            </p>
          </li>
        ))}
      </ul>
    </section>
  );
};
